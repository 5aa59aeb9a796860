"""Plans the slices of an import in their order, reads them, and filters their rows.

A slice is a range of rows of one row group (parquet) or of one file (JSON lines, text). With
`spread`, files and row groups have a seeded order, and each round takes one slice of every file, so
that the first rows are already a sample of the whole split. `head` takes files and rows in their
own order. The order depends only on names, row counts, seed and --max-rows.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import pyarrow.parquet as pq
import xxhash

from picochat.core.records import write_atomic
from picochat.data.document_shards import document_lines
from picochat.data.formats.file_rows import format_of, read_batches
from picochat.data.formats.parquet_rows import parquet_metadata, read_row_group
from picochat.data.formats.row_batch import RowBatch, encoded_text
from picochat.data.importing.dataset_source import DatasetSource

Sample = Literal["spread", "head"]
# With smaller slices, the cost of opening a row group outweighs the better spread.
SMALLEST_SLICE_ROWS = 100
LARGEST_SLICE_ROWS = 10_000  # with larger ones, a resumed import would read more rows again
OPEN_READERS = 16  # each may hold a page, a read block and a batch: about ten megabytes
PREVIEW_CHARACTERS = 160


# ---- the order -----------------------------------------------------------------------------------


class Slice(NamedTuple):
    """Rows start to start + rows of a row group, or of the file where `group` is None.

    key: (round, position of the file in it) for `spread`, (file, slice of the file) for `head`.
    Keys ascend over an import.
    """

    key: tuple[int, int]
    file: int
    group: int | None
    start: int
    rows: int


RowCounts = Callable[[int], "tuple[int, ...] | None"]
FileIterator = Iterator[tuple[int | None, int, int]]


@dataclass(frozen=True)
class SlicePlan:
    """The order of slices over the files `names`.

    exhausted: files without row groups that were read to their end. Their row counts are unknown
    before, so the reading thread adds them.
    """

    names: tuple[str, ...]
    max_rows: int
    sample: Sample
    seed: int
    exhausted: set[int] = field(default_factory=set)

    @property
    def slice_rows(self) -> int:
        """Rows of a slice: about one slice of each file makes the import, within the limits."""
        rows = -(-self.max_rows // len(self.names))
        return min(LARGEST_SLICE_ROWS, max(SMALLEST_SLICE_ROWS, rows))

    def file_order(self) -> list[int]:
        """The indices of all files, in reading order."""
        files = range(len(self.names))
        if self.sample == "head":
            return list(files)
        return sorted(files, key=lambda file: _shuffle_key(self.seed, self.names[file]))

    def files_surely_read(self) -> list[int]:
        """Files that are read whatever their row counts, so their footers can be fetched early."""
        if self.sample == "head":
            return []
        return self.file_order()[: -(-self.max_rows // self.slice_rows)]

    def slices(self, row_counts: RowCounts) -> Iterator[Slice]:
        """All slices in order, until every file is exhausted.

        row_counts(file): rows of each row group; None for a file without row groups.
        """
        return self._head(row_counts) if self.sample == "head" else self._spread(row_counts)

    def _head(self, row_counts: RowCounts) -> Iterator[Slice]:
        for file in self.file_order():
            slices = _file_slices(row_counts(file), LARGEST_SLICE_ROWS, None)
            for number, (group, start, rows) in enumerate(slices):
                if file in self.exhausted:
                    break
                yield Slice((file, number), file, group, start, rows)

    def _spread(self, row_counts: RowCounts) -> Iterator[Slice]:
        # Row counts are asked for only when the first round reaches a file. So a small import from
        # a split of thousands of files fetches few footers.
        iterators: dict[int, FileIterator] = {}
        order, turn = self.file_order(), 0
        while turn == 0 or iterators:
            for position, file in enumerate(order):
                if turn == 0:
                    seeded = (self.seed, self.names[file])
                    iterators[file] = _file_slices(row_counts(file), self.slice_rows, seeded)
                found = None
                if file in iterators and file not in self.exhausted:
                    found = next(iterators[file], None)
                if found is None:
                    iterators.pop(file, None)
                else:
                    yield Slice((turn, position), file, *found)
            turn += 1


def _file_slices(
    counts: tuple[int, ...] | None, slice_rows: int, seeded: tuple[int, str] | None
) -> FileIterator:
    """(group, start, rows) of each slice of one file, in file order where `seeded` is None.

    seeded: (seed, name). The first slices of all row groups come first, then the second ones, and
    so on, with the groups in a seeded order.
    """
    if counts is None:
        yield from ((None, start, slice_rows) for start in count(0, slice_rows))
        return
    groups = list(range(len(counts)))
    if seeded is None:
        places = (
            (group, start) for group in groups for start in range(0, counts[group], slice_rows)
        )
    else:
        groups.sort(key=lambda group: _shuffle_key(*seeded, group))
        starts = range(0, max(counts, default=0), slice_rows)
        places = ((group, start) for start in starts for group in groups if start < counts[group])
    for group, start in places:
        yield group, start, min(slice_rows, counts[group] - start)


def _shuffle_key(seed: int, *parts: object) -> bytes:
    """A sort key that shuffles: sha256 of seed and parts."""
    # Unlike a random generator, it is the same in every version of Python and numpy, and the order
    # of two files does not depend on the others.
    return hashlib.sha256("\0".join(map(str, (seed, *parts))).encode()).digest()


# ---- filtered rows -------------------------------------------------------------------------------


@dataclass(frozen=True)
class FilteredRows:
    """Rows `first`, `first` + 1, ... of a file, in parallel lists.

    problems: why a row becomes no document, or None. lines: the row as a line of a shard, empty
    without usable text. heads: position -> (characters, beginning of the text), for the report, of
    rows without a line.
    """

    file: int
    first: int
    problems: list[str | None]
    lines: list[bytes]
    characters: list[int]
    text_bytes: list[int]
    digests: list[bytes]
    heads: dict[int, tuple[int, str]]

    def __len__(self) -> int:
        return len(self.problems)

    def head(self, rows: int) -> FilteredRows:
        """The first `rows` of them."""
        if rows >= len(self):
            return self
        names = ("problems", "lines", "characters", "text_bytes", "digests")
        return replace(self, **{name: getattr(self, name)[:rows] for name in names})

    def preview(self, position: int) -> tuple[int, str]:
        """(characters, beginning of the text) of a row, as a report shows it."""
        if position in self.heads:
            return self.heads[position]
        line = self.lines[position]
        return self.characters[position], shown(json.loads(line)["text"]) if line else ""

    def line_bytes(self) -> int:
        return sum(map(len, self.lines))


def filter_rows(batch: RowBatch, file: int, name: str, min_chars: int) -> FilteredRows:
    """The rows of a batch as documents `<name>#<row>`, or the reason why a row becomes none."""
    problems: list[str | None] = []
    texts: list[bytes] = []
    characters: list[int] = []
    heads: dict[int, tuple[int, str]] = {}
    for position, text in enumerate(batch.texts):
        problem, data = encoded_text(text)
        if problem is not None:
            heads[position] = (len(text), shown(text)) if isinstance(text, str) else (0, "")
            characters.append(0)
        else:
            assert isinstance(text, str)
            characters.append(len(text))
            # A short text keeps its line, because the report shows its beginning.
            problem = "below_min_chars" if len(text) < min_chars else None
        problems.append(problem)
        texts.append(data)
    return FilteredRows(
        file=file,
        first=batch.first,
        problems=problems,
        lines=document_lines(texts, f"{name}#", batch.first),
        characters=characters,
        text_bytes=[len(data) for data in texts],
        digests=[xxhash.xxh3_128_digest(data) for data in texts],
        heads=heads,
    )


def shown(text: str) -> str:
    """The beginning of a text on one line, encodable as UTF-8."""
    head = " ".join(text[: 2 * PREVIEW_CHARACTERS].split())[:PREVIEW_CHARACTERS]
    return head.encode("utf-8", errors="replace").decode()


# ---- reading -------------------------------------------------------------------------------------


@dataclass
class _OpenGroup:
    """A partly read row group or file. rest: rows of its last batch that were not taken."""

    stream: BinaryIO
    batches: Iterator[RowBatch]
    position: int = 0
    rest: RowBatch | None = None

    def take(self, rows: int) -> Iterator[RowBatch]:
        """The next `rows` rows, or as many as there are."""
        while rows > 0:
            batch = self.rest or next(self.batches, None)
            self.rest = None
            if batch is None:
                return
            if len(batch.texts) > rows:
                self.rest, batch = batch.part(rows, len(batch.texts)), batch.part(0, rows)
            rows -= len(batch.texts)
            self.position += len(batch.texts)
            yield batch


@dataclass
class SliceReader:
    """Reads slices of a source as filtered rows.

    Threads may read different slices at the same time, but not two slices of one row group.
    footers: folder for the footers of parquet files; each is fetched once, also over a resume.
    """

    source: DatasetSource
    text_column: str
    min_chars: int
    footers: Path
    _counts: dict[int, tuple[int, ...] | None] = field(default_factory=dict)
    _coming: dict[int, Future[tuple[int, ...] | None]] = field(default_factory=dict)
    _open: dict[tuple[int, int | None], _OpenGroup] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def row_counts(self, file: int) -> tuple[int, ...] | None:
        """Rows of each row group; None for a format without row groups."""
        if file not in self._counts:
            coming = self._coming.pop(file, None)
            self._counts[file] = coming.result() if coming else self._read_counts(file)
        return self._counts[file]

    def fetch_early(self, files: list[int], pool: ThreadPoolExecutor) -> None:
        """Read the row counts of these files in the background."""
        for file in files:
            self._coming[file] = pool.submit(self._read_counts, file)

    def read(self, slice: Slice, skip: int) -> Generator[FilteredRows, None, bool]:
        """The slice's rows after its first `skip`, a few hundred kilobytes at a time.

        The generator returns whether a file without row groups ended within the slice.
        """
        group = self._at_start_of(slice)
        taken = 0
        name = self.source.files[slice.file].name
        try:
            for batch in group.take(slice.rows):
                passed = min(len(batch.texts), max(0, skip - taken))
                taken += len(batch.texts)
                if passed < len(batch.texts):
                    rest = batch.part(passed, len(batch.texts))
                    yield filter_rows(rest, slice.file, name, self.min_chars)
        except BaseException:
            group.stream.close()
            raise
        exhausted = slice.group is None and taken < slice.rows
        if self._has_more(slice, exhausted):
            self._keep(slice, group)
        else:
            group.stream.close()
        return exhausted

    def close(self) -> None:
        for group in self._open.values():
            group.stream.close()
        self._open.clear()

    def _at_start_of(self, slice: Slice) -> _OpenGroup:
        """The group at the slice's first row: kept open from an earlier slice, or opened now."""
        with self._lock:
            group = self._open.pop((slice.file, slice.group), None)
        if group is not None and group.position == slice.start:
            return group
        if group is not None:
            group.stream.close()
        group = self._begin(slice)
        # A row group can only be read from its start.
        for _ in group.take(slice.start):
            pass
        return group

    def _begin(self, slice: Slice) -> _OpenGroup:
        name = self.source.files[slice.file].name
        counts = self.row_counts(slice.file)
        stream = self.source.open_file(slice.file)
        if slice.group is None or counts is None:
            return _OpenGroup(stream, read_batches(stream, name, self.text_column))
        batches = read_row_group(
            stream,
            name,
            self.text_column,
            slice.group,
            pq.read_metadata(str(self._footer_path(slice.file))),
            first_row=sum(counts[: slice.group]),
            whole=slice.rows == counts[slice.group],
        )
        return _OpenGroup(stream, batches)

    def _read_counts(self, file: int) -> tuple[int, ...] | None:
        name = self.source.files[file].name
        if format_of(name) != "parquet":
            return None
        path = self._footer_path(file)
        if not path.exists():
            with self.source.open_file(file) as stream:
                metadata = parquet_metadata(stream, name)
            footer = io.BytesIO()
            metadata.write_metadata_file(footer)
            write_atomic(path, footer.getvalue())
        metadata = pq.read_metadata(str(path))
        return tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))

    def _has_more(self, slice: Slice, exhausted: bool) -> bool:
        counts = self.row_counts(slice.file)
        if slice.group is None or counts is None:
            return not exhausted
        return slice.start + slice.rows < counts[slice.group]

    def _keep(self, slice: Slice, group: _OpenGroup) -> None:
        with self._lock:
            self._open[(slice.file, slice.group)] = group
            if len(self._open) > OPEN_READERS:
                oldest = next(iter(self._open))
                self._open.pop(oldest).stream.close()

    def _footer_path(self, file: int) -> Path:
        return self.footers / f"{file:06d}.parquet"
