"""The baseline of the gate: an interpolated 5-gram model with modified Kneser-Ney smoothing.

It works on the same token ids as the neural model, and gives a proper distribution over all ids but
bos after any context. Both score the same targets (every token but bos) and divide by the bytes of
raw text, so their bits per byte compare. A context reaches back to its document's bos and no
further. Formulas: Chen and Goodman 1999, section 3; n-grams that begin with bos keep their counts,
since nothing stands before them (as in Heafield et al. 2013).

Everything is arrays over positions: an n-gram's number is found from the number of its prefix and
its last token, order by order, so one sort for each order is the whole cost. It counts in memory,
so of a large corpus it is given a sample. A baseline to beat, not a language model to use.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from picochat.core.errors import BadInput

Ints = npt.NDArray[np.signedinteger]
Floats = npt.NDArray[np.float64]
# Of tokens and n-grams; half the memory of 64 bits. `evals.ngram_train_tokens` is below 2^31.
POSITION = np.int32
# Peak memory for each training token. Measured: 70 for tokens as frequent as words, 92 to 102 for
# tokens drawn evenly, which have the most n-grams.
BYTES_PER_TOKEN = 100

ABSENT = -1
# Used where an order has too few n-grams of small counts to estimate its discounts.
PLAIN_DISCOUNTS = (0.5, 1.0, 1.5)


def ngram_bits_per_byte(
    train: npt.ArrayLike,
    held_out: npt.ArrayLike,
    vocab_size: int,
    held_out_text_bytes: int,
    bos_id: int,
    order: int = 5,
) -> float:
    """Bits per byte of raw held-out text under a model counted on `train`.

    train, held_out: streams of documents, bos before each. held_out_text_bytes: UTF-8 bytes of the
    held-out documents; bos has none. Raises BadInput where there is nothing to count or to score.
    """
    nats = ngram_nats(train, held_out, vocab_size, bos_id, order)
    if not nats.size or held_out_text_bytes < 1:
        raise BadInput(
            "the 5-gram baseline needs held-out text", fix="add a document of other text"
        )
    return float(nats.sum()) / math.log(2) / held_out_text_bytes


def ngram_nats(
    train: npt.ArrayLike, held_out: npt.ArrayLike, vocab_size: int, bos_id: int, order: int = 5
) -> Floats:
    """Minus log probability, in nats, of each held-out token that is not bos, in order."""
    seen, new = np.asarray(train, dtype=POSITION), np.asarray(held_out, dtype=POSITION)
    if not np.any(seen != bos_id):
        raise BadInput("the 5-gram baseline needs training text", fix="add text")
    # bos is given, never predicted: a neural model is not scored on it either.
    scored = np.flatnonzero(new != bos_id)
    if not len(scored):
        return np.zeros(0)
    seen_depths, new_depths = depths(seen, bos_id, order), depths(new, bos_id, order)
    # Order 0 is uniform over all ids but bos: an id never seen in training has a probability too.
    probability = np.full(len(scored), 1.0 / (vocab_size - 1))
    # Length 1: a token is its own number, and every context is the empty one, numbered 0.
    grams = Grams(
        seen,
        new,
        count=vocab_size,
        occurrences=np.bincount(seen, minlength=vocab_size),
        first=_any_position(seen, vocab_size),
    )
    prefixes = Prefixes(
        of_gram=np.zeros(vocab_size, dtype=POSITION),
        count=1,
        of_position=np.zeros(len(new), dtype=POSITION),
    )
    for length in range(1, order + 1):
        longer = (
            longer_grams(grams, seen, new, seen_depths, new_depths, vocab_size, length + 1)
            if length < order
            else None
        )
        counts = adjusted_counts(grams, seen, bos_id, length, longer)
        probability = interpolate(probability, counts, grams, prefixes, new_depths, scored, length)
        if longer is not None:
            # the prefix of a longer n-gram is the n-gram of this length that ends one position
            # earlier
            ends_before = np.concatenate([[ABSENT], grams.at_new[:-1]])
            prefixes = Prefixes(
                of_gram=grams.at_seen[longer.first - 1], count=grams.count, of_position=ends_before
            )
            grams = longer
    return -np.log(probability)


class Grams(NamedTuple):
    """All n-grams of one length, numbered.

    at_seen, at_new: the number of the n-gram that ends at a position, or ABSENT. occurrences[g]:
    how often g stands in the training stream. first[g]: a position where it ends there.
    """

    at_seen: Ints
    at_new: Ints
    count: int
    occurrences: Ints
    first: Ints


class Prefixes(NamedTuple):
    """The contexts of one length: of each n-gram, and of each held-out position.

    ABSENT: the context never stands in the training stream.
    """

    of_gram: Ints
    count: int
    of_position: Ints


def depths(tokens: Ints, bos_id: int, most: int) -> Ints:
    """How many tokens of the same document stand before each position, up to `most`.

    Its bos is one of them.
    """
    positions = np.arange(len(tokens), dtype=POSITION)
    starts = np.maximum.accumulate(np.where(tokens == bos_id, positions, POSITION(0)))
    return np.minimum(positions - starts, most).astype(np.int8)


def _any_position(tokens: Ints, vocab_size: int) -> Ints:
    positions = np.zeros(vocab_size, dtype=POSITION)
    positions[tokens] = np.arange(len(tokens), dtype=POSITION)
    return positions


def longer_grams(
    grams: Grams,
    seen: Ints,
    new: Ints,
    seen_depths: Ints,
    new_depths: Ints,
    vocab_size: int,
    length: int,
) -> Grams:
    """The n-grams of `length`, from those one shorter."""
    # Numbered by sorting one integer a position and not `length` ids: the number of the prefix and
    # the last token make an n-gram unique.
    ends = np.flatnonzero(seen_depths >= length - 1).astype(POSITION)
    keys = _keys(grams.at_seen, seen, ends, vocab_size)
    by_key = np.argsort(keys).astype(POSITION)
    keys, ends = keys[by_key], ends[by_key]
    changes = np.ones(len(keys), dtype=np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=changes[1:])
    at_seen = np.full(len(seen), ABSENT, dtype=POSITION)
    at_seen[ends] = np.cumsum(changes, dtype=POSITION) - 1
    heads = np.flatnonzero(changes)
    at_new = _find(grams, new, new_depths, keys[heads], vocab_size, length)
    occurrences = np.diff(heads, append=len(keys)).astype(POSITION)
    return Grams(at_seen, at_new, len(heads), occurrences, ends[heads])


def _keys(numbers: Ints, tokens: Ints, ends: Ints, vocab_size: int) -> npt.NDArray[np.int64]:
    """A number that is unique to an n-gram: its prefix's number x vocabulary + its last token."""
    return numbers[ends - 1].astype(np.int64) * vocab_size + tokens[ends]


def _find(
    grams: Grams, new: Ints, new_depths: Ints, keys: Ints, vocab_size: int, length: int
) -> Ints:
    """The number of the known n-gram that ends at each held-out position, or ABSENT."""
    found = np.full(len(new), ABSENT, dtype=POSITION)
    ends = np.flatnonzero(new_depths >= length - 1)
    ends = ends[grams.at_new[ends - 1] != ABSENT]
    if not len(keys) or not len(ends):
        return found
    wanted = _keys(grams.at_new, new, ends, vocab_size)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    known = keys[at] == wanted
    found[ends[known]] = at[known]
    return found


def adjusted_counts(
    grams: Grams, seen: Ints, bos_id: int, length: int, longer: Grams | None
) -> Ints:
    """Kneser-Ney's counts: occurrences at the highest order, below it continuation counts.

    A continuation count is the number of different tokens that stand before the n-gram. bos itself
    is never predicted, so as a unigram it counts 0.
    """
    # Lower orders are only asked where the higher one is unsure, and there frequency misleads:
    # "Francisco" is frequent but follows one word alone.
    if longer is None:
        counts = grams.occurrences.copy()
    else:
        counts = np.bincount(grams.at_seen[longer.first], minlength=grams.count)
        if length > 1:
            opening = seen[grams.first - (length - 1)] == bos_id
            counts = np.where(opening, grams.occurrences, counts)
    if length == 1:
        counts[bos_id] = 0
    return counts


def interpolate(
    lower: Floats,
    counts: Ints,
    grams: Grams,
    prefixes: Prefixes,
    new_depths: Ints,
    scored: Ints,
    length: int,
) -> Floats:
    """p(w | h) = max(c(hw) - D, 0) / c(h) + freed(h) / c(h) * lower(w); lower where h is unknown.

    freed(h): what the discounts took from all n-grams that continue h.
    """
    discounts = np.array([0.0, *discounts_of(counts)])
    taken = discounts[np.minimum(counts, 3)]
    totals = np.bincount(prefixes.of_gram, weights=counts, minlength=max(1, prefixes.count))
    freed = np.bincount(prefixes.of_gram, weights=taken, minlength=max(1, prefixes.count))
    context = np.where(new_depths[scored] >= length - 1, prefixes.of_position[scored], ABSENT)
    known = np.flatnonzero((context != ABSENT) & (totals[context] > 0))
    context, gram = context[known], grams.at_new[scored[known]]
    kept = np.where(gram == ABSENT, 0.0, (counts - taken)[gram])
    mixed = lower.copy()
    mixed[known] = (kept + freed[context] * lower[known]) / totals[context]
    return mixed


def discounts_of(counts: Ints) -> tuple[float, float, float]:
    """What is taken from n-grams counted once, twice, and three times or more.

    Chen and Goodman's equation 17; PLAIN_DISCOUNTS where the counts are too few to estimate it.
    """
    once, twice, thrice, four_times = (
        int(np.count_nonzero(counts == number)) for number in (1, 2, 3, 4)
    )
    if not (once and twice and thrice and four_times):
        return PLAIN_DISCOUNTS
    y = once / (once + 2 * twice)
    found = (1 - 2 * y * twice / once, 2 - 3 * y * thrice / twice, 3 - 4 * y * four_times / thrice)
    inside = all(0 < discount < number for number, discount in enumerate(found, start=1))
    return found if inside else PLAIN_DISCOUNTS
