from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picochat.core.errors import BadInput
from picochat.evals.ngram import PLAIN_DISCOUNTS, discounts_of, ngram_bits_per_byte, ngram_nats

BOS = 0


class DictModel:
    """The slow twin: the same formulas over tuples in dicts, one token at a time."""

    def __init__(self, documents: list[list[int]], vocab_size: int, order: int) -> None:
        self.vocab_size, self.order = vocab_size, order
        raw = [Counter[tuple[int, ...]]() for _ in range(order + 1)]
        left: list[defaultdict[tuple[int, ...], set[int]]] = [
            defaultdict(set) for _ in range(order + 1)
        ]
        for document in documents:
            for length in range(1, order + 1):
                for start in range(len(document) - length + 1):
                    gram = tuple(document[start : start + length])
                    raw[length][gram] += 1
                    if start:
                        left[length][gram].add(document[start - 1])
        self.counts: list[dict[tuple[int, ...], int]] = [{}]
        self.discounts: list[tuple[float, ...]] = [()]
        for length in range(1, order + 1):
            whole = length == order
            counts = {
                g: n if whole or g[0] == BOS else len(left[length][g])
                for g, n in raw[length].items()
                if g[-1] != BOS
            }
            self.counts.append(counts)
            self.discounts.append((0.0, *self.discounts_of(Counter(counts.values()))))

    @staticmethod
    def discounts_of(n: Counter[int]) -> tuple[float, float, float]:
        if not (n[1] and n[2] and n[3] and n[4]):
            return (0.5, 1.0, 1.5)
        y = n[1] / (n[1] + 2 * n[2])
        d = tuple(k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3))
        return (d[0], d[1], d[2]) if all(0 < d[k - 1] < k for k in (1, 2, 3)) else (0.5, 1.0, 1.5)

    def probability(self, history: list[int], token: int) -> float:
        p = 1 / (self.vocab_size - 1)
        for length in range(1, min(self.order, len(history) + 1) + 1):
            context = tuple(history[len(history) - length + 1 :])
            run_worker = {g[-1]: n for g, n in self.counts[length].items() if g[:-1] == context}
            total = sum(run_worker.values())
            if total:
                taken = {w: self.discounts[length][min(n, 3)] for w, n in run_worker.items()}
                p = (
                    run_worker.get(token, 0) - taken.get(token, 0) + sum(taken.values()) * p
                ) / total
        return p

    def nats(self, documents: list[list[int]]) -> list[float]:
        return [
            -math.log(self.probability(d[:i], d[i])) for d in documents for i in range(1, len(d))
        ]


def stream(documents: list[list[int]]) -> np.ndarray:
    return np.array([token for document in documents for token in document], dtype=np.uint16)


def make_documents(seed: int, count: int, vocab_size: int, longest: int = 30) -> list[list[int]]:
    """Documents whose tokens depend on the one before, so that n-grams repeat."""
    random = np.random.default_rng(seed)
    documents: list[list[int]] = []
    for _ in range(count):
        document = [BOS]
        for _ in range(int(random.integers(0, longest))):
            step = int(random.choice([1, 1, 1, 2, 3]))
            document.append(1 + (document[-1] * 2 + step) % (vocab_size - 1))
        documents.append(document)
    return documents


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_every_token_has_the_probability_of_the_slow_model(order: int) -> None:
    train, held_out = make_documents(1, 60, 23), make_documents(2, 20, 23)
    expected = DictModel(train, 23, order).nats(held_out)
    assert ngram_nats(stream(train), stream(held_out), 23, BOS, order) == pytest.approx(
        expected, rel=1e-12
    )


DOCUMENTS = st.lists(
    st.lists(st.integers(1, 4), max_size=8).map(lambda tokens: [BOS, *tokens]),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60)
@given(train=DOCUMENTS, held_out=DOCUMENTS)
def test_tiny_texts_have_the_probability_of_the_slow_model(
    train: list[list[int]], held_out: list[list[int]]
) -> None:
    if all(len(document) == 1 for document in train):
        return
    expected = DictModel(train, 6, 4).nats(held_out)
    assert ngram_nats(stream(train), stream(held_out), 6, BOS, 4) == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize("history", [[], [5], [5, 12], [7, 7, 7, 7, 7, 7], [3, 8, 19, 2, 6]])
def test_the_probabilities_after_any_history_sum_to_one(history: list[int]) -> None:
    train, vocab_size = make_documents(1, 60, 23), 23
    asked = [[BOS, *history, token] for token in range(1, vocab_size)]
    nats = ngram_nats(stream(train), stream(asked), vocab_size, BOS)
    last = np.cumsum([len(history) + 1] * len(asked)) - 1
    assert np.exp(-nats[last]).sum() == pytest.approx(1, abs=1e-12)


def test_bos_is_no_target_and_contexts_do_not_cross_it() -> None:
    train, first, second = make_documents(1, 60, 23), [BOS, 5, 12, 4], [BOS, 9, 9]
    alone = [ngram_nats(stream(train), stream([document]), 23, BOS) for document in (first, second)]
    watched = ngram_nats(stream(train), stream([first, second]), 23, BOS)
    assert len(watched) == 5
    assert watched.tolist() == np.concatenate(alone).tolist()


def test_the_order_of_training_documents_does_not_matter() -> None:
    train, held_out = make_documents(1, 60, 23), make_documents(2, 20, 23)
    forward, backward = (
        ngram_nats(stream(each), stream(held_out), 23, BOS) for each in (train, train[::-1])
    )
    assert forward == pytest.approx(backward, rel=1e-12)


def test_bits_per_byte_is_the_sum_of_bits_over_the_bytes_of_text() -> None:
    train, held_out = stream(make_documents(1, 60, 23)), stream(make_documents(2, 20, 23))
    bits = ngram_nats(train, held_out, 23, BOS).sum() / math.log(2)
    assert ngram_bits_per_byte(train, held_out, 23, 1_234, BOS) == pytest.approx(bits / 1_234)


def test_longer_contexts_and_more_text_help() -> None:
    train, held_out = make_documents(1, 400, 50), stream(make_documents(2, 50, 50))
    nats = [ngram_nats(stream(train), held_out, 50, BOS, order).mean() for order in (1, 2)]
    assert nats[1] < 0.5 * nats[0]
    assert nats[1] < ngram_nats(stream(train[:40]), held_out, 50, BOS, 2).mean()


def test_discounts_are_those_of_the_formula_or_plain_where_counts_are_missing() -> None:
    counts = np.repeat([1, 2, 3, 4, 9], [40, 20, 10, 6, 3])
    fraction = 40 / (40 + 2 * 20)
    assert discounts_of(counts) == pytest.approx(
        (1 - 2 * fraction * 20 / 40, 2 - 3 * fraction * 10 / 20, 3 - 4 * fraction * 6 / 10)
    )
    assert discounts_of(np.array([1, 1, 2, 3])) == PLAIN_DISCOUNTS


def test_nothing_to_count_or_to_score_is_bad_input() -> None:
    text, empty = stream([[BOS, 1, 2]]), stream([[BOS], [BOS]])
    with pytest.raises(BadInput, match="training text"):
        ngram_bits_per_byte(empty, text, 5, 10, BOS)
    with pytest.raises(BadInput, match="held-out text"):
        ngram_bits_per_byte(text, empty, 5, 10, BOS)
    with pytest.raises(BadInput, match="held-out text"):
        ngram_bits_per_byte(text, text, 5, 0, BOS)
