"""The model: a decoder of parallel blocks that stock classes of other libraries can load.

Block: `n = RMSNorm(x)`; `y = x + Attention(n) + MLP(n)`. Attention has grouped heads, RMSNorm on
each query and key head before RoPE (half-split rotation), and no biases. The MLP is SwiGLU. The
embedding is also the output head. Weights are float32 masters; the forward pass casts each of them
to the dtype that the caller asks for. model/centred.py and docs/decisions/0011 explain why stock
classes can load it. Does not train or save.

Shape suffixes: B rows, T positions, S cached positions, C width, H query heads, K key-value heads,
D head width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from picochat.config import ModelConfig

IGNORED_TARGET = -100


def read_with(n_BTC: Tensor, matrices: Sequence[nn.Linear]) -> Sequence[Tensor]:
    """`n_BTC` times each matrix. One joined product where the weights are cast to another dtype."""
    # Casting copies the weights, so writing them side by side costs nothing, and one wide product
    # is faster than five narrow ones on a GPU. In float32 the copy would be extra work, which on a
    # CPU cost more than it saved. Gradients and Muon see separate matrices in both cases
    # (docs/decisions/0022).
    if n_BTC.dtype == matrices[0].weight.dtype:
        return [F.linear(n_BTC, matrix.weight) for matrix in matrices]
    joined = torch.cat([matrix.weight.to(n_BTC.dtype) for matrix in matrices])
    return F.linear(n_BTC, joined).split([matrix.out_features for matrix in matrices], dim=-1)


def write_with(inputs: Sequence[Tensor], matrices: Sequence[nn.Linear]) -> Tensor:
    """The sum of each input times its matrix. One joined product where the weights are cast."""
    dtype = inputs[0].dtype
    if dtype == matrices[0].weight.dtype:
        first, *others = (
            F.linear(x, matrix.weight) for x, matrix in zip(inputs, matrices, strict=True)
        )
        return sum(others, first)
    # A sum of products is one product over the inputs side by side.
    joined = torch.cat([matrix.weight.to(dtype) for matrix in matrices], dim=1)
    return F.linear(torch.cat(tuple(inputs), dim=-1), joined)


class Norm(nn.Module):
    """RMSNorm over the last dimension, with a gain."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


@dataclass
class Cache:
    """Keys and values (B, K, S, D) of each layer for the positions seen so far.

    Rows are padded on the left, so that the newest position of every row is the last one.
    `valid_BS`: false at padding. `offset_B`: padding positions at the start of each row; the token
    at cache index s has position s - offset. `room`: positions to allocate at once.
    """

    valid_BS: Tensor
    offset_B: Tensor
    room: int = 0
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def append(self, layer: int, key_BKTD: Tensor, value_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values of a layer, and return all keys and values of that layer.

        The caller must have extended `valid_BS` by the new positions.
        """
        # Buffers are larger than what they hold, because copying the whole cache for each new token
        # costs more than computing the token.
        stored = self.valid_BS.shape[1]
        for buffers, new_BKTD in ((self.keys, key_BKTD), (self.values, value_BKTD)):
            if layer == len(buffers):
                buffers.append(self._with_room(new_BKTD, None, max(stored, self.room)))
            elif buffers[layer].shape[2] < stored:
                buffers[layer] = self._with_room(new_BKTD, buffers[layer], 2 * stored)
            buffers[layer][:, :, stored - new_BKTD.shape[2] : stored] = new_BKTD
        return self.keys[layer][:, :, :stored], self.values[layer][:, :, :stored]

    def take(self, rows: Tensor) -> None:
        """Keep only these rows, in this order; a row may be taken several times."""
        self.valid_BS, self.offset_B = self.valid_BS[rows], self.offset_B[rows]
        self.keys = [key[rows] for key in self.keys]
        self.values = [value[rows] for value in self.values]

    @staticmethod
    def _with_room(like_BKTD: Tensor, old_BKSD: Tensor | None, positions: int) -> Tensor:
        rows, heads, _, width = like_BKTD.shape
        larger = like_BKTD.new_zeros(rows, heads, positions, width)
        if old_BKSD is not None:
            larger[:, :, : old_BKSD.shape[2]] = old_BKSD
        return larger


@dataclass(frozen=True)
class Shares:
    """Parts of the targets that belong to other tokens than the one that follows.

    ids_BTK: K tokens for each position. share_BTK: the part of each; a position's parts add up to 1
    at most, and are 0 where nothing is learned. What is left belongs to the token that follows.
    """

    ids_BTK: Tensor
    share_BTK: Tensor


@dataclass(frozen=True)
class Positions:
    """What attention needs besides its inputs: rotation tables, mask and cache.

    `mask_B1TS`: None for plain causal attention, which fast kernels need. `repeat_heads`: see GPT.
    """

    cos: Tensor
    sin: Tensor
    mask_B1TS: Tensor | None
    cache: Cache | None
    repeat_heads: bool


def rotate(x_BHTD: Tensor, at: Positions) -> Tensor:
    """RoPE with half-split pairs: dimension i of a head rotates with dimension i + D/2."""
    # The stock classes of the export pair dimensions this way, so the export permutes no weight.
    first, second = x_BHTD.chunk(2, dim=-1)
    cos, sin = at.cos.to(x_BHTD.dtype), at.sin.to(x_BHTD.dtype)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def unbiased(inputs: int, outputs: int) -> nn.Linear:
    """A matrix without bias. `read_with` and `write_with` use its weight; it is never called."""
    return nn.Linear(inputs, outputs, bias=False)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.head_width = config.head_width
        self.layer = layer
        self.query = unbiased(config.width, config.heads * config.head_width)
        self.key = unbiased(config.width, config.kv_heads * config.head_width)
        self.value = unbiased(config.width, config.kv_heads * config.head_width)
        self.out = unbiased(config.heads * config.head_width, config.width)
        self.query_norm = Norm(config.head_width, config.norm_eps)
        self.key_norm = Norm(config.head_width, config.norm_eps)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, at: Positions) -> Tensor:
        """Attention output (B, T, H D), before the output matrix.

        `query` is (B, T, H D); `key` and `value` are (B, T, K D).
        """
        # Rotation keeps lengths, so the norm alone could come after it. Its gain is per dimension
        # and could not: stock classes apply it before they rotate.
        q_BHTD = rotate(self.query_norm(self._split(query)).transpose(1, 2), at)
        k_BKTD = rotate(self.key_norm(self._split(key)).transpose(1, 2), at)
        v_BKTD = self._split(value).transpose(1, 2)
        if at.cache is not None:
            k_BKTD, v_BKTD = at.cache.append(self.layer, k_BKTD, v_BKTD)
        y_BHTD = attend(q_BHTD, k_BKTD, v_BKTD, at.mask_B1TS, repeat_heads=at.repeat_heads)
        return y_BHTD.transpose(1, 2).flatten(2)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_width))


def attend(
    q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, mask_B1TS: Tensor | None, *, repeat_heads: bool
) -> Tensor:
    """Attention output (B, H, T, D). A query sees the keys where the mask is true; None: causal.

    Neighbouring query heads share a key head. repeat_heads: repeat keys and values to one head for
    each query head, which changes results only by rounding; model/attention.py measures its time.
    """
    if repeat_heads:
        group = q_BHTD.shape[1] // k_BKSD.shape[1]
        k_BKSD = k_BKSD.repeat_interleave(group, dim=1)
        v_BKSD = v_BKSD.repeat_interleave(group, dim=1)
    return F.scaled_dot_product_attention(
        q_BHTD,
        k_BKSD,
        v_BKSD,
        attn_mask=mask_B1TS,
        is_causal=mask_B1TS is None,
        enable_gqa=not repeat_heads,
    )


class Mlp(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = unbiased(config.width, config.mlp_width)
        self.up = unbiased(config.width, config.mlp_width)
        self.down = unbiased(config.mlp_width, config.width)

    def forward(self, gate: Tensor, up: Tensor) -> Tensor:
        """The gated activations (B, T, mlp width), before the output matrix."""
        return F.silu(gate) * up


class Block(nn.Module):
    """One residual block. `recompute`: keep its input only, and recompute it going backward."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.recompute = False
        self.norm = Norm(config.width, config.norm_eps)
        self.attention = Attention(config, layer)
        self.mlp = Mlp(config)

    def forward(self, x_BTC: Tensor, at: Positions) -> Tensor:
        if not (self.recompute and torch.is_grad_enabled()):
            return self._compute(x_BTC, at)
        # Nothing in a block is random, so no generator state has to be saved and restored.
        y_BTC = checkpoint(self._compute, x_BTC, at, use_reentrant=False, preserve_rng_state=False)
        assert isinstance(y_BTC, Tensor)
        return y_BTC

    def _compute(self, x_BTC: Tensor, at: Positions) -> Tensor:
        # Attention and MLP read the same norm, and both add to the stream: the five matrices that
        # read can be one product, and the two that write another.
        attention, mlp = self.attention, self.mlp
        readers = (attention.query, attention.key, attention.value, mlp.gate, mlp.up)
        query, key, value, gate, up = read_with(self.norm(x_BTC), readers)
        return x_BTC + write_with(
            (attention(query, key, value, at), mlp(gate, up)), (attention.out, mlp.down)
        )


class GPT(nn.Module):
    """`model(ids_BT)` gives logits (B, T, V).

    `repeat_heads`: pass repeated key and value heads to the attention kernel (see `attend`). Set
    where that was measured to be faster; not part of the weights.
    """

    cos_TD: Tensor
    sin_TD: Tensor

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = Norm(config.width, config.norm_eps)
        self.repeat_heads = False
        cos, sin = rope_tables(config)
        self.register_buffer("cos_TD", cos, persistent=False)
        self.register_buffer("sin_TD", sin, persistent=False)

    def forward(
        self,
        ids_BT: Tensor,
        dtype: torch.dtype = torch.float32,
        cache: Cache | None = None,
        *,
        newest_only: bool = False,
    ) -> Tensor:
        """Logits (B, T, V) in `dtype`.

        With a cache, `ids_BT` are the next positions, and the caller extends `cache.valid_BS`
        first. newest_only: only logits (B, 1, V) of the last position. In a small model the head
        over a whole prompt is a quarter of the work.
        """
        at = self._positions(ids_BT.shape[1], cache)
        x_BTC = self.embedding(ids_BT).to(dtype)
        for block in self.blocks:
            x_BTC = block(x_BTC, at)
        if newest_only:
            x_BTC = x_BTC[:, -1:]
        return F.linear(self.norm(x_BTC), self.embedding.weight.to(dtype))

    def loss_sum(
        self,
        ids_BT: Tensor,
        targets_BT: Tensor,
        dtype: torch.dtype = torch.float32,
        shares: Shares | None = None,
    ) -> Tensor:
        """Summed cross-entropy in nats over the targets that are not IGNORED_TARGET.

        With `shares` the value is the same, and its gradient is that of targets of which each part
        belongs to other tokens.
        """
        # A sum, because the mean is over all targets of a step, which micro-batches and processes
        # share.
        return cross_entropy_sum(self(ids_BT, dtype), targets_BT, shares)

    def token_losses(
        self, ids_BT: Tensor, targets_BT: Tensor, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Cross-entropy (B, T) in nats of each target; 0 where it is IGNORED_TARGET."""
        logits = self(ids_BT, dtype)
        return _cross_entropy(logits, targets_BT, "none").view_as(targets_BT)

    def each_block(self) -> Iterator[Block]:
        for block in self.blocks:
            assert isinstance(block, Block)
            yield block

    def recompute_blocks(self, on: bool) -> None:
        """Set whether training keeps only the input of each block, and computes the rest again.

        This takes less memory and about a third more time. Gradients have the same bits.
        """
        for block in self.each_block():
            block.recompute = on

    def _positions(self, length: int, cache: Cache | None) -> Positions:
        if cache is None:
            return Positions(
                self.cos_TD[:length], self.sin_TD[:length], None, None, self.repeat_heads
            )
        total = cache.valid_BS.shape[1]
        index_T = torch.arange(total - length, total, device=cache.valid_BS.device)
        position_BT = (index_T[None, :] - cache.offset_B[:, None]).clamp(0, self.config.context - 1)
        index_S = torch.arange(total, device=index_T.device)
        causal_TS = index_S[None, :] <= index_T[:, None]
        # A padding position attends to itself, because a softmax over no key at all is NaN.
        itself_TS = index_S[None, :] == index_T[:, None]
        mask_BTS = (causal_TS[None] & cache.valid_BS[:, None, :]) | itself_TS[None]
        cos, sin = self.cos_TD[position_BT][:, None], self.sin_TD[position_BT][:, None]
        return Positions(cos, sin, mask_BTS[:, None], cache, self.repeat_heads)


def cross_entropy_sum(logits_BTV: Tensor, targets_BT: Tensor, shares: Shares | None) -> Tensor:
    """`GPT.loss_sum` of logits."""
    if shares is None:
        return _cross_entropy(logits_BTV, targets_BT, "sum")
    log_p = logits_BTV.float().flatten(0, 1).log_softmax(-1)
    losses = F.nll_loss(log_p, targets_BT.flatten(), ignore_index=IGNORED_TARGET, reduction="none")
    of_others = -log_p.gather(-1, shares.ids_BTK.flatten(0, 1))
    taught = (shares.share_BTK.flatten(0, 1) * (of_others - losses[:, None])).sum()
    # The curve then shows the loss that later steps and evaluations have too.
    return losses.sum() + taught - taught.detach()


def _cross_entropy(logits_BTV: Tensor, targets_BT: Tensor, reduction: str) -> Tensor:
    # In float32, because bfloat16 has too few bits to add up many terms.
    return F.cross_entropy(
        logits_BTV.float().flatten(0, 1),
        targets_BT.flatten(),
        ignore_index=IGNORED_TARGET,
        reduction=reduction,
    )


def rope_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines (context, D/2) of RoPE, Su et al. 2021 (arXiv 2104.09864)."""
    # In float64, because float32 angles near the end of a long context are too coarse.
    frequencies = config.rope_theta ** -(
        torch.arange(0, config.head_width, 2, dtype=torch.float64) / config.head_width
    )
    angles = torch.outer(torch.arange(config.context, dtype=torch.float64), frequencies)
    return angles.cos().float(), angles.sin().float()


@torch.no_grad()
def initialise(model: GPT, seed: int) -> None:
    """Fill the matrices with normal numbers from `seed`, the same on every device."""
    # Each block adds two outputs to the stream. With their matrices smaller by sqrt(2 layers), the
    # stream keeps about the size of the embedding. They are not zero: with a tied head, a stream
    # that holds the embedding alone predicts the token just read, with a loss far above ln V.
    write_std = model.config.init_std / math.sqrt(2 * model.config.layers)
    # A CPU generator, because a GPU makes other numbers from the same seed.
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            writes = name.endswith(("attention.out.weight", "mlp.down.weight"))
            std = write_std if writes else model.config.init_std
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
