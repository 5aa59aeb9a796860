"""`picochat data hf-import`: rows of a dataset become documents, with a report of their origin.

An import works in `<documents-dir>.work` and publishes report, head (`--out`) and documents at the
end. After a kill or a lost connection, the same command continues after the last complete shard at
the pinned revision, and gives the same bytes. Near-duplicates are found later, when the corpus is
built (data/corpus/near_duplicates.py).
"""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

from picochat.core.errors import BadInput, Problem, WrongUsage
from picochat.core.machine import usable_cores
from picochat.core.progress import Progress, say
from picochat.core.publish import exclusive
from picochat.core.records import read_json, read_record, write_json
from picochat.data.document_shards import read_manifest
from picochat.data.importing.dataset_source import DatasetSource, is_local, open_source
from picochat.data.importing.hub import RetryPolicy
from picochat.data.importing.import_report import (
    ImportPlaces,
    ImportReport,
    ImportRequest,
    publish_import,
)
from picochat.data.importing.import_state import ImportState, ImportWork
from picochat.data.importing.read_ahead import read_in_order
from picochat.data.importing.slices import SlicePlan, SliceReader
from picochat.present.printable import printable_line
from picochat.present.values import duration, quantity

DEFAULT_CONNECTIONS = 8
M_ARENA_MAX = -8  # of malloc.h
OTHER_REQUEST = "repeat that request to finish it, or --force to drop it"


def import_dataset(
    request: ImportRequest,
    *,
    force: bool = False,
    connections: int = DEFAULT_CONNECTIONS,
    retry: RetryPolicy | None = None,
) -> ImportReport:
    """Run the import, finish an interrupted one, or return the report of a complete one.

    connections: files read at the same time. retry: for a slow or failing Hub. Neither changes the
    result. force: set aside what is at the places. Raises WrongUsage for an invalid request or for
    places in use, BadInput for unusable data, HubProblem for the Hub.
    """
    require_sound(request)
    places = request.places()
    finished = None if force else finished_import(request, places)
    if finished is not None:
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
        source = pinned_source(request, places, force, retry)
        report = _import_rows(request, places, source, connections)
    shutil.rmtree(places.work)
    return report


def _import_rows(
    request: ImportRequest, places: ImportPlaces, source: DatasetSource, connections: int
) -> ImportReport:
    _limit_heaps()
    for note in source.notes:
        say(printable_line(note))
    say(
        f"importing up to {request.max_rows:,} rows of {source.dataset} ({request.split}) at"
        f" {(source.revision or 'local files')[:12]}: {len(source.files)} files, licence"
        f" {source.licence or 'not stated'}"
    )
    plan = slice_plan(request, source)
    # Reading from the Hub is mostly waiting; reading local files is bound by cores.
    threads = connections if source.kind == "hub" else min(connections, usable_cores() + 1)
    with ImportWork(places.work, request.document_shard_rows, plan.names) as work:
        plan.exhausted.update(work.state.exhausted)
        rows_before = work.state.rows_seen
        if rows_before:
            say(f"continuing after {rows_before:,} rows that an earlier process imported")
        elapsed_s = _take_rows(request, places, source, plan, work, threads)
    require_documents(request, work.state)
    observed: dict[str, object] = {
        "schema_version": 1,
        "elapsed_s": round(elapsed_s, 3),
        "rows_by_this_process": work.state.rows_seen - rows_before,
        "resumed": rows_before > 0,
        "connections": threads,
        "bytes_fetched": source.transfer.bytes,
        "requests": source.transfer.requests,
        "retries": source.transfer.retries,
        "documents_dir": str(places.documents.resolve()),
        "dataset": (
            str(Path(request.dataset).expanduser().resolve())
            if source.kind == "files"
            else request.dataset
        ),
    }
    report = publish_import(request, places, source, work.state, work.documents, observed)
    rate = report.text_bytes_written / max(elapsed_s, 0.001)
    page = places.report.with_suffix(".md").name
    say(f"took {duration(elapsed_s)}: {quantity(rate)}B of text a second")
    say(f"documents  {places.documents}")
    say(f"report     {places.report} and {page}; first documents as text: {places.out}")
    say(
        f'next: name {places.documents} in "sources" of a pack\'s recipe, then: picochat data'
        " preview --dataset-pack PACK"
    )
    return report


def _limit_heaps() -> None:
    """Let all threads share two heaps, where the C library is glibc."""
    # By default each thread has its own heap and keeps what it freed, which is a tenth to a third
    # of an import's memory. Returning every large block to the system at once would save more, but
    # costs 28% more CPU time (docs/decisions/0014).
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_ARENA_MAX, 2)


def slice_plan(request: ImportRequest, source: DatasetSource) -> SlicePlan:
    """The order in which the request reads the source's files."""
    names = tuple(file.name for file in source.files)
    return SlicePlan(names, request.max_rows, request.sample, request.seed)


def slice_reader(
    request: ImportRequest, places: ImportPlaces, source: DatasetSource
) -> SliceReader:
    """The reader of the source's slices; it keeps footers in the work folder for a resume."""
    return SliceReader(source, request.text_column, request.min_chars, places.work / "footers")


def _take_rows(
    request: ImportRequest,
    places: ImportPlaces,
    source: DatasetSource,
    plan: SlicePlan,
    work: ImportWork,
    threads: int,
) -> float:
    """Read the rows that `work` lacks and commit them; returns the elapsed seconds."""
    rows_before = work.rows_seen
    reader = slice_reader(request, places, source)
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


# ---- earlier work --------------------------------------------------------------------------------


def finished_import(request: ImportRequest, places: ImportPlaces) -> ImportReport | None:
    """The report of a complete import of this request at these places, else None."""
    manifest = read_manifest(places.documents) if places.report.is_file() else None
    provenance = manifest.provenance if manifest else None
    if provenance is None or provenance.request != request.digest():
        return None
    report = read_record(
        ImportReport, places.report, "import report", fix="run the import again with --force"
    )
    if report.request != request.digest() or not _same_local_files(request, report):
        return None
    return report


def _same_local_files(request: ImportRequest, report: ImportReport) -> bool:
    """Whether local files still have their imported sizes; True for the Hub, which is pinned."""
    if not is_local(request.dataset):
        return True
    path = Path(request.dataset).expanduser()
    folder = path.parent if path.is_file() else path
    return all(
        (folder / file.name).is_file() and (folder / file.name).stat().st_size == file.bytes
        for file in report.data_files
    )


def _drop_leftover(places: ImportPlaces) -> None:
    """Remove the work folder of an import that was killed after it published its documents."""
    if not places.work.is_dir() or (places.work / "documents").exists():
        return
    try:
        with exclusive(places.work / "lock", str(places.documents)):
            shutil.rmtree(places.work)
    except WrongUsage:
        return  # another process holds the lock: it begins an import there


def pinned_source(
    request: ImportRequest, places: ImportPlaces, force: bool, retry: RetryPolicy | None = None
) -> DatasetSource:
    """The source at the revision that an interrupted import pinned, else at the current one.

    force: drop unfinished work. Raises WrongUsage where there is some and the work folder belongs
    to another request or the files have changed.
    """
    pin_path = places.work / "pin.json"
    pin = read_json(pin_path) if pin_path.exists() else None
    if pin is not None and (force or pin["request"] != request.digest()):
        if not force and _holds_work(places):
            raise WrongUsage(
                f"{places.work} holds an unfinished import of another request", fix=OTHER_REQUEST
            )
        _drop_work(places)
        pin = None
    pinned = (pin["revision"], pin["card_revision"]) if pin and pin["revision"] else None
    source = open_source(
        request.dataset, request.config, request.split, request.revision, pinned=pinned, retry=retry
    )
    if pin is not None and pin["pin"] != source.pin:
        if _holds_work(places):
            raise WrongUsage(
                f"the files of {request.dataset} changed since this import began",
                fix="--force begins again",
            )
        _drop_work(places)
    pin = {
        "request": request.digest(),
        "pin": source.pin,
        "revision": source.revision,
        "card_revision": source.card_revision,
    }
    write_json(pin_path, pin)
    return source


def _holds_work(places: ImportPlaces) -> bool:
    """Whether an unfinished import has documents, or slices that ranks read."""
    return (
        any(places.work.glob("documents/shard-*")) or (places.work / "ranks/slices.json").exists()
    )


def _drop_work(places: ImportPlaces) -> None:
    for path in places.work.iterdir():
        if path.name != "lock":  # this process holds it
            shutil.rmtree(path) if path.is_dir() else os.unlink(path)


# ---- refusals ------------------------------------------------------------------------------------


def require_sound(request: ImportRequest) -> None:
    """Raise WrongUsage that names every invalid value of the request."""
    places = request.places()
    problems = [
        Problem(f"{flag} must be at least {least}, found {value}")
        for flag, value, least in (
            ("--max-rows", request.max_rows, 1),
            ("--min-chars", request.min_chars, 0),
            ("--document-shard-rows", request.document_shard_rows, 1),
        )
        if value < least
    ]
    if len({places.out, places.documents, places.report}) < 3:
        problems.append(
            Problem("--out, --documents-dir and --report must be three different paths")
        )
    if places.out.is_dir() or request.out.endswith("/"):
        problems.append(Problem(f"--out {places.out} is a folder; it names a text file"))
    if places.documents.is_file():
        problems.append(Problem(f"--documents-dir {places.documents} is a file; it names a folder"))
    if problems:
        raise WrongUsage("the import cannot be started", problems=problems)


def require_source_untouched(request: ImportRequest, places: ImportPlaces) -> None:
    """Raise WrongUsage where the import would replace a file of the local dataset."""
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
    """Raise WrongUsage where the documents' folder is in use; --force sets it aside at the end."""
    if not force and places.documents.exists() and any(places.documents.iterdir()):
        raise WrongUsage(
            f"{places.documents} holds something else, not this import",
            fix="--force renames it, or give another --documents-dir",
        )


def require_documents(request: ImportRequest, state: ImportState) -> None:
    """Raise BadInput with the counted reasons where no row became a document."""
    if state.shards:
        return
    if not state.rows_seen:
        raise BadInput(
            f"the files of {request.dataset} ({request.split}) hold no rows",
            fix="name another --dataset, --config or --split",
        )
    by_count = sorted(state.skipped.items(), key=lambda item: (-item[1], item[0]))
    remedies = {
        "missing_text_column": f"--text-column names the text (now {request.text_column!r})",
        "text_not_string": f"--text-column names a column of text (now {request.text_column!r})",
        "below_min_chars": f"--min-chars takes shorter texts (now {request.min_chars})",
    }
    fixes = [remedies[reason] for reason, _ in by_count if reason in remedies]
    raise BadInput(
        f"no document came out of {state.rows_seen:,} rows of {request.dataset}",
        problems=[Problem(f"{count:,} rows: {reason}") for reason, count in by_count],
        fix="; ".join(fixes or ["repair the files or name others"]),
    )
