"""Encodes documents in parts of the corpus, each of which any process may write to disk.

A part is a range of rows with about PART_TEXT_BYTES of text. Its ids depend only on the corpus and
the tokenizer. So several processes or machines that share the folder can make parts in any order,
and a resumed job keeps finished parts. The byte count of every document is checked. A seeded sample
is also decoded and compared with the text, and encoded again by `tokenizers`.
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
# Characters of one encoder call, about 50 ms of a core: the Python code around the call costs
# little, and an interrupt does not wait.
BATCH_CHARS = 500_000
# One to two seconds of a core, which is what a kill costs a process. Smaller parts would be many
# files for a corpus of gigabytes.
PART_TEXT_BYTES = 16_000_000
# Expected number of documents that both encoders encode, to find differences that TRAPS misses.
# `tokenizers` is about nine times slower, so it does not encode the whole corpus.
SAMPLED_DOCUMENTS = 400


class EncodersDisagree(Exception):
    """tiktoken and tokenizers give different ids for a sampled document.

    `shards` then encodes everything again with tokenizers.
    """


class EncodedBatch(NamedTuple):
    """Consecutive whole documents.

    The arrays after `tokens` have one entry for each document. `ends`: index in `tokens` after its
    last token. `sampled`, `failed`: 1 where it was decoded, and where that gave another text.
    """

    tokens: npt.NDArray[np.uint16]
    ends: npt.NDArray[np.int64]
    text_bytes: npt.NDArray[np.int64]
    sampled: npt.NDArray[np.int64]
    failed: npt.NDArray[np.int64]

    def starts(self) -> npt.NDArray[np.int64]:
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64)

    def split(self, documents: int) -> tuple[EncodedBatch, EncodedBatch]:
        """The first `documents` of the documents (at least one), and the rest."""
        cut = int(self.ends[documents - 1])
        head = EncodedBatch(self.tokens[:cut], *(array[:documents] for array in self[1:]))
        rest = EncodedBatch(self.tokens[cut:], *(array[documents:] for array in self[1:]))
        return head, rest._replace(ends=rest.ends - cut)


class DocumentSource(Protocol):
    """Documents in parts. Equal calls of `read` give equal documents in the same order.

    Must be picklable, because worker processes read too.
    """

    @property
    def parts(self) -> int: ...

    def read(self, part: int) -> Iterator[tuple[Split, Document]]: ...


@dataclass(frozen=True)
class EncodeJob:
    """What all parts have in common.

    `load(reason)` loads the tokenizer; with a reason it encodes without tiktoken. `documents`: of
    all parts together.
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

    It reads a part that exists and does not encode it again. reason: why tiktoken must not encode.
    """
    return partial(_encode_part, job, job.load(reason), folder)


def read_part(folder: Path, part: int, split: Split) -> EncodedBatch:
    """The documents of one split in a part."""
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
    # Starts with an empty batch, because a part may have no documents of a split.
    none = np.zeros(0, dtype=np.int64)
    batches = [EncodedBatch(none.astype(np.uint16), none, none, none, none)]
    tokens = 0
    for group in batches_of(documents, job.batch_chars):
        batch = encode_batch(tokenizer, group, job.sampled)
        batches.append(batch._replace(ends=batch.ends + tokens))
        tokens += len(batch.tokens)
    return EncodedBatch(*(np.concatenate(arrays) for arrays in zip(*batches, strict=True)))


def _write_part(folder: Path, part: int, encoded: dict[Split, EncodedBatch]) -> None:
    path = _part_path(folder, part)
    # Renamed when finished, so that a part that exists is complete. The name has the process id,
    # because two processes may encode one part at once. Both write the same bytes.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    arrays = {
        f"{split}.{field}": array
        for split, batch in encoded.items()
        for field, array in batch._asdict().items()
    }
    with temporary.open("wb") as stream:
        np.savez(stream, **arrays)
    os.replace(temporary, path)


def _part_path(folder: Path, part: int) -> Path:
    return folder / f"part-{part:06d}.npz"


def encode_batch(
    tokenizer: Tokenizer, documents: Sequence[Document], sampled: Callable[[str], bool]
) -> EncodedBatch:
    """The ids of the documents; sampled ones are decoded and compared with their text.

    Raises EncodersDisagree where `tokenizers` gives other ids for a sampled document.
    """
    texts = [without_surrogates(document.text) for document in documents]
    tokens = tokenizer.encode_documents(texts)
    starts = np.flatnonzero(tokens == tokenizer.bos)
    ends = np.append(starts[1:], len(tokens))
    text_bytes = np.array([len(text.encode()) for text in texts], dtype=np.int64)
    assert len(starts) == len(texts), "bos stands before each document and nowhere else"
    # For one sum, byte counts find a lost or doubled byte in any document. Only decoding proves
    # equal texts, which is done for the sample below.
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
    """Groups of consecutive documents, each of at most `batch_chars` characters or one document."""
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
    """A corpus in parts of about PART_TEXT_BYTES: ranges of rows of consecutive files.

    Row sizes are estimated by the mean of each file, so dividing the corpus reads no text.
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
    """The exercises of a run, one file a part. All of them are in the split `train`."""

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
    """The parts of the corpus, then those of the exercises."""

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
) -> EncodeJob:
    """The job that encodes the corpus and then the exercises."""
    source = TrainingParts(CorpusParts(corpus), ExerciseParts(exercises))
    documents = (
        facts_of(corpus, CorpusFacts).documents + facts_of(exercises, ExercisesFacts).documents
    )
    return EncodeJob(source, load, documents, seed)


def row_runs(files: Sequence[tuple[int, int]], run_bytes: int) -> list[list[tuple[int, int, int]]]:
    """Lists of (file, first row, row after the last), each with about `run_bytes` of text.

    files: (rows, bytes) of each file.
    """
    runs: list[list[tuple[int, int, int]]] = []
    room = 0  # bytes that the last run can still take
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
