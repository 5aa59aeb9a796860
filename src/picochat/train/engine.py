"""One optimizer step, as fast as the device allows: the largest micro-batch that fits, one compiled
graph, no host sync.

Promises: the gradients of a step are those of the mean loss over all its targets, however its rows
are cut; a step that does not fit in the device's memory is taken again in smaller parts, and
nothing is lost; loss and gradient norm stay on the device. With several processes each takes its
rows of the step, the gradients are those of all rows, and the loss is this process's share. Does
not know what is trained on, nor the schedule.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from picochat.config import TrainConfig
from picochat.core.errors import HostProblem
from picochat.core.machine import memory_bytes
from picochat.core.progress import say
from picochat.model.gpt import GPT
from picochat.model.optim import Optimizer
from picochat.model.runtime import Runtime
from picochat.model.thread_pool import ONE_THREAD
from picochat.train.feed import Fed
from picochat.train.layout import lay_out
from picochat.train.ranks import ALONE, Ranks

LARGEST_GRADIENTS_SHARE = 0.25
"""Share of the machine's memory that the gradients of a whole crew may take."""

CREW_TOKENS = 512
"""Tokens of one forward-backward of each in a crew: few enough to stay near the core."""


class Engine:
    """`micro_batch`: sequences of one forward-backward.

    None: all rows of a step, until that proves too many.
    """

    def __init__(
        self,
        model: GPT,
        config: TrainConfig,
        compute: Runtime,
        *,
        fixed_shape: bool,
        micro_batch: int | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model, self.compute, self.ranks = model, compute, ranks
        model.repeat_heads = compute.repeat_heads
        self.micro_batch = micro_batch or config.micro_batch
        # Rows of changing length would be compiled again for each length: longer than the stage
        # itself takes.
        self.layout = lay_out(
            model, ranks, compute.device, compiled=compute.compiled and fixed_shape
        )
        # Processes share the work already, and wait for each other inside the step; a compiled step
        # has loops of its own.
        crew = compute.pool if ranks.count == 1 and not compute.compiled else ONE_THREAD
        self._crew = crew if _room_for(crew.size, model) else ONE_THREAD
        self.optimizer = Optimizer(
            model, config, compiled=compute.compiled, pool=self._crew, sharding=self.layout.sharding
        )

    def step(self, fed: Fed, lr_share: float) -> tuple[Tensor, Tensor]:
        """(mean loss in nats per target, global gradient norm before clipping), both scalars on the
        device.

        With several processes the losses of all of them add up to the mean loss.
        """
        loss = self.gradients(fed)
        return loss, self.optimizer.step(lr_share)

    def gradients(self, fed: Fed) -> Tensor:
        """Leave the gradients of the step's mean loss in the model.

        Returns that loss, on the device.
        """
        while True:
            try:
                return self._gradients_in_parts(fed)
            except torch.OutOfMemoryError:
                pass  # its traceback holds the tensors of the step until this block is left
            self._halve(len(fed.ids_BT))

    def _gradients_in_parts(self, fed: Fed) -> Tensor:
        if self._crew.size > 1:
            return self._gradients_by_crew(fed)
        count, total = max(1, fed.targets), len(fed.ids_BT)
        rows = self.micro_batch or total
        losses: list[Tensor] = []
        for start in range(0, total, rows):
            part = slice(start, start + rows)
            # The backward pass is inside: it may compute blocks again, and must do so in the same
            # way.
            with self.compute.attention(), self.layout.part(last=start + rows >= total):
                share = (
                    self.layout.loss_sum(fed.ids_BT[part], fed.targets_BT[part], self.compute.dtype)
                    / count
                )
                (share * self.layout.scale if self.layout.scale != 1 else share).backward()
            losses.append(share.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _gradients_by_crew(self, fed: Fed) -> Tensor:
        """Each of the crew takes its share of the rows, and keeps their gradients to itself until
        all are done.
        """
        parameters, crew = list(self.model.parameters()), self._crew

        def work(part: slice) -> tuple[Tensor, list[Tensor]]:
            own = Fed(fed.ids_BT[part], fed.targets_BT[part], fed.targets)
            return self._own_gradients(own, parameters)

        with self.compute.attention():
            done = crew.map(work, crew.slices(len(fed.ids_BT)))
        for number, parameter in enumerate(parameters):
            first, *others = (gradients[number] for _, gradients in done)
            parameter.grad = sum(others, first)
        return torch.stack([loss for loss, _ in done]).sum()

    def _own_gradients(
        self, fed: Fed, parameters: list[nn.Parameter]
    ) -> tuple[Tensor, list[Tensor]]:
        """(loss, gradients) of these rows, nothing left in the model: several threads do this at
        once.
        """
        rows = self.micro_batch or max(1, CREW_TOKENS // fed.ids_BT.shape[1])
        losses: list[Tensor] = []
        summed: list[Tensor] = []
        for start in range(0, len(fed.ids_BT), rows):
            part = slice(start, start + rows)
            share = self.layout.loss_sum(
                fed.ids_BT[part], fed.targets_BT[part], self.compute.dtype
            ) / max(1, fed.targets)
            gradients = torch.autograd.grad(share, parameters)
            summed = (
                [s.add_(g) for s, g in zip(summed, gradients, strict=True)]
                if summed
                else list(gradients)
            )
            losses.append(share.detach())
        return torch.stack(losses).sum(), summed

    def _halve(self, total: int) -> None:
        """A smaller micro-batch, with the half-made gradients gone. Raises HostProblem where one
        sequence is too many.

        Several processes are in the middle of an exchange, which cannot be taken again: HostProblem
        as well.
        """
        rows = min(self.micro_batch or total, total)
        if self.ranks.count > 1:
            raise HostProblem(
                f"{rows} sequences at a time do not fit in the memory of the device of process"
                f" {self.ranks.rank}",
                fix=(
                    f"--set base.micro_batch={max(1, rows // 2)} (or sft.micro_batch, in the SFT"
                    " stage)"
                ),
            )
        self.model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        if rows == 1:
            raise HostProblem(
                "one sequence does not fit in the device's memory",
                fix="a smaller model, a shorter context, or a larger device",
            )
        self.micro_batch = -(-rows // 2)
        say(
            f"{rows} sequences at a time do not fit in the device's memory; going on with"
            f" {self.micro_batch}"
        )


def _room_for(copies: int, model: GPT) -> bool:
    """Whether `copies` of the model's gradients leave enough of the machine's memory to everything
    else.
    """
    gradient_bytes = sum(
        parameter.numel() * parameter.element_size() for parameter in model.parameters()
    )
    machine = memory_bytes()
    return machine is not None and copies * gradient_bytes <= LARGEST_GRADIENTS_SHARE * machine
