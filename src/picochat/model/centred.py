"""Centred weights: every write to the residual stream has mean zero, so RMSNorm and LayerNorm are
one function.

LayerNorm without bias is RMSNorm of `x - mean(x)` (compare arXiv 2305.14858). If the embedding and
the two projections that write to the stream have mean zero over the width, the stream has mean zero
wherever a norm reads it; if the rows of each query and key head sum to zero, so have the vectors
that QK-norm reads. Then stock classes that have this block with LayerNorm load the same weights.
The projection is the last act of every optimizer step, on the float32 masters. The forward pass
does not change. Cost: one direction of the width, and one of each head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from picochat.model.gpt import GPT

CENTRE_TOLERANCE = 1e-6
"""Largest |mean| over a projected group that still counts as centred; one step without the
projection gives about 1e-4.
"""


@dataclass(frozen=True)
class Projected:
    """One projected weight.

    `head_width`: its rows are taken a head at a time; `dimension`: the one whose mean is zero.
    """

    name: str
    weight: Tensor
    head_width: int | None
    dimension: int

    def view(self) -> Tensor:
        return (
            self.weight
            if self.head_width is None
            else self.weight.unflatten(0, (-1, self.head_width))
        )


def projected_weights(model: GPT) -> list[Projected]:
    """Every weight of `model` that the projection keeps centred."""
    found = [Projected("embedding.weight", model.embedding.weight, None, 1)]
    for index, block in enumerate(model.each_block()):
        prefix, attention = f"blocks.{index}", block.attention
        found.append(Projected(f"{prefix}.attention.out.weight", attention.out.weight, None, 0))
        found.append(Projected(f"{prefix}.mlp.down.weight", block.mlp.down.weight, None, 0))
        for name, linear in (("query", attention.query), ("key", attention.key)):
            found.append(
                Projected(
                    f"{prefix}.attention.{name}.weight", linear.weight, model.config.head_width, 1
                )
            )
    return found


@torch.no_grad()
def project_(weights: Sequence[Projected]) -> None:
    """Project these weights in place. Doing it twice changes nothing beyond rounding."""
    for projected in weights:
        view = projected.view()
        view.sub_(view.mean(dim=projected.dimension, keepdim=True))


def centre_(model: GPT) -> None:
    """Project all weights in place."""
    project_(projected_weights(model))


@torch.no_grad()
def largest_centre_error(model: GPT) -> float:
    """Largest |mean| over all projected groups, taken in float64."""
    return max(
        float(p.view().double().mean(dim=p.dimension).abs().max()) for p in projected_weights(model)
    )
