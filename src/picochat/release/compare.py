"""Compares stated values with computed ones; each difference is one problem with its path.

Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, cast

from jinja2 import TemplateError

from picochat.core.errors import PicochatError, Problem
from picochat.core.records import Record, canonical_json, to_jsonable

LONGEST_SHOWN = 80
F = TypeVar("F", bound=Record)
UNUSABLE = (
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    AttributeError,
    RecursionError,
    OSError,
    TemplateError,
)
"""The errors that the comparison raises for evidence of a wrong shape.

A page of which a value is missing raises TemplateError.
"""


def known(facts: F | None) -> F:
    """Facts that a check needs; a check whose artifact is missing is not called."""
    if facts is None:
        raise LookupError("facts that the check needs are missing")
    return facts


def differences(where: str, stated: object, again: object, source: str) -> list[Problem]:
    """One problem for each value that differs.

    A problem names the value's path below `where`, what is stated, and what `source` gives.
    """
    if isinstance(stated, dict) and isinstance(again, dict):
        one, other = cast("dict[str, Any]", stated), cast("dict[str, Any]", again)
        keys = sorted(set(one) | set(other))
        return [
            p
            for key in keys
            for p in differences(f"{where}.{key}", one.get(key), other.get(key), source)
        ]
    if (
        isinstance(stated, list)
        and isinstance(again, list)
        and len(cast("list[Any]", stated)) == len(cast("list[Any]", again))
    ):
        pairs = enumerate(zip(cast("list[Any]", stated), cast("list[Any]", again), strict=True))
        return [
            p
            for index, (mine, theirs) in pairs
            for p in differences(f"{where}[{index}]", mine, theirs, source)
        ]
    if canonical_json(stated) == canonical_json(again):
        return []
    return [Problem(f"{where}: states {shown(stated)}, {source} {shown(again)}")]


def stated_of(
    where: str, facts: object, follows: Mapping[str, object], source: str
) -> list[Problem]:
    """`differences` of those facts alone that `follows` names."""
    values = cast("dict[str, Any]", to_jsonable(facts))
    return differences(
        where, {name: values[name] for name in follows}, to_jsonable(dict(follows)), source
    )


def shown(value: object) -> str:
    text = canonical_json(value).decode()
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."


def names_shown(names: Collection[str], most: int = 3) -> str:
    """The first few of these names, and how many more there are."""
    first = ", ".join(list(names)[:most])
    return first if len(names) <= most else f"{first} and {len(names) - most} more"


def compared(name: str, compare: Callable[[], list[Problem]]) -> list[Problem]:
    """The differences that a comparison finds; evidence that cannot even be read is one."""
    try:
        return compare()
    except PicochatError as error:
        return [Problem(f"{name}: cannot be computed again: {error.without_fix()}")]
    except UNUSABLE as error:
        return [Problem(f"{name}: cannot be computed again: {type(error).__name__} {error}")]
