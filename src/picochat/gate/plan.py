"""What a configuration would train on, write and cost.

The forecast uses the speed of real steps on this host. It leaves out the scoring of replies and the
export, which take minutes at the scales here; the text beside the figure says so.
"""

from __future__ import annotations

from picochat.config import RunConfig, TrainConfig, parameter_count, step_tokens
from picochat.core.records import finite_or_none
from picochat.evals.ngram import BYTES_PER_TOKEN
from picochat.facts import HostFacts, PlanRecord, RunFacts

TOKEN_BYTES = 2
WEIGHT_BYTES = 4  # float32
# Five training states hold weights and two moments each: the newest two, the best, the one to
# replay from, the one being written. Then base, SFT, their two copies in the bundle, the export.
WEIGHT_COPIES = 5 * 3 + 2 + 2 + 1
FORWARD_FRACTION = 1 / 3  # of a step's time; a backward pass costs two forward passes


def vocab_size(run: RunFacts) -> int:
    """Of the trained tokenizer if there is one: a small corpus can yield fewer than configured."""
    return run.tokenizer.vocab_size if run.tokenizer else run.config.tokenizer.vocab_size


def parameters(run: RunFacts) -> int:
    return parameter_count(run.config.model, vocab_size(run))


def planned_tokens(config: RunConfig) -> int:
    return config.base.steps * step_tokens(config.base, config.model)


def target_tokens(run: RunFacts) -> int:
    return round(run.config.gate.target_tokens_per_parameter * parameters(run))


def sft_epochs(run: RunFacts) -> float | None:
    """Passes over the SFT rows that fit the context; one sequence holds one conversation."""
    rows, conversations, sft = run.rows, run.conversations, run.config.sft
    if not rows or not conversations:
        return None
    fitting = rows.sft_train_rows - conversations.rows_over_context
    return sft.steps * sft.conversations_per_step / fitting if fitting > 0 else None


def needed_disk_bytes(run: RunFacts) -> float | None:
    """Bytes of disk for training states, checkpoints, bundle, export and a copy of the shards.

    The shards count again because the cache can be on another disk.
    """
    if not run.shards:
        return None
    tokens = run.shards.train_tokens + run.shards.held_out_tokens
    return TOKEN_BYTES * tokens + WEIGHT_BYTES * WEIGHT_COPIES * parameters(run)


def baseline_tokens(run: RunFacts) -> int | None:
    """Training tokens that the 5-gram baseline counts."""
    if not run.shards:
        return None
    return min(run.shards.train_tokens, run.config.evals.ngram_train_tokens)


def baseline_bytes(tokens: int) -> int:
    """Main memory that a 5-gram baseline of so many tokens needs at most."""
    return BYTES_PER_TOKEN * tokens


def plan(run: RunFacts) -> PlanRecord:
    config, host, shards, conversations = run.config, run.host, run.shards, run.conversations
    train_tokens = shards.train_tokens if shards else None
    planned = planned_tokens(config)
    longest = conversations.longest_row_tokens if conversations else None
    parts = hours_of(config, host, shards.held_out_tokens, longest) if host and shards else {}
    hours = sum(parts.values()) if parts else None
    price = config.gate.gpu_hour_usd
    return PlanRecord(
        parameters=parameters(run),
        planned_tokens=planned,
        target_tokens=target_tokens(run),
        train_tokens=train_tokens,
        exercise_fraction=(
            shards.exercise_tokens / train_tokens if shards and train_tokens else None
        ),
        planned_epochs=planned / train_tokens if train_tokens else None,
        baseline_tokens=baseline_tokens(run),
        hours=hours,
        usd=hours * price * host.devices if host and hours is not None and price else None,
        hours_of=parts,
    )


def hours_of(
    config: RunConfig,
    host: HostFacts,
    held_out_tokens: float,
    longest_conversation_tokens: int | None = None,
) -> dict[str, float]:
    """Hours of each part of a run at this host's speed; empty if no step was measured.

    An SFT row is padded to the longest of its step, so every row is counted as long as the longest
    of all (None: the context). Preparing data, scoring replies and the export are left out.
    """
    speed = finite_or_none(host.tokens_per_second)
    if not speed or speed <= 0:
        return {}
    base_s = planned_tokens(config) / speed
    sft_positions = min(config.model.context, longest_conversation_tokens or config.model.context)
    evaluations = _evaluations(config.base)
    saves = evaluations + base_s / (60 * config.host.checkpoint_minutes)
    parts = {
        "base": base_s,
        "held-out evaluations": (
            evaluations
            * held_out_tokens
            / (finite_or_none(host.forward_tokens_per_second) or speed / FORWARD_FRACTION)
        ),
        "SFT": config.sft.steps * config.sft.sequences_per_step * sft_positions / speed,
        "checkpoints": saves * (finite_or_none(host.save_s) or 0.0),
        "compile": finite_or_none(host.compile_s) or 0.0,
    }
    return {name: seconds / 3600 for name, seconds in parts.items()}


def _evaluations(train: TrainConfig) -> int:
    return 1 if train.eval_every is None else max(1, -(-train.steps // train.eval_every))
