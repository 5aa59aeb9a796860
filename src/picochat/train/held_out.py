"""The held-out loss: each target of the held-out set once, in nats and in bits per byte of text.

Bits per byte are the summed loss over all targets but BOS, divided by the UTF-8 bytes of the
held-out documents and by ln 2, so that models with different tokenizers compare. Rows are cut every
`context` tokens, so a token near the start of a row has a short memory: with its full context
everywhere the model would score slightly better. Does not decide when to evaluate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from picochat.model.gpt import GPT, IGNORED_TARGET
from picochat.model.runtime import Runtime
from picochat.model.thread_pool import ONE_THREAD
from picochat.tokens.chat_format import Conversations
from picochat.tokens.shards import TokenStream
from picochat.train.distributed import ONE_PROCESS, ProcessGroup
from picochat.train.loader import Batch, host_batch, padded_batch

TOKENS_PER_FORWARD = {"cuda": 16_384, "cpu": 2_048}
"""By kind of device. On a CPU each core has a batch of its own, and its logits fill the memory."""


@dataclass(frozen=True)
class HeldOut:
    """The loss on a stage's whole held-out set, in nats per target.

    `loss`: None where nothing is held out. `bits_per_byte`: of raw text; None where its bytes are
    not counted, or there are none.
    """

    loss: float | None
    bits_per_byte: float | None


def rows_per_forward(device: torch.device, context: int) -> int:
    return max(1, TOKENS_PER_FORWARD[device.type] // context)


def stream_batches(stream: TokenStream, context: int, bos: int, rows: int) -> Iterator[Batch]:
    """The whole stream in batches of `rows` rows of `context` targets; the last row is short.

    BOS is never a target.
    """
    full = stream.row_count(context)
    for start in range(0, full, rows):
        tokens = stream.rows(np.arange(start, min(full, start + rows)), context).astype(np.int64)
        targets = np.where(tokens[:, 1:] == bos, IGNORED_TARGET, tokens[:, 1:])
        yield host_batch(tokens[:, :-1], targets)
    tail = stream.slice(full * context, len(stream)).astype(np.int64)
    if len(tail) > 1:
        targets = np.where(tail[1:] == bos, IGNORED_TARGET, tail[1:])
        yield host_batch(tail[None, :-1], targets[None])


def conversation_batches(
    conversations: Conversations, pad: int, rows: int, context: int
) -> Iterator[Batch]:
    """All conversations in order, `rows` in a batch."""
    for start in range(0, len(conversations), rows):
        batch = range(start, min(len(conversations), start + rows))
        yield padded_batch(conversations, batch, pad, context)


def summed_loss(
    model: GPT, batches: Iterator[Batch], runtime: Runtime, group: ProcessGroup = ONE_PROCESS
) -> tuple[float, int]:
    """(nats summed over the targets, number of targets), the same in every process.

    Processes take the batches in turns.
    """

    def nats_of(batch: Batch) -> float:
        ids_BT = batch.ids_BT.to(runtime.device)
        targets_BT = batch.targets_BT.to(runtime.device)
        with torch.no_grad():  # a setting of the thread, so the caller's does not reach a pool's
            return float(model.loss_sum(ids_BT, targets_BT, runtime.dtype))

    everything = list(batches)
    if not everything:
        return 0.0, 0
    # All processes compute in every turn, because sharded weights are gathered by all of them: in
    # the last turn some repeat the last batch, and its result is left out below.
    mine = range(group.rank, -(-len(everything) // group.size) * group.size, group.size)
    pool = runtime.pool if group.size == 1 else ONE_THREAD
    own = pool.map(nats_of, [everything[min(number, len(everything) - 1)] for number in mine])
    # Each batch has a place of its own and fsum adds exactly, so equal weights give equal sums with
    # any number of processes.
    nats = torch.zeros(len(everything), dtype=torch.float64)
    for number, value in zip(mine, own, strict=True):
        if number < len(everything):
            nats[number] = value
    targets = sum(batch.target_count for batch in everything)
    return math.fsum(group.all_sum_(nats).tolist()), targets


def held_out_of_stream(
    model: GPT,
    stream: TokenStream,
    text_bytes: int,
    bos: int,
    runtime: Runtime,
    group: ProcessGroup = ONE_PROCESS,
) -> HeldOut:
    """The loss on a whole stream. text_bytes: UTF-8 bytes of its documents; 0: not counted."""
    context = model.config.context
    batches = stream_batches(stream, context, bos, rows_per_forward(runtime.device, context))
    nats, targets = summed_loss(model, batches, runtime, group)
    return HeldOut(
        loss=nats / targets if targets else None,
        bits_per_byte=nats / math.log(2) / text_bytes if text_bytes and targets else None,
    )


def token_nats(
    model: GPT, stream: TokenStream, bos: int, runtime: Runtime
) -> npt.NDArray[np.float64]:
    """The loss of each token of the stream in nats, (tokens,); 0 for BOS and the first token.

    In batches of the same rows as `held_out_of_stream`, so the sum agrees with its loss up to how
    float32 rounds. For one process.
    """

    def nats_of(batch: Batch) -> npt.NDArray[np.float64]:
        ids_BT = batch.ids_BT.to(runtime.device)
        targets_BT = batch.targets_BT.to(runtime.device)
        with torch.no_grad():
            found_BT = model.token_losses(ids_BT, targets_BT, runtime.dtype)
        return found_BT.flatten().cpu().numpy().astype(np.float64)

    context = model.config.context
    rows = rows_per_forward(runtime.device, context)
    found = runtime.pool.map(nats_of, list(stream_batches(stream, context, bos, rows)))
    # Rows follow each other in the stream, so their targets are the tokens from the second one on.
    return np.concatenate([np.zeros(min(1, len(stream))), *found])


def held_out_of_conversations(
    model: GPT,
    conversations: Conversations,
    pad: int,
    runtime: Runtime,
    group: ProcessGroup = ONE_PROCESS,
) -> HeldOut:
    """The loss on all conversations, on the assistant's tokens only; no bits per byte."""
    rows = rows_per_forward(runtime.device, model.config.context)
    batches = conversation_batches(conversations, pad, rows, model.config.context)
    nats, targets = summed_loss(model, batches, runtime, group)
    return HeldOut(loss=nats / targets if targets else None, bits_per_byte=None)
