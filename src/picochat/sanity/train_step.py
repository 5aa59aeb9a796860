"""Sanity tests of a training step: it resumes, loads its rows, stays centred, and never waits.

The parts are those that a run uses.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from picochat.config import HostConfig, TrainConfig
from picochat.model.attention import select_kernel
from picochat.model.centred import largest_centre_error
from picochat.model.runtime import Runtime, apply_settings, open_runtime
from picochat.model.thread_pool import ONE_THREAD
from picochat.sanity.context import (
    ROWS,
    SMALL,
    Context,
    SanityResult,
    at_most,
    largest,
    random_rows,
    random_stream,
)
from picochat.sanity.syncs import host_syncs
from picochat.tokens.row_order import rows_of_step
from picochat.tokens.shards import TokenStream
from picochat.train.held_out import HeldOut
from picochat.train.loader import Batch, HostLoader, Loader, next_token_batch, shifted_batch
from picochat.train.loop import Job, Trainer
from picochat.train.step import Engine


def resume_determinism(context: Context) -> SanityResult:
    """Four steps against two, a stop, and two more: the same bits."""
    with tempfile.TemporaryDirectory() as folder, _deterministic(context) as compute:
        straight = _train(context, compute, Path(folder) / "straight", (4,))
        resumed = _train(context, compute, Path(folder) / "resumed", (2, 4))
        mode = f"in deterministic mode with {compute.backend}"
    error = largest((a - b).abs().max() for a, b in zip(straight, resumed, strict=True))
    return at_most(
        "resume_determinism",
        error,
        0.0,
        f"largest weight difference of 4 steps against 2 + 2, {mode}",
    )


@contextmanager
def _deterministic(context: Context) -> Generator[Runtime, None, None]:
    """The settings under which the same steps give the same bits, while inside."""
    # A CPU is deterministic already. On a GPU some backward kernels add in any order, so torch is
    # asked for its deterministic ones, with whichever attention has them.
    if context.compute.device.type == "cpu":
        yield context.compute
        return
    update = {"deterministic": True, "max_autotune": False, "attention_backend": "auto"}
    try:
        yield open_runtime(context.runtime.model_copy(update=update), SMALL)
    finally:
        apply_settings(context.runtime)
        select_kernel(context.compute.backend)


def _train(
    context: Context, compute: Runtime, workspace: Path, stops: tuple[int, ...]
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
    config = TrainConfig(steps=steps, sequences_per_step=ROWS, decay_fraction=0.0)

    def batch_of(step: int) -> Batch:
        block = rows[rows_of_step(step, ROWS, len(rows), seed=6)]
        return shifted_batch(block)

    loader = HostLoader(batch_of, device, fixed_shape=True)
    return Job("base", config, loader, lambda model: HeldOut(loss=0.0, bits_per_byte=None))


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
    """Rows cut on the device against rows cut on the host, over more than an epoch.

    The ids have all 16 bits: torch has no unsigned 16-bit numbers to index by, so a copy that reads
    them as signed would turn ids above 32,767 negative.
    """
    stream = random_stream(41 * SMALL.context + 3, 1 << 16)
    on_device, on_host = _device_feed(context, stream), _host_feed(stream, context.compute.device)
    wrong = 0
    for step in range(2 * 41 // ROWS):
        got, want = on_device.batch(step), on_host.batch(step)
        equal = (got.ids_BT == want.ids_BT).all(dim=1) & (got.targets_BT == want.targets_BT).all(
            dim=1
        )
        wrong += int((~equal).sum()) + abs(got.target_count - want.target_count)
    on_host.close()
    return at_most(
        "device_feed",
        wrong,
        0,
        "rows from the device's copy of the tokens that differ from the host's",
    )


def _device_feed(context: Context, stream: TokenStream) -> Loader:
    return context.parts.device_feed(stream, SMALL.context, ROWS, 3, context.compute.device)


def _host_feed(stream: TokenStream, device: torch.device) -> HostLoader:
    rows = stream.row_count(SMALL.context)
    return HostLoader(
        lambda step: next_token_batch(stream, rows_of_step(step, ROWS, rows, 3), SMALL.context),
        device,
        fixed_shape=True,
    )


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
    """A step, from its rows to its gradient norm, has no call for which the host must wait."""
    compute = context.compute
    if compute.device.type == "cpu":
        # There calls are looked for by name, which neither compiled graphs nor threads show.
        compute = replace(compute, compiled=False, pool=ONE_THREAD)
    loader = _device_feed(context, random_stream(41 * SMALL.context + 3, 512))
    engine = Engine(
        context.small_model(0),
        TrainConfig(steps=4, sequences_per_step=ROWS),
        compute,
        fixed_shape=True,
    )
    for number in range(2):
        engine.step(loader.batch(number), 0.1)
    found = host_syncs(lambda: engine.step(loader.batch(2), 0.1), compute.device)
    names = ": " + ", ".join(found) if found else ""
    return at_most(
        "no_host_sync",
        len(found),
        0,
        f"kinds of calls in a step for which the host waits for the device{names}",
    )
