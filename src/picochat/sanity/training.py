"""Sanity tests of training itself: it resumes, feeds, stays centred, never waits, and fits, by the
parts that a run uses.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from picochat.config import HostConfig, TrainConfig
from picochat.facts import HostFacts
from picochat.gate.plan import hours_of
from picochat.model.backends import select_kernel
from picochat.model.centred import largest_centre_error
from picochat.model.compute import Compute, apply_settings, open_compute
from picochat.model.crew import NO_CREW
from picochat.present.values import quantity
from picochat.sanity.context import (
    ROWS,
    SMALL,
    Context,
    SanityResult,
    at_most,
    random_rows,
    skipped,
)
from picochat.sanity.host import capacity_on, host_facts
from picochat.sanity.syncs import host_syncs
from picochat.scales import Scale
from picochat.tokens.batches import rows_of_step
from picochat.tokens.shards import TokenStream
from picochat.train.engine import Engine
from picochat.train.feed import Batch, Feed, HostFeed, next_token_batch
from picochat.train.held_out import HeldOut
from picochat.train.loop import Job, Trainer

CAPACITY_STEPS = 20
CAPACITY_TOKENS = 2_000_000
HELD_OUT_BYTES_PER_TOKEN = 4.0
"""Assumed where no tokenizer is at hand; it moves the evaluations of the forecast and nothing else.
"""


def resume_determinism(context: Context) -> SanityResult:
    """Four steps against two, a stop, and two more: the same bits."""
    with tempfile.TemporaryDirectory() as folder, _deterministic(context) as compute:
        straight = _train(context, compute, Path(folder) / "straight", (4,))
        resumed = _train(context, compute, Path(folder) / "resumed", (2, 4))
        mode = f"in deterministic mode with {compute.backend}"
    error = max(float((a - b).abs().max()) for a, b in zip(straight, resumed, strict=True))
    return at_most(
        "resume_determinism",
        error,
        0.0,
        f"largest weight difference of 4 steps against 2 + 2, {mode}",
    )


@contextmanager
def _deterministic(context: Context) -> Generator[Compute, None, None]:
    """A CPU is deterministic already.

    A GPU is made so while inside, with whichever attention can be.
    """
    if context.compute.device.type == "cpu":
        yield context.compute
        return
    update = {"deterministic": True, "max_autotune": False, "attention_backend": "auto"}
    try:
        yield open_compute(context.runtime.model_copy(update=update), SMALL)
    finally:
        apply_settings(context.runtime)
        select_kernel(context.compute.backend)


def _train(
    context: Context, compute: Compute, workspace: Path, stops: tuple[int, ...]
) -> list[torch.Tensor]:
    rows = random_rows(64, 4).numpy()
    weights: list[torch.Tensor] = []
    for stop in stops:
        model = context.small_model(5)
        Trainer(
            model, _job(rows, stop, compute.device), compute, HostConfig(), workspace, quiet=True
        ).train()
        weights = [p.detach().cpu().clone() for p in model.parameters()]
    return weights


def _job(rows: np.ndarray, steps: int, device: torch.device) -> Job:
    config = TrainConfig(steps=steps, sequences_per_step=ROWS, decay_share=0.0)

    def batch_of(step: int) -> Batch:
        block = rows[rows_of_step(step, ROWS, len(rows), seed=6)]
        return Batch(np.ascontiguousarray(block[:, :-1]), np.ascontiguousarray(block[:, 1:]))

    feed = HostFeed(batch_of, device, fixed_shape=True)
    return Job("base", config, feed, lambda model: HeldOut(loss=0.0, bits_per_byte=None))


def loader_coverage(context: Context) -> SanityResult:
    """Every row once per epoch, counted over three epochs of an odd size."""
    size, per_step = 1009, 16
    steps = range(3 * size // per_step + 1)
    seen = np.concatenate(
        [context.parts.rows_of_step(step, per_step, size, seed=7) for step in steps]
    )[: 3 * size]
    wrong = sum(
        int((np.bincount(seen[e * size : (e + 1) * size], minlength=size) != 1).sum())
        for e in range(3)
    )
    return at_most(
        "loader_coverage", wrong, 0, "rows of three epochs not seen exactly once in each"
    )


def device_feed(context: Context) -> SanityResult:
    """Rows cut on the device against rows cut on the host, over more than an epoch, with ids of all
    16 bits.
    """
    stream = random_stream(41 * SMALL.context + 3, 1 << 16)
    on_device, on_host = _device_feed(context, stream), _host_feed(stream, context.compute.device)
    wrong = 0
    for step in range(2 * 41 // ROWS):
        got, want = on_device.step(step), on_host.step(step)
        equal = (got.ids_BT == want.ids_BT).all(dim=1) & (got.targets_BT == want.targets_BT).all(
            dim=1
        )
        wrong += int((~equal).sum()) + abs(got.targets - want.targets)
    on_host.close()
    return at_most(
        "device_feed",
        wrong,
        0,
        "rows from the device's copy of the tokens that differ from the host's",
    )


def _device_feed(context: Context, stream: TokenStream) -> Feed:
    return context.parts.device_feed(stream, SMALL.context, ROWS, 3, context.compute.device)


def _host_feed(stream: TokenStream, device: torch.device) -> HostFeed:
    rows = stream.row_count(SMALL.context)
    return HostFeed(
        lambda step: next_token_batch(stream, rows_of_step(step, ROWS, rows, 3), SMALL.context),
        device,
        fixed_shape=True,
    )


def random_stream(tokens: int, vocab_size: int) -> TokenStream:
    """Tokens of which few are frequent, as in text, in memory."""
    ids = np.random.default_rng(0).zipf(1.3, tokens) % vocab_size
    return TokenStream(parts=(ids.astype(np.uint16),), bounds=(0, tokens), text_bytes=0)


def centred_step(context: Context) -> SanityResult:
    """One optimizer step leaves the weights centred."""
    with tempfile.TemporaryDirectory() as folder:
        model = context.small_model(8)
        job = _job(random_rows(64, 9).numpy(), 1, context.compute.device)
        Trainer(model, job, context.compute, HostConfig(), Path(folder), quiet=True).train()
    return at_most(
        "centred_step",
        largest_centre_error(model),
        1e-7,
        "largest |mean| over the projected groups after a step",
    )


def no_host_sync(context: Context) -> SanityResult:
    """A step, from its rows to its gradient norm, asks nothing of the device that the host must
    wait for.
    """
    compute = context.compute
    if (
        compute.device.type == "cpu"
    ):  # where calls are looked for by name, which neither compiled graphs nor threads show
        compute = replace(compute, compiled=False, crew=NO_CREW)
    feed = _device_feed(context, random_stream(41 * SMALL.context + 3, 512))
    engine = Engine(
        context.small_model(0),
        TrainConfig(steps=4, sequences_per_step=ROWS),
        compute,
        fixed_shape=True,
    )
    for number in range(2):
        engine.step(feed.step(number), 0.1)
    found = host_syncs(lambda: engine.step(feed.step(2), 0.1), compute.device)
    told = ": " + ", ".join(found) if found else ""
    return at_most(
        "no_host_sync",
        len(found),
        0,
        f"kinds of calls in a step for which the host waits for the device{told}",
    )


def scale_capacity(context: Context) -> SanityResult:
    """Real steps of the real scale: they must fit with room to spare, and their speed is the
    forecast's basis.
    """
    scale = context.scale
    if scale is None:
        return skipped("scale_capacity", "no scale was named; --capacity-scale NAME runs it")
    config, vocab_size = scale.config, scale.config.tokenizer.vocab_size
    stream = random_stream(max(CAPACITY_TOKENS, 2 * config.model.context), vocab_size)
    base = _share_of_one_device(scale, context.capacity_sequences)
    capacity = capacity_on(stream, config.model, vocab_size, base, context.compute, CAPACITY_STEPS)
    host = host_facts(context.runtime, context.compute, None, capacity, Path(), max(1, scale.gpus))
    free = host.free_memory_share
    status: Literal["pass", "fail"] = (
        "pass" if free is not None and free >= context.min_free_share else "fail"
    )
    fits = host.tokens_per_second is not None
    message = (
        f"{_pace(host)}; {_forecast(scale, host, context.gpu_hour_usd)}"
        if fits
        else "not even one sequence fits in memory"
    )
    return SanityResult(
        name="scale_capacity",
        status=status,
        measured=free,
        bound=f">= {context.min_free_share:g}",
        message=f"memory left free; {scale.name}: {message}",
    )


def _share_of_one_device(scale: Scale, micro_batch: int | None) -> TrainConfig:
    """The base stage's settings as one of the scale's devices sees them."""
    base = scale.config.base
    rows = base.sequences_per_step // max(1, scale.gpus)
    return base.model_copy(
        update={"sequences_per_step": rows, "micro_batch": micro_batch or base.micro_batch}
    )


def _pace(host: HostFacts) -> str:
    """Speed with its spread, MFU, memory, and what was run to know them."""
    low, median, high = (
        quantity(rate or 0.0)
        for rate in (
            host.tokens_per_second_low,
            host.tokens_per_second,
            host.tokens_per_second_high,
        )
    )
    mfu = f", MFU {host.mfu:.1%} (non-causal convention)" if host.mfu is not None else ""
    memory = f", peak {host.peak_memory_bytes / 1e9:.1f} GB" if host.peak_memory_bytes else ""
    steps = (
        f"{host.measured_steps} steps of {host.measured_sequences} sequences, {host.micro_batch} at"
        " a time"
    )
    devices = f"{host.devices} devices, one measured" if host.devices > 1 else "one device"
    return f"{median} tokens/s on {devices} ({low} to {high}){mfu}{memory}, {steps}"


def _forecast(scale: Scale, host: HostFacts, gpu_hour_usd: float | None) -> str:
    """Hours of the whole run, with their parts, and what they cost on all devices."""
    parts = hours_of(
        scale.config, host, scale.config.data.held_out_bytes / HELD_OUT_BYTES_PER_TOKEN
    )
    hours = sum(parts.values())
    price = f" = ${hours * host.devices * gpu_hour_usd:.2f}" if gpu_hour_usd is not None else ""
    told = " + ".join(f"{name} {60 * part:.1f}" for name, part in parts.items())
    return f"forecast {hours:.2f} h{price} ({told} minutes; scoring and export are not counted)"
