"""The files that scores are made from: what was asked and said, what was measured with the model at
hand.
"""

from __future__ import annotations

from typing import Literal

from picochat.core.records import Record

LIKELIHOOD_DIGITS = 6
"""Kept digits of a log-likelihood: the scores are recomputed from what is written."""


class Asked(Record):
    """One row and what both models said to it.

    `set`: eval rows, or SFT rows asked their own question (fit).
    """

    id: str
    set: Literal["eval", "sft_train", "sft_held_out"]
    skill: str
    stage: str | None
    prompt: str
    expected: str | None
    reply: str
    log_likelihoods: list[float] | None
    base_reply: str | None
    base_log_likelihoods: list[float] | None


class ExternalAsked(Record):
    """One benchmark item. Summed log-likelihoods in nats, one an option; None where one is not
    finite, or is not there.

    `cut`: context and option are longer than the model's context, and were read without their
    beginning. `too_long`: an option alone is, so that nothing was asked: the item counts as failed.
    """

    id: str
    benchmark: str
    log_likelihoods: list[float] | None
    base_log_likelihoods: list[float] | None
    cut: bool
    too_long: bool


class Memorization(Record):
    """A training prefix was given; `expected` are the training tokens after it, `continued` the
    model's.
    """

    position: int
    expected: list[int]
    continued: list[int]


class Measured(Record):
    """Numbers that need the models: held-out bits per byte of base, chat model and the 5-gram
    baseline.
    """

    base_bits_per_byte: float | None
    sft_bits_per_byte: float | None
    ngram_bits_per_byte: float | None
    ngram_train_tokens: int
