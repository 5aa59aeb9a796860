"""Which rows of the tables apply to a run: what its pack has, and what its profile judges.

Without the facts a row applies, so that it counts as unmeasured and never as passed.
"""

from __future__ import annotations

from picochat.facts import RunFacts
from picochat.gate import measures
from picochat.gate.plan import vocab_size

LARGE_VOCABULARY = 4096


def has_skills(run: RunFacts) -> bool:
    """In a release always, else where the pack has eval rows of a judged skill."""
    return in_release(run) or has_tested_skill(run)


def has_tested_skill(run: RunFacts) -> bool:
    """Also in a release: where the pack has eval rows of a judged skill."""
    return not run.rows or bool(measures.tested_skills(run))


def has_eval_rows(run: RunFacts) -> bool:
    """In a release always, else where the pack has eval rows."""
    return in_release(run) or not run.rows or run.rows.eval_rows > 0


def has_sft_rows(run: RunFacts) -> bool:
    """In a release always, else where the pack has SFT rows."""
    return in_release(run) or not run.rows or run.rows.sft_train_rows > 0


def in_release(run: RunFacts) -> bool:
    return run.config.gate.profile != "research"


def has_large_vocabulary(run: RunFacts) -> bool:
    """A small vocabulary cannot reach the bytes per token of a large one."""
    return vocab_size(run) >= LARGE_VOCABULARY


def has_budget(run: RunFacts) -> bool:
    return run.config.gate.budget_usd is not None


def is_tested(skill: str, run: RunFacts) -> bool:
    """Where the pack has eval rows of the skill, or a score of it."""
    score = measures.skill_score(run, skill)
    known = run.rows.eval_by_skill.get(skill) if run.rows else 1
    return bool(known or (score and score.all.count))


def asks_sft_rows(run: RunFacts) -> bool:
    """Whether SFT rows are asked again: in a release they must be, else where they have rules."""
    scores = run.scores
    asked = not scores or scores.sft_fit.count or scores.sft_held_out_fit.count
    return in_release(run) or bool(asked)
