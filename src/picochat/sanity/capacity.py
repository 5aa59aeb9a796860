"""What this device gives a scale: real optimizer steps at its shapes, timed. The basis of forecast and memory check.

A step is the whole of it: batch, forward, backward, optimizer, centring. The first steps, which compile and allocate, are
not timed. On a GPU the timing has one synchronisation at its end; on a CPU the number of steps is bounded by a time budget.
Says nothing about evaluation, checkpoints or data preparation: the forecast adds those.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from picochat.config import ModelConfig, TrainConfig, flops_per_token
from picochat.model.compute import Compute, peak_flops
from picochat.model.gpt import GPT, initialise
from picochat.model.optim import Optimizer

WARM_UP_STEPS = 3
CPU_BUDGET_S = 4.0
CPU_SEQUENCES = 8
"""On a CPU one step of a GPU's scale can take minutes: fewer sequences measure the same rate."""


@dataclass(frozen=True)
class Capacity:
    """`tokens_per_second` is None where the step did not fit. `sequences` is what was really run in one micro-batch."""

    tokens_per_second: float | None
    mfu: float | None
    peak_memory_bytes: int | None
    free_memory_share: float | None
    compile_s: float
    steps: int
    sequences: int
    last_loss: float | None


def measure_capacity(
    model: ModelConfig, vocab_size: int, train: TrainConfig, compute: Compute, tokens: np.ndarray, steps: int
) -> Capacity:
    """Run `steps` timed steps (fewer on a slow CPU) on rows cut from `tokens`. Out of memory is a result, not an error."""
    sequences = train.micro_batch or train.sequences_per_step
    if compute.device.type == "cpu":
        sequences = min(sequences, CPU_SEQUENCES)
    try:
        return _measure(model, vocab_size, train, compute, tokens, steps, sequences)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return Capacity(None, None, None, 0.0, 0.0, 0, sequences, None)


def _measure(
    model: ModelConfig, vocab_size: int, train: TrainConfig, compute: Compute, tokens: np.ndarray, steps: int, sequences: int
) -> Capacity:
    gpt = GPT(model, vocab_size)
    initialise(gpt, seed=0)
    gpt.to(compute.device)
    optimizer = Optimizer(gpt, train, compiled=compute.compiled)
    loss_sum = torch.compile(gpt.loss_sum, dynamic=False) if compute.compiled else gpt.loss_sum
    cuda = compute.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()

    def step(number: int) -> torch.Tensor:
        block = torch.from_numpy(_rows(tokens, number, sequences, model.context)).to(compute.device)
        with compute.attention():
            loss = loss_sum(block[:, :-1], block[:, 1:], compute.dtype) / (sequences * model.context)
        loss.backward()
        optimizer.step(0.1)
        return loss.detach()

    started = time.monotonic()
    loss = step(0)
    first_step_s = _synchronised(cuda) - started
    for number in range(1, WARM_UP_STEPS):
        loss = step(number)
    started = _synchronised(cuda)
    done = 0
    while done < steps and (cuda or time.monotonic() - started < CPU_BUDGET_S):
        loss = step(WARM_UP_STEPS + done)
        done += 1
    seconds = _synchronised(cuda) - started
    rate = done * sequences * model.context / seconds
    peak = peak_flops(compute.device)
    memory = torch.cuda.max_memory_reserved() if cuda else None
    return Capacity(
        tokens_per_second=rate,
        mfu=rate * flops_per_token(model, vocab_size) / peak if peak else None,
        peak_memory_bytes=memory,
        free_memory_share=_free_share(compute.device),
        compile_s=max(0.0, first_step_s - seconds / max(1, done)),
        steps=done,
        sequences=sequences,
        last_loss=float(loss),
    )


def _rows(tokens: np.ndarray, number: int, sequences: int, context: int) -> np.ndarray:
    """Rows of context + 1 tokens, a different block each time, wrapping around a short stream."""
    count = max(1, (len(tokens) - 1) // context)
    rows = (np.arange(sequences) + number * sequences) % count
    return np.stack([np.resize(tokens[row * context : row * context + context + 1], context + 1) for row in rows]).astype(
        np.int64
    )


def _free_share(device: torch.device) -> float | None:
    """Share of memory that is left at the peak: of the card on a GPU, of the machine's available memory on a CPU."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved() - torch.cuda.max_memory_reserved()
        return max(0.0, (free + cached) / total)
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    lines = dict(line.split(":", 1) for line in text.splitlines())
    return int(lines["MemAvailable"].split()[0]) / int(lines["MemTotal"].split()[0])


def _synchronised(cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
    return time.monotonic()
