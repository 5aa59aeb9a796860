"""Student's t distribution for whole degrees of freedom.

Exact up to rounding: for whole degrees of freedom the integral is a finite sum (Abramowitz and
Stegun 1964, 26.7.3 and 26.7.4). Not for fractional ones, as Welch's test needs.
"""

from __future__ import annotations

import math

LARGEST_QUANTILE = 1e6  # the quantile at 0.975 with one degree of freedom is 12.7
HALVINGS = 80


def two_sided_p(t: float, degrees: int) -> float:
    """The probability that |T| exceeds |t|. Needs degrees >= 1; t may be infinite."""
    assert degrees >= 1, "Student's t needs a degree of freedom"
    angle = math.atan(abs(t) / math.sqrt(degrees))
    cosine_2 = math.cos(angle) ** 2
    first = 2 if degrees % 2 else 1  # of the factors first / (first + 1), (first + 2) / ...
    term = math.cos(angle) if degrees % 2 else 1.0
    total = 0.0
    for k in range((degrees - 1) // 2 if degrees % 2 else degrees // 2):
        total += term
        term *= cosine_2 * (first + 2 * k) / (first + 2 * k + 1)
    within = math.sin(angle) * total
    if degrees % 2:
        within = (angle + within) * 2 / math.pi
    return min(1.0, max(0.0, 1.0 - within))


def quantile_975(degrees: int) -> float:
    """The t that |T| exceeds with probability 0.05: half the width of a 95% interval in units of
    the standard error.
    """
    low, high = 0.0, LARGEST_QUANTILE
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided_p(middle, degrees) > 0.05 else (low, middle)
    return high
