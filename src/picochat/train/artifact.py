"""What base and SFT training publish, and the facts that follow from it.

A checkpoint folder holds the weights, their record, the curve, measured.json and, of the base
stage, the state to replay from. The curve holds what follows from seed and data. metrics.jsonl
holds what clock and host decide, and so does states.jsonl: the clock decides which states are
saved beside those of evaluations. Both are hashed but not part of the artifact's digest; a fact
binds the rows of evaluations. Importing this module loads no torch, so that verification computes
the facts again without it.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from picochat.config import ModelConfig, TrainConfig, parameter_count
from picochat.core.errors import BadInput
from picochat.core.journal import read_journal
from picochat.core.progress import say
from picochat.core.publish import Artifact, StagingFolder, link_or_copy, set_aside
from picochat.core.records import (
    Record,
    digest_json,
    parse_record,
    read_record,
    to_jsonable,
    write_json,
)
from picochat.facts import REPLAY_FOLDER, STATES, StateRow, TokenizerFacts, TrainFacts, facts_of
from picochat.train.schedule import evaluates_after, spike_steps

if TYPE_CHECKING:
    from picochat.train.loop import Trainer

STATES_FOLDER = "states"
CURVE, METRICS, MEASURED = "curve.jsonl", "metrics.jsonl", "measured.json"


class MeasuredTraining(Record):
    """measured.json: what only training itself could count.

    `skipped_steps`: steps whose rows rollbacks passed over. `spikes`: all that there were; None
    where no step was skipped, since the curve then shows them. `largest_centre_error`: largest
    |mean| over all projected groups of the published weights; None where they are not centred.
    """

    skipped_steps: int
    spikes: int | None
    largest_centre_error: float | None


def train_facts(
    stage: Literal["base", "sft"],
    files: Path,
    tokenizer: Artifact,
    model: ModelConfig,
    config: TrainConfig,
) -> TrainFacts:
    """All facts of a checkpoint, from its own files, the tokenizer and the settings.

    config: of this stage. Raises BadInput or LookupError where a file does not hold what it should.
    """
    # After a rollback the curve has lost the spike that caused it, so its count is measured.
    curve = read_journal(files / CURVE)
    measured = read_record(MeasuredTraining, files / MEASURED, "measurements of training")
    parameters = parameter_count(model, facts_of(tokenizer, TokenizerFacts).vocab_size)
    losses = [row["loss"] for row in curve if row["loss"] is not None]
    evaluations = [row for row in curve if row["held_out_loss"] is not None]
    if not losses:  # nothing to train on: the weights are those of the stage before
        return _untrained(stage, parameters, measured)
    if not evaluations:  # nothing was held out
        scored = {"step": len(losses), "held_out_loss": None, "held_out_bits_per_byte": None}
    elif config.publish == "last":
        scored = evaluations[-1]
    else:  # the first of the best, as the loop takes it
        scored = min(evaluations, key=lambda row: row["held_out_loss"])
    states = [row for row in read_states(files) if evaluates_after(row.step, config)]
    spikes = measured.spikes if measured.skipped_steps else len(spike_steps(losses, config))
    if spikes is None:
        raise BadInput(f"{files / MEASURED} counts no spikes, although steps were skipped")
    return TrainFacts(
        stage=stage,
        steps=len(losses),
        planned_steps=config.steps,
        tokens=max(row["tokens"] for row in curve),
        parameters=parameters,
        first_loss=losses[0],
        final_loss=losses[-1],
        losses_finite=len(losses) == config.steps and all(math.isfinite(loss) for loss in losses),
        spikes=spikes,
        skipped_steps=measured.skipped_steps,
        scored_step=scored["step"],
        held_out_loss=scored["held_out_loss"],
        held_out_bits_per_byte=scored["held_out_bits_per_byte"],
        largest_centre_error=measured.largest_centre_error,
        states=digest_json(states),
    )


def read_states(files: Path) -> list[StateRow]:
    """The rows of states.jsonl in a checkpoint's folder. Raises BadInput for what is no row."""
    return [
        parse_record(StateRow, row, f"{files / STATES}, row {number}")
        for number, row in enumerate(read_journal(files / STATES), 1)
    ]


def _untrained(
    stage: Literal["base", "sft"], parameters: int, measured: MeasuredTraining
) -> TrainFacts:
    """The facts of a stage that took no step, because the pack has nothing for it."""
    return TrainFacts(
        stage=stage,
        steps=0,
        planned_steps=0,
        tokens=0,
        parameters=parameters,
        first_loss=None,
        final_loss=None,
        losses_finite=True,
        spikes=0,
        scored_step=0,
        held_out_loss=None,
        held_out_bits_per_byte=None,
        largest_centre_error=measured.largest_centre_error,
    )


def publish_untrained(base: Artifact, tokenizer: Artifact, staging: StagingFolder) -> None:
    """Publish the base weights as they are, as the checkpoint of an SFT stage without rows."""
    from picochat.model.weights import load_model, save_model

    model, info = load_model(base.place)
    save_model(model, info.model_copy(update={"stage": "sft", "step": 0}), staging.folder)
    for path in (staging.path(CURVE), staging.volatile(METRICS), staging.volatile(STATES)):
        path.touch()
    of_base = read_record(MeasuredTraining, base.path(MEASURED), "measurements of training")
    error = of_base.largest_centre_error
    measured = MeasuredTraining(skipped_steps=0, spikes=None, largest_centre_error=error)
    write_json(staging.path(MEASURED), measured)
    vocab_size = facts_of(tokenizer, TokenizerFacts).vocab_size
    facts = _untrained("sft", parameter_count(model.config, vocab_size), measured)
    staging.facts = to_jsonable(facts)


def train_and_publish(
    trainer: Trainer, tokenizer: Artifact, tokenizer_digest: str, staging: StagingFolder
) -> None:
    """Train to the end, in all processes; the main one leaves the checkpoint in the staging folder.

    tokenizer_digest: sha256 of tokenizer.json.
    """
    from picochat.model.centred import largest_centre_error
    from picochat.model.weights import CheckpointInfo, save_model
    from picochat.train.parallel import gather_model

    outcome = trainer.train()
    model = gather_model(trainer.model, trainer.group)
    if not trainer.group.is_main:
        return
    stage, state = trainer.job.stage, outcome.state
    info = CheckpointInfo(
        model=model.config,
        vocab_size=model.vocab_size,
        tokenizer_digest=tokenizer_digest,
        stage=stage,
        step=outcome.scored_step,
    )
    save_model(model, info, staging.folder)
    shutil.copyfile(outcome.curve, staging.path(CURVE))
    shutil.copyfile(outcome.metrics, staging.volatile(METRICS))
    shutil.copyfile(outcome.states, staging.volatile(STATES))
    measured = MeasuredTraining(
        skipped_steps=state.skipped,
        spikes=len(state.spike_steps) if state.skipped else None,
        largest_centre_error=largest_centre_error(model) if model.config.centred else None,
    )
    write_json(staging.path(MEASURED), measured)
    if outcome.replay is not None:
        publish_replay(outcome.replay, staging)
    if trainer.keeps_states:
        keep_states(trainer.workspace)
    facts = train_facts(stage, staging.folder, tokenizer, model.config, trainer.config)
    # Stated from the files just written, by the function with which verification computes them.
    staging.facts = facts.model_dump(mode="json")


def keep_states(workspace: Path) -> None:
    """Link every state of the workspace into the folder `states` beside it, which stays.

    Linked and not moved: after a kill the workspace is still whole, and training goes on from it.
    """
    from picochat.train.checkpoint import saved_steps

    place = workspace.with_name(STATES_FOLDER)
    if place.exists():
        set_aside(place)
    for folder in saved_steps(workspace):
        shutil.copytree(folder, place / folder.name, copy_function=link_or_copy)


def publish_replay(folder: Path, staging: StagingFolder) -> None:
    """The state in `folder` as files of the artifact: linked, or written whole from its parts.

    Anyone can train from there to the final weights (release/replay.py). A damaged state is left
    out with a message, since the weights are not affected.
    """
    from picochat.train.checkpoint import (
        PARTS,
        RECORD,
        STATE_FILES,
        damage_of,
        load_state,
        write_record,
        write_tensors,
    )

    damage = damage_of(folder)
    if damage is not None:
        say(
            f"training state {folder} is damaged ({damage}); it is not published, so nobody can"
            " replay from it"
        )
    elif (folder / PARTS).exists():
        saved, place = load_state(folder), staging.path(f"{REPLAY_FOLDER}/{RECORD}").parent
        write_tensors(place, saved)
        write_record(place, saved.state)
    else:
        for name in STATE_FILES:  # links, because a state can be larger than the weights
            link_or_copy(folder / name, staging.path(f"{REPLAY_FOLDER}/{name}"))
