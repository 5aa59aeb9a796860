"""What an import publishes: `hf_import_report.json` and `.md`, the readable head of the text, and
the documents.

The report is a function of the data and the request: the same import anywhere gives the same bytes.
Paths in it are relative to its own folder.
"""

from __future__ import annotations

import glob
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from picochat.core.machine import usable_cores
from picochat.core.progress import say
from picochat.core.publish import set_aside
from picochat.core.records import Record, digest_json, pretty_json, write_atomic, write_json
from picochat.data.documents import (
    MANIFEST_NAME,
    DocumentsManifest,
    Provenance,
    documents_manifest,
    read_source_file,
)
from picochat.data.formats.usable import LONGEST_DOCUMENT_CHARACTERS
from picochat.data.importing.origin import Origin
from picochat.data.importing.request import ImportPlaces, ImportRequest
from picochat.data.importing.work import ImportState, RowPreview
from picochat.present.values import quantity

HEAD_BYTES = 1_000_000
RANGES_SHOWN = 4  # in the .md; the .json has all


class ImportedFile(Record):
    """One data file of the split that rows came from.

    `row_ranges` are [first, after the last], counted from 0 in the file.
    """

    name: str
    bytes: int
    digest: str
    rows_inspected: int
    row_ranges: list[tuple[int, int]]


class DocumentFile(Record):
    path: str
    num_documents: int
    num_characters: int
    text_bytes: int
    sha256: str


class ImportReport(Record):
    """`rows_seen` = `rows_written` + `rows_skipped`; `skip_reasons` sums to `rows_skipped`.

    Licence None: the card states none.
    """

    schema_version: int
    request: str
    kind: Literal["hub", "files"]
    dataset: str
    config_name: str | None
    split: str
    text_column: str
    revision: str
    revision_asked: str | None
    licence: str | None
    sample: Literal["spread", "head"]
    seed: int
    max_rows: int
    min_chars: int
    document_shard_rows: int
    longest_document_characters: int
    out_path: str
    documents_dir: str
    rows_seen: int
    rows_written: int
    rows_skipped: int
    skip_reasons: dict[str, int]
    characters_written: int
    text_bytes_written: int
    data_files_in_split: int
    data_files: list[ImportedFile]
    document_files_written: int
    document_files: list[DocumentFile]
    rows_reported: int
    rows_omitted: int
    rows: list[RowPreview]

    def lines(self) -> list[str]:
        """The import in a few lines for people."""
        skipped = (
            ", ".join(f"{count:,} {reason}" for reason, count in self.skip_reasons.items())
            or "none"
        )
        return [
            (
                f"{self.dataset} {self.config_name or ''} {self.split} at {self.revision[:12]},"
                f" licence {self.licence or 'not stated'}"
            ),
            f"rows inspected {self.rows_seen:,}, kept {self.rows_written:,}; skipped: {skipped}",
            f"{quantity(self.text_bytes_written)}B of text in {self.document_files_written} shards",
            f"rows came from {len(self.data_files)} of {self.data_files_in_split} files",
        ]


def publish_import(
    request: ImportRequest,
    places: ImportPlaces,
    origin: Origin,
    state: ImportState,
    documents: Path,
    observed: dict[str, object],
) -> ImportReport:
    """Write report, head and observation, then let the documents appear by one rename: they are the
    sign of completeness.
    """
    files = _imported_files(origin, state)
    revision = origin.revision or f"files:{digest_json({file.name: file.digest for file in files})}"
    manifest = documents_manifest(state.shards, _provenance(request, places, origin, revision))
    report = _report(request, places, origin, revision, files, state, manifest)
    _sweep_torn_files(places)
    write_json(documents / MANIFEST_NAME, manifest)
    _write_beside(
        places.out, _head(documents, manifest, os.path.relpath(places.documents, places.out.parent))
    )
    _write_beside(places.report, pretty_json(report))
    write_atomic(places.report.with_suffix(".md"), render_report(report).encode())
    write_json(places.observed, observed)
    _make_room(places.documents)
    os.rename(documents, places.documents)
    for line in report.lines():
        say(line)
    if report.licence is None:
        say(
            "the card states no licence: say where the text comes from before you publish anything"
            " made of it"
        )
    return report


def _write_beside(place: Path, data: bytes) -> None:
    """Write a file whose name the user chose.

    Another text that stands there is set aside: it may be anybody's.
    """
    if place.is_file() and place.stat().st_size and place.read_bytes() != data:
        say(f"{place} stood there with other content; it is now {set_aside(place).name}")
    write_atomic(place, data)


def _sweep_torn_files(places: ImportPlaces) -> None:
    """Remove the hidden files that a kill in the middle of writing a report has left beside it."""
    for place in (places.out, places.report, places.report.with_suffix(".md"), places.observed):
        for path in place.parent.glob(f".{glob.escape(place.name)}.*"):
            if re.fullmatch(r"[a-z0-9_]{8}", path.name.rpartition(".")[2]):
                path.unlink()


def _make_room(documents: Path) -> None:
    """Nothing at the documents' place.

    What stands there is set aside, never deleted; an empty folder goes.
    """
    documents.parent.mkdir(parents=True, exist_ok=True)
    if documents.exists() and not any(documents.iterdir()):
        documents.rmdir()
    elif documents.exists():
        say(f"the old {documents} is now {set_aside(documents)}")


def render_report(report: ImportReport) -> str:
    """The report as Markdown."""
    rows = [
        ("dataset", report.dataset),
        ("config, split", f"{report.config_name or '(none)'}, {report.split}"),
        ("revision", report.revision),
        ("licence", report.licence or "not stated"),
        (
            "asked for",
            f"column {report.text_column}, texts of at least {report.min_chars:,} characters",
        ),
        (
            "longest document",
            f"{report.longest_document_characters:,} characters; longer ones are skipped",
        ),
        ("sample", f"{report.sample}, seed {report.seed}, at most {report.max_rows:,} rows"),
        ("rows inspected", f"{report.rows_seen:,}"),
        ("documents written", f"{report.rows_written:,}"),
        ("text", f"{report.characters_written:,} characters, {report.text_bytes_written:,} bytes"),
        ("documents", f"{report.documents_dir} ({report.document_files_written} shards)"),
        *((f"skipped: {reason}", f"{count:,}") for reason, count in report.skip_reasons.items()),
    ]
    files = [
        f"| {_cell(file.name)} | {file.rows_inspected:,} | {_ranges(file.row_ranges)} |"
        f" {file.digest} |"
        for file in report.data_files
    ]
    return "\n".join(
        [
            f"# Import of {report.dataset}",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in rows),
            "",
            f"## Files: {len(report.data_files)} of {report.data_files_in_split}",
            "",
            "Row ranges: the first row and the one after the last, counted from 0 in the file.",
            "",
            "| file | rows inspected | row ranges | digest |",
            "|---|---|---|---|",
            *files,
            "",
        ]
    )


def _cell(text: str) -> str:
    """A file's name may hold anything; a cell of a table may not."""
    return text.replace("|", "\\|").replace("\n", " ").replace("\r", " ")


def _ranges(ranges: list[tuple[int, int]]) -> str:
    shown = ", ".join(f"{start:,}-{stop:,}" for start, stop in ranges[:RANGES_SHOWN])
    return (
        shown if len(ranges) <= RANGES_SHOWN else f"{shown} and {len(ranges) - RANGES_SHOWN:,} more"
    )


def _imported_files(origin: Origin, state: ImportState) -> list[ImportedFile]:
    with ThreadPoolExecutor(usable_cores()) as pool:
        digests = pool.map(origin.digest_of, sorted(state.ranges))
        return [
            ImportedFile(
                name=origin.files[file].name,
                bytes=origin.files[file].bytes,
                digest=digest,
                rows_inspected=sum(stop - start for start, stop in ranges),
                row_ranges=ranges,
            )
            for (file, ranges), digest in zip(sorted(state.ranges.items()), digests, strict=True)
        ]


def _provenance(
    request: ImportRequest, places: ImportPlaces, origin: Origin, revision: str
) -> Provenance:
    return Provenance(
        kind=origin.kind,
        dataset=origin.dataset,
        config=request.config,
        split=request.split,
        revision=revision,
        licence=origin.licence,
        report=os.path.relpath(places.report, places.documents),
        request=request.digest(),
    )


def _report(
    request: ImportRequest,
    places: ImportPlaces,
    origin: Origin,
    revision: str,
    files: list[ImportedFile],
    state: ImportState,
    manifest: DocumentsManifest,
) -> ImportReport:
    beside = places.report.parent
    documents_dir = Path(os.path.relpath(places.documents, beside)).as_posix()
    return ImportReport(
        schema_version=1,
        request=request.digest(),
        kind=origin.kind,
        dataset=origin.dataset,
        config_name=request.config,
        split=request.split,
        text_column=request.text_column,
        revision=revision,
        revision_asked=request.revision,
        licence=origin.licence,
        sample=request.sample,
        seed=request.seed,
        max_rows=request.max_rows,
        min_chars=request.min_chars,
        document_shard_rows=request.document_shard_rows,
        longest_document_characters=LONGEST_DOCUMENT_CHARACTERS,
        out_path=Path(os.path.relpath(places.out, beside)).as_posix(),
        documents_dir=documents_dir,
        rows_seen=state.rows_seen,
        rows_written=manifest.documents,
        rows_skipped=sum(state.skipped.values()),
        skip_reasons=dict(sorted(state.skipped.items())),
        characters_written=manifest.characters,
        text_bytes_written=manifest.text_bytes,
        data_files_in_split=len(origin.files),
        data_files=files,
        document_files_written=len(manifest.shards),
        document_files=_document_files(manifest, documents_dir),
        rows_reported=len(state.previews),
        rows_omitted=state.rows_seen - len(state.previews),
        rows=state.previews,
    )


def _document_files(manifest: DocumentsManifest, documents_dir: str) -> list[DocumentFile]:
    return [
        DocumentFile(
            path=f"{documents_dir}/{shard.name}",
            num_documents=shard.documents,
            num_characters=shard.characters,
            text_bytes=shard.text_bytes,
            sha256=shard.sha256,
        )
        for shard in manifest.shards
    ]


def _head(documents: Path, manifest: DocumentsManifest, documents_dir: str) -> bytes:
    """The first documents as plain text, at most HEAD_BYTES, under a line that says so.

    Why: docs/decisions/0003.
    """
    texts: list[bytes] = []
    size = 0
    for shard in manifest.shards:
        for row in read_source_file(documents, shard.name):
            data = row.text.strip().encode()
            if texts and size + len(data) > HEAD_BYTES:
                return _with_header(texts, manifest, documents_dir)
            texts.append(data[:HEAD_BYTES].decode(errors="ignore").encode())
            size += len(data)
    return _with_header(texts, manifest, documents_dir)


def _with_header(texts: list[bytes], manifest: DocumentsManifest, documents_dir: str) -> bytes:
    header = (
        f"[picochat: the first {len(texts):,} of {manifest.documents:,} documents, to look at. "
        f"All of them are in {documents_dir}/, which is what packs read.]"
    )
    return b"\n\n".join([header.encode(), *texts]) + b"\n"
