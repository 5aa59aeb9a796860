"""One optimizer step, as fast as the device allows, and the way of its loss to the host.

The step takes the largest micro-batch that fits, in one compiled graph, and never makes the host
wait for the device. Its gradients are those of the mean loss over all its targets, however the rows
are cut. A step that does not fit in the device's memory is taken again in smaller parts, and
nothing is lost. Does not choose rows or rates, and writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

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
from picochat.train.distributed import ONE_PROCESS, ProcessGroup
from picochat.train.loader import Batch
from picochat.train.parallel import open_strategy

LARGEST_GRADIENTS_FRACTION = 0.25
"""Of the machine's memory, what the gradients of all threads of a pool may take."""
POOL_TOKENS = 512
"""Tokens of one forward-backward in a thread of a pool: few enough to stay in the core's cache."""


class Engine:
    """Takes steps of `model`, and holds its optimizer and parallel strategy.

    `micro_batch`: sequences of one forward-backward; None: all rows of a step, until that proves
    too many. With several processes each takes its own rows of the step.
    """

    def __init__(
        self,
        model: GPT,
        config: TrainConfig,
        runtime: Runtime,
        *,
        fixed_shape: bool,
        micro_batch: int | None = None,
        group: ProcessGroup = ONE_PROCESS,
    ) -> None:
        self.model, self.runtime, self.group = model, runtime, group
        model.repeat_heads = runtime.repeat_heads
        self.micro_batch = micro_batch or config.micro_batch
        # Rows of changing length (SFT) would be compiled again for each length, which takes longer
        # than the stage itself.
        self.strategy = open_strategy(
            model, group, runtime.device, compiled=runtime.compiled and fixed_shape
        )
        # No pool for several processes, which share the work already and wait for each other inside
        # a step, nor for a compiled step, whose kernels have parallel loops of their own.
        pool = runtime.pool if group.size == 1 and not runtime.compiled else ONE_THREAD
        # Each thread keeps gradients of the whole model until all are done.
        self._pool = pool if _fits_in_memory(pool.size, model) else ONE_THREAD
        self.optimizer = Optimizer(
            model,
            config,
            compiled=runtime.compiled,
            pool=self._pool,
            sharding=self.strategy.sharding,
            products=runtime.dtype,
        )

    def step(self, batch: Batch, lr_fraction: float) -> tuple[Tensor, Tensor]:
        """Train on `batch` at `lr_fraction` of the peak rates.

        Returns (loss, gradient norm). Both are scalars on the device: the mean loss in nats per
        target, and the global norm before clipping. With several processes the losses of all of
        them add up to the mean loss.
        """
        loss = self.gradients(batch)
        return loss, self.optimizer.step(lr_fraction)

    def gradients(self, batch: Batch) -> Tensor:
        """Leave the gradients of the step's mean loss in the model, and return that loss."""
        while True:
            try:
                return self._gradients_in_parts(batch)
            except torch.OutOfMemoryError:
                pass  # leave this block first: its traceback holds the tensors of the failed step
            self._halve_micro_batch(len(batch.ids_BT))

    def _gradients_in_parts(self, batch: Batch) -> Tensor:
        if self._pool.size > 1:
            return self._gradients_in_pool(batch)
        count, total = max(1, batch.target_count), len(batch.ids_BT)
        rows, scale = self.micro_batch or total, self.strategy.loss_scale
        losses: list[Tensor] = []
        for start in range(0, total, rows):
            part = batch.rows(slice(start, start + rows))
            last = start + rows >= total
            # The backward pass is inside as well: recomputed blocks must use the same kernel.
            with self.runtime.attention(), self.strategy.micro_batch(last=last):
                loss = self.strategy.loss_sum(
                    part.ids_BT, part.targets_BT, self.runtime.dtype, part.shares
                )
                loss = loss / count
                (loss * scale if scale != 1 else loss).backward()
            losses.append(loss.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _gradients_in_pool(self, batch: Batch) -> Tensor:
        """Each thread takes some of the rows; gradients are added at the end, in the rows' order.

        The order makes the sums the same bits each time, whichever thread is faster.
        """
        parameters = list(self.model.parameters())
        # The choice of kernel is a setting of the process, so it is made once around all threads.
        with self.runtime.attention():
            done = self._pool.map(
                lambda part: self._thread_gradients(batch.rows(part), parameters),
                self._pool.slices(len(batch.ids_BT)),
            )
        for number, parameter in enumerate(parameters):
            first, *others = (gradients[number] for _, gradients in done)
            parameter.grad = sum(others, first)
        return torch.stack([loss for loss, _ in done]).sum()

    def _thread_gradients(
        self, batch: Batch, parameters: list[nn.Parameter]
    ) -> tuple[Tensor, list[Tensor]]:
        """(loss, gradients) of these rows. Several threads run this at once."""
        rows = self.micro_batch or max(1, POOL_TOKENS // batch.ids_BT.shape[1])
        losses: list[Tensor] = []
        summed: list[Tensor] = []
        for start in range(0, len(batch.ids_BT), rows):
            part = batch.rows(slice(start, start + rows))
            loss = self.strategy.loss_sum(
                part.ids_BT, part.targets_BT, self.runtime.dtype, part.shares
            )
            loss = loss / max(1, batch.target_count)
            # Not `backward`: it would add to the model's own gradients from all threads at once.
            gradients = torch.autograd.grad(loss, parameters)
            if summed:
                summed = [s.add_(g) for s, g in zip(summed, gradients, strict=True)]
            else:
                summed = list(gradients)
            losses.append(loss.detach())
        return torch.stack(losses).sum(), summed

    def _halve_micro_batch(self, total: int) -> None:
        """Halve the micro-batch and drop the gradients of the failed step.

        Raises HostProblem where one sequence does not fit, and with several processes always: they
        are in the middle of an exchange, which cannot be started again.
        """
        rows = min(self.micro_batch or total, total)
        if self.group.size > 1:
            raise HostProblem(
                f"{rows} sequences at a time do not fit in the memory of the device of process"
                f" {self.group.rank}",
                fix=(
                    f"--set base.micro_batch={max(1, rows // 2)}; in the SFT stage --set"
                    f" sft.micro_batch={max(1, rows // 2)}"
                ),
            )
        # Parts that fitted have left gradients, and the allocator's blocks have the failed size.
        self.model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        if rows == 1:
            raise HostProblem(
                "one sequence does not fit in the device's memory",
                fix="a smaller --scale, or --set runtime.activation_checkpointing=true",
            )
        self.micro_batch = -(-rows // 2)
        say(
            f"{rows} sequences at a time do not fit in the device's memory; going on with"
            f" {self.micro_batch}"
        )


def _fits_in_memory(copies: int, model: GPT) -> bool:
    """Whether so many copies of the gradients leave enough of the machine's memory for the rest."""
    gradient_bytes = sum(
        parameter.numel() * parameter.element_size() for parameter in model.parameters()
    )
    machine = memory_bytes()
    return machine is not None and copies * gradient_bytes <= LARGEST_GRADIENTS_FRACTION * machine


# ---- losses, on their way from the device to the host --------------------------------------------


@dataclass(frozen=True)
class StepResult:
    """One finished step, read from the device.

    `step`: counted from 1. `tokens`: since the stage began. `lr_fraction`: of the peak rate.
    """

    step: int
    loss: float
    grad_norm: float
    lr_fraction: float
    tokens: int


@dataclass(frozen=True)
class _Transfer:
    """Losses and norms (N, 2) of some steps on their way to the host.

    `steps`: (step, lr_fraction, tokens) of each row. `ready`: None where `values` lie on the host.
    """

    steps: list[tuple[int, float, int]]
    values: Tensor
    ready: torch.cuda.Event | None

    def results(self) -> list[StepResult]:
        if self.ready is not None:
            self.ready.synchronize()
        return [
            StepResult(step, loss, norm, fraction, tokens)
            for (step, fraction, tokens), (loss, norm) in zip(
                self.steps, self.values.tolist(), strict=True
            )
        ]


class LossQueue:
    """Losses and gradient norms of finished steps, fetched without a wait for the device.

    Reading a loss at once would make the host wait until the step is done, and the device would
    then wait for the host. So all since the last fetch are copied in one transfer, and what an
    earlier fetch asked for is read. Processes fetch together: losses are summed over all of them.
    """

    def __init__(self, group: ProcessGroup = ONE_PROCESS) -> None:
        self._group = group
        self._steps: list[tuple[int, float, int]] = []
        self._values: list[Tensor] = []
        self._transfers: list[_Transfer] = []

    def add(
        self, step: int, loss: Tensor, grad_norm: Tensor, lr_fraction: float, tokens: int
    ) -> None:
        self._steps.append((step, lr_fraction, tokens))
        self._values.append(torch.stack((loss, grad_norm.to(loss))))

    def fetch(self, *, wait: bool) -> list[StepResult]:
        """Results that have arrived, in order: all of them where `wait` or without a GPU.

        Otherwise those of the newest transfer are left for the next call.
        """
        self._start_transfer()
        newest_is_late = self._transfers and self._transfers[-1].ready is not None and not wait
        count = len(self._transfers) - 1 if newest_is_late else len(self._transfers)
        arrived, self._transfers = self._transfers[:count], self._transfers[count:]
        return [result for transfer in arrived for result in transfer.results()]

    def clear(self) -> None:
        """Forget what was not fetched."""
        self._steps, self._values, self._transfers = [], [], []

    def _start_transfer(self) -> None:
        if not self._values:
            return
        values = torch.stack(self._values)
        if self._group.size > 1:
            # Norms are global already; losses are each process's part of the mean.
            values[:, 0] = self._group.all_sum_(values[:, 0].clone())
        ready: torch.cuda.Event | None = None
        if values.is_cuda:
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            host.copy_(values, non_blocking=True)
            ready = torch.cuda.Event()
            ready.record()
            values = host
        self._transfers.append(_Transfer(self._steps, values, ready))
        self._steps, self._values = [], []
