"""What this host gives a scale: the attention that works, and real optimizer steps, timed.

The host stage of a run states it before anything is trained, and sanity's `scale_capacity` states
the same of a scale without a run. The forecast of hours and dollars, the memory check and the
backend check of the preflight read it. All of it is observations of one machine.

The steps are those of training: rows from its loader, forward, backward, optimizer, mean-centring,
and a smaller micro-batch where the whole step does not fit. The first ones, which compile and
allocate, are not timed. Also timed, once: the forward pass of an evaluation, and the copy of the
training state for which a step waits. Says nothing about preparing data.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from picochat.config import ModelConfig, RuntimeConfig, TrainConfig, flops_per_token
from picochat.core.errors import HostProblem
from picochat.core.machine import (
    MachineRecord,
    free_disk_bytes,
    machine_record,
    memory_bytes,
    process_count,
)
from picochat.core.progress import say
from picochat.core.publish import Artifact, StagingFolder
from picochat.core.records import finite_or_none, write_json
from picochat.facts import HostFacts, TokenizerFacts, facts_of
from picochat.gate.plan import hours_of
from picochat.model.centred import centre_
from picochat.model.gpt import GPT, initialise
from picochat.model.runtime import Runtime, open_runtime, peak_flops
from picochat.present.values import quantity
from picochat.sanity.context import Context, SanityResult, random_stream, skipped
from picochat.scales import ASSUMED_CPU_FLOPS, Scale
from picochat.tokens.shards import TokenStream, open_shards
from picochat.train.held_out import rows_per_forward, summed_loss
from picochat.train.loader import Batch, Loader, stream_loader
from picochat.train.step import Engine

TIMED_STEPS = 30
CAPACITY_STEPS = 20
CAPACITY_TOKENS = 2_000_000
WARM_UP_STEPS = {"cuda": 3, "cpu": 1}
# For the timed steps of a CPU, and for one of them: a step of a GPU's scale takes minutes there.
CPU_BUDGET_S = 4.0
TIMED_FORWARDS = 3
MEASURED_LR_SHARE = 0.1
# Assumed where no tokenizer is at hand; it moves the evaluations of the forecast and nothing else.
HELD_OUT_BYTES_PER_TOKEN = 4.0


# ---- the stage -----------------------------------------------------------------------------------


def measure_host(
    shards: Artifact,
    tokenizer: Artifact,
    model: ModelConfig,
    base: TrainConfig,
    runtime: RuntimeConfig,
    staging: StagingFolder,
) -> None:
    """Write host.json (HostFacts).

    A backend that does not work is stated, for the preflight. Of several processes the first one
    measures alone, with its own part of a step's rows.
    """
    devices = process_count()
    say("finding the attention to use, then timing real steps of this scale on this device")
    compute, problem = None, None
    try:
        compute = open_runtime(runtime, model)
    except HostProblem as error:
        problem = error.what
    facts = host_facts(runtime, compute, problem, staging.folder, devices)
    stream = open_shards(shards).train
    if compute is not None and stream.row_count(model.context) > 0:
        rows = max(1, base.sequences_per_step // devices)
        own = base.model_copy(update={"sequences_per_step": rows})
        vocab_size = facts_of(tokenizer, TokenizerFacts).vocab_size
        facts = measure_steps(facts, stream, model, vocab_size, own, compute)
    write_json(staging.volatile("host.json"), facts)


def host_facts(
    runtime: RuntimeConfig, compute: Runtime | None, problem: str | None, folder: Path, devices: int
) -> HostFacts:
    """The facts of a host on which no step was measured yet.

    compute: None where no attention works, and `problem` says why. folder: on the disk that the run
    will fill. devices: how many train together.
    """
    choice = compute.choice if compute else None
    return HostFacts(
        device_name=device_name(runtime, machine_record()),
        attention_backend=compute.backend if compute else runtime.attention_backend,
        attention_error=compute.attention_error if compute else None,
        attention_problem=problem,
        attention_ways=[tried.line() for tried in choice.tried] if choice else [],
        devices=devices,
        tokens_per_second=None,
        mfu=None,
        peak_memory_bytes=None,
        free_memory_fraction=None,
        free_disk_bytes=free_disk_bytes(folder),
        memory_bytes=memory_bytes(),
        compile_s=None,
        measured_steps=0,
    )


def device_name(runtime: RuntimeConfig, machine: MachineRecord) -> str:
    """The GPU's line from its driver's tool, or the processor and its cores."""
    if runtime.device == "cuda" and machine.gpus:
        return machine.gpus[0]
    return f"{machine.cpu}, {machine.cores} cores"


# ---- timed steps ---------------------------------------------------------------------------------


class Stopwatch:
    """Times between marks, on the device's own clock; marking makes nobody wait.

    On a GPU the host runs ahead of the device: its own clock would time how fast Python queues
    kernels, and waiting for each step would time a device that idles in between.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._events: list[torch.cuda.Event] = []
        self._times: list[float] = []

    def mark(self) -> None:
        """Note the time at which the device comes to this place."""
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


def measure_steps(
    facts: HostFacts,
    stream: TokenStream,
    model: ModelConfig,
    vocab_size: int,
    base: TrainConfig,
    compute: Runtime,
    steps: int = TIMED_STEPS,
) -> HostFacts:
    """The facts with what real steps on rows of this stream show.

    base: the settings of one device. Out of memory is a result, not an error.
    """
    train = measured_step(base, model, vocab_size, compute.device)
    loader = stream_loader(stream, model.context, train.sequences_per_step, 0, compute.device)
    try:
        return measure_on_feed(facts, model, vocab_size, train, compute, loader, steps)
    finally:
        loader.close()


def measured_step(
    train: TrainConfig, model: ModelConfig, vocab_size: int, device: torch.device
) -> TrainConfig:
    """The settings with as many sequences in a step as can be measured here.

    On a GPU all of them; on a CPU what its time budget holds, by an assumed speed.
    """
    if device.type == "cuda":
        return train
    rows = int(
        CPU_BUDGET_S * ASSUMED_CPU_FLOPS / (flops_per_token(model, vocab_size) * model.context)
    )
    return train.model_copy(
        update={"sequences_per_step": min(train.sequences_per_step, max(1, rows))}
    )


def measure_on_feed(
    facts: HostFacts,
    model: ModelConfig,
    vocab_size: int,
    train: TrainConfig,
    compute: Runtime,
    loader: Loader,
    steps: int,
) -> HostFacts:
    """As `measure_steps`, on the rows of this loader and with these settings as they are."""
    try:
        gpt = GPT(model, vocab_size)
        initialise(gpt, seed=0)
        centre_(gpt)
        gpt.to(compute.device)
        engine = Engine(gpt, train, compute, fixed_shape=loader.fixed_shape)
        return _measured(facts, gpt, engine, train, loader, steps)
    except (torch.OutOfMemoryError, HostProblem):
        torch.cuda.empty_cache()
        update = {
            "measured_sequences": train.sequences_per_step,
            "free_memory_fraction": 0.0,
            "compile_s": 0.0,
        }
        return facts.model_copy(update=update)


def _measured(
    facts: HostFacts, gpt: GPT, engine: Engine, train: TrainConfig, loader: Loader, steps: int
) -> HostFacts:
    device, context = engine.runtime.device, gpt.config.context
    cuda = device.type == "cuda"
    first = Stopwatch(device)
    first.mark()
    engine.step(loader.batch(0), MEASURED_LR_SHARE)
    first.mark()
    (first_s,) = first.seconds()
    if cuda:
        # What compiling and a micro-batch that proved too large took is no part of a step's peak.
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    warm_up = WARM_UP_STEPS[device.type]
    for number in range(1, 1 + warm_up):
        engine.step(loader.batch(number), MEASURED_LR_SHARE)
    loss = torch.zeros(())
    watch, started = Stopwatch(device), time.perf_counter()
    watch.mark()
    done = 0
    while done < steps and (cuda or not done or time.perf_counter() - started < CPU_BUDGET_S):
        done += 1
        loss, _ = engine.step(loader.batch(warm_up + done), MEASURED_LR_SHARE)
        watch.mark()
    seconds = watch.seconds()
    # The median, with those that one step in ten is slower and faster than: on a shared machine a
    # mean would follow the slowest step.
    median, slow, fast = (float(np.percentile(seconds, percent)) for percent in (50, 90, 10))
    tokens = train.sequences_per_step * context
    peak = peak_flops(device)
    forward = _forward_tokens_per_second(gpt, engine.runtime, loader.batch(0))
    update = {
        "tokens_per_second": facts.devices * tokens / median,
        "tokens_per_second_low": facts.devices * tokens / slow,
        "tokens_per_second_high": facts.devices * tokens / fast,
        "micro_batch": min(
            engine.micro_batch or train.sequences_per_step, train.sequences_per_step
        ),
        "mfu": (
            tokens / median * flops_per_token(gpt.config, gpt.vocab_size) / peak if peak else None
        ),
        "peak_memory_bytes": torch.cuda.max_memory_reserved() if cuda else None,
        "free_memory_fraction": free_fraction_at_peak(device),
        "compile_s": max(0.0, first_s - median),
        "forward_tokens_per_second": facts.devices * forward,
        "save_s": _copy_s({**gpt.state_dict(), **engine.optimizer.state()}),
        "measured_steps": done,
        "measured_sequences": train.sequences_per_step,
        "measured_loss": finite_or_none(float(loss)),
    }
    return HostFacts.model_validate({**facts.model_dump(), **update})


def _forward_tokens_per_second(gpt: GPT, compute: Runtime, batch: Batch) -> float:
    """The speed of a held-out evaluation, by the function that evaluates."""
    rows = slice(0, rows_per_forward(compute.device, gpt.config.context))
    batch = Batch(batch.ids_BT[rows].cpu(), batch.targets_BT[rows].cpu(), batch.target_count)
    summed_loss(gpt, iter([batch]), compute)
    started = time.perf_counter()
    summed_loss(gpt, iter([batch] * TIMED_FORWARDS), compute)
    return TIMED_FORWARDS * batch.ids_BT.numel() / (time.perf_counter() - started)


def _copy_s(tensors: dict[str, Tensor]) -> float:
    """Seconds in which a save copies these to the host, while training waits."""
    started = time.perf_counter()
    copies = [tensor.detach().to("cpu", copy=True) for tensor in tensors.values()]
    return (time.perf_counter() - started) if copies else 0.0


def free_fraction_at_peak(device: torch.device) -> float | None:
    """Fraction of memory that is left at the peak of a step; None where it cannot be read.

    On a GPU of the card. On a CPU of the machine's memory, by what is available now: other
    programs' memory counts there as well.
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


# ---- the sanity test -----------------------------------------------------------------------------


def scale_capacity(context: Context) -> SanityResult:
    """Real steps of the real scale must fit with room to spare; their speed gives the forecast."""
    scale = context.scale
    if scale is None:
        return skipped("scale_capacity", "no scale was named; --capacity-scale NAME runs it")
    config, devices = scale.config, max(1, scale.gpus)
    vocab_size = config.tokenizer.vocab_size
    own = config.base.model_copy(
        update={
            "sequences_per_step": config.base.sequences_per_step // devices,
            "micro_batch": context.capacity_sequences or config.base.micro_batch,
        }
    )
    stream = random_stream(max(CAPACITY_TOKENS, 2 * config.model.context), vocab_size)
    unmeasured = host_facts(context.runtime, context.compute, None, Path(), devices)
    facts = measure_steps(
        unmeasured, stream, config.model, vocab_size, own, context.compute, CAPACITY_STEPS
    )
    free = facts.free_memory_fraction
    enough = free is not None and free >= context.min_free_fraction
    status: Literal["pass", "fail"] = "pass" if enough else "fail"
    message = (
        f"{_pace(facts)}; {_forecast(scale, facts, context.gpu_hour_usd)}"
        if facts.tokens_per_second is not None
        else "not even one sequence fits in memory"
    )
    return SanityResult(
        name="scale_capacity",
        status=status,
        measured=free,
        bound=f">= {context.min_free_fraction:g}",
        message=f"memory left free; {scale.name}: {message}",
    )


def _pace(facts: HostFacts) -> str:
    """Speed with its spread, MFU, memory, and what was run to know them."""
    low, median, high = (
        quantity(rate or 0.0)
        for rate in (
            facts.tokens_per_second_low,
            facts.tokens_per_second,
            facts.tokens_per_second_high,
        )
    )
    mfu = f", MFU {facts.mfu:.1%} (non-causal convention)" if facts.mfu is not None else ""
    memory = f", peak {facts.peak_memory_bytes / 1e9:.1f} GB" if facts.peak_memory_bytes else ""
    steps = (
        f"{facts.measured_steps} steps of {facts.measured_sequences} sequences,"
        f" {facts.micro_batch} at a time"
    )
    devices = f"{facts.devices} devices, one measured" if facts.devices > 1 else "one device"
    return f"{median} tokens/s on {devices} ({low} to {high}){mfu}{memory}, {steps}"


def _forecast(scale: Scale, facts: HostFacts, gpu_hour_usd: float | None) -> str:
    """Hours of the whole run, with their parts, and what they cost on all devices."""
    parts = hours_of(
        scale.config, facts, scale.config.data.held_out_bytes / HELD_OUT_BYTES_PER_TOKEN
    )
    hours = sum(parts.values())
    price = f" = ${hours * facts.devices * gpu_hour_usd:.2f}" if gpu_hour_usd is not None else ""
    listed = " + ".join(f"{name} {60 * part:.1f}" for name, part in parts.items())
    return f"forecast {hours:.2f} h{price} ({listed} minutes; scoring and export are not counted)"
