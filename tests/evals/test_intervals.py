from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picochat.evals.intervals import Z_95, half_width, rate, wilson_interval
from picochat.rundir import Rate


def test_the_interval_of_one_in_ten_is_that_of_the_formula_by_hand() -> None:
    # centre (0.1 + 0.384146 / 2) / 1.384146 = 0.211014; reach 1.959964 * sqrt(0.009 + 0.0096036) / 1.384146 = 0.193137
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
def test_the_ends_are_the_shares_that_a_test_would_just_not_reject(count: int, data: st.DataObject) -> None:
    """The definition: |share - end| = z * sqrt(end * (1 - end) / count)."""
    passed = data.draw(st.integers(0, count))
    for end in wilson_interval(passed / count, count):
        assert abs(passed / count - end) == pytest.approx(Z_95 * math.sqrt(end * (1 - end) / count), abs=1e-9)


def test_nothing_counted_is_unmeasured() -> None:
    assert rate(0, 0) == Rate(passed=0, count=0, share=None, low=None, high=None)


def test_more_passed_than_counted_is_a_mistake() -> None:
    with pytest.raises(AssertionError):
        rate(3, 2)


def test_half_width_is_widest_in_the_middle_and_shrinks_with_rows() -> None:
    assert half_width(70) == pytest.approx(0.1140, abs=1e-4)
    assert half_width(70) > half_width(70, 0.3) > half_width(700, 0.3)
