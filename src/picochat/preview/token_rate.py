"""Bytes per token of each source with a 95% interval, by a tokenizer trained on the sample.

The function that trains the run's tokenizer trains this one, on nine tenths of the sampled
documents in the proportions of the pack. It counts the tokens of the other tenth. The interval
covers the sampling error only: the run trains on more text and needs about 1% fewer tokens
(docs/decisions/0016).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from picochat.present.values import byte_quantity
from picochat.preview.preview_record import Interval
from picochat.preview.text_sample import SourceSample

if TYPE_CHECKING:
    import tokenizers

MEASURED_EVERY = 10  # one document in ten is measured and not trained on
TRAINED_BYTES = 10_000_000
MEASURED_BYTES = 2_000_000  # of one source
PIECE_CHARACTERS = 20_000
LEAST_GROUPS = 10  # with fewer files, the variance between files is too uncertain
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
    """(bytes per token of each source, a sentence that says how they were measured).

    mix: the amount of text of each source in the pack, in any unit.
    """
    from picochat.tokens.tokenizer import trained_reference  # loads two tokenizer libraries

    pieces = [_pieces(sample) for sample in samples]
    every = [min(MEASURED_EVERY, max(2, len(each) // 2)) for each in pieces]
    whole = sum(mix)
    trained = [
        text
        for each, step, part in zip(pieces, every, mix, strict=True)
        for text in _trained(each, step, TRAINED_BYTES * part / whole if whole else 0.0)
    ]
    if not trained:
        return [None] * len(samples), "not measured: too few documents"
    tokenizer = trained_reference(trained, vocab_size)
    basis = (
        f"by a tokenizer of {tokenizer.get_vocab_size():,} ids, trained as the run's is on"
        f" {byte_quantity(sum(len(text.encode()) for text in trained))} of this text and measured"
        " on other documents of it; 95% intervals. The run trains its own on more text and needs"
        " about 1% fewer tokens"
    )
    return [_rate(each[::step], tokenizer) for each, step in zip(pieces, every, strict=True)], basis


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], groups: Sequence[int]
) -> Interval | None:
    """sum(numerators) / sum(denominators) with its 95% interval; None for fewer than two groups.

    groups: the group of each entry; groups are the independent units. This is the linearized ratio
    estimator (Cochran, Sampling Techniques, 6.13) with a quantile of Student's t.
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
    """97.5% quantile of Student's t; the error is below 6% from 2 degrees of freedom up.

    The expansion in 1 / degrees of Abramowitz and Stegun, 26.7.5.
    """
    z = NORMAL_95
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


def _pieces(sample: SourceSample) -> list[Piece]:
    """Documents, long ones in parts, so that a single book can be both trained on and measured."""
    pieces: list[Piece] = []
    for number, text in enumerate(sample.texts):
        for start in range(0, len(text), PIECE_CHARACTERS):
            part = text[start : start + PIECE_CHARACTERS]
            pieces.append(Piece(part, len(part.encode()), sample.file_numbers[number], number))
    return pieces


def _trained(pieces: Sequence[Piece], every: int, budget: float) -> list[str]:
    """About `budget` bytes of the texts that are not measured, spread evenly over the pieces."""
    free = [piece for place, piece in enumerate(pieces) if place % every]
    there = sum(piece.text_bytes for piece in free)
    count = min(len(free), math.ceil(len(free) * budget / there)) if there else 0
    return [free[number * len(free) // count].text for number in range(count)]


def _rate(measured: Sequence[Piece], tokenizer: tokenizers.Tokenizer) -> Interval | None:
    there = sum(piece.text_bytes for piece in measured)
    measured = measured[:: max(1, math.ceil(there / MEASURED_BYTES))]
    encoded = tokenizer.encode_batch_fast(
        [piece.text for piece in measured], add_special_tokens=False
    )
    # Documents of one file are alike, so files are the independent units: the interval would be
    # too narrow otherwise. With too few files these are documents, and with too few documents
    # (a single book) they are pieces.
    groups = list(range(len(measured)))
    for found in ([each.file_number for each in measured], [each.document for each in measured]):
        if len(set(found)) >= LEAST_GROUPS:
            groups = found
            break
    return ratio_interval(
        [piece.text_bytes for piece in measured], [len(found.ids) for found in encoded], groups
    )
