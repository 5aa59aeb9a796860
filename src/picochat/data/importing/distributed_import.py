"""The steps of an import by many ranks over a shared folder.

    pin       one rank    the revision, the files, the order of slices
    read      all ranks   each reads and filters the slices of its row groups
    decide    one rank    repeated texts, the cut at --max-rows, which document is in which shard
    write     all ranks   each compresses its shards
    publish   one rank    report, readable head, and by one rename the documents

The result equals that of `import_dataset`, byte for byte. A repeated step does only what is
missing, so only a killed rank must be started again. Does not start ranks (datatrove_pipelines.py
does), and detects a missing rank only in the next step. Only parquet is supported, because row
counts must be known before reading (docs/decisions/0017).
"""

from __future__ import annotations

import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import numpy as np

from picochat.core.errors import BadInput, WrongUsage
from picochat.core.progress import say, track
from picochat.core.publish import exclusive
from picochat.core.records import Record, read_json, read_record, write_json
from picochat.data.document_shards import DocumentShard, ShardWriter
from picochat.data.importing.hf_import import (
    OTHER_REQUEST,
    finished_import,
    pinned_source,
    require_documents,
    require_room,
    require_sound,
    slice_plan,
    slice_reader,
)
from picochat.data.importing.hub import TransferStats
from picochat.data.importing.import_report import ImportRequest, publish_import
from picochat.data.importing.import_state import (
    PREVIEWS,
    ImportState,
    ImportWork,
    read_import_state,
)
from picochat.data.importing.read_ahead import Part
from picochat.data.importing.slice_fragments import (
    columns_path,
    line_reference,
    read_columns,
    read_lines,
    write_fragment,
)
from picochat.data.importing.slices import Slice, SlicePlan, SliceReader
from picochat.present.printable import printable_line

FOOTER_CONNECTIONS = 8


class PinnedSlices(Record):
    """`slices.json`: every slice of the import, in order.

    request: digest of the request. names: the files of the split.
    """

    request: str
    names: list[str]
    slices: list[Slice]


class SharedFolder:
    """The files through which the ranks exchange their work, in the import's work folder."""

    def __init__(self, request: ImportRequest) -> None:
        self.places = request.places()
        self.root = self.places.work / "ranks"
        self.slices = self.root / "slices.json"
        self.fragments = self.root / "fragments"
        self.decided = self.root / "decided"
        # (slice, position) of every kept document in order, int32. Exists when all is decided.
        self.kept = self.root / "kept.bin"
        self.documents = self.root / "documents"

    def shard_record(self, number: int) -> Path:
        return self.root / "shards" / f"{number:06d}.json"

    def transfer(self, rank: int) -> Path:
        return self.root / "transfer" / f"{rank:06d}.json"

    def pinned(self, request: ImportRequest) -> PinnedSlices | None:
        """What `pin` wrote; None where the import is complete already."""
        if self.slices.exists():
            pinned = read_record(PinnedSlices, self.slices, "pinned slices")
            if pinned.request == request.digest():
                return pinned
            raise WrongUsage(
                f"{self.root} holds an unfinished import of another request", fix=OTHER_REQUEST
            )
        if finished_import(request, self.places) is not None:
            return None
        raise BadInput(
            f"{self.slices} is missing: nothing was pinned", fix="run the pin step first"
        )


# ---- pin -----------------------------------------------------------------------------------------


def pin(request: ImportRequest, rank: int = 0, ranks: int = 1, *, force: bool = False) -> int:
    """Pin the revision and list all slices; returns their number, 0 for a complete import.

    force: drop unfinished work, and set aside at the end what is at the places. Raises WrongUsage
    for an invalid request, for places in use, and for files other than parquet.
    """
    assert ranks == 1, f"one rank pins, not {ranks}"
    require_sound(request)
    shared = SharedFolder(request)
    if not force and finished_import(request, shared.places) is not None:
        say(f"{shared.places.documents} holds this import already; nothing to do")
        return 0
    require_room(shared.places, force)
    shared.root.mkdir(parents=True, exist_ok=True)
    with exclusive(shared.places.work / "lock", str(shared.places.documents)):
        source = pinned_source(request, shared.places, force)
        for note in source.notes:
            say(printable_line(note))
        reader = slice_reader(request, shared.places, source)
        plan = slice_plan(request, source)
        with ThreadPoolExecutor(FOOTER_CONNECTIONS) as pool:
            reader.fetch_early(plan.files_surely_read(), pool)
            slices = _counted_slices(plan, reader)
        pinned = PinnedSlices(request=request.digest(), names=list(plan.names), slices=slices)
        write_json(shared.slices, pinned)
    return len(slices)


def _counted_slices(plan: SlicePlan, reader: SliceReader) -> list[Slice]:
    """The slices up to `max_rows`, the last one cut. Raises WrongUsage for another format."""

    def row_counts(file: int) -> tuple[int, ...]:
        counts = reader.row_counts(file)
        if counts is None:
            raise WrongUsage(
                f"{plan.names[file]} is no parquet file: its rows cannot be divided before they are"
                " read",
                fix="import it on one machine, with picochat data hf-import",
            )
        return counts

    slices: list[Slice] = []
    missing = plan.max_rows
    for slice in plan.slices(row_counts):
        slices.append(slice._replace(rows=min(slice.rows, missing)))
        missing -= slices[-1].rows
        if missing == 0:
            break
    return slices


# ---- read ----------------------------------------------------------------------------------------


def read(request: ImportRequest, rank: int, ranks: int) -> int:
    """Read and filter this rank's slices that are not stored yet; returns the rows read."""
    shared = SharedFolder(request)
    pinned = shared.pinned(request)
    if pinned is None:
        return 0
    mine = [
        (number, slice, rows_before)
        for number, slice, rows_before in _slices_of_rank(pinned, rank, ranks)
        if not columns_path(shared.fragments, number).exists()
    ]
    if not mine:
        return 0
    source = pinned_source(request, shared.places, force=False)
    reader = slice_reader(request, shared.places, source)
    rows = 0
    try:
        for number, slice, rows_before in track(mine, f"read, rank {rank}", len(mine), "slices"):
            shown_rows = max(0, PREVIEWS - rows_before)
            rows += write_fragment(shared.fragments, number, reader.read(slice, 0), shown_rows)
    finally:
        source.stop()
        reader.close()
    write_json(shared.transfer(rank), asdict(source.transfer))
    return rows


def _slices_of_rank(pinned: PinnedSlices, rank: int, ranks: int) -> list[tuple[int, Slice, int]]:
    """(number of the slice, slice, rows before it in the import) of this rank's slices."""
    # Row groups go to the ranks in turn. All slices of a row group go to one rank, so no page is
    # fetched twice. A rank reads them from front to back, so its open stream continues.
    owners: dict[tuple[int, int | None], int] = {}
    mine: list[tuple[int, Slice, int]] = []
    rows_before = 0
    for number, slice in enumerate(pinned.slices):
        if owners.setdefault((slice.file, slice.group), len(owners) % ranks) == rank:
            mine.append((number, slice, rows_before))
        rows_before += slice.rows
    return sorted(mine, key=lambda item: item[1][1:])


# ---- decide --------------------------------------------------------------------------------------


def decide(request: ImportRequest, rank: int = 0, ranks: int = 1) -> int:
    """Decide for every row whether it becomes a document; returns the number of documents.

    Holds the columns of one slice and `SeenTexts` in memory. Raises BadInput where a slice was not
    read.
    """
    assert ranks == 1, f"one rank decides, not {ranks}"
    shared = SharedFolder(request)
    pinned = shared.pinned(request)
    if pinned is None:
        return 0
    if shared.kept.exists():
        return shared.kept.stat().st_size // 8
    slices = pinned.slices
    missing = sum(
        not columns_path(shared.fragments, number).exists() for number in range(len(slices))
    )
    if missing:
        raise BadInput(
            f"{missing:,} of {len(slices):,} slices were not read",
            fix="run the ranks of the read step again",
        )
    shutil.rmtree(shared.decided, ignore_errors=True)
    shared.decided.mkdir()
    partial = shared.kept.with_suffix(".part")
    writer = KeptRows(partial, request.document_shard_rows)
    # The same code as on one machine, so that the results cannot diverge. Only the writer differs:
    # it notes rows instead of compressing them.
    with ImportWork(
        shared.decided, request.document_shard_rows, tuple(pinned.names), writer
    ) as work:
        for number, slice in track(enumerate(slices), "decide", len(slices), "slices"):
            rows = read_columns(shared.fragments, number).filtered_rows(slice.file, number)
            work.take(Part(slice, len(rows), rows), request.max_rows - work.rows_seen)
        work.finish()
    require_documents(request, work.state)
    partial.rename(shared.kept)
    return work.state.documents


class KeptRows:
    """A `LineWriter` that stores the slice and position of each document instead of its text."""

    def __init__(self, path: Path, shard_documents: int) -> None:
        self._stream = path.open("wb")
        self._shard_documents, self._shards = shard_documents, 0
        self._documents = self._characters = self._text_bytes = 0

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._stream.close()

    def add_line(
        self, line: bytes, characters: int, text_bytes: int
    ) -> Future[DocumentShard] | None:
        self._stream.write(np.array(line_reference(line), dtype="<i4").tobytes())
        self._documents += 1
        self._characters += characters
        self._text_bytes += text_bytes
        return self.complete() if self._documents == self._shard_documents else None

    def complete(self) -> Future[DocumentShard] | None:
        """The shard without size and digest, which are unknown before it is written."""
        if not self._documents:
            return None
        shard: Future[DocumentShard] = Future()
        shard.set_result(
            DocumentShard(
                name=f"{self._shards:06d}",
                documents=self._documents,
                characters=self._characters,
                text_bytes=self._text_bytes,
                bytes=0,
                sha256="",
            )
        )
        self._shards += 1
        self._documents = self._characters = self._text_bytes = 0
        return shard


# ---- write ---------------------------------------------------------------------------------------


def write(request: ImportRequest, rank: int, ranks: int) -> int:
    """Write the missing shards among every `ranks`-th from `rank` on; returns their documents."""
    shared = SharedFolder(request)
    if shared.pinned(request) is None:
        return 0
    if not shared.kept.exists():
        raise BadInput(
            f"{shared.kept} is missing: nothing was decided", fix="run the decide step first"
        )
    kept = np.memmap(shared.kept, dtype="<i4", mode="r").reshape(-1, 2)
    size = request.document_shard_rows
    numbers = [
        number
        for number in range(rank, -(-len(kept) // size), ranks)
        if not shared.shard_record(number).exists()
    ]
    written = 0
    for number in track(numbers, f"write, rank {rank}", len(numbers), "shards"):
        shard = _write_shard(shared, number, kept[number * size : (number + 1) * size], size)
        # The record comes after the shard, because a kill may leave an incomplete shard file.
        write_json(shared.shard_record(number), shard)
        written += shard.documents
    return written


def _write_shard(
    shared: SharedFolder, number: int, kept: np.ndarray, shard_documents: int
) -> DocumentShard:
    coming: Future[DocumentShard] | None = None
    with ShardWriter(shared.documents, shard_documents, first_shard=number) as writer:
        for slice, places in groupby(kept.tolist(), key=lambda place: place[0]):
            positions = np.array([position for _, position in places])
            for line, characters, text_bytes in read_lines(shared.fragments, slice, positions):
                coming = writer.add_line(line, characters, text_bytes)
        coming = coming or writer.complete()
        assert coming is not None, "a shard holds at least one document"
        return coming.result()


# ---- publish -------------------------------------------------------------------------------------


def publish(request: ImportRequest, rank: int = 0, ranks: int = 1) -> int:
    """Publish report, head and documents; returns the number of documents.

    Raises BadInput where a shard is missing.
    """
    assert ranks == 1, f"one rank publishes, not {ranks}"
    shared = SharedFolder(request)
    # Documents that are still here were not published, whatever is at their place.
    finished = None if shared.documents.exists() else finished_import(request, shared.places)
    if finished is None:
        with exclusive(shared.places.work / "lock", str(shared.places.documents)):
            source = pinned_source(request, shared.places, force=False)
            state, observed = _written_state(shared), _observed(shared)
            finished = publish_import(
                request, shared.places, source, state, shared.documents, observed
            )
    shutil.rmtree(shared.places.work, ignore_errors=True)
    return finished.rows_written


def _written_state(shared: SharedFolder) -> ImportState:
    """The decided state, with the written shards instead of the planned ones."""
    state = read_import_state(shared.decided / "journal.jsonl")
    records = [shared.shard_record(number) for number in range(len(state.shards))]
    missing = sum(not record.exists() for record in records)
    if missing or not shared.kept.exists():
        raise BadInput(
            f"{missing:,} of {len(state.shards):,} shards were not written",
            fix="run the ranks of the write step again",
        )
    written = [read_record(DocumentShard, record, "shard record") for record in records]
    for planned, shard in zip(state.shards, written, strict=True):
        counts = ("documents", "characters", "text_bytes")
        assert all(getattr(planned, name) == getattr(shard, name) for name in counts), (
            "a shard holds what was decided"
        )
    state.shards = written
    return state


def _observed(shared: SharedFolder) -> dict[str, object]:
    stats = [TransferStats(**read_json(path)) for path in shared.root.glob("transfer/*.json")]
    return {
        "schema_version": 1,
        "elapsed_s": round(time.time() - shared.slices.stat().st_mtime, 3),
        "ranks_that_read": len(stats),
        "bytes_fetched": sum(each.bytes for each in stats),
        "requests": sum(each.requests for each in stats),
        "retries": sum(each.retries for each in stats),
        "documents_dir": str(shared.places.documents.resolve()),
    }
