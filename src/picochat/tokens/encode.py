"""Documents to ids, in parts of the corpus that any process may encode, kept on disk.

A part is a run of rows of about PART_TEXT_BYTES of text. Its ids are a function of the corpus and
the tokenizer alone, so parts may be made in any order, by several processes or machines that share
the folder, and a part that stands after a kill is not made again. The byte count of every document
is checked; a seeded sample is decoded and compared in full, and encoded again by `tokenizers`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from picochat.core.publish import Artifact
from picochat.data.corpus.reader import DROPPED, CorpusReader, Split
from picochat.data.documents import Document, list_source_files, read_source_file
from picochat.facts import CorpusFacts, ExercisesFacts, facts_of
from picochat.tokens.tokenizer import Tokenizer, in_sample, without_surrogates

SPLITS: tuple[Split, ...] = ("train", "held_out")
# One encoder call, about 50 ms of a core: long enough that the Python around it costs little, short
# enough that an interrupt is answered at once.
BATCH_CHARS = 500_000
# Of text, one to two seconds of a core: all that a kill can cost a process, and still few files for
# a corpus of gigabytes.
PART_TEXT_BYTES = 16_000_000
# Both encoders were compared on hard texts when the tokenizer was loaded; a few hundred documents
# of the corpus itself show what those texts missed. Encoding all of it by both would take ten times
# as long.
SAMPLED_DOCUMENTS = 400  # expected; at least 200 of any corpus that has them


class EncodersDisagree(Exception):
    """A sampled document gave other ids in tiktoken than in tokenizers.

    `shards` answers by encoding with the latter.
    """


class EncodedBatch(NamedTuple):
    """Whole documents in a row.

    The arrays after `tokens` have one entry for each document; the last two hold 0 or 1.
    """

    tokens: npt.NDArray[np.uint16]
    ends: npt.NDArray[np.int64]
    text_bytes: npt.NDArray[np.int64]
    sampled: npt.NDArray[np.int64]
    failed: npt.NDArray[np.int64]

    def starts(self) -> npt.NDArray[np.int64]:
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64)

    def split(self, documents: int) -> tuple[EncodedBatch, EncodedBatch]:
        """The first `documents` of them, and the rest."""
        cut = int(self.ends[documents - 1])
        counts = (self.text_bytes, self.sampled, self.failed)
        head = EncodedBatch(
            self.tokens[:cut], self.ends[:documents], *(array[:documents] for array in counts)
        )
        rest = EncodedBatch(
            self.tokens[cut:], self.ends[documents:] - cut, *(array[documents:] for array in counts)
        )
        return head, rest


class DocumentSource(Protocol):
    """Documents in parts, always the same ones in the same order.

    Picklable, for several processes.
    """

    @property
    def parts(self) -> int: ...

    def read(self, part: int) -> Iterator[tuple[Split, Document]]: ...


@dataclass(frozen=True)
class EncodeJob:
    """What all parts have in common.

    `load`: the tokenizer; a reason makes it encode without tiktoken.
    """

    source: DocumentSource
    load: Callable[[str | None], Tokenizer]
    documents: int
    seed: int
    batch_chars: int = BATCH_CHARS

    def sampled(self, document_id: str) -> bool:
        return in_sample(
            document_id, SAMPLED_DOCUMENTS / max(1, self.documents), self.seed, "round trip"
        )


def open_encoder(job: EncodeJob, folder: Path, reason: str | None) -> Callable[[int], int]:
    """A function that encodes a part into `folder` and returns the bytes of its text.

    A part that stands there already is read and not encoded. reason: why not by tiktoken.
    """
    return partial(_encode_part, job, job.load(reason), folder)


def read_part(folder: Path, part: int, split: Split) -> EncodedBatch:
    """The documents of a split that a part holds."""
    with np.load(_part_path(folder, part)) as stored:
        return EncodedBatch(*(stored[f"{split}.{field}"] for field in EncodedBatch._fields))


def _encode_part(job: EncodeJob, tokenizer: Tokenizer, folder: Path, part: int) -> int:
    encoded: dict[Split, EncodedBatch]
    if _part_path(folder, part).exists():
        encoded = {split: read_part(folder, part, split) for split in SPLITS}
    else:
        documents: dict[Split, list[Document]] = {split: [] for split in SPLITS}
        for split, document in job.source.read(part):
            documents[split].append(document)
        encoded = {split: _encode(job, tokenizer, found) for split, found in documents.items()}
        _write_part(folder, part, encoded)
    return sum(int(batch.text_bytes.sum()) for batch in encoded.values())


def _encode(job: EncodeJob, tokenizer: Tokenizer, documents: Sequence[Document]) -> EncodedBatch:
    batches = [
        encode_batch(tokenizer, group, job.sampled)
        for group in batches_of(documents, job.batch_chars)
    ]
    ends = np.cumsum([0, *(len(batch.tokens) for batch in batches)])
    shifted = [
        batch._replace(ends=batch.ends + begin)
        for batch, begin in zip(batches, ends.tolist(), strict=False)
    ]
    empty = EncodedBatch(
        np.zeros(0, dtype=np.uint16), *(np.zeros(0, dtype=np.int64) for _ in range(4))
    )
    return EncodedBatch(*(np.concatenate(columns) for columns in zip(empty, *shifted, strict=True)))


def _write_part(folder: Path, part: int, encoded: dict[Split, EncodedBatch]) -> None:
    path = _part_path(folder, part)
    # By rename, so that a part that stands is whole; with the process in the name, because two
    # processes may encode one part at once. Both write the same bytes.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    columns = {
        f"{split}.{field}": array
        for split in SPLITS
        for field, array in encoded[split]._asdict().items()
    }
    with temporary.open("wb") as stream:
        np.savez(stream, **columns)
    os.replace(temporary, path)


def _part_path(folder: Path, part: int) -> Path:
    return folder / f"part-{part:06d}.npz"


def encode_batch(
    tokenizer: Tokenizer, documents: Sequence[Document], sampled: Callable[[str], bool]
) -> EncodedBatch:
    """The documents' ids in a row, with the sampled ones decoded and compared.

    Raises EncodersDisagree where a sampled document has other ids by `tokenizers`.
    """
    texts = [without_surrogates(document.text) for document in documents]
    tokens = tokenizer.encode_documents(texts)
    starts = np.flatnonzero(tokens == tokenizer.bos)
    ends = np.append(starts[1:], len(tokens))
    text_bytes = np.array([len(text.encode()) for text in texts], dtype=np.int64)
    assert len(starts) == len(texts), "bos stands before each document and nowhere else"
    # Byte counts catch a lost or doubled byte in every document for the price of one sum; equal
    # texts are only proved by decoding, which the sample below does.
    assert (np.add.reduceat(tokenizer.token_bytes[tokens], starts) == text_bytes).all(), (
        "the encoder lost bytes"
    )
    chosen = np.array([sampled(document.id) for document in documents], dtype=np.int64)
    failed = np.zeros(len(texts), dtype=np.int64)
    for index in np.flatnonzero(chosen).tolist():
        ids = tokens[starts[index] + 1 : ends[index]].tolist()
        if tokenizer.encoder == "tiktoken" and ids != tokenizer.encode_by_reference(texts[index]):
            raise EncodersDisagree(
                f"document {documents[index].id}: tiktoken and tokenizers give different ids"
            )
        failed[index] = tokenizer.decode(ids) != documents[index].text
    return EncodedBatch(tokens, ends.astype(np.int64), text_bytes, chosen, failed)


def batches_of(documents: Iterable[Document], batch_chars: int) -> Iterator[list[Document]]:
    """The documents in groups of at most `batch_chars` characters.

    A longer document is a group of its own.
    """
    group: list[Document] = []
    chars = 0
    for document in documents:
        if group and chars + len(document.text) > batch_chars:
            yield group
            group, chars = [], 0
        group.append(document)
        chars += len(document.text)
    if group:
        yield group


class CorpusParts:
    """A corpus in parts of about PART_TEXT_BYTES: runs of rows of consecutive files.

    Sizes are estimated by the mean size of a row of each file, so no text is read to cut the parts.
    """

    def __init__(self, corpus: Artifact) -> None:
        self._reader = CorpusReader(corpus)
        files = [placed.file for placed in self._reader.files]
        self._parts = row_runs([(file.rows, file.text_bytes) for file in files], PART_TEXT_BYTES)

    @property
    def parts(self) -> int:
        return len(self._parts)

    def read(self, part: int) -> Iterator[tuple[Split, Document]]:
        for number, start, stop in self._parts[part]:
            decisions = self._reader.decisions(number)
            decisions[:start] = decisions[stop:] = DROPPED
            yield from self._reader.read(number, decisions)


class ExerciseParts:
    """The exercises of a run, in parts of a file each. All of it is trained on."""

    def __init__(self, exercises: Artifact) -> None:
        self._folder = exercises.place
        self._files = list_source_files(exercises.place)

    @property
    def parts(self) -> int:
        return len(self._files)

    def read(self, part: int) -> Iterator[tuple[Split, Document]]:
        for row in read_source_file(self._folder, self._files[part].name):
            yield "train", Document(row.id, row.text, "exercises")


@dataclass(frozen=True)
class TrainingParts:
    """What a run trains on and holds out: the parts of the corpus, then those of the exercises."""

    corpus: DocumentSource
    exercises: DocumentSource

    @property
    def parts(self) -> int:
        return self.corpus.parts + self.exercises.parts

    def read(self, part: int) -> Iterator[tuple[Split, Document]]:
        first = self.corpus.parts
        return self.corpus.read(part) if part < first else self.exercises.read(part - first)


def training_job(
    corpus: Artifact, exercises: Artifact, load: Callable[[str | None], Tokenizer], seed: int
) -> tuple[EncodeJob, range]:
    """(the job of encoding corpus and exercises, the parts of it that are exercises)."""
    source = TrainingParts(CorpusParts(corpus), ExerciseParts(exercises))
    documents = (
        facts_of(corpus, CorpusFacts).documents + facts_of(exercises, ExercisesFacts).documents
    )
    return EncodeJob(source, load, documents, seed), range(source.corpus.parts, source.parts)


def row_runs(files: Sequence[tuple[int, int]], run_bytes: int) -> list[list[tuple[int, int, int]]]:
    """Lists of (file, first row, row after the last) that hold about `run_bytes` each.

    files: (rows, bytes) of each.
    """
    runs: list[list[tuple[int, int, int]]] = []
    room = 0
    for number, (rows, size) in enumerate(files):
        mean_bytes = max(1, size // max(1, rows))
        start = 0
        while start < rows:
            if room < mean_bytes:
                runs.append([])
                room = max(run_bytes, mean_bytes)
            stop = min(rows, start + room // mean_bytes)
            runs[-1].append((number, start, stop))
            room -= (stop - start) * mean_bytes
            start = stop
    return runs
