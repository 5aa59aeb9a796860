"""The sanity suite: one table of tests, run in order, and `preh100_sanity.json` and `.md`.

Each test runs something that can fail. The tests use a small model of the real block, so that they
take seconds; `scale_capacity` alone runs the real scale. A test that cannot run here is `skipped`
with its reason, and is never counted as passed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from picochat.config import RuntimeConfig
from picochat.core.errors import PicochatError
from picochat.core.machine import machine_record
from picochat.core.progress import say
from picochat.core.records import write_atomic, write_json
from picochat.model.runtime import open_runtime
from picochat.sanity import host, numerics, train_step
from picochat.sanity.context import SMALL, Context, SanityResult
from picochat.scales import find_scale

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class SanityTest:
    """One row of the table. because: what goes wrong on a host where the test fails."""

    name: str
    run: Callable[[Context], SanityResult]
    because: str


SANITY: tuple[SanityTest, ...] = (
    SanityTest(
        "attention_backend",
        numerics.attention_backend,
        "a fast kernel that is wrong trains a wrong model",
    ),
    SanityTest(
        "initial_loss",
        numerics.initial_loss,
        "a start far from ln V wastes the first thousand steps",
    ),
    SanityTest(
        "precision_backward",
        numerics.precision_backward,
        "gradients must survive the chosen precision",
    ),
    SanityTest(
        "kv_cache_equivalence", numerics.kv_cache_equivalence, "scores come from cached generation"
    ),
    SanityTest(
        "resume_determinism",
        train_step.resume_determinism,
        "a crash must cost minutes, not the run",
    ),
    SanityTest(
        "loader_coverage",
        train_step.loader_coverage,
        "every training token is a target once per epoch",
    ),
    SanityTest(
        "device_feed",
        train_step.device_feed,
        "the device must train on the tokens that were written",
    ),
    SanityTest(
        "centred_step", train_step.centred_step, "only centred weights load in stock classes"
    ),
    SanityTest("torch_compile", numerics.torch_compile, "the compiled step must be the eager step"),
    SanityTest(
        "compiled_optimizer", numerics.compiled_optimizer, "and its optimizer the eager optimizer"
    ),
    SanityTest(
        "no_host_sync",
        train_step.no_host_sync,
        "a device that waits for Python is paid for and idle",
    ),
    SanityTest(
        "export_parity", numerics.export_parity, "what is published must be what was trained"
    ),
    SanityTest(
        "scale_capacity", host.scale_capacity, "memory and speed are measured before money is spent"
    ),
)


@dataclass(frozen=True)
class SanityRequest:
    """What the command line asks for. capacity_scale: also run real steps of this scale."""

    out_dir: Path
    runtime: RuntimeConfig
    include_compile: bool
    capacity_scale: str | None
    capacity_sequences: int | None
    min_free_fraction: float
    gpu_hour_usd: float | None = None


@dataclass(frozen=True)
class SanityReport:
    """The results of all tests. A skipped test neither passes nor fails the suite."""

    results: list[SanityResult]
    out_dir: Path

    @property
    def passed(self) -> bool:
        return all(result.status != "fail" for result in self.results)

    def lines(self) -> list[str]:
        """The verdict in one line, with the tests that failed."""
        failed = [result.name for result in self.results if result.status == "fail"]
        verdict = "sanity passed" if self.passed else f"sanity failed: {', '.join(failed)}"
        return [f"{verdict}: {self.out_dir / 'preh100_sanity.md'}"]


def sanity(request: SanityRequest, table: tuple[SanityTest, ...] = SANITY) -> SanityReport:
    """Run the table, print each result as it is known, write both files."""
    scale = find_scale(request.capacity_scale) if request.capacity_scale else None
    compute = open_runtime(request.runtime, scale.config.model if scale else SMALL)
    context = Context(
        compute,
        request.runtime,
        request.include_compile,
        scale,
        request.capacity_sequences,
        request.min_free_fraction,
        request.gpu_hour_usd,
    )
    # Before the tests, which take minutes: a folder that cannot be written should fail at once.
    request.out_dir.mkdir(parents=True, exist_ok=True)
    results = run_sanity(context, lambda result: say(line_of(result)), table)
    report = SanityReport(results, request.out_dir)
    _write(report, request)
    return report


def run_sanity(
    context: Context,
    say_result: Callable[[SanityResult], None],
    table: tuple[SanityTest, ...] = SANITY,
) -> list[SanityResult]:
    """The result of every test of the table, in order; a test that raises has failed."""
    results: list[SanityResult] = []
    for test in table:
        started = time.monotonic()
        try:
            result = test.run(context)
        except (RuntimeError, PicochatError) as error:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            result = SanityResult(
                name=test.name, status="fail", measured=None, bound="", message=text
            )
        results.append(result.model_copy(update={"seconds": time.monotonic() - started}))
        say_result(results[-1])
    return results


def line_of(result: SanityResult) -> str:
    """One result as a line for the terminal."""
    measured = "" if result.measured is None else f"{result.measured:.3g} {result.bound}"
    return (
        f"{result.status:8} {result.name:22} {measured:24} {result.message} ({result.seconds:.1f}s)"
    )


def _write(report: SanityReport, request: SanityRequest) -> None:
    machine = machine_record()
    status = "pass" if report.passed else "fail"
    record = {
        "schema_version": SCHEMA_VERSION,
        "status": status,
        "runtime": request.runtime,
        "capacity_scale": request.capacity_scale,
        "results": report.results,
        "machine": machine,
    }
    write_json(request.out_dir / "preh100_sanity.json", record)
    lines = [
        f"# Sanity: {status}",
        "",
        (
            f"{host.device_name(request.runtime, machine)}; torch"
            f" {machine.versions.get('torch', '?')}; {request.runtime.precision}"
        ),
        "",
        "| status | test | measured | bound | what |",
        "|---|---|---|---|---|",
    ]
    for result in report.results:
        measured = "" if result.measured is None else f"{result.measured:.3g}"
        cells = (result.status, result.name, measured, result.bound, result.message)
        lines.append(f"| {' | '.join(cells)} |")
    write_atomic(request.out_dir / "preh100_sanity.md", ("\n".join(lines) + "\n").encode())
