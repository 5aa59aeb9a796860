"""Reading a corpus: what its artifact lists, and the documents of a split, streamed from the sources that it names.

`fates.u8` has one byte for each row of the source files, in their order: 0 dropped, HELD_OUT, else how many times the
document is read in training. So reading a split needs no ids, no hashes and no memory but one file's bytes. A source that
has changed since is refused. Decides nothing: `corpus` did.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from picochat.core.errors import BadInput
from picochat.core.publish import Artifact
from picochat.core.records import Record, digest_file, read_json, read_record
from picochat.data.documents import Document, Provenance, file_path, read_source_file

Split = Literal["train", "held_out"]
DROPPED = 0
HELD_OUT = 255


class CorpusFile(Record):
    """One source file. `name` is relative to its source; `rows` counts usable and other rows."""

    name: str
    bytes: int
    sha256: str
    rows: int


class CorpusSource(Record):
    """One source in `sources.json`. `ignored`: ending -> files that are not read because their kind is not known."""

    label: str
    weight: float
    min_chars: int
    text_column: str
    provenance: Provenance | None
    import_report: str | None
    ignored: dict[str, int]
    files: list[CorpusFile]


class CorpusSources(Record):
    schema_version: int
    held_out_share: float
    sources: list[CorpusSource]


@dataclass(frozen=True)
class PlacedFile:
    """A file of a corpus, where it lies, and the number of its first row in `fates.u8`."""

    source: CorpusSource
    place: Path
    file: CorpusFile
    first_row: int


def read_split(corpus: Artifact, split: Split) -> Iterator[Document]:
    """The documents of a split, in the order of sources, files and rows; a repeated one (weight) follows itself as `<id>~2`.

    Raises BadInput where a source file is gone or differs from what the corpus was built from.
    """
    reader = SplitReader(corpus)
    for number in range(len(reader.files)):
        yield from reader.read(number, split)


class SplitReader:
    """Reads a corpus file by file, for who reads several at a time. `files` is the order that `read_split` follows."""

    def __init__(self, corpus: Artifact) -> None:
        listing = read_record(CorpusSources, corpus.path("sources.json"), "corpus sources")
        places = read_json(corpus.path("location.json"), "corpus location")["sources"]
        self.files: list[PlacedFile] = []
        first_row = 0
        for source in listing.sources:
            for file in source.files:
                self.files.append(PlacedFile(source, Path(places[source.label]), file, first_row))
                first_row += file.rows
        self._fates = corpus.path("fates.u8")

    def read(self, number: int, split: Split) -> Iterator[Document]:
        """The documents of one file that belong to the split."""
        placed = self.files[number]
        label, rows = placed.source.label, placed.file.rows
        fates = np.fromfile(self._fates, dtype=np.uint8, count=rows, offset=placed.first_row)
        wanted = fates == HELD_OUT if split == "held_out" else (fates != HELD_OUT) & (fates != DROPPED)
        if not wanted.any():
            return
        _require_unchanged(placed)
        for row, fate in zip(
            read_source_file(placed.place, placed.file.name, placed.source.text_column), fates.tolist(), strict=True
        ):
            if fate == DROPPED or (fate == HELD_OUT) != (split == "held_out"):
                continue
            id = f"{label}:{row.id}"
            yield Document(id, row.text, label)
            for copy in range(2, fate + 1 if split == "train" else 0):
                yield Document(f"{id}~{copy}", row.text, label)


def _require_unchanged(placed: PlacedFile) -> None:
    path = file_path(placed.place, placed.file.name)
    fix = "put the file back, or run again: a changed source makes a new corpus"
    if not path.is_file():
        raise BadInput(f"source {placed.source.label}: {path} is gone", fix=fix)
    if path.stat().st_size != placed.file.bytes or digest_file(path) != placed.file.sha256:
        raise BadInput(f"source {placed.source.label}: {path} has changed since the corpus was built", fix=fix)
