"""Training state on disk: all that a resumed run needs to go on bit for bit. safetensors and JSON,
published by rename.

A state is a folder `step-NNNNNNN` in the stage's workspace: weights, optimizer, and a record of the
step, of what later steps depend on, and of the files' digests. The data order needs no state: it
follows from seed and step. States are written by a thread from copies, so that training goes on
meanwhile. A state that was damaged on disk is set aside, and the one before it serves. Does not
choose which older states are kept (train/loop.py), nor when one is saved.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from picochat.core.errors import BadInput, HostProblem
from picochat.core.progress import say
from picochat.core.publish import remake, sync_folder
from picochat.core.records import READ_BLOCK_BYTES, Record, parse_record, read_json, write_json

KEPT_STATES = 2
WEIGHTS, OPTIMIZER, RECORD = "weights.safetensors", "optimizer.safetensors", "state.json"
STATE_FILES = (WEIGHTS, OPTIMIZER, RECORD)
PARTS = "parts"
"""In the place of both files: what several processes wrote that each hold a part
(train/sharded_states.py).
"""


class BestSoFar(Record):
    """The evaluation with the smallest held-out loss up to now."""

    step: int
    held_out_loss: float
    held_out_bits_per_byte: float | None


class StateRecord(Record):
    """What the loop knows after `step` finished steps.

    `skipped`: steps whose rows were passed over by rollbacks.
    """

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


class StateFile(Record):
    """state.json.

    `xxh3_128`: digests of the tensor files, against damage; who wants proof takes the artifact's
    manifest.
    """

    state: StateRecord
    xxh3_128: dict[str, str]


@dataclass(frozen=True)
class SavedState:
    record: StateRecord
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]


# ---- reading -------------------------------------------------------------------------------------


def state_folder(workspace: Path, step: int) -> Path:
    return workspace / f"step-{step:07d}"


def saved_steps(workspace: Path) -> list[Path]:
    """Published states, oldest first. One of them may have been damaged since."""
    return sorted(workspace.glob("step-*"))


def newest_state(workspace: Path) -> Path | None:
    """The newest state that is whole; None where there is none. Damaged ones are set aside, and
    that is said.

    Raises BadInput where another version of picochat wrote it.
    """
    states = saved_steps(workspace)
    for folder in reversed(states):
        damage = damage_of(folder)
        if damage is None:
            return folder
        aside = folder.with_name(f"damaged-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(folder, aside)
        say(
            f"training state {folder} is damaged ({damage}); it is now {aside.name}, and the state"
            " before it is taken"
        )
    if states:
        say("no saved training state is whole: training begins again")
    return None


def require_whole(folder: Path) -> None:
    """Raises BadInput where a state is damaged."""
    damage = damage_of(folder)
    if damage is not None:
        raise BadInput(f"training state {folder} is damaged: {damage}", fix=remake(folder.parent))


def load_state(folder: Path) -> SavedState:
    """The state in a folder, whole, whoever wrote it; `damage_of` says whether it still is what was
    written.

    Raises BadInput where a file is gone or cut, or where another version of picochat wrote it.
    """
    record = state_record(folder)
    if (folder / PARTS).exists():
        from picochat.train.state_parts import (
            whole_tensors,
        )  # loading it takes as long as a small test

        weights, optimizer = whole_tensors(folder / PARTS)
        return SavedState(record, weights, optimizer)
    try:
        # Read, not mapped: a mapped moment would keep its file, and its disk, for as long as
        # training goes on.
        weights, optimizer = (
            load_file(folder / name, backend="pread") for name in (WEIGHTS, OPTIMIZER)
        )
    except (OSError, SafetensorError) as error:
        raise BadInput(
            f"training state {folder} cannot be read: {error}", fix=remake(folder.parent)
        ) from None
    return SavedState(record, weights, optimizer)


def state_record(folder: Path) -> StateRecord:
    """The record of a state. Raises BadInput where another version of picochat wrote it."""
    return _state_file(folder).state


def damage_of(folder: Path) -> str | None:
    """The first thing that is wrong with a state's files; None where they are as they were written.

    Reads them once.
    """
    try:
        value = read_json(folder / RECORD, "training state")
    except BadInput as error:
        return error.what
    if not isinstance(value, dict):
        return f"{RECORD} holds no record"
    for name, digest in _state_file(folder).xxh3_128.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if _digest(folder / name) != digest:
            return f"{name} is not as it was written"
    return None


def _state_file(folder: Path) -> StateFile:
    value = read_json(folder / RECORD, "training state")
    fix = (
        f"let the version of picochat that began this run end it, or move {folder.parent} away:"
        " training begins again"
    )
    return parse_record(
        StateFile, value, f"training state {folder}, of another version of picochat,", fix=fix
    )


def _digest(path: Path) -> str:
    hasher = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(READ_BLOCK_BYTES):
            hasher.update(block)
    return hasher.hexdigest()


# ---- writing -------------------------------------------------------------------------------------


def write_state(workspace: Path, state: SavedState) -> None:
    """Publish a state, whole or not at all. Nothing is left of a failed write."""
    folder = hidden_folder(workspace, state.record.step)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        write_tensors(folder, state)
        publish_state(folder, state.record)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def write_tensors(folder: Path, state: SavedState) -> None:
    # safetensors 0.8 lets other threads run while it writes and copies nothing; before, both were
    # otherwise.
    save_file(state.weights, folder / WEIGHTS)
    save_file(state.optimizer, folder / OPTIMIZER)


def hidden_folder(workspace: Path, step: int) -> Path:
    """Where the state of a step is written, to be published by a rename."""
    final = state_folder(workspace, step)
    return final.with_name(f".{final.name}")


def write_record(folder: Path, record: StateRecord) -> None:
    """The record beside the tensor files, with their digests; files and their names synced."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {str(path.relative_to(folder)): _synced_digest(path) for path in files}
    write_json(folder / RECORD, StateFile(state=record, xxh3_128=digests))
    for inner in {path.parent for path in files} | {folder}:
        sync_folder(inner)


def publish_state(folder: Path, record: StateRecord) -> None:
    """Let the state in a hidden folder appear under its name: the record last, then one rename."""
    write_record(folder, record)
    final = state_folder(folder.parent, record.step)
    shutil.rmtree(final, ignore_errors=True)
    os.rename(folder, final)
    sync_folder(folder.parent)


def _synced_digest(path: Path) -> str:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    return _digest(path)


def sweep_half_written(workspace: Path) -> None:
    """Remove what a kill left of a state that was being written."""
    for folder in workspace.glob(".step-*"):
        shutil.rmtree(folder, ignore_errors=True)


def drop_states_after(workspace: Path, step: int) -> None:
    """Delete the states of steps beyond `step`, which training has left behind by going back."""
    for folder in saved_steps(workspace):
        if folder > state_folder(workspace, step):
            shutil.rmtree(folder)


def drop_old_states(workspace: Path, kept_steps: Collection[int]) -> None:
    """Remove all states but the newest two and those of `kept_steps`."""
    kept = {state_folder(workspace, step) for step in kept_steps}
    for old in saved_steps(workspace)[:-KEPT_STATES]:
        if old not in kept:
            shutil.rmtree(old)


def unwritten(workspace: Path, error: BaseException) -> HostProblem:
    """The error for a state that could not be written; older states still stand."""
    return HostProblem(
        f"the training state cannot be written to {workspace}: {error}",
        fix="free some space, then the same command goes on from the newest state that was written",
    )


class StateWriter:
    """Writes states in a thread, one at a time, from copies that it takes at once.

    kept_steps: given the record of a new state, the steps whose older states are kept beside the
    newest KEPT_STATES.
    """

    def __init__(
        self, workspace: Path, kept_steps: Callable[[StateRecord], Collection[int]]
    ) -> None:
        self.workspace, self.kept_steps = workspace, kept_steps
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._weights, self._optimizer = HostCopies(), HostCopies()

    def save(
        self, record: StateRecord, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]
    ) -> None:
        """Copy the tensors to the host and begin to write.

        Waits for the write before this one, and raises what it met.
        """
        self.finish()
        state = SavedState(record, self._weights.take(weights), self._optimizer.take(optimizer))
        self._writing = self._thread.submit(self._write, state, _copies_made(weights))

    @property
    def writing(self) -> bool:
        """Whether a write is under way."""
        return self._writing is not None and not self._writing.done()

    def check(self) -> None:
        """Raise HostProblem where a write has ended badly; never waits."""
        if not self.writing:
            self.finish()

    def finish(self) -> None:
        """Wait until what was saved is on disk.

        Raises HostProblem where it could not be written; older states still stand.
        """
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except (OSError, SafetensorError) as error:
            raise unwritten(self.workspace, error) from None

    def close(self) -> None:
        """Let the write that is under way end, whatever it meets."""
        self._thread.shutdown(wait=True)

    def _write(self, state: SavedState, copied: torch.cuda.Event | None) -> None:
        if copied is not None:
            copied.synchronize()
        write_state(self.workspace, state)
        drop_old_states(self.workspace, self.kept_steps(state.record))


class HostCopies:
    """Copies of named tensors on the host, in buffers that are made once: fresh memory costs as
    much as the copy itself.

    Buffers for a GPU's tensors are pinned, and the copies are only asked for: later steps come
    after them on the device, and `_copies_made` says when they are here. A new `take` overwrites
    what the one before gave.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: self._buffer(name, tensor).copy_(tensor.detach(), non_blocking=True)
            for name, tensor in tensors.items()
        }

    def _buffer(self, name: str, tensor: Tensor) -> Tensor:
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape != tensor.shape:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._buffers[name] = buffer
        return buffer


def _copies_made(tensors: Mapping[str, Tensor]) -> torch.cuda.Event | None:
    """When the copies that were asked for up to now are on the host; None where they are there
    already.
    """
    if not any(tensor.is_cuda for tensor in tensors.values()):
        return None
    event = torch.cuda.Event()
    event.record()
    return event
