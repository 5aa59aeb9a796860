"""All rows of a corpus, numbered in the order of sources, files and rows: questions that need to
see every one of them.

The rows lie on disk in the chunks that `scan` wrote, and are read chunk by chunk; what must meet
another row (equal texts, equal ids) meets in a bucket (`spill`). Memory: a chunk and a bucket.
Answers are arrays over the rows concerned.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from picochat.data.corpus.minhash import PLACES, Signatures
from picochat.data.corpus.scan import Chunk, ScanListing, ScanTask, chunks_of
from picochat.data.corpus.spill import Buckets

Rows = npt.NDArray[np.int64]
Fates = npt.NDArray[np.uint8]
DigestRecord = np.dtype([("key", "<u8"), ("rest", "<u8"), ("row", "<i8")])
IdRecord = np.dtype([("key", "<u8"), ("row", "<i8")])


class Repeats(NamedTuple):
    """Rows, ascending, and for each the first row that it repeats."""

    rows: Rows
    firsts: Rows


class PlacedChunk(NamedTuple):
    """A chunk, the number of its first row, and the number of the source it is of."""

    owner: int
    first: int
    chunk: Chunk

    def of(self, fates: Fates) -> Fates:
        """The part of an array over all rows that belongs to this chunk, as a view."""
        return fates[self.first : self.first + self.chunk.rows]


class RowTable:
    """Rows of a scan that lies in `folder`.

    A context: `add` its groups in order, then `flush`, then ask.
    """

    def __init__(self, folder: Path) -> None:
        self.chunks: list[PlacedChunk] = []
        self.total = 0
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._ids: BinaryIO = (folder / "ids").open("w+b")
        self._id_ends: BinaryIO = (folder / "id_ends").open("w+b")
        self._id_ends.write(np.zeros(1, dtype="<i8").tobytes())

    def add(self, owner: int, task: ScanTask, listing: ScanListing) -> None:
        for chunk in chunks_of(task, listing, self.folder):
            self.chunks.append(PlacedChunk(owner, self.total, chunk))
            self.total += chunk.rows
            begin = self._ids.tell()
            self._ids.write(chunk.column("ids").tobytes())
            self._id_ends.write((chunk.column("id_ends") + begin).astype("<i8").tobytes())

    def __enter__(self) -> RowTable:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ids.close()
        self._id_ends.close()

    def flush(self) -> None:
        """After the last `add`: ids can be asked for."""
        self._ids.flush()
        self._id_ends.flush()

    def id(self, row: int) -> str:
        """The id of a row, with the label of its source."""
        begin, end = np.frombuffer(
            os.pread(self._id_ends.fileno(), 16, 8 * row), dtype="<i8"
        ).tolist()
        return os.pread(self._ids.fileno(), end - begin, begin).decode()

    def owners(self, rows: Rows) -> Rows:
        """The number of the source that each row is of."""
        firsts = np.array([placed.first for placed in self.chunks], dtype=np.int64)
        owners = np.array([placed.owner for placed in self.chunks], dtype=np.int64)
        return owners[np.searchsorted(firsts, rows, side="right") - 1]

    def copies(self) -> Fates:
        """(total,) how often each row is read by its weight; 0 where it is not usable."""
        copies = np.zeros(self.total, dtype=np.uint8)
        for placed in self.chunks:
            usable = placed.chunk.column("problem") == 0
            placed.of(copies)[:] = np.where(usable, placed.chunk.column("copies"), 0)
        return copies

    def repeated_texts(self, copies: Fates, scratch: Path) -> Repeats:
        """The rows that are read and whose text an earlier row that is read has.

        By 128-bit digests.
        """
        with Buckets(scratch, DigestRecord, self.total) as buckets:
            for placed in self.chunks:
                local = np.flatnonzero(placed.of(copies))
                digests = placed.chunk.column("digest")[local]
                records = np.empty(len(local), dtype=DigestRecord)
                records["key"], records["rest"], records["row"] = (
                    digests[:, 0],
                    digests[:, 1],
                    placed.first + local,
                )
                buckets.add(records)
            found = [_repeats(records, ("key", "rest")) for records in buckets.read()]
        return _in_order(found)

    def repeated_ids(self, scratch: Path) -> list[str]:
        """Ids that more than one row has, sorted.

        Rows are compared by a 64-bit hash, and those that agree by the ids.
        """
        with Buckets(scratch, IdRecord, self.total) as buckets:
            for placed in self.chunks:
                records = np.empty(placed.chunk.rows, dtype=IdRecord)
                records["key"] = placed.chunk.column("id_hash")
                records["row"] = placed.first + np.arange(placed.chunk.rows)
                buckets.add(records)
            found = [_repeats(records, ("key",)) for records in buckets.read()]
        rows, firsts = _in_order(found)
        return sorted(
            {
                self.id(row)
                for row, first in zip(rows.tolist(), firsts.tolist(), strict=True)
                if self.id(row) == self.id(first)
            }
        )

    def signature_blocks(self, fates: Fates) -> Iterator[tuple[Rows, Signatures]]:
        """(row numbers, sketches) of the rows that are read, chunk by chunk."""
        for placed in self.chunks:
            local = np.flatnonzero(placed.of(fates))
            if len(local):
                yield placed.first + local, placed.chunk.signatures(local)

    def signatures(self, rows: Rows) -> Signatures:
        """(rows, 128) the sketches of ascending row numbers."""
        found = np.empty((len(rows), PLACES), dtype=np.uint16)
        firsts = [placed.first for placed in self.chunks]
        bounds = np.searchsorted(rows, [*firsts, self.total])
        for placed, start, stop in zip(
            self.chunks, bounds.tolist(), bounds[1:].tolist(), strict=False
        ):
            if start < stop:
                found[start:stop] = placed.chunk.signatures(rows[start:stop] - placed.first)
        return found


def _repeats(records: npt.NDArray[np.void], by: tuple[str, ...]) -> Repeats:
    """Rows whose fields `by` equal those of an earlier row, and the first such row."""
    ordered = records[np.lexsort((records["row"], *(records[name] for name in reversed(by))))]
    rows = ordered["row"]
    same = np.ones(len(rows), dtype=bool)
    same[0] = False
    for name in by:
        same[1:] &= ordered[name][1:] == ordered[name][:-1]
    first = np.maximum.accumulate(np.where(same, 0, np.arange(len(rows))))
    return Repeats(rows[same], rows[first[same]])


def _in_order(found: list[Repeats]) -> Repeats:
    """The repeats of all buckets, by row."""
    if not found:
        return Repeats(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    rows, firsts = (np.concatenate(columns) for columns in zip(*found, strict=True))
    order = np.argsort(rows)
    return Repeats(rows[order], firsts[order])
