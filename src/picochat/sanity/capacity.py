"""What this device gives a scale: real optimizer steps at its shapes, timed. The basis of forecast
and memory check.

The steps are those of training (train/step.py): rows from the loader, forward, backward, optimizer,
centring, and a smaller micro-batch where the whole step does not fit. The first ones, which compile
and allocate, are not timed. On a GPU the device keeps the time and nobody waits for it between
steps; on a CPU a time budget bounds their number. Also timed, once: the forward pass of an
evaluation, and the copy of the training state for which a step waits. Says nothing about preparing
data.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from picochat.config import ModelConfig, TrainConfig, flops_per_token
from picochat.core.errors import HostProblem
from picochat.model.centred import centre_
from picochat.model.gpt import GPT, initialise
from picochat.model.runtime import Runtime, peak_flops
from picochat.scales import ASSUMED_CPU_FLOPS
from picochat.train.held_out import rows_per_forward, summed_loss
from picochat.train.loader import Batch, Loader
from picochat.train.step import Engine

WARM_UP_STEPS = {"cuda": 3, "cpu": 1}
CPU_BUDGET_S = 4.0
"""For the timed steps of a CPU, and for one of them: a step of a GPU's scale can take minutes
there.
"""
TIMED_FORWARDS = 3
MEASURED_LR_SHARE = 0.1


@dataclass(frozen=True)
class Capacity:
    """`tokens_per_second`: of the median step, with those that one step in ten is slower and faster
    than; None where no step fits.

    `sequences`: of a measured step; `micro_batch`: of its forward-backward passes. `compile_s`:
    what the first step took longer.
    """

    sequences: int
    micro_batch: int | None = None
    tokens_per_second: float | None = None
    tokens_per_second_low: float | None = None
    tokens_per_second_high: float | None = None
    mfu: float | None = None
    peak_memory_bytes: int | None = None
    free_memory_share: float | None = None
    compile_s: float = 0.0
    forward_tokens_per_second: float | None = None
    save_s: float | None = None
    steps: int = 0
    last_loss: float | None = None


class Stopwatch:
    """Times between marks on the device's own clock; marking makes nobody wait."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._events: list[torch.cuda.Event] = []
        self._times: list[float] = []

    def mark(self) -> None:
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._events.append(event)
        else:
            self._times.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Between each mark and the next. Waits until the device has come to the last."""
        if self._cuda:
            torch.cuda.synchronize()
            return [
                a.elapsed_time(b) / 1000
                for a, b in zip(self._events, self._events[1:], strict=False)
            ]
        return [b - a for a, b in zip(self._times, self._times[1:], strict=False)]


def measured_step(
    train: TrainConfig, model: ModelConfig, vocab_size: int, device: torch.device
) -> TrainConfig:
    """The settings with as many sequences in a step as can be measured: all on a GPU, on a CPU what
    its budget holds.
    """
    if device.type == "cuda":
        return train
    rows = int(
        CPU_BUDGET_S * ASSUMED_CPU_FLOPS / (flops_per_token(model, vocab_size) * model.context)
    )
    return train.model_copy(
        update={"sequences_per_step": min(train.sequences_per_step, max(1, rows))}
    )


def measure_capacity(
    model: ModelConfig,
    vocab_size: int,
    train: TrainConfig,
    compute: Runtime,
    loader: Loader,
    steps: int,
) -> Capacity:
    """Up to `steps` timed steps of `train` on the rows of `loader`.

    Out of memory is a result, not an error.
    """
    try:
        gpt = GPT(model, vocab_size)
        initialise(gpt, seed=0)
        centre_(gpt)
        gpt.to(compute.device)
        return _measure(
            gpt, Engine(gpt, train, compute, fixed_shape=loader.fixed_shape), train, loader, steps
        )
    except (torch.OutOfMemoryError, HostProblem):
        torch.cuda.empty_cache()
        return Capacity(train.sequences_per_step, free_memory_share=0.0)


def _measure(gpt: GPT, engine: Engine, train: TrainConfig, loader: Loader, steps: int) -> Capacity:
    device, context = engine.runtime.device, gpt.config.context
    cuda = device.type == "cuda"
    first_s = _first_step_s(engine, loader)
    if cuda:
        # What compiling and a micro-batch that proved too large took is no part of a step's peak.
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    number, loss = 1, torch.zeros(())
    for number in range(1, 1 + WARM_UP_STEPS[device.type]):
        engine.step(loader.batch(number), MEASURED_LR_SHARE)
    watch, started = Stopwatch(device), time.perf_counter()
    watch.mark()
    done = 0
    while done < steps and (cuda or not done or time.perf_counter() - started < CPU_BUDGET_S):
        done += 1
        loss, _ = engine.step(loader.batch(number + done), MEASURED_LR_SHARE)
        watch.mark()
    seconds = watch.seconds()
    median, slow, fast = (float(np.percentile(seconds, percent)) for percent in (50, 90, 10))
    tokens = train.sequences_per_step * context
    peak = peak_flops(device)
    return Capacity(
        sequences=train.sequences_per_step,
        micro_batch=min(engine.micro_batch or train.sequences_per_step, train.sequences_per_step),
        tokens_per_second=tokens / median,
        tokens_per_second_low=tokens / slow,
        tokens_per_second_high=tokens / fast,
        mfu=tokens / median * flops_per_token(gpt.config, gpt.vocab_size) / peak if peak else None,
        peak_memory_bytes=torch.cuda.max_memory_reserved() if cuda else None,
        free_memory_share=free_share_at_peak(device),
        compile_s=max(0.0, first_s - median),
        forward_tokens_per_second=_forward_rate(gpt, engine.runtime, loader.batch(0)),
        save_s=_copy_s({**gpt.state_dict(), **engine.optimizer.state()}),
        steps=done,
        last_loss=float(loss),
    )


def _first_step_s(engine: Engine, loader: Loader) -> float:
    watch = Stopwatch(engine.runtime.device)
    watch.mark()
    engine.step(loader.batch(0), MEASURED_LR_SHARE)
    watch.mark()
    return watch.seconds()[0]


def _forward_rate(gpt: GPT, compute: Runtime, batch: Batch) -> float:
    """Tokens a second of held-out evaluation, by the function that evaluates."""
    rows = slice(0, rows_per_forward(compute.device, gpt.config.context))
    batch = Batch(batch.ids_BT[rows].cpu(), batch.targets_BT[rows].cpu(), batch.target_count)
    summed_loss(gpt, iter([batch]), compute)
    started = time.perf_counter()
    summed_loss(gpt, iter([batch] * TIMED_FORWARDS), compute)
    return TIMED_FORWARDS * batch.ids_BT.numel() / (time.perf_counter() - started)


def _copy_s(tensors: dict[str, Tensor]) -> float:
    """Time in which a save copies these to the host, while training waits."""
    started = time.perf_counter()
    copies = [tensor.detach().to("cpu", copy=True) for tensor in tensors.values()]
    return (time.perf_counter() - started) if copies else 0.0


def free_share_at_peak(device: torch.device) -> float | None:
    """Share of memory that is left at the peak: of the card on a GPU, of the machine's available
    memory on a CPU.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return max(
            0.0, (free + torch.cuda.memory_reserved() - torch.cuda.max_memory_reserved()) / total
        )
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    lines = dict(line.split(":", 1) for line in text.splitlines())
    return int(lines["MemAvailable"].split()[0]) / int(lines["MemTotal"].split()[0])
