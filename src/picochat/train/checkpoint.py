"""Training state on disk: all that a resumed run needs to go on bit for bit. safetensors and JSON, published by rename.

A state is a folder `step-NNNNNNN` in the stage's workspace: weights, optimizer, and a record of the step and of what later
steps depend on. The data order needs no state: it follows from seed and step. States are written by a thread from copies, so
that training goes on meanwhile. Kept: the two newest, the best on the held-out set, and the one that a replay starts from. A
folder without its record is an interrupted write and is ignored.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from picochat.core.errors import HostProblem
from picochat.core.records import Record, read_record, write_json

KEPT_STATES = 2
WEIGHTS, OPTIMIZER, RECORD = "weights.safetensors", "optimizer.safetensors", "state.json"
PARTS = "parts"
"""In the place of both files: what several processes wrote that each hold a part (train/sharded_states.py)."""


class BestSoFar(Record):
    """The evaluation with the smallest held-out loss up to now."""

    step: int
    held_out_loss: float


class StateRecord(Record):
    """What the loop knows after `step` finished steps. `skipped`: steps whose rows were passed over by rollbacks."""

    step: int
    spike_mean: float | None
    spike_seen: int
    spike_steps: list[int]
    first_loss: float | None
    last_loss: float | None
    tokens: int = 0
    skipped: int = 0
    rollbacks: int = 0
    micro_batch: int | None = None
    best: BestSoFar | None = None


@dataclass(frozen=True)
class SavedState:
    record: StateRecord
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def state_folder(workspace: Path, step: int) -> Path:
    return workspace / f"step-{step:07d}"


def saved_steps(workspace: Path) -> list[Path]:
    """Complete states, oldest first."""
    return sorted(path for path in workspace.glob("step-*") if (path / RECORD).exists())


def load_latest_state(workspace: Path) -> SavedState | None:
    states = saved_steps(workspace)
    return load_state(states[-1]) if states else None


def load_state(folder: Path) -> SavedState:
    """The state in a folder, whole, whoever wrote it. Raises BadInput where its record cannot be read."""
    record = read_record(StateRecord, folder / RECORD, "training state")
    if (folder / PARTS).exists():
        from picochat.train.sharded_states import whole_tensors

        weights, optimizer = whole_tensors(folder / PARTS)
        return SavedState(record, weights, optimizer)
    return SavedState(record, load_file(folder / WEIGHTS), load_file(folder / OPTIMIZER))


def write_state(workspace: Path, state: SavedState) -> None:
    """Publish a state: its files synced, then one rename."""
    final = state_folder(workspace, state.record.step)
    folder = final.with_name(f".{final.name}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_file(state.weights, folder / WEIGHTS)
    save_file(state.optimizer, folder / OPTIMIZER)
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    write_json(folder / RECORD, state.record)
    shutil.rmtree(final, ignore_errors=True)
    os.rename(folder, final)


def drop_old_states(workspace: Path, newest: StateRecord, replay_step: int | None) -> None:
    """Remove all states but those that are kept, see the head of this file."""
    best = newest.best.step if newest.best else None
    wanted = {state_folder(workspace, step) for step in (best, replay_step) if step is not None}
    for old in saved_steps(workspace)[:-KEPT_STATES]:
        if old not in wanted:
            shutil.rmtree(old)


class StateWriter:
    """Writes states in a thread, one at a time, from copies that it takes at once. `replay_step`: that state is kept."""

    def __init__(self, workspace: Path, replay_step: int | None) -> None:
        self.workspace, self.replay_step = workspace, replay_step
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def save(self, record: StateRecord, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
        """Copy the tensors to the host and begin to write. Waits for the write before this one, and raises what it met."""
        self.finish()
        state = SavedState(record, _host_copies(weights), _host_copies(optimizer))
        self._writing = self._thread.submit(self._write, state)

    def finish(self) -> None:
        """Wait until what was saved is on disk. Raises HostProblem where it could not be written; older states still stand."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except (OSError, SafetensorError) as error:
            raise HostProblem(
                f"the training state cannot be written to {self.workspace}: {error}",
                fix="free some space, then the same command goes on from the newest state that was written",
            ) from None

    def close(self) -> None:
        """Let the write that is under way end, whatever it meets."""
        self._thread.shutdown(wait=True)

    def _write(self, state: SavedState) -> None:
        write_state(self.workspace, state)
        drop_old_states(self.workspace, state.record, self.replay_step)


def _host_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that later steps do not change."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
