"""Train state of processes that each hold a part of it, by torch.distributed.checkpoint.

A state is the folder of train/checkpoint.py with a folder of parts in the place of the two tensor
files: one safetensors file of each process, no pickle. All processes write; the main one then adds
state.json and renames. Names and whole shapes are those of a single process, so that any number of
processes reads what any other number wrote, one process and whole states included.
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
    TrainState,
    drop_old_states,
    hidden_folder,
    join_names,
    publish_state,
    read_state,
    split_names,
    write_problem,
)
from picochat.train.distributed import ProcessGroup, new_torch_group


class ShardedStateWriter:
    """As StateWriter, for all processes together, which call `save` at the same steps."""

    def __init__(
        self, workspace: Path, kept: Callable[[TrainState], Collection[int]], group: ProcessGroup
    ) -> None:
        self.workspace, self.kept, self.group = workspace, kept, group
        # Connections of its own: its exchanges run beside those of the steps, in another order.
        self._torch_group = new_torch_group("gloo")
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def save(
        self, state: TrainState, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]
    ) -> None:
        """Copy this process's parts to the host and begin to write.

        Waits for the write before this one.
        """
        self.finish()
        folder = hidden_folder(self.workspace, state.step)
        if self.group.is_main:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self.group.barrier()
        written = async_save(
            join_names(weights, optimizer),
            storage_writer=HuggingFaceStorageWriter(str(folder / PARTS), save_distributed=True),
            process_group=self._torch_group,
        )
        assert isinstance(written, Future), "copies are made before async_save returns"
        self._writing = self._thread.submit(self._publish, written, state, folder)

    def finish(self) -> None:
        """Wait until every process has written what was saved.

        Raises HostProblem where it cannot be written.
        """
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except (OSError, CheckpointException) as error:
            raise write_problem(self.workspace, error) from None
        self.group.barrier()

    def check(self) -> None:
        """Do nothing: all processes meet a failed write together, at the next save."""

    def close(self) -> None:
        self._thread.shutdown(wait=True)

    def _publish(self, written: Future[Any], state: TrainState, folder: Path) -> None:
        written.result()
        if not self.group.is_main:
            return
        publish_state(folder, state)
        drop_old_states(self.workspace, self.kept(state))


def load_sharded_state(
    folder: Path, model: GPT, optimizer: Optimizer, sharding: Sharding
) -> SavedState:
    """This process's parts of a state, split as `model` is. All processes call it together."""
    state = read_state(folder)
    weights = {name: torch.empty_like(tensor) for name, tensor in model.state_dict().items()}
    moments = optimizer.blank_state()
    if (folder / PARTS).exists():
        tensors = join_names(weights, moments)
        load(
            tensors,
            storage_reader=HuggingFaceStorageReader(str(folder / PARTS)),
            process_group=sharding.group,
        )
        return SavedState(state, *split_names(tensors))
    return SavedState(
        state,
        _split_file(folder / WEIGHTS, weights, sharding),
        _split_file(folder / OPTIMIZER, moments, sharding),
    )


def _split_file(path: Path, like: Mapping[str, Tensor], sharding: Sharding) -> dict[str, Tensor]:
    """The parts that this process keeps of a whole state's tensors, which it reads one by one."""
    with safe_open(path, framework="pt") as stored:
        return {
            name: sharding.split(stored.get_tensor(name), tensor) for name, tensor in like.items()
        }
