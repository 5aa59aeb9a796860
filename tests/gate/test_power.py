"""The probability of passing is that of the gate's own rules on the same rows."""

from __future__ import annotations

import math
import random

import pytest

from picochat.evals.intervals import wilson_interval
from picochat.facts import EvalCell
from picochat.gate.power import SkillRows, passing_probability, power
from picochat.gate.row_bounds import Part, RowBound


def cell(level: str, rows: int, *, answerable: bool = True, of_an_item: int = 1) -> EvalCell:
    return EvalCell(
        skill="s",
        level=level,
        answerable=answerable,
        rows=rows,
        items={str(of_an_item): rows // of_an_item},
    )


def bound(part: Part, low: float) -> RowBound:
    return RowBound("rule", "s", part, low)


def tail(count: int, least: int, rate: float) -> float:
    """P(X >= least) of a binomial, by the definition."""
    return sum(
        math.comb(count, k) * rate**k * (1 - rate) ** (count - k) for k in range(least, count + 1)
    )


def test_one_rule_passes_with_the_tail_of_the_binomial() -> None:
    rows = SkillRows((cell("a", 70),), (bound("all", 0.5),))
    assert passing_probability(rows, 0.10) == pytest.approx(tail(70, 35, 0.6), abs=1e-9)
    assert passing_probability(rows, -0.05) == pytest.approx(tail(70, 35, 0.45), abs=1e-9)
    assert tail(70, 35, 0.45) == pytest.approx(0.235, abs=0.001)


def test_rows_of_one_item_pass_or_fail_together() -> None:
    rows = SkillRows((cell("a", 70, of_an_item=7),), (bound("all", 0.5),))
    assert passing_probability(rows, 0.10) == pytest.approx(tail(10, 5, 0.6), abs=1e-9)


def test_the_lower_end_must_lie_above_the_best_trivial_answer() -> None:
    rows = SkillRows((cell("a", 70),), (bound("all", 0.5),), trivial=0.45)
    least = next(n for n in range(71) if wilson_interval(n / 70, 70)[0] > 0.45)
    assert least > 35
    assert passing_probability(rows, 0.10) == pytest.approx(tail(70, least, 0.6), abs=1e-9)


def test_a_model_cannot_be_better_than_perfect() -> None:
    rows = SkillRows((cell("a", 70),), (bound("all", 0.95),))
    assert passing_probability(rows, 0.10) == 1.0


def test_rules_that_share_rows_pass_as_often_as_in_a_simulation() -> None:
    """Halves, levels of many rows, a pool of small levels, and the whole, counted one by one."""
    cells = (
        cell("many", 45),
        cell("few", 25, of_an_item=5),
        cell("fewer", 15),
        cell("fewer", 10, answerable=False),
        cell("refuse", 50, answerable=False),
    )
    bounds = (
        bound("all", 0.55),
        bound("levels", 0.58),
        bound("answerable", 0.60),
        bound("unanswerable", 0.50),
    )
    rng = random.Random(7)

    def passed(each: EvalCell) -> int:
        rate = max(0.55, 0.58, 0.60 if each.answerable else 0.50) + 0.02
        return sum(
            int(size) * (rng.random() < rate) for size, n in each.items.items() for _ in range(n)
        )

    draws = 20_000
    good = 0
    for _ in range(draws):
        many, few, fewer, refused_few, refuse = (passed(each) for each in cells)
        good += (
            many + few + fewer + refused_few + refuse >= 0.55 * 145
            and many >= 0.58 * 45
            and few + fewer + refused_few >= 0.58 * 50
            and refuse >= 0.58 * 50
            and many + few + fewer >= 0.60 * 85
            and refused_few + refuse >= 0.50 * 60
        )
    found = passing_probability(SkillRows(cells, bounds), 0.02)
    assert found == pytest.approx(good / draws, abs=4 * math.sqrt(0.25 / draws))
    assert 0.2 < found < 0.9


def test_skills_multiply_and_a_false_pass_is_that_of_the_weakest() -> None:
    skills = {
        "large": SkillRows((cell("a", 400),), (bound("all", 0.5),)),
        "small": SkillRows((cell("a", 30),), (bound("all", 0.5),)),
    }
    found = power(skills)
    assert found.passing[0.10] == pytest.approx(tail(400, 200, 0.6) * tail(30, 15, 0.6), abs=1e-6)
    assert found.false_pass == pytest.approx(tail(30, 15, 0.45) * tail(400, 200, 0.6), abs=1e-6)
    assert (found.weakest, found.hardest) == ("small", "small")
