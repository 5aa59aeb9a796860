"""Training steps to time side by side: picochat's own, with levers, and a plain compiled one.

A contender is built once, takes the number of a step, and leaves its loss on the device. The plain
one is what a good script would do: one product for each matrix, autocast, torch's fused AdamW, mean
cross-entropy, rows made on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picochat.config import ModelConfig, TrainConfig
from picochat.model.centred import centre_
from picochat.model.gpt import GPT, Block, Positions, initialise
from picochat.model.runtime import Runtime
from picochat.tokens.row_order import rows_of_step
from picochat.tokens.shards import TokenStream
from picochat.train.loader import DeviceLoader, HostLoader, Loader, next_token_batch, stream_loader
from picochat.train.step import Engine

LEVERS = ("joined", "loader", "compile", "heads", "autotune")
"""What can be changed alone: joined=off, loader=host or device, compile=off, heads=repeated or
native, autotune=on.
"""
PLAIN_LR = 0.002
"""For the plain step: a usual rate for all weights; picochat's are for two kinds of them."""


@dataclass(frozen=True)
class Contender:
    """`step(n)` trains on the rows of step n and gives its mean loss.

    `close` ends what runs beside it.
    """

    name: str
    step: Callable[[int], Tensor]
    close: Callable[[], None]
    micro_batch: Callable[[], int | None]


class SeparateBlock(Block):
    """The block with one product for each of its matrices."""

    def _write_to(self, x_BTC: Tensor, at: Positions) -> Tensor:
        def product(x: Tensor, matrix: nn.Linear) -> Tensor:
            return F.linear(x, matrix.weight.to(x.dtype))

        attention, mlp, n = self.attention, self.mlp, self.norm(x_BTC)
        heads = attention(
            product(n, attention.query), product(n, attention.key), product(n, attention.value), at
        )
        hidden = mlp(product(n, mlp.gate), product(n, mlp.up))
        return x_BTC + product(heads, attention.out) + product(hidden, mlp.down)


def picochat_step(
    stream: TokenStream,
    config: ModelConfig,
    vocab_size: int,
    train: TrainConfig,
    compute: Runtime,
    levers: dict[str, str],
) -> Contender:
    """picochat's engine and loader as its loop calls them, with some levers changed."""
    model = GPT(config, vocab_size)
    if levers.get("joined") == "off":
        model.blocks = nn.ModuleList(SeparateBlock(config, layer) for layer in range(config.layers))
    initialise(model, 0)
    centre_(model)
    model.to(compute.device)
    if "heads" in levers:
        compute = replace(compute, repeat_heads=levers["heads"] == "repeated")
    if levers.get("compile") == "off":
        compute = replace(compute, compiled=False)
    loader = _loader(
        stream, config.context, train.sequences_per_step, compute, levers.get("loader")
    )
    engine = Engine(model, train, compute, fixed_shape=True)
    if levers.get("autotune") == "on":
        options = {"max_autotune": True, "coordinate_descent_tuning": True}
        compiled = torch.compile(model.loss_sum, dynamic=False, fullgraph=True, options=options)
        setattr(engine.strategy, "loss_sum", compiled)  # noqa: B010
    name = " ".join(
        ["picochat", train.matrix_optimizer, *(f"{key}={value}" for key, value in levers.items())]
    )
    return Contender(
        name,
        lambda n: engine.step(loader.batch(n), 1.0)[0],
        loader.close,
        lambda: engine.micro_batch,
    )


def _loader(
    stream: TokenStream, context: int, rows: int, compute: Runtime, kind: str | None
) -> Loader:
    if kind == "host":
        return host_loader(stream, context, rows, compute.device)
    if kind == "device":
        return DeviceLoader(stream, context, rows, 0, compute.device)
    return stream_loader(stream, context, rows, 0, compute.device)


def host_loader(stream: TokenStream, context: int, rows: int, device: torch.device) -> HostLoader:
    count = stream.row_count(context)
    return HostLoader(
        lambda n: next_token_batch(stream, rows_of_step(n, rows, count, 0), context),
        device,
        fixed_shape=True,
    )


# ---- the plain step ------------------------------------------------------------------------------


class PlainBlock(nn.Module):
    """The same block as a plain script writes it: nn.Linear, torch's norms, torch's attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        inner, shared = config.heads * config.head_width, config.kv_heads * config.head_width
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.query_norm = nn.RMSNorm(config.head_width, eps=config.norm_eps)
        self.key_norm = nn.RMSNorm(config.head_width, eps=config.norm_eps)
        sizes = {
            "query": inner,
            "key": shared,
            "value": shared,
            "gate": config.mlp_width,
            "up": config.mlp_width,
        }
        self.reads = nn.ModuleDict(
            {name: nn.Linear(config.width, size, bias=False) for name, size in sizes.items()}
        )
        self.out = nn.Linear(inner, config.width, bias=False)
        self.down = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x_BTC: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        n = self.norm(x_BTC)
        q, k, v = (
            self.reads[name](n).unflatten(-1, (-1, self.config.head_width))
            for name in ("query", "key", "value")
        )
        q, k = (
            turned(norm(x).transpose(1, 2), cos, sin)
            for norm, x in ((self.query_norm, q), (self.key_norm, k))
        )
        y = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True, enable_gqa=True)
        hidden = F.silu(self.reads["gate"](n)) * self.reads["up"](n)
        return x_BTC + self.out(y.transpose(1, 2).flatten(2)) + self.down(hidden)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class PlainModel(nn.Module):
    """Mean loss of a batch. Weights begin as picochat's do, so that losses compare."""

    cos: Tensor
    sin: Tensor

    def __init__(self, start: GPT) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(
            start.embedding.weight.detach().clone(), freeze=False
        )
        self.blocks = nn.ModuleList(PlainBlock(start.config) for _ in start.each_block())
        for plain, block in zip(self.blocks, start.each_block(), strict=True):
            assert isinstance(plain, PlainBlock)
            for name, linear in plain.reads.items():
                source = getattr(
                    block.attention if name in ("query", "key", "value") else block.mlp, name
                )
                linear.weight.data.copy_(source.weight)
            plain.out.weight.data.copy_(block.attention.out.weight)
            plain.down.weight.data.copy_(block.mlp.down.weight)
        self.norm = nn.RMSNorm(start.config.width, eps=start.config.norm_eps)
        self.register_buffer("cos", start.cos_TD.clone())
        self.register_buffer("sin", start.sin_TD.clone())

    def forward(self, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        x = self.embedding(ids_BT)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = F.linear(self.norm(x), self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets_BT.flatten())


def plain_step(
    stream: TokenStream,
    config: ModelConfig,
    vocab_size: int,
    train: TrainConfig,
    compute: Runtime,
    rows: int | None,
) -> Contender:
    """A plain script's step: torch.compile with its defaults and fused AdamW.

    rows: sequences at a time; None: all.
    """
    start = GPT(config, vocab_size)
    initialise(start, 0)
    centre_(start)
    model = PlainModel(start).to(compute.device)
    forward = torch.compile(model) if compute.compiled else model
    betas = (train.adamw_beta1, train.adamw_beta2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PLAIN_LR, betas=betas, fused=True)
    loader = host_loader(stream, config.context, train.sequences_per_step, compute.device)
    lower = compute.dtype == torch.bfloat16

    def step(number: int) -> Tensor:
        batch = loader.batch(number)
        total = len(batch.ids_BT)
        parts: Sequence[slice] = [
            slice(at, at + (rows or total)) for at in range(0, total, rows or total)
        ]
        loss = torch.zeros((), device=compute.device)
        for part in parts:
            with torch.autocast(compute.device.type, torch.bfloat16, enabled=lower):
                fraction = forward(batch.ids_BT[part], batch.targets_BT[part]) / len(parts)
            fraction.backward()
            loss += fraction.detach()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return Contender("plain adamw", step, loader.close, lambda: rows)
