"""Which rows an import inspects, in which order, and the reading of them ahead of time over several connections.

A visit is a slice of one row group (parquet) or of one file (JSON lines, text). `spread` goes round over all files in a
seeded order and takes one slice of each in turn, row groups in a seeded order too, so that the first rows are already a
fair sample of the split. `head` takes files and rows as they stand. The order depends on names, row counts, seed and
--max-rows only: not on the number of connections, the clock, or an earlier kill.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import pyarrow.parquet as pq

from picochat.data.origin import Origin
from picochat.data.rows import Row, format_of, parquet_metadata, read_row_group, read_rows

Sample = Literal["spread", "head"]
SMALLEST_SLICE_ROWS = 100  # of a big row group: below that, the cost of opening it is not worth the spread
LARGEST_SLICE_ROWS = 10_000  # what one visit may hold in memory
OPEN_READERS = 64


class Visit(NamedTuple):
    """Rows start to start + rows of a row group (group None: of the file). Keys ascend in the order of visits."""

    key: tuple[int, int]
    file: int
    group: int | None
    start: int
    rows: int


class Visited(NamedTuple):
    """What a visit found. `exhausted`: the file, which has no row groups, has no row after these."""

    visit: Visit
    rows: list[Row]
    exhausted: bool


RowCounts = Callable[[int], "tuple[int, ...] | None"]


@dataclass(frozen=True)
class Plan:
    """The order of visits. `exhausted` files, which nobody counted, have no rows left: the reader adds them as it meets the end."""

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
        return list(files) if self.sample == "head" else sorted(files, key=lambda file: _lot(self.seed, self.names[file]))

    def files_surely_visited(self) -> list[int]:
        """Files that no row count can make superfluous, for who wants to look at them early."""
        return self.file_order()[: -(-self.max_rows // self.slice_rows)] if self.sample == "spread" else []

    def visits(self, row_counts: RowCounts) -> Iterator[Visit]:
        """The visits in their order, until every file is used up. row_counts(file): of each row group, None without groups."""
        return self._head(row_counts) if self.sample == "head" else self._spread(row_counts)

    def _head(self, row_counts: RowCounts) -> Iterator[Visit]:
        for file in self.file_order():
            for number, (group, start, rows) in enumerate(_slices(row_counts(file), LARGEST_SLICE_ROWS, None)):
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
                    lanes[file] = _slices(row_counts(file), self.slice_rows, (self.seed, self.names[file]))
                found = next(lanes[file], None) if file in lanes and file not in self.exhausted else None
                if found is None:
                    lanes.pop(file, None)
                else:
                    yield Visit((turn, position), file, *found)
            turn += 1


def _slices(
    counts: tuple[int, ...] | None, slice_rows: int, lot: tuple[int, str] | None
) -> Iterator[tuple[int | None, int, int]]:
    """(group, start, rows) of one file: first the heads of all its row groups, then their second slices, and so on."""
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


@dataclass
class _Reader:
    """A row iterator in the middle of a row group or file, kept open for its next slice."""

    stream: BinaryIO
    rows: Iterator[Row]
    position: int = 0


@dataclass
class OriginReader:
    """Reads visits of an origin, from several threads. Footers of parquet files are kept on disk: a file is visited often."""

    origin: Origin
    text_column: str
    footers: Path
    _counts: dict[int, tuple[int, ...] | None] = field(default_factory=dict)
    _coming: dict[int, Future[tuple[int, ...] | None]] = field(default_factory=dict)
    _open: dict[tuple[int, int | None], _Reader] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def row_counts(self, file: int) -> tuple[int, ...] | None:
        """Rows of each row group; None where the format has none."""
        if file not in self._counts:
            coming = self._coming.pop(file, None)
            self._counts[file] = coming.result() if coming else self._read_counts(file)
        return self._counts[file]

    def fetch_early(self, files: list[int], pool: ThreadPoolExecutor) -> None:
        """Begin to read the row counts of files that will be asked for."""
        for file in files:
            self._coming[file] = pool.submit(self._read_counts, file)

    def first_row(self, file: int, group: int | None) -> int:
        """The number in the file of a row group's first row."""
        counts = self.row_counts(file) or ()
        return sum(counts[: group or 0])

    def read(self, visit: Visit) -> Visited:
        """The visit's rows, numbered in their file. Two slices of one row group must not be read at the same time."""
        with self._lock:
            reader = self._open.pop((visit.file, visit.group), None)
        if reader is None or reader.position != visit.start:
            reader = self._start(visit)
        rows = list(islice(reader.rows, visit.rows))
        reader.position += len(rows)
        exhausted = visit.group is None and len(rows) < visit.rows
        if self._has_more(visit, exhausted):
            self._keep(visit, reader)
        else:
            reader.stream.close()
        return Visited(visit, rows, exhausted)

    def close(self) -> None:
        for reader in self._open.values():
            reader.stream.close()
        self._open.clear()

    def _read_counts(self, file: int) -> tuple[int, ...] | None:
        name = self.origin.files[file].name
        if format_of(name) != "parquet":
            return None
        path = self._footer_path(file)
        if not path.exists():
            with self.origin.open_file(file) as stream:
                metadata = parquet_metadata(stream, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".part")
            metadata.write_metadata_file(str(temporary))
            temporary.rename(path)
        metadata = pq.read_metadata(str(path))
        return tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))

    def _start(self, visit: Visit) -> _Reader:
        name = self.origin.files[visit.file].name
        counts = self.row_counts(visit.file)
        stream = self.origin.open_file(visit.file)
        if visit.group is None or counts is None:
            rows = read_rows(stream, name, self.text_column)
        else:
            metadata = pq.read_metadata(str(self._footer_path(visit.file)))
            rows = read_row_group(
                stream,
                name,
                self.text_column,
                visit.group,
                metadata,
                first_row=self.first_row(visit.file, visit.group),
                whole=visit.rows == counts[visit.group],
            )
        passed = sum(1 for _ in islice(rows, visit.start))
        return _Reader(stream, rows, passed)

    def _has_more(self, visit: Visit, exhausted: bool) -> bool:
        counts = self.row_counts(visit.file)
        if visit.group is None or counts is None:
            return not exhausted
        return visit.start + visit.rows < counts[visit.group]

    def _keep(self, visit: Visit, reader: _Reader) -> None:
        with self._lock:
            self._open[(visit.file, visit.group)] = reader
            if len(self._open) > OPEN_READERS:
                oldest = next(iter(self._open))
                self._open.pop(oldest).stream.close()

    def _footer_path(self, file: int) -> Path:
        return self.footers / f"{file:06d}.parquet"


@contextmanager
def visited_in_order(
    reader: OriginReader, plan: Plan, *, connections: int, after: tuple[int, int] | None, rows_wanted: int
) -> Generator[Iterator[Visited], None, None]:
    """What the visits after `after` find, in the order of the plan, read ahead by `connections` threads.

    rows_wanted: how many rows the caller still takes, so that counted rows are not fetched in vain.
    """
    pool = ThreadPoolExecutor(max_workers=connections, thread_name_prefix="import")
    footer_pool = ThreadPoolExecutor(max_workers=connections, thread_name_prefix="footers")
    try:
        reader.fetch_early(plan.files_surely_visited(), footer_pool)
        yield _read_ahead(reader, plan, pool, connections, after, rows_wanted)
    finally:
        reader.origin.stop()
        for each in (footer_pool, pool):
            each.shutdown(wait=True, cancel_futures=True)
        reader.close()


def _read_ahead(
    reader: OriginReader,
    plan: Plan,
    pool: ThreadPoolExecutor,
    connections: int,
    after: tuple[int, int] | None,
    rows_wanted: int,
) -> Iterator[Visited]:
    visits = plan.visits(reader.row_counts)
    in_flight: deque[tuple[Visit, Future[Visited]]] = deque()
    waiting: Visit | None = None
    rows_coming = 0
    while True:
        while len(in_flight) < connections + 1 and rows_coming < rows_wanted:
            waiting = waiting or next(visits, None)
            if waiting is None:
                break
            if (after is not None and waiting.key <= after) or waiting.file in plan.exhausted:
                waiting = None
                continue
            if any((visit.file, visit.group) == (waiting.file, waiting.group) for visit, _ in in_flight):
                break  # its reader is in use: one row group is read by one thread at a time
            in_flight.append((waiting, pool.submit(reader.read, waiting)))
            rows_coming += waiting.rows
            waiting = None
        if not in_flight:
            return
        visit, future = in_flight.popleft()
        found = future.result()
        rows_coming -= visit.rows - len(found.rows)
        if found.exhausted:
            plan.exhausted.add(visit.file)
        yield found
