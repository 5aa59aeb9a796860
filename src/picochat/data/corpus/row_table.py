"""All rows of a corpus, numbered in the order of sources, files and rows, and their repetitions.

The rows are on disk in the chunks of the scan and are read chunk by chunk. Equal texts and equal
ids are found in hash partitions. Memory: one chunk, one partition and the result.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from picochat.data.corpus.corpus_scan import (
    Chunk,
    ScanListing,
    ScanTask,
    chunks_of,
    id_fraction,
    weight_copies,
)
from picochat.data.corpus.hash_partitions import HashPartitions
from picochat.data.corpus.minhash import PLACES, Signatures
from picochat.data.corpus.reader import RowDecisions
from picochat.data.documents import row_place

Rows = npt.NDArray[np.int64]
DigestRecord = np.dtype([("key", "<u8"), ("rest", "<u8"), ("row", "<i8")])
IdRecord = np.dtype([("key", "<u8"), ("row", "<i8")])


class Repeats(NamedTuple):
    """Rows in ascending order, and for each the first row that it repeats."""

    rows: Rows
    firsts: Rows


# What the scan takes from a row's id and the weight of its source.
BY_ID: dict[str, Callable[[str, float], float]] = {
    "id_hash": lambda id, weight: xxhash.xxh3_64_intdigest(id.encode()),
    "fraction": lambda id, weight: id_fraction(id),
    "copies": weight_copies,
}


class PlacedChunk(NamedTuple):
    """A chunk. `owner`, `weight`: of its source. `first`: the number of its first row."""

    owner: int
    weight: float
    first: int
    chunk: Chunk

    def of(self, decisions: RowDecisions) -> RowDecisions:
        """The part of an array over all rows that belongs to this chunk, as a view."""
        return decisions[self.first : self.first + self.chunk.rows]


class RowTable:
    """The rows of a scan in `folder`.

    A context manager. Call `add` for each group in order, then `flush`, then the other methods.
    """

    def __init__(self, folder: Path) -> None:
        self.chunks: list[PlacedChunk] = []
        self.total = 0
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # `id` is called for few rows, in any order. It reads two files at computed offsets, so no
        # ids are kept in memory.
        self._ids: BinaryIO = (folder / "ids").open("w+b")
        self._id_ends: BinaryIO = (folder / "id_ends").open("w+b")
        self._id_ends.write(np.zeros(1, dtype="<i8").tobytes())
        self._files: list[tuple[int, str, str]] = []  # (first row, label, name)
        self.renamed: Rows = np.zeros(0, dtype=np.int64)

    def add(self, owner: int, task: ScanTask, listing: ScanListing) -> None:
        """Add the rows of a scanned group of the source number `owner`."""
        first_row = self.total
        for file in listing.files:
            self._files.append((first_row, task.label, file.name))
            first_row += file.rows
        for chunk in chunks_of(task, listing, self.folder):
            self.chunks.append(PlacedChunk(owner, task.weight, self.total, chunk))
            self.total += chunk.rows
            begin = self._ids.tell()
            self._ids.write(chunk.column("ids").tobytes())
            self._id_ends.write((chunk.column("id_ends") + begin).astype("<i8").tobytes())

    def __enter__(self) -> RowTable:
        return self

    def __exit__(self, *error: object) -> None:
        self._ids.close()
        self._id_ends.close()

    def flush(self) -> None:
        """Write the ids to disk. To be called after the last `add`, before `id`."""
        self._ids.flush()
        self._id_ends.flush()

    def id(self, row: int) -> str:
        """The id of a row, with the label of its source; its place where it is in `renamed`."""
        at = int(np.searchsorted(self.renamed, row))
        if at < len(self.renamed) and self.renamed[at] == row:
            return self.place(row)
        return self._given_id(row)

    def place(self, row: int) -> str:
        """LABEL:FILE#NUMBER of a row."""
        first, label, name = self._files[bisect_right(self._files, row, key=lambda f: f[0]) - 1]
        return f"{label}:{row_place(name, row - first)}"

    def _given_id(self, row: int) -> str:
        ends = np.frombuffer(os.pread(self._id_ends.fileno(), 16, 8 * row), dtype="<i8")
        begin, end = ends.tolist()
        return os.pread(self._ids.fileno(), end - begin, begin).decode()

    def column(self, placed: PlacedChunk, name: str) -> npt.NDArray[Any]:
        """A column of a chunk as `Chunk.column` has it, but by their places for renamed rows."""
        values = placed.chunk.column(name)
        if name in BY_ID:
            bounds = [placed.first, placed.first + placed.chunk.rows]
            start, stop = np.searchsorted(self.renamed, bounds)
            for row in self.renamed[start:stop].tolist():
                values[row - placed.first] = BY_ID[name](self.place(row), placed.weight)
        return values

    def copies(self) -> RowDecisions:
        """(total,) how often each row is read by its weight; 0 if it is not usable."""
        copies = np.zeros(self.total, dtype=np.uint8)
        for placed in self.chunks:
            usable = placed.chunk.column("problem") == 0
            placed.of(copies)[:] = np.where(usable, self.column(placed, "copies"), 0)
        return copies

    def repeated_texts(self, copies: RowDecisions, scratch: Path) -> Repeats:
        """The rows that repeat the text of an earlier row. Rows with 0 copies do not take part.

        Texts are compared by their 128-bit digests.
        """
        with HashPartitions(scratch, DigestRecord, self.total) as partitions:
            for placed in self.chunks:
                local = np.flatnonzero(placed.of(copies))
                digests = placed.chunk.column("digest")[local]
                records = np.empty(len(local), dtype=DigestRecord)
                records["key"], records["rest"] = digests[:, 0], digests[:, 1]
                records["row"] = placed.first + local
                partitions.add(records)
            found = [_repeats(records, ("key", "rest")) for records in partitions.read()]
        return _in_order(found)

    def rename_repeated(self, scratch: Path) -> list[str]:
        """Let the place of each row that repeats the id of an earlier row be its id (`renamed`).

        Its split and weight follow from the place. Returns the ids that are not unique even so.
        """
        self.renamed = self._repeated_ids(scratch)
        left = self._repeated_ids(scratch) if len(self.renamed) else self.renamed
        return sorted({self.id(row) for row in left.tolist()})

    def _repeated_ids(self, scratch: Path) -> Rows:
        """The rows whose id is that of an earlier row."""
        with HashPartitions(scratch, IdRecord, self.total) as partitions:
            for placed in self.chunks:
                records = np.empty(placed.chunk.rows, dtype=IdRecord)
                records["key"] = self.column(placed, "id_hash")
                records["row"] = placed.first + np.arange(placed.chunk.rows)
                partitions.add(records)
            found = [_repeats(records, ("key",)) for records in partitions.read()]
        # Of four billion ids two may well have the same 64-bit hash, so the ids themselves are
        # compared.
        rows, firsts = _in_order(found)
        pairs = zip(rows.tolist(), firsts.tolist(), strict=True)
        equal = [row for row, first in pairs if self.id(row) == self.id(first)]
        return np.array(equal, dtype=np.int64)

    def signature_blocks(self, decisions: RowDecisions) -> Iterator[tuple[Rows, Signatures]]:
        """(row numbers, sketches) of the rows that are not dropped, chunk by chunk."""
        for placed in self.chunks:
            local = np.flatnonzero(placed.of(decisions))
            if len(local):
                yield placed.first + local, placed.chunk.signatures(local)

    def signatures(self, rows: Rows) -> Signatures:
        """(rows, 128) the sketches of ascending row numbers."""
        found = np.empty((len(rows), PLACES), dtype=np.uint16)
        firsts = [placed.first for placed in self.chunks]
        bounds = np.searchsorted(rows, [*firsts, self.total]).tolist()
        for placed, start, stop in zip(self.chunks, bounds, bounds[1:], strict=False):
            if start < stop:
                found[start:stop] = placed.chunk.signatures(rows[start:stop] - placed.first)
        return found


def _repeats(records: npt.NDArray[np.void], by: tuple[str, ...]) -> Repeats:
    """Rows whose fields `by` equal those of an earlier row, and the first such row."""
    # Sorting by the fields and then by row puts equal records together, the first row first.
    ordered = records[np.lexsort((records["row"], *(records[name] for name in reversed(by))))]
    rows = ordered["row"]
    same = np.ones(len(rows), dtype=bool)
    same[0] = False
    for name in by:
        same[1:] &= ordered[name][1:] == ordered[name][:-1]
    first = np.maximum.accumulate(np.where(same, 0, np.arange(len(rows))))
    return Repeats(rows[same], rows[first[same]])


def _in_order(found: list[Repeats]) -> Repeats:
    """The repeats of all partitions, sorted by row."""
    if not found:
        return Repeats(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    rows, firsts = (np.concatenate(columns) for columns in zip(*found, strict=True))
    order = np.argsort(rows)
    return Repeats(rows[order], firsts[order])
