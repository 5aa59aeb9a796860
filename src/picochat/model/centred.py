"""Mean-centred weights: every vector that a norm reads has mean zero.

RMSNorm then equals LayerNorm without bias, which is RMSNorm of `x - mean(x)` (compare arXiv
2305.14858), and stock classes that have this block with LayerNorm load the same weights
(docs/decisions/0011). Two groups of weights are projected:

- the embedding and the two matrices that write to the residual stream, over the width;
- the query and key matrices, over the rows of each head, because QK-norm reads single heads.

The projection runs at the end of every optimizer step, on the float32 masters. The forward pass
does not change. The model loses one dimension of its width, and one of each query and key head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from picochat.model.gpt import GPT

CENTRE_TOLERANCE = 1e-6
"""Largest |mean| that counts as centred. One step without projection gives about 1e-4."""


@dataclass(frozen=True)
class Projected:
    """One projected weight.

    `head_width`: rows of a head, where each head is centred by itself; None for the whole matrix.
    `dimension`: the dimension of `view()` over which the mean is zero.
    """

    name: str
    weight: Tensor
    head_width: int | None
    dimension: int

    def view(self) -> Tensor:
        """The weight, with rows split into (heads, head width) where `head_width` is set."""
        if self.head_width is None:
            return self.weight
        return self.weight.unflatten(0, (-1, self.head_width))


def projected_weights(model: GPT) -> list[Projected]:
    """Every weight of `model` that the projection keeps centred."""
    # The width is dimension 1 of the embedding, and dimension 0 (the outputs) of the matrices that
    # write to the stream.
    found = [Projected("embedding.weight", model.embedding.weight, None, 1)]
    head_width = model.config.head_width
    for index, block in enumerate(model.each_block()):
        prefix, attention = f"blocks.{index}", block.attention
        found += [
            Projected(f"{prefix}.attention.out.weight", attention.out.weight, None, 0),
            Projected(f"{prefix}.mlp.down.weight", block.mlp.down.weight, None, 0),
            Projected(f"{prefix}.attention.query.weight", attention.query.weight, head_width, 1),
            Projected(f"{prefix}.attention.key.weight", attention.key.weight, head_width, 1),
        ]
    return found


@torch.no_grad()
def project_(weights: Sequence[Projected]) -> None:
    """Subtract the means in place. A second call changes nothing beyond rounding."""
    for projected in weights:
        view = projected.view()
        view.sub_(view.mean(dim=projected.dimension, keepdim=True))


def centre_(model: GPT) -> None:
    """Project every weight of `model` that must be centred, in place."""
    project_(projected_weights(model))


@torch.no_grad()
def largest_centre_error(model: GPT) -> float:
    """Largest |mean| of all projected weights, computed in float64."""
    return max(
        float(p.view().double().mean(dim=p.dimension).abs().max()) for p in projected_weights(model)
    )
