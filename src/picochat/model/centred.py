"""Centred weights: every write to the residual stream has mean zero over the width.

Then RMSNorm and LayerNorm are the same function, since LayerNorm without bias is RMSNorm of
`x - mean(x)` (compare arXiv 2305.14858). Two groups of weights are projected. If the embedding and
the two matrices that write to the stream have mean zero over the width, so has the stream wherever
a norm reads it. If the rows of each query and key head sum to zero, so do the vectors that QK-norm
reads. Stock classes that have this block with LayerNorm then load the same weights
(docs/decisions/0011). The projection is the last act of every optimizer step, on the float32
masters; the forward pass does not change. It costs one direction of the width, and one a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from picochat.model.gpt import GPT

CENTRE_TOLERANCE = 1e-6
"""Largest |mean| that still counts as centred; one step without projection gives about 1e-4."""


@dataclass(frozen=True)
class Projected:
    """One projected weight.

    `head_width`: rows are taken a head at a time; None: all together. `dimension`: of `view()`,
    the one over which the mean is zero.
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
    # A row of the embedding is added to the stream: its mean is over the width, dimension 1. The
    # output matrices map inputs (columns) to the width (rows): their means are over dimension 0.
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
    """Project these weights in place. A second time changes nothing beyond rounding."""
    for projected in weights:
        view = projected.view()
        view.sub_(view.mean(dim=projected.dimension, keepdim=True))


def centre_(model: GPT) -> None:
    """Project all weights in place."""
    project_(projected_weights(model))


@torch.no_grad()
def largest_centre_error(model: GPT) -> float:
    """Largest |mean| over all projected groups, computed in float64."""
    return max(
        float(p.view().double().mean(dim=p.dimension).abs().max()) for p in projected_weights(model)
    )
