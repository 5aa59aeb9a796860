"""Writes docs/checks.md from the tables CHECKS and RULES, so it shows the enforced bounds."""

from __future__ import annotations

from collections.abc import Iterable

from picochat.gate.decide import Row
from picochat.gate.preflight import CHECKS
from picochat.gate.release import RULES
from picochat.present.printable import cell

HEAD = """# Checks and rules

Made from the tables in `src/picochat/gate/preflight.py` and `release.py` by `make docs`; do not
edit.

A profile says what a run claims: `research` nothing, `first_release` identity, refusal and
choice, `skill_release` every skill and the token budget. The last three columns give the
strongest effect of a missed block bound in each profile (off: the row is not judged there). A
missed warn bound warns. A missing number is unmeasured and never passes. Rows with the same name
give one finding, that of the worst row. `decisions/0009-what-blocks-and-when.md` has the reasons.
"""

PREFLIGHT = """
## Preflight: before a GPU-minute is spent

The verdict is ready, warn or blocked; `picochat run tiny` exits with 3 if it is blocked. In a
release profile, a missed block bound blocks a long run (5,000 base steps or more) and warns in a
short one. Rows marked *always* block in every profile and length, because a run that misses them
is useless. Rows marked *host* depend on the machine and stay out of digests. Missing evidence
blocks a long run of a release profile.
"""

RELEASE = """
## Release gate: after the last evaluation

The verdict is approved, warn or blocked; `picochat run tiny` exits with 3 if it is blocked. In a
release profile, missed block bounds and missing evidence block runs of any length.
"""

COLUMNS = (
    "| name | measures | unit | warns unless | blocks unless | research | first_release |"
    " skill_release | because |"
)


def checks_page() -> str:
    return HEAD + PREFLIGHT + "\n" + table_text(CHECKS) + RELEASE + "\n" + table_text(RULES)


def table_text(rows: Iterable[Row]) -> str:
    """A table of rows in Markdown, with the bounds as they are enforced."""
    lines = [COLUMNS, "|---" * 9 + "|", *(_line(row) for row in rows)]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    marks = [*(["always"] if row.severity.always else []), *(["host"] if row.on_host else [])]
    name = f"`{row.name}`" + "".join(f" *{mark}*" for mark in marks)
    bounds = [f"`{bound}`" if bound else "" for bound in (row.warn, row.block)]
    severities = [row.severity.research, row.severity.first_release, row.severity.skill_release]
    return (
        "| "
        + " | ".join([name, cell(row.reading), cell(row.unit), *bounds, *severities, cell(row.why)])
        + " |"
    )
