"""How a benchmark speaks: a table for people on stderr, then one JSON line a figure on stdout,
which the docs are made from.

`ratio` is ours over the peer's, so above 1 is better for a rate and worse for a time. A peer that
is not installed, or that was not asked for, is null, and so is the ratio.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence


def figure(
    name: str,
    ours: float | None,
    peer: float | None,
    unit: str,
    peak_rss_mb: float | None,
    **more: object,
) -> None:
    """One JSON line. `more`: what a reader must know to judge the figure."""
    row = {
        "figure": name,
        "ours": rounded(ours),
        "peer": rounded(peer),
        "ratio": rounded(ours / peer) if ours is not None and peer else None,
        "unit": unit,
        "peak_rss_mb": rounded(peak_rss_mb),
        "command": " ".join(["python", *sys.argv]),
    }
    print(json.dumps({**row, **more}), flush=True)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as they need to be; the first is text, the others are numbers."""
    lines = [list(head), *([_shown(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    say(f"\n{title}")
    for line in lines:
        cells = [
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        say("  ".join(cells).rstrip())


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def installed(module: str, how: str) -> bool:
    """Whether a peer is there; where it is not, that is said, with the command that brings it."""
    if importlib.util.find_spec(module) is not None:
        return True
    say(f"{module} is not installed, so its figures are null: {how}")
    return False


def rounded(value: float | None) -> float | None:
    """Four digits that count."""
    return None if value is None else float(f"{value:.4g}")


def _shown(cell: object) -> str:
    if cell is None:
        return "-"
    return (
        f"{cell:.3g}"
        if isinstance(cell, float) and cell < 1000
        else f"{cell:.0f}"
        if isinstance(cell, float)
        else str(cell)
    )
