"""An import that is refused, its remedy done as it is written, and the command given again."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from picochat.cli.main import run_command
from picochat.config import ExternalConfig
from picochat.core.errors import BadInput, HubProblem, WrongUsage
from picochat.core.network import open_client
from picochat.data.benchmarks.resolve import local_benchmark, wanted_benchmarks
from picochat.data.importing import distributed_import, hf_import
from picochat.data.importing.hf_import import import_dataset
from picochat.data.importing.hub import RetryPolicy
from tests.data.builders import folder_bytes, parquet_bytes, parquet_files, request, serving
from tests.data.test_hostile_input import GOOD, REFUSED, file, good_lines, lines, zstd
from tests.fake_hub import FakeHub

ONCE = RetryPolicy(attempts=1, first_pause_s=0.01)
Make = Callable[[Path], object]
Repair = Callable[[Path, str], list[str]]
"""(folder of the data, the remedy) -> options that the command is given beside its own."""


def fix_of(said: str) -> str:
    found = re.findall(r"fix: (.*)", said)
    assert found, said
    return found[-1]


def written(name: str, content: bytes | str) -> Repair:
    """Fetch, write or repair the file."""

    def repair(data: Path, fix: str) -> list[str]:
        file(name, content)(data)
        return []

    return repair


def left_out(name: str) -> Repair:
    """Remove a file, or move it out of the folder; there is another."""

    def repair(data: Path, fix: str) -> list[str]:
        (data / name).rename(data.with_name("left out"))
        (data / "good.jsonl").write_bytes(good_lines())
        return []

    return repair


def pasted(data: Path, fix: str) -> list[str]:
    """The command of the remedy, in a shell in the dataset's folder."""
    command = fix[fix.index(": ") + 2 :] if ": " in fix else fix
    subprocess.run(["bash", "-o", "pipefail", "-ec", command], cwd=data, check=True)
    return []


def options(*words: str) -> Repair:
    return lambda data, fix: list(words)


def one_of(option: str) -> Repair:
    """The option with the first of the values that the remedy lists."""
    return lambda data, fix: [option, fix.rpartition(": ")[2].split(", ")[0]]


def without_the_card(data: Path, fix: str) -> list[str]:
    copy = data.with_name("copy")
    shutil.copytree(data, copy, ignore=shutil.ignore_patterns("README.md"))
    return ["--dataset", str(copy)]


def to_a_file(data: Path, fix: str) -> list[str]:
    (data / "good.jsonl").write_bytes(good_lines())
    return ["--dataset", str(data / "good.jsonl")]


def as_another(name: str, content: bytes | str) -> Repair:
    def repair(data: Path, fix: str) -> list[str]:
        (data.with_name("another")).mkdir()
        file(name, content)(data.with_name("another"))
        return ["--dataset", str(data.with_name("another"))]

    return repair


UTF16 = lines({"text": GOOD[0]}).encode("utf-16")
CASE: dict[str, Make] = {
    **{what: make for what, make, _ in REFUSED},
    "gzip of JSON lines in UTF-16": file("x y.jsonl.gz", gzip.compress(UTF16)),
    "zstd of JSON lines in UTF-16": file("x.jsonl.zst", zstd(UTF16)),
    "no such key": file("x.jsonl", lines({"body": "some words of a text"})),
    "key of numbers": file("x.jsonl", lines({"text": 5, "body": "some words of a text"})),
    "short texts": file("x.jsonl", lines({"text": "short"})),
    "two configs": lambda data: [
        ((data / name).mkdir(), file(f"{name}/train.jsonl", good_lines())(data))
        for name in ("one", "two")
    ],
    "good lines": file("x.jsonl", good_lines()),
    "ending of a file": file("x.pdf", good_lines()),
    "list of JSON that is too large": lambda data: (data / "x.json").write_text(
        json.dumps([{"text": GOOD[0]}, {"blanks": " " * 64_000_000}])
    ),
}
FOLLOWED: list[tuple[str, str, Repair, list[str]]] = [
    # the case, the remedy begins with, what is done, options of the first command
    (
        "parquet without its footer",
        "fetch or write it again",
        written("x.parquet", parquet_bytes(GOOD)),
        [],
    ),
    (
        "gzip cut off",
        "fetch or write it again",
        written("x.jsonl.gz", gzip.compress(good_lines())),
        [],
    ),
    ("gzip bomb", "text does not compress so well; leave the file", left_out("bomb.jsonl.gz"), []),
    ("JSON lines in UTF-16", "iconv -f UTF-16 -t UTF-8 x.jsonl > NEW", pasted, []),
    ("gzip of JSON lines in UTF-16", "gzip -dc 'x y.jsonl.gz' | iconv", pasted, []),
    ("zstd of JSON lines in UTF-16", "zstd -dc x.jsonl.zst | iconv", pasted, []),
    ("list of JSON that is too large", "make JSON lines of it: jq", pasted, []),
    (
        "deeply nested list of JSON",
        "remove the values",
        written("x.json", '[{"text": "x", "n": 1}]'),
        [],
    ),
    ("broken JSON", "repair or remove the line", written("x.jsonl", '{"text": "x"}\n'), []),
    ("column of whole numbers", "leave the file out", left_out("x.parquet"), []),
    ("no such column", "--text-column, or", one_of("--text-column"), []),
    ("column twice", "rename one", written("x.parquet", parquet_bytes(GOOD, other=GOOD)), []),
    ("pipe in the folder", "remove them, or move them out", left_out("pipe.jsonl"), []),
    ("pipe given itself", "give a file, a folder", to_a_file, []),
    ("ending of a file", "known endings", written("x.jsonl", good_lines()), []),
    ("only unknown endings", "name one with files", as_another("x.jsonl", good_lines()), []),
    ("only blank texts", "repair the files or name others", written("x.jsonl", good_lines()), []),
    (
        "parquet without rows",
        "name another --dataset, --config or --split",
        as_another("x.parquet", parquet_bytes(GOOD)),
        [],
    ),
    (
        "no such key",
        "--text-column names the text (now 'text')",
        options("--text-column", "body"),
        [],
    ),
    (
        "key of numbers",
        "--text-column names a column of text (now 'text')",
        options("--text-column", "body"),
        [],
    ),
    (
        "short texts",
        "--min-chars takes shorter texts (now 99)",
        options("--min-chars", "1"),
        ["--min-chars", "99"],
    ),
    ("two configs", "--config one of: one, two", one_of("--config"), []),
    ("two configs", "--config one of: one, two", one_of("--config"), ["--config", "three"]),
    (
        "two configs",
        "--split one of: train",
        one_of("--split"),
        ["--config", "one", "--split", "trian"],
    ),
    ("two configs", "leave --revision out", lambda data, fix: ["LEFT OUT"], ["--revision", "v1"]),
    (
        "broken card",
        "repair README.md; if the dataset",
        written("README.md", "---\na: 1\n---\n"),
        [],
    ),
    ("broken card", "repair README.md; if the dataset", without_the_card, []),
    ("good lines", "leave --config out", lambda data, fix: ["LEFT OUT"], ["--config", "x"]),
    ("good lines", "check the path", to_a_file, ["--dataset", "./no/where"]),
]


@pytest.mark.parametrize(
    ("case", "begins", "repair", "given"),
    FOLLOWED,
    ids=[f"{each[0]}-{number}" for number, each in enumerate(FOLLOWED)],
)
def test_data_that_is_mended_as_told_is_imported(
    case: str,
    begins: str,
    repair: Repair,
    given: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    place = CASE[case](data)
    named = place if isinstance(place, Path) else data
    named = data / "x.pdf" if case == "ending of a file" else named
    command = ["data", "hf-import", "--dataset", str(named), "--out", str(tmp_path / "out/c.txt")]
    command += ["--min-chars", "1"]
    assert run_command([*command, *given]) == 4
    fix = fix_of(capsys.readouterr().err)
    assert fix.startswith(begins)
    more = repair(data, fix)
    if more == ["LEFT OUT"]:
        given, more = (["--config", "one"] if case == "two configs" else []), []
    if case == "ending of a file":
        more = ["--dataset", str(data / "x.jsonl")]
    assert run_command([*command, *given, *more]) == 0, capsys.readouterr().err


def test_pages_of_a_local_copy_become_a_pack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "a copy"
    copy.mkdir()
    (copy / "a.html").write_text(GOOD[0])
    command = ["data", "hf-import", "--dataset", str(copy), "--out", str(tmp_path / "out/c.txt")]
    assert run_command(command) == 4
    fix = fix_of(capsys.readouterr().err)
    words = shlex.split(fix[fix.index("picochat ") : fix.index(" makes a pack")])[1:]
    named = {"COPY": str(copy), "PACK": str(tmp_path / "pack")}
    assert run_command([named.get(word, word) for word in words]) == 0
    assert "1 .html taken" in capsys.readouterr().out


# ---- places and unfinished work ------------------------------------------------------------------


def refused(folder: Path, capsys: pytest.CaptureFixture[str], **changes: object) -> str:
    """The remedy of an import that cannot begin."""
    words = request(folder, **changes)
    options = {"--max-rows": words.max_rows, "--config": words.config, "--seed": words.seed}
    given = [str(word) for pair in options.items() for word in pair if pair[1] is not None]
    places = ["--dataset", words.dataset, "--out", words.out]
    assert run_command(["data", "hf-import", *places, *given]) != 0
    return fix_of(capsys.readouterr().err)


def test_a_work_folder_of_another_request_is_finished_or_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files())
        for name in ("finish", "drop"):
            hub.fail(path="resolve/.*parquet", after=8, times=100, status=403)
            wanted = request(tmp_path / name, document_shard_rows=10)
            with pytest.raises(HubProblem):
                import_dataset(wanted, retry=ONCE, connections=1)
            hub.faults.clear()
            assert list((tmp_path / name).rglob("shard-*")), "some documents are complete"
            fix = refused(tmp_path / name, capsys, max_rows=77)
            assert fix == "repeat that request to finish it, or --force to drop it"
        finished = import_dataset(request(tmp_path / "finish", document_shard_rows=10))
        assert finished.rows_seen == 400
        assert import_dataset(request(tmp_path / "drop", max_rows=77), force=True).rows_seen == 77


Damage = Callable[[Path], object]
BEGUN: list[tuple[str, Damage]] = [
    ("the files changed", lambda work: append(work.with_name("data") / "a.jsonl", good_lines())),
    ("a line of the journal", lambda work: append(work / "journal.jsonl", b'{"a": 1}\n')),
    ("the digests are cut", lambda work: os.truncate(work / "digests.bin", 1)),
]


def append(path: Path, data: bytes) -> None:
    path.write_bytes(path.read_bytes() + data)


@pytest.mark.parametrize(("what", "damage"), BEGUN, ids=[what for what, _ in BEGUN])
def test_an_import_that_cannot_go_on_begins_again_by_force(
    what: str, damage: Damage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.jsonl").write_bytes(good_lines())
    (tmp_path / "data/b.jsonl").write_text(lines({"text": "some words of a text, at last"}))
    changes: dict[str, object] = {"document_shard_rows": 10, "config": None}
    wanted = request(tmp_path, dataset=str(tmp_path / "data"), **changes)
    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(hf_import, "publish_import", interrupted)
        import_dataset(wanted)
    damage(tmp_path / "documents.work")
    with pytest.raises((BadInput, WrongUsage)) as caught:
        import_dataset(wanted)
    assert caught.value.fix == "--force begins again"
    assert import_dataset(wanted, force=True).rows_written == 31


def test_data_that_changes_while_it_is_imported_is_imported_again_by_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_bytes(good_lines())
    wanted = request(tmp_path, dataset=str(data), config=None)

    def changed(*arguments: object) -> None:
        append(data, good_lines())

    with monkeypatch.context() as meanwhile, pytest.raises(BadInput) as caught:
        meanwhile.setattr(hf_import, "require_documents", changed)
        import_dataset(wanted)
    assert caught.value.fix == "--force begins again"
    assert import_dataset(wanted, force=True).rows_written == 30


def interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_documents_of_another_import_are_renamed_or_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files())
        import_dataset(request(tmp_path))
        fix = refused(tmp_path, capsys, max_rows=300)
        assert fix == "--force renames it, or give another --documents-dir"
        other = request(tmp_path, max_rows=300, documents_dir=str(tmp_path / "other"))
        assert import_dataset(other).rows_seen == 300
        assert import_dataset(request(tmp_path, max_rows=300), force=True).rows_seen == 300
    assert (tmp_path / "documents.superseded-1").is_dir()


def test_an_unreadable_report_is_replaced_by_force(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files())
        import_dataset(request(tmp_path))
        (tmp_path / "hf_import_report.json").write_text("{")
        with pytest.raises(BadInput) as caught:
            import_dataset(request(tmp_path))
        assert caught.value.fix == "run the import again with --force"
        assert import_dataset(request(tmp_path), force=True).rows_seen == 400


def test_a_file_of_the_dataset_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/corpus.txt").write_text(GOOD[0])
    fix = refused(tmp_path / "data", capsys, dataset=str(tmp_path / "data"), config=None)
    assert fix == "choose a path outside the dataset"
    wanted = request(tmp_path / "out", dataset=str(tmp_path / "data"), config=None)
    assert import_dataset(wanted).rows_seen == 1


# ---- the Hub -------------------------------------------------------------------------------------


def locked(hub: FakeHub) -> None:
    hub.repos["datasets/owner/name"].gated = True


def private(hub: FakeHub) -> None:
    hub.repos["datasets/owner/name"].private = True


TOKEN = {"HF_TOKEN": "hf_abc"}
ON_THE_HUB: list[
    tuple[str, Callable[[FakeHub], object], dict[str, object], dict[str, object], dict[str, str]]
] = [
    # the remedy begins with, the situation, the wrong request, its mended parts, the environment
    ("accept them at", locked, {}, {}, TOKEN),
    ("check the spelling (owner/name), or set HF_TOKEN", private, {}, {}, TOKEN),
    (
        "check the spelling",
        lambda hub: None,
        {"dataset": "owner/nmae"},
        {"dataset": "owner/name"},
        {},
    ),
    ("--revision a branch", lambda hub: None, {"revision": "v9"}, {"revision": "main"}, {}),
]


@pytest.mark.parametrize(("begins", "situation", "wrong", "mended", "environment"), ON_THE_HUB)
def test_a_request_that_is_mended_as_told_is_answered_by_the_hub(
    begins: str,
    situation: Callable[[FakeHub], object],
    wrong: dict[str, object],
    mended: dict[str, object],
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files())
        situation(hub)
        with pytest.raises(HubProblem) as caught:
            import_dataset(request(tmp_path, **wrong))
        assert str(caught.value.fix).startswith(begins)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert import_dataset(request(tmp_path, **{**wrong, **mended})).rows_seen == 400


@pytest.mark.parametrize("fault", ["no JSON", "no ranges"])
def test_another_endpoint_serves_what_this_one_cannot(fault: str, tmp_path: Path) -> None:
    with FakeHub() as wrong:
        wrong.add_dataset("owner/name", parquet_files())
        wrong.serves_ranges = fault != "no ranges"
        if fault == "no JSON":
            wrong.fail(path="/revision/", cut_after_bytes=5, headers={"Content-Length": "5"})
        with serving(FakeHub()) as right:
            right.add_dataset("owner/name", parquet_files())
            os.environ["HF_ENDPOINT"] = wrong.endpoint
            with pytest.raises(HubProblem) as caught:
                import_dataset(request(tmp_path), retry=ONCE)
            assert caught.value.fix == "see HF_ENDPOINT"
            os.environ["HF_ENDPOINT"] = right.endpoint
            assert import_dataset(request(tmp_path)).rows_seen == 400


def test_a_file_that_left_the_pinned_commit_is_imported_from_the_newest(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files())
        fault = hub.fail(path="resolve/.*parquet", after=2, times=100, status=404)
        fault.headers = {"X-Error-Code": "EntryNotFound"}
        with pytest.raises(HubProblem) as caught:
            import_dataset(request(tmp_path), retry=ONCE)
        assert caught.value.fix == "--force begins again, at the newest revision"
        hub.faults.clear()
        newest = hub.add_dataset("owner/name", parquet_files(rows=300))
        assert import_dataset(request(tmp_path), force=True).revision == newest


# ---- the import by ranks -------------------------------------------------------------------------


def all_steps(folder: Path, **changes: object) -> int:
    wanted = request(folder, **changes)
    for step in (distributed_import.read, distributed_import.decide, distributed_import.write):
        step(wanted, 0, 1)
    return distributed_import.publish(wanted)


def test_steps_begin_again_where_they_were_pinned_by_force(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files())
        distributed_import.pin(request(tmp_path))
        distributed_import.read(request(tmp_path), 0, 1)
        other = request(tmp_path, max_rows=77)
        with pytest.raises(WrongUsage, match="of another request") as caught:
            distributed_import.pin(other)
        assert str(caught.value.fix).endswith("--force to drop it")
        distributed_import.pin(other, force=True)
        assert all_steps(tmp_path, max_rows=77) == 77
        distributed_import.pin(other, force=True)  # also over a finished import of the same request
        assert all_steps(tmp_path, max_rows=77) == 77
        alone = import_dataset(request(tmp_path / "alone", max_rows=77))
    assert alone.rows_written == 77
    assert (tmp_path / "documents.superseded-1").is_dir()
    ranks, one = folder_bytes(tmp_path / "documents"), folder_bytes(tmp_path / "alone/documents")
    assert ranks == one


def test_a_step_that_was_missed_is_done_and_then_the_next(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files())
        wanted = request(tmp_path)
        with pytest.raises(BadInput) as caught:
            distributed_import.read(wanted, 0, 1)
        assert caught.value.fix == "run the pin step first"
        distributed_import.pin(wanted)
        distributed_import.read(wanted, 0, 1)
        with pytest.raises(BadInput) as caught:
            distributed_import.write(wanted, 0, 1)
        assert caught.value.fix == "run the decide step first"
        assert all_steps(tmp_path) == 400


def test_rows_that_cannot_be_divided_are_imported_on_one_machine(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(good_lines())
    wanted = request(tmp_path / "out", dataset=str(tmp_path / "rows.jsonl"), config=None)
    with pytest.raises(WrongUsage) as caught:
        distributed_import.pin(wanted)
    assert caught.value.fix == "import it on one machine, with picochat data hf-import"
    words = ["--dataset", wanted.dataset, "--out", wanted.out]
    assert run_command(["data", "hf-import", *words]) == 0


# ---- the environment, and files of benchmarks ----------------------------------------------------

ENVIRONMENT = [
    # variable, wrong value, the remedy begins with, the value that it asks for (None: unset)
    ("HF_ENDPOINT", "huggingface.co", "export HF_ENDPOINT=https://huggingface.co", None),
    ("HF_ENDPOINT", "huggingface.co", "export HF_ENDPOINT=https", "https://huggingface.co"),
    ("HF_ENDPOINT", "https://u:sEcret@x", "export HF_ENDPOINT=https", "https://x"),
    ("HF_TOKEN", "Bearer hf_abc", "copy the token again", "hf_abc"),
    ("HTTP_PROXY", "http://u:a#b@h:9", "give it as http://HOST:PORT", "http://u:a%23b@h:9"),
    ("SSL_CERT_FILE", "/no/such.pem", "unset SSL_CERT_FILE", None),
    ("HF_HUB_OFFLINE", "1", "unset HF_HUB_OFFLINE", None),
]


@pytest.mark.parametrize(("name", "wrong", "begins", "right"), ENVIRONMENT)
def test_a_variable_that_is_mended_as_told_is_in_nobodys_way(
    name: str, wrong: str, begins: str, right: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in list(os.environ):
        if other.startswith(("HF_", "SSL")) or other.lower().endswith("_proxy"):
            monkeypatch.delenv(other)
    monkeypatch.setenv(name, wrong)
    with pytest.raises(HubProblem) as caught:
        open_client()
    assert str(caught.value.fix).startswith(begins)
    if right is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, right)
    open_client()


def test_a_benchmark_is_a_file_that_holds_its_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"goal": "Cut it.", "sol1": "A saw.", "sol2": "A spoon.", "label": 0}\n'
    )
    with pytest.raises(BadInput) as caught:
        local_benchmark("mine", tmp_path / "rows")
    assert caught.value.fix == "NAME=PATH of a .jsonl or .parquet file"
    local_benchmark("mine", tmp_path / "rows.jsonl")
    with pytest.raises(WrongUsage) as refusal:
        wanted_benchmarks(ExternalConfig(benchmarks=("pika",)))
    name = str(refusal.value.fix).rpartition(": ")[2].split(", ")[-1]
    assert list(wanted_benchmarks(ExternalConfig(benchmarks=(name,)))) == [name]
