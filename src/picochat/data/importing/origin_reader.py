"""The rows of visits, judged, out of an origin's files: streams kept open between two slices,
footers kept on disk.

Threads may read different visits at the same time; two slices of one row group are read one after
the other.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pyarrow.parquet as pq

from picochat.data.formats.parquet_rows import parquet_metadata, read_row_group
from picochat.data.formats.row_batch import RowBatch
from picochat.data.formats.rows import format_of, read_batches
from picochat.data.importing.judged import JudgedRows, judge_rows
from picochat.data.importing.origin import Origin
from picochat.data.importing.visits import Visit

OPEN_READERS = 16  # each may hold a page, a read block and a batch of its file: some ten megabytes


@dataclass
class _Reader:
    """Batches in the middle of a row group or file, with the rest of a batch that the last slice
    did not need.
    """

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
class OriginReader:
    """Reads visits of an origin.

    Footers of parquet files are kept in the folder `footers`: a file is visited often.
    """

    origin: Origin
    text_column: str
    min_chars: int
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

    def read(self, visit: Visit, skip: int) -> Generator[JudgedRows, None, bool]:
        """The visit's rows after its first `skip`, some megabytes at a time.

        Returns whether the file, which has no row groups, is exhausted: it has no row after these.
        """
        reader = self._reader(visit)
        taken = 0
        name = self.origin.files[visit.file].name
        try:
            for batch in reader.take(visit.rows):
                passed = min(len(batch.texts), max(0, skip - taken))
                taken += len(batch.texts)
                if passed < len(batch.texts):
                    yield judge_rows(
                        batch.part(passed, len(batch.texts)), visit.file, name, self.min_chars
                    )
        except BaseException:
            reader.stream.close()
            raise
        exhausted = visit.group is None and taken < visit.rows
        if self._has_more(visit, exhausted):
            self._keep(visit, reader)
        else:
            reader.stream.close()
        return exhausted

    def close(self) -> None:
        for reader in self._open.values():
            reader.stream.close()
        self._open.clear()

    def _reader(self, visit: Visit) -> _Reader:
        """The reader at the visit's first row: kept from the slice before, or begun and moved
        there.
        """
        with self._lock:
            reader = self._open.pop((visit.file, visit.group), None)
        if reader is not None and reader.position == visit.start:
            return reader
        if reader is not None:
            reader.stream.close()
        reader = self._start(visit)
        for _ in reader.take(visit.start):
            pass
        return reader

    def _start(self, visit: Visit) -> _Reader:
        name = self.origin.files[visit.file].name
        counts = self.row_counts(visit.file)
        stream = self.origin.open_file(visit.file)
        if visit.group is None or counts is None:
            return _Reader(stream, read_batches(stream, name, self.text_column))
        return _Reader(
            stream,
            read_row_group(
                stream,
                name,
                self.text_column,
                visit.group,
                pq.read_metadata(str(self._footer_path(visit.file))),
                first_row=sum(counts[: visit.group]),
                whole=visit.rows == counts[visit.group],
            ),
        )

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
