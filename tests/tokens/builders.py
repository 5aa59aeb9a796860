"""Texts, a trained tokenizer and published artifacts for the tests of `tokens`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import NamedTuple

from picochat.core.publish import Artifact, Draft, publish
from picochat.rundir import CorpusFacts
from picochat.tokens.shards import ShardsJob, Split, write_all
from picochat.tokens.tokenizer import Tokenizer, train

VOCAB_SIZE = 512


class Written(NamedTuple):
    """A document as the token stages see it."""

    id: str
    text: str
    source: str = "tests"


def manual_texts() -> list[str]:
    """The manual that comes with Python: real text, about 80 pages. It varies a little between versions."""
    return [text for _, text in sorted(topics.items())]


def short_documents(count: int) -> list[Written]:
    """Paragraphs of the manual, each with a number so that no two are equal; the last repeat the first after the end."""
    paragraphs = [part for text in manual_texts() for part in text.split("\n\n") if part]
    return [Written(f"d{number}", f"{number}. {paragraphs[number % len(paragraphs)]}") for number in range(count)]


def write_tokenizer_file(folder: Path, vocab_size: int = VOCAB_SIZE, texts: Iterable[str] | None = None) -> Path:
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
        characters=sum(len(document.text) for document in [*train_documents, *held_out]),
        text_bytes=size(train_documents) + size(held_out),
        train_text_bytes=size(train_documents),
        held_out_text_bytes=size(held_out),
        exact_duplicates=0,
        near_duplicates=0,
        dropped={},
        duplicates=[],
        held_out_share=0.1,
        sources=[],
    )


def make_job(
    tokenizer_file: Path, train_documents: Sequence[Written], held_out: Sequence[Written] = (), **changes: object
) -> ShardsJob:
    """A job over documents in memory; `changes` replace its fields."""
    by_split: dict[Split, Sequence[Written]] = {"train": train_documents, "held_out": held_out}
    fields: dict[str, object] = {
        "documents": lambda split: iter(by_split[split]),
        "counts": make_counts(train_documents, held_out),
        "load": lambda reason: Tokenizer.load(tokenizer_file, reason),
        "shard_tokens": 10_000,
        "workers": 2,
        "seed": 42,
        "batch_chars": 5_000,  # so that small corpora have many batches
    }
    return ShardsJob(**{**fields, **changes})  # type: ignore[arg-type]


def publish_shards(place: Path, job: ShardsJob) -> Artifact:
    with publish(place, "shards", "key", {}) as draft:
        write_all(job, draft)
    return published(draft)


def published(draft: Draft) -> Artifact:
    assert draft.artifact is not None
    return draft.artifact
