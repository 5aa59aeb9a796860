"""Weights from counts: neighbours in the embedding, heads for the previous token and repeats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from picochat.config import ModelConfig
from picochat.model.centred import CENTRE_TOLERANCE, largest_centre_error
from picochat.model.counted_start import (
    EMBEDDING_LENGTH,
    SHARED_LENGTH,
    embedding_of,
    new_model,
    singular_vectors,
)
from picochat.model.gpt import GPT, rotate
from picochat.tokens.token_counts import pair_counts

CONFIG = ModelConfig(
    context=128, layers=2, width=128, heads=4, kv_heads=2, head_width=64, mlp_width=192
)
VOCAB = 400
UNSEEN = 399


def sample(seed: int = 0) -> np.ndarray:
    """Tokens of which most are followed by one of four; never the last one of the vocabulary."""
    random = np.random.default_rng(seed)
    tokens = [0]
    for draw in random.integers(0, 4, 40_000):
        tokens.append(int(tokens[-1] * 7 + draw * 31 + 1) % UNSEEN)
    return np.array(tokens, dtype=np.uint16)


@pytest.fixture(scope="module")
def counted() -> GPT:
    return new_model(CONFIG, VOCAB, 1, sample)


def test_singular_vectors_are_those_of_an_exact_decomposition() -> None:
    random = np.random.default_rng(0)
    exact = random.normal(size=(60, 5)) @ random.normal(size=(5, 60))
    matrix = torch.from_numpy(exact).float()
    u, s, v = singular_vectors(matrix.to_sparse_coo(), 5, torch.Generator().manual_seed(0))
    assert torch.allclose((u * s) @ v.mT, matrix, atol=1e-3)
    assert np.allclose(s, np.linalg.svd(exact, compute_uv=False)[:5], rtol=1e-3)


def test_tokens_with_the_same_neighbours_start_alike() -> None:
    """Tokens 10 and 11 stand in each other's place; token 12 has neighbours of its own."""
    random = np.random.default_rng(0)
    tokens = [
        token
        for draw in random.integers(0, 3, 3_000)
        for token in ((20 + draw, random.choice([10, 11]), 30 + draw) if draw else (40, 12, 50))
    ]
    embedding = embedding_of(
        pair_counts(np.array(tokens, dtype=np.uint16), 64), 16, torch.Generator().manual_seed(0)
    )
    alike, other = (
        torch.cosine_similarity(embedding[10], embedding[token], dim=0) for token in (11, 12)
    )
    assert alike > 0.95 and abs(other) < 0.3
    assert embedding.std().item() == pytest.approx(1, abs=0.01)
    assert embedding.mean(dim=1).abs().max() < 1e-5


def test_pairs_that_say_nothing_give_an_embedding_of_zeros() -> None:
    every_pair_once = np.array([0, 0, 1, 1, 0], dtype=np.uint16)
    embedding = embedding_of(pair_counts(every_pair_once, 2), 4, torch.Generator().manual_seed(0))
    assert embedding.shape == (2, 4) and not embedding.any()


def attention_of_first_block(model: GPT, ids_BT: Tensor) -> Tensor:
    """(B, H, T, T) of every query head."""
    attention, length = next(model.each_block()).attention, ids_BT.shape[1]
    at = model._positions(length, None)
    n_BTC = next(model.each_block()).norm(model.embedding(ids_BT))
    query, key = (
        rotate(
            norm((n_BTC @ matrix.weight.T).unflatten(-1, (-1, CONFIG.head_width))).transpose(1, 2),
            at,
        )
        for matrix, norm in (
            (attention.query, attention.query_norm),
            (attention.key, attention.key_norm),
        )
    )
    key = key.repeat_interleave(CONFIG.heads // CONFIG.kv_heads, dim=1)
    scores = query @ key.mT / CONFIG.head_width**0.5
    hidden = torch.ones(length, length).triu(1).bool()
    return scores.masked_fill(hidden, -torch.inf).softmax(-1)


@torch.no_grad()
def test_each_key_head_of_the_first_block_looks_one_token_further_back(counted: GPT) -> None:
    ids_BT = torch.from_numpy(sample(1)[: 4 * 128].astype(np.int64)).view(4, 128)
    weights = attention_of_first_block(counted, ids_BT)
    random = attention_of_first_block(new_model(CONFIG, VOCAB, 1, None), ids_BT)
    group = CONFIG.heads // CONFIG.kv_heads
    for head in range(CONFIG.heads):
        back = head // group + 1
        found = weights[:, head]
        assert found.diagonal(offset=-back, dim1=-2, dim2=-1)[..., 3:].mean() > 0.4
        assert (found[:, 4:].argmax(-1) == torch.arange(4 - back, 128 - back)).float().mean() > 0.9
        assert random[:, head].diagonal(offset=-back, dim1=-2, dim2=-1)[..., 3:].mean() < 0.1


@torch.no_grad()
def test_a_text_that_repeats_itself_is_predicted_better_the_second_time(counted: GPT) -> None:
    generator = torch.Generator().manual_seed(0)
    once = torch.randint(0, UNSEEN, (64, 60), generator=generator)
    ids = torch.cat([once, once], dim=1)

    def gain(model: GPT) -> float:
        nats = model.token_losses(ids[:, :-1], ids[:, 1:])
        return float(nats[:, 10:59].mean() - nats[:, 70:].mean())

    assert gain(counted) > 0.02
    assert abs(gain(new_model(CONFIG, VOCAB, 1, None))) < 0.01


@torch.no_grad()
def test_unseen_tokens_keep_their_random_numbers_but_for_what_all_share(counted: GPT) -> None:
    random = new_model(CONFIG, VOCAB, 1, None).embedding.weight
    moved = counted.embedding.weight - random
    length = float(moved[UNSEEN].norm())
    assert length == pytest.approx(SHARED_LENGTH * EMBEDDING_LENGTH, rel=1e-3)
    # The rest of it is counted: its part along the shared direction is the same for all tokens.
    along = counted.embedding.weight @ (moved[UNSEEN] / length)
    assert along.std() < 0.3 * along.mean()
    assert not torch.allclose(counted.embedding.weight[5], random[5], atol=1e-3)


def test_weights_are_centred_and_the_same_for_the_same_seed(counted: GPT) -> None:
    assert largest_centre_error(counted) < CENTRE_TOLERANCE
    again, other = new_model(CONFIG, VOCAB, 1, sample), new_model(CONFIG, VOCAB, 2, sample)
    for (name, weight), same, different in zip(
        counted.named_parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(weight, same), name
        assert weight.dim() < 2 or not torch.equal(weight, different), name


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": 1},
        {"head_width": 2},
        {"width": 6, "head_width": 16},
        {"context": 4096},
        {"width": 900},
    ],
)
@torch.no_grad()
def test_every_shape_gets_weights_that_are_finite(changes: dict[str, int]) -> None:
    model = new_model(CONFIG.model_copy(update=changes), VOCAB, 1, sample)
    assert all(weight.isfinite().all() for weight in model.parameters())
    ids = torch.arange(8)[None]
    assert float(model.loss_sum(ids[:, :-1], ids[:, 1:])) / 7 < 20, "ln 400 is 6"
