"""How a model's weights lie in the processes that train it, and how the gradients of their rows
become one.

    Single      one process Replicated  all weights in each process; DistributedDataParallel sums
    the gradients while they are made Sharded     a part of every matrix in each process; FSDP2
    gathers a block before it is used (model/sharding.py)

Promises: after the last part of a step, each process has the gradients of the whole step's mean
loss, of the weights that it holds. The engines are PyTorch's. Does not choose between them
(`RuntimeConfig.sharding` does), nor the parts.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from picochat.model.gpt import GPT
from picochat.train.ranks import Ranks

if TYPE_CHECKING:
    from picochat.model.sharding import Sharding


class Layout(Protocol):
    """`scale`: what a loss is multiplied by before its backward pass, because gradients of several
    processes are averaged.
    """

    @property
    def scale(self) -> float: ...

    @property
    def sharding(self) -> Sharding | None: ...

    def loss_sum(self, ids_BT: Tensor, targets_BT: Tensor, dtype: torch.dtype) -> Tensor: ...

    def part(self, *, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of one micro-batch; gradients are exchanged in the last one
        of a step.
        """
        ...

    def settle(self) -> None:
        """After an evaluation: weights are where a step expects them."""
        ...


class Single:
    scale, sharding = 1.0, None

    def __init__(self, model: GPT, *, compiled: bool) -> None:
        self.loss_sum = (
            torch.compile(model.loss_sum, dynamic=False, fullgraph=True)
            if compiled
            else model.loss_sum
        )

    def part(self, *, last: bool) -> AbstractContextManager[None]:
        return nullcontext()

    def settle(self) -> None:
        pass


class LossSum(nn.Module):
    """A model whose forward pass is its loss: what DistributedDataParallel needs to see."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_BT: Tensor, targets_BT: Tensor, dtype: torch.dtype) -> Tensor:
        return self.model.loss_sum(ids_BT, targets_BT, dtype)


class Replicated:
    sharding = None

    def __init__(self, model: GPT, ranks: Ranks, device: torch.device, *, compiled: bool) -> None:
        self.scale = float(ranks.count)
        loss = LossSum(model)
        if compiled:
            loss.compile(dynamic=False, fullgraph=True)
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "`broadcast_buffers`", FutureWarning
            )  # its successor is too new to be named
            self.copies = DistributedDataParallel(
                loss,
                process_group=ranks.group_of(device),
                device_ids=[torch.cuda.current_device()] if device.type == "cuda" else None,
                broadcast_buffers=False,  # rotation tables never change
                gradient_as_bucket_view=True,
            )

    def loss_sum(self, ids_BT: Tensor, targets_BT: Tensor, dtype: torch.dtype) -> Tensor:
        return self.copies(ids_BT, targets_BT, dtype)

    def part(self, *, last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last else self.copies.no_sync()

    def settle(self) -> None:
        pass


class Sharded:
    def __init__(self, model: GPT, ranks: Ranks, device: torch.device, *, compiled: bool) -> None:
        from picochat.model.sharding import Sharding  # loading it takes as long as a small test

        group = ranks.group_of(device)
        assert group is not None, "several processes have a group"
        if compiled:
            for block in model.each_block():
                block.compile(dynamic=False, fullgraph=True)
        self.model, self.scale = model, float(ranks.count)
        self.sharding = Sharding(model, group, device, compiled=compiled)

    def loss_sum(self, ids_BT: Tensor, targets_BT: Tensor, dtype: torch.dtype) -> Tensor:
        return self.model.loss_sum(ids_BT, targets_BT, dtype)

    def part(self, *, last: bool) -> AbstractContextManager[None]:
        self.sharding.exchange_gradients(last)
        return nullcontext()

    def settle(self) -> None:
        self.sharding.settle()


def lay_out(model: GPT, ranks: Ranks, device: torch.device, *, compiled: bool) -> Layout:
    """The layout of these processes.

    Splits or wraps the model in place; all processes call it together.
    """
    if ranks.count == 1:
        return Single(model, compiled=compiled)
    return (Sharded if ranks.sharded else Replicated)(model, ranks, device, compiled=compiled)


def whole(model: GPT, ranks: Ranks) -> GPT:
    """The trained model with all its weights, on the first process; all call it together."""
    if not ranks.sharded:
        return model
    from picochat.model.sharding import whole_model

    return whole_model(model, keep=ranks.leads)
