"""Which rows an import inspects, and in which order.

A visit is a slice of one row group (parquet) or of one file (JSON lines, text). `spread` goes round
over all files in a seeded order and takes one slice of each in turn, row groups in a seeded order
too, so that the first rows are already a fair sample of the split. `head` takes files and rows as
they stand. The order depends on names, row counts, seed and --max-rows only: not on the number of
connections, the clock, or an earlier kill.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Literal, NamedTuple

Sample = Literal["spread", "head"]
SMALLEST_SLICE_ROWS = (
    100  # of a big row group: below that, the cost of opening it is not worth the spread
)
LARGEST_SLICE_ROWS = 10_000  # a larger visit would only make a resumed import read more again


class Visit(NamedTuple):
    """Rows start to start + rows of a row group (group None: of the file).

    Keys ascend in the order of visits.
    """

    key: tuple[int, int]
    file: int
    group: int | None
    start: int
    rows: int


RowCounts = Callable[[int], "tuple[int, ...] | None"]


@dataclass(frozen=True)
class Plan:
    """The order of visits.

    `exhausted` files, which nobody counted, have no rows left: the reader adds them as it meets the
    end.
    """

    names: tuple[str, ...]
    max_rows: int
    sample: Sample
    seed: int
    exhausted: set[int] = field(default_factory=set)

    @property
    def slice_rows(self) -> int:
        share = -(-self.max_rows // len(self.names))
        return min(LARGEST_SLICE_ROWS, max(SMALLEST_SLICE_ROWS, share))

    def file_order(self) -> list[int]:
        files = range(len(self.names))
        return (
            list(files)
            if self.sample == "head"
            else sorted(files, key=lambda file: _lot(self.seed, self.names[file]))
        )

    def files_surely_visited(self) -> list[int]:
        """Files that no row count can make superfluous, for who wants to look at them early."""
        return (
            self.file_order()[: -(-self.max_rows // self.slice_rows)]
            if self.sample == "spread"
            else []
        )

    def visits(self, row_counts: RowCounts) -> Iterator[Visit]:
        """The visits in their order, until every file is used up. row_counts(file): of each row
        group, None without groups.
        """
        return self._head(row_counts) if self.sample == "head" else self._spread(row_counts)

    def _head(self, row_counts: RowCounts) -> Iterator[Visit]:
        for file in self.file_order():
            for number, (group, start, rows) in enumerate(
                _slices(row_counts(file), LARGEST_SLICE_ROWS, None)
            ):
                if file in self.exhausted:
                    break
                yield Visit((file, number), file, group, start, rows)

    def _spread(self, row_counts: RowCounts) -> Iterator[Visit]:
        order = self.file_order()
        lanes: dict[int, Iterator[tuple[int | None, int, int]]] = {}
        turn = 0
        while turn == 0 or lanes:
            for position, file in enumerate(order):
                if turn == 0:
                    lanes[file] = _slices(
                        row_counts(file), self.slice_rows, (self.seed, self.names[file])
                    )
                found = (
                    next(lanes[file], None)
                    if file in lanes and file not in self.exhausted
                    else None
                )
                if found is None:
                    lanes.pop(file, None)
                else:
                    yield Visit((turn, position), file, *found)
            turn += 1


def _slices(
    counts: tuple[int, ...] | None, slice_rows: int, lot: tuple[int, str] | None
) -> Iterator[tuple[int | None, int, int]]:
    """(group, start, rows) of one file: first the heads of all its row groups, then their second
    slices, and so on.
    """
    if counts is None:
        for number in count():
            yield None, number * slice_rows, slice_rows
        return
    groups = list(range(len(counts)))
    if lot is None:
        for group in groups:
            for start in range(0, counts[group], slice_rows):
                yield group, start, min(slice_rows, counts[group] - start)
        return
    groups.sort(key=lambda group: _lot(*lot, group))
    for start in range(0, max(counts, default=0), slice_rows):
        for group in groups:
            if start < counts[group]:
                yield group, start, min(slice_rows, counts[group] - start)


def _lot(seed: int, *parts: object) -> bytes:
    """A lot that a name draws: the same on every machine and in every version of Python and numpy."""
    return hashlib.sha256("\0".join(map(str, (seed, *parts))).encode()).digest()
