"""Formats each kind of value with one function, for terminal, Markdown and HTML.

`FORMS` names the functions for templates. They all accept None and write it as not measured. Bounds
are formatted in gate/bounds.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Protocol

NOT_MEASURED = "not measured"
COUNTS = "{passed} of {count}; 95% {low} to {high}"
COUNTS_WITHOUT_INTERVAL = "{passed} of {count}"


class Rate(Protocol):
    """A fraction passed / count with its 95% interval; `facts.Rate` is one."""

    passed: int
    count: int
    fraction: float | None
    low: float | None
    high: float | None


class Estimate(Protocol):
    """A value with its 95% interval; `low` equals `high` if it was counted."""

    value: float
    low: float
    high: float


def _or_not_measured(form: Callable[[float], str]) -> Callable[[float | None], str]:
    @wraps(form)
    def shown(value: float | None) -> str:
        return NOT_MEASURED if value is None else form(value)

    return shown


@_or_not_measured
def count(value: float) -> str:
    """`106,969,856`: a count in full."""
    return f"{value:,.0f}"


@_or_not_measured
def quantity(value: float) -> str:
    """`950`, `12.3k`, `4.56M`, `7.89B`: three significant digits."""
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


@_or_not_measured
def byte_quantity(value: float) -> str:
    """`950 B`, `12.3 kB`, `4.28 GB`: decimal units."""
    text = quantity(value)
    digits, suffix = (text[:-1], text[-1]) if text[-1].isalpha() else (text, "")
    return f"{digits} {'G' if suffix == 'B' else suffix}B"


@_or_not_measured
def duration(seconds: float) -> str:
    """`42s`, `3m 05s`, `1h 02m`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


@_or_not_measured
def hours(value: float) -> str:
    """As `duration`, of a value in hours."""
    return duration(value * 3600)


def with_unit(value: float, unit: str) -> str:
    """A measured number with its unit; a time as every other page shows it."""
    return hours(value) if unit == "hours" else f"{number(value)} {unit}"


@_or_not_measured
def fraction(value: float) -> str:
    """`0.614`: a rate or a chance level, with the same digits as its bound."""
    return f"{value:.3f}"


@_or_not_measured
def percent(value: float) -> str:
    """`61.4%`: a part of a whole that is not compared with a bound."""
    return f"{value:.1%}"


@_or_not_measured
def loss(value: float) -> str:
    """`1.0512`: bits per byte, or nats per token."""
    return f"{value:.4f}"


@_or_not_measured
def number(value: float) -> str:
    """A measured value of the gate: `2.16B`, a whole number in full, or 4 significant digits."""
    if abs(value) >= 1e6:
        return quantity(value)
    if float(value).is_integer():
        return count(value)
    return f"{value:.4g}"


@_or_not_measured
def dollars(value: float) -> str:
    """`2.75 USD`."""
    return f"{value:.2f} USD"


def rate(found: Rate | Mapping[str, Any] | None) -> str:
    """`0.614 (43 of 70; 95% 0.497 to 0.720)`: a rate, given as a record or as JSON."""
    if found is None:
        return NOT_MEASURED
    return f"{fraction(_values(found)['fraction'])} ({rate_counts(found)})"


def rate_counts(found: Rate | Mapping[str, Any] | None) -> str:
    """`43 of 70; 95% 0.497 to 0.720`: the counts and interval of a rate."""
    if found is None:
        return NOT_MEASURED
    values = _values(found)
    return counts_form(values["low"]).format(
        passed=count(values["passed"]),
        count=count(values["count"]),
        low=fraction(values["low"]),
        high=fraction(values["high"]),
    )


def counts_form(low: float | None) -> str:
    """The format string of `rate_counts`. The report fills it with figures that name their fact."""
    return COUNTS_WITHOUT_INTERVAL if low is None else COUNTS


def _values(found: Rate | Mapping[str, Any]) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else vars(found)


def estimate(found: Estimate | None) -> str:
    """`1.05B (95% 1.03B to 1.07B)`, or the value alone if it was counted."""
    if found is None:
        return NOT_MEASURED
    if found.low == found.high:
        return quantity(found.value)
    return f"{quantity(found.value)} (95% {quantity(found.low)} to {quantity(found.high)})"


def short_digest(digest: str) -> str:
    """The first twelve hex digits, enough to tell artifacts apart."""
    return digest[:12]


FORMS: dict[str, Callable[[float | None], str]] = {
    "count": count,
    "quantity": quantity,
    "bytes": byte_quantity,
    "hours": hours,
    "fraction": fraction,
    "percent": percent,
    "loss": loss,
    "number": number,
    "dollars": dollars,
}
