"""The SFT stage: the base model learns to answer, with loss on the assistant's tokens only.

One conversation is one row, padded on the right: causal attention and ignored targets keep padding
out, and none are packed together, so that no conversation sees another. Some rows of a step can be
text of the base stage, so that the model forgets less of it (docs/experiments.md). Rows of a step
follow from seed and step, every conversation once per epoch. Importing this module loads no torch;
the stage itself does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from picochat.config import HostConfig, RunConfig, RuntimeConfig, SftConfig
from picochat.core.errors import BadInput
from picochat.core.publish import Artifact, StagingFolder
from picochat.facts import ConversationsFacts, TrainFacts, facts_of
from picochat.tokens.chat_format import open_conversations
from picochat.tokens.shards import open_shards
from picochat.tokens.tokenizer import Tokenizer
from picochat.train.artifact import publish_untrained, train_and_publish, train_facts
from picochat.train.metrics import StartupTimer


def facts_from(files: Path, inputs: Mapping[str, Artifact], config: RunConfig) -> TrainFacts:
    """The facts of an SFT checkpoint, from its files, its inputs by kind and the settings."""
    facts = train_facts("sft", files, inputs["tokenizer"], config.model, config.sft)
    if facts.steps == 0 and facts_of(inputs["conversations"], ConversationsFacts).rows:
        raise BadInput(f"{files} took no step, although there are SFT rows")
    return facts


def finetune(
    base: Artifact,
    conversations: Artifact,
    tokenizer: Artifact,
    shards: Artifact,
    sft: SftConfig,
    runtime: RuntimeConfig,
    host: HostConfig,
    training_seed: int,
    gpu_hour_usd: float | None,
    track: Path,
    staging: StagingFolder,
) -> None:
    """Train the base checkpoint on the SFT rows and leave the chat model in the staging folder.

    Of several processes all call this, and the main one publishes. A pack without SFT rows gives
    the base weights as they are. Raises BadInput where there are rows and none fits the context.
    """
    from picochat.model.weights import check_tokenizer, load_model, read_info
    from picochat.train.distributed import current_group, open_group_runtime
    from picochat.train.held_out import held_out_of_conversations
    from picochat.train.loader import HostLoader, sft_batch
    from picochat.train.loop import Job, Trainer

    timer = StartupTimer()
    vocabulary = Tokenizer.load(tokenizer.path("tokenizer.json"))
    train = open_conversations(conversations, "train")
    held_out = open_conversations(conversations, "held_out")
    group = current_group(runtime)
    facts = facts_of(conversations, ConversationsFacts)
    rows = facts.rows
    if rows == 0:
        if group.is_main:
            publish_untrained(base, tokenizer, staging)
        return
    context = read_info(base.place).model.context
    if len(train) == 0:
        raise BadInput(
            f"none of the {rows} SFT rows fits the context of {context}",
            fix=(
                "shorten the rows; or take a context that holds them: --set model.context="
                f"{facts.longest_row_tokens}"
            ),
        )
    timer.mark("open_data")
    opened = open_group_runtime(runtime, read_info(base.place).model, group, staging.workspace)
    gpt, info = load_model(base.place, opened.device)
    check_tokenizer(info, vocabulary.digest, base.place)
    gpt.recompute_blocks(runtime.activation_checkpointing)
    timer.mark("model")
    text = open_shards(shards, check_digests=True).train if sft.text_sequences else None
    loader = HostLoader(
        lambda step: sft_batch(step, train, text, sft, vocabulary.pad, context, training_seed),
        opened.device,
        fixed_shape=False,
        group=group,
    )
    job = Job(
        stage="sft",
        config=sft,
        loader=loader,
        evaluate=lambda model: held_out_of_conversations(
            model, held_out, vocabulary.pad, opened, group
        ),
        gpu_hour_usd=gpu_hour_usd,
        track=track,
        timer=timer,
    )
    trainer = Trainer(gpt, job, opened, host, staging.workspace, group=group)
    train_and_publish(trainer, tokenizer, vocabulary.digest, staging)
