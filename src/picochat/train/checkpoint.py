"""Train state on disk: all that a resumed run needs to go on bit for bit.

Safetensors and JSON. A state is a folder `step-NNNNNNN` in the stage's workspace: weights,
optimizer, and `state.json` with the counters of the loop and the files' digests. `states.jsonl`
beside it has the digests of every state that was saved, whether it is kept or not. The order of
data needs no state: it follows from seed and step. A thread writes states from copies, so that
training goes on meanwhile; a rename publishes them. A state that was damaged on disk is set aside,
and the one before it serves. docs/decisions/0020 has the reasons. Does not decide when a state is
saved (train/loop.py), and does not write the parts of several processes
(train/sharded_checkpoint.py).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from picochat.config import TrainConfig
from picochat.core.errors import BadInput, HostProblem
from picochat.core.journal import Journal
from picochat.core.progress import say
from picochat.core.publish import FileDigest, remake, sync
from picochat.core.records import Record, digest_file, parse_record, read_json, write_json
from picochat.facts import STATES, StateRow, state_name
from picochat.train.schedule import evaluation_before, replay_step

KEPT_STATES = 2
WEIGHTS, OPTIMIZER, RECORD = "weights.safetensors", "optimizer.safetensors", "state.json"
STATE_FILES = (WEIGHTS, OPTIMIZER, RECORD)
PARTS = "parts"
"""A folder in the place of both tensor files: what several processes wrote, each its part."""
IN_WEIGHTS, IN_OPTIMIZER = "weights/", "optimizer/"
"""Prefixes of tensor names in parts, which hold weights and optimizer state together."""


class BestSoFar(Record):
    """The evaluation with the smallest held-out loss up to now."""

    step: int
    held_out_loss: float
    held_out_bits_per_byte: float | None


class TrainState(Record, frozen=False):
    """What the loop knows after `step` finished steps, besides tensors.

    `spike_mean`, `spike_seen`: the running mean of losses, and of how many. `spike_steps`: where
    spikes were. `skipped`: steps whose rows were passed over by rollbacks. `micro_batch`: what the
    engine had come to.
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


def blank_state() -> TrainState:
    """The counters before the first step."""
    return TrainState(
        step=0, spike_mean=None, spike_seen=0, spike_steps=[], first_loss=None, last_loss=None
    )


class StateFile(Record):
    """state.json. `sha256`: digests of the tensor files."""

    state: TrainState
    sha256: dict[str, str]


@dataclass(frozen=True)
class SavedState:
    state: TrainState
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]


# ---- reading -------------------------------------------------------------------------------------


def state_folder(workspace: Path, step: int) -> Path:
    return workspace / state_name(step)


def saved_steps(workspace: Path) -> list[Path]:
    """The folders of published states, oldest first. Some may have been damaged since."""
    return sorted(workspace.glob("step-*"))


def newest_state(workspace: Path) -> Path | None:
    """The newest undamaged state; None without one.

    Sets damaged ones aside, with a message. Raises BadInput where another version of picochat wrote
    it.
    """
    states = saved_steps(workspace)
    for folder in reversed(states):
        damage = damage_of(folder)  # reads all files: disks return wrong bytes without an error
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
    """The whole state in a folder, whether one process wrote it or several did.

    Does not compare digests (`damage_of`). Raises BadInput where a file is gone or cut, or where
    another version of picochat wrote it.
    """
    state = read_state(folder)
    if (folder / PARTS).exists():
        return SavedState(state, *_whole_tensors(folder / PARTS))
    try:
        # Read and not mapped: a mapped optimizer tensor would keep its file, and the file's disk
        # space, for as long as training goes on.
        weights, optimizer = (
            load_file(folder / name, backend="pread") for name in (WEIGHTS, OPTIMIZER)
        )
    except (OSError, SafetensorError) as error:
        raise BadInput(
            f"training state {folder} cannot be read: {error}", fix=remake(folder.parent)
        ) from None
    return SavedState(state, weights, optimizer)


def read_state(folder: Path) -> TrainState:
    """The counters of a state. Raises BadInput where another version of picochat wrote it."""
    return _state_file(folder).state


def damage_of(folder: Path) -> str | None:
    """What is wrong with a state's files, the first thing found; None where they are as written."""
    try:
        value = read_json(folder / RECORD, "training state")
    except BadInput as error:
        return error.what
    if not isinstance(value, dict):
        return f"{RECORD} holds no record"
    for name, digest in _state_file(folder).sha256.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if digest_file(folder / name) != digest:
            return f"{name} is not as it was written"
    return None


def _state_file(folder: Path) -> StateFile:
    # Unknown fields are refused: a state of another version may mean other numbers by its names.
    value = read_json(folder / RECORD, "training state")
    fix = (
        f"let the version of picochat that began this run end it, or move {folder.parent} away:"
        " training begins again"
    )
    return parse_record(
        StateFile, value, f"training state {folder}, of another version of picochat,", fix=fix
    )


def _whole_tensors(parts: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(weights, optimizer state) of a state in parts, read whole by this process alone."""
    # torch.distributed.checkpoint takes as long to load as a small test, and few states need it.
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = HuggingFaceStorageReader(str(parts))
    tensors = {
        name: torch.empty(stored.size, dtype=stored.properties.dtype)
        for name, stored in reader.read_metadata().state_dict_metadata.items()
        if isinstance(stored, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        # The warning says that nothing is distributed, which is what no_dist asks for.
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        load(tensors, storage_reader=reader, no_dist=True)
    return split_names(tensors)


def join_names(weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> dict[str, Any]:
    """Weights and optimizer state in one mapping, under prefixed names."""
    kinds = ((IN_WEIGHTS, weights), (IN_OPTIMIZER, optimizer))
    return {
        prefix + name: tensor.detach()
        for prefix, tensors in kinds
        for name, tensor in tensors.items()
    }


def split_names(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(weights, optimizer state) of what `join_names` made."""
    weights, optimizer = (
        {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        for prefix in (IN_WEIGHTS, IN_OPTIMIZER)
    )
    return weights, optimizer


# ---- writing -------------------------------------------------------------------------------------


def write_state(workspace: Path, saved: SavedState) -> None:
    """Publish a state, whole or not at all. A failed write leaves nothing behind."""
    folder = hidden_folder(workspace, saved.state.step)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        write_tensors(folder, saved)
        publish_state(folder, saved.state)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def write_tensors(folder: Path, saved: SavedState) -> None:
    # Needs safetensors 0.8: before, it kept the interpreter's lock while it wrote, so that training
    # stood still, and copied all tensors once more.
    save_file(saved.weights, folder / WEIGHTS)
    save_file(saved.optimizer, folder / OPTIMIZER)


def hidden_folder(workspace: Path, step: int) -> Path:
    """Where a state is written before a rename publishes it."""
    final = state_folder(workspace, step)
    return final.with_name(f".{final.name}")


def write_record(folder: Path, state: TrainState) -> None:
    """Write state.json with the digests of the tensor files; sync files and folders."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests: dict[str, str] = {}
    for path in files:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        digests[str(path.relative_to(folder))] = digest_file(path)
    write_json(folder / RECORD, StateFile(state=state, sha256=digests))
    for inner in {path.parent for path in files} | {folder}:
        sync(inner)


def publish_state(folder: Path, state: TrainState) -> None:
    """Make the state in a hidden folder appear under its name: state.json last, then a rename.

    Its digests go into the journal of states before that, so that no state lacks its row; a row
    whose state a kill kept from appearing is dropped by `drop_states_after`.
    """
    write_record(folder, state)
    row = StateRow(step=state.step, skipped=state.skipped, files=file_digests(folder))
    Journal(folder.parent / STATES).append(row.model_dump(mode="json"))
    final = state_folder(folder.parent, state.step)
    shutil.rmtree(final, ignore_errors=True)
    os.rename(folder, final)
    sync(folder.parent)


def file_digests(folder: Path) -> dict[str, FileDigest]:
    """Digest and size of each file of a state. Of tensor files the digests are those it states."""
    stated = _state_file(folder).sha256 | {RECORD: digest_file(folder / RECORD)}
    return {
        name: FileDigest(sha256=digest, bytes=(folder / name).stat().st_size)
        for name, digest in stated.items()
    }


def differing_files(saved: SavedState, row: StateRow) -> list[str]:
    """The tensor files that have another digest in `row` than these tensors give when written."""
    with tempfile.TemporaryDirectory(prefix="picochat-state-") as folder:
        write_tensors(Path(folder), saved)
        return [
            name
            for name in (WEIGHTS, OPTIMIZER)
            if name not in row.files or row.files[name].sha256 != digest_file(Path(folder, name))
        ]


def sweep_half_written(workspace: Path) -> None:
    """Remove what a kill left of a state that was being written."""
    for folder in workspace.glob(".step-*"):
        shutil.rmtree(folder, ignore_errors=True)


def drop_states_after(workspace: Path, step: int) -> None:
    """Delete the states of steps beyond `step`, and their rows: they are trained again."""
    Journal(workspace / STATES).truncate_after(step)
    for folder in saved_steps(workspace):
        if folder > state_folder(workspace, step):
            shutil.rmtree(folder)


def drop_old_states(workspace: Path, kept: Collection[int]) -> None:
    """Remove all states but the newest KEPT_STATES and those of the steps in `kept`."""
    for old in saved_steps(workspace)[:-KEPT_STATES]:
        if int(old.name.removeprefix("step-")) not in kept:
            shutil.rmtree(old)


def kept_steps(state: TrainState, stage: str, config: TrainConfig) -> set[int]:
    """Steps whose older states are still needed once `state` is saved.

    The best one, the one to replay from, and the one to go back to after a spike. They follow from
    the steps alone and never from the clock, because the weights must follow from data and seed.
    """
    steps = {
        state.best.step if state.best else None,
        replay_step(config) if stage == "base" else None,
        evaluation_before(state.step + 1, config) if config.spike_rollbacks else None,
    }
    return {step for step in steps if step is not None}


def write_problem(workspace: Path, error: BaseException) -> HostProblem:
    """The error for a state that could not be written. Older states still stand."""
    return HostProblem(
        f"the training state cannot be written to {workspace}: {error}",
        fix="free some space, then the same command goes on from the newest state that was written",
    )


class StateWriter:
    """Writes states in a thread, one at a time, from copies that it takes at once.

    kept: given a new state, the steps whose older states are kept beside the newest KEPT_STATES.
    """

    def __init__(self, workspace: Path, kept: Callable[[TrainState], Collection[int]]) -> None:
        self.workspace, self.kept = workspace, kept
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._weights, self._optimizer = HostCopies(), HostCopies()

    def save(
        self, state: TrainState, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]
    ) -> None:
        """Copy the tensors to the host and begin to write.

        Waits for the write before this one, and raises what it met.
        """
        self.finish()  # the buffers hold the state before until it is written
        saved = SavedState(state, self._weights.take(weights), self._optimizer.take(optimizer))
        copied: torch.cuda.Event | None = None
        if any(tensor.is_cuda for tensor in weights.values()):
            copied = torch.cuda.Event()
            copied.record()  # when the copies that were queued up to now are on the host
        self._writing = self._thread.submit(self._write, saved, copied)

    @property
    def writing(self) -> bool:
        """Whether a write is under way."""
        return self._writing is not None and not self._writing.done()

    def check(self) -> None:
        """Raise HostProblem where a write has failed. Never waits."""
        if not self.writing:
            self.finish()

    def finish(self) -> None:
        """Wait until what was saved is on disk. Raises HostProblem where it cannot be written."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except (OSError, SafetensorError) as error:
            raise write_problem(self.workspace, error) from None

    def close(self) -> None:
        """Wait for the write that is under way, and ignore how it ends."""
        self._thread.shutdown(wait=True)

    def _write(self, saved: SavedState, copied: torch.cuda.Event | None) -> None:
        if copied is not None:
            copied.synchronize()
        write_state(self.workspace, saved)
        drop_old_states(self.workspace, self.kept(saved.state))


class HostCopies:
    """Copies of named tensors on the host. A new `take` overwrites what the one before gave."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of `tensors`. Those of a GPU are only queued: later steps run after them."""
        return {
            name: self._buffer(name, tensor).copy_(tensor.detach(), non_blocking=True)
            for name, tensor in tensors.items()
        }

    def _buffer(self, name: str, tensor: Tensor) -> Tensor:
        # Made once and kept: fresh memory costs as much as the copy itself. Pinned for a GPU,
        # because only then does a copy run beside other work.
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape != tensor.shape:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._buffers[name] = buffer
        return buffer
