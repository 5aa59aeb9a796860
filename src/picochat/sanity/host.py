"""The host stage of a run: the chosen backend and real steps of this scale on this device, before anything is trained.

Everything it finds is an observation. The forecast of hours and dollars, the memory check and the backend check of the
preflight read it.
"""

from __future__ import annotations

from picochat.config import ModelConfig, RuntimeConfig, TrainConfig
from picochat.core.errors import HostProblem
from picochat.core.machine import free_disk_bytes, machine_record, process_count
from picochat.core.publish import Artifact, Draft
from picochat.core.records import write_json
from picochat.model.compute import Compute, open_compute
from picochat.rundir import HostFacts, TokenizerFacts, facts_of
from picochat.sanity.capacity import Capacity, measure_capacity
from picochat.tokens.shards import open_shards

TIMED_STEPS = 30


def measure_host(
    shards: Artifact, tokenizer: Artifact, model: ModelConfig, base: TrainConfig, runtime: RuntimeConfig, draft: Draft
) -> None:
    """Write host.json (HostFacts). A backend that does not work is written down, for the preflight to judge.

    Of several processes the first one measures alone, with its share of a step's rows.
    """
    devices = process_count()
    vocab_size = facts_of(tokenizer, TokenizerFacts).vocab_size
    problem: str | None = None
    compute: Compute | None = None
    try:
        compute = open_compute(runtime, model)
    except HostProblem as error:
        problem = error.what
    capacity: Capacity | None = None
    if compute is not None:
        stream = open_shards(shards).train
        tokens = stream.slice(0, min(len(stream), 4_000_000))
        own = base.model_copy(update={"sequences_per_step": base.sequences_per_step // devices})
        capacity = measure_capacity(model, vocab_size, own, compute, tokens, TIMED_STEPS)
    machine = machine_record()
    facts = HostFacts(
        device_name=machine.gpus[0] if runtime.device == "cuda" and machine.gpus else f"{machine.cpu}, {machine.cores} cores",
        attention_backend=compute.backend if compute else runtime.attention_backend,
        attention_error=compute.attention_error if compute else None,
        attention_problem=problem,
        devices=devices,
        tokens_per_second=capacity.tokens_per_second * devices if capacity and capacity.tokens_per_second else None,
        mfu=capacity.mfu if capacity else None,
        peak_memory_bytes=capacity.peak_memory_bytes if capacity else None,
        free_memory_share=capacity.free_memory_share if capacity else None,
        free_disk_bytes=free_disk_bytes(draft.folder),
        compile_s=capacity.compile_s if capacity else None,
        measured_steps=capacity.steps if capacity else 0,
    )
    write_json(draft.observation("host.json"), facts)
