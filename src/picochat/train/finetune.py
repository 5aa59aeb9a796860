"""The SFT stage: the base model learns to answer, with loss on the assistant's tokens only.

One conversation is one row, padded on the right: causal attention and ignored targets keep padding
and neighbours out, so nothing bleeds. Rows of a step follow from seed and step, every conversation
once per epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from picochat.config import HostConfig, RuntimeConfig, TrainConfig
from picochat.core.errors import BadInput
from picochat.core.publish import Artifact, Draft
from picochat.model.gpt import IGNORED_TARGET
from picochat.model.weights import check_tokenizer, load_model, read_info
from picochat.tokens.batches import rows_of_step
from picochat.tokens.chat_format import Conversations, open_conversations
from picochat.tokens.tokenizer import Tokenizer
from picochat.train.feed import Batch, HostFeed
from picochat.train.held_out import HeldOut, rows_per_forward, summed_loss
from picochat.train.loop import Job, Trainer
from picochat.train.pace import StartClock
from picochat.train.publish import train_and_publish
from picochat.train.ranks import current_ranks, open_group_runtime

PAD_TO_MULTIPLE = 32
"""Few different shapes, so that the memory of one step serves the next."""


def finetune(
    base: Artifact,
    conversations: Artifact,
    tokenizer: Artifact,
    sft: TrainConfig,
    runtime: RuntimeConfig,
    host: HostConfig,
    seed: int,
    gpu_hour_usd: float | None,
    track: Path,
    draft: Draft,
) -> None:
    """Train the base checkpoint on the SFT rows and leave the chat model's checkpoint in the draft.

    Of several processes (train/ranks.py) all call this; the first one publishes.
    """
    clock = StartClock()
    vocabulary = Tokenizer.load(tokenizer.path("tokenizer.json"))
    train, held_out = (
        open_conversations(conversations, "train"),
        open_conversations(conversations, "held_out"),
    )
    if len(train) == 0:
        raise BadInput(
            "the pack has no SFT rows that fit the context",
            fix="picochat data task-pack --dataset-pack ...",
        )
    clock.mark("open_data")
    ranks = current_ranks(runtime)
    compute = open_group_runtime(runtime, read_info(base.place).model, ranks, draft.workspace)
    gpt, info = load_model(base.place, compute.device)
    check_tokenizer(info, vocabulary.digest, base.place)
    gpt.recompute_blocks(runtime.activation_checkpointing)
    clock.mark("model")
    rows = rows_per_forward(compute.device, info.model.context)
    job = Job(
        stage="sft",
        config=sft,
        feed=HostFeed(
            lambda step: padded_batch(
                train, rows_of_step(step, sft.sequences_per_step, len(train), seed), vocabulary.pad
            ),
            compute.device,
            fixed_shape=False,
            ranks=ranks,
        ),
        evaluate=lambda model: HeldOut(
            loss=_mean(
                *summed_loss(model, _all_rows(held_out, vocabulary.pad, rows), compute, ranks)
            ),
            bits_per_byte=None,
        ),
        gpu_hour_usd=gpu_hour_usd,
        track=track,
        clock=clock,
    )
    train_and_publish(
        Trainer(gpt, job, compute, host, draft.workspace, ranks=ranks), vocabulary.digest, draft
    )


def padded_batch(rows: Conversations, indices: Sequence[int] | np.ndarray, pad: int) -> Batch:
    """The conversations as one block (B, T), T the longest rounded up; targets only where the mask
    says so.
    """
    longest = max(len(rows.ids(int(i))) for i in indices) - 1
    length = -(-longest // PAD_TO_MULTIPLE) * PAD_TO_MULTIPLE
    ids_BT = np.full((len(indices), length), pad, dtype=np.int64)
    targets_BT = np.full((len(indices), length), IGNORED_TARGET, dtype=np.int64)
    for row, index in enumerate(indices):
        ids, mask = rows.ids(int(index)).astype(np.int64), rows.mask(int(index))
        ids_BT[row, : len(ids) - 1] = ids[:-1]
        targets_BT[row, : len(ids) - 1] = np.where(mask[1:], ids[1:], IGNORED_TARGET)
    return Batch(ids_BT, targets_BT)


def _all_rows(conversations: Conversations, pad: int, rows: int) -> Iterator[Batch]:
    for start in range(0, len(conversations), rows):
        yield padded_batch(conversations, range(start, min(len(conversations), start + rows)), pad)


def _mean(nats: float, targets: int) -> float:
    return nats / max(1, targets)
