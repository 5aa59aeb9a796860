"""Intervals for rates: how far a fraction of few rows can be trusted.

Wilson's score interval: unlike the plain normal one it stays inside 0..1 and does not shrink to
nothing at 0 or 1 (Wilson 1927; Brown, Cai, DasGupta 2001). It takes the rows as independent: rows
of one template are not quite that.
"""

from __future__ import annotations

import math

from picochat.facts import Rate

Z_95 = 1.959963984540054  # the normal quantile at 0.975


def wilson_interval(fraction: float, count: int) -> tuple[float, float]:
    """(low, high) of the 95% interval of a fraction of `count` rows.

    Needs count >= 1 and 0 <= fraction <= 1.
    """
    assert count >= 1, "an interval needs rows"
    assert 0.0 <= fraction <= 1.0, "a fraction lies between 0 and 1"
    weight = Z_95 * Z_95 / count
    centre = (fraction + weight / 2) / (1 + weight)
    reach = (
        Z_95 * math.sqrt(fraction * (1 - fraction) / count + weight / (4 * count)) / (1 + weight)
    )
    # the two ends are exact there; rounding would leave 1e-17
    low = 0.0 if fraction == 0.0 else max(0.0, centre - reach)
    high = 1.0 if fraction == 1.0 else min(1.0, centre + reach)
    return low, high


def half_width(count: int, fraction: float = 0.5) -> float:
    """Half the width of the 95% interval of `count` rows at `fraction`; 0.5 is the widest."""
    low, high = wilson_interval(fraction, count)
    return (high - low) / 2


def rate(passed: int, count: int) -> Rate:
    """Passed of counted, with its interval; all None where nothing was counted."""
    assert 0 <= passed <= count, "no more rows pass than are counted"
    if count == 0:
        return Rate(passed=0, count=0, fraction=None, low=None, high=None)
    low, high = wilson_interval(passed / count, count)
    return Rate(passed=passed, count=count, fraction=passed / count, low=low, high=high)
