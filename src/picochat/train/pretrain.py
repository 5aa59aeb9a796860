"""The base stage: next-token training on the token shards, from seeded weights to a published
checkpoint.

Each step's rows follow from the seed and the step number alone (tokens/batches.py), so every
training token is a target once per epoch and a resume needs no data state.
"""

from __future__ import annotations

from pathlib import Path

from picochat.config import HostConfig, ModelConfig, RuntimeConfig, TrainConfig
from picochat.core.errors import BadInput
from picochat.core.publish import Artifact, Draft
from picochat.model.centred import centre_
from picochat.model.gpt import GPT, initialise
from picochat.rundir import ShardsFacts, facts_of
from picochat.tokens.shards import open_shards
from picochat.tokens.tokenizer import Tokenizer
from picochat.train.feed import feed_of_stream
from picochat.train.held_out import held_out_of_stream
from picochat.train.loop import Job, Trainer
from picochat.train.pace import StartClock
from picochat.train.publish import train_and_publish
from picochat.train.ranks import current_ranks, open_group_runtime


def pretrain(
    shards: Artifact,
    tokenizer: Artifact,
    model: ModelConfig,
    base: TrainConfig,
    runtime: RuntimeConfig,
    host: HostConfig,
    seed: int,
    gpu_hour_usd: float | None,
    track: Path,
    draft: Draft,
) -> None:
    """Train the base model and leave its checkpoint in the draft. Raises BadInput where the shards
    hold no whole row.

    Of several processes (train/ranks.py) all call this; the first one publishes.
    """
    clock = StartClock()
    tokens = open_shards(shards, check_digests=True)
    if tokens.train.row_count(model.context) == 0:
        raise BadInput(
            f"the corpus has {len(tokens.train)} training tokens, fewer than one row of"
            f" {model.context}",
            fix="import more rows, or a smaller --set model.context=...",
        )
    vocabulary = Tokenizer.load(tokenizer.path("tokenizer.json"))
    clock.mark("open_data")
    ranks = current_ranks(runtime)
    compute = open_group_runtime(runtime, model, ranks, draft.workspace)
    gpt = GPT(model, vocabulary.vocab_size)
    initialise(gpt, seed)
    if model.centred:
        centre_(gpt)
    gpt.recompute_blocks(runtime.activation_checkpointing)
    gpt.to(compute.device)
    clock.mark("model")
    text_bytes = facts_of(shards, ShardsFacts).held_out_text_bytes
    feed = feed_of_stream(
        tokens.train, model.context, base.sequences_per_step, seed, compute.device, ranks
    )
    clock.mark("feed")
    job = Job(
        stage="base",
        config=base,
        feed=feed,
        evaluate=lambda trained: held_out_of_stream(
            trained, tokens.held_out, text_bytes, vocabulary.bos, compute, ranks
        ),
        gpu_hour_usd=gpu_hour_usd,
        track=track,
        clock=clock,
    )
    train_and_publish(
        Trainer(gpt, job, compute, host, draft.workspace, ranks=ranks), vocabulary.digest, draft
    )
