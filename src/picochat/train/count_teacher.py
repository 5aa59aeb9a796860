"""A teacher made of counts: the likeliest next tokens after two tokens of the training text.

A model learns what usually follows a token from many single examples, and counts know it at once.
Early in training, part of the target of each position is therefore the distribution that the counts
give, and the rest is the token that really follows (docs/experiments.md). Does not decide how much
of the target it is, nor for how long.

The probabilities are trigram counts, interpolated with bigram and unigram counts by absolute
discounting (Chen and Goodman 1999, section 2.7). They are not Kneser-Ney's, whose lower orders
serve rare contexts: contexts that are common enough to teach have counts of their own.

Shape suffixes: B rows, T positions, K likeliest next tokens, C contexts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from picochat.config import CountsConfig
from picochat.facts import ShardsFacts
from picochat.model.gpt import Shares
from picochat.tokens.token_counts import FollowerCounts, Ids, Integers, pair_counts, triple_counts
from picochat.train.loader import Batch
from picochat.train.schedule import teacher_share

Floats = npt.NDArray[np.float64]

KEPT = 16
"""The likeliest next tokens that a context keeps (K)."""
DISCOUNT = 0.75
LEAST_COUNT = 2
"""Of two tokens that are a context of their own. What followed them once is the target there."""
CONTEXTS_AT_ONCE = 1 << 16  # while rows are made, to need little memory


@dataclass(frozen=True)
class Likeliest:
    """`ids` and `probabilities` (C, K): the likeliest next tokens first; short rows end in zeros.

    The probabilities of a row add up to at most 1. What is missing belongs to all other tokens.
    """

    ids: Ids
    probabilities: npt.NDArray[np.float16]


class CountTeacher:
    """What counts of `tokens` say of the next token. There must be three tokens or more."""

    def __init__(self, tokens: Ids, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        unigrams = np.bincount(tokens, minlength=vocab_size) / len(tokens)
        pairs, triples = pair_counts(tokens, vocab_size), triple_counts(tokens, vocab_size)
        after_one = (
            _discounted(pairs) + _freed(pairs)[pairs.row_of_entry] * unigrams[pairs.following]
        )
        short = likeliest(pairs.row_of_entry, pairs.following, after_one, len(pairs.contexts))
        # One row for each token, whether it was ever followed or not.
        self._after_one = Likeliest(
            np.zeros((vocab_size, KEPT), np.uint16), np.zeros((vocab_size, KEPT), np.float16)
        )
        self._after_one.ids[pairs.contexts] = short.ids
        self._after_one.probabilities[pairs.contexts] = short.probabilities
        self._contexts, self._after_two = self._of_triples(triples, pairs, after_one)

    def targets(self, ids_BT: Integers) -> tuple[Integers, npt.NDArray[np.float32]]:
        """(token ids (B, T, K), their probabilities (B, T, K)) of what follows each position."""
        context_BT = ids_BT.copy()
        context_BT[:, 1:] += ids_BT[:, :-1] * self.vocab_size
        context_BT[:, 0] = -1  # what stands before a row is not looked at
        ids_BTK = self._after_one.ids[ids_BT]
        probabilities_BTK = self._after_one.probabilities[ids_BT]
        if len(self._contexts):
            row_BT = np.searchsorted(self._contexts, context_BT).clip(max=len(self._contexts) - 1)
            known_BT = self._contexts[row_BT] == context_BT
            ids_BTK[known_BT] = self._after_two.ids[row_BT[known_BT]]
            probabilities_BTK[known_BT] = self._after_two.probabilities[row_BT[known_BT]]
        return ids_BTK.astype(np.int64), probabilities_BTK.astype(np.float32)

    def _of_triples(
        self, triples: FollowerCounts, pairs: FollowerCounts, after_one: Floats
    ) -> tuple[Integers, Likeliest]:
        """(contexts (C,), rows) of the pairs of tokens that occur LEAST_COUNT times or more."""
        common = triples.only(triples.totals() >= LEAST_COUNT)
        made = [Likeliest(self._after_one.ids[:0], self._after_one.probabilities[:0])]
        for start in range(0, len(common.contexts), CONTEXTS_AT_ONCE):
            in_part = slice(start, start + CONTEXTS_AT_ONCE)
            made.append(self._rows_of(common.part(in_part), pairs, after_one))
        return common.contexts, Likeliest(
            np.concatenate([rows.ids for rows in made]),
            np.concatenate([rows.probabilities for rows in made]),
        )

    def _rows_of(
        self, triples: FollowerCounts, pairs: FollowerCounts, after_one: Floats
    ) -> Likeliest:
        row, second, freed = (
            triples.row_of_entry,
            triples.contexts % self.vocab_size,
            _freed(triples),
        )
        lower = after_one[pairs.entry_of(second[row], triples.following)]
        own = _discounted(triples) + freed[row] * lower
        # What is likely after the second token alone, but for what has counts of its own.
        others = self._after_one.ids[second].astype(np.int64).ravel()
        of_others = np.repeat(np.arange(len(second)), KEPT)
        theirs = (freed[:, None] * self._after_one.probabilities[second]).ravel()
        new = triples.entry_of(np.repeat(triples.contexts, KEPT), others) == -1
        return likeliest(
            np.concatenate([row, of_others[new]]),
            np.concatenate([triples.following, others[new]]),
            np.concatenate([own, theirs[new]]),
            len(second),
        )


def _discounted(counts: FollowerCounts) -> Floats:
    """(N,) what is left of each follower's relative frequency."""
    return np.maximum(counts.counts - DISCOUNT, 0) / counts.totals()[counts.row_of_entry]


def _freed(counts: FollowerCounts) -> Floats:
    """(C,) the probability that the discounts took from the followers of each context."""
    return DISCOUNT * np.diff(counts.starts) / counts.totals()


def likeliest(row: Integers, following: Integers, probability: Floats, rows: int) -> Likeliest:
    """The KEPT likeliest followers of each of `rows` contexts; `row[i]` is the one of entry i."""
    order = np.lexsort((-probability, row))
    row, following, probability = row[order], following[order], probability[order]
    first = np.searchsorted(row, np.arange(rows))
    rank = np.arange(len(row)) - first[row]
    kept = rank < KEPT
    found = Likeliest(np.zeros((rows, KEPT), np.uint16), np.zeros((rows, KEPT), np.float16))
    found.ids[row[kept], rank[kept]] = following[kept]
    found.probabilities[row[kept], rank[kept]] = probability[kept]
    return found


def text_rows_of(shards: ShardsFacts, context: int) -> int:
    """How many rows of the training stream are text alone: exercises are its last documents."""
    return (shards.train_tokens - shards.exercise_tokens) // context


def teaching(
    sample: Callable[[], Ids],
    vocab_size: int,
    steps: int,
    counts: CountsConfig,
    text_rows: int | None = None,
) -> Teaching | None:
    """What gives the rows of `steps` steps their shares; None where the settings ask for none.

    text_rows: so many first rows are text, and the others are not taught; None: all are.
    """
    return Teaching(sample, vocab_size, steps, counts, text_rows) if counts.teacher else None


class Teaching:
    """Gives the rows of a step the shares that its number asks for (`stream_loader`'s `teach`).

    Tokens are counted at the first step that needs them, so a resumed run that is past them counts
    nothing. Skill exercises are not taught: what two digits before usually had behind them says
    nothing about a sum, and such targets keep a model from learning it.
    """

    def __init__(
        self,
        sample: Callable[[], Ids],
        vocab_size: int,
        steps: int,
        counts: CountsConfig,
        text_rows: int | None = None,
    ) -> None:
        self.sample, self.vocab_size, self.steps, self.counts = sample, vocab_size, steps, counts
        self.text_rows = text_rows
        self._teacher: CountTeacher | None = None

    def __call__(self, step: int, rows_B: Integers, batch: Batch) -> Batch:
        share = teacher_share(step, self.steps, self.counts)
        if not share:
            self._teacher = None  # its memory is not needed any more
            return batch
        ids_BTK, probabilities_BTK = self.count().targets(batch.ids_BT.numpy())
        probabilities_BTK *= share
        if self.text_rows is not None:
            probabilities_BTK[rows_B >= self.text_rows] = 0
        shares = Shares(torch.from_numpy(ids_BTK), torch.from_numpy(probabilities_BTK))
        return replace(batch, shares=shares)

    def count(self) -> CountTeacher:
        """The teacher, made now if it is not there yet."""
        if self._teacher is None:
            self._teacher = CountTeacher(self.sample(), self.vocab_size)
        return self._teacher
