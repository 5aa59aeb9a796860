"""Where a step's rows come from, and how they reach the device without the step waiting for them.

The rows of a step follow from its number alone, so a resumed run needs no data state. On a GPU that
holds the tokens, a step moves row numbers and no tokens; otherwise a thread makes the next step's
rows while this one trains. Does not choose the rows (tokens/row_order.py).

Shape suffixes: B rows, T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from picochat.config import SftConfig
from picochat.model.gpt import IGNORED_TARGET, Shares
from picochat.tokens.chat_format import Conversations
from picochat.tokens.row_order import rows_of_step
from picochat.tokens.shards import TOKEN_BYTES, TokenStream
from picochat.train.distributed import ONE_PROCESS, ProcessGroup

LARGEST_DEVICE_FRACTION = 0.25
"""Of the device's free memory, what tokens may take; if they need more they stay on the host."""
UPLOAD_TOKENS = 1 << 26
PAD_TO_MULTIPLE = 32
"""Conversations are padded to few different lengths, so that buffers of one step fit the next."""


@dataclass(frozen=True)
class Batch:
    """Rows of one step: ids (B, T), and targets (B, T) with IGNORED_TARGET where none is learned.

    `target_count`: targets of the whole step that are learned, the divisor of its mean loss. The
    rows may be a part of the step, of one process or one micro-batch. `shares`: None where targets
    belong to the tokens that follow alone.
    """

    ids_BT: Tensor
    targets_BT: Tensor
    target_count: int
    shares: Shares | None = None

    def rows(self, part: slice) -> Batch:
        """Some of the rows, with the target count of the whole step."""
        return self.changed(lambda tensor: tensor[part])

    def changed(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same step with another form of each tensor."""
        shares = self.shares
        return Batch(
            change(self.ids_BT),
            change(self.targets_BT),
            self.target_count,
            shares and Shares(change(shares.ids_BTK), change(shares.share_BTK)),
        )


def host_batch(ids_BT: np.ndarray, targets_BT: np.ndarray) -> Batch:
    """A whole batch on the host, which counts its own targets. Shares memory with the arrays."""
    count = int((targets_BT != IGNORED_TARGET).sum())
    return Batch(torch.from_numpy(ids_BT), torch.from_numpy(targets_BT), count)


class Loader(Protocol):
    """`fixed_shape`: every step has the same B and T, so that a step is compiled once."""

    @property
    def fixed_shape(self) -> bool: ...

    def batch(self, step: int) -> Batch:
        """This process's rows of step `step` (from 0), on the device."""
        ...

    def close(self) -> None: ...


class HostLoader:
    """Rows that `batch_of` makes on the host, one step ahead in a thread.

    batch_of: gives all rows of a step; each process moves its own part to the device.
    """

    def __init__(
        self,
        batch_of: Callable[[int], Batch],
        device: torch.device,
        *,
        fixed_shape: bool,
        group: ProcessGroup = ONE_PROCESS,
    ) -> None:
        self.batch_of, self.device, self.fixed_shape = batch_of, device, fixed_shape
        self.group = group
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rows")
        self._ahead: tuple[int, Future[Batch]] | None = None

    def batch(self, step: int) -> Batch:
        if self._ahead and self._ahead[0] == step:
            made = self._ahead[1]
        else:  # the first step, or one that a rollback jumps to
            made = self._thread.submit(self._own_rows, step)
        batch = made.result()
        self._ahead = (step + 1, self._thread.submit(self._own_rows, step + 1))
        if self.device.type == "cpu":
            return batch
        # From pinned memory the copy does not wait for the steps that the device still works on.
        return batch.changed(lambda tensor: tensor.pin_memory().to(self.device, non_blocking=True))

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _own_rows(self, step: int) -> Batch:
        batch = self.batch_of(step)
        return batch.rows(self.group.own_slice(len(batch.ids_BT)))


class DeviceLoader:
    """Next-token rows cut on the device, where the whole training stream lies as 16-bit numbers."""

    fixed_shape = True

    def __init__(
        self,
        stream: TokenStream,
        context: int,
        rows_per_step: int,
        seed: int,
        device: torch.device,
        group: ProcessGroup = ONE_PROCESS,
    ) -> None:
        self.context, self.rows_per_step, self.seed = context, rows_per_step, seed
        self.device, self.group = device, group
        self.row_count = stream.row_count(context)
        self._tokens = _uploaded(stream, device)
        self._offsets_T = torch.arange(context + 1, device=device)

    def batch(self, step: int) -> Batch:
        rows = rows_of_step(step, self.rows_per_step, self.row_count, self.seed)
        rows_B = torch.from_numpy(rows[self.group.own_slice(self.rows_per_step)])
        if self.device.type == "cuda":
            rows_B = rows_B.pin_memory().to(self.device, non_blocking=True)
        block = self._tokens[rows_B[:, None] * self.context + self._offsets_T]
        # The stream is stored as int16; ids above 32,767 are negative until masked.
        block = block.to(torch.int64) & 0xFFFF
        # Every target counts here, so no count has to come back from the device.
        return Batch(block[:, :-1], block[:, 1:], self.rows_per_step * self.context)

    def close(self) -> None:
        pass


def stream_loader(
    stream: TokenStream,
    context: int,
    rows_per_step: int,
    seed: int,
    device: torch.device,
    group: ProcessGroup = ONE_PROCESS,
    teach: Callable[[int, np.ndarray, Batch], Batch] | None = None,
) -> Loader:
    """Next-token rows of a stream, cut on a GPU with room for all tokens, else made on the host.

    teach: gives the rows of a step, by its number and theirs, their shares, on the host.
    """
    # On a CPU a copy of the tokens would gain nothing: the host's are as near.
    if device.type == "cuda" and teach is None:
        free_bytes, _ = torch.cuda.mem_get_info(device)
        if TOKEN_BYTES * len(stream) <= LARGEST_DEVICE_FRACTION * free_bytes:
            return DeviceLoader(stream, context, rows_per_step, seed, device, group)
    rows = stream.row_count(context)

    def batch_of(step: int) -> Batch:
        chosen = rows_of_step(step, rows_per_step, rows, seed)
        batch = next_token_batch(stream, chosen, context)
        return teach(step, chosen, batch) if teach else batch

    return HostLoader(batch_of, device, fixed_shape=True, group=group)


def next_token_batch(stream: TokenStream, rows: np.ndarray, context: int) -> Batch:
    """For each row `context` inputs and the tokens that follow them, BOS targets included."""
    return shifted_batch(stream.rows(rows, context))


def shifted_batch(block: np.ndarray) -> Batch:
    """Rows of T + 1 ids as T inputs and the T ids that follow them."""
    return host_batch(np.ascontiguousarray(block[:, :-1]), np.ascontiguousarray(block[:, 1:]))


def padded_batch(
    rows: Conversations, indices: Sequence[int] | np.ndarray, pad: int, context: int
) -> Batch:
    """Conversations as one block (B, T), padded on the right, with targets where the mask is set.

    T is the longest length, rounded up to PAD_TO_MULTIPLE but to no more than the context.
    """
    longest = max(len(rows.ids(int(i))) for i in indices) - 1
    length = min(-(-longest // PAD_TO_MULTIPLE) * PAD_TO_MULTIPLE, context)
    ids_BT = np.full((len(indices), length), pad, dtype=np.int64)
    targets_BT = np.full((len(indices), length), IGNORED_TARGET, dtype=np.int64)
    for row, index in enumerate(indices):
        ids, mask = rows.ids(int(index)).astype(np.int64), rows.mask(int(index))
        ids_BT[row, : len(ids) - 1] = ids[:-1]
        targets_BT[row, : len(ids) - 1] = np.where(mask[1:], ids[1:], IGNORED_TARGET)
    return host_batch(ids_BT, targets_BT)


def sft_batch(
    step: int,
    conversations: Conversations,
    text: TokenStream | None,
    sft: SftConfig,
    pad: int,
    context: int,
    seed: int,
) -> Batch:
    """The rows of an SFT step: conversations, then rows of text of the same length.

    text: None where the steps have no text.
    """
    chosen = rows_of_step(step, sft.conversations_per_step, len(conversations), seed)
    batch = padded_batch(conversations, chosen, pad, context)
    if text is None:
        return batch
    length = batch.ids_BT.shape[1]
    chosen = rows_of_step(step, sft.text_sequences, text.row_count(length), seed)
    shown = next_token_batch(text, chosen, length)
    return Batch(
        torch.cat((batch.ids_BT, shown.ids_BT)),
        torch.cat((batch.targets_BT, shown.targets_BT)),
        batch.target_count + shown.target_count,
    )


def _uploaded(stream: TokenStream, device: torch.device) -> Tensor:
    """(len(stream),) int16 on the device: the bits of the uint16 ids.

    torch has few operations for uint16.
    """
    tokens = torch.empty(len(stream), dtype=torch.int16, device=device)
    for start in range(0, len(stream), UPLOAD_TOKENS):
        stop = min(len(stream), start + UPLOAD_TOKENS)
        tokens[start:stop].copy_(torch.from_numpy(stream.slice(start, stop).view(np.int16).copy()))
    return tokens
