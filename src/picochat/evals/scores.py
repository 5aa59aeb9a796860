"""Scores as a pure function of what was said: replies in, rates with intervals out. Needs no model
and no torch.

`run verify` calls the same function on the files of a bundle, so a score that does not follow from
its replies is found. A row counts as clean if the honesty scan did not find it in the corpus or in
the SFT rows; both rates are given.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from picochat.core.records import Record
from picochat.evals.intervals import rate
from picochat.evals.record import Asked, Measured, Memorization
from picochat.facts import ExternalScore, Rate, ScoresFacts, SkillScore
from picochat.skills.scoring import (
    Score,
    is_prompt_echo,
    is_unsupported_claim,
    score_choice,
    score_reply,
)
from picochat.skills.skill_table import SKILLS
from picochat.skills.task_rows import EvalRow


class Judged(Record):
    """One row with its verdict, for the chat model and for the base model."""

    asked: Asked
    passed: bool
    reason: str
    base_passed: bool | None


def judge(row: EvalRow, asked: Asked) -> Judged:
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
    asked: Iterable[Asked],
    memorization: Iterable[Memorization],
    measured: Measured,
    dirty: Collection[str],
    scored_checkpoint: str,
    external: Mapping[str, ExternalScore] | None = None,
) -> ScoresFacts:
    """All scores of a run.

    `rows`: every row that was asked, by id; `dirty`: ids of eval rows that the scan found.
    """
    judged = [judge(rows[item.id], item) for item in asked]
    evals = [item for item in judged if item.asked.set == "eval"]
    unsupported = [is_unsupported_claim(rows[item.asked.id], item.asked.reply) for item in evals]
    claims = [claim for claim in unsupported if claim is not None]
    recalled = [item.continued == item.expected for item in memorization]
    return ScoresFacts(
        base_bits_per_byte=measured.base_bits_per_byte,
        sft_bits_per_byte=measured.sft_bits_per_byte,
        ngram_bits_per_byte=measured.ngram_bits_per_byte,
        skills={skill.name: _skill(skill.name, skill.chance, evals, dirty) for skill in SKILLS},
        sft_fit=_passed(item for item in judged if item.asked.set == "sft_train"),
        sft_held_out_fit=_passed(item for item in judged if item.asked.set == "sft_held_out"),
        refusal=_passed(
            item
            for item in evals
            if item.asked.skill == "refusal" and not rows[item.asked.id].answerable
        ),
        over_refusal=_passed(
            item
            for item in evals
            if item.asked.skill == "refusal" and rows[item.asked.id].answerable
        ),
        prompt_echo=_share(
            evals, lambda item: is_prompt_echo(rows[item.asked.id], item.asked.reply)
        ),
        unsupported_claims=rate(sum(claims), len(claims)),
        memorized=rate(sum(recalled), len(recalled)),
        scored_checkpoint=scored_checkpoint,
        external=dict(external or {}),
    )


def _skill(name: str, chance: float, evals: Sequence[Judged], dirty: Collection[str]) -> SkillScore:
    mine = [item for item in evals if item.asked.skill == name]
    stages = sorted({item.asked.stage for item in mine if item.asked.stage})
    return SkillScore(
        all=_passed(mine),
        clean=_passed(item for item in mine if item.asked.id not in dirty),
        base=_share(
            [item for item in mine if item.base_passed is not None],
            lambda item: bool(item.base_passed),
        ),
        chance=chance,
        stages={
            stage: _passed(item for item in mine if item.asked.stage == stage) for stage in stages
        },
    )


def _passed(items: Iterable[Judged]) -> Rate:
    verdicts = [item.passed for item in items]
    return rate(sum(verdicts), len(verdicts))


def _share(items: Sequence[Judged], holds: Callable[[Judged], bool]) -> Rate:
    return rate(sum(holds(item) for item in items), len(items))
