"""Bytes per token of every source, measured with a tokenizer that is trained on the sample, with a
95% interval.

The tokenizer is trained on nine tenths of the sampled documents, mixed as the pack mixes its
sources, and measured on the other tenth. The interval is that of sampling (a ratio estimator over
files, or over documents where there are few files); it says nothing about the other difference: the
run trains its tokenizer on more text, which gives about 1% fewer tokens (docs/decisions/0016).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from picochat.data.preview.record import Interval
from picochat.data.preview.sample import SourceSample
from picochat.present.values import byte_quantity

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MEASURED_EVERY = 10  # one document in ten is measured and not trained on
TRAINED_BYTES = 10_000_000
MEASURED_BYTES = 2_000_000  # of one source
PIECE_CHARACTERS = 20_000
LEAST_GROUPS = 10  # fewer files say too little about how files differ
NORMAL_95 = 1.96


class Piece(NamedTuple):
    """A document, or a part of a long one."""

    text: str
    text_bytes: int
    file_number: int
    document: int


def bytes_per_token(
    samples: Sequence[SourceSample], mix: Sequence[float], vocab_size: int
) -> tuple[list[Interval | None], str]:
    """(bytes per token of each source, what that was measured with).

    `mix`: text of each source in the pack, in any unit.
    """
    pieces = [_pieces(sample) for sample in samples]
    whole = sum(mix)
    parts = [
        _trained(each, TRAINED_BYTES * part / whole if whole else 0.0)
        for each, part in zip(pieces, mix, strict=True)
    ]
    trained = [text for part in parts for text in part]
    if not trained:
        return [None] * len(samples), "not measured: too few documents"
    tokenizer = train_byte_bpe(trained, vocab_size)
    rates = [_measured_rate(each, tokenizer) for each in pieces]
    trained_bytes = byte_quantity(sum(len(text.encode()) for text in trained))
    basis = (
        f"by a byte-level BPE of {tokenizer.get_vocab_size():,}, trained on {trained_bytes} of this"
        " text and measured on other documents of it; 95% intervals. The run trains its own on"
        " more text and needs about 1% fewer tokens"
    )
    return rates, basis


def train_byte_bpe(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE with single digits, close to the run's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], groups: Sequence[int]
) -> Interval | None:
    """sum(numerators) / sum(denominators) with its 95% interval; None where fewer than two groups
    leave the error unknown.

    Linearized ratio estimator (Cochran, Sampling Techniques, 6.13) over the groups, with the t
    quantile of their number.
    """
    above, below = np.array(numerators, dtype=float), np.array(denominators, dtype=float)
    if len(set(groups)) < 2 or not below.sum():
        return None
    ratio = float(above.sum() / below.sum())
    _, number = np.unique(np.array(groups), return_inverse=True)
    residuals = np.bincount(number, weights=above - ratio * below)
    count = len(residuals)
    error = math.sqrt(count / (count - 1) * float((residuals**2).sum())) / float(below.sum())
    half = t_quantile(count - 1) * error
    return Interval(value=ratio, low=max(ratio - half, 0.0), high=ratio + half)


def t_quantile(degrees: int) -> float:
    """97.5% quantile of Student's t, by its expansion in 1/degrees (Abramowitz and Stegun, 26.7.5);
    within 6% from 2 up.
    """
    z = NORMAL_95
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


def _pieces(sample: SourceSample) -> list[Piece]:
    """The sampled documents, long ones in parts, so that one book can be trained on and measured
    too.
    """
    pieces: list[Piece] = []
    for number, text in enumerate(sample.texts):
        for start in range(0, len(text), PIECE_CHARACTERS):
            part = text[start : start + PIECE_CHARACTERS]
            pieces.append(Piece(part, len(part.encode()), sample.file_numbers[number], number))
    return pieces


def _every(pieces: Sequence[Piece]) -> int:
    """One piece in so many is measured: a tenth, but of a few pieces every second."""
    return min(MEASURED_EVERY, max(2, len(pieces) // 2))


def _trained(pieces: Sequence[Piece], budget: float) -> list[str]:
    """Texts that are not measured, evenly over the pieces, of about `budget` bytes."""
    every = _every(pieces)
    free = [piece for place, piece in enumerate(pieces) if place % every]
    there = sum(piece.text_bytes for piece in free)
    count = min(len(free), math.ceil(len(free) * budget / there)) if there else 0
    return [free[number * len(free) // count].text for number in range(count)]


def _measured_rate(pieces: Sequence[Piece], tokenizer: Tokenizer) -> Interval | None:
    measured = pieces[:: _every(pieces)]
    there = sum(piece.text_bytes for piece in measured)
    measured = measured[:: max(1, math.ceil(there / MEASURED_BYTES))]
    encoded = tokenizer.encode_batch_fast(
        [piece.text for piece in measured], add_special_tokens=False
    )
    tokens = [len(found.ids) for found in encoded]
    return ratio_interval([piece.text_bytes for piece in measured], tokens, _groups(measured))


def _groups(pieces: Sequence[Piece]) -> list[int]:
    """What varies as a whole: files where there are enough of them, else documents, else pieces."""
    for groups in ([piece.file_number for piece in pieces], [piece.document for piece in pieces]):
        if len(set(groups)) >= LEAST_GROUPS:
            return groups
    return list(range(len(pieces)))
