"""What the sanity tests share: the parts under test, a small model, and how a result is stated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from picochat.config import ModelConfig, RuntimeConfig
from picochat.core.records import Record
from picochat.model.centred import centre_
from picochat.model.gpt import GPT, initialise
from picochat.model.optim import Optimizer
from picochat.model.runtime import Runtime
from picochat.scales import Scale
from picochat.tokens.row_order import Indices, rows_of_step
from picochat.tokens.shards import TokenStream
from picochat.train.loader import DeviceLoader, Loader

SMALL = ModelConfig(
    context=64, layers=2, width=128, heads=4, kv_heads=2, head_width=32, mlp_width=256
)
VOCAB = 512
ROWS = 8
"""Of every compiled step of the small model: one shape is compiled once."""


class SanityResult(Record):
    """One row: what was measured, the bound it had to meet, and how many seconds it took."""

    name: str
    status: Literal["pass", "fail", "skipped"]
    measured: float | None
    bound: str
    message: str
    seconds: float = 0.0


def small_model(seed: int) -> GPT:
    """The small model, as a run begins: seeded, centred, on the CPU."""
    model = GPT(SMALL, VOCAB)
    initialise(model, seed)
    centre_(model)
    return model


@dataclass(frozen=True)
class Parts:
    """The parts of the package that the tests run. A wrong one in its place must fail its test."""

    model: Callable[[int], GPT] = small_model
    optimizer: Callable[..., Optimizer] = Optimizer
    rows_of_step: Callable[..., Indices] = rows_of_step
    device_feed: Callable[..., Loader] = DeviceLoader


@dataclass(frozen=True)
class Context:
    """What the tests run on.

    scale: whose real shape is measured, where one was asked for. gpu_hour_usd: for its forecast.
    """

    compute: Runtime
    runtime: RuntimeConfig
    include_compile: bool
    scale: Scale | None
    capacity_sequences: int | None
    min_free_fraction: float
    gpu_hour_usd: float | None = None
    parts: Parts = field(default=Parts())

    @property
    def shape(self) -> ModelConfig:
        """The model at whose shapes attention is judged."""
        return self.scale.config.model if self.scale else SMALL

    def small_model(self, seed: int) -> GPT:
        return self.parts.model(seed).to(self.compute.device)


def random_rows(rows: int, seed: int) -> torch.Tensor:
    """(rows, context + 1) random ids of the small model's vocabulary."""
    return torch.randint(
        0, VOCAB, (rows, SMALL.context + 1), generator=torch.Generator().manual_seed(seed)
    )


def random_stream(tokens: int, vocab_size: int) -> TokenStream:
    """Random tokens of which few are frequent, as in text, in memory."""
    ids = np.random.default_rng(0).zipf(1.3, tokens) % vocab_size
    return TokenStream(parts=(ids.astype(np.uint16),), bounds=(0, tokens), text_bytes=0)


def largest(errors: Iterable[torch.Tensor]) -> float:
    """The largest of these scalars; NaN where one of them is, which the built-in `max` may lose."""
    return float(torch.stack([error.float() for error in errors]).max())


def at_most(name: str, measured: float, bound: float, message: str) -> SanityResult:
    """Pass where `measured` is a number at most `bound`: NaN fails."""
    status: Literal["pass", "fail"] = "pass" if measured <= bound else "fail"
    finite = measured if math.isfinite(measured) else None
    return SanityResult(
        name=name, status=status, measured=finite, bound=f"<= {bound:g}", message=message
    )


def skipped(name: str, reason: str) -> SanityResult:
    """The result of a test that cannot run here."""
    return SanityResult(name=name, status="skipped", measured=None, bound="", message=reason)
