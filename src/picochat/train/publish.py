"""What a trained stage publishes: weights, their record, the curve, the facts that the gate reads,
and a state to replay from.

The curve holds what follows from seed and data; the metrics hold what the clock and the host
decide, and are therefore an observation, outside the artifact's digest. The state is the one before
the last stretch of training, as it lies in the workspace: anyone can train that stretch again
(release/replay.py).
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from picochat.config import TrainConfig, parameter_count
from picochat.core.journal import read_journal
from picochat.core.progress import say
from picochat.core.publish import Draft, link_or_copy
from picochat.facts import REPLAY_FOLDER, TrainFacts
from picochat.model.centred import largest_centre_error
from picochat.model.gpt import GPT
from picochat.model.weights import CheckpointInfo, save_model
from picochat.train.checkpoint import (
    PARTS,
    RECORD,
    STATE_FILES,
    damage_of,
    load_state,
    write_record,
    write_tensors,
)
from picochat.train.layout import whole
from picochat.train.loop import Outcome, Trainer


def train_and_publish(trainer: Trainer, tokenizer_digest: str, draft: Draft) -> None:
    """Train to the end, by all processes; the first one leaves the checkpoint in the draft."""
    outcome = trainer.train()
    model = whole(trainer.model, trainer.ranks)
    if not trainer.ranks.leads:
        return
    info = CheckpointInfo(
        model=model.config,
        vocab_size=model.vocab_size,
        tokenizer_digest=tokenizer_digest,
        stage=trainer.job.stage,
        step=outcome.scored_step,
    )
    write_checkpoint(model, info, outcome, trainer.config, draft)


def write_checkpoint(
    model: GPT, info: CheckpointInfo, outcome: Outcome, config: TrainConfig, draft: Draft
) -> None:
    save_model(model, info, draft.folder)
    shutil.copyfile(outcome.curve, draft.path("curve.jsonl"))
    shutil.copyfile(outcome.metrics, draft.observation("metrics.jsonl"))
    if outcome.replay is not None:
        publish_replay(outcome.replay, draft)
    curve = read_journal(outcome.curve)
    losses = [row["loss"] for row in curve if row["loss"] is not None]
    draft.facts = TrainFacts(
        stage=info.stage,
        steps=outcome.state.step,
        planned_steps=config.steps,
        tokens=max(row["tokens"] for row in curve),
        parameters=parameter_count(info.model, info.vocab_size),
        first_loss=losses[0],
        final_loss=losses[-1],
        losses_finite=len(losses) == config.steps and all(math.isfinite(loss) for loss in losses),
        spikes=len(outcome.state.spike_steps),
        skipped_steps=outcome.state.skipped,
        scored_step=info.step,
        held_out_loss=outcome.held_out.loss,
        held_out_bits_per_byte=outcome.held_out.bits_per_byte,
        largest_centre_error=largest_centre_error(model) if info.model.centred else None,
    ).model_dump(mode="json")


def publish_replay(folder: Path, draft: Draft) -> None:
    """The state in `folder` as files of the draft: linked, or written whole where it lies in parts
    of several processes.

    One that is damaged is left out, and that is said: the weights are not affected.
    """
    damage = damage_of(folder)
    if damage is not None:
        say(
            f"training state {folder} is damaged ({damage}); it is not published, so nobody can"
            " replay from it"
        )
    elif (folder / PARTS).exists():
        state, place = load_state(folder), draft.path(f"{REPLAY_FOLDER}/{RECORD}").parent
        write_tensors(place, state)
        write_record(place, state.record)
    else:
        for name in STATE_FILES:
            link_or_copy(folder / name, draft.path(f"{REPLAY_FOLDER}/{name}"))
