"""The sanity table passes on a right host, and each test can fail."""

from pathlib import Path

import pytest
import torch

from picochat.config import RuntimeConfig
from picochat.core.records import read_json
from picochat.model.compute import Compute, open_compute
from picochat.sanity import checks
from picochat.sanity.checks import SANITY, SMALL, Context, SanityResult, run_sanity
from picochat.sanity.report import SanityRequest, sanity
from picochat.scales import Scale, find_scale


def make_context(*, include_compile: bool = False, scale: Scale | None = None) -> Context:
    runtime = RuntimeConfig(threads=1)
    return Context(open_compute(runtime, SMALL), runtime, include_compile, scale, 1, 0.0)


def test_every_test_passes_or_says_why_it_was_skipped() -> None:
    told: list[SanityResult] = []
    results = run_sanity(make_context(), told.append)
    assert told == results and [result.name for result in results] == [test.name for test in SANITY]
    status = {result.name: result.status for result in results}
    assert status.pop("torch_compile") == "skipped" and status.pop("scale_capacity") == "skipped"
    assert set(status.values()) == {"pass"}, status
    assert all(result.message for result in results)


def test_wrong_backend_fails_alone() -> None:
    context = make_context()
    compute = Compute(context.compute.device, context.compute.dtype, "math", 0.5, False)
    wrong = Context(compute, context.runtime, False, None, None, 0.1)
    assert checks.attention_backend(wrong).status == "fail"
    nothing = Context(Compute(compute.device, compute.dtype, "math", None, False), context.runtime, False, None, None, 0.1)
    assert checks.attention_backend(nothing).status == "fail"


def test_broken_host_arithmetic_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A norm that is 5% off stands for a kernel that is wrong: forward still runs, gradients and cache disagree."""
    right = torch.nn.functional.rms_norm

    def wrong(x: torch.Tensor, *rest: object) -> torch.Tensor:
        # Wrong in float32 alone, and by another amount for a single position, as a kernel for short rows might be.
        factor = 1.0 if x.dtype == torch.float64 else 1.05 if x.shape[1] == 1 else 1.02
        return right(x, *rest) * factor  # type: ignore[arg-type]

    monkeypatch.setattr(torch.nn.functional, "rms_norm", wrong)
    failed = [test.name for test in SANITY[2:4] if test.run(make_context()).status == "fail"]
    assert failed == ["precision_backward", "kv_cache_equivalence"]


def test_a_test_that_raises_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(context: Context) -> SanityResult:
        raise RuntimeError("kernel image is invalid\nand more")

    monkeypatch.setattr(checks, "SANITY", (checks.SanityTest("broken", broken, "why"),))
    (result,) = run_sanity(make_context(), lambda _: None)
    assert (result.status, result.message) == ("fail", "kernel image is invalid")


def test_capacity_measures_real_steps_of_the_scale() -> None:
    result = checks.scale_capacity(make_context(scale=find_scale("tiny")))
    assert result.status == "pass" and "tokens/s" in result.message and "base stage" in result.message


def test_report_is_written_whole(tmp_path: Path) -> None:
    request = SanityRequest(tmp_path / "out", RuntimeConfig(threads=1), False, None, None, 0.1)
    report = sanity(request)
    record = read_json(tmp_path / "out" / "preh100_sanity.json")
    assert record["status"] == "pass" and report.passed
    assert len(record["results"]) == len(SANITY) and record["machine"]["cores"] >= 1
    page = (tmp_path / "out" / "preh100_sanity.md").read_text()
    assert all(test.name in page for test in SANITY)
