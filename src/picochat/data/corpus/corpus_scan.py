"""The scan of a corpus: one pass over the source files that records facts about every row.

Several processes scan groups of consecutive files. A group's rows are written in chunks of columns,
and then its listing. A group with a listing is not scanned again after a kill, nor if another
machine has scanned it. Order and contents depend only on the sources. Memory: about 60 MB a
process, for any sizes of files and sources. build.py compares documents with each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from picochat.core.machine import usable_cores
from picochat.core.records import Record, digest_file, read_record, write_json
from picochat.core.workers import in_order
from picochat.data.corpus.minhash import PLACES, Signatures, signatures
from picochat.data.documents import file_path, read_source_file
from picochat.data.pack import LoadedPack

GROUP_BYTES = 8_000_000  # of source files in a group
PARALLEL_BYTES = (
    16_000_000  # of source files; for fewer, starting processes costs more than it saves
)
CHUNK_TEXT_BYTES = 8_000_000
CHUNK_ROWS = 20_000
EXCLUDED = "excluded"


def id_fraction(id: str, purpose: str = "split") -> float:
    """A number in [0, 1) from the first 52 bits of the id's sha256.

    It depends only on the id, so a larger import keeps the old held-out documents held out.
    """
    digest = hashlib.sha256(f"{purpose}\0{id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 12) / (1 << 52)


def weight_copies(id: str, weight: float) -> int:
    """How often a document is read: floor(weight) times, and once more for some of the ids."""
    whole = int(weight)
    return whole if whole == weight else whole + (id_fraction(id, "weight") < weight - whole)


@dataclass(frozen=True)
class ScanTask:
    """A group of consecutive files of one source.

    number: of the group in the corpus; it names the group's files. excluded: ids or places, with
    the label, of documents that the recipe leaves out.
    """

    number: int
    label: str
    source: Path
    files: tuple[str, ...]
    file_bytes: int
    text_column: str
    min_chars: int
    weight: float
    excluded: frozenset[str]


class CorpusFile(Record):
    """One source file.

    name: relative to its source. rows: of the file, usable or not. text_bytes: of usable rows.
    """

    name: str
    bytes: int
    sha256: str
    rows: int
    text_bytes: int


class ScanListing(Record):
    """The contents of a group. `reasons`: why rows are unusable; the code of the first is 1."""

    files: list[CorpusFile]
    reasons: list[str]
    chunk_rows: list[int]


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of one group as columns on disk."""

    path: Path
    rows: int
    reasons: tuple[str, ...]

    def column(self, name: str) -> npt.NDArray[Any]:
        """Read a column from disk.

        One of: problem, copies (uint8), text_bytes (uint32), digest (rows, 2) and
        id_hash (uint64), fraction (float64), id_ends (int64), ids (the joined UTF-8 of all ids).
        """
        with np.load(self.path.with_suffix(".npz")) as stored:
            return stored[name]

    def signatures(self, numbers: npt.NDArray[np.int64] | None = None) -> Signatures:
        """(rows, 128) the sketches of the rows with these numbers, or of all rows."""
        mapped = np.memmap(
            self.path.with_suffix(".signatures"), dtype="<u2", mode="r", shape=(self.rows, PLACES)
        )
        return np.array(mapped if numbers is None else mapped[numbers])


def scan_tasks(pack: LoadedPack, least_chars: int) -> list[ScanTask]:
    """The files of a pack in groups of about GROUP_BYTES, in order."""
    tasks: list[ScanTask] = []
    for source in pack.sources:
        prefix = f"{source.label}:"
        excluded = frozenset(id for id in pack.recipe.exclude_documents if id.startswith(prefix))
        group: list[str] = []
        size = 0
        for position, file in enumerate(source.files, start=1):
            group.append(file.name)
            size += file.bytes
            if size >= GROUP_BYTES or position == len(source.files):
                task = ScanTask(
                    number=len(tasks),
                    label=source.label,
                    source=source.path,
                    files=tuple(group),
                    file_bytes=size,
                    text_column=source.text_column,
                    min_chars=source.least_chars(least_chars),
                    weight=source.weight,
                    excluded=excluded,
                )
                tasks.append(task)
                group, size = [], 0
    return tasks


def scan_groups(
    tasks: Sequence[ScanTask], folder: Path, workers: int | None
) -> Iterator[ScanListing]:
    """The listing of each group, in order. Groups without a listing are scanned into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [task for task in tasks if not _listing_path(folder, task).exists()]
    large = sum(task.file_bytes for task in missing) >= PARALLEL_BYTES
    return in_order(partial(_scanner, folder), tasks, (workers or usable_cores()) if large else 1)


def _scanner(folder: Path) -> Callable[[ScanTask], ScanListing]:
    return partial(scan_group, folder)


def scan_group(folder: Path, task: ScanTask) -> ScanListing:
    """Scan the files of one group, unless its listing exists. Raises BadInput for a broken file."""
    listing_path = _listing_path(folder, task)
    if listing_path.exists():
        return read_record(ScanListing, listing_path, "corpus scan")
    writer = _ChunkWriter(folder, task)
    files = [writer.scan(name) for name in task.files]
    writer.flush()
    listing = ScanListing(files=files, reasons=list(writer.reasons), chunk_rows=writer.chunk_rows)
    # Written last and by rename: a listing says that all its chunks are complete.
    write_json(listing_path, listing)
    return listing


def chunks_of(task: ScanTask, listing: ScanListing, folder: Path) -> list[Chunk]:
    """The chunks of a group."""
    reasons = tuple(listing.reasons)
    return [
        Chunk(_chunk_path(folder, task, number), rows, reasons)
        for number, rows in enumerate(listing.chunk_rows)
    ]


class _Row(NamedTuple):
    id: bytes
    problem: int
    copies: int
    fraction: float
    text_bytes: int
    digest: bytes
    text: str


class _ChunkWriter:
    """Collects rows and writes them in chunks."""

    def __init__(self, folder: Path, task: ScanTask) -> None:
        self.reasons: dict[str, int] = {}
        self.chunk_rows: list[int] = []
        self._folder, self._task = folder, task
        self._rows: list[_Row] = []
        self._waiting_bytes = 0

    def scan(self, name: str) -> CorpusFile:
        """Add the rows of a file."""
        task, rows, text_bytes = self._task, 0, 0
        for row in read_source_file(task.source, name, task.text_column):
            rows += 1
            id = f"{task.label}:{row.id}"
            names = (id, f"{task.label}:{row.place}") if task.excluded else ()
            problem = row.problem if task.excluded.isdisjoint(names) else EXCLUDED
            problem = problem or ("below_min_chars" if len(row.text) < task.min_chars else None)
            text_bytes += self._take(id, row.text, problem)
        path = file_path(task.source, name)
        return CorpusFile(
            name=name,
            bytes=path.stat().st_size,
            sha256=digest_file(path),
            rows=rows,
            text_bytes=text_bytes,
        )

    def _take(self, id: str, text: str, problem: str | None) -> int:
        """Add a row; returns the bytes of its text, 0 if it is not usable."""
        # Unusable rows are kept too, with an empty text, because `row_decisions.u8` has a byte for
        # each row of the files.
        text = text if problem is None else ""
        data = text.encode()
        row = _Row(
            id=id.encode("utf-8", "replace"),  # JSON can spell half of a surrogate pair
            problem=self.reasons.setdefault(problem, len(self.reasons) + 1) if problem else 0,
            copies=weight_copies(id, self._task.weight),
            fraction=id_fraction(id),
            text_bytes=len(data),
            digest=xxhash.xxh3_128_digest(data),
            text=text,
        )
        self._rows.append(row)
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= CHUNK_TEXT_BYTES or len(self._rows) >= CHUNK_ROWS:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Write the collected rows as a chunk."""
        if not self._rows:
            return
        rows, self._rows, self._waiting_bytes = self._rows, [], 0
        path = _chunk_path(self._folder, self._task, len(self.chunk_rows))
        self.chunk_rows.append(len(rows))
        # Sketches have their own file, because they are most of the bytes and are read row by row.
        signatures([row.text for row in rows]).astype("<u2").tofile(path.with_suffix(".signatures"))
        np.savez(
            path.with_suffix(".npz"),
            problem=np.array([row.problem for row in rows], dtype=np.uint8),
            copies=np.array([row.copies for row in rows], dtype=np.uint8),
            text_bytes=np.array([row.text_bytes for row in rows], dtype=np.uint32),
            digest=np.frombuffer(b"".join(row.digest for row in rows), "<u8").reshape(-1, 2),
            fraction=np.array([row.fraction for row in rows], dtype=np.float64),
            id_hash=np.array([xxhash.xxh3_64_intdigest(row.id) for row in rows], dtype=np.uint64),
            id_ends=np.cumsum([len(row.id) for row in rows], dtype=np.int64),
            ids=np.frombuffer(b"".join(row.id for row in rows), dtype=np.uint8),
        )


def _listing_path(folder: Path, task: ScanTask) -> Path:
    return folder / f"group-{task.number:06d}.json"


def _chunk_path(folder: Path, task: ScanTask, number: int) -> Path:
    return folder / f"group-{task.number:06d}-{number:05d}"
