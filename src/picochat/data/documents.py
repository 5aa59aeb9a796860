"""Documents, the record of text that all later stages read, and the sources that hold them.

A source is a file, a folder of parquet, JSON lines, txt and md files, or a folder of document
shards (document_shards.py). Each row of parquet and JSON lines is a document, and so is each txt or
md file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import NamedTuple

from picochat.core.errors import BadInput
from picochat.data.document_shards import DocumentsManifest, read_manifest
from picochat.data.folders import list_folder, matches_any
from picochat.data.formats.file_rows import ENDINGS, NOT_TEXT, format_of, read_batches
from picochat.data.formats.row_batch import Wanted, text_problem


@dataclass(frozen=True)
class Document:
    """One text. `id`: stable and unique in its source. `source`: the label in the recipe."""

    id: str
    text: str
    source: str


class SourceFile(NamedTuple):
    """One file of a source.

    name: path relative to the source, with forward slashes. sha256: None if no manifest states it.
    """

    name: str
    bytes: int
    sha256: str | None


class ReadRow(NamedTuple):
    """One row of a source file: a text, or the reason why there is none.

    id: its own, else `place`. place: `<file>#<row>`, unique in the source.
    """

    id: str
    place: str
    text: str
    problem: str | None


def list_source_files(
    path: Path, *, include: list[str] | None = None, exclude: list[str] | None = None
) -> list[SourceFile]:
    """The files of a source that hold documents, sorted; shards in the order of their manifest.

    Files and digests of a folder with documents.json are those that it lists. Hidden files are
    ignored. Raises BadInput for a source that is absent, for a shard that is missing or of another
    size, for pipes and dead links among the files, and for a single file that is no text.
    """
    if path.is_file():
        if path.suffix.lower() in NOT_TEXT:
            raise BadInput(
                f"{path}: its ending says nothing that picochat reads",
                fix=f"make text or JSON lines of it; known endings: {ENDINGS}",
            )
        return [SourceFile(path.name, path.stat().st_size, None)]
    if not path.is_dir():
        if path.exists():
            raise BadInput(
                f"source {path} is neither a file nor a folder",
                fix="name a file or a folder; what comes through a pipe must be written to a file",
            )
        raise BadInput(f"source {path} does not exist")

    def chosen(name: str) -> bool:
        included = include is None or matches_any(name, include)
        return included and not matches_any(name, exclude or [])

    manifest = read_manifest(path)
    if manifest is not None:
        return [file for file in _shard_files(path, manifest) if chosen(file.name)]
    listing = list_folder(path)
    listing.require_usable(path, [name for name in listing.unusable if chosen(name)])
    # A file that `include` names is read whatever its ending: as text where that is unknown.
    names = [name for name in listing.files if (include or format_of(name)) and chosen(name)]
    return [SourceFile(name, (path / name).stat().st_size, None) for name in names]


def _shard_files(folder: Path, manifest: DocumentsManifest) -> list[SourceFile]:
    # Digests would take long. The corpus stage compares them, because it reads the files anyway.
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


def row_place(name: str, number: int) -> str:
    """The id of a row without an id of its own: FILE#NUMBER; the file's name for a text's first."""
    is_text = format_of(name) in (None, "text")
    return name if is_text and number == 0 else f"{name}#{number}"


def file_path(source: Path, name: str) -> Path:
    """The path of a file that `list_source_files` named."""
    return source if source.is_file() else source / name


def read_source_file(
    source: Path, name: str, text_column: str = "text", *, wanted: Wanted | None = None
) -> Iterator[ReadRow]:
    """Every row of one file of a source, in order, usable or not.

    A row's id is its `id` field, where that is an integer or a text, else `<file>#<row>` counted
    from 0; the id of a txt or md file is its path. Ids of a source may repeat. text_column: of
    parquet and JSON lines. wanted: one flag for each row of the file; other rows are skipped at
    little cost. Raises BadInput with file and line if the file is broken.
    """
    path = file_path(source, name)
    left = None if wanted is None else sum(wanted)
    try:
        stream = path.open("rb")
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read: {error.strerror}",
            fix=f"chmod u+r {quote(str(path))}, or leave it out",
        ) from None
    with stream:
        for batch in read_batches(stream, str(path), text_column, id_column="id", wanted=wanted):
            for row in batch.rows():
                if wanted is not None and not wanted[row.number]:
                    continue
                problem = text_problem(row.text)
                if source.is_file() and problem in ("not_utf8", "nul_character"):
                    raise BadInput(
                        f"{path} is not UTF-8 text",
                        fix=(
                            f"iconv -f LATIN1 -t UTF-8 {quote(str(path))} > NEW, with the encoding"
                            " that it has, or leave it out"
                        ),
                    )
                place = row_place(name, row.number)
                text = row.text if problem is None and isinstance(row.text, str) else ""
                yield ReadRow(row.id or place, place, text, problem)
                left = None if left is None else left - 1
            # A reader of one part of a large file need not parse the rest.
            if left == 0:
                return


def read_documents(path: Path, source_label: str) -> Iterator[Document]:
    """The usable documents of a file or folder, in order."""
    for file in list_source_files(path):
        for row in read_source_file(path, file.name):
            if row.problem is None:
                yield Document(row.id, row.text, source_label)
