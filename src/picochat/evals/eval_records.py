"""The files that the scores stage keeps: their records, and how they are read.

Everything that a score counts stands in these files, so that it can be computed again without the
models. Contains no rule for scoring: see evals/scores.py and evals/external.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from picochat.core.records import Record, parse_record, read_jsonl, read_record

REPLIES = "replies.jsonl"
EXTERNAL = "external.jsonl"
CONTINUATIONS = "memorization.jsonl"
MEASURED = "measured.json"
HELD_OUT = "held_out.jsonl"

# The scores are computed from what was written, so the digits must be cut before writing: a reader
# that rounded later would choose another option of two that are nearly equal.
LIKELIHOOD_DIGITS = 6


class EvaluatedRow(Record):
    """One row of the pack with the replies of the chat model and of the base model.

    set: `eval` for eval rows; `eval_listed` for those of a choice with the options in the prompt;
    the name of the SFT side for SFT rows asked their own question.
    log_likelihoods: of each candidate, nats above those after a question that asks nothing; None
    where text was generated.
    """

    id: str
    set: Literal["eval", "eval_listed", "sft_train", "sft_held_out"]
    skill: str
    stage: str | None
    prompt: str
    expected: str | None
    reply: str
    log_likelihoods: list[float] | None
    base_reply: str | None
    base_log_likelihoods: list[float] | None


class EvaluatedItem(Record):
    """One benchmark item with the summed log-likelihoods (nats) of its options, for both models.

    log_likelihoods: None where one of them is not finite, or nothing was asked.
    cut: context and option exceed the model's context, so the beginning was left out.
    too_long: one option alone exceeds it, so nothing was asked and the item counts as failed.
    """

    id: str
    benchmark: str
    log_likelihoods: list[float] | None
    base_log_likelihoods: list[float] | None
    cut: bool
    too_long: bool


class Memorization(Record):
    """One training prefix: the training tokens that follow it, and what the model continued."""

    position: int
    expected: list[int]
    continued: list[int]


class HeldOutDocument(Record):
    """One held-out document with the loss of both models, summed over its tokens, in nats.

    sha256: of its UTF-8 text, so that runs with other tokenizers find the same document.
    base_nats, chat_nats: None where a loss is not finite.
    """

    sha256: str
    text_bytes: int = Field(ge=0)
    base_nats: float | None = Field(ge=0)
    chat_nats: float | None = Field(ge=0)


class ScoresMeasured(Record):
    """Held-out bits per byte of the 5-gram model, which needs the token shards."""

    ngram_bits_per_byte: float | None
    ngram_train_tokens: int


def read_replies(scores: Path) -> list[EvaluatedRow]:
    """The rows of replies.jsonl in the folder of a scores artifact."""
    return [
        parse_record(EvaluatedRow, value, f"{REPLIES}, line {line}")
        for line, value in read_jsonl(scores / REPLIES)
    ]


def read_external(scores: Path) -> list[EvaluatedItem]:
    """The items of external.jsonl in the folder of a scores artifact."""
    return [
        parse_record(EvaluatedItem, value, f"{EXTERNAL}, line {line}")
        for line, value in read_jsonl(scores / EXTERNAL)
    ]


def read_continuations(scores: Path) -> list[Memorization]:
    """The prefixes of memorization.jsonl in the folder of a scores artifact."""
    return [
        parse_record(Memorization, value, f"{CONTINUATIONS}, line {line}")
        for line, value in read_jsonl(scores / CONTINUATIONS, "prefixes")
    ]


def read_held_out(scores: Path) -> list[HeldOutDocument]:
    """The documents of held_out.jsonl in the folder of a scores artifact."""
    return [
        parse_record(HeldOutDocument, value, f"{HELD_OUT}, line {line}")
        for line, value in read_jsonl(scores / HELD_OUT, "held-out documents")
    ]


def read_measured(scores: Path) -> ScoresMeasured:
    """measured.json in the folder of a scores artifact."""
    return read_record(ScoresMeasured, scores / MEASURED, "measurements")
