"""Scores as a pure function of replies, and the page that shows them.

Needs no model and no torch. `run verify` calls the same functions on the files of a bundle, so a
score that does not follow from its replies is found. A row counts as clean where the contamination
scan found it neither in the corpus nor in the SFT rows; rates are given with and without the
contaminated rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from picochat.core.records import Record
from picochat.evals.eval_records import EvaluatedRow, HeldOutDocument, Memorization, ScoresMeasured
from picochat.evals.intervals import rate
from picochat.facts import ExternalScore, OwnScore, Rate, ScoresFacts, SkillScore
from picochat.present import values
from picochat.present.labels import OTHER_RATES
from picochat.present.printable import cell
from picochat.skills.choice import SKILL as CHOICE
from picochat.skills.scoring import (
    Score,
    can_fail,
    is_prompt_echo,
    is_unsupported_claim,
    score_choice,
    score_reply,
    with_options_listed,
)
from picochat.skills.skill_table import OTHER, SKILLS
from picochat.skills.task_rows import EvalRow

FAILED_SHOWN = 5  # of each skill, on the page


class Judged(Record):
    """One row with the verdict on the reply of the chat model and on that of the base model."""

    asked: EvaluatedRow
    passed: bool
    reason: str
    base_passed: bool | None


def judge(row: EvalRow, asked: EvaluatedRow) -> Judged:
    """The verdict on both replies to a row, by the rules of skills/scoring.py."""
    score = _score(row, asked.reply, asked.log_likelihoods)
    base = (
        None
        if asked.base_reply is None
        else _score(row, asked.base_reply, asked.base_log_likelihoods).passed
    )
    return Judged(asked=asked, passed=score.passed, reason=score.reason, base_passed=base)


def _score(row: EvalRow, reply: str, log_likelihoods: Sequence[float] | None) -> Score:
    if log_likelihoods is not None and row.correct_choice is not None:
        return score_choice(row.choice_labels.index(row.correct_choice), log_likelihoods)
    return score_reply(row, reply)


def scores_of(
    rows: dict[str, EvalRow],
    asked: Iterable[EvaluatedRow],
    memorization: Iterable[Memorization],
    measured: ScoresMeasured,
    held_out: Sequence[HeldOutDocument],
    contaminated: Collection[str],
    scored_checkpoint: str,
    external: Mapping[str, ExternalScore] | None = None,
) -> ScoresFacts:
    """All scores of a run.

    rows: every row that was asked, by its id. contaminated: ids of eval rows that the scan found.
    """
    judged = [judge(rows[item.id], item) for item in asked]
    evals = [item for item in judged if item.asked.set == "eval"]
    refusals = [item for item in evals if item.asked.skill == "refusal"]
    unsupported = [is_unsupported_claim(rows[item.asked.id], item.asked.reply) for item in evals]
    claims = [claim for claim in unsupported if claim is not None]
    recalled = [item.continued == item.expected for item in memorization]
    return ScoresFacts(
        base_bits_per_byte=bits_per_byte(held_out, [each.base_nats for each in held_out]),
        sft_bits_per_byte=bits_per_byte(held_out, [each.chat_nats for each in held_out]),
        ngram_bits_per_byte=measured.ngram_bits_per_byte,
        ngram_train_tokens=measured.ngram_train_tokens,
        skills={
            skill.name: _skill(skill.name, skill.chance, evals, contaminated) for skill in SKILLS
        },
        own=_own(rows, evals, contaminated),
        sft_fit=_passed(item for item in judged if item.asked.set == "sft_train"),
        sft_held_out_fit=_passed(item for item in judged if item.asked.set == "sft_held_out"),
        refusal=_passed(item for item in refusals if not rows[item.asked.id].answerable),
        over_refusal=_passed(item for item in refusals if rows[item.asked.id].answerable),
        choice_listed=_passed(item for item in judged if _lists_options(item, rows)),
        prompt_echo=_fraction(
            evals, lambda item: is_prompt_echo(rows[item.asked.id], item.asked.reply)
        ),
        unsupported_claims=rate(sum(claims), len(claims)),
        memorized=rate(sum(recalled), len(recalled)),
        scored_checkpoint=scored_checkpoint,
        external=dict(external or {}),
    )


def bits_per_byte(
    documents: Sequence[HeldOutDocument], nats: Sequence[float | None]
) -> float | None:
    """Bits per byte of all documents, whose losses are `nats`; None where one is missing."""
    text_bytes = sum(document.text_bytes for document in documents)
    known = [each for each in nats if each is not None]
    if not text_bytes or len(known) < len(documents):
        return None
    return math.fsum(known) / math.log(2) / text_bytes


def _lists_options(item: Judged, rows: Mapping[str, EvalRow]) -> bool:
    """Whether this is a choice with its options in the prompt, as the pack has it or asked again"""
    if item.asked.set == "eval_listed":
        return True
    mine = item.asked.set == "eval" and item.asked.skill == CHOICE.name
    return mine and with_options_listed(rows[item.asked.id]) is None


def _skill(
    name: str, chance: float, evals: Sequence[Judged], contaminated: Collection[str]
) -> SkillScore:
    mine = [item for item in evals if item.asked.skill == name]
    levels = sorted({item.asked.stage for item in mine if item.asked.stage})
    return SkillScore(
        all=_passed(mine),
        clean=_passed(item for item in mine if item.asked.id not in contaminated),
        base=_base_passed(mine),
        chance=chance,
        levels={
            level: _passed(item for item in mine if item.asked.stage == level) for level in levels
        },
    )


def _own(
    rows: Mapping[str, EvalRow], evals: Sequence[Judged], contaminated: Collection[str]
) -> dict[str, OwnScore]:
    """The scores of the rows that belong to no skill, by category."""
    by_category: dict[str, list[Judged]] = {}
    for item in evals:
        if item.asked.skill == OTHER:
            by_category.setdefault(rows[item.asked.id].category, []).append(item)
    found: dict[str, OwnScore] = {}
    for category, mine in sorted(by_category.items()):
        scored = [item for item in mine if can_fail(rows[item.asked.id])]
        found[category] = OwnScore(
            all=_passed(scored),
            clean=_passed(item for item in scored if item.asked.id not in contaminated),
            base=_base_passed(scored),
            not_scored=len(mine) - len(scored),
        )
    return found


def _base_passed(items: Sequence[Judged]) -> Rate:
    asked = [item for item in items if item.base_passed is not None]
    return _fraction(asked, lambda item: bool(item.base_passed))


def _passed(items: Iterable[Judged]) -> Rate:
    verdicts = [item.passed for item in items]
    return rate(sum(verdicts), len(verdicts))


def _fraction(items: Sequence[Judged], holds: Callable[[Judged], bool]) -> Rate:
    return rate(sum(holds(item) for item in items), len(items))


# ---- the page ------------------------------------------------------------------------------------


def scores_page(facts: ScoresFacts, rows: dict[str, EvalRow], asked: Iterable[EvaluatedRow]) -> str:
    """report.md: the rates with their intervals, and of each skill some replies that failed."""
    lines = [
        "# Scores",
        "",
        "| skill | all rows | clean rows | base model | chance |",
        "|---|---|---|---|---|",
        *(
            _table_row(
                name,
                values.rate(skill.all),
                values.rate(skill.clean),
                values.rate(skill.base),
                values.fraction(skill.chance),
            )
            for name, skill in facts.skills.items()
        ),
        *_own_lines(facts),
        *_external_lines(facts),
        "",
        "| rate | measured |",
        "|---|---|",
        *(
            _table_row(label, values.rate(getattr(facts, name)))
            for name, label in OTHER_RATES.items()
        ),
    ]
    lines += ["", "## Replies that failed", ""]
    shown: dict[str, int] = {}
    for item in asked:
        judged = judge(rows[item.id], item)
        failed = item.set == "eval" and not judged.passed
        if failed and shown.setdefault(item.skill, 0) < FAILED_SHOWN:
            shown[item.skill] += 1
            texts = (("asked", item.prompt), ("expected", item.expected), ("said", item.reply))
            lines.append(f"- **{cell(item.id)}** ({judged.reason})")
            lines += [f"  - {name}: {cell(repr(text))}" for name, text in texts]
    return "\n".join(lines) + "\n"


def _own_lines(facts: ScoresFacts) -> list[str]:
    if not facts.own:
        return []
    lines = ["", "| own rows | all rows | clean rows | base model | not scored |", "|" + "---|" * 5]
    for category, score in facts.own.items():
        rates = (values.rate(each) for each in (score.all, score.clean, score.base))
        lines.append(_table_row(cell(category), *rates, values.count(score.not_scored)))
    return lines


def _external_lines(facts: ScoresFacts) -> list[str]:
    if not facts.external:
        return []
    lines = [
        "",
        "| benchmark | all rows | clean rows | base model | chance | read by |",
        "|" + "---|" * 6,
    ]
    for name, score in facts.external.items():
        lines.append(
            _table_row(
                name,
                values.rate(score.all),
                values.rate(score.clean),
                values.rate(score.base) if score.base else "",
                values.fraction(score.chance),
                score.read_by,
            )
        )
    return lines


def _table_row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
