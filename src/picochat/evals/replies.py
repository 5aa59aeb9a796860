"""Replies of a model to rows: greedy text in batches, and for choices the likeliest option.

Scores nothing (evals/scores.py does). Rows of similar length are asked together, and a batch gives
the replies of one row at a time. A choice is the candidate reply whose log-probability the question
raises most over that after a question that asks nothing (docs/decisions/0031): a plain sum prefers
what is likely anywhere, and a mean per token or byte prefers long options.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from picochat.config import EvalConfig
from picochat.core.progress import Progress
from picochat.core.records import Record
from picochat.evals.eval_records import LIKELIHOOD_DIGITS
from picochat.model.gpt import GPT
from picochat.model.sampling import greedy_replies, option_log_likelihoods
from picochat.skills.scoring import choice_candidates
from picochat.skills.task_rows import EvalRow
from picochat.tokens.chat_format import is_askable, neutral_prompt, row_prompt
from picochat.tokens.tokenizer import Tokenizer


class Generation(Record):
    """The reply of a model to one row.

    log_likelihoods: of each candidate, nats above those after `neutral_prompt`; None where text was
    generated.
    """

    text: str
    log_likelihoods: list[float] | None = None


def ask_all(
    model: GPT,
    rows: Sequence[EvalRow],
    tokenizer: Tokenizer,
    config: EvalConfig,
    dtype: torch.dtype,
    label: str,
) -> dict[str, Generation]:
    """Row id -> the reply of the model; an empty one to a row that does not fit the context."""
    context = model.config.context
    asked = [row for row in rows if is_askable(tokenizer, row, context)]
    replies = {row.id: Generation(text="") for row in rows}
    prompts = {row.id: row_prompt(tokenizer, row) for row in asked}
    chosen = sorted(
        (row for row in asked if row.choice_labels), key=lambda row: (len(prompts[row.id]), row.id)
    )
    generated = {row.id: prompts[row.id] for row in asked if not row.choice_labels}
    with Progress(label, len(asked), "rows") as progress:
        for batch in generate_ids(model, generated, tokenizer.end, config, dtype):
            replies.update(
                {row: Generation(text=tokenizer.decode(ids)) for row, ids in batch.items()}
            )
            progress.advance(len(batch))
        alone = _alone(model, chosen, tokenizer, config, dtype)
        for start in range(0, len(chosen), max(1, config.batch_rows // 4)):
            batch = chosen[start : start + max(1, config.batch_rows // 4)]
            replies.update(_choose(model, batch, prompts, alone, tokenizer, dtype))
            progress.advance(len(batch))
    return replies


def generate_ids(
    model: GPT, prompts: Mapping[str, list[int]], end: int, config: EvalConfig, dtype: torch.dtype
) -> Iterator[dict[str, list[int]]]:
    """Row id -> reply, batch by batch, prompts of similar length together.

    Each prompt must be shorter than the context.
    """
    in_order = sorted(prompts, key=lambda row: (len(prompts[row]), row))
    for start in range(0, len(in_order), config.batch_rows):
        rows = in_order[start : start + config.batch_rows]
        batch = [prompts[row] for row in rows]
        generated = greedy_replies(
            model, batch, end=end, max_new_tokens=config.max_new_tokens, dtype=dtype
        )
        yield dict(zip(rows, generated, strict=True))


def _choose(
    model: GPT,
    rows: Sequence[EvalRow],
    prompts: dict[str, list[int]],
    alone: Mapping[str, float],
    tokenizer: Tokenizer,
    dtype: torch.dtype,
) -> dict[str, Generation]:
    questions = [
        (prompts[row.id], [tokenizer.encode(candidate) for candidate in choice_candidates(row)])
        for row in rows
    ]
    found = option_log_likelihoods(model, questions, pad=tokenizer.pad, dtype=dtype)
    replies: dict[str, Generation] = {}
    for row, sums in zip(rows, found, strict=True):
        candidates = choice_candidates(row)
        raised = [
            round(nats - alone[candidate], LIKELIHOOD_DIGITS)
            for nats, candidate in zip(sums, candidates, strict=True)
        ]
        replies[row.id] = Generation(
            text=candidates[raised.index(max(raised))], log_likelihoods=raised
        )
    return replies


def _alone(
    model: GPT,
    rows: Sequence[EvalRow],
    tokenizer: Tokenizer,
    config: EvalConfig,
    dtype: torch.dtype,
) -> dict[str, float]:
    """The summed nats of every candidate after a question that asks nothing."""
    prompt = neutral_prompt(tokenizer)
    # In one order for all processes: which candidates share a batch changes how sums are rounded,
    # and the order of a set changes with each start of Python.
    candidates = sorted(
        {candidate for row in rows for candidate in choice_candidates(row)},
        key=lambda candidate: (len(candidate), candidate),
    )
    found: dict[str, float] = {}
    for start in range(0, len(candidates), config.batch_rows):
        some = candidates[start : start + config.batch_rows]
        options = [tokenizer.encode(candidate) for candidate in some]
        sums = option_log_likelihoods(model, [(prompt, options)], pad=tokenizer.pad, dtype=dtype)
        found |= zip(some, sums[0], strict=True)
    return found
