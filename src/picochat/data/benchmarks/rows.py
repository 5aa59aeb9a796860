"""The items of a benchmark's files, and which of them are scored when not all are.

A row that is no item is counted with its reason. A sample takes the ids that come first by hash:
the same ones in every run and at every seed, so that nobody can look for kind ones. Ids number the
rows of the files, from 0.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picochat.core.errors import BadInput, Problem
from picochat.data.benchmarks.layouts import BenchmarkRow, Layout, layout_of, read_item
from picochat.data.formats.rows import read_objects

LABELS = "-labels.lst"


@dataclass(frozen=True)
class BenchmarkFile:
    """`name`: as published, for people and for its ending.

    `path`: where its bytes lie on this machine.
    """

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class BenchmarkItems:
    """All usable items in the order of the files. `unusable`: reason -> rows."""

    layout: Layout
    items: list[BenchmarkRow]
    rows_read: int
    unusable: dict[str, int]


def read_benchmark(name: str, files: Sequence[BenchmarkFile]) -> BenchmarkItems:
    """Every row of the benchmark's files.

    Raises BadInput for broken files, labels of another count, and no usable row at all.
    """
    layout: Layout | None = None
    items: list[BenchmarkRow] = []
    unusable: Counter[str] = Counter()
    number = 0
    for number, row in enumerate(_rows(name, files), start=1):
        layout = layout or layout_of(row, f"external benchmark {name}")
        item = read_item(layout, row, f"{name}-{number - 1:05d}")
        if isinstance(item, BenchmarkRow):
            items.append(item)
        else:
            unusable[item] += 1
    if layout is None or not items:
        why = [Problem(f"{reason}: {count} rows") for reason, count in sorted(unusable.items())]
        raise BadInput(f"external benchmark {name} has no row that can be scored", problems=why)
    return BenchmarkItems(layout, items, number, dict(sorted(unusable.items())))


def sample_items(items: Sequence[BenchmarkRow], most: int) -> list[BenchmarkRow]:
    """At most `most` of the items (0: all), in their order."""
    if most == 0 or len(items) <= most:
        return list(items)
    chosen = {
        item.id
        for item in sorted(items, key=lambda item: hashlib.sha256(item.id.encode()).digest())[:most]
    }
    return [item for item in items if item.id in chosen]


def _rows(name: str, files: Sequence[BenchmarkFile]) -> Iterator[dict[str, Any]]:
    """The files' rows, one file after the other; a label of its own file is the row's `label`."""
    labels = [file.path for file in files if file.name.endswith(LABELS)]
    given = _labels(labels[0]) if labels else None
    count = 0
    for file in files:
        if file.name.endswith(LABELS):
            continue
        with file.path.open("rb") as stream:
            for row in read_objects(stream, file.name):
                yield (
                    {"label": given[count] if count < len(given) else None, **row}
                    if given is not None
                    else row
                )
                count += 1
    if given is not None and count != len(given):
        raise BadInput(
            f"external benchmark {name}: {count} rows and {len(given)} labels",
            fix="files of one split",
        )


def _labels(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").split()
