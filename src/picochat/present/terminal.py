"""Terminal output: coloured verdicts, aligned columns, a line chart of characters.

Everything is plain text, so it can be piped; `print_verdict` adds colour only on a terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TextIO

from rich.console import Console
from rich.text import Text

from picochat.present.labels import STATUSES, VERDICT_COLOURS

CHART_WIDTH = 64
CHART_HEIGHT = 10
COLOUR_OF_WORD = {status.word: status.colour for status in STATUSES.values()}


def print_verdict(lines: Iterable[str], stream: TextIO | None = None) -> None:
    """Print lines. On a terminal the status words are coloured, unless NO_COLOR is set."""
    target: TextIO | None = sys.stdout if stream is None else stream
    assert target is not None, "a command line has a standard output"
    if not target.isatty():
        target.writelines(f"{line}\n" for line in lines)
        return
    console = Console(file=target, highlight=False)
    for line in lines:
        text = Text(line)
        for word, colour in VERDICT_COLOURS.items():
            text.highlight_words([word], colour)
        word = line.split(" ", 1)[0]
        if word in COLOUR_OF_WORD:
            text.stylize(COLOUR_OF_WORD[word], 0, len(word))
        console.print(text, soft_wrap=True)


def columns(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Rows as lines with aligned columns. right: numbers of the columns that are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = set(right)
    return [
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def text_chart(points: Sequence[tuple[float, float]]) -> list[str]:
    """Points (x, y), sorted by x, as a chart of text lines; fewer than two points as numbers."""
    if len(points) < 2:
        return [f"  {x:g}: {y:.3f}" for x, y in points]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = min(ys), max(ys)
    grid = [[" "] * CHART_WIDTH for _ in range(CHART_HEIGHT)]
    for column in range(CHART_WIDTH):
        x = xs[0] + (xs[-1] - xs[0]) * column / (CHART_WIDTH - 1)
        y = _interpolated(points, x)
        row = round((high - y) / (high - low) * (CHART_HEIGHT - 1)) if high > low else 0
        grid[row][column] = "*"
    labels = [
        f"{high - (high - low) * row / (CHART_HEIGHT - 1):6.3f}" for row in range(CHART_HEIGHT)
    ]
    lines = [
        f"  {label} |{''.join(cells).rstrip()}" for label, cells in zip(labels, grid, strict=True)
    ]
    return [
        *lines,
        "         +" + "-" * CHART_WIDTH,
        f"          {xs[0]:<{CHART_WIDTH - 8}g}{xs[-1]:>8g}",
    ]


def _interpolated(points: Sequence[tuple[float, float]], x: float) -> float:
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]
