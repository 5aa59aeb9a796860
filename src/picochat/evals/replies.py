"""What a model says to rows: greedy replies in batches, and for choices the likelihood of each option.

Facts only: nothing is scored here (evals/scores.py). Batches are made of rows of similar length and are equal to one row at
a time. A choice is read off the mean log-probability per token of the candidate replies, end of turn included, so that a
longer option is not punished for its length.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from picochat.config import EvalConfig
from picochat.core.progress import Progress
from picochat.core.records import Record
from picochat.model.gpt import GPT
from picochat.model.sampling import continuation_log_likelihoods, greedy_replies
from picochat.skills.rows import EvalRow
from picochat.skills.scoring import choice_candidates
from picochat.tokens.chat_format import Message, render_prompt
from picochat.tokens.tokenizer import Tokenizer

LIKELIHOOD_DIGITS = 6
"""Kept digits of a mean log-probability: the scores are recomputed from what is written."""


class Said(Record):
    """A model's reply to one row. `log_likelihoods`: mean nats per token of each candidate; None where text was generated."""

    text: str
    log_likelihoods: list[float] | None = None


def ask_all(
    model: GPT, rows: Sequence[EvalRow], tokenizer: Tokenizer, config: EvalConfig, dtype: torch.dtype, label: str
) -> dict[str, Said]:
    """Row id -> what the model said."""
    said: dict[str, Said] = {}
    prompts = {row.id: row_prompt(row, tokenizer) for row in rows}
    in_order = sorted(rows, key=lambda row: (bool(row.choice_labels), len(prompts[row.id]), row.id))
    generated = [row for row in in_order if not row.choice_labels]
    chosen = [row for row in in_order if row.choice_labels]
    with Progress(label, len(rows), "rows") as progress:
        for start in range(0, len(generated), config.batch_rows):
            batch = generated[start : start + config.batch_rows]
            said.update(_generate(model, batch, prompts, tokenizer, config, dtype))
            progress.advance(len(batch))
        for start in range(0, len(chosen), max(1, config.batch_rows // 4)):
            batch = chosen[start : start + max(1, config.batch_rows // 4)]
            said.update(_choose(model, batch, prompts, tokenizer, dtype))
            progress.advance(len(batch))
    return said


def row_prompt(row: EvalRow, tokenizer: Tokenizer) -> list[int]:
    """The row as a conversation that waits for the assistant."""
    system = [Message(role="system", content=row.system)] if row.system else []
    return render_prompt(tokenizer, [*system, Message(role="user", content=row.user)])


def _generate(
    model: GPT,
    rows: Sequence[EvalRow],
    prompts: dict[str, list[int]],
    tokenizer: Tokenizer,
    config: EvalConfig,
    dtype: torch.dtype,
) -> dict[str, Said]:
    room = model.config.context - 1
    batch = [prompts[row.id][-room:] for row in rows]
    replies = greedy_replies(model, batch, end=tokenizer.end, max_new_tokens=config.max_new_tokens, dtype=dtype)
    return {row.id: Said(text=tokenizer.decode(ids)) for row, ids in zip(rows, replies, strict=True)}


def _choose(
    model: GPT, rows: Sequence[EvalRow], prompts: dict[str, list[int]], tokenizer: Tokenizer, dtype: torch.dtype
) -> dict[str, Said]:
    pairs: list[tuple[list[int], list[int]]] = []
    for row in rows:
        for candidate in choice_candidates(row):
            continuation = [*tokenizer.encode(candidate), tokenizer.end]
            pairs.append((prompts[row.id][-(model.config.context - len(continuation)) :], continuation))
    sums = iter(continuation_log_likelihoods(model, pairs, dtype=dtype))
    lengths = iter(len(continuation) for _, continuation in pairs)
    said: dict[str, Said] = {}
    for row in rows:
        candidates = choice_candidates(row)
        means = [round(next(sums) / next(lengths), LIKELIHOOD_DIGITS) for _ in candidates]
        said[row.id] = Said(text=candidates[means.index(max(means))], log_likelihoods=means)
    return said
