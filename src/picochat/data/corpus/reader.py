"""Read the documents of a split of a corpus from its sources.

`row_decisions.u8` has one byte for each row of the source files, in their order: DROPPED, HELD_OUT,
or how many times the document is read in training. `renamed_rows.i8` has the numbers of the rows
that are called by their place, because an earlier row has their id. So a reader needs no ids and no
hashes, and memory for the decisions of one file and the renamed rows. A source file that has
changed is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from picochat.core.errors import BadInput
from picochat.core.publish import Artifact
from picochat.core.records import Record, digest_file, read_json, read_record
from picochat.data.corpus.corpus_scan import CorpusFile
from picochat.data.corpus.minhash import mixed
from picochat.data.document_shards import Provenance
from picochat.data.documents import Document, file_path, read_source_file

Split = Literal["train", "held_out"]
DECISIONS, RENAMED = "row_decisions.u8", "renamed_rows.i8"
DROPPED = 0
HELD_OUT = 255  # more than any number of copies, because a weight is at most 100

RowDecisions = npt.NDArray[np.uint8]


class CorpusSource(Record):
    """One source in `sources.json`. `ignored`: ending -> files of unknown kinds."""

    label: str
    weight: float
    min_chars: int
    text_column: str
    licence: str | None
    provenance: Provenance | None
    import_report: str | None
    ignored: dict[str, int]
    files: list[CorpusFile]


class CorpusSources(Record):
    """`sources.json`."""

    schema_version: int
    held_out_fraction: float
    sources: list[CorpusSource]


@dataclass(frozen=True)
class PlacedFile:
    """A file of a corpus.

    place: the path of its source. first_row: of the file, by its number in `row_decisions.u8`.
    """

    source: CorpusSource
    place: Path
    file: CorpusFile
    first_row: int


def read_split(corpus: Artifact, split: Split) -> Iterator[Document]:
    """The documents of a split, in the order of sources, files and rows.

    If a weight repeats a document, its second copy follows as `<id>~2`. Raises BadInput if a source
    file is gone or has changed since the corpus was built.
    """
    reader = CorpusReader(corpus)
    for number in range(len(reader.files)):
        decisions = reader.decisions(number)
        decisions[(decisions == HELD_OUT) != (split == "held_out")] = DROPPED
        for _, document in reader.read(number, decisions):
            yield document


def sample_train(corpus: Artifact, fraction: float, seed: int) -> Iterator[Document]:
    """About this fraction of the training documents, in order, each once."""
    # Rows are drawn by their number and not by their id, because reading ids would mean parsing
    # rows that are not drawn.
    reader = CorpusReader(corpus)
    salt = np.uint64(int.from_bytes(hashlib.sha256(f"sample {seed}".encode()).digest()[:8], "big"))
    for number, placed in enumerate(reader.files):
        places = np.arange(placed.first_row, placed.first_row + placed.file.rows, dtype=np.uint64)
        drawn = (mixed(places ^ salt) >> np.uint64(12)) < np.uint64(int(fraction * (1 << 52)))
        decisions = reader.decisions(number)
        once = drawn & (decisions != DROPPED) & (decisions != HELD_OUT)
        for _, document in reader.read(number, once.astype(np.uint8)):
            yield document


class CorpusReader:
    """Reads a corpus file by file, for callers that read several files at a time."""

    def __init__(self, corpus: Artifact) -> None:
        listing = read_record(CorpusSources, corpus.path("sources.json"), "corpus sources")
        places = read_json(corpus.path("location.json"), "corpus location")["sources"]
        self.files: list[PlacedFile] = []
        first_row = 0
        for source in listing.sources:
            for file in source.files:
                self.files.append(PlacedFile(source, Path(places[source.label]), file, first_row))
                first_row += file.rows
        self._decisions = corpus.path(DECISIONS)
        self._renamed = np.fromfile(corpus.path(RENAMED), dtype="<i8")
        self._unchanged: set[int] = set()

    def decisions(self, number: int) -> RowDecisions:
        """What becomes of each row of a file."""
        placed = self.files[number]
        return np.fromfile(
            self._decisions, dtype=np.uint8, count=placed.file.rows, offset=placed.first_row
        )

    def read(self, number: int, decisions: RowDecisions) -> Iterator[tuple[Split, Document]]:
        """The documents of one file, by these decisions.

        decisions: `decisions(number)`, in which the caller may have dropped more rows. Raises
        BadInput if the file is gone or has changed. A file of which no row is read is not opened.
        """
        wanted = decisions != DROPPED
        if not wanted.any():
            return
        placed = self.files[number]
        if number not in self._unchanged:  # a large file is read in several parts, but hashed once
            _require_unchanged(placed)
            self._unchanged.add(number)
        label, column = placed.source.label, placed.source.text_column
        rows = read_source_file(placed.place, placed.file.name, column, wanted=wanted.tolist())
        numbers = placed.first_row + np.flatnonzero(wanted)
        renamed = np.isin(numbers, self._renamed, assume_unique=True).tolist()
        read = zip(rows, decisions[wanted].tolist(), renamed, strict=True)
        for row, decision, by_place in read:
            assert row.problem is None, "a row without a text is always dropped"
            split: Split = "held_out" if decision == HELD_OUT else "train"
            id = f"{label}:{row.place if by_place else row.id}"
            yield split, Document(id, row.text, label)
            for copy in range(2, decision + 1 if split == "train" else 0):
                yield split, Document(f"{id}~{copy}", row.text, label)


def _require_unchanged(placed: PlacedFile) -> None:
    path = file_path(placed.place, placed.file.name)
    fix = "put the file back, or run again: a changed source makes a new corpus"
    if not path.is_file():
        raise BadInput(f"source {placed.source.label}: {path} is gone", fix=fix)
    if path.stat().st_size != placed.file.bytes or digest_file(path) != placed.file.sha256:
        raise BadInput(
            f"source {placed.source.label}: {path} has changed since the corpus was built", fix=fix
        )
