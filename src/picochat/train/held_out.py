"""The held-out loss: every target of the held-out set, once, in nats; and bits per byte of raw text.

Convention of bits per byte: the summed loss over all targets but BOS, divided by the UTF-8 bytes of the held-out documents
and by ln 2, so that tokenizers compare. Rows are cut every `context` tokens, so a token near the start of a row has a
short memory: what the model is worth with its full context everywhere is slightly better.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch

from picochat.model.compute import Compute
from picochat.model.gpt import GPT, IGNORED_TARGET
from picochat.tokens.shards import TokenStream
from picochat.train.feed import Batch
from picochat.train.live import HeldOut
from picochat.train.ranks import ALONE, Ranks

TOKENS_PER_FORWARD = 16_384


def stream_batches(stream: TokenStream, context: int, bos: int) -> Iterator[Batch]:
    """The whole stream as rows of `context` targets; the last row is padded with ignored targets. BOS is never a target."""
    rows = max(1, TOKENS_PER_FORWARD // context)
    full = stream.row_count(context)
    for start in range(0, full, rows):
        tokens = stream.rows(np.arange(start, min(full, start + rows)), context).astype(np.int64)
        yield Batch(tokens[:, :-1], np.where(tokens[:, 1:] == bos, IGNORED_TARGET, tokens[:, 1:]))
    tail = stream.slice(full * context, len(stream)).astype(np.int64)
    if len(tail) > 1:
        targets = np.where(tail[1:] == bos, IGNORED_TARGET, tail[1:])
        yield Batch(tail[None, :-1], targets[None])


@torch.no_grad()
def summed_loss(model: GPT, batches: Iterator[Batch], compute: Compute, ranks: Ranks = ALONE) -> tuple[float, int]:
    """(nats summed over the targets, number of targets), the same in every process.

    Several processes take the batches by turns; what each batch gave is added in the batches' order, so equal weights give the
    same sum with any number of processes. All of them compute in every turn, because sharded weights are gathered by all.
    """
    nats: list[float] = []
    targets = 0
    while turn := list(islice(batches, ranks.count)):
        mine = turn[ranks.rank] if ranks.rank < len(turn) else turn[-1]
        ids_BT = torch.from_numpy(mine.ids_BT).to(compute.device)
        targets_BT = torch.from_numpy(mine.targets_BT).to(compute.device)
        loss = float(model.loss_sum(ids_BT, targets_BT, compute.dtype))
        nats += [loss if number == ranks.rank else 0.0 for number in range(len(turn))]
        targets += sum(int((batch.targets_BT != IGNORED_TARGET).sum()) for batch in turn)
    if not nats:
        return 0.0, 0
    return math.fsum(ranks.sum_(torch.tensor(nats, dtype=torch.float64)).tolist()), targets


def held_out_of_stream(
    model: GPT, stream: TokenStream, text_bytes: int, bos: int, compute: Compute, ranks: Ranks = ALONE
) -> HeldOut:
    nats, targets = summed_loss(model, stream_batches(stream, model.config.context, bos), compute, ranks)
    return HeldOut(loss=nats / max(1, targets), bits_per_byte=nats / math.log(2) / text_bytes if text_bytes else None)
