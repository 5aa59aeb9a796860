"""Parallel strategies: where a model's weights lie, and how gradients of all processes are summed.

    SingleProcess   one process
    Replicated      all weights in each process; DistributedDataParallel sums the gradients
    Sharded         a part of every weight in each process; FSDP2 gathers a block before it is used

After the last micro-batch of a step, each process has the gradients of the whole step's mean loss,
of the weights that it holds. The exchanges are PyTorch's. `RuntimeConfig.sharding` chooses the
strategy for several processes (docs/decisions/0019); it does not choose the micro-batches.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from picochat.model.gpt import GPT, Shares
from picochat.train.distributed import ProcessGroup

if TYPE_CHECKING:
    from picochat.model.sharding import Sharding


class ParallelStrategy(Protocol):
    """`loss_scale`: a loss is multiplied by it before its backward pass.

    DDP and FSDP average the gradients of processes; they must be summed here, because each loss is
    divided by the targets of the whole step already.
    """

    @property
    def loss_scale(self) -> float: ...

    @property
    def sharding(self) -> Sharding | None: ...

    def loss_sum(
        self, ids_BT: Tensor, targets_BT: Tensor, dtype: torch.dtype, shares: Shares | None
    ) -> Tensor: ...

    def micro_batch(self, *, last: bool) -> AbstractContextManager[None]:
        """Enter it around forward and backward of a micro-batch; the last one sums gradients."""
        ...

    def after_evaluation(self) -> None:
        """Bring weights back to where a step expects them."""
        ...


class SingleProcess:
    loss_scale, sharding = 1.0, None

    def __init__(self, model: GPT, *, compiled: bool) -> None:
        self.loss_sum = (
            torch.compile(model.loss_sum, dynamic=False, fullgraph=True)
            if compiled
            else model.loss_sum
        )

    def micro_batch(self, *, last: bool) -> AbstractContextManager[None]:
        return nullcontext()

    def after_evaluation(self) -> None:
        pass


class Replicated:
    sharding = None

    def __init__(
        self, model: GPT, group: ProcessGroup, device: torch.device, *, compiled: bool
    ) -> None:
        self.loss_scale = float(group.size)
        loss = _LossModule(model)
        if compiled:
            loss.compile(dynamic=False, fullgraph=True)
        with warnings.catch_warnings():
            # Its successor is too new for the oldest torch that is supported.
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
            self._ddp = DistributedDataParallel(
                loss,
                process_group=group.group_of(device),
                device_ids=[torch.cuda.current_device()] if device.type == "cuda" else None,
                broadcast_buffers=False,  # rotation tables never change
                gradient_as_bucket_view=True,  # gradients are exchanged without a copy of them
            )

    def loss_sum(
        self, ids_BT: Tensor, targets_BT: Tensor, dtype: torch.dtype, shares: Shares | None
    ) -> Tensor:
        return self._ddp(ids_BT, targets_BT, dtype, shares)

    def micro_batch(self, *, last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last else self._ddp.no_sync()

    def after_evaluation(self) -> None:
        pass


class _LossModule(nn.Module):
    """A model whose forward pass is its loss: DDP only sees calls of `forward`."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, ids_BT: Tensor, targets_BT: Tensor, dtype: torch.dtype, shares: Shares | None
    ) -> Tensor:
        return self.model.loss_sum(ids_BT, targets_BT, dtype, shares)


class Sharded:
    def __init__(
        self, model: GPT, group: ProcessGroup, device: torch.device, *, compiled: bool
    ) -> None:
        from picochat.model.sharding import Sharding  # takes as long to load as a small test

        devices = group.group_of(device)
        assert devices is not None, "several processes have a group"
        if compiled:  # block by block, since FSDP gathers weights between blocks
            for block in model.each_block():
                block.compile(dynamic=False, fullgraph=True)
        self.model, self.loss_scale = model, float(group.size)
        self.sharding = Sharding(model, devices, device, compiled=compiled)

    def loss_sum(
        self, ids_BT: Tensor, targets_BT: Tensor, dtype: torch.dtype, shares: Shares | None
    ) -> Tensor:
        return self.model.loss_sum(ids_BT, targets_BT, dtype, shares)

    def micro_batch(self, *, last: bool) -> AbstractContextManager[None]:
        self.sharding.exchange_gradients(last)
        return nullcontext()

    def after_evaluation(self) -> None:
        self.sharding.settle()


def open_strategy(
    model: GPT, group: ProcessGroup, device: torch.device, *, compiled: bool
) -> ParallelStrategy:
    """The strategy of these processes.

    Wraps or splits the model; all processes call it together. compiled: whether the loss is
    compiled.
    """
    if group.size == 1:
        return SingleProcess(model, compiled=compiled)
    return (Sharded if group.sharded else Replicated)(model, group, device, compiled=compiled)


def gather_model(model: GPT, group: ProcessGroup) -> GPT:
    """The trained model with all its weights in the main process; all processes call it together.

    Sharded, the other processes get a model of zeros.
    """
    if not group.sharded:
        return model
    from picochat.model.sharding import whole_model

    return whole_model(model, keep=group.is_main)
