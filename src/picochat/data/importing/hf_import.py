"""`picochat data hf-import`: rows of a dataset become documents, with a report of where every one
came from.

The revision is resolved once and pinned. Work lies in `<documents-dir>.work` until it is complete:
after a kill or a lost connection the same command goes on after the last complete shard, and ends
with the same bytes. Then the report, the readable head of the text (`--out`, decision 0003) and, by
one rename, the documents appear. Duration, traffic and absolute places are written apart
(`*.observed.json`), because they differ between runs that import the same. Does not detect
near-duplicates: that is the corpus's work.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from picochat.core.errors import BadInput, Problem, WrongUsage
from picochat.core.machine import usable_cores
from picochat.core.progress import Progress, say
from picochat.core.publish import exclusive
from picochat.core.records import read_json, read_record, write_json
from picochat.data.documents import MANIFEST_NAME, read_manifest
from picochat.data.importing.hub_requests import Patience
from picochat.data.importing.origin import Origin, is_local, open_origin
from picochat.data.importing.origin_reader import OriginReader
from picochat.data.importing.read_ahead import read_in_order
from picochat.data.importing.report import ImportReport, publish_import
from picochat.data.importing.request import (
    ImportPlaces,
    ImportRequest,
    import_places,
    require_sound,
)
from picochat.data.importing.visits import Plan
from picochat.data.importing.work import ImportState, ImportWork
from picochat.present.values import duration, quantity

DEFAULT_CONNECTIONS = 8
M_ARENA_MAX = -8  # of malloc.h


def import_dataset(
    request: ImportRequest,
    *,
    force: bool = False,
    connections: int = DEFAULT_CONNECTIONS,
    patience: Patience | None = None,
) -> ImportReport:
    """The report of a complete import: made now, finished from an interrupted one, or found
    complete.

    connections: files read at the same time. patience: with a slow or failing Hub. Neither changes
    the result.

    Raises WrongUsage for a request that contradicts itself or for places that hold another import
    (`force` sets that aside), BadInput for local data, HubProblem for the Hub.
    """
    require_sound(request)
    places = import_places(request)
    finished = finished_import(request, places)
    if finished is not None and not force:
        say(
            f"{places.documents} holds this import already: {finished.rows_written:,} documents;"
            " nothing to do"
        )
        _drop_leftover(places)
        return finished
    require_source_untouched(request, places)
    require_room(places, force)
    places.work.mkdir(parents=True, exist_ok=True)
    with exclusive(places.work / "lock", str(places.documents)):
        origin = pinned_origin(request, places, force, patience)
        report = _import_rows(request, places, origin, connections)
    shutil.rmtree(places.work)
    return report


def _import_rows(
    request: ImportRequest, places: ImportPlaces, origin: Origin, connections: int
) -> ImportReport:
    _share_heaps()
    say(
        f"importing up to {request.max_rows:,} rows of {origin.dataset} ({request.split}) at"
        f" {(origin.revision or 'local files')[:12]}: {len(origin.files)} files, licence"
        f" {origin.licence or 'not stated'}"
    )
    plan = Plan(
        tuple(file.name for file in origin.files), request.max_rows, request.sample, request.seed
    )
    threads = connections if origin.kind == "hub" else min(connections, usable_cores() + 1)
    with ImportWork(places.work, request.document_shard_rows, plan.names) as work:
        plan.exhausted.update(work.state.exhausted)
        rows_before = work.state.rows_seen
        if rows_before:
            say(f"going on after {rows_before:,} rows that an earlier process imported")
        elapsed_s = _take_rows(request, places, origin, plan, work, threads)
    require_documents(request, work.state)
    observed: dict[str, object] = {
        "schema_version": 1,
        "elapsed_s": round(elapsed_s, 3),
        "rows_by_this_process": work.state.rows_seen - rows_before,
        "resumed": rows_before > 0,
        "connections": threads,
        "bytes_fetched": origin.traffic.bytes,
        "requests": origin.traffic.requests,
        "retries": origin.traffic.retries,
        "documents_dir": str(places.documents.resolve()),
        "dataset": (
            str(Path(request.dataset).expanduser().resolve())
            if origin.kind == "files"
            else request.dataset
        ),
    }
    report = publish_import(request, places, origin, work.state, work.documents, observed)
    _say_what_is_next(report, places, elapsed_s)
    return report


def _share_heaps() -> None:
    """Let all threads share two heaps where the C library is glibc; by default each keeps what it
    freed to itself.

    A tenth to a third of the memory of an import, decision 0014.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_ARENA_MAX, 2)


def _take_rows(
    request: ImportRequest,
    places: ImportPlaces,
    origin: Origin,
    plan: Plan,
    work: ImportWork,
    threads: int,
) -> float:
    """Let `work` take and commit the rows that it lacks; returns the seconds that took."""
    rows_before = work.rows_seen
    reader = OriginReader(origin, request.text_column, request.min_chars, places.work / "footers")
    with Progress("import", request.max_rows, "rows") as progress:
        progress.start_at(rows_before)
        with read_in_order(
            reader,
            plan,
            connections=threads,
            after=work.state.position,
            rows_wanted=request.max_rows - rows_before,
        ) as parts:
            for part in parts:
                rows = work.take(part, request.max_rows - work.rows_seen)
                progress.advance(rows, f"{quantity(work.text_bytes)}B of text")
                if work.rows_seen == request.max_rows:
                    break
        work.finish()
        return progress.elapsed_s()


def _say_what_is_next(report: ImportReport, places: ImportPlaces, elapsed_s: float) -> None:
    say(
        f"took {duration(elapsed_s)}:"
        f" {quantity(report.text_bytes_written / max(elapsed_s, 0.001))}B of text a second"
    )
    say(f"documents  {places.documents}")
    say(
        f"report     {places.report} and {places.report.with_suffix('.md').name}; to look at:"
        f" {places.out}"
    )
    say(
        f'next: name {places.documents} in "sources" of a pack\'s recipe, then: picochat data'
        " preview --dataset-pack PACK"
    )


def finished_import(request: ImportRequest, places: ImportPlaces) -> ImportReport | None:
    """The report of a complete import of this request that stands here, else None."""
    if not (places.documents / MANIFEST_NAME).is_file() or not places.report.is_file():
        return None
    manifest = read_manifest(places.documents)
    if (
        manifest is None
        or manifest.provenance is None
        or manifest.provenance.request != request.digest()
    ):
        return None
    report = read_record(
        ImportReport, places.report, "import report", fix="run the import again with --force"
    )
    if report.request != request.digest() or not _same_local_files(request, report):
        return None
    return report


def _same_local_files(request: ImportRequest, report: ImportReport) -> bool:
    """Whether a local source still has the sizes that were imported; a Hub source is pinned and
    needs no look.
    """
    if not is_local(request.dataset):
        return True
    path = Path(request.dataset).expanduser()
    folder = path.parent if path.is_file() else path
    return all(
        (folder / file.name).is_file() and (folder / file.name).stat().st_size == file.bytes
        for file in report.data_files
    )


def _drop_leftover(places: ImportPlaces) -> None:
    """Remove the work folder of an import that was killed between the appearance of its documents
    and its last step.
    """
    if not places.work.is_dir() or (places.work / "documents").exists():
        return
    try:
        with exclusive(places.work / "lock", str(places.documents)):
            shutil.rmtree(places.work)
    except WrongUsage:
        return  # another process begins an import there


def require_source_untouched(request: ImportRequest, places: ImportPlaces) -> None:
    """Raises WrongUsage where a file that the import writes would replace one of a local dataset."""
    if not is_local(request.dataset):
        return
    source = Path(request.dataset).expanduser().resolve()
    written = (
        ("--out", places.out),
        ("--report", places.report),
        ("--report", places.report.with_suffix(".md")),
    )
    problems = [
        Problem(
            f"{flag} {place} would replace a file of the dataset",
            fix="choose a path outside the dataset",
        )
        for flag, place in written
        if place.is_file() and source in (place.resolve(), *place.resolve().parents)
    ]
    if problems:
        raise WrongUsage("the import cannot be started", problems=problems)


def require_room(places: ImportPlaces, force: bool) -> None:
    """Refuses early where another import stands.

    Under --force it stands until the new one is complete, then is set aside.
    """
    if not force and places.documents.exists() and any(places.documents.iterdir()):
        raise WrongUsage(
            f"{places.documents} holds something else than this import",
            fix="--force sets it aside under another name, or give another --documents-dir",
        )


def pinned_origin(
    request: ImportRequest, places: ImportPlaces, force: bool, patience: Patience | None = None
) -> Origin:
    """The origin at the revision that the interrupted import had pinned, or at the one of now."""
    pin_path = places.work / "pin.json"
    pin = read_json(pin_path) if pin_path.exists() else None
    if pin is not None and (force or pin["request"] != request.digest()):
        if not force:
            raise WrongUsage(
                f"{places.work} holds an unfinished import of another request",
                fix="repeat that request to finish it, or --force to drop it",
            )
        _clear(places.work)
        pin = None
    pinned = (
        (pin["revision"], pin["card_revision"]) if pin is not None and pin["revision"] else None
    )
    origin = open_origin(
        request.dataset,
        request.config,
        request.split,
        request.revision,
        pinned=pinned,
        patience=patience,
    )
    if pin is not None and pin["pin"] != origin.pin:
        raise WrongUsage(
            f"the files of {request.dataset} changed since this import began",
            fix="--force begins again",
        )
    revisions = {"revision": origin.revision, "card_revision": origin.card_revision}
    write_json(pin_path, {"request": request.digest(), "pin": origin.pin, **revisions})
    return origin


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != "lock":
            shutil.rmtree(path) if path.is_dir() else os.unlink(path)


def require_documents(request: ImportRequest, state: ImportState) -> None:
    """Raises BadInput, with the reasons and how often each was met, where no row became a document."""
    if state.shards:
        return
    reasons = [
        Problem(f"{count:,} rows: {reason}") for reason, count in _by_count(state.skipped.items())
    ]
    raise BadInput(
        f"no document came out of {state.rows_seen:,} rows of {request.dataset}",
        problems=reasons,
        fix=(
            f"see --text-column (now {request.text_column!r}) and --min-chars (now"
            f" {request.min_chars}); then --force"
        ),
    )


def _by_count(items: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    return sorted(items, key=lambda item: (-item[1], item[0]))
