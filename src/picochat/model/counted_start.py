"""Weights that start from counts of the text, where random ones would have to learn them first.

- The embedding starts as what follows a token and what it follows: singular vectors of the
  pointwise mutual information of neighbours (Levy and Goldberg 2014), half of the width each.
- All tokens share one more direction of the embedding. The head adds the same number to every logit
  for it, so it costs nothing, and a query or key that reads it alone does not depend on the token.
- The heads of the first block start on the tokens before, each key head one further back: they read
  that direction, and their queries are turned back by so many positions of RoPE.
- A key head of the second block starts on the token that followed the newest one before. Such
  induction heads otherwise appear late in training (Olsson et al. 2022, arXiv 2209.11895).

These are starting values only. Training changes them, and the block is the same as with any other
start. docs/experiments.md has what each part gives.

Shape suffixes: V vocabulary, C width, D head width, N pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from picochat.config import ModelConfig
from picochat.model.centred import centre_
from picochat.model.gpt import GPT, initialise
from picochat.tokens.token_counts import FollowerCounts, Ids, pair_counts

SMOOTHING = 0.75
"""Power of the counts of the right-hand token: Levy, Goldberg and Dagan 2015, section 3.2."""
ITERATIONS = 4
OVERSAMPLED = 16
"""Iterations and further vectors of the search for singular vectors (Halko et al. 2011)."""
EMBEDDING_LENGTH = 0.55
"""Of a counted embedding, at every width, so that its values are smaller at a larger one.

Small values are soon written over, and large ones start with too sure a prediction: the logit of
the present token is this length times the root of the width. docs/experiments.md compares.
"""
SHARED_LENGTH = 0.5
"""Length of the shared direction, of that of the rest of an embedding."""
PREVIOUS_PAIRS = 4
"""The fastest pairs of RoPE. An even number, so that signs in turn add up to zero."""
PREVIOUS_SCALE = 3.0
RANDOM_PART = 0.1
"""What is kept of the random weights where a head gets others."""
MATCH_SCALE = 0.3
"""Size of what an induction head compares, beside which the random part is small."""
LARGEST_TURN = 0.6
"""Of a pair of RoPE over half of the context, in radians, for tokens to match at any distance."""
COPIED = 1.5
"""Length of what an induction head writes, of that of an embedding."""


class Matrices(Protocol):
    """The four matrices of an attention."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear


class Shape(Protocol):
    """What of `ModelConfig` is asked for here."""

    @property
    def context(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def head_width(self) -> int: ...
    @property
    def rope_theta(self) -> float: ...


def new_model(
    config: ModelConfig, vocab_size: int, seed: int, sample: Callable[[], Ids] | None
) -> GPT:
    """A model with the weights that the base stage starts from, on the CPU.

    sample: gives training tokens to count; None: all weights are random. Random weights are the
    same with and without it.
    """
    model = GPT(config, vocab_size)
    initialise(model, seed)
    if sample:
        start_from_counts_(model, pair_counts(sample(), vocab_size), seed)
    if config.centred:
        centre_(model)
    return model


@torch.no_grad()
def start_from_counts_(model: GPT, pairs: FollowerCounts, seed: int) -> None:
    """Change the random weights of `model` in place; centring comes after it.

    pairs: which token follows which. Tokens that it does not have keep their random numbers.
    """
    config, embedding_VC = model.config, model.embedding.weight
    # Other numbers than the random weights have.
    generator = torch.Generator().manual_seed(seed + 1)
    std = EMBEDDING_LENGTH / math.sqrt(config.width)
    counted_VC = embedding_of(pairs, config.width, generator) * std
    seen = torch.from_numpy(np.union1d(pairs.contexts, pairs.following))
    embedding_VC[seen] = counted_VC[seen]
    shared_C = share_direction_(embedding_VC, std, generator)
    first, *others = (block.attention for block in model.each_block())
    look_at_previous_(first, config, shared_C)
    if others:
        length = float(embedding_VC.norm(dim=1).median())
        look_for_repeats_(first, others[0], config, shared_C, length, generator)


def embedding_of(pairs: FollowerCounts, width: int, generator: torch.Generator) -> Tensor:
    """(V, C) with a mean of 0 in each row and a standard deviation of 1 over all."""
    half = width // 2
    vocab_size = pairs.vocab_size
    left, right, information = positive_information(pairs)
    matrix = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([left, right])),
        torch.from_numpy(information.astype(np.float32)),
        (vocab_size, vocab_size),
        check_invariants=True,
    )
    u_VK, s_K, v_VK = singular_vectors(matrix, half, generator)
    both_VC = torch.zeros(vocab_size, width)
    root_K = s_K.sqrt()
    both_VC[:, : len(s_K)] = u_VK * root_K
    both_VC[:, half : half + len(s_K)] = v_VK * root_K
    both_VC -= both_VC.mean(dim=1, keepdim=True)
    # All zeros where no pair is more frequent than chance.
    return both_VC / both_VC.std().clamp_min(1e-9)


def positive_information(pairs: FollowerCounts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(left tokens, right tokens, mutual information in nats) of the pairs where it is positive."""
    left, right = pairs.contexts[pairs.row_of_entry], pairs.following
    count_left = np.bincount(left, pairs.counts, pairs.vocab_size) + 1
    count_right = (np.bincount(right, pairs.counts, pairs.vocab_size) + 1) ** SMOOTHING
    expected = count_left[left] * count_right[right] / count_right.sum()
    information = np.log(pairs.counts / expected)
    positive = information > 0
    return left[positive], right[positive], information[positive]


def singular_vectors(
    matrix: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """(U, S, V) of the `count` largest singular values of a sparse (V, V) matrix, or of all.

    Subspace iteration from random vectors: Halko et al. 2011 (arXiv 0909.4061), algorithm 4.4. The
    same seed gives the same vectors.
    """
    # In coordinates: products of compressed rows need a library that not every build has.
    forward, back = matrix.coalesce(), matrix.mT.coalesce()
    size = min(count + OVERSAMPLED, len(matrix))
    basis, _ = torch.linalg.qr(forward @ torch.randn(len(matrix), size, generator=generator))
    for _ in range(ITERATIONS):
        basis, _ = torch.linalg.qr(back @ basis)
        basis, _ = torch.linalg.qr(forward @ basis)
    right, s, left = torch.linalg.svd(back @ basis, full_matrices=False)
    return (basis @ left.mT)[:, :count], s[:count], right[:, :count]


def share_direction_(embedding_VC: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Add a direction to all embeddings, and return it, of length 1. std: of the rest of them."""
    width = embedding_VC.shape[1]
    shared_C = torch.randn(width, generator=generator)
    shared_C -= shared_C.mean()  # centring would take the rest away
    shared_C /= shared_C.norm()
    embedding_VC += shared_C * (SHARED_LENGTH * std * math.sqrt(width))
    return shared_C


def look_at_previous_(attention: Matrices, shape: Shape, shared_C: Tensor) -> None:
    """Make each key head of the first block look at a token before: the first 1 back, the next 2.

    Keys and queries are constants there, which RoPE turns by their positions: both point the same
    way in its fastest pairs once the query is turned back by so many positions.
    """
    half = shape.head_width // 2
    count = min(PREVIOUS_PAIRS, half // 2 * 2)
    if not count:
        return  # a single pair cannot tell positions apart
    speeds = shape.rope_theta ** -(torch.arange(count) / half)
    # Signs in turn give a mean of 0, as centring asks for, and do not change the product.
    signs = torch.tensor([1.0, -1.0] * (count // 2))
    scale = PREVIOUS_SCALE * math.sqrt(shape.head_width / count / shape.width)
    readings: list[Tensor] = []
    for back in range(shape.kv_heads + 1):
        # 0 back: the key
        pattern_D = torch.zeros(shape.head_width)
        pattern_D[:count] = (back * speeds).cos() * signs
        pattern_D[half : half + count] = -(back * speeds).sin() * signs
        readings.append(torch.outer(pattern_D - pattern_D.mean(), shared_C) * scale)
    key, *queries = readings
    group = shape.heads // shape.kv_heads
    attention.key.weight.mul_(RANDOM_PART).add_(key.repeat(shape.kv_heads, 1))
    by_head = torch.cat([query for query in queries for _ in range(group)])
    attention.query.weight.mul_(RANDOM_PART).add_(by_head)


def look_for_repeats_(
    first: Matrices,
    second: Matrices,
    shape: Shape,
    shared_C: Tensor,
    length: float,
    generator: torch.Generator,
) -> None:
    """Make the first key head of the second block find the token after an earlier copy of this one.

    The first head of the first block, which looks one back, carries some directions of
    that token over into others. The second block's head looks for positions where these equal the
    same directions of the present token, and copies what stands there.

    length: of an embedding. A norm brings what stands in the stream to the length sqrt(width).
    """
    width, head_width, half = shape.width, shape.head_width, shape.head_width // 2
    # RoPE turns both sides of a match by their positions, so that only its slow pairs can compare.
    speeds = shape.rope_theta ** -(torch.arange(half) / half)
    slow = torch.nonzero(speeds * shape.context / 2 < LARGEST_TURN).flatten()
    compared = torch.cat([slow, slow + half])[: (width - 2) // 2]
    count = len(compared)
    # Orthonormal, and at right angles to the shared direction and to the one that centring removes.
    random = torch.randn(width, 2 * count, generator=generator)
    constant = torch.full((width, 1), width**-0.5)
    basis, _ = torch.linalg.qr(torch.cat([constant, shared_C[:, None], random], dim=1))
    read_CN, carried_CN = basis[:, 2 : 2 + count], basis[:, 2 + count :]
    first.value.weight[:head_width] *= RANDOM_PART
    first.value.weight[:count] = read_CN.T / math.sqrt(width)
    first.out.weight[:, :head_width] *= RANDOM_PART
    first.out.weight[:, :count] = carried_CN * (length * math.sqrt(width / max(count, 1)))
    group = shape.heads // shape.kv_heads
    second.key.weight[:head_width] *= RANDOM_PART
    second.key.weight[compared] += carried_CN.T * MATCH_SCALE
    second.query.weight[: group * head_width] *= RANDOM_PART
    for head in range(group):
        second.query.weight[head * head_width + compared] += read_CN.T * MATCH_SCALE
    copied = min(head_width, width)
    copied_CN, _ = torch.linalg.qr(torch.randn(width, copied, generator=generator))
    second.value.weight[:copied] = copied_CN.T / math.sqrt(width)
    written_CN = copied_CN * (COPIED * length * math.sqrt(width / copied) / group)
    for head in range(group):
        second.out.weight[:, head * head_width : head * head_width + copied] = written_CN
