"""The host stage of a run: the chosen attention and real steps of this scale on this device, before
anything is trained.

Everything it finds is an observation. The forecast of hours and dollars, the memory check and the
backend check of the preflight read it. Sanity states the same facts of a scale without a run.
"""

from __future__ import annotations

from pathlib import Path

from picochat.config import ModelConfig, RuntimeConfig, TrainConfig
from picochat.core.errors import HostProblem
from picochat.core.machine import MachineRecord, free_disk_bytes, machine_record, process_count
from picochat.core.progress import say
from picochat.core.publish import Artifact, Draft
from picochat.core.records import finite_or_none, write_json
from picochat.model.runtime import Runtime, open_runtime
from picochat.rundir import HostFacts, TokenizerFacts, facts_of
from picochat.sanity.capacity import Capacity, measure_capacity, measured_step
from picochat.tokens.shards import TokenStream, open_shards
from picochat.train.loader import stream_loader

TIMED_STEPS = 30


def measure_host(
    shards: Artifact,
    tokenizer: Artifact,
    model: ModelConfig,
    base: TrainConfig,
    runtime: RuntimeConfig,
    draft: Draft,
) -> None:
    """Write host.json (HostFacts). A backend that does not work is written down, for the preflight
    to judge.

    Of several processes the first one measures alone, with its share of a step's rows.
    """
    devices = process_count()
    vocab_size = facts_of(tokenizer, TokenizerFacts).vocab_size
    problem: str | None = None
    compute: Runtime | None = None
    capacity: Capacity | None = None
    say("finding the attention to use, then timing real steps of this scale on this device")
    try:
        compute = open_runtime(runtime, model)
    except HostProblem as error:
        problem = error.what
    stream = open_shards(shards).train
    if compute is not None and stream.row_count(model.context) > 0:
        own = base.model_copy(
            update={"sequences_per_step": max(1, base.sequences_per_step // devices)}
        )
        capacity = capacity_on(stream, model, vocab_size, own, compute)
    facts = host_facts(runtime, compute, problem, capacity, draft.folder, devices)
    write_json(draft.observation("host.json"), facts)


def capacity_on(
    stream: TokenStream,
    model: ModelConfig,
    vocab_size: int,
    base: TrainConfig,
    compute: Runtime,
    steps: int = TIMED_STEPS,
) -> Capacity:
    """Real steps on rows of this stream, loaded as training loads them."""
    train = measured_step(base, model, vocab_size, compute.device)
    loader = stream_loader(stream, model.context, train.sequences_per_step, 0, compute.device)
    try:
        return measure_capacity(model, vocab_size, train, compute, loader, steps)
    finally:
        loader.close()


def host_facts(
    runtime: RuntimeConfig,
    compute: Runtime | None,
    problem: str | None,
    capacity: Capacity | None,
    folder: Path,
    devices: int,
) -> HostFacts:
    """What was found, as it is recorded.

    `folder`: on the disk that the run will fill; `devices`: as fast as the one measured.
    """
    found = capacity or Capacity(0)

    def of_all(rate: float | None) -> float | None:
        return None if rate is None else rate * devices

    return HostFacts(
        device_name=device_name(runtime, machine_record()),
        attention_backend=compute.backend if compute else runtime.attention_backend,
        attention_error=compute.attention_error if compute else None,
        attention_problem=problem,
        attention_ways=(
            [tried.line() for tried in compute.choice.tried] if compute and compute.choice else []
        ),
        devices=devices,
        tokens_per_second=of_all(found.tokens_per_second),
        tokens_per_second_low=of_all(found.tokens_per_second_low),
        tokens_per_second_high=of_all(found.tokens_per_second_high),
        mfu=found.mfu,
        micro_batch=found.micro_batch,
        peak_memory_bytes=found.peak_memory_bytes,
        free_memory_share=found.free_memory_share,
        free_disk_bytes=free_disk_bytes(folder),
        compile_s=found.compile_s if capacity else None,
        forward_tokens_per_second=of_all(found.forward_tokens_per_second),
        save_s=found.save_s,
        measured_steps=found.steps,
        measured_sequences=found.sequences,
        measured_loss=finite_or_none(found.last_loss),
    )


def device_name(runtime: RuntimeConfig, machine: MachineRecord) -> str:
    """The GPU's line from its driver's tool, or the processor and its cores."""
    return (
        machine.gpus[0]
        if runtime.device == "cuda" and machine.gpus
        else f"{machine.cpu}, {machine.cores} cores"
    )
