"""Renders verdicts: the terminal lines and Markdown pages of preflight and gate.

Everything shown comes from the report. The same report gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from picochat.facts import FindingRecord, GateReport, PlanRecord, PreflightReport
from picochat.gate.conclusion import conclusion
from picochat.gate.plan import baseline_bytes
from picochat.present.labels import COUNTED, STATUSES, WORST_FIRST
from picochat.present.printable import cell
from picochat.present.terminal import columns
from picochat.present.values import (
    byte_quantity,
    dollars,
    hours,
    number,
    percent,
    quantity,
    with_unit,
)


def preflight_lines(report: PreflightReport) -> list[str]:
    length = "long" if report.long_run else "short"
    title = (
        f"preflight: {report.status} (profile {report.profile}, {length} run;"
        f" {counts_text(report.findings)})"
    )
    return [
        title,
        conclusion(report.findings),
        *plan_lines(report.plan),
        "",
        *finding_lines(report.findings),
        *remedy_lines(report.findings),
    ]


def gate_lines(report: GateReport) -> list[str]:
    title = (
        f"release gate: {report.status} (profile {report.profile}; {counts_text(report.findings)})"
    )
    weakest = [f"weakest skill: {report.weakest_skill}"] if report.weakest_skill else []
    return [
        title,
        conclusion(report.findings),
        *weakest,
        "",
        *finding_lines(report.findings),
        *remedy_lines(report.findings),
    ]


def counts_text(findings: Iterable[FindingRecord]) -> str:
    """`20 pass, 2 warn, 3 block (2 for want of a measurement), 1 unmeasured`."""
    found = list(findings)
    statuses = [finding.status for finding in found]
    counts = {status: f"{statuses.count(status)} {status}" for status in COUNTED}
    blind = sum(f.status == "block" and measured_text(f) == "unmeasured" for f in found)
    if blind:
        counts["block"] += f" ({blind} for want of a measurement)"
    return ", ".join(counts.values())


def plan_lines(plan: PlanRecord) -> list[str]:
    lines = [
        f"plan: {quantity(plan.parameters)} parameters, {quantity(plan.planned_tokens)} tokens"
        f" planned, target {quantity(plan.target_tokens)}, epochs {number(plan.planned_epochs)}"
    ]
    if plan.exercise_fraction:
        lines.append(
            f"exercises: {percent(plan.exercise_fraction)} of the training tokens are exercises"
            " of the skills"
        )
    if plan.baseline_tokens and plan.train_tokens:
        lines.append(
            f"5-gram baseline: counts {quantity(plan.baseline_tokens)} of"
            f" {quantity(plan.train_tokens)} training tokens, in"
            f" {byte_quantity(baseline_bytes(plan.baseline_tokens))} of memory at most"
        )
    if plan.hours is not None:
        price = f", {dollars(plan.usd)}" if plan.usd is not None else ""
        lines.append(f"forecast: {hours(plan.hours)}{price}")
    return lines


def worst_first(findings: Iterable[FindingRecord]) -> list[FindingRecord]:
    """The findings by status; findings of one status keep their order."""
    return sorted(findings, key=lambda finding: WORST_FIRST.index(finding.status))


def finding_lines(findings: Sequence[FindingRecord]) -> list[str]:
    """One aligned line for each finding, the worst first: status, name, value, bound."""
    return columns(
        [
            (STATUSES[finding.status].word, finding.name, measured_text(finding), finding.bound)
            for finding in worst_first(findings)
        ]
    )


def measured_text(finding: FindingRecord) -> str:
    """The measured number with its unit, `failed` or `unmeasured`."""
    if finding.measured is None:
        # A kernel that failed has an infinite error, which JSON cannot hold: only the message
        # distinguishes it from a kernel that was not tried.
        failed = finding.status == "block" and ": failed," in finding.message
        return "failed" if failed else "unmeasured"
    return with_unit(finding.measured, finding.unit)


def remedy_lines(findings: Iterable[FindingRecord]) -> list[str]:
    """Each remedy once, the most pressing first, with the findings that ask for it."""
    lines: list[str] = []
    for fix, asking in by_remedy(findings):
        lines.append("")
        lines += [f"{STATUSES[f.status].word} {f.name}: {f.message}" for f in asking]
        lines += [f"    fix: {fix}"] if fix else []
    return lines


def by_remedy(findings: Iterable[FindingRecord]) -> list[tuple[str | None, list[FindingRecord]]]:
    """(remedy, the findings that ask for it), the most pressing first."""
    found: dict[str | None, list[FindingRecord]] = {}
    for finding in _failing(findings):
        found.setdefault(finding.fix, []).append(finding)
    return list(found.items())


def _failing(findings: Iterable[FindingRecord]) -> list[FindingRecord]:
    return [finding for finding in worst_first(findings) if finding.status != "pass"]


def preflight_page(report: PreflightReport) -> str:
    length = "long" if report.long_run else "short"
    lines = [
        f"# Preflight: {report.status}",
        "",
        conclusion(report.findings),
        "",
        f"Profile `{report.profile}`, {length} run: {counts_text(report.findings)}.",
        "",
        *(f"- {line}" for line in plan_lines(report.plan)),
    ]
    return _page(lines, report.findings)


def gate_page(report: GateReport) -> str:
    lines = [
        f"# Release gate: {report.status}",
        "",
        conclusion(report.findings),
        "",
        f"Profile `{report.profile}`: {counts_text(report.findings)}.",
    ]
    if report.weakest_skill:
        lines += ["", f"Weakest skill: {report.weakest_skill}."]
    return _page(lines, report.findings)


def _page(lines: list[str], findings: Sequence[FindingRecord]) -> str:
    """The lines, a table of the findings and the remedies, as Markdown."""
    lines = [*lines, "", "| status | name | measured | must be |", "|---|---|---|---|"]
    lines += [
        f"| {f.status} | {f.name} | {cell(measured_text(f))} | `{f.bound}` |"
        for f in worst_first(findings)
    ]
    if _failing(findings):
        lines += ["", "## What failed, and how to fix it", ""]
    for fix, asking in by_remedy(findings):
        lines += [f"- **{f.name}** ({f.status}): {cell(f.message)}" for f in asking]
        lines += [f"  - fix: {cell(fix)}"] if fix else []
    return "\n".join(lines) + "\n"
