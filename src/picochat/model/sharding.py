"""A model whose weights are split over several processes (FSDP2), as the optimizer needs it.

Each process holds some columns of every matrix of the blocks, some rows of the embedding and some
elements of each gain. Every mean that centring subtracts then lies inside one process, so that the
projection needs no exchange and gives the same bits. Muon needs whole matrices: an all-to-all
distributes them, each process orthogonalizes some of a stack, and a second all-to-all returns the
columns (docs/decisions/0019). Does not save anything (train/sharded_checkpoint.py does).

Shape suffixes: N matrices of one shape, O outputs, I inputs, i the columns that one process holds.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from picochat.core.errors import Problem, WrongUsage
from picochat.model.gpt import GPT
from picochat.model.orthogonalize import orthogonalize

EMBEDDING = "embedding.weight"


def split_dimension(name: str, weight: Tensor) -> int:
    """The dimension along which a weight is split: not one over which centring takes a mean."""
    return 1 if weight.dim() == 2 and name != EMBEDDING else 0


class Sharding:
    """Splits the weights of `model` over `group`, in place: its parameters become DTensors.

    Raises WrongUsage where the columns of a matrix cannot be divided (see `require_columns`).
    """

    def __init__(
        self, model: GPT, group: dist.ProcessGroup, device: torch.device, *, compiled: bool
    ) -> None:
        require_columns(model, group.size())
        self.group, self.count = group, group.size()
        self.mesh = DeviceMesh.from_group(group, device.type)
        self._orthogonalize = (
            torch.compile(orthogonalize, dynamic=False, fullgraph=True)
            if compiled
            else orthogonalize
        )
        dimensions = {
            parameter: split_dimension(name, parameter)
            for name, parameter in model.named_parameters()
        }
        self.modules: list[FSDPModule] = []
        for module in (*model.each_block(), model):
            # Weights are gathered once a step and stay whole until the last backward pass. Freeing
            # them after each forward pass would gather them again for every micro-batch.
            fully_shard(
                module,
                mesh=self.mesh,
                reshard_after_forward=False,
                shard_placement_fn=lambda parameter: Shard(dimensions[parameter]),
            )
            assert isinstance(module, FSDPModule)
            self.modules.append(module)

    def exchange_gradients(self, last: bool) -> None:
        """Set whether the next backward pass is the last of the step.

        Only the last one sums gradients over processes and splits the weights again. The others add
        up gradients inside each process.
        """
        root = self.modules[-1]
        root.set_requires_gradient_sync(last)
        root.set_reshard_after_backward(last)

    def settle(self) -> None:
        """Split weights that a forward pass without a backward pass has left whole."""
        for module in self.modules:
            module.reshard()

    def local(self, tensor: Tensor) -> Tensor:
        """The part of a tensor that this process holds, sharing memory with it."""
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor

    def stacked(self, momentum_NOi: Tensor, columns: int) -> DTensor:
        """A DTensor (N, O, columns) whose part here is `momentum_NOi`, sharing memory with it."""
        matrices, rows, _ = momentum_NOi.shape
        shape = torch.Size((matrices, rows, columns))
        stride = (rows * columns, columns, 1)
        return DTensor.from_local(
            momentum_NOi, self.mesh, [Shard(2)], run_check=False, shape=shape, stride=stride
        )

    def split(self, whole: Tensor, like: Tensor) -> Tensor:
        """`whole` split like `like`. All processes must pass the same `whole`; nothing is sent."""
        if not isinstance(like, DTensor):
            return whole
        return distribute_tensor(
            whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None
        )

    def orthogonalized(self, update_NOi: Tensor, dtype: torch.dtype) -> Tensor:
        """This process's columns (N, O, i) of the orthogonalized stack, in float32.

        Each process computes ceil(N / processes) of the matrices.
        """
        matrices, rows, columns = update_NOi.shape
        # The all-to-all sends blocks of one size, so zero matrices fill up the stack.
        each = -(-matrices // self.count)
        missing = each * self.count - matrices
        sent = F.pad(update_NOi.to(dtype), (0, 0, 0, 0, 0, missing)).contiguous()
        # Each process receives one block of columns of its matrices from every process.
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent, group=self.group)
        # (process, matrix, row, column) -> (matrix, row, process and column): whole matrices.
        whole = received.view(self.count, each, rows, columns).permute(1, 2, 0, 3).flatten(2)
        done = self._orthogonalize(whole, dtype).to(dtype)
        back = done.unflatten(2, (self.count, columns)).permute(2, 0, 1, 3).contiguous()
        dist.all_to_all_single(received, back, group=self.group)
        return received[:matrices].float()

    def total_norm(self, gradients: list[Tensor]) -> Tensor:
        """Norm of the whole gradients, from the parts in each process. Stays on the device."""
        # Parts are disjoint, so their squares add up to the square of the whole norm.
        squared = nn.utils.get_total_norm(gradients).square()
        dist.all_reduce(squared, group=self.group)
        return squared.sqrt()


def whole_model(model: GPT, *, keep: bool) -> GPT:
    """A copy on the host: with whole weights where `keep`, else with zeros.

    All processes must call it together, because each holds a part of every weight.
    """
    whole = GPT(model.config, model.vocab_size)
    with torch.no_grad():
        for (_, target), (_, part) in zip(
            whole.named_parameters(), model.named_parameters(), strict=True
        ):
            full = part.full_tensor() if isinstance(part, DTensor) else part
            target.copy_(full) if keep else target.zero_()
    return whole


def require_columns(model: GPT, count: int) -> None:
    """Raises WrongUsage where `count` does not divide the columns of every matrix."""
    # The all-to-all of `orthogonalized` exchanges blocks of equal size.
    uneven = {
        str(parameter.shape[1]): name.split(".", 2)[-1]
        for name, parameter in model.named_parameters()
        if split_dimension(name, parameter) == 1 and parameter.shape[1] % count
    }
    if uneven:
        raise WrongUsage(
            f"{count} processes cannot split every matrix by columns",
            problems=[Problem(f"{name} has {columns} columns") for columns, name in uneven.items()],
            fix="a number of processes that divides them, or --set runtime.sharding=replicated",
        )
