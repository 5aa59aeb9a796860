"""Bounds: what a measured number must satisfy.

A bound prints as it is enforced (`<= 4.0`). None, NaN and infinity satisfy no bound: evidence that
is missing or broken is never a pass. Which bound is used where, and what follows from a miss, is
not known here: see preflight.py, release.py and decide.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """low <= number <= high, either side optional.

    `strict`: the limits themselves do not satisfy.
    """

    low: float | None = None
    high: float | None = None
    strict: bool = False

    def holds(self, number: float | None) -> bool:
        if number is None or not math.isfinite(number):
            return False
        above = self.low is None or number > self.low or (number == self.low and not self.strict)
        below = self.high is None or number < self.high or (number == self.high and not self.strict)
        return above and below

    def __str__(self) -> str:
        equals = "" if self.strict else "="
        if self.low is not None and self.low == self.high:
            return f"= {_limit(self.low)}"
        if self.low is not None and self.high is not None:
            return f"{_limit(self.low)} to {_limit(self.high)}"
        if self.low is not None:
            return f">{equals} {_limit(self.low)}"
        return f"<{equals} {_limit(self.high)}" if self.high is not None else "any number"


def at_least(low: float) -> Bound:
    return Bound(low=low)


def at_most(high: float) -> Bound:
    return Bound(high=high)


def above(low: float) -> Bound:
    return Bound(low=low, strict=True)


def below(high: float) -> Bound:
    return Bound(high=high, strict=True)


def between(low: float, high: float) -> Bound:
    """Both ends included."""
    return Bound(low=low, high=high)


def exactly(number: float) -> Bound:
    return Bound(low=number, high=number)


def measured() -> Bound:
    """Any finite number: the row informs, and fails only where nothing was measured."""
    return Bound()


def _limit(number: float | None) -> str:
    return f"{number:,}" if number is not None else ""
