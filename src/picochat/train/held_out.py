"""The held-out loss: every target of the held-out set, once, in nats; and bits per byte of raw
text.

Convention of bits per byte: the summed loss over all targets but BOS, divided by the UTF-8 bytes of
the held-out documents and by ln 2, so that tokenizers compare. Rows are cut every `context` tokens,
so a token near the start of a row has a short memory: what the model is worth with its full context
everywhere is slightly better.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from picochat.model.gpt import GPT, IGNORED_TARGET
from picochat.model.runtime import Runtime
from picochat.model.thread_pool import ONE_THREAD
from picochat.tokens.shards import TokenStream
from picochat.train.feed import Batch
from picochat.train.ranks import ALONE, Ranks

TOKENS_PER_FORWARD = {"cuda": 16_384, "cpu": 2_048}
"""By kind of device.

On a processor each core has a batch of its own, and its logits are what fills the memory.
"""


@dataclass(frozen=True)
class HeldOut:
    """The loss on a stage's whole held-out set: nats per target, and bits per byte of raw text
    where bytes are counted.
    """

    loss: float
    bits_per_byte: float | None


def rows_per_forward(device: torch.device, context: int) -> int:
    return max(1, TOKENS_PER_FORWARD[device.type] // context)


def stream_batches(stream: TokenStream, context: int, bos: int, rows: int) -> Iterator[Batch]:
    """The whole stream as rows of `context` targets, `rows` in a batch; the last row is short.

    BOS is never a target.
    """
    full = stream.row_count(context)
    for start in range(0, full, rows):
        tokens = stream.rows(np.arange(start, min(full, start + rows)), context).astype(np.int64)
        yield Batch(tokens[:, :-1], np.where(tokens[:, 1:] == bos, IGNORED_TARGET, tokens[:, 1:]))
    tail = stream.slice(full * context, len(stream)).astype(np.int64)
    if len(tail) > 1:
        targets = np.where(tail[1:] == bos, IGNORED_TARGET, tail[1:])
        yield Batch(tail[None, :-1], targets[None])


def summed_loss(
    model: GPT, batches: Iterator[Batch], compute: Runtime, ranks: Ranks = ALONE
) -> tuple[float, int]:
    """(nats summed over the targets, number of targets), the same in every process.

    Several processes take the batches by turns; what each batch gave is added in the batches'
    order, so equal weights give the same sum with any number of processes. All of them compute in
    every turn, because sharded weights are gathered by all.
    """

    def nats_of(batch: Batch) -> float:
        ids_BT = torch.from_numpy(batch.ids_BT).to(compute.device)
        targets_BT = torch.from_numpy(batch.targets_BT).to(compute.device)
        with torch.no_grad():  # of a thread, not of the process
            return float(model.loss_sum(ids_BT, targets_BT, compute.dtype))

    everything = list(batches)
    mine = range(ranks.rank, -(-len(everything) // ranks.count) * ranks.count, ranks.count)
    crew = compute.pool if ranks.count == 1 else ONE_THREAD
    own = crew.map(nats_of, [everything[min(number, len(everything) - 1)] for number in mine])
    nats = torch.zeros(len(everything), dtype=torch.float64)
    for number, value in zip(mine, own, strict=True):
        if number < len(everything):
            nats[number] = value
    targets = sum(int((batch.targets_BT != IGNORED_TARGET).sum()) for batch in everything)
    return math.fsum(ranks.sum_(nats).tolist()), targets


def held_out_of_stream(
    model: GPT,
    stream: TokenStream,
    text_bytes: int,
    bos: int,
    compute: Runtime,
    ranks: Ranks = ALONE,
) -> HeldOut:
    context = model.config.context
    batches = stream_batches(stream, context, bos, rows_per_forward(compute.device, context))
    nats, targets = summed_loss(model, batches, compute, ranks)
    return HeldOut(
        loss=nats / max(1, targets),
        bits_per_byte=nats / math.log(2) / text_bytes if text_bytes else None,
    )
