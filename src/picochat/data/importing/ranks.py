"""An import by many ranks over a folder that all of them see: what each rank does. Runs under any
executor, or none.

    pin       one rank    the revision, the files, the order of visits read      all ranks   each
    reads and judges the visits of its row groups decide    one rank    repeated texts, the cut at
    --max-rows, which document stands in which shard write     all ranks   each compresses its
    shards publish   one rank    report, readable head, and by one rename the documents

The result is that of `import_dataset`, byte for byte. Every step may be repeated: what stands is
not made again, so a rank that was killed is started again, and nothing else. A step for one rank
asserts that it is alone. Only parquet: the visits must be known before anybody reads, and only its
footers say how many rows there are. Does not start ranks, and does not notice that one is missing
before the next step.
"""

from __future__ import annotations

import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import TracebackType

import numpy as np

from picochat.core.errors import BadInput, WrongUsage
from picochat.core.journal import read_journal
from picochat.core.progress import say, track
from picochat.core.publish import exclusive
from picochat.core.records import Record, parse_record, read_record, write_json
from picochat.data.importing.fragments import (
    columns_path,
    line_reference,
    read_columns,
    read_lines,
    write_fragment,
)
from picochat.data.importing.hf_import import (
    finished_import,
    pinned_origin,
    require_documents,
    require_room,
)
from picochat.data.importing.origin import Origin
from picochat.data.importing.origin_reader import OriginReader
from picochat.data.importing.read_ahead import Part
from picochat.data.importing.report import publish_import
from picochat.data.importing.request import (
    ImportPlaces,
    ImportRequest,
    import_places,
    require_sound,
)
from picochat.data.importing.visits import Plan, Visit
from picochat.data.importing.work import PREVIEWS, Commit, ImportState, ImportWork
from picochat.data.shard_writer import DocumentShard, ShardWriter

FOOTER_CONNECTIONS = 8


class PinnedVisits(Record):
    """Every visit of the import, in order.

    `visits`: key, file, row group, first row of it, rows. `request`: its digest.
    """

    request: str
    names: list[str]
    visits: list[tuple[tuple[int, int], int, int, int, int]]


class RankTraffic(Record):
    """What one rank fetched."""

    bytes: int
    requests: int
    retries: int


@dataclass(frozen=True)
class Shared:
    """Where the ranks meet: beside the documents, on their disk."""

    places: ImportPlaces

    @property
    def root(self) -> Path:
        return self.places.work / "ranks"

    @property
    def visits(self) -> Path:
        return self.root / "visits.json"

    @property
    def fragments(self) -> Path:
        return self.root / "fragments"

    @property
    def decided(self) -> Path:
        return self.root / "decided"

    @property
    def kept(self) -> Path:
        """(visit, position) of every kept document in order, int32; its presence says that all was
        decided.
        """
        return self.root / "kept.bin"

    @property
    def documents(self) -> Path:
        return self.root / "documents"

    def shard_record(self, number: int) -> Path:
        return self.root / "shards" / f"{number:06d}.json"

    def traffic(self, rank: int) -> Path:
        return self.root / "traffic" / f"{rank:06d}.json"


def pin(request: ImportRequest, rank: int = 0, ranks: int = 1) -> int:
    """Pins the revision and writes down all visits; returns their number, 0 where the import is
    complete already.

    Raises WrongUsage for a request that cannot be, for places that hold another import, and for
    files that are no parquet.
    """
    assert ranks == 1, f"one rank pins, not {ranks}"
    require_sound(request)
    shared = Shared(import_places(request))
    if finished_import(request, shared.places) is not None:
        say(f"{shared.places.documents} holds this import already; nothing to do")
        return 0
    require_room(shared.places, force=False)
    shared.root.mkdir(parents=True, exist_ok=True)
    with exclusive(shared.places.work / "lock", str(shared.places.documents)):
        origin = pinned_origin(request, shared.places, force=False)
        reader = _reader(request, shared, origin)
        plan = Plan(
            tuple(file.name for file in origin.files),
            request.max_rows,
            request.sample,
            request.seed,
        )
        with ThreadPoolExecutor(FOOTER_CONNECTIONS) as pool:
            reader.fetch_early(plan.files_surely_visited(), pool)
            visits = _counted_visits(plan, reader)
        listed = [
            (visit.key, visit.file, visit.group or 0, visit.start, visit.rows) for visit in visits
        ]
        write_json(
            shared.visits,
            PinnedVisits(request=request.digest(), names=list(plan.names), visits=listed),
        )
    return len(visits)


def read(request: ImportRequest, rank: int, ranks: int) -> int:
    """Reads and judges this rank's visits; returns the rows that it read now.

    All slices of a row group are one rank's.
    """
    shared = Shared(import_places(request))
    pinned = _pinned_visits(request, shared)
    if pinned is None:
        return 0
    mine = [
        (number, visit, rows_before)
        for number, visit, rows_before in _shares(pinned, ranks)[rank]
        if not columns_path(shared.fragments, number).exists()
    ]
    if not mine:
        return 0
    origin = pinned_origin(request, shared.places, force=False)
    reader = _reader(request, shared, origin)
    rows = 0
    try:
        for number, visit, rows_before in track(mine, f"read, rank {rank}", len(mine), "visits"):
            rows += write_fragment(
                shared.fragments, number, reader.read(visit, 0), max(0, PREVIEWS - rows_before)
            )
    finally:
        origin.stop()
        reader.close()
    traffic = origin.traffic
    write_json(
        shared.traffic(rank),
        RankTraffic(bytes=traffic.bytes, requests=traffic.requests, retries=traffic.retries),
    )
    return rows


def decide(request: ImportRequest, rank: int = 0, ranks: int = 1) -> int:
    """Decides what becomes of every row, as one process would that met them in order; returns the
    documents kept.

    Raises BadInput where a visit was not read. Memory: the columns of one visit, and what tells
    repeated texts (`SeenTexts`).
    """
    assert ranks == 1, f"one rank decides, not {ranks}"
    shared = Shared(import_places(request))
    pinned = _pinned_visits(request, shared)
    if pinned is None:
        return 0
    if shared.kept.exists():
        return shared.kept.stat().st_size // 8
    visits = [Visit(*visit) for visit in pinned.visits]
    missing = sum(
        not columns_path(shared.fragments, number).exists() for number in range(len(visits))
    )
    if missing:
        raise BadInput(
            f"{missing:,} of {len(visits):,} visits were not read",
            fix="run the ranks of the read step again",
        )
    shutil.rmtree(shared.decided, ignore_errors=True)
    shared.decided.mkdir()
    partial = shared.kept.with_suffix(".part")
    writer = KeptRows(partial, request.document_shard_rows)
    with ImportWork(
        shared.decided, request.document_shard_rows, tuple(pinned.names), writer
    ) as work:
        for number, visit in track(enumerate(visits), "decide", len(visits), "visits"):
            rows = read_columns(shared.fragments, number).judged(visit.file, number)
            work.take(Part(visit, len(rows), rows), request.max_rows - work.rows_seen)
        work.finish()
    require_documents(request, work.state)
    partial.rename(shared.kept)
    return work.state.documents


def write(request: ImportRequest, rank: int, ranks: int) -> int:
    """Writes this rank's shards: every `ranks`-th from `rank` on; returns the documents that it
    wrote now.
    """
    shared = Shared(import_places(request))
    if _pinned_visits(request, shared) is None:
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
        write_json(shared.shard_record(number), shard)
        written += shard.documents
    return written


def publish(request: ImportRequest, rank: int = 0, ranks: int = 1) -> int:
    """Report, head and, by one rename, the documents; returns their number.

    Raises BadInput where a shard was not written.
    """
    assert ranks == 1, f"one rank publishes, not {ranks}"
    shared = Shared(import_places(request))
    finished = finished_import(request, shared.places)
    if finished is None:
        with exclusive(shared.places.work / "lock", str(shared.places.documents)):
            finished = publish_import(
                request,
                shared.places,
                pinned_origin(request, shared.places, force=False),
                _written_state(shared),
                shared.documents,
                _observed(shared),
            )
    shutil.rmtree(shared.places.work, ignore_errors=True)
    return finished.rows_written


class KeptRows:
    """Stands where an import's shard writer would, and notes which row every kept document is,
    instead of its text.
    """

    def __init__(self, path: Path, shard_documents: int) -> None:
        self._stream = path.open("wb")
        self._shard_documents, self._shards = shard_documents, 0
        self._documents = self._characters = self._text_bytes = 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
        """The shard as far as it is known before anybody wrote it: no size, no digest."""
        if not self._documents:
            return None
        decided = DocumentShard(
            name=f"{self._shards:06d}",
            documents=self._documents,
            characters=self._characters,
            text_bytes=self._text_bytes,
            bytes=0,
            sha256="",
        )
        self._shards += 1
        self._documents = self._characters = self._text_bytes = 0
        shard: Future[DocumentShard] = Future()
        shard.set_result(decided)
        return shard


def _reader(request: ImportRequest, shared: Shared, origin: Origin) -> OriginReader:
    return OriginReader(
        origin, request.text_column, request.min_chars, shared.places.work / "footers"
    )


def _counted_visits(plan: Plan, reader: OriginReader) -> list[Visit]:
    """The visits up to `max_rows`, the last one cut.

    Raises WrongUsage at a file whose rows nobody can count beforehand.
    """

    def row_counts(file: int) -> tuple[int, ...]:
        counts = reader.row_counts(file)
        if counts is None:
            raise WrongUsage(
                f"{plan.names[file]} is no parquet file: its rows cannot be shared out before they"
                " are read",
                fix="picochat data hf-import reads it, on one machine",
            )
        return counts

    visits: list[Visit] = []
    missing = plan.max_rows
    for visit in plan.visits(row_counts):
        visits.append(visit._replace(rows=min(visit.rows, missing)))
        missing -= visits[-1].rows
        if missing == 0:
            break
    return visits


def _pinned_visits(request: ImportRequest, shared: Shared) -> PinnedVisits | None:
    """What `pin` wrote down; None where the import is complete and nothing is left to do."""
    if shared.visits.exists():
        pinned = read_record(PinnedVisits, shared.visits, "pinned visits")
        if pinned.request == request.digest():
            return pinned
        raise WrongUsage(
            f"{shared.root} holds an unfinished import of another request",
            fix=f"remove {shared.places.work}",
        )
    if finished_import(request, shared.places) is not None:
        return None
    raise BadInput(f"{shared.visits} is missing: nothing was pinned", fix="run the pin step first")


def _shares(pinned: PinnedVisits, ranks: int) -> list[list[tuple[int, Visit, int]]]:
    """For each rank (number of the visit, visit, rows before it), sorted so that a row group is
    read from front to back.

    Row groups go round over the ranks in the order in which they are met. Two ranks never read the
    same row group.
    """
    owners: dict[tuple[int, int | None], int] = {}
    shares: list[list[tuple[int, Visit, int]]] = [[] for _ in range(ranks)]
    rows_before = 0
    for number, given in enumerate(pinned.visits):
        visit = Visit(*given)
        owner = owners.setdefault((visit.file, visit.group), len(owners) % ranks)
        shares[owner].append((number, visit, rows_before))
        rows_before += visit.rows
    return [sorted(share, key=lambda item: item[1][1:]) for share in shares]


def _write_shard(
    shared: Shared, number: int, kept: np.ndarray, shard_documents: int
) -> DocumentShard:
    coming: Future[DocumentShard] | None = None
    with ShardWriter(shared.documents, shard_documents, first_shard=number) as writer:
        for visit, places in groupby(kept.tolist(), key=lambda place: place[0]):
            positions = np.array([position for _, position in places])
            for line, characters, text_bytes in read_lines(shared.fragments, visit, positions):
                coming = writer.add_line(line, characters, text_bytes)
        coming = coming or writer.complete()
        assert coming is not None, "a shard holds a document"
        return coming.result()


def _written_state(shared: Shared) -> ImportState:
    """What was decided, with the shards as they were written in the place of those that were only
    planned.
    """
    state = ImportState()
    journal = shared.decided / "journal.jsonl"
    for row in read_journal(journal):
        state.add(parse_record(Commit, row, str(journal)))
    missing = [
        number for number in range(len(state.shards)) if not shared.shard_record(number).exists()
    ]
    if missing or not shared.kept.exists():
        raise BadInput(
            f"{len(missing):,} of {len(state.shards):,} shards were not written",
            fix="run the ranks of the write step again",
        )
    written = [
        read_record(DocumentShard, shared.shard_record(number), "shard record")
        for number in range(len(state.shards))
    ]
    for planned, shard in zip(state.shards, written, strict=True):
        counts = ("documents", "characters", "text_bytes")
        assert all(getattr(planned, name) == getattr(shard, name) for name in counts), (
            "a shard holds what was decided"
        )
    state.shards = written
    return state


def _observed(shared: Shared) -> dict[str, object]:
    traffic = [
        read_record(RankTraffic, path, "traffic")
        for path in sorted(shared.root.glob("traffic/*.json"))
    ]
    return {
        "schema_version": 1,
        "elapsed_s": round(time.time() - shared.visits.stat().st_mtime, 3),
        "ranks_that_read": len(traffic),
        "bytes_fetched": sum(each.bytes for each in traffic),
        "requests": sum(each.requests for each in traffic),
        "retries": sum(each.retries for each in traffic),
        "documents_dir": str(shared.places.documents.resolve()),
    }
