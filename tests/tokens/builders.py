"""Texts, a trained tokenizer and published artifacts for the tests of `tokens`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics
from typing import NamedTuple

from picochat.config import ExercisesConfig, HostConfig
from picochat.core.publish import Artifact, StagingFolder, publish
from picochat.data.corpus.reader import Split
from picochat.data.documents import Document
from picochat.facts import CorpusFacts
from picochat.skills.exercises import write_exercises
from picochat.tokens.encode import DocumentSource, EncodeJob
from picochat.tokens.shards import ShardsJob, write_all
from picochat.tokens.tokenizer import Tokenizer, train

VOCAB_SIZE = 512


class Written(NamedTuple):
    """A document as the token stages see it."""

    id: str
    text: str
    source: str = "tests"


def manual_texts() -> list[str]:
    """The manual that comes with Python: real text, about 80 pages.

    It varies a little between versions.
    """
    return [text for _, text in sorted(topics.items())]


def short_documents(count: int) -> list[Written]:
    """Paragraphs of the manual, repeated as often as needed, and numbered so that all differ."""
    paragraphs = [part for text in manual_texts() for part in text.split("\n\n") if part]
    return [
        Written(f"d{number}", f"{number}. {paragraphs[number % len(paragraphs)]}")
        for number in range(count)
    ]


def write_tokenizer_file(
    folder: Path, vocab_size: int = VOCAB_SIZE, texts: Iterable[str] | None = None
) -> Path:
    path = folder / "tokenizer.json"
    path.write_bytes(train(manual_texts() if texts is None else texts, vocab_size))
    return path


def make_counts(train_documents: Sequence[Written], held_out: Sequence[Written]) -> CorpusFacts:
    """The facts of a corpus that holds these documents."""

    def size(documents: Sequence[Written]) -> int:
        return sum(len(document.text.encode("utf-8", "replace")) for document in documents)

    return CorpusFacts(
        documents_read=len(train_documents) + len(held_out),
        documents=len(train_documents) + len(held_out),
        train_documents=len(train_documents),
        held_out_documents=len(held_out),
        text_bytes=size(train_documents) + size(held_out),
        train_text_bytes=size(train_documents),
        held_out_text_bytes=size(held_out),
        repeated_ids=0,
        exact_duplicates=0,
        near_duplicates=0,
        dropped={},
        duplicates=[],
        held_out_fraction=0.1,
        sources=[],
    )


@dataclass(frozen=True)
class Listed:
    """Documents in memory, `part_documents` in a part. The held-out ones come last."""

    train: Sequence[Written]
    held_out: Sequence[Written] = ()
    part_documents: int = 100

    @property
    def parts(self) -> int:
        return -(-(len(self.train) + len(self.held_out)) // self.part_documents)

    def read(self, part: int) -> Iterator[tuple[Split, Document]]:
        labelled: list[tuple[Split, Written]] = [("train", document) for document in self.train]
        labelled += [("held_out", document) for document in self.held_out]
        for split, document in labelled[part * self.part_documents :][: self.part_documents]:
            yield split, Document(*document)


def make_job(
    tokenizer_file: Path,
    train_documents: Sequence[Written],
    held_out: Sequence[Written] = (),
    *,
    source: DocumentSource | None = None,
    load: Callable[[str | None], Tokenizer] | None = None,
    shard_tokens: int = 10_000,
    workers: int = 1,
) -> ShardsJob:
    """A job over these documents. source, load: replace the list and the tokenizer."""
    counts = make_counts(train_documents, held_out)
    encode = EncodeJob(
        source=source or Listed(train_documents, held_out),
        load=load or partial(Tokenizer.load, tokenizer_file),
        documents=counts.documents,
        seed=42,
        batch_chars=5_000,  # so that small parts have several batches
    )
    return ShardsJob(encode, counts, shard_tokens, workers)


def publish_shards(
    place: Path, job: ShardsJob, inputs: Mapping[str, str] | None = None
) -> Artifact:
    with publish(place, "shards", "key", inputs or {}) as staging:
        write_all(job, staging)
    return published(staging)


def make_exercises(corpus: Artifact, place: Path, fraction: float = 0.0) -> Artifact:
    """The published exercises of a corpus. There are none where the fraction is 0."""
    tokenizer = make_tokenizer(place.parent / f"{place.name} tokenizer")
    config = ExercisesConfig(fraction=fraction)
    with publish(place, "exercises", "key", {}) as staging:
        write_exercises(corpus, tokenizer, config, HostConfig(workers=1), 42, staging)
    return published(staging)


def make_tokenizer(place: Path) -> Artifact:
    with publish(place, "tokenizer", "key", {}) as staging:
        write_tokenizer_file(staging.folder)
    return published(staging)


def published(staging: StagingFolder) -> Artifact:
    assert staging.artifact is not None
    return staging.artifact
