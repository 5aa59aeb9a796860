"""Losses of finished steps on their way from the device to the host.

Those since the last report are asked for in one transfer, and those that were asked for earlier are
read: the device never waits to be read. Writes nothing (train/live.py), judges nothing
(train/spikes.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from picochat.train.ranks import ALONE, Ranks


@dataclass(frozen=True)
class StepResult:
    """One finished step, read from the device.

    `step` counts from 1, `tokens` from the start; `lr_share` is of the peak rate.
    """

    step: int
    loss: float
    grad_norm: float
    lr_share: float
    tokens: int


@dataclass(frozen=True)
class _Asked:
    """Losses on their way to the host: `ready` is None where they are there already.

    One (step, lr_share, tokens) a row.
    """

    steps: list[tuple[int, float, int]]
    values: Tensor
    ready: torch.cuda.Event | None


class LossQueue:
    """Losses and gradient norms of finished steps, fetched without making the device wait.

    Of several processes each adds its share of a loss; what is fetched is summed over all, which
    therefore fetch together.
    """

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self._steps: list[tuple[int, float, int]] = []
        self._values: list[Tensor] = []
        self._asked: list[_Asked] = []

    def add(self, step: int, loss: Tensor, grad_norm: Tensor, lr_share: float, tokens: int) -> None:
        self._steps.append((step, lr_share, tokens))
        self._values.append(torch.stack((loss, grad_norm.to(loss))))

    def fetch(self, *, wait: bool) -> list[StepResult]:
        """Steps whose losses are here, in order: all where `wait` or where they are on the host,
        else all but the newest ask.
        """
        self._ask()
        late = (
            len(self._asked) - 1
            if self._asked and self._asked[-1].ready is not None and not wait
            else len(self._asked)
        )
        here, self._asked = self._asked[:late], self._asked[late:]
        return [result for asked in here for result in _read(asked)]

    def clear(self) -> None:
        """Forget what was not read."""
        self._steps, self._values, self._asked = [], [], []

    def _ask(self) -> None:
        if not self._values:
            return
        values = torch.stack(self._values)
        if self._ranks.count > 1:
            values[:, 0] = self._ranks.sum_(values[:, 0].clone())
        ready: torch.cuda.Event | None = None
        if values.is_cuda:
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            host.copy_(values, non_blocking=True)
            ready = torch.cuda.Event()
            ready.record()
            values = host
        self._asked.append(_Asked(self._steps, values, ready))
        self._steps, self._values = [], []


def _read(asked: _Asked) -> list[StepResult]:
    if asked.ready is not None:
        asked.ready.synchronize()
    rows = zip(asked.steps, asked.values.tolist(), strict=True)
    return [
        StepResult(step, loss, norm, lr_share, tokens)
        for (step, lr_share, tokens), (loss, norm) in rows
    ]
