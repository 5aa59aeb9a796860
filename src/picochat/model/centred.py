"""Centred weights: every write to the residual stream has mean zero, so RMSNorm and LayerNorm are one function.

LayerNorm without bias is RMSNorm of `x - mean(x)` (compare arXiv 2305.14858). If the embedding and the two projections
that write to the stream have mean zero over the width, the stream has mean zero wherever a norm reads it; if the rows of
each query and key head sum to zero, so have the vectors that QK-norm reads. Then stock classes that have this block with
LayerNorm load the same weights. The projection is the last act of every optimizer step, on the float32 masters. The
forward pass does not change. Cost: one direction of the width, and one of each head.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from picochat.model.gpt import GPT

CENTRE_TOLERANCE = 1e-6
"""Largest |mean| over a projected group that still counts as centred; one step without the projection gives about 1e-4."""


def centred_views(model: GPT) -> Iterator[tuple[str, Tensor, int]]:
    """(name, view of the weight, dimension whose mean is zero) for each projected weight."""
    yield "embedding.weight", model.embedding.weight.data, 1
    for index, block in enumerate(model.each_block()):
        prefix = f"blocks.{index}"
        yield f"{prefix}.attention.out.weight", block.attention.out.weight.data, 0
        yield f"{prefix}.mlp.down.weight", block.mlp.down.weight.data, 0
        for name, linear in (("query", block.attention.query), ("key", block.attention.key)):
            heads = linear.weight.data.unflatten(0, (-1, model.config.head_width))
            yield f"{prefix}.attention.{name}.weight", heads, 1


@torch.no_grad()
def centre_(model: GPT) -> None:
    """Project all weights in place. Doing it twice changes nothing beyond rounding."""
    for _, view, dimension in centred_views(model):
        view.sub_(view.mean(dim=dimension, keepdim=True))


@torch.no_grad()
def largest_centre_error(model: GPT) -> float:
    """Largest |mean| over all projected groups, taken in float64."""
    return max(float(view.double().mean(dim=dimension).abs().max()) for _, view, dimension in centred_views(model))
