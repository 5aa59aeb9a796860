"""Several processes, one run: which of them is first, what they agree on, and how they end.
torchrun starts them, nobody else.

The first process (rank 0) runs the whole pipeline and does all the writing. The others follow: they
wait to be called, take part in a stage that all share, and end when the first one ends. What they
say to each other goes over gloo on the host and never waits for a device; gradients and losses go
over NCCL between GPUs, over gloo between processors. A process that is gone is one HostProblem,
never a hang: its connections close, and torchrun ends the rest.

Does not split a model or its gradients (train/layout.py), and knows nothing of what is trained.
"""

from __future__ import annotations

import contextlib
import os
import signal
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
from picochat.core.machine import usable_cores
from picochat.model.runtime import Runtime, open_runtime

T = TypeVar("T")

LONGEST_WAIT = timedelta(days=7)
"""How long a follower waits to be called: the first process may import, tokenize and score for
hours.
"""
LONGEST_STEP = timedelta(minutes=30)
"""How long processes wait for each other while they train: one of them may write its state to a
slow disk.
"""
LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe")
"""Parts of what torch says where another process cannot be reached any more."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together. Alone: rank 0 of 1, for which nothing here does
    anything.

    `local_rank`, `local_count`: among the processes of this machine. `gpus`: the group over NCCL,
    where there are GPUs. `sharded`: each process holds a part of every weight instead of all of
    them.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    hosts: dist.ProcessGroup | None = None
    gpus: dist.ProcessGroup | None = None
    sharded: bool = False

    @property
    def leads(self) -> bool:
        """Whether this is the first process: the one that writes, speaks and decides."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """This process's contiguous part of a step's rows, which its count divides."""
        assert rows % self.count == 0, "the settings were checked against the number of processes"
        part = rows // self.count
        return slice(self.rank * part, (self.rank + 1) * part)

    def group_of(self, device: torch.device) -> dist.ProcessGroup | None:
        """The group that moves tensors of this device."""
        return self.gpus if device.type == "cuda" else self.hosts

    def agree(self, *values: int) -> list[int]:
        """The largest of each value over all processes, the same everywhere.

        Waits for all of them, for no device.
        """
        if self.count == 1:
            return list(values)
        all_values = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(all_values, dist.ReduceOp.MAX, group=self.hosts)
        return all_values.tolist()

    def wait_for_all(self) -> None:
        self.agree(0)

    def sum_(self, values: Tensor) -> Tensor:
        """Replace the values by their sums over all processes, the same bits everywhere.

        Where they lie, no host waits.
        """
        if self.count > 1:
            dist.all_reduce(values, group=self.group_of(values.device))
        return values

    def from_first(self, value: T) -> T:
        """What the first process gives; the others' values are not looked at."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.hosts)
        return box[0]

    def from_all(self, value: T) -> list[T]:
        """What each process gives, in the order of ranks."""
        if self.count == 1:
            return [value]
        values: list[T] = [value] * self.count
        dist.all_gather_object(values, value, group=self.hosts)
        return values

    def call(self, word: object | None) -> None:
        """The first process speaks to those that listen; None ends them."""
        dist.broadcast_object_list([word], src=0)

    def listen(self) -> object | None:
        """What the first process says next, however long that takes; None where it is done."""
        box: list[object | None] = [None]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    @contextmanager
    def together(self) -> Generator[None, None, None]:
        """Inside, a process that is gone is a HostProblem instead of what gloo or NCCL have to say
        about it.
        """
        try:
            yield
        except RuntimeError as error:
            if self.count == 1 or not any(part in str(error) for part in LOST):
                raise
            # torchrun is about to send SIGTERM because of that process: our message must come
            # first.
            with contextlib.suppress(
                ValueError
            ):  # not the main thread: whoever runs us there handles signals
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise LostProcess(
                f"another of the {self.count} processes ended: {str(error).splitlines()[0]}",
                fix=(
                    "see what it said above; the same torchrun command goes on from the newest"
                    " state"
                ),
            ) from error


class LostProcess(HostProblem):
    """Another process of this run is gone, so that nothing can be trained any more."""


ALONE = Ranks()
_joined: list[Ranks] = []


def current_ranks(runtime: RuntimeConfig | None = None) -> Ranks:
    """The processes that this one has joined, as `runtime` arranges them; `ALONE` outside
    `join_ranks`.
    """
    ranks = _joined[-1] if _joined else ALONE
    sharded = runtime is not None and runtime.sharding == "sharded" and ranks.count > 1
    return replace(ranks, sharded=sharded)


def new_group(backend: str) -> dist.ProcessGroup:
    """Connections of their own between all processes, which call this together."""
    group = dist.new_group(backend=backend, timeout=LONGEST_STEP)
    assert isinstance(group, dist.ProcessGroup), "every process is a member"
    return group


@contextmanager
def join_ranks() -> Generator[Ranks, None, None]:
    """Join the processes that torchrun started, by its environment.

    Leaving it on the first process ends the others.
    """
    dist.init_process_group("gloo", timeout=LONGEST_WAIT)
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available() and local_rank < torch.cuda.device_count():
        torch.cuda.set_device(local_rank)
    ranks = Ranks(
        rank=dist.get_rank(),
        count=dist.get_world_size(),
        local_rank=local_rank,
        local_count=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        hosts=new_group("gloo"),
        gpus=new_group("nccl") if torch.cuda.is_available() else None,
    )
    _joined.append(ranks)
    try:
        yield ranks
        _leave(ranks)
    except (LostProcess, RuntimeError):
        raise  # what the others still wait for never comes: to wait for them here could take as long
    except BaseException:
        _leave(ranks)
        raise
    finally:
        _joined.pop()


def _leave(ranks: Ranks) -> None:
    if ranks.leads:
        with contextlib.suppress(RuntimeError):  # a process that is gone needs no goodbye
            ranks.call(None)
    dist.destroy_process_group()


def require_devices(runtime: RuntimeConfig, ranks: Ranks) -> None:
    """Raises WrongUsage where this machine has fewer GPUs than processes."""
    devices = torch.cuda.device_count() if runtime.device == "cuda" else ranks.local_count
    if devices < ranks.local_count:
        raise WrongUsage(
            f"torchrun started {ranks.local_count} processes on a machine with {devices} GPUs",
            fix=f"torchrun --nproc-per-node {max(1, devices)} ...",
        )


def open_group_runtime(
    runtime: RuntimeConfig, model: ModelConfig, ranks: Ranks, workspace: Path | None = None
) -> Runtime:
    """As `open_runtime`: the first process's attention for all, and the cores of a machine shared
    out.
    """
    if ranks.count == 1:
        return open_runtime(runtime, model, workspace)
    threads = runtime.threads or max(1, usable_cores() // ranks.local_count)
    own = runtime.model_copy(update={"threads": threads})
    first = open_runtime(own, model, workspace) if ranks.leads else None
    backend, repeat_heads = ranks.from_first(
        (first.backend, first.repeat_heads) if first else ("", False)
    )
    return first or replace(
        open_runtime(own.model_copy(update={"attention_backend": backend}), model),
        repeat_heads=repeat_heads,
    )


@contextmanager
def signals_ignored() -> Generator[None, None, None]:
    """Inside, SIGINT, SIGTERM and SIGHUP do nothing: a follower ends with the first process, after
    that has saved.
    """
    former = {
        number: signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
