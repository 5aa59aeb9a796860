from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picochat.core.records import read_json
from picochat.evals.intervals import Z_95, half_width, rate, wilson_interval
from picochat.facts import Rate, SkillScore
from picochat.gate.measures import fraction_over_chance, fraction_over_chance_lower_95
from tests.builders import change, make_evidence, make_scores_facts


def test_the_interval_of_one_in_ten_is_that_of_the_formula_by_hand() -> None:
    # centre (0.1 + 0.384146 / 2) / 1.384146 = 0.211014; reach 1.959964 * sqrt(0.009 + 0.0096036) /
    # 1.384146 = 0.193137
    low, high = wilson_interval(0.1, 10)
    assert low == pytest.approx(0.0178762, abs=1e-6)
    assert high == pytest.approx(0.4041500, abs=1e-6)


def test_half_of_a_hundred_is_symmetric() -> None:
    low, high = wilson_interval(0.5, 100)
    assert (low, high) == (pytest.approx(0.4038315, abs=1e-6), pytest.approx(0.5961685, abs=1e-6))


@pytest.mark.parametrize("count", [1, 7, 175])
def test_none_and_all_have_one_exact_end(count: int) -> None:
    # at 0 of n the upper end is z^2 / (n + z^2)
    none, whole = rate(0, count), rate(count, count)
    assert (none.low, none.high) == (0.0, pytest.approx(Z_95**2 / (count + Z_95**2)))
    assert (whole.low, whole.high) == (pytest.approx(count / (count + Z_95**2)), 1.0)


@given(count=st.integers(1, 10_000), data=st.data())
def test_the_ends_are_the_shares_that_a_test_would_just_not_reject(
    count: int, data: st.DataObject
) -> None:
    """The definition: |fraction - end| = z * sqrt(end * (1 - end) / count)."""
    passed = data.draw(st.integers(0, count))
    for end in wilson_interval(passed / count, count):
        assert abs(passed / count - end) == pytest.approx(
            Z_95 * math.sqrt(end * (1 - end) / count), abs=1e-9
        )


def test_nothing_counted_is_unmeasured() -> None:
    assert rate(0, 0) == Rate(passed=0, count=0, fraction=None, low=None, high=None)


def test_more_passed_than_counted_is_a_mistake() -> None:
    with pytest.raises(AssertionError):
        rate(3, 2)


def test_half_width_is_widest_in_the_middle_and_shrinks_with_rows() -> None:
    assert half_width(70) == pytest.approx(0.1140, abs=1e-4)
    assert half_width(70) > half_width(70, 0.3) > half_width(700, 0.3)


# ---- against other libraries ---------------------------------------------------------------------

GOLDEN = read_json(Path(__file__).parent / "golden" / "intervals.json")


def test_intervals_are_those_of_statsmodels_and_scipy() -> None:
    """In golden/intervals.json with their versions; golden/make_intervals.py makes them."""
    rows = GOLDEN["rows"]
    assert len(rows) > 120
    assert {0, 1} <= {passed for passed, *_ in rows} and any(
        passed == count for passed, count, *_ in rows
    )
    for passed, count, *ends in rows:
        found = rate(passed, count)
        assert [found.low, found.high] * 2 == pytest.approx(ends, abs=1e-12), (passed, count)


def test_the_quantile_is_scipys() -> None:
    assert pytest.approx(GOLDEN["made_with"]["z_95"], abs=1e-15) == Z_95


def test_half_width_is_half_of_statsmodels_interval_at_even_odds() -> None:
    halves = {
        count: (high - low) / 2
        for passed, count, low, high, *_ in GOLDEN["rows"]
        if 2 * passed == count
    }
    assert len(halves) > 8
    for count, half in halves.items():
        assert half_width(count) == pytest.approx(half, abs=1e-12)


@given(count=st.integers(1, 2_000), data=st.data())
def test_more_passes_never_lower_an_end_and_the_mirror_is_the_mirror(
    count: int, data: st.DataObject
) -> None:
    passed = data.draw(st.integers(0, count))
    found, mirrored = rate(passed, count), rate(count - passed, count)
    assert (
        found.low is not None
        and found.high is not None
        and found.fraction is not None
        and mirrored.high is not None
    )
    assert 0.0 <= found.low <= found.fraction <= found.high <= 1.0
    assert found.low == pytest.approx(1 - mirrored.high, abs=1e-12)
    if passed < count:
        higher = rate(passed + 1, count)
        assert higher.low is not None and higher.high is not None
        assert higher.low >= found.low and higher.high >= found.high


@pytest.mark.parametrize(
    ("passed", "count", "chance"),
    [(36, 70, 0.25), (0, 70, 0.25), (70, 70, 0.25), (9, 36, 0.25), (1, 1, 0.5)],
)
def test_choice_over_chance_is_zero_for_guessing_and_one_for_perfect(
    passed: int, count: int, chance: float
) -> None:
    """(k/n - c) / (1 - c), by hand, and the same at the interval's lower end."""
    found = rate(passed, count)
    assert found.low is not None
    choice = SkillScore(all=found, clean=found, base=rate(0, 0), chance=chance, levels={})
    scores = make_scores_facts()
    evidence = make_evidence(scores=change(scores, skills={**scores.skills, "choice": choice}))
    assert fraction_over_chance(evidence, "choice") == pytest.approx(
        (passed / count - chance) / (1 - chance)
    )
    assert fraction_over_chance_lower_95(evidence, "choice") == pytest.approx(
        (found.low - chance) / (1 - chance)
    )
    if passed == count:
        assert fraction_over_chance(evidence, "choice") == 1.0
    if passed == count * chance:
        assert fraction_over_chance(evidence, "choice") == 0.0
