"""Turns rows and evidence into findings, and findings into a verdict.

The rows are in preflight.py and release.py. docs/decisions/0009 has the reasons for the rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from picochat.core.records import finite_or_none
from picochat.facts import FindingRecord, RunFacts
from picochat.gate.bounds import Bound
from picochat.present.values import with_unit

Status = Literal["pass", "warn", "block", "unmeasured"]
Severity = Literal["block", "warn", "off"]
REPORT_SCHEMA_VERSION = 1  # of preflight.json and gate.json
BADNESS: tuple[Status, ...] = ("pass", "unmeasured", "warn", "block")  # best to worst


@dataclass(frozen=True)
class Severities:
    """The strongest effect of a missed block bound in each profile; `off`: the row is skipped.

    `always`: a short run is judged by the same severity.
    """

    research: Severity
    first_release: Severity
    skill_release: Severity
    always: bool = False

    def of(self, profile: str) -> Severity:
        return getattr(self, profile)


# In the order: research, first_release, skill_release.
ALWAYS = Severities("block", "block", "block", always=True)  # a run that misses it is useless
RELEASE = Severities("warn", "block", "block")
IN_A_RELEASE = Severities("off", "block", "block")
SKILL_CLAIM = Severities("warn", "warn", "block")
SKILL_ONLY = Severities("warn", "off", "block")  # a first release claims nothing about it
SKILL_ADVICE = Severities("warn", "off", "warn")
ADVICE = Severities("warn", "warn", "warn")


@dataclass(frozen=True)
class Row:
    """One row of a verdict table.

    It also states why the number matters and what fixes a miss; where that differs from pack to
    pack, `fix` is a function of the facts.
    """

    name: str
    reading: str
    unit: str
    measure: Callable[[RunFacts], float | None]
    severity: Severities
    why: str
    fix: str | Callable[[RunFacts], str]
    warn: Bound | None = None
    block: Bound | None = None
    detail: Callable[[RunFacts], str] | None = None
    applies: Callable[[RunFacts], bool] | None = None
    on_host: bool = False


@dataclass(frozen=True)
class Strictness:
    """The profile, and whether block bounds are softened.

    `softened`: a missed block bound warns, except in ALWAYS rows, and missing evidence is
    unmeasured in every row.
    """

    profile: str
    softened: bool


def decide(rows: Iterable[Row], run: RunFacts, strictness: Strictness) -> list[FindingRecord]:
    """One finding for each row name that the profile judges, in the order of the table.

    A missed warn bound warns. A missed block bound has the effect of the row's severity. A missing
    number never passes. If several rows have the same name, the worst gives the finding.
    """
    found: dict[str, list[FindingRecord]] = {}
    for row in rows:
        if row.severity.of(strictness.profile) != "off" and (
            row.applies is None or row.applies(run)
        ):
            found.setdefault(row.name, []).append(_finding(row, run, strictness))
    return [_worst(findings) for findings in found.values()]


def verdict(findings: Iterable[FindingRecord]) -> Literal["pass", "warn", "block"]:
    """`block` if a finding blocks or there is none, `pass` if all pass, otherwise `warn`."""
    statuses = {finding.status for finding in findings}
    if not statuses or "block" in statuses:
        return "block"
    return "pass" if statuses == {"pass"} else "warn"


def _finding(row: Row, run: RunFacts, strictness: Strictness) -> FindingRecord:
    number = row.measure(run)
    if number is not None and math.isnan(number):  # unmeasured; infinity is a measured failure
        number = None
    status, bound = _judge(row, number, strictness)
    return FindingRecord(
        name=row.name,
        status=status,
        measured=finite_or_none(number),
        unit=row.unit,
        bound=str(bound),
        message=_message(row, number, bound, row.detail(run) if row.detail else ""),
        fix=None if status == "pass" else row.fix if isinstance(row.fix, str) else row.fix(run),
        on_host=row.on_host,
    )


def _judge(row: Row, number: float | None, strictness: Strictness) -> tuple[Status, Bound]:
    """The status, and the bound that decided it."""
    blocks = row.severity.of(strictness.profile) == "block"
    hard = blocks and not strictness.softened
    strictest = row.warn or row.block or Bound()
    if number is None:
        return "block" if hard else "unmeasured", row.block or strictest
    if row.block and not row.block.holds(number):
        return "block" if hard or (blocks and row.severity.always) else "warn", row.block
    return "pass" if strictest.holds(number) else "warn", strictest


def _message(row: Row, number: float | None, bound: Bound, detail: str) -> str:
    if number is None:
        value = "was not measured"
    elif math.isinf(number):
        value = "failed"
    else:
        value = with_unit(number, row.unit)
    return f"{row.reading}: {value}, must be {bound}" + (f" ({detail})" if detail else "")


def _worst(findings: list[FindingRecord]) -> FindingRecord:
    """The worst of the findings of one name, with the messages of all that do not pass.

    If two rows read the same number, the message has only the worse of them.
    """
    worst_first = sorted(findings, key=lambda finding: -BADNESS.index(finding.status))
    failed = [finding for finding in worst_first if finding.status != "pass"] or worst_first[:1]
    by_reading: dict[str, FindingRecord] = {}
    for finding in failed:  # what stands before the bound is the reading with its number
        by_reading.setdefault(finding.message.split(", must be ")[0], finding)
    fixes = dict.fromkeys(finding.fix for finding in by_reading.values() if finding.fix)
    return worst_first[0].model_copy(
        update={
            "message": "; ".join(finding.message for finding in by_reading.values()),
            "fix": "; ".join(fixes) or None,
            "on_host": any(finding.on_host for finding in findings),
        }
    )
