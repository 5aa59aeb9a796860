"""Documents: the one record of text that everything later reads, and the shard files that hold
them.

A folder of documents has `shard-NNNNNN.jsonl.zst` files (one {"id", "text"} object a line) and
`documents.json` beside them, which states every shard's counts and digest and where the text came
from. A shard of 1,000 documents is a thousand documents: files never become document boundaries,
and never hide them. The same documents give the same bytes.

Reads as well: folders and files of parquet, jsonl(.gz, .zst), txt and md. Does not deduplicate and
does not split.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from picochat.core.errors import BadInput
from picochat.core.records import Record, read_record, write_json
from picochat.data.folders import list_folder
from picochat.data.formats.row_batch import Wanted
from picochat.data.formats.rows import ENDINGS, format_of, read_batches, text_problem
from picochat.data.globs import matches_any
from picochat.data.shard_writer import DEFAULT_SHARD_DOCUMENTS, DocumentShard, ShardWriter

MANIFEST_NAME = "documents.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Document:
    """One text. `id` is unique in its source and stable; `source` is the label of the recipe."""

    id: str
    text: str
    source: str


class Provenance(Record):
    """Where documents came from.

    `revision` is a commit of the Hub, or the digest of the local files' listing.
    """

    kind: Literal["hub", "files"]
    dataset: str
    config: str | None
    split: str
    revision: str
    licence: str | None
    report: str | None
    request: str


class DocumentsManifest(Record):
    """`documents.json`. Paths are relative to its folder."""

    schema_version: int
    documents: int
    characters: int
    text_bytes: int
    provenance: Provenance | None
    shards: list[DocumentShard]


class SourceFile(NamedTuple):
    """One file of a source: its path relative to the source with forward slashes, its size, and its
    sha256 where known.
    """

    name: str
    bytes: int
    sha256: str | None


class ReadRow(NamedTuple):
    """One row read from a source: a text, or the reason why there is none."""

    id: str
    text: str
    problem: str | None


def documents_manifest(
    shards: list[DocumentShard], provenance: Provenance | None
) -> DocumentsManifest:
    return DocumentsManifest(
        schema_version=SCHEMA_VERSION,
        documents=sum(shard.documents for shard in shards),
        characters=sum(shard.characters for shard in shards),
        text_bytes=sum(shard.text_bytes for shard in shards),
        provenance=provenance,
        shards=shards,
    )


def write_documents(
    folder: Path,
    documents: Iterator[tuple[str, str]],
    *,
    shard_documents: int = DEFAULT_SHARD_DOCUMENTS,
    provenance: Provenance | None = None,
) -> DocumentsManifest:
    """(id, text) pairs as a folder of documents that appears as a whole.

    Raises BadInput where `folder` exists.
    """
    if folder.exists():
        raise BadInput(f"{folder} exists already", fix="name another folder")
    draft = folder.with_name(f".{folder.name}.draft")
    with ShardWriter(draft, shard_documents) as writer:
        coming = [writer.add(id, text) for id, text in documents]
        coming.append(writer.complete())
        shards = [shard.result() for shard in coming if shard is not None]
    manifest = documents_manifest(shards, provenance)
    write_json(draft / MANIFEST_NAME, manifest)
    os.rename(draft, folder)
    return manifest


def read_manifest(folder: Path) -> DocumentsManifest | None:
    """The manifest of a folder of documents; None where the folder is of another kind.

    Raises BadInput where it is damaged.
    """
    path = folder / MANIFEST_NAME
    return read_record(DocumentsManifest, path, "document manifest") if path.is_file() else None


def list_source_files(
    path: Path, *, include: list[str] | None = None, exclude: list[str] | None = None
) -> list[SourceFile]:
    """The files of a source that hold documents, in sorted order (shards in theirs). Hidden files
    never count.

    A folder with documents.json is what that says, digests included. Raises BadInput for a source
    that is absent, for a shard that is missing or of another size, for pipes and dead links among
    the files, and for a single file of an unknown kind.
    """
    if path.is_file():
        if format_of(path.name) is None:
            raise BadInput(
                f"{path}: its ending says nothing that picochat reads",
                fix=f"known endings: {ENDINGS}",
            )
        return [SourceFile(path.name, path.stat().st_size, None)]
    if not path.is_dir():
        raise BadInput(
            f"source {path}"
            f" {'is neither a file nor a folder' if path.exists() else 'does not exist'}"
        )
    manifest = read_manifest(path)

    def chosen(name: str) -> bool:
        return (include is None or matches_any(name, include)) and not matches_any(
            name, exclude or []
        )

    if manifest is not None:
        return [file for file in _shard_files(path, manifest) if chosen(file.name)]
    listing = list_folder(path)
    listing.require_usable(path, [name for name in listing.unusable if chosen(name)])
    names = [name for name in listing.files if format_of(name) is not None and chosen(name)]
    return [SourceFile(name, (path / name).stat().st_size, None) for name in names]


def ignored_files(path: Path) -> dict[str, int]:
    """Ending -> files of a source folder that are not read because picochat does not know their
    kind.
    """
    counts: dict[str, int] = {}
    if path.is_dir() and not (path / MANIFEST_NAME).exists():
        listing = list_folder(path)
        endings = [
            Path(name).suffix.lower() or "(none)"
            for name in listing.files
            if format_of(name) is None
        ]
        for ending in [*endings, *("(linked folder)" for _ in listing.linked_folders)]:
            counts[ending] = counts.get(ending, 0) + 1
    return dict(sorted(counts.items()))


def file_path(source: Path, name: str) -> Path:
    """Where a file that `list_source_files` named lies."""
    return source if source.is_file() else source / name


def read_source_file(
    source: Path, name: str, text_column: str = "text", *, wanted: Wanted | None = None
) -> Iterator[ReadRow]:
    """Every row of one file of a source, in order, usable or not. `text_column`: of parquet and
    JSON lines.

    wanted: one flag for each row of the file; only those rows come, and the others cost little.
    Ids: the record's own `id`, else `<file>#<row>` counted from 0; for txt and md the file's path.
    Raises BadInput that names file and line where the file itself is broken.
    """
    path = file_path(source, name)
    whole_file = format_of(name) == "text"
    left = None if wanted is None else sum(wanted)
    try:
        stream = path.open("rb")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    with stream:
        for batch in read_batches(stream, str(path), text_column, id_column="id", wanted=wanted):
            for row in batch.rows():
                if wanted is not None and not wanted[row.number]:
                    continue
                problem = text_problem(row.text)
                id = row.id or (name if whole_file else f"{name}#{row.number}")
                yield ReadRow(
                    id, row.text if problem is None and isinstance(row.text, str) else "", problem
                )
                left = None if left is None else left - 1
            if left == 0:
                return


def read_documents(path: Path, source_label: str) -> Iterator[Document]:
    """The usable documents of a file or folder, in order.

    Rows without usable text are passed over; `read_source_file` shows them.
    """
    for file in list_source_files(path):
        for row in read_source_file(path, file.name):
            if row.problem is None:
                yield Document(row.id, row.text, source_label)


def _shard_files(folder: Path, manifest: DocumentsManifest) -> list[SourceFile]:
    for shard in manifest.shards:
        path = folder / shard.name
        found = path.stat().st_size if path.is_file() else None
        if found != shard.bytes:
            raise BadInput(
                f"{path}: {'is missing' if found is None else f'has {found} bytes'}, documents.json"
                f" says {shard.bytes} bytes",
                fix="import the source again with --force",
            )
    return [SourceFile(shard.name, shard.bytes, shard.sha256) for shard in manifest.shards]
