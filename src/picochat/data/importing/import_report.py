"""The request of an import, and what the import publishes: documents, report and a readable head.

The report depends only on data and request, so the same import gives the same bytes on every
machine. Its paths are relative to its own folder. `*.observed.json` has what depends on machine
and clock.
"""

from __future__ import annotations

import glob
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from picochat.core.machine import usable_cores
from picochat.core.progress import say
from picochat.core.publish import set_aside
from picochat.core.records import Record, digest_json, pretty_json, write_atomic, write_json
from picochat.data.document_shards import (
    MANIFEST_NAME,
    DocumentsManifest,
    Provenance,
    documents_manifest,
)
from picochat.data.documents import read_source_file
from picochat.data.formats.row_batch import LONGEST_DOCUMENT_CHARACTERS
from picochat.data.importing.dataset_source import DatasetSource, is_local
from picochat.data.importing.import_state import ImportState, RowPreview
from picochat.data.importing.slices import Sample
from picochat.present.values import quantity

IMPORT_VERSION = 3  # raise it when the same request would give other documents
HEAD_BYTES = 1_000_000
RANGES_SHOWN = 4  # in the .md; the .json has all


@dataclass(frozen=True)
class ImportPlaces:
    """Where one import writes."""

    out: Path
    documents: Path
    report: Path

    @property
    def work(self) -> Path:
        return self.documents.with_name(f"{self.documents.name}.work")

    @property
    def observed(self) -> Path:
        return self.report.with_name(f"{self.report.stem}.observed.json")


class ImportRequest(Record):
    """What to import and where to write it. `max_rows` limits rows inspected, not rows kept."""

    dataset: str
    out: str
    config: str | None = None
    split: str = "train"
    text_column: str = "text"
    documents_dir: str | None = None
    report: str | None = None
    max_rows: int = 1000
    min_chars: int = 20
    document_shard_rows: int = 1000
    revision: str | None = None
    sample: Sample = "spread"
    seed: int = 42

    def digest(self) -> str:
        """The same for requests of the same documents, whatever their output and local paths."""
        wanted = self.model_dump(mode="json", exclude={"out", "documents_dir", "report"})
        if is_local(self.dataset):
            wanted["dataset"] = Path(self.dataset).expanduser().resolve().name
        return digest_json({"version": IMPORT_VERSION, **wanted})

    def places(self) -> ImportPlaces:
        """Where the import writes; documents and report lie beside `out` by default."""
        out = Path(self.out).expanduser()
        return ImportPlaces(
            out=out,
            documents=Path(self.documents_dir or out.parent / "documents").expanduser(),
            report=Path(self.report or out.parent / "hf_import_report.json").expanduser(),
        )


class ImportedFile(Record):
    """A data file from which rows were read.

    row_ranges: [first row, row after the last], counted from 0 in the file.
    """

    name: str
    bytes: int
    digest: str
    rows_inspected: int
    row_ranges: list[tuple[int, int]]


class DocumentFile(Record):
    """One shard. path: relative to the report."""

    path: str
    num_documents: int
    num_characters: int
    text_bytes: int
    sha256: str


class ImportReport(Record):
    """`hf_import_report.json`.

    `rows_seen` = `rows_written` + `rows_skipped`; `skip_reasons` sums to `rows_skipped`. licence:
    None where the card states none.
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
    sample: Sample
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
        """A summary for the terminal."""
        reasons = (f"{count:,} {reason}" for reason, count in self.skip_reasons.items())
        return [
            (
                f"{self.dataset} {self.config_name or ''} {self.split} at {self.revision[:12]},"
                f" licence {self.licence or 'not stated'}"
            ),
            (
                f"rows inspected {self.rows_seen:,}, kept {self.rows_written:,}; skipped:"
                f" {', '.join(reasons) or 'none'}"
            ),
            f"{quantity(self.text_bytes_written)}B of text in {self.document_files_written} shards",
            f"rows came from {len(self.data_files)} of {self.data_files_in_split} files",
        ]


# ---- publishing ----------------------------------------------------------------------------------


def publish_import(
    request: ImportRequest,
    places: ImportPlaces,
    source: DatasetSource,
    state: ImportState,
    documents: Path,
    observed: dict[str, object],
) -> ImportReport:
    """Write report, head and observations, then publish the documents.

    documents: the folder with the shards of `state`; it is renamed to its final place.
    """
    files = _imported_files(source, state)
    revision = source.revision or (
        f"files:{digest_json({file.name: file.digest for file in files})}"
    )
    provenance = Provenance(
        kind=source.kind,
        dataset=source.dataset,
        config=request.config,
        split=request.split,
        revision=revision,
        licence=source.licence,
        report=os.path.relpath(places.report, places.documents),
        request=request.digest(),
    )
    manifest = documents_manifest(state.shards, provenance)
    report = _report(request, places, source, revision, files, state, manifest)
    _sweep_torn_files(places)
    write_json(documents / MANIFEST_NAME, manifest)
    documents_dir = os.path.relpath(places.documents, places.out.parent)
    _write_or_set_aside(places.out, _head(documents, manifest, documents_dir))
    _write_or_set_aside(places.report, pretty_json(report))
    write_atomic(places.report.with_suffix(".md"), render_report(report).encode())
    write_json(places.observed, observed)
    # Last, by one rename: the documents at their place mean that the import is complete.
    _make_room(places.documents)
    os.rename(documents, places.documents)
    for line in report.lines():
        say(line)
    if report.licence is None:
        say(
            "the card states no licence: find out where the text comes from before you publish"
            " anything made from it"
        )
    return report


def _imported_files(source: DatasetSource, state: ImportState) -> list[ImportedFile]:
    with ThreadPoolExecutor(usable_cores()) as pool:
        digests = pool.map(source.digest_of, sorted(state.ranges))
        return [
            ImportedFile(
                name=source.files[file].name,
                bytes=source.files[file].bytes,
                digest=digest,
                rows_inspected=sum(stop - start for start, stop in ranges),
                row_ranges=ranges,
            )
            for (file, ranges), digest in zip(sorted(state.ranges.items()), digests, strict=True)
        ]


def _report(
    request: ImportRequest,
    places: ImportPlaces,
    source: DatasetSource,
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
        kind=source.kind,
        dataset=source.dataset,
        config_name=request.config,
        split=request.split,
        text_column=request.text_column,
        revision=revision,
        revision_asked=request.revision,
        licence=source.licence,
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
        data_files_in_split=len(source.files),
        data_files=files,
        document_files_written=len(manifest.shards),
        document_files=[
            DocumentFile(
                path=f"{documents_dir}/{shard.name}",
                num_documents=shard.documents,
                num_characters=shard.characters,
                text_bytes=shard.text_bytes,
                sha256=shard.sha256,
            )
            for shard in manifest.shards
        ],
        rows_reported=len(state.previews),
        rows_omitted=state.rows_seen - len(state.previews),
        rows=state.previews,
    )


def _head(documents: Path, manifest: DocumentsManifest, documents_dir: str) -> bytes:
    """The first documents as plain text, at most HEAD_BYTES, below a line that says so."""
    # Not all of them: the whole text would take three times the space of the compressed shards
    # (docs/decisions/0003).
    texts: list[bytes] = []
    size = 0
    rows = (row for shard in manifest.shards for row in read_source_file(documents, shard.name))
    for row in rows:
        data = row.text.strip().encode()
        if texts and size + len(data) > HEAD_BYTES:
            break
        texts.append(data[:HEAD_BYTES].decode(errors="ignore").encode())
        size += len(data)
    header = (
        f"[picochat: the first {len(texts):,} of {manifest.documents:,} documents, to look at. "
        f"All of them are in {documents_dir}/, which is what packs read.]"
    )
    return b"\n\n".join([header.encode(), *texts]) + b"\n"


def _write_or_set_aside(place: Path, data: bytes) -> None:
    """Write a file whose name the user chose; a file of other content is set aside."""
    if place.is_file() and place.stat().st_size and place.read_bytes() != data:
        say(f"{place} had other content; the old file is now {set_aside(place).name}")
    write_atomic(place, data)


def _sweep_torn_files(places: ImportPlaces) -> None:
    """Remove the temporary files that a kill during `write_atomic` left behind."""
    for place in (places.out, places.report, places.report.with_suffix(".md"), places.observed):
        for path in place.parent.glob(f".{glob.escape(place.name)}.*"):
            # Only names that tempfile makes, so that no file of the user is removed.
            if re.fullmatch(r"[a-z0-9_]{8}", path.name.rpartition(".")[2]):
                path.unlink()


def _make_room(documents: Path) -> None:
    """Set aside what is at the documents' place; an empty folder is removed."""
    documents.parent.mkdir(parents=True, exist_ok=True)
    if documents.exists() and not any(documents.iterdir()):
        documents.rmdir()
    elif documents.exists():
        say(f"the old {documents} is now {set_aside(documents)}")


# ---- the page ------------------------------------------------------------------------------------


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
    """A file's name as the text of a Markdown table cell."""
    return text.replace("|", "\\|").replace("\n", " ").replace("\r", " ")


def _ranges(ranges: list[tuple[int, int]]) -> str:
    shown = ", ".join(f"{start:,}-{stop:,}" for start, stop in ranges[:RANGES_SHOWN])
    more = len(ranges) - RANGES_SHOWN
    return shown if more <= 0 else f"{shown} and {more:,} more"
