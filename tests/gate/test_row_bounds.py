"""The rules on eval rows, as data, are those that the release gate applies."""

from __future__ import annotations

import random

import pytest

from picochat.evals.intervals import rate
from picochat.facts import Rate, ScoresFacts
from picochat.gate.release import decide_release
from picochat.gate.row_bounds import RowBound, level_groups, row_bounds
from tests.builders import (
    EVAL_ROWS,
    STAGES,
    change,
    make_evidence,
    make_scores_facts,
    make_trivial_facts,
)

NO_ANSWERER = rate(0, 1)


def random_scores(rng: random.Random) -> ScoresFacts:
    """Scores near the bounds, with levels that add up to their skill."""
    healthy = make_scores_facts()
    skills = {}
    for skill, levels in STAGES.items():
        level = rng.uniform(0.1, 0.95)
        found = {
            name: rate(sum(rng.random() < level for _ in range(n)), n) for name, n in levels.items()
        }
        whole = rate(sum(r.passed for r in found.values()), sum(r.count for r in found.values()))
        skills[skill] = change(healthy.skills[skill], all=whole, clean=whole, levels=found)
    refused, answered = (rate(rng.randint(20, 35), 35) for _ in range(2))
    return change(healthy, skills=skills, refusal=refused, over_refusal=answered)


def holds(bound: RowBound, scores: ScoresFacts) -> bool:
    skill = scores.skills[bound.skill]
    judged: list[Rate] = {
        "all": [skill.clean],
        "levels": list(skill.levels.values()),
        "unanswerable": [scores.refusal],
        "answerable": [scores.over_refusal],
    }[bound.part]
    return all((found.fraction or 0.0) >= bound.low for found in judged)


@pytest.mark.parametrize("seed", range(40))
def test_the_gate_blocks_just_the_rules_whose_bound_is_missed(seed: int) -> None:
    scores = random_scores(random.Random(seed))
    trivial = make_trivial_facts()
    trivial = change(
        trivial,
        skills={
            skill: [change(found[0], all=NO_ANSWERER)] for skill, found in trivial.skills.items()
        },
    )
    report = decide_release(make_evidence(scores=scores, trivial=trivial))
    bounds = row_bounds(EVAL_ROWS)
    names = {bound.rule for bound in bounds}
    blocked = {finding.name for finding in report.findings if finding.status == "block"} & names
    # `choice_adjusted_accuracy` has a second rule on the lower end, which no bound on a rate says.
    chance = "choice_adjusted_accuracy"
    missed = {bound.rule for bound in bounds if not holds(bound, scores)}
    assert blocked - {chance} == missed - {chance}
    assert missed <= blocked


def test_bounds_are_those_of_the_skills_asked_for() -> None:
    assert {bound.skill for bound in row_bounds(["math", "refusal"])} == {"math", "refusal"}
    assert [(bound.part, bound.low) for bound in row_bounds(["math"])] == [
        ("all", 0.30),
        ("levels", 0.20),
    ]


def test_small_levels_are_judged_together() -> None:
    assert level_groups({"a": 40, "b": 39, "c": 1}) == (("a",), ("b", "c"))
    assert level_groups({"a": 40, "b": 39}) == (("a",),)
    assert level_groups({"a": 39}) == ()
    assert level_groups({}) == ()
