"""Verdicts for people: the lines of a terminal and the Markdown pages. Everything shown is read
from the report.

Text only, the same bytes for the same report. `print_verdict` adds colour, and only on a terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.console import Console
from rich.text import Text

from picochat.core.plain_text import cell
from picochat.core.progress import quantity
from picochat.facts import FindingRecord, GateReport, PlanRecord, PreflightReport
from picochat.gate.bounds import shown_number

MARKS = {"pass": "pass", "warn": "WARN", "block": "BLOCK", "unmeasured": "none"}
WORST_FIRST = ("block", "unmeasured", "warn", "pass")
COLOURS = {"pass": "green", "WARN": "yellow", "BLOCK": "bold red", "none": "magenta"}


def preflight_lines(report: PreflightReport) -> list[str]:
    """The verdict, the plan, the table, then each failing check with its message and remedy."""
    length = "long" if report.long_run else "short"
    title = (
        f"preflight: {report.status} (profile {report.profile}, {length} run;"
        f" {counts_text(report.findings)})"
    )
    return [
        title,
        *plan_lines(report.plan),
        "",
        *finding_lines(report.findings),
        *remedy_lines(report.findings),
    ]


def gate_lines(report: GateReport) -> list[str]:
    """The verdict, the weakest skill, the table, then each failing rule with its message and
    remedy.
    """
    title = (
        f"release gate: {report.status} (profile {report.profile}; {counts_text(report.findings)})"
    )
    weakest = [f"weakest skill: {report.weakest_skill}"] if report.weakest_skill else []
    return [title, *weakest, "", *finding_lines(report.findings), *remedy_lines(report.findings)]


def counts_text(findings: Iterable[FindingRecord]) -> str:
    """`20 pass, 2 warn, 0 block, 1 unmeasured`."""
    statuses = [finding.status for finding in findings]
    return ", ".join(
        f"{statuses.count(status)} {status}" for status in ("pass", "warn", "block", "unmeasured")
    )


def plan_lines(plan: PlanRecord) -> list[str]:
    epochs = "unknown" if plan.planned_epochs is None else f"{plan.planned_epochs:.2f}"
    tokens = (
        f"{quantity(plan.planned_tokens)} tokens planned, target {quantity(plan.target_tokens)},"
        f" {epochs} epochs"
    )
    lines = [f"plan: {quantity(plan.parameters)} parameters, {tokens}"]
    if plan.practice_share:
        lines.append(
            f"practice: {plan.practice_share:.1%} of the training tokens are exercises of the"
            " skills"
        )
    if plan.hours is not None:
        price = f", {plan.usd:.2f} USD" if plan.usd is not None else ""
        lines.append(f"forecast: {plan.hours:.2f} hours{price}")
    return lines


def worst_first(findings: Iterable[FindingRecord]) -> list[FindingRecord]:
    """What blocks, then what was not measured, what warns and what passes; each in the order of the
    table of rules.
    """
    return sorted(findings, key=lambda finding: WORST_FIRST.index(finding.status))


def finding_lines(findings: Sequence[FindingRecord]) -> list[str]:
    """One aligned line a finding, the worst first: status, name, measured value with unit, bound."""
    cells = [(MARKS[f.status], f.name, measured_text(f), f.bound) for f in worst_first(findings)]
    widths = [max((len(row[column]) for row in cells), default=0) for column in range(4)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def measured_text(finding: FindingRecord) -> str:
    if finding.measured is None:
        return (
            "failed"
            if finding.status == "block" and ": failed," in finding.message
            else "unmeasured"
        )
    return f"{shown_number(finding.measured)} {finding.unit}"


def remedy_lines(findings: Iterable[FindingRecord]) -> list[str]:
    lines: list[str] = []
    for finding in worst_first(findings):
        if finding.status != "pass":
            lines += ["", f"{MARKS[finding.status]} {finding.name}: {finding.message}"]
            lines += [f"    fix: {finding.fix}"] if finding.fix else []
    return lines


def print_verdict(lines: Iterable[str], stream: TextIO | None = None) -> None:
    """Print lines as they are; on a terminal the status words have colours. Honours NO_COLOR."""
    target: TextIO | None = sys.stdout if stream is None else stream
    assert target is not None, "a command line has a standard output"
    if not target.isatty():
        target.writelines(f"{line}\n" for line in lines)
        return
    console = Console(file=target, highlight=False)
    for line in lines:
        text = Text(line)
        text.highlight_words(["approved", "ready"], "bold green")
        text.highlight_words(["blocked"], "bold red")
        word = line.split(" ", 1)[0]
        if word in COLOURS:
            text.stylize(COLOURS[word], 0, len(word))
        console.print(text, soft_wrap=True)


def preflight_page(report: PreflightReport) -> str:
    length = "long" if report.long_run else "short"
    lines = [
        f"# Preflight: {report.status}",
        "",
        f"Profile `{report.profile}`, {length} run: {counts_text(report.findings)}.",
        "",
        *(f"- {line}" for line in plan_lines(report.plan)),
        "",
        *findings_table(report.findings),
    ]
    return "\n".join([*lines, *_remedy_list(report.findings)]) + "\n"


def gate_page(report: GateReport) -> str:
    lines = [
        f"# Release gate: {report.status}",
        "",
        f"Profile `{report.profile}`: {counts_text(report.findings)}.",
    ]
    if report.weakest_skill:
        lines += ["", f"Weakest skill: {report.weakest_skill}."]
    return (
        "\n".join([*lines, "", *findings_table(report.findings), *_remedy_list(report.findings)])
        + "\n"
    )


def findings_table(findings: Iterable[FindingRecord]) -> list[str]:
    lines = ["| status | name | measured | must be |", "|---|---|---|---|"]
    return lines + [
        f"| {f.status} | {f.name} | {cell(measured_text(f))} | `{f.bound}` |"
        for f in worst_first(findings)
    ]


def _remedy_list(findings: Iterable[FindingRecord]) -> list[str]:
    failing = [finding for finding in worst_first(findings) if finding.status != "pass"]
    if not failing:
        return []
    lines = ["", "## What failed, and what mends it", ""]
    for finding in failing:
        lines.append(f"- **{finding.name}** ({finding.status}): {cell(finding.message)}")
        lines += [f"  - fix: {cell(finding.fix)}"] if finding.fix else []
    return lines
