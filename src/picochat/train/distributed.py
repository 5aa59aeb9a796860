"""The process group of a run: which process is the main one, what all agree on, how they end.

torchrun starts the processes. The main one (rank 0) runs the whole pipeline and does all the
writing. The others are workers: they wait to be called, take part in the stages that all share, and
end when the main process ends. What processes agree on goes over gloo on the host and never waits
for a device; gradients and losses go over NCCL between GPUs, over gloo between CPUs. A process that
is gone is one HostProblem and never a hang: its connections close, and torchrun ends the rest.

docs/decisions/0019 has the reasons. Does not split a model or sum gradients (train/parallel.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from picochat.config import ModelConfig, RuntimeConfig
from picochat.core.errors import HostProblem, WrongUsage
from picochat.core.machine import environment_count, usable_cores
from picochat.model.runtime import Runtime, open_runtime

T = TypeVar("T")

LAST_CALL_S = 0.25
LONGEST_WAIT = timedelta(days=7)
"""How long a worker waits to be called: import, tokenizing and scoring may take hours."""
LONGEST_STEP = timedelta(minutes=30)
"""How long processes wait for each other in training: one may write its state to a slow disk."""
LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe")
"""Parts of torch's messages where another process cannot be reached any more."""


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train together.

    By default it is alone: rank 0 of 1. `local_rank`, `local_size`: among the processes of this
    machine. `hosts`, `gpus`: torch's groups over gloo and over NCCL. `sharded`: whether each
    process holds a part of every weight instead of all weights.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    hosts: dist.ProcessGroup | None = None
    gpus: dist.ProcessGroup | None = None
    sharded: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes, reports and decides."""
        return self.rank == 0

    def own_slice(self, rows: int) -> slice:
        """The rows of a step that this process takes: a contiguous part, of equal size in each."""
        assert rows % self.size == 0, "the settings were checked against the number of processes"
        part = rows // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def group_of(self, device: torch.device) -> dist.ProcessGroup | None:
        """torch's group that exchanges tensors of this device."""
        return self.gpus if device.type == "cuda" else self.hosts

    def all_max(self, *values: int) -> list[int]:
        """The largest of each value over all processes. Waits for all of them, for no device."""
        if self.size == 1:
            return list(values)
        # Host tensors over gloo: NCCL would queue behind the step and wait for the device.
        all_values = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(all_values, dist.ReduceOp.MAX, group=self.hosts)
        return all_values.tolist()

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.all_max(0)

    def all_sum_(self, values: Tensor) -> Tensor:
        """Replace the values by their sums over all processes, the same bits in each.

        They stay on their device, and the host does not wait.
        """
        if self.size > 1:
            dist.all_reduce(values, group=self.group_of(values.device))
        return values

    def broadcast(self, value: T) -> T:
        """The main process's value, in every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.hosts)
        return box[0]

    def all_gather(self, value: T) -> list[T]:
        """The value of each process, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size
        dist.all_gather_object(values, value, group=self.hosts)
        return values

    def call_workers(self, call: object | None) -> None:
        """From the main process: send a call to all workers; None ends them."""
        # The default group, whose timeout is LONGEST_WAIT; the others have LONGEST_STEP.
        dist.broadcast_object_list([call], src=0)

    def next_call(self) -> object | None:
        """In a worker: the main process's next call, however long that takes; None at the end."""
        box: list[object | None] = [None]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    @contextmanager
    def watched(self) -> Generator[None, None, None]:
        """Inside, the loss of another process raises LostProcess instead of an error of torch's."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not any(part in str(error) for part in LOST):
                raise
            # torchrun is about to send SIGTERM because of the lost process: our message must come
            # first. Off the main thread, whoever runs us there handles signals.
            with contextlib.suppress(ValueError):
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise LostProcess(
                f"another of the {self.size} processes ended: {str(error).splitlines()[0]}",
                fix=(
                    "see what it said above; the same torchrun command goes on from the newest"
                    " state"
                ),
            ) from error


class LostProcess(HostProblem):
    """Another process of this run is gone, so that training cannot go on."""


ONE_PROCESS = ProcessGroup()
_joined: list[ProcessGroup] = []


def current_group(runtime: RuntimeConfig | None = None) -> ProcessGroup:
    """The group that this process has joined; ONE_PROCESS outside `join_group`.

    runtime: says whether weights are sharded.
    """
    group = _joined[-1] if _joined else ONE_PROCESS
    sharded = runtime is not None and runtime.sharding == "sharded" and group.size > 1
    return replace(group, sharded=sharded)


def new_torch_group(backend: str) -> dist.ProcessGroup:
    """Connections of their own between all processes, which call this together."""
    group = dist.new_group(backend=backend, timeout=LONGEST_STEP)
    assert isinstance(group, dist.ProcessGroup), "every process is a member"
    return group


@contextmanager
def join_group() -> Generator[ProcessGroup, None, None]:
    """Join the processes that torchrun started.

    When the main process leaves, the others end. Reads torchrun's environment variables.
    """
    try:
        dist.init_process_group("gloo", timeout=LONGEST_WAIT)
    except ValueError as error:  # torch names the variable that it misses
        raise WrongUsage(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but torchrun did not start this process"
            f" ({str(error).strip()})",
            fix="unset WORLD_SIZE, or start all processes with torchrun",
        ) from None
    local_rank = environment_count("LOCAL_RANK", 0)
    if torch.cuda.is_available() and local_rank < torch.cuda.device_count():
        torch.cuda.set_device(local_rank)
    group = ProcessGroup(
        rank=dist.get_rank(),
        size=dist.get_world_size(),
        local_rank=local_rank,
        local_size=environment_count("LOCAL_WORLD_SIZE", 1),
        hosts=new_torch_group("gloo"),
        gpus=new_torch_group("nccl") if torch.cuda.is_available() else None,
    )
    _joined.append(group)
    try:
        yield group
        _leave(group)
    except (LostProcess, RuntimeError):
        # Some processes still wait for an exchange that never comes. To say goodbye to them could
        # take as long as their timeout; torchrun ends them.
        raise
    except BaseException:
        _leave(group)
        raise
    finally:
        _joined.pop()


def _leave(group: ProcessGroup) -> None:
    if group.is_main:
        with contextlib.suppress(RuntimeError):  # a worker that is gone already
            group.call_workers(None)
        # gloo's own thread frees the tensors of that last call some moments later, and takes
        # Python's lock for it. Where the interpreter is shutting down by then, the process aborts.
        time.sleep(LAST_CALL_S)
    dist.destroy_process_group()


def require_devices(runtime: RuntimeConfig, group: ProcessGroup) -> None:
    """Raises WrongUsage where this machine has fewer GPUs than processes."""
    devices = torch.cuda.device_count() if runtime.device == "cuda" else group.local_size
    if devices < group.local_size:
        raise WrongUsage(
            f"torchrun started {group.local_size} processes on a machine with {devices} GPUs",
            fix=f"start as many as there are: torchrun --nproc-per-node {max(1, devices)}",
        )


def open_group_runtime(
    config: RuntimeConfig, model: ModelConfig, group: ProcessGroup, workspace: Path | None = None
) -> Runtime:
    """As `open_runtime`, with one attention kernel for all and a machine's cores divided evenly.

    The main process chooses the kernel, since a choice by the clock may differ between processes.
    """
    if group.size == 1:
        return open_runtime(config, model, workspace)
    # Each process would otherwise start as many threads as the machine has cores.
    threads = config.threads or max(1, usable_cores() // group.local_size)
    own = config.model_copy(update={"threads": threads})
    main = open_runtime(own, model, workspace) if group.is_main else None
    backend, repeat_heads = group.broadcast(
        (main.backend, main.repeat_heads) if main else ("", False)
    )
    return main or replace(
        open_runtime(own.model_copy(update={"attention_backend": backend}), model),
        repeat_heads=repeat_heads,
    )
