"""One optimizer step, as fast as the device allows: the largest micro-batch that fits, one compiled graph, no host sync.

Promises: the gradients of a step are those of the mean loss over all its targets, however its rows are cut; a step that does
not fit in the device's memory is taken again in smaller parts, and nothing is lost; loss and gradient norm stay on the device.
Does not know what is trained on, nor the schedule.
"""

from __future__ import annotations

import torch
from torch import Tensor

from picochat.config import TrainConfig
from picochat.core.errors import HostProblem
from picochat.core.progress import say
from picochat.model.compute import Compute
from picochat.model.gpt import GPT
from picochat.model.optim import Optimizer
from picochat.train.feed import Fed


class Engine:
    """`rows`: the micro-batch, sequences of one forward-backward. None: all rows of a step, until that proves too many."""

    def __init__(
        self, model: GPT, config: TrainConfig, compute: Compute, *, fixed_shape: bool, rows: int | None = None
    ) -> None:
        self.model, self.compute = model, compute
        model.repeat_heads = compute.repeat_heads
        self.rows = rows or config.micro_batch
        self.optimizer = Optimizer(model, config, compiled=compute.compiled)
        # Rows of changing length would be compiled again for each length: longer than the stage itself takes.
        compiled = compute.compiled and fixed_shape
        self.loss_sum = torch.compile(model.loss_sum, dynamic=False, fullgraph=True) if compiled else model.loss_sum

    def step(self, fed: Fed, lr_share: float) -> tuple[Tensor, Tensor]:
        """(mean loss in nats per target, global gradient norm before clipping), both scalars on the device."""
        loss = self._fitting_gradients(fed)
        return loss, self.optimizer.step(lr_share)

    def _fitting_gradients(self, fed: Fed) -> Tensor:
        while True:
            try:
                return self._gradients(fed)
            except torch.OutOfMemoryError:
                self._halve(len(fed.ids_BT))

    def _gradients(self, fed: Fed) -> Tensor:
        count, total = max(1, fed.targets), len(fed.ids_BT)
        rows = self.rows or total
        losses: list[Tensor] = []
        for start in range(0, total, rows):
            part = slice(start, start + rows)
            with self.compute.attention():
                share = self.loss_sum(fed.ids_BT[part], fed.targets_BT[part], self.compute.dtype) / count
            share.backward()
            losses.append(share.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _halve(self, total: int) -> None:
        """A smaller micro-batch, with the half-made gradients gone. Raises HostProblem where one sequence is too many."""
        self.model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        rows = min(self.rows or total, total)
        if rows == 1:
            raise HostProblem(
                "one sequence does not fit in the device's memory", fix="a smaller model, a shorter context, or a larger device"
            )
        self.rows = -(-rows // 2)
        say(f"{rows} sequences at a time do not fit in the device's memory; going on with {self.rows}")
