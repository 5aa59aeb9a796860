"""What follows what in a stream of tokens, and how often.

Weights start from these counts (model/counted_start.py), and a teacher is made of them
(train/count_teacher.py). The 5-gram baseline has arrays of its own (evals/ngram.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.uint16]
Integers = npt.NDArray[np.int64]

STRETCH_TOKENS = 1 << 16  # of a sample: long enough for whole documents, short enough for many


class Stream(Protocol):
    """Tokens on disk, such as `tokens.shards.TokenStream`."""

    def __len__(self) -> int: ...
    def slice(self, start: int, stop: int) -> Ids: ...


def spread_sample(stream: Stream, most_tokens: int, bos_id: int) -> Ids:
    """The whole stream, or `most_tokens` of it in stretches that are spread evenly.

    Shards follow the order of the sources, so the first tokens would all be of the first source.
    bos replaces the first token of each stretch, so that no context reaches into the one before.
    """
    if len(stream) <= most_tokens:
        return stream.slice(0, len(stream))
    stretches = -(-most_tokens // STRETCH_TOKENS)
    ends = [most_tokens * n // stretches for n in range(stretches + 1)]
    sample = np.empty(most_tokens, dtype=np.uint16)
    for n, (start, end) in enumerate(pairwise(ends)):
        place = len(stream) * n // stretches
        sample[start:end] = stream.slice(place, place + end - start)
        sample[start] = bos_id
    return sample


@dataclass(frozen=True)
class FollowerCounts:
    """Each context and each token that follows it, once, sorted by context and then by token.

    contexts (C,): a number for each. starts (C + 1,): where the followers of a context begin.
    following, counts (N,): the tokens, and how often each follows its context.
    """

    contexts: Integers
    starts: Integers
    following: Integers
    counts: Integers
    vocab_size: int

    @staticmethod
    def of(contexts: Integers, following: Integers, vocab_size: int) -> FollowerCounts:
        """Count `following[i]` after `contexts[i]`. A context is below 2^63 / vocabulary."""
        keys, counts = np.unique(contexts * vocab_size + following, return_counts=True)
        of_key = keys // vocab_size
        known, starts = np.unique(of_key, return_index=True)
        return FollowerCounts(
            known, np.append(starts, len(keys)), keys % vocab_size, counts, vocab_size
        )

    @cached_property
    def row_of_entry(self) -> Integers:
        """(N,) the number of the context, from 0 to C - 1, of each follower."""
        return np.repeat(np.arange(len(self.contexts)), np.diff(self.starts))

    @cached_property
    def keys(self) -> Integers:
        """(N,) context x vocabulary + follower, ascending."""
        return np.repeat(self.contexts, np.diff(self.starts)) * self.vocab_size + self.following

    def totals(self) -> Integers:
        """(C,) how often each context was followed by anything."""
        return np.add.reduceat(self.counts, self.starts[:-1])

    def only(self, kept: npt.NDArray[np.bool_]) -> FollowerCounts:
        """The contexts that are marked in `kept` (C,), with their followers."""
        entries = np.repeat(kept, np.diff(self.starts))
        starts = np.concatenate([[0], np.cumsum(np.diff(self.starts)[kept])])
        return FollowerCounts(
            self.contexts[kept],
            starts,
            self.following[entries],
            self.counts[entries],
            self.vocab_size,
        )

    def part(self, contexts: slice) -> FollowerCounts:
        """Some contexts, by their numbers, with their followers."""
        known = self.contexts[contexts]
        starts = self.starts[contexts.start : contexts.start + len(known) + 1]
        entries = slice(starts[0], starts[-1])
        return FollowerCounts(
            known,
            starts - starts[0],
            self.following[entries],
            self.counts[entries],
            self.vocab_size,
        )

    def entry_of(self, contexts: Integers, following: Integers) -> Integers:
        """Where `following[i]` after `contexts[i]` stands in `self.following`; -1: nowhere."""
        wanted = contexts * self.vocab_size + following
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[at] == wanted, at, -1)


def pair_counts(tokens: Ids, vocab_size: int) -> FollowerCounts:
    """Which token follows which. At least two tokens are needed."""
    stream = tokens.astype(np.int64)
    return FollowerCounts.of(stream[:-1], stream[1:], vocab_size)


def triple_counts(tokens: Ids, vocab_size: int) -> FollowerCounts:
    """Which token follows which two; the number of a context is first x vocabulary + second."""
    stream = tokens.astype(np.int64)
    return FollowerCounts.of(stream[:-2] * vocab_size + stream[1:-1], stream[2:], vocab_size)
