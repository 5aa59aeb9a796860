"""The suite passes on a right host, each test fails where its part is wrong, and files and exit
code say so.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from picochat.cli.main import run_command
from picochat.config import RuntimeConfig
from picochat.core.errors import HostProblem, WrongUsage
from picochat.core.records import read_json
from picochat.sanity import suite
from picochat.sanity.context import Context, Parts, SanityResult, at_most, skipped
from picochat.sanity.suite import (
    SANITY,
    SanityReport,
    SanityRequest,
    SanityTest,
    line_of,
    run_sanity,
    sanity,
)
from tests.sanity.builders import (
    LateLoader,
    MiscountingLoader,
    SignedLoader,
    make_context,
    one_order_for_all_epochs,
    result_of,
    some_rows_twice,
    uncentred,
    wrong,
)

FAULTS = (
    # test, parts of which one is wrong, what the fault stands for
    ("initial_loss", wrong("loud"), "an initialisation that is off by far"),
    ("initial_loss", wrong("no number"), "weights that are no numbers"),
    ("precision_backward", wrong("blurred"), "a kernel that is 1% off"),
    ("precision_backward", wrong("wrong gradient"), "a backward kernel that is 5% off"),
    ("kv_cache_equivalence", wrong("cache"), "a kernel that is wrong for single positions"),
    ("kv_cache_equivalence", wrong("cache of padded rows"), "a mask that hides a whole row"),
    ("resume_determinism", wrong("forgetful"), "a state that is not saved"),
    ("loader_coverage", Parts(rows_of_step=some_rows_twice), "an order that repeats"),
    ("loader_coverage", Parts(rows_of_step=one_order_for_all_epochs), "epochs that overlap"),
    ("device_feed", Parts(device_feed=SignedLoader), "ids read as signed numbers"),
    ("device_feed", Parts(device_feed=LateLoader), "targets that are not the next token"),
    ("device_feed", Parts(device_feed=MiscountingLoader), "a wrong number of targets"),
    ("centred_step", Parts(model=uncentred), "an optimizer without the projection"),
    ("no_host_sync", wrong("waits for a value"), "a step that reads its loss"),
    ("no_host_sync", wrong("waits for a shape"), "a step that selects rows by a mask"),
    ("no_host_sync", wrong("waits for a comparison"), "a step that compares two tensors"),
    ("export_parity", wrong("blurred"), "an export that is another function"),
)
NO_NUMBER = {"no number", "cache of padded rows"}


def test_every_test_passes_or_says_why_it_was_skipped_and_the_report_is_whole(
    tmp_path: Path,
) -> None:
    request = SanityRequest(tmp_path / "out", RuntimeConfig(threads=1), False, None, None, 0.1)
    report = sanity(request)
    status = {result.name: result.status for result in report.results}
    assert list(status) == [test.name for test in SANITY]
    skipped = {name for name in status if status[name] == "skipped"}
    # export_parity is skipped where transformers is not installed
    assert skipped - {"export_parity"} == {"torch_compile", "compiled_optimizer", "scale_capacity"}
    assert {status[name] for name in status if name not in skipped} == {"pass"}, report.results
    assert report.passed and all(result.message for result in report.results)
    record = read_json(tmp_path / "out" / "preh100_sanity.json")
    assert record["status"] == "pass" and record["machine"]["cores"] >= 1
    assert [row["name"] for row in record["results"]] == list(status)
    page = (tmp_path / "out" / "preh100_sanity.md").read_text()
    assert all(test.name in page for test in SANITY)


@pytest.mark.parametrize(
    ("name", "parts"),
    [(name, parts) for name, parts, _ in FAULTS],
    ids=[f"{name}: {fault}" for name, _, fault in FAULTS],
)
def test_a_wrong_part_fails_its_test(name: str, parts: Parts) -> None:
    if name == "export_parity":
        pytest.importorskip("transformers")
    result = result_of(name, make_context(parts=parts))
    assert result.status == "fail" and result.bound and result.message, result
    number = not any(getattr(parts.model(0), "fault", None) == fault for fault in NO_NUMBER)
    assert (result.measured is not None) == number, result


def test_every_test_has_a_fault_that_fails_it() -> None:
    elsewhere = {"attention_backend", "torch_compile", "compiled_optimizer"}  # test_numerics
    elsewhere.add("scale_capacity")  # test_host
    assert {name for name, _, _ in FAULTS} | elsewhere == {test.name for test in SANITY}
    assert all(test.because for test in SANITY)


# ---- results -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measured", "status", "shown"),
    [
        (0.0, "pass", 0.0),
        (0.5, "pass", 0.5),
        (0.51, "fail", 0.51),
        (float("nan"), "fail", None),
        (float("inf"), "fail", None),
        (float("-inf"), "pass", None),
    ],
)
def test_only_a_number_within_the_bound_passes(
    measured: float, status: str, shown: float | None
) -> None:
    result = at_most("some", measured, 0.5, "what")
    assert (result.status, result.measured, result.bound) == (status, shown, "<= 0.5")


def broken(error: Exception) -> SanityTest:
    def run(context: Context) -> SanityResult:
        raise error

    return SanityTest("broken", run, "why")


PASSES = SanityTest("right", lambda context: at_most("right", 1e-9, 0.5, "error"), "why")
FAILS = SanityTest("wrong", lambda context: at_most("wrong", 0.75, 0.5, "error | more"), "why")
SKIPPED = SanityTest("absent", lambda context: skipped("absent", "not installed"), "why")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("kernel image is invalid\nand more"), "kernel image is invalid"),
        (RuntimeError(), "RuntimeError"),
        (HostProblem("no attention works"), "no attention works"),
    ],
)
def test_a_test_that_raises_has_failed_and_the_others_still_run(
    error: Exception, message: str
) -> None:
    said: list[SanityResult] = []
    results = run_sanity(make_context(), said.append, (broken(error), PASSES))
    assert [result.status for result in results] == ["fail", "pass"]
    assert (results[0].name, results[0].message, results[0].measured) == ("broken", message, None)
    assert said == results


def test_a_fault_of_the_suite_itself_is_not_taken_for_a_result() -> None:
    with pytest.raises(KeyError):
        run_sanity(make_context(), lambda _: None, (broken(KeyError("name")),))


def test_each_result_is_printed_as_soon_as_it_is_known() -> None:
    said: list[str] = []

    def last(context: Context) -> SanityResult:
        said.append("last begins")
        return skipped("last", "why not")

    run_sanity(
        make_context(),
        lambda result: said.append(result.name),
        (PASSES, SanityTest("last", last, "why")),
    )
    assert said == ["right", "last begins", "last"]


def test_a_line_says_status_name_value_bound_and_time() -> None:
    result = at_most("some_test", 0.123456, 0.5, "what it is").model_copy(update={"seconds": 1.25})
    assert line_of(result).split() == [
        *("pass", "some_test", "0.123", "<=", "0.5"),
        *("what", "it", "is", "(1.2s)"),
    ]
    assert line_of(skipped("other", "not installed")).startswith("skipped  other ")


# ---- the report and the exit code ----------------------------------------------------------------


def request_to(folder: Path, scale: str | None = None) -> SanityRequest:
    return SanityRequest(folder, RuntimeConfig(threads=1), False, scale, None, 0.1)


def test_a_failed_test_fails_the_report_by_name(tmp_path: Path) -> None:
    report = sanity(request_to(tmp_path), (PASSES, FAILS, SKIPPED))
    assert not report.passed
    assert report.lines() == [f"sanity failed: wrong: {tmp_path / 'preh100_sanity.md'}"]
    record = read_json(tmp_path / "preh100_sanity.json")
    assert (record["schema_version"], record["status"], record["capacity_scale"]) == (
        suite.SCHEMA_VERSION,
        "fail",
        None,
    )
    rows = {row["name"]: row for row in record["results"]}
    assert (rows["wrong"]["status"], rows["wrong"]["measured"], rows["wrong"]["bound"]) == (
        "fail",
        0.75,
        "<= 0.5",
    )
    assert (rows["absent"]["status"], rows["absent"]["measured"]) == ("skipped", None)
    assert record["runtime"]["device"] == "cpu"
    page = (tmp_path / "preh100_sanity.md").read_text().splitlines()
    assert page[0] == "# Sanity: fail"
    assert "torch" in page[2] and "cores" in page[2] and "float32" in page[2]
    assert "| pass | right | 1e-09 | <= 0.5 | error |" in page
    assert "| skipped | absent |  |  | not installed |" in page


def test_a_skipped_test_neither_passes_nor_fails_the_suite(tmp_path: Path) -> None:
    report = SanityReport([skipped("absent", "not installed")], tmp_path)
    assert report.passed
    assert report.lines()[0].startswith("sanity passed: ")


def test_an_unknown_scale_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(WrongUsage):
        sanity(request_to(tmp_path / "out", "h100-101m"))
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_known_before_the_tests(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    ran: list[str] = []
    table = (SanityTest("ran", lambda context: ran.append("ran") or skipped("ran", ""), "why"),)
    with pytest.raises(FileExistsError):
        sanity(request_to(tmp_path / "taken"), table)
    assert ran == []


@pytest.mark.parametrize(("passed", "code"), [(True, 0), (False, 3)])
def test_the_exit_code_is_3_where_a_test_fails(
    passed: bool, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: object
) -> None:
    seen: list[SanityRequest] = []

    def of_request(request: SanityRequest) -> SanityReport:
        seen.append(request)
        return sanity(request, (PASSES,) if passed else (FAILS,))

    monkeypatch.setattr(suite, "sanity", of_request)
    command = ["sanity", "preh100", "--device", "cpu", "--out-dir", str(tmp_path)]
    options = ["--capacity-min-free-fraction", "0.25", "--gpu-hour-usd", "2.5"]
    assert run_command([*command, *options, "--capacity-batch-size", "4"]) == code
    (request,) = seen
    assert (request.min_free_fraction, request.gpu_hour_usd) == (0.25, 2.5)
    assert (request.capacity_sequences, request.capacity_scale) == (4, None)
    assert request.runtime.precision == "float32" and not request.include_compile
    assert (tmp_path / "preh100_sanity.md").exists()


def test_settings_that_do_not_exist_are_wrong_usage(tmp_path: Path) -> None:
    command = ["sanity", "preh100", "--out-dir", str(tmp_path), "--device", "cpu"]
    assert run_command([*command, "--precision", "float8"]) == 2
    assert run_command([*command, "--capacity-scale", "none-such"]) == 2
