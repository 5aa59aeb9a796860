"""`preh100_sanity.json` and `.md`: the sanity table of this host, and its one verdict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from picochat.config import RuntimeConfig
from picochat.core.machine import machine_record
from picochat.core.progress import say
from picochat.core.records import write_atomic, write_json
from picochat.model.runtime import open_runtime
from picochat.sanity.checks import run_sanity
from picochat.sanity.context import SMALL, Context, SanityResult
from picochat.sanity.host import device_name
from picochat.scales import find_scale

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class SanityRequest:
    out_dir: Path
    runtime: RuntimeConfig
    include_compile: bool
    capacity_scale: str | None
    capacity_sequences: int | None
    min_free_share: float
    gpu_hour_usd: float | None = None


@dataclass(frozen=True)
class SanityReport:
    results: list[SanityResult]
    out_dir: Path

    @property
    def passed(self) -> bool:
        return all(result.status != "fail" for result in self.results)

    def lines(self) -> list[str]:
        failed = [result.name for result in self.results if result.status == "fail"]
        verdict = "sanity passed" if self.passed else f"sanity failed: {', '.join(failed)}"
        return [f"{verdict}: {self.out_dir / 'preh100_sanity.md'}"]


def sanity(request: SanityRequest) -> SanityReport:
    """Run the table, print each row as it is known, write both files."""
    scale = find_scale(request.capacity_scale) if request.capacity_scale else None
    compute = open_runtime(request.runtime, scale.config.model if scale else SMALL)
    context = Context(
        compute,
        request.runtime,
        request.include_compile,
        scale,
        request.capacity_sequences,
        request.min_free_share,
        request.gpu_hour_usd,
    )
    request.out_dir.mkdir(
        parents=True, exist_ok=True
    )  # a place that cannot be written is better known before the tests
    results = run_sanity(context, lambda result: say(line_of(result)))
    report = SanityReport(results, request.out_dir)
    _write(report, request)
    return report


def line_of(result: SanityResult) -> str:
    measured = "" if result.measured is None else f"{result.measured:.3g} {result.bound}"
    return (
        f"{result.status:8} {result.name:22} {measured:24} {result.message} ({result.seconds:.1f}s)"
    )


def _write(report: SanityReport, request: SanityRequest) -> None:
    machine = machine_record()
    record = {
        "schema_version": SCHEMA_VERSION,
        "status": "pass" if report.passed else "fail",
        "runtime": request.runtime,
        "capacity_scale": request.capacity_scale,
        "results": report.results,
        "machine": machine,
    }
    write_json(request.out_dir / "preh100_sanity.json", record)
    lines = [
        f"# Sanity: {record['status']}",
        "",
        (
            f"{device_name(request.runtime, machine)}; torch {machine.versions.get('torch', '?')};"
            f" {request.runtime.precision}"
        ),
        "",
    ]
    lines += ["| status | test | measured | bound | what |", "|---|---|---|---|---|"]
    for result in report.results:
        measured = "" if result.measured is None else f"{result.measured:.3g}"
        lines.append(
            f"| {result.status} | {result.name} | {measured} | {result.bound} | {result.message} |"
        )
    write_atomic(request.out_dir / "preh100_sanity.md", ("\n".join(lines) + "\n").encode())
