"""The scan of a corpus: one pass over the source files that writes what must be known of every row.

Files are scanned by several processes, a group of consecutive files at a time. A group writes
chunks of rows as columns, and a listing when all of them stand. After a kill, groups with a listing
are not scanned again, and groups that another machine completed are taken as they are. Order and
contents follow from the sources alone. Memory: some 60 MB a process, whatever the sizes of files
and sources. Decides nothing that needs a second document: build.py does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from picochat.core.machine import usable_cores
from picochat.core.records import Record, digest_file, read_record, write_json
from picochat.core.workers import in_order
from picochat.data.corpus.minhash import PLACES, Signatures, signatures
from picochat.data.documents import file_path, read_source_file
from picochat.data.pack import LoadedPack

GROUP_BYTES = 8_000_000  # of source files that one task reads
# Of source files. Below that, starting processes costs more than it saves.
PARALLEL_BYTES = 16_000_000
CHUNK_TEXT_BYTES = 8_000_000
CHUNK_ROWS = 20_000
EXCLUDED = "excluded"


def id_fraction(id: str, purpose: str = "split") -> float:
    """A number in [0, 1) that follows from the id alone: the first 52 bits of a sha256.

    So a larger import keeps the old held-out documents held out, on any machine.
    """
    digest = hashlib.sha256(f"{purpose}\0{id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 12) / (1 << 52)


def weight_copies(id: str, weight: float) -> int:
    """How often a document is read: the whole part of the weight, once more for some of the ids."""
    whole = int(weight)
    return whole if whole == weight else whole + (id_fraction(id, "weight") < weight - whole)


@dataclass(frozen=True)
class ScanTask:
    """A group of consecutive files of one source.

    number: orders the groups of a corpus and names their chunks. excluded: ids of documents, with
    the label, that the recipe leaves out.
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

    name: relative to its source. rows: usable and other ones. text_bytes: of usable text.
    """

    name: str
    bytes: int
    sha256: str
    rows: int
    text_bytes: int


class ScanListing(Record):
    """What a group holds. `reasons`: why rows are unusable, by code from 1; code 0 is usable."""

    files: list[CorpusFile]
    reasons: list[str]
    chunk_rows: list[int]


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of one group as columns, which are read from disk when asked for."""

    path: Path
    rows: int
    reasons: tuple[str, ...]

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column, read anew each time.

        One of: problem, copies (u1), characters, text_bytes (u4), digest ((rows, 2) u8), fraction
        (f8), id_hash (u8), id_ends (i8), ids (the UTF-8 of all ids in a row).
        """
        with np.load(self.path.with_suffix(".npz")) as stored:
            return stored[name]

    def signatures(self, numbers: npt.NDArray[np.int64] | None = None) -> Signatures:
        """The sketches of the rows with these numbers, or of all."""
        mapped = np.memmap(
            self.path.with_suffix(".signatures"), dtype="<u2", mode="r", shape=(self.rows, PLACES)
        )
        return np.array(mapped if numbers is None else mapped[numbers])


def scan_tasks(pack: LoadedPack, least_chars: int) -> list[ScanTask]:
    """The groups of files, of about GROUP_BYTES each, in which a pack is scanned, in order."""
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
    """The listing of each group, in order; groups without one are scanned into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [task for task in tasks if not _listing_path(folder, task).exists()]
    large = sum(task.file_bytes for task in missing) >= PARALLEL_BYTES
    return in_order(partial(_scanner, folder), tasks, (workers or usable_cores()) if large else 1)


def _scanner(folder: Path) -> Callable[[ScanTask], ScanListing]:
    return partial(scan_group, folder)


def scan_group(folder: Path, task: ScanTask) -> ScanListing:
    """Scan the files of one group, unless its listing stands.

    Raises BadInput where a file is broken.
    """
    listing_path = _listing_path(folder, task)
    if listing_path.exists():
        return read_record(ScanListing, listing_path, "corpus scan")
    writer = _ChunkWriter(folder, task)
    files = [writer.scan(name) for name in task.files]
    writer.flush()
    listing = ScanListing(files=files, reasons=list(writer.reasons), chunk_rows=writer.chunk_rows)
    # Last and by rename: chunks count only when the listing names them.
    write_json(listing_path, listing)
    return listing


def chunks_of(task: ScanTask, listing: ScanListing, folder: Path) -> list[Chunk]:
    """The chunks that a group has written."""
    reasons = tuple(listing.reasons)
    return [
        Chunk(_chunk_path(folder, task, number), rows, reasons)
        for number, rows in enumerate(listing.chunk_rows)
    ]


class _ChunkWriter:
    """Collects rows, and writes a chunk whenever enough of them are there."""

    def __init__(self, folder: Path, task: ScanTask) -> None:
        self.reasons: dict[str, int] = {}
        self.chunk_rows: list[int] = []
        self._folder, self._task = folder, task
        self._clear()

    def scan(self, name: str) -> CorpusFile:
        """Take in the rows of a file."""
        task, rows, text_bytes = self._task, 0, 0
        for row in read_source_file(task.source, name, task.text_column):
            rows += 1
            id = f"{task.label}:{row.id}"
            problem = EXCLUDED if id in task.excluded else row.problem
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
        """Keep a row; returns the bytes of its text, 0 where it is not usable."""
        # Unusable rows are kept too, with an empty text, so that a row's number follows from the
        # files: `row_decisions.u8` has one byte for each of them.
        text = text if problem is None else ""
        data = text.encode()
        self._ids.append(id.encode("utf-8", "replace"))
        self._problems.append(
            self.reasons.setdefault(problem, len(self.reasons) + 1) if problem else 0
        )
        self._copies.append(weight_copies(id, self._task.weight))
        self._fractions.append(id_fraction(id))
        self._characters.append(len(text))
        self._sizes.append(len(data))
        self._digests.append(xxhash.xxh3_128_digest(data))
        self._texts.append(text)
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= CHUNK_TEXT_BYTES or len(self._texts) >= CHUNK_ROWS:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Write what was collected as a chunk."""
        if not self._texts:
            return
        path = _chunk_path(self._folder, self._task, len(self.chunk_rows))
        # Sketches are a file of their own: they are most of the bytes, and are read row by row.
        signatures(self._texts).astype("<u2").tofile(path.with_suffix(".signatures"))
        np.savez(
            path.with_suffix(".npz"),
            problem=np.array(self._problems, dtype=np.uint8),
            copies=np.array(self._copies, dtype=np.uint8),
            characters=np.array(self._characters, dtype=np.uint32),
            text_bytes=np.array(self._sizes, dtype=np.uint32),
            digest=np.frombuffer(b"".join(self._digests), dtype="<u8").reshape(-1, 2),
            fraction=np.array(self._fractions, dtype=np.float64),
            id_hash=np.array([xxhash.xxh3_64_intdigest(id) for id in self._ids], dtype=np.uint64),
            id_ends=np.cumsum([len(id) for id in self._ids], dtype=np.int64),
            ids=np.frombuffer(b"".join(self._ids), dtype=np.uint8),
        )
        self.chunk_rows.append(len(self._texts))
        self._clear()

    def _clear(self) -> None:
        self._ids: list[bytes] = []
        self._problems: list[int] = []
        self._copies: list[int] = []
        self._fractions: list[float] = []
        self._characters: list[int] = []
        self._sizes: list[int] = []
        self._digests: list[bytes] = []
        self._texts: list[str] = []
        self._waiting_bytes = 0


def _listing_path(folder: Path, task: ScanTask) -> Path:
    return folder / f"group-{task.number:06d}.json"


def _chunk_path(folder: Path, task: ScanTask, number: int) -> Path:
    return folder / f"group-{task.number:06d}-{number:05d}"
