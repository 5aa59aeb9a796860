"""docs/checks.md, made from the tables that decide: its bounds are the bounds enforced."""

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
strongest thing a missed block bound may do in each profile (off: the row is not judged there). A
missed warn bound warns. A number that is missing is unmeasured and never a pass. Rows with one
name make one finding, the worst of them. Why it is so: `decisions/0009-what-blocks-and-when.md`.
"""

PREFLIGHT = """
## Preflight: before a GPU-minute is spent

Ends in ready, warn or blocked; `picochat run tiny` exits 3 where it is blocked. In a release
profile bounds block when the run is long (5,000 base steps or more); in a short run they warn.
Rows marked *always* block in every profile and length, because without them the run means
nothing. Rows marked *host* depend on the machine and stay out of digests. Missing evidence blocks
a long run of a release profile.
"""

RELEASE = """
## Release gate: after the last evaluation

Ends in approved, warn or blocked; `picochat run tiny` exits 3 where it is blocked. It is not
softened for short runs: in a release profile missed bounds and missing evidence block.
"""

COLUMNS = (
    "| name | measures | unit | warns unless | blocks unless | research | first_release |"
    " skill_release | because |"
)


def checks_page() -> str:
    """Both tables as one Markdown page."""
    return HEAD + PREFLIGHT + "\n" + _table(CHECKS) + RELEASE + "\n" + _table(RULES)


def _table(rows: Iterable[Row]) -> str:
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
