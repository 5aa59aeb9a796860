"""Training state of processes that each hold a part of it, by torch.distributed.checkpoint: written
in parts, read in any others.

A state is the folder `step-NNNNNNN` of train/checkpoint.py, with a folder of parts in the place of
the two safetensors files. All processes write; the first one adds the record last and renames.
Names and whole shapes are those of a single process, so that any number of processes reads what any
other number wrote, one process included, and whole states as well. The parts are safetensors files,
one of each process; no pickle.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from picochat.model.gpt import GPT
from picochat.model.optim import Optimizer
from picochat.model.sharding import Sharding
from picochat.train.checkpoint import (
    OPTIMIZER,
    PARTS,
    WEIGHTS,
    SavedState,
    StateRecord,
    drop_old_states,
    hidden_folder,
    publish_state,
    state_record,
    unwritten,
)
from picochat.train.ranks import Ranks, new_group
from picochat.train.state_parts import joined, parted


class ShardedStateWriter:
    """As StateWriter, for all processes together: each calls `save` at the same steps, and training
    goes on meanwhile.
    """

    def __init__(
        self, workspace: Path, kept_steps: Callable[[StateRecord], Collection[int]], ranks: Ranks
    ) -> None:
        self.workspace, self.kept_steps, self.ranks = workspace, kept_steps, ranks
        self._group = new_group("gloo")  # its exchanges cross those of the steps
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def save(
        self, record: StateRecord, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]
    ) -> None:
        """Copy this process's parts to the host and begin to write.

        Waits for the write before this one.
        """
        self.finish()
        folder = hidden_folder(self.workspace, record.step)
        if self.ranks.leads:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self.ranks.wait_for_all()
        written = async_save(
            joined(weights, optimizer),
            storage_writer=HuggingFaceStorageWriter(str(folder / PARTS), save_distributed=True),
            process_group=self._group,
        )
        assert isinstance(written, Future), "copies are made before async_save returns"
        self._writing = self._thread.submit(self._publish, written, record, folder)

    def finish(self) -> None:
        """Wait until what was saved is on disk, for every process.

        Raises HostProblem where it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except (OSError, CheckpointException) as error:
            raise unwritten(self.workspace, error) from None
        self.ranks.wait_for_all()

    def check(self) -> None:
        """Nothing: a write that ended badly is met by all processes together, at the next save."""

    def close(self) -> None:
        self._thread.shutdown(wait=True)

    def _publish(self, written: Future[Any], record: StateRecord, folder: Path) -> None:
        written.result()
        if not self.ranks.leads:
            return
        publish_state(folder, record)
        drop_old_states(self.workspace, self.kept_steps(record))


def load_sharded_state(
    folder: Path, model: GPT, optimizer: Optimizer, sharding: Sharding
) -> SavedState:
    """This process's parts of the state in a folder, split as `model` is; all processes call it
    together.
    """
    record = state_record(folder)
    weights = {name: torch.empty_like(tensor) for name, tensor in model.state_dict().items()}
    states = optimizer.blank_state()
    if (folder / PARTS).exists():
        tensors = joined(weights, states)
        load(
            tensors,
            storage_reader=HuggingFaceStorageReader(str(folder / PARTS)),
            process_group=sharding.group,
        )
        return SavedState(record, *parted(tensors))
    return SavedState(
        record,
        _split_file(folder / WEIGHTS, weights, sharding),
        _split_file(folder / OPTIMIZER, states, sharding),
    )


def _split_file(path: Path, like: Mapping[str, Tensor], sharding: Sharding) -> dict[str, Tensor]:
    """The tensors of a whole state, one at a time, of which this process keeps its part."""
    with safe_open(path, framework="pt") as stored:
        return {
            name: sharding.split(stored.get_tensor(name), tensor) for name, tensor in like.items()
        }
