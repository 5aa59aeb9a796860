"""Where a step's rows come from, and how they reach the device without the step waiting for them.

Promises: the rows of a step follow from its number alone; on a device that holds the tokens, the
step moves row numbers and no tokens; otherwise the next step's rows are made while this one trains.
Does not choose the rows (tokens/row_order.py).

Shape suffixes: B rows, T positions.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from picochat.model.gpt import IGNORED_TARGET
from picochat.tokens.row_order import rows_of_step
from picochat.tokens.shards import TOKEN_BYTES, TokenStream
from picochat.train.ranks import ALONE, Ranks

LARGEST_DEVICE_SHARE = 0.25
"""Share of the device's free memory that tokens may take; above it they stay on the host."""
UPLOAD_TOKENS = 1 << 26


@dataclass(frozen=True)
class Batch:
    """One step's rows on the host: ids (B, T) and targets (B, T), IGNORED_TARGET where nothing is
    learned.
    """

    ids_BT: np.ndarray
    targets_BT: np.ndarray


@dataclass(frozen=True)
class Fed:
    """This process's rows of one step on the device, and how many targets of all the step's rows
    count.
    """

    ids_BT: Tensor
    targets_BT: Tensor
    targets: int


class Feed(Protocol):
    """`fixed_shape`: every step has the same B and T, so that a step is compiled once."""

    @property
    def fixed_shape(self) -> bool: ...

    def step(self, number: int) -> Fed:
        """The rows of step `number`, counted from 0."""
        ...

    def close(self) -> None: ...


class HostFeed:
    """Rows that `batch_of` makes on the host, one step ahead in a thread.

    Of several processes, each moves its share.
    """

    def __init__(
        self,
        batch_of: Callable[[int], Batch],
        device: torch.device,
        *,
        fixed_shape: bool,
        ranks: Ranks = ALONE,
    ) -> None:
        self.batch_of, self.device, self.fixed_shape, self.ranks = (
            batch_of,
            device,
            fixed_shape,
            ranks,
        )
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rows")
        self._ahead: tuple[int, Future[Fed]] | None = None

    def step(self, number: int) -> Fed:
        made = (
            self._ahead[1]
            if self._ahead and self._ahead[0] == number
            else self._thread.submit(self._make, number)
        )
        fed = made.result()
        self._ahead = (number + 1, self._thread.submit(self._make, number + 1))
        return fed if self.device.type == "cpu" else self._moved(fed)

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _make(self, number: int) -> Fed:
        batch = self.batch_of(number)
        targets = int((batch.targets_BT != IGNORED_TARGET).sum())
        share = self.ranks.share(len(batch.ids_BT))
        return Fed(
            torch.from_numpy(batch.ids_BT[share]),
            torch.from_numpy(batch.targets_BT[share]),
            targets,
        )

    def _moved(self, fed: Fed) -> Fed:
        # From pinned memory the copy does not wait for the steps that the device still works on.
        ids, targets = (
            x.pin_memory().to(self.device, non_blocking=True) for x in (fed.ids_BT, fed.targets_BT)
        )
        return Fed(ids, targets, fed.targets)


class DeviceFeed:
    """Rows cut on the device from the whole training stream, which lies there as 16-bit numbers."""

    fixed_shape = True

    def __init__(
        self,
        stream: TokenStream,
        context: int,
        rows_per_step: int,
        seed: int,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        self.context, self.rows_per_step, self.seed, self.device, self.ranks = (
            context,
            rows_per_step,
            seed,
            device,
            ranks,
        )
        self.row_count = stream.row_count(context)
        self._tokens = _uploaded(stream, device)
        self._offsets_T = torch.arange(context + 1, device=device)

    def step(self, number: int) -> Fed:
        rows = rows_of_step(number, self.rows_per_step, self.row_count, self.seed)
        rows_B = torch.from_numpy(rows[self.ranks.share(self.rows_per_step)])
        if self.device.type == "cuda":
            rows_B = rows_B.pin_memory().to(self.device, non_blocking=True)
        block = (
            self._tokens[rows_B[:, None] * self.context + self._offsets_T].to(torch.int64) & 0xFFFF
        )
        return Fed(block[:, :-1], block[:, 1:], self.rows_per_step * self.context)

    def close(self) -> None:
        pass


def feed_of_stream(
    stream: TokenStream,
    context: int,
    rows_per_step: int,
    seed: int,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Feed:
    """Next-token rows of the stream: from the device where it is a GPU with room for all tokens,
    else from the host.
    """
    if device.type == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info(device)
        if TOKEN_BYTES * len(stream) <= LARGEST_DEVICE_SHARE * free_bytes:
            return DeviceFeed(stream, context, rows_per_step, seed, device, ranks)
    rows = stream.row_count(context)
    return HostFeed(
        lambda step: next_token_batch(
            stream, rows_of_step(step, rows_per_step, rows, seed), context
        ),
        device,
        fixed_shape=True,
        ranks=ranks,
    )


def next_token_batch(stream: TokenStream, rows: np.ndarray, context: int) -> Batch:
    """`context` inputs of each row and the `context` tokens that follow them, BOS targets included."""
    block = stream.rows(rows, context)
    return Batch(np.ascontiguousarray(block[:, :-1]), np.ascontiguousarray(block[:, 1:]))


def _uploaded(stream: TokenStream, device: torch.device) -> Tensor:
    """(len(stream),) int16 on the device: the bits of the uint16 ids, for which torch has few
    operations.
    """
    tokens = torch.empty(len(stream), dtype=torch.int16, device=device)
    for start in range(0, len(stream), UPLOAD_TOKENS):
        stop = min(len(stream), start + UPLOAD_TOKENS)
        tokens[start:stop].copy_(torch.from_numpy(stream.slice(start, stop).view(np.int16).copy()))
    return tokens
