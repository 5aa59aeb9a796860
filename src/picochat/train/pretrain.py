"""The base stage: next-token training on the token shards, from seeded weights to a published checkpoint.

Each step's rows follow from the seed and the step number alone (tokens/batches.py), so every training token is a target
once per epoch and a resume needs no data state.
"""

from __future__ import annotations

from picochat.config import HostConfig, ModelConfig, RuntimeConfig, TrainConfig, parameter_count
from picochat.core.errors import BadInput
from picochat.core.publish import Artifact, Draft
from picochat.model.centred import centre_
from picochat.model.compute import open_compute
from picochat.model.gpt import GPT, initialise
from picochat.model.weights import CheckpointInfo
from picochat.rundir import ShardsFacts, facts_of
from picochat.tokens.shards import open_shards
from picochat.tokens.tokenizer import Tokenizer
from picochat.train.feed import feed_of_stream
from picochat.train.held_out import held_out_of_stream
from picochat.train.loop import Job, Trainer
from picochat.train.publish import write_checkpoint


def pretrain(
    shards: Artifact,
    tokenizer: Artifact,
    model: ModelConfig,
    base: TrainConfig,
    runtime: RuntimeConfig,
    host: HostConfig,
    seed: int,
    gpu_hour_usd: float | None,
    draft: Draft,
) -> None:
    """Train the base model and leave its checkpoint in the draft. Raises BadInput where the shards hold no whole row."""
    tokens = open_shards(shards, check_digests=True)
    if tokens.train.row_count(model.context) == 0:
        raise BadInput(
            f"the corpus has {len(tokens.train)} training tokens, fewer than one row of {model.context}",
            fix="import more rows, or a smaller --set model.context=...",
        )
    vocabulary = Tokenizer.load(tokenizer.path("tokenizer.json"))
    compute = open_compute(runtime, model)
    gpt = GPT(model, vocabulary.vocab_size)
    initialise(gpt, seed)
    if model.centred:
        centre_(gpt)
    gpt.to(compute.device)
    text_bytes = facts_of(shards, ShardsFacts).held_out_text_bytes
    job = Job(
        stage="base",
        config=base,
        feed=feed_of_stream(tokens.train, model.context, base.sequences_per_step, seed, compute.device),
        evaluate=lambda trained: held_out_of_stream(trained, tokens.held_out, text_bytes, vocabulary.bos, compute),
        gpu_hour_usd=gpu_hour_usd,
    )
    outcome = Trainer(gpt, job, compute, host, draft.workspace).train()
    info = CheckpointInfo(
        model=model,
        vocab_size=vocabulary.vocab_size,
        tokenizer_digest=vocabulary.digest,
        stage="base",
        step=outcome.scored_step,
    )
    write_checkpoint(gpt, info, outcome, base, parameter_count(model, vocabulary.vocab_size), draft)
