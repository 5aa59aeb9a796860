"""Small trainings that tests/train/test_distributed.py runs in one process and in two.

Their rows have different target counts. `python -m tests.train.in_processes FOLDER` with torchrun's
environment variables takes part in all of PAIR_JOBS; in the last the second process kills itself.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.torch import save_file

from picochat.config import HostConfig, ModelConfig, RuntimeConfig, TrainConfig
from picochat.core.errors import Interrupted
from picochat.model.centred import centre_
from picochat.model.gpt import GPT, IGNORED_TARGET, initialise
from picochat.train.distributed import current_group, join_group, open_group_runtime
from picochat.train.held_out import HeldOut, summed_loss
from picochat.train.loader import Batch, HostLoader, host_batch, shifted_batch
from picochat.train.loop import Job, Trainer
from picochat.train.parallel import gather_model

CONFIG = ModelConfig(
    context=16, layers=3, width=32, heads=4, kv_heads=2, head_width=8, mlp_width=48
)
VOCAB = 61  # rows of the embedding that two processes cannot share out evenly
ROWS = np.random.default_rng(0).integers(0, VOCAB, (64, 17))
STEPS, STOPS_AT = 10, 5
SPIKY_STEPS, POISONED_AT = 30, 25


@dataclass(frozen=True)
class Small:
    """A training.

    `goes_on`: begin with a copy of that workspace. `ends_by`: a signal that the last process sends
    to itself. `spiky`: the same rows at each step, but at one step rows that nobody has learned.
    """

    name: str
    sharding: str = "replicated"
    goes_on: str | None = None
    ends_by: int | None = None
    spiky: bool = False
    settings: dict[str, object] = field(default_factory=dict[str, object])


MUON: dict[str, object] = {"muon_lr": 0.01, "grad_clip": 0.5, "weight_decay": 0.1}
ADAMW: dict[str, object] = {"matrix_optimizer": "adamw", "weight_decay": 0.1}
SPIKY: dict[str, object] = {
    "muon_lr": 0.05,
    "adamw_lr": 0.05,
    "steps": SPIKY_STEPS,
    "eval_every": 8,
    "spike_factor": 1.2,
    "spike_nats": 0.0,
    "spike_rollbacks": 1,
    "publish": "best",
}
PAIR_JOBS = (
    Small("replicated", settings=MUON),
    Small("sharded", "sharded", settings={**MUON, "micro_batch": 2}),
    Small("sharded-adamw", "sharded", settings=ADAMW),
    Small("two-stopped", "sharded", ends_by=signal.SIGTERM, settings=MUON),
    Small("one-to-replicated", goes_on="one-stopped", settings=MUON),
    Small("one-to-sharded", "sharded", goes_on="one-stopped", settings=MUON),
    Small("spiky-replicated", spiky=True, settings=SPIKY),
    Small("spiky-sharded", "sharded", spiky=True, settings=SPIKY),
    Small("killed", ends_by=signal.SIGKILL, settings=MUON),
)


def batch_of(step: int) -> Batch:
    """Eight rows; later ones have more targets, so the two halves have different counts."""
    block = ROWS[(np.arange(8) + 8 * step) % 64]
    targets = block[:, 1:].copy()
    for row in range(8):
        targets[row, 2 + row :] = IGNORED_TARGET
    return host_batch(np.ascontiguousarray(block[:, :-1]), targets)


def spiky_batch_of(step: int) -> Batch:
    """Eight rows to learn by heart, but at one step others."""
    block = ROWS[8:16] if step == POISONED_AT else ROWS[:8]
    return shifted_batch(block)


def run(folder: Path, job: Small) -> None:
    """Train; leave the workspace in `folder/name` and the weights in `folder/name.safetensors`."""
    workspace = folder / job.name
    runtime = RuntimeConfig.model_validate(
        {"threads": 1, "sharding": job.sharding, "activation_checkpointing": True}
    )
    group = current_group(runtime)
    if job.goes_on and group.is_main:
        shutil.copytree(folder / job.goes_on, workspace)
    group.barrier()
    compute = open_group_runtime(runtime, CONFIG, group)
    model = GPT(CONFIG, VOCAB)
    initialise(model, 0)
    centre_(model)
    model.recompute_blocks(runtime.activation_checkpointing)

    def evaluate(trained: GPT) -> HeldOut:
        batches = (
            host_batch(ROWS[start : start + 3, :-1], ROWS[start : start + 3, 1:])
            for start in range(0, 15, 3)
        )
        nats, targets = summed_loss(trained, batches, compute, group)
        return HeldOut(nats / targets, None)

    def batches(step: int) -> Batch:
        if job.ends_by and step == STOPS_AT and group.rank == group.size - 1:
            os.kill(os.getpid(), job.ends_by)
        return spiky_batch_of(step) if job.spiky else batch_of(step)

    config = TrainConfig.model_validate(
        {"steps": STEPS, "sequences_per_step": 8, "eval_every": 4, **job.settings}
    )
    loader = HostLoader(batches, compute.device, fixed_shape=True, group=group)
    trainer = Trainer(
        model,
        Job("base", config, loader, evaluate),
        compute,
        HostConfig(),
        workspace,
        quiet=True,
        group=group,
    )
    try:
        trainer.train()
    except Interrupted:
        assert job.ends_by
        return
    trained = gather_model(model, group)
    if group.is_main:
        save_file(
            {name: tensor.contiguous() for name, tensor in trained.state_dict().items()},
            folder / f"{job.name}.safetensors",
        )


if __name__ == "__main__":
    with join_group():
        for each in PAIR_JOBS:
            run(Path(sys.argv[1]), each)
