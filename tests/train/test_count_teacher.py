"""A teacher of counts: its probabilities against a plain count, and what they do to a step."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from picochat.config import CountsConfig, ModelConfig
from picochat.model.gpt import GPT, IGNORED_TARGET, Shares, initialise
from picochat.train.count_teacher import (
    DISCOUNT,
    KEPT,
    LEAST_COUNT,
    CountTeacher,
    teaching,
    text_rows_of,
)
from picochat.train.loader import host_batch
from picochat.train.schedule import teacher_share
from tests.builders import make_shards_facts

VOCAB = 40
CONFIG = ModelConfig(
    context=16, layers=2, width=32, heads=2, kv_heads=1, head_width=16, mlp_width=48
)


def tokens(seed: int = 0, count: int = 3_000) -> np.ndarray:
    """Each token depends on the two before it, and some follow few others."""
    random = np.random.default_rng(seed)
    found = [1, 2]
    for draw in random.geometric(0.4, count):
        found.append(int(found[-1] * 5 + found[-2] * 3 + draw) % (VOCAB - 1))
    return np.array(found, dtype=np.uint16)


def expected(stream: list[int], before: int | None, last: int) -> dict[int, float]:
    """Every next token's probability, by absolute discounting, one context at a time."""
    unigrams = Counter(stream)
    lower = {token: count / len(stream) for token, count in unigrams.items()}
    pairs = Counter(b for a, b in pairwise(stream) if a == last)
    triples = Counter(
        c
        for a, b, c in zip(stream, stream[1:], stream[2:], strict=False)
        if (a, b) == (before, last)
    )
    for counts, least in ((pairs, 1), (triples, LEAST_COUNT)):
        total = counts.total()
        if total < least:
            continue
        freed = DISCOUNT * len(counts) / total
        lower = {
            token: max(counts[token] - DISCOUNT, 0) / total + freed * lower.get(token, 0)
            for token in unigrams
        }
    return lower


def test_probabilities_are_interpolated_trigrams() -> None:
    stream = tokens()
    ids_BT = stream[100:180].astype(np.int64).reshape(4, 20)
    ids_BTK, probabilities_BTK = CountTeacher(stream, VOCAB).targets(ids_BT)
    assert ids_BTK.shape == probabilities_BTK.shape == (4, 20, KEPT)
    for row in range(4):
        for place in range(20):
            before = int(ids_BT[row, place - 1]) if place else None
            exact = expected(stream.tolist(), before, int(ids_BT[row, place]))
            found = dict(
                zip(ids_BTK[row, place].tolist(), probabilities_BTK[row, place], strict=True)
            )
            kept = {token: p for token, p in found.items() if p}
            # Tokens that never followed are only known from unigrams, and are not listed.
            for token, probability in kept.items():
                assert probability == pytest.approx(exact[token], rel=2e-3, abs=1e-6)
            assert max(exact, key=lambda t: exact[t]) in kept
            assert sum(kept.values()) <= 1.001


def test_tokens_that_nothing_followed_teach_nothing() -> None:
    teacher = CountTeacher(tokens(), VOCAB)
    _, probabilities = teacher.targets(np.full((1, 3), VOCAB - 1))
    assert not probabilities.any()


def test_a_text_without_any_pair_twice_still_has_a_teacher() -> None:
    ids, probabilities = CountTeacher(np.arange(30, dtype=np.uint16), VOCAB).targets(
        np.array([[3, 4]])
    )
    assert ids[0, :, 0].tolist() == [4, 5] and probabilities[0, :, 0] == pytest.approx(0.275, 1e-2)


def some_shares(targets: Tensor) -> Shares:
    generator = torch.Generator().manual_seed(3)
    shape = (*targets.shape, 5)
    share = torch.rand(shape, generator=generator) / 6
    share[targets == IGNORED_TARGET] = 0
    return Shares(torch.randint(0, VOCAB, shape, generator=generator), share)


def test_shares_give_the_gradient_of_mixed_targets_and_the_loss_of_the_plain_ones() -> None:
    model = GPT(CONFIG, VOCAB)
    initialise(model, 0)
    block = torch.randint(0, VOCAB, (3, 17), generator=torch.Generator().manual_seed(1))
    ids, targets = block[:, :-1], block[:, 1:].clone()
    targets[0, 5:9] = IGNORED_TARGET
    shares = some_shares(targets)
    loss = model.loss_sum(ids, targets, shares=shares)
    assert loss.item() == pytest.approx(model.loss_sum(ids, targets).item(), rel=1e-6)
    loss.backward()
    found = [
        parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None
    ]
    model.zero_grad()
    counts = targets != IGNORED_TARGET
    wanted = torch.zeros(*targets.shape, VOCAB).scatter_add_(-1, shares.ids_BTK, shares.share_BTK)
    rest = 1 - shares.share_BTK.sum(-1, keepdim=True)
    wanted.scatter_add_(-1, targets.clamp_min(0)[..., None], rest)
    assert torch.allclose(wanted.sum(-1), torch.ones(()))
    F.cross_entropy(model(ids)[counts], wanted[counts], reduction="sum").backward()
    for gradient, parameter in zip(found, model.parameters(), strict=True):
        assert parameter.grad is not None
        assert torch.allclose(gradient, parameter.grad, atol=1e-4)


def test_the_share_falls_linearly_to_nothing() -> None:
    counts = CountsConfig(teacher=0.8, teacher_until=0.5)
    shares = [teacher_share(step, 100, counts) for step in (0, 25, 50, 99)]
    assert shares == [0.8, pytest.approx(0.4), 0, 0]


def test_rows_get_their_share_by_the_number_of_the_step() -> None:
    stream, counted = tokens(), []

    def sample() -> np.ndarray:
        counted.append(True)
        return stream

    teach = teaching(sample, VOCAB, 10, CountsConfig(teacher=1.0, teacher_until=0.5))
    assert teach is not None
    block = stream[:34].astype(np.int64).reshape(2, 17)
    batch = host_batch(block[:, :-1].copy(), block[:, 1:].copy())
    rows = np.array([7, 3])
    assert teach(5, rows, batch).shares is None and not counted, "a resumed run needs no counts"
    first, third = teach(0, rows, batch), teach(2, rows, batch)
    assert first.shares is not None and third.shares is not None and len(counted) == 1
    assert torch.allclose(first.shares.share_BTK * 0.6, third.shares.share_BTK)
    assert first.shares.share_BTK.sum(-1).max() <= 1.001
    part = first.rows(slice(1, 2))
    assert part.shares is not None and part.target_count == first.target_count
    assert torch.equal(part.shares.ids_BTK, first.shares.ids_BTK[1:2])


def test_rows_of_exercises_are_not_taught() -> None:
    stream = tokens()
    block = stream[:51].astype(np.int64).reshape(3, 17)
    batch = host_batch(block[:, :-1].copy(), block[:, 1:].copy())
    facts = make_shards_facts(train_tokens=1_000, exercise_tokens=330)
    assert text_rows_of(facts, 16) == 41  # of the row after it the last tokens are exercises
    some = teaching(lambda: stream, VOCAB, 10, CountsConfig(teacher=1.0), text_rows_of(facts, 16))
    every = teaching(lambda: stream, VOCAB, 10, CountsConfig(teacher=1.0))
    assert some and every
    rows = np.array([40, 41, 3])
    taught, whole = some(0, rows, batch).shares, every(0, rows, batch).shares
    assert taught and whole and whole.share_BTK.sum((1, 2)).min() > 0
    assert torch.equal(taught.share_BTK[[0, 2]], whole.share_BTK[[0, 2]])
    assert taught.share_BTK[1].sum() == 0


def test_no_teacher_where_none_is_asked_for() -> None:
    assert teaching(tokens, VOCAB, 10, CountsConfig(teacher=0.0)) is None
