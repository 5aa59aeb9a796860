"""Counts of followers against a plain count, and samples that are spread over a whole stream."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np

from picochat.tokens.token_counts import (
    STRETCH_TOKENS,
    FollowerCounts,
    pair_counts,
    spread_sample,
    triple_counts,
)

BOS = 0
VOCAB = 7
TOKENS = np.random.default_rng(0).integers(0, VOCAB, 200).astype(np.uint16)


def entries(counts: FollowerCounts) -> dict[tuple[int, int], int]:
    contexts = counts.contexts[counts.row_of_entry]
    return {
        (int(context), int(token)): int(count)
        for context, token, count in zip(contexts, counts.following, counts.counts, strict=True)
    }


def test_pairs_and_triples_are_counted_each_once() -> None:
    stream = TOKENS.tolist()
    assert entries(pair_counts(TOKENS, VOCAB)) == Counter(pairwise(stream))
    assert entries(triple_counts(TOKENS, VOCAB)) == Counter(
        (a * VOCAB + b, c) for a, b, c in zip(stream, stream[1:], stream[2:], strict=False)
    )


def test_totals_and_places_of_single_followers() -> None:
    pairs = pair_counts(TOKENS, VOCAB)
    assert pairs.totals().sum() == len(TOKENS) - 1
    known = np.array([5, 5, 123]), np.array([int(pairs.following[-1]), 6, 0])
    found = pairs.entry_of(*known)
    assert found[2] == -1, "a context that never stood there"
    for place, context, token in zip(found[:2], *(side[:2] for side in known), strict=True):
        if place >= 0:
            assert pairs.following[place] == token
            assert pairs.contexts[pairs.row_of_entry[place]] == context


def test_ids_of_sixteen_bits_do_not_overflow() -> None:
    tokens = np.array([65_535, 65_535, 65_535, 65_534], dtype=np.uint16)
    assert entries(triple_counts(tokens, 65_536)) == {
        (65_535 * 65_536 + 65_535, 65_535): 1,
        (65_535 * 65_536 + 65_535, 65_534): 1,
    }


class Sources:
    """A stream whose tokens say in which of 1,000 equal parts they lie."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def __len__(self) -> int:
        return self.tokens

    def slice(self, start: int, stop: int) -> np.ndarray:
        assert 0 <= start <= stop <= self.tokens
        return (np.arange(start, stop) * 1_000 // self.tokens + 1).astype(np.uint16)


def test_a_sample_is_spread_evenly_over_a_stream_of_more_tokens_than_32_bits_count() -> None:
    sample = spread_sample(Sources(3_000_000_000), 2_000_001, BOS)
    starts = np.flatnonzero(sample == BOS)
    assert len(sample) == 2_000_001 and len(starts) == 31
    assert np.diff(starts, append=len(sample)).max() <= STRETCH_TOKENS
    assert sample[starts + 1].tolist() == [1_000 * n // 31 + 1 for n in range(31)]


def test_a_stream_that_is_no_longer_than_the_sample_is_taken_whole() -> None:
    stream = Sources(1_000)
    assert spread_sample(stream, 1_000, BOS).tolist() == stream.slice(0, 1_000).tolist()
