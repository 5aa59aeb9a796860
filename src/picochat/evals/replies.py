"""Replies of a model to rows: greedy text in batches, and for choices the likeliest option.

Scores nothing (evals/scores.py does). Rows of similar length are asked together, and a batch gives
the replies of one row at a time. A choice is the candidate reply whose log-probability the question
raises most over that after a question that asks nothing (docs/decisions/0031): a plain sum prefers
what is likely anywhere, and a mean per token or byte prefers long options. Importing this module
needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from picochat.config import EvalConfig
from picochat.core.progress import Progress
from picochat.core.records import Record
from picochat.evals.answerer import Answerer, fits
from picochat.evals.eval_records import LIKELIHOOD_DIGITS, EvaluatedRow
from picochat.skills.scoring import choice_candidates
from picochat.skills.task_rows import EvalRow


class Generation(Record):
    """The reply of a model to one row.

    log_likelihoods: of each candidate, nats above those after `neutral_prompt`; None where text was
    generated. cut: the text reached the limit of new tokens, and so may lack its end.
    """

    text: str
    log_likelihoods: list[float] | None = None
    cut: bool = False


def ask_all(
    answerer: Answerer, rows: Sequence[EvalRow], config: EvalConfig, label: str
) -> dict[str, Generation]:
    """Row id -> the reply of the model; an empty one to a row that does not fit the context."""
    replies = {row.id: Generation(text="") for row in rows}
    asked = [row for row in rows if fits(answerer, row)]
    with Progress(label, len(asked), "rows") as progress:
        for batch in ask_in_batches(answerer, asked, config):
            replies.update(batch)
            progress.advance(len(batch))
    return replies


def ask_in_batches(
    answerer: Answerer, rows: Sequence[EvalRow], config: EvalConfig
) -> Iterator[dict[str, Generation]]:
    """Row id -> the reply of the model, batch by batch. Each row must fit the context."""
    prompts = {row.id: answerer.row_prompt(row) for row in rows}
    chosen = sorted(
        (row for row in rows if row.choice_labels), key=lambda row: (len(prompts[row.id]), row.id)
    )
    generated = {row.id: prompts[row.id] for row in rows if not row.choice_labels}
    for batch in generate_ids(answerer, generated, config):
        yield {
            row: Generation(text=answerer.decode(ids), cut=len(ids) >= config.max_new_tokens)
            for row, ids in batch.items()
        }
    alone = _alone(answerer, chosen, config)
    for start in range(0, len(chosen), max(1, config.batch_rows // 4)):
        some = chosen[start : start + max(1, config.batch_rows // 4)]
        yield _choose(answerer, some, prompts, alone)


def evaluated_row(
    name: str, row: EvalRow, reply: Generation, base: Generation | None = None
) -> EvaluatedRow:
    """The record of a row of the set `name` with its replies. base: None where none was asked."""
    return EvaluatedRow.model_validate(
        {
            "id": row.id,
            "set": name,
            "skill": row.skill,
            "stage": row.curriculum_stage,
            "prompt": row.user,
            "expected": row.reference_answer,
            "reply": reply.text,
            "log_likelihoods": reply.log_likelihoods,
            "base_reply": base.text if base else None,
            "base_log_likelihoods": base.log_likelihoods if base else None,
        }
    )


def generate_ids(
    answerer: Answerer, prompts: Mapping[str, list[int]], config: EvalConfig
) -> Iterator[dict[str, list[int]]]:
    """Row id -> reply, batch by batch, prompts of similar length together.

    Each prompt must be shorter than the context.
    """
    in_order = sorted(prompts, key=lambda row: (len(prompts[row]), row))
    for start in range(0, len(in_order), config.batch_rows):
        rows = in_order[start : start + config.batch_rows]
        generated = answerer.greedy_replies([prompts[row] for row in rows], config.max_new_tokens)
        yield dict(zip(rows, generated, strict=True))


def _choose(
    answerer: Answerer,
    rows: Sequence[EvalRow],
    prompts: dict[str, list[int]],
    alone: Mapping[str, float],
) -> dict[str, Generation]:
    questions = [
        (prompts[row.id], [answerer.encode(candidate) for candidate in choice_candidates(row)])
        for row in rows
    ]
    found = answerer.option_log_likelihoods(questions)
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


def _alone(answerer: Answerer, rows: Sequence[EvalRow], config: EvalConfig) -> dict[str, float]:
    """The summed nats of every candidate after a question that asks nothing."""
    prompt = answerer.neutral_prompt()
    # In one order for all processes: which candidates share a batch changes how sums are rounded,
    # and the order of a set changes with each start of Python.
    candidates = sorted(
        {candidate for row in rows for candidate in choice_candidates(row)},
        key=lambda candidate: (len(candidate), candidate),
    )
    found: dict[str, float] = {}
    for start in range(0, len(candidates), config.batch_rows):
        some = candidates[start : start + config.batch_rows]
        options = [answerer.encode(candidate) for candidate in some]
        sums = answerer.option_log_likelihoods([(prompt, options)])
        found |= zip(some, sums[0], strict=True)
    return found
