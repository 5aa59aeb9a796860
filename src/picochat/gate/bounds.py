"""Bounds: what a measured number must satisfy.

A bound prints as it is enforced (`<= 4.0`). None, NaN and infinity satisfy no bound, because
missing or broken evidence must never pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

EXPORT_DIFFERENCE = 1e-4
"""Largest allowed difference of a float32 export's logits over the largest logit.

The gate judges a run by it, and `export hf` refuses by it (docs/decisions/0011).
"""


@dataclass(frozen=True)
class Bound:
    """low <= number <= high, either side optional. `strict`: < instead of <=."""

    low: float | None = None
    high: float | None = None
    strict: bool = False

    def holds(self, number: float | None) -> bool:
        if number is None or not math.isfinite(number):
            return False
        if number in (self.low, self.high):
            return not self.strict
        above = self.low is None or number > self.low
        return above and (self.high is None or number < self.high)

    def __str__(self) -> str:
        equals = "" if self.strict else "="
        if self.low is None:
            return "any number" if self.high is None else f"<{equals} {self.high:,}"
        if self.high is None:
            return f">{equals} {self.low:,}"
        return f"= {self.low:,}" if self.low == self.high else f"{self.low:,} to {self.high:,}"


def at_least(low: float) -> Bound:
    return Bound(low=low)


def at_most(high: float) -> Bound:
    return Bound(high=high)


def above(low: float) -> Bound:
    return Bound(low=low, strict=True)


def below(high: float) -> Bound:
    return Bound(high=high, strict=True)


def between(low: float, high: float) -> Bound:
    return Bound(low=low, high=high)


def exactly(number: float) -> Bound:
    return Bound(low=number, high=number)


def measured() -> Bound:
    """Any finite number. The row informs; it fails only if nothing was measured."""
    return Bound()
