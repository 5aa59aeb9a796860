"""The base stage: next-token training on the token shards, from seeded weights to a checkpoint.

Each step's rows follow from the seed and the step number alone (tokens/row_order.py), so that every
training token is a target once per epoch and a resume needs no data state. Importing this module
loads no torch; the stage itself does.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from picochat.config import (
    CountsConfig,
    HostConfig,
    ModelConfig,
    RunConfig,
    RuntimeConfig,
    TrainConfig,
)
from picochat.core.errors import BadInput
from picochat.core.publish import Artifact, StagingFolder
from picochat.facts import ShardsFacts, TrainFacts, facts_of
from picochat.tokens.shards import open_shards
from picochat.tokens.token_counts import spread_sample
from picochat.tokens.tokenizer import Tokenizer
from picochat.train.artifact import train_and_publish, train_facts
from picochat.train.metrics import StartupTimer


def facts_from(files: Path, inputs: Mapping[str, Artifact], config: RunConfig) -> TrainFacts:
    """The facts of a base checkpoint, from its files, its inputs by kind and the settings."""
    facts = train_facts("base", files, inputs["tokenizer"], config.model, config.base)
    if facts.steps == 0:
        raise BadInput(f"{files} took no step")
    return facts


def pretrain(
    shards: Artifact,
    tokenizer: Artifact,
    model: ModelConfig,
    counts: CountsConfig,
    base: TrainConfig,
    runtime: RuntimeConfig,
    host: HostConfig,
    training_seed: int,
    gpu_hour_usd: float | None,
    track: Path,
    staging: StagingFolder,
) -> None:
    """Train the base model and leave its checkpoint in the staging folder.

    Of several processes all call this, and the main one publishes. Raises BadInput where the shards
    hold no whole row.
    """
    from picochat.model.counted_start import new_model
    from picochat.train.count_teacher import teaching, text_rows_of
    from picochat.train.distributed import current_group, open_group_runtime
    from picochat.train.held_out import held_out_of_stream
    from picochat.train.loader import stream_loader
    from picochat.train.loop import Job, Trainer

    timer = StartupTimer()
    tokens = open_shards(shards, check_digests=True)
    if tokens.train.row_count(model.context) == 0:
        shorter = max(1, len(tokens.train) // 2)
        raise BadInput(
            f"the corpus has {len(tokens.train)} training tokens, fewer than one row of"
            f" {model.context}",
            fix=f"add text; or a shorter context: --set model.context={shorter}",
        )
    vocabulary = Tokenizer.load(tokenizer.path("tokenizer.json"))
    timer.mark("open_data")
    group = current_group(runtime)
    opened = open_group_runtime(runtime, model, group, staging.workspace)
    sample = partial(spread_sample, tokens.train, counts.tokens, vocabulary.bos)
    gpt = new_model(model, vocabulary.vocab_size, training_seed, sample if counts.start else None)
    gpt.recompute_blocks(runtime.activation_checkpointing)
    gpt.to(opened.device)
    timer.mark("model")
    facts = facts_of(shards, ShardsFacts)
    text_rows = text_rows_of(facts, model.context)
    loader = stream_loader(
        tokens.train,
        model.context,
        base.sequences_per_step,
        training_seed,
        opened.device,
        group,
        teach=teaching(sample, vocabulary.vocab_size, base.steps, counts, text_rows),
    )
    timer.mark("feed")
    job = Job(
        stage="base",
        config=base,
        loader=loader,
        evaluate=lambda trained: held_out_of_stream(
            trained, tokens.held_out, facts.held_out_text_bytes, vocabulary.bos, opened, group
        ),
        gpu_hour_usd=gpu_hour_usd,
        track=track,
        timer=timer,
    )
    trainer = Trainer(gpt, job, opened, host, staging.workspace, group=group)
    train_and_publish(trainer, tokenizer, vocabulary.digest, staging)
