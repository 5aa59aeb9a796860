"""What a training stage says while it runs: the curve, the metrics, the progress line. Losses come from the device late.

Two journals: the curve holds what follows from seed and data (loss, rate, gradient norm, evaluations), the metrics what clock
and host decide (tokens/s, MFU, memory, waiting for data). A report asks for the losses since the one before in one transfer,
and reads those that were asked for earlier: the device never waits to be read. Decides nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from picochat.config import flops_per_token
from picochat.core.journal import Journal, read_journal
from picochat.core.progress import quantity
from picochat.core.records import finite_or_none
from picochat.model.compute import Compute, peak_flops
from picochat.model.gpt import GPT
from picochat.train.ranks import ALONE, Ranks


@dataclass(frozen=True)
class HeldOut:
    """The loss on a stage's whole held-out set: nats per target, and bits per byte of raw text where bytes are counted."""

    loss: float
    bits_per_byte: float | None


@dataclass(frozen=True)
class StepResult:
    """One finished step, read from the device. `step` counts from 1, `tokens` from the start; `lr_share` is of the peak rate."""

    step: int
    loss: float
    grad_norm: float
    lr_share: float
    tokens: int


@dataclass(frozen=True)
class _Asked:
    """Losses on their way to the host: `ready` is None where they are there already. One (step, lr_share, tokens) a row."""

    steps: list[tuple[int, float, int]]
    values: Tensor
    ready: torch.cuda.Event | None


class LossQueue:
    """Losses and gradient norms of finished steps, fetched without making the device wait.

    Of several processes each adds its share of a loss; what is fetched is summed over all, which therefore fetch together.
    """

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self._steps: list[tuple[int, float, int]] = []
        self._values: list[Tensor] = []
        self._asked: list[_Asked] = []

    def add(self, step: int, loss: Tensor, grad_norm: Tensor, lr_share: float, tokens: int) -> None:
        self._steps.append((step, lr_share, tokens))
        self._values.append(torch.stack((loss, grad_norm.to(loss))))

    def fetch(self, *, wait: bool) -> list[StepResult]:
        """Steps whose losses are here, in order: all where `wait` or where they are on the host, else all but the newest ask."""
        self._ask()
        late = len(self._asked) - 1 if self._asked and self._asked[-1].ready is not None and not wait else len(self._asked)
        here, self._asked = self._asked[:late], self._asked[late:]
        return [result for asked in here for result in _read(asked)]

    def clear(self) -> None:
        """Forget what was not read."""
        self._steps, self._values, self._asked = [], [], []

    def _ask(self) -> None:
        if not self._values:
            return
        values = torch.stack(self._values)
        if self._ranks.count > 1:
            values[:, 0] = self._ranks.sum_(values[:, 0].clone())
        ready: torch.cuda.Event | None = None
        if values.is_cuda:
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            host.copy_(values, non_blocking=True)
            ready = torch.cuda.Event()
            ready.record()
            values = host
        self._asked.append(_Asked(self._steps, values, ready))
        self._steps, self._values = [], []


def _read(asked: _Asked) -> list[StepResult]:
    if asked.ready is not None:
        asked.ready.synchronize()
    rows = zip(asked.steps, asked.values.tolist(), strict=True)
    return [StepResult(step, loss, norm, lr_share, tokens) for (step, lr_share, tokens), (loss, norm) in rows]


class Reports:
    """Both journals of a stage, its speed, and the note of its progress line. Speed and cost are of all devices together."""

    def __init__(self, workspace: Path, model: GPT, compute: Compute, gpu_hour_usd: float | None, devices: int = 1) -> None:
        self.curve = Journal(workspace / "curve.jsonl")
        self.metrics = Journal(workspace / "metrics.jsonl")
        self.device, self.devices = compute.device, devices
        self.hour_usd = gpu_hour_usd * devices if gpu_hour_usd is not None else None
        self.flops_per_token = flops_per_token(model.config, model.vocab_size)
        self.peak_flops = peak_flops(compute.device)
        self.held_out: HeldOut | None = None
        self.tokens_per_second = self.steps_per_second = 0.0
        self.last_loss: float | None = None
        self._since, self._waited_s, self._step, self._tokens = time.monotonic(), 0.0, 0, 0

    def cut_back(self, step: int, tokens: int) -> None:
        """Go on from `step`: drop what was written after it, and the evaluation at it, which is taken again."""
        self.curve.truncate_after(step)
        self.metrics.truncate_after(step)
        self.curve.replace([r for r in read_journal(self.curve.path) if r["loss"] is not None or r["step"] < step])
        self._since, self._waited_s, self._step, self._tokens = time.monotonic(), 0.0, step, tokens

    def waited(self, seconds: float) -> None:
        """Time in which a step waited for its rows."""
        self._waited_s += seconds

    def step(self, result: StepResult) -> None:
        self.last_loss = result.loss
        self.curve.append(
            {
                "step": result.step,
                "tokens": result.tokens,
                "loss": result.loss,
                "lr_share": result.lr_share,
                "grad_norm": finite_or_none(result.grad_norm),
                "held_out_loss": None,
                "held_out_bits_per_byte": None,
            }
        )

    def evaluation(self, step: int, tokens: int, held_out: HeldOut, seconds: float) -> None:
        """The held-out set after `step`; the time that it took is no training time."""
        self.held_out = held_out
        self._since += seconds
        self.curve.append(
            {
                "step": step,
                "tokens": tokens,
                "loss": None,
                "lr_share": None,
                "grad_norm": None,
                "held_out_loss": held_out.loss,
                "held_out_bits_per_byte": held_out.bits_per_byte,
            }
        )

    def speed(self, step: int, tokens: int) -> None:
        """One row of metrics, over the steps since the row before."""
        now = time.monotonic()
        seconds = max(now - self._since, 1e-9)
        self.tokens_per_second, self.steps_per_second = (tokens - self._tokens) / seconds, (step - self._step) / seconds
        cuda = self.device.type == "cuda"
        self.metrics.append(
            {
                "step": step,
                "tokens": tokens,
                "loss": self.last_loss,
                "tokens_per_second": self.tokens_per_second,
                "mfu": self.mfu,
                "peak_memory_bytes": torch.cuda.max_memory_allocated() if cuda else None,
                "data_wait_share": self._waited_s / seconds,
                "time": time.time(),
            }
        )
        self._since, self._waited_s, self._step, self._tokens = now, 0.0, step, tokens

    @property
    def mfu(self) -> float | None:
        """Model FLOPs over the peak of all devices, non-causal convention; None where the peak is not known."""
        if not self.peak_flops:
            return None
        return self.tokens_per_second * self.flops_per_token / (self.peak_flops * self.devices)

    def note(self, steps_left: int) -> str:
        """Loss, speed, held-out bits per byte, and what the rest will cost: for the progress line."""
        parts = [f"loss {self.last_loss:.3f}"] if self.last_loss is not None else []
        parts.append(f"{quantity(self.tokens_per_second)} tokens/s")
        if self.mfu is not None:
            parts.append(f"MFU {self.mfu:.1%}")
        if self.held_out is not None and self.held_out.bits_per_byte is not None:
            parts.append(f"held-out {self.held_out.bits_per_byte:.3f} bits/byte")
        if self.hour_usd is not None and self.steps_per_second:
            parts.append(f"${self.hour_usd * steps_left / self.steps_per_second / 3600:.2f} to go")
        return ", ".join(parts)
