import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picochat.gate.bounds import Bound, above, at_least, at_most, below, between, exactly, measured

EVERY_KIND = [at_least(0), at_most(0), above(-1), below(1), between(-1, 1), exactly(0), measured()]


@pytest.mark.parametrize("bound", EVERY_KIND, ids=str)
@pytest.mark.parametrize("number", [None, math.nan, math.inf, -math.inf])
def test_missing_and_broken_numbers_satisfy_no_bound(bound: Bound, number: float | None) -> None:
    assert not bound.holds(number)


@pytest.mark.parametrize(
    ("bound", "inside", "outside", "text"),
    [
        (at_least(0.6), 0.6, 0.5999, ">= 0.6"),
        (at_most(4.0), 4.0, 4.0001, "<= 4.0"),
        (above(0), 1e-9, 0, "> 0"),
        (below(0.7), 0.6999, 0.7, "< 0.7"),
        (between(0.5, 1.5), 1.5, 1.51, "0.5 to 1.5"),
        (exactly(0), 0, 1, "= 0"),
        (at_least(1_000_000), 1_000_000, 999_999, ">= 1,000,000"),
    ],
)
def test_a_bound_holds_up_to_its_limit_and_prints_as_enforced(
    bound: Bound, inside: float, outside: float, text: str
) -> None:
    assert bound.holds(inside)
    assert not bound.holds(outside)
    assert str(bound) == text


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_at_least_and_below_share_no_number_and_leave_none_out(limit: float, number: float) -> None:
    assert at_least(limit).holds(number) != below(limit).holds(number)
