"""A decoder with a switch for each difference between picochat's block and nanochat's, and for each
part of picochat's start from counts of the text.

With the defaults it is picochat's block: parallel residual, SwiGLU, tied embedding, QK norm with
gains, mean-centred. It is written for readability at small shapes and not for speed.
bench/ablations.py trains it.

Shape suffixes: B rows, T positions, C width, H heads, D head width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picochat.config import ModelConfig
from picochat.model.centred import Projected, project_
from picochat.model.counted_start import (
    EMBEDDING_LENGTH,
    embedding_of,
    look_at_previous_,
    look_for_repeats_,
    share_direction_,
)
from picochat.model.gpt import Positions, attend, rope_tables, rotate
from picochat.tokens.token_counts import pair_counts

NORM_EPS = 1e-5
GATE_CHANNELS = 12  # of nanochat's value embeddings
SMEAR_CHANNELS = 24  # of its smear


@dataclass(frozen=True)
class Block:
    """The switches of the model. What only nanochat has is off."""

    layers: int = 4
    width: int = 192
    heads: int = 3
    kv_heads: int = 3
    head_width: int = 64
    mlp_width: int = 512
    context: int = 256
    rope_theta: float = 10_000.0
    parallel: bool = True
    swiglu: bool = True  # else ReLU squared, without a gate
    tied: bool = True
    centred: bool = True
    gains: bool = True  # of all norms
    qk_scale: float = 1.0  # the start of the gains of queries and keys, or a constant without gains
    embedding_norm: bool = False
    soft_cap: float = 0.0
    # What no stock class of other libraries loads:
    smear: bool = False
    value_embeddings: bool = False
    residual_scalars: bool = False
    backout: bool = False
    # How weights start:
    init_std: float = 0.02
    embedding_std: float = 0.02
    zero_outputs: bool = False
    # From counts of the text, as in picochat/model/counted_start.py:
    counted: bool = False  # the embedding, from neighbours
    shared: bool = False  # a direction that all tokens share
    previous: bool = False  # heads of the first layer; needs `shared`
    repeats: bool = False  # a key head of the second layer; needs `previous`


def rms_norm(x: Tensor, gain: Tensor | None = None) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), gain, NORM_EPS)


class Layer(nn.Module):
    def __init__(self, block: Block, number: int, vocab_size: int) -> None:
        super().__init__()
        self.block = block

        def linear(inputs: int, outputs: int) -> nn.Linear:
            return nn.Linear(inputs, outputs, bias=False)

        def gain(width: int, start: float = 1.0) -> nn.Parameter | None:
            return nn.Parameter(torch.full((width,), start)) if block.gains else None

        kv_width = block.kv_heads * block.head_width
        self.query = linear(block.width, block.heads * block.head_width)
        self.key, self.value = linear(block.width, kv_width), linear(block.width, kv_width)
        self.out = linear(block.heads * block.head_width, block.width)
        self.gate = linear(block.width, block.mlp_width) if block.swiglu else None
        self.up, self.down = (
            linear(block.width, block.mlp_width),
            linear(block.mlp_width, block.width),
        )
        self.norm = gain(block.width)
        self.mlp_norm = None if block.parallel else gain(block.width)
        self.query_norm = gain(block.head_width, block.qk_scale)
        self.key_norm = gain(block.head_width, block.qk_scale)
        # nanochat has value embeddings in every second layer, the last one included.
        has_values = block.value_embeddings and number % 2 == (block.layers - 1) % 2
        self.value_embedding = nn.Embedding(vocab_size, kv_width) if has_values else None
        self.value_gate = (
            nn.Parameter(torch.zeros(block.kv_heads, GATE_CHANNELS)) if has_values else None
        )

    def forward(self, x_BTC: Tensor, ids_BT: Tensor, at: Positions) -> Tensor:
        n_BTC = rms_norm(x_BTC, self.norm)
        if self.block.parallel:
            return x_BTC + self.attended(n_BTC, ids_BT, at) + self.mlp(n_BTC)
        x_BTC = x_BTC + self.attended(n_BTC, ids_BT, at)
        return x_BTC + self.mlp(rms_norm(x_BTC, self.mlp_norm))

    def attended(self, n_BTC: Tensor, ids_BT: Tensor, at: Positions) -> Tensor:
        block = self.block

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (-1, block.head_width))

        query, key, value = (
            heads(self.query(n_BTC)),
            heads(self.key(n_BTC)),
            heads(self.value(n_BTC)),
        )
        if self.value_embedding is not None and self.value_gate is not None:
            gate = 3 * torch.sigmoid(n_BTC[..., :GATE_CHANNELS] @ self.value_gate.T)
            value = value + gate[..., None] * heads(self.value_embedding(ids_BT))
        query, key = rms_norm(query, self.query_norm), rms_norm(key, self.key_norm)
        if not block.gains:
            query, key = query * block.qk_scale, key * block.qk_scale
        y_BHTD = attend(
            rotate(query.transpose(1, 2), at),
            rotate(key.transpose(1, 2), at),
            value.transpose(1, 2),
            None,
            repeat_heads=False,
        )
        return self.out(y_BHTD.transpose(1, 2).flatten(2))

    def mlp(self, n_BTC: Tensor) -> Tensor:
        up = self.up(n_BTC)
        return self.down(F.silu(self.gate(n_BTC)) * up if self.gate else F.relu(up).square())


class Decoder(nn.Module):
    """`model(ids_BT)` gives logits (B, T, V)."""

    def __init__(self, block: Block, vocab_size: int) -> None:
        super().__init__()
        self.block = block
        count = block.layers
        self.embedding = nn.Embedding(vocab_size, block.width)
        self.layers = nn.ModuleList(Layer(block, n, vocab_size) for n in range(count))
        self.norm = nn.Parameter(torch.ones(block.width)) if block.gains else None
        self.head = None if block.tied else nn.Linear(block.width, vocab_size, bias=False)
        # Starts as in nanochat: more of the stream and of the embedding in the first layers.
        steps = torch.arange(count) / max(count - 1, 1)
        self.stream_scale = nn.Parameter(1.15 - 0.10 * steps) if block.residual_scalars else None
        self.embedding_scale = nn.Parameter(0.20 - 0.15 * steps) if block.residual_scalars else None
        self.backout = nn.Parameter(torch.full((1,), 0.2)) if block.backout else None
        self.smear_gate = nn.Parameter(0.02 * torch.rand(SMEAR_CHANNELS)) if block.smear else None
        self.smear_scale = nn.Parameter(torch.zeros(1)) if block.smear else None
        shape = ModelConfig(
            context=block.context, head_width=block.head_width, rope_theta=block.rope_theta
        )
        self.tables = rope_tables(shape)

    def forward(self, ids_BT: Tensor) -> Tensor:
        x_BTC = self.embedding(ids_BT)
        if self.block.embedding_norm:
            x_BTC = rms_norm(x_BTC)
        if self.smear_gate is not None and self.smear_scale is not None:
            opened = torch.sigmoid(x_BTC[:, 1:, :SMEAR_CHANNELS] @ self.smear_gate)[..., None]
            x_BTC = torch.cat(
                (x_BTC[:, :1], x_BTC[:, 1:] + self.smear_scale * opened * x_BTC[:, :-1]), dim=1
            )
        embedded_BTC, middle_BTC = x_BTC, x_BTC
        cos, sin = (table[: ids_BT.shape[1]] for table in self.tables)
        at = Positions(cos, sin, None, None, repeat_heads=False)
        for number, layer in enumerate(self.layers):
            if self.stream_scale is not None and self.embedding_scale is not None:
                x_BTC = self.stream_scale[number] * x_BTC
                x_BTC = x_BTC + self.embedding_scale[number] * embedded_BTC
            x_BTC = layer(x_BTC, ids_BT, at)
            if number == self.block.layers // 2:
                middle_BTC = x_BTC
        if self.backout is not None:
            x_BTC = x_BTC - self.backout * middle_BTC
        matrix = self.embedding.weight if self.head is None else self.head.weight
        logits = F.linear(rms_norm(x_BTC, self.norm), matrix)
        cap = self.block.soft_cap
        return cap * torch.tanh(logits / cap) if cap else logits

    def each_layer(self) -> Iterator[Layer]:
        for layer in self.layers:
            assert isinstance(layer, Layer)
            yield layer


# ---- how weights start ---------------------------------------------------------------------------


@torch.no_grad()
def start(model: Decoder, stream: np.ndarray, seed: int) -> None:
    """Fill the weights. `stream`: token ids of the training text, for the counts."""
    block = model.block
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or name.endswith("value_gate"):
            continue
        std = block.init_std
        if name == "embedding.weight":
            std = block.embedding_std
        elif name == "head.weight":
            std = 0.001
        elif name.endswith(("out.weight", "down.weight")):
            std = 0.0 if block.zero_outputs else block.init_std / math.sqrt(2 * block.layers)
        parameter.normal_(0.0, std)
    embedding = model.embedding.weight
    generator = torch.Generator().manual_seed(seed + 1)
    if block.counted:
        pairs = pair_counts(stream.astype(np.uint16), len(embedding))
        std = EMBEDDING_LENGTH / math.sqrt(block.width)
        embedding.copy_(embedding_of(pairs, block.width, generator) * std)
    if block.shared:
        shared = share_direction_(embedding, float(embedding.std()), generator)
        first, second = list(model.each_layer())[:2]
        if block.previous:
            look_at_previous_(first, block, shared)
        if block.repeats:
            length = float(embedding.norm(dim=1).median())
            look_for_repeats_(first, second, block, shared, length, generator)
    centre(model)


def centre(model: Decoder) -> None:
    """Project the weights that picochat/model/centred.py projects, after every step."""
    if not model.block.centred:
        return
    found = [Projected("embedding", model.embedding.weight, None, 1)]
    for layer in model.each_layer():
        for matrix in (layer.out, layer.down):
            found.append(Projected("write", matrix.weight, None, 0))
        for matrix in (layer.query, layer.key):
            found.append(Projected("read", matrix.weight, model.block.head_width, 1))
    project_(found)
