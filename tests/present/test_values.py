"""One form for each kind of value, whoever shows it."""

from typing import NamedTuple

import pytest

from picochat.facts import Rate
from picochat.present.values import (
    FORMS,
    NOT_MEASURED,
    byte_quantity,
    count,
    dollars,
    duration,
    estimate,
    fraction,
    hours,
    loss,
    number,
    percent,
    quantity,
    rate,
    rate_counts,
    short_digest,
)


class Interval(NamedTuple):
    value: float
    low: float
    high: float


def test_durations_and_quantities_read_well() -> None:
    assert [duration(s) for s in (0, 59, 60, 3725)] == ["0s", "59s", "1m 00s", "1h 02m"]
    assert [quantity(n) for n in (0.5, 999, 12_345, 106_969_856, 2.16e9)] == [
        "0.5",
        "999",
        "12.3k",
        "107M",
        "2.16B",
    ]


def test_bytes_are_decimal_and_keep_three_digits() -> None:
    assert [byte_quantity(n) for n in (950, 12_345, 4.284e9)] == ["950 B", "12.3 kB", "4.28 GB"]


def test_numbers_are_shown_so_that_people_can_compare_them() -> None:
    assert [number(n) for n in (0, 2_240, 1_970_000, 2.0378, 0.00001)] == [
        "0",
        "2,240",
        "1.97M",
        "2.038",
        "1e-05",
    ]


def test_counts_losses_parts_and_prices_have_one_form_each() -> None:
    assert (count(106_969_856), loss(1.05123), dollars(2.746)) == (
        "106,969,856",
        "1.0512",
        "2.75 USD",
    )
    assert (fraction(43 / 70), percent(43 / 70), hours(1.0625)) == ("0.614", "61.4%", "1h 03m")
    assert short_digest("0123456789abcdef" * 4) == "0123456789ab"


@pytest.mark.parametrize("form", sorted(FORMS))
def test_what_was_not_measured_is_never_a_number(form: str) -> None:
    assert FORMS[form](None) == NOT_MEASURED
    assert FORMS[form](0) != NOT_MEASURED


def test_a_rate_never_stands_without_its_count_and_interval() -> None:
    found = Rate(passed=43, count=70, fraction=43 / 70, low=0.4971, high=0.7199)
    assert rate(found) == "0.614 (43 of 70; 95% 0.497 to 0.720)"
    assert rate_counts(found) == "43 of 70; 95% 0.497 to 0.720"
    assert rate(found.model_dump()) == rate(found)
    nothing = Rate(passed=0, count=0, fraction=None, low=None, high=None)
    assert rate(nothing) == "not measured (0 of 0)"
    assert rate(None) == NOT_MEASURED


def test_counted_values_have_no_interval_and_missing_ones_say_so() -> None:
    assert estimate(Interval(value=3, low=3, high=3)) == "3"
    assert estimate(Interval(value=1.05e9, low=1.03e9, high=1.07e9)) == "1.05B (95% 1.03B to 1.07B)"
    assert estimate(None) == "not measured"
