"""The states of a stage of training: after which steps there are any, which are kept, and how one
is found and loaded.

Promises: what is kept and what is gone back to follows from the steps alone, never from the clock;
several processes take the state that the first one finds, each the parts that it holds. Does not
know what a state is on disk (train/checkpoint.py, train/sharded_states.py), nor when the loop saves
one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from picochat.config import TrainConfig
from picochat.train.checkpoint import (
    SavedState,
    StateRecord,
    StateWriter,
    drop_states_after,
    load_state,
    newest_state,
    require_whole,
    state_folder,
    sweep_half_written,
)
from picochat.train.engine import Engine
from picochat.train.ranks import Ranks

if TYPE_CHECKING:
    from picochat.train.sharded_states import ShardedStateWriter


def evaluates_after(step: int, config: TrainConfig) -> bool:
    """Whether the held-out set is evaluated after `step` finished steps."""
    return step == config.steps or (config.eval_every is not None and step % config.eval_every == 0)


def evaluation_before(step: int, config: TrainConfig) -> int | None:
    """The last step before `step` after which the held-out set is evaluated; None where there is
    none.
    """
    if config.eval_every is None or step <= config.eval_every:
        return None
    return (step - 1) // config.eval_every * config.eval_every


def replay_step(config: TrainConfig) -> int | None:
    """The state that a replay starts from: at the last evaluation before the end, so that it can
    reach the final weights.
    """
    return evaluation_before(config.steps, config)


def kept_steps(record: StateRecord, stage: str, config: TrainConfig) -> set[int]:
    """Older states that are still needed after `record.step`: the best, the one to replay from, the
    one to go back to.
    """
    steps = {
        record.best.step if record.best else None,
        replay_step(config) if stage == "base" else None,
        evaluation_before(record.step + 1, config) if config.spike_rollbacks else None,
    }
    return {step for step in steps if step is not None}


def open_writer(
    workspace: Path, kept_steps: Callable[[StateRecord], Collection[int]], ranks: Ranks
) -> StateWriter | ShardedStateWriter:
    """What writes states here. `kept_steps`: as StateWriter takes it."""
    if ranks.leads:
        sweep_half_written(workspace)
    if not ranks.sharded:
        return StateWriter(workspace, kept_steps)
    from picochat.train.sharded_states import (
        ShardedStateWriter,
    )  # loading it takes as long as a small test

    return ShardedStateWriter(workspace, kept_steps, ranks)


class States:
    """The states in `workspace`. `writer` saves more of them."""

    def __init__(
        self, workspace: Path, stage: str, config: TrainConfig, engine: Engine, ranks: Ranks
    ) -> None:
        self.workspace, self._engine, self._ranks = workspace, engine, ranks
        self.writer = open_writer(
            workspace, lambda record: kept_steps(record, stage, config), ranks
        )

    def newest(self) -> SavedState | None:
        """The newest state, which the first process finds for all of them; None where there is
        none.
        """
        found = newest_state(self.workspace) if self._ranks.leads else None
        name = self._ranks.from_first(found.name if found else None)
        return self._load(self.workspace / name) if name is not None else None

    def older(self, step: int) -> SavedState:
        """The state of a step before this one.

        Raises BadInput where it is damaged or gone. All processes call it together.
        """
        folder = state_folder(self.workspace, step)
        if self._ranks.leads:
            require_whole(folder)
        self._ranks.wait_for_all()
        return self._load(folder)

    def _load(self, folder: Path) -> SavedState:
        """A state, or this process's parts of it. All processes call it together."""
        sharding = self._engine.layout.sharding
        if sharding is None:
            return load_state(folder)
        from picochat.train.sharded_states import load_sharded_state

        return load_sharded_state(folder, self._engine.model, self._engine.optimizer, sharding)

    def drop_after(self, step: int) -> None:
        """Remove the states of later steps, which a rollback trains again."""
        if self._ranks.leads:
            drop_states_after(self.workspace, step)
