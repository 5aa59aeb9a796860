"""The probability that a model of given true rates passes the rules that are judged on eval rows.

Exact, without simulation: rows of different items pass independently of each other, rows of one
item pass or fail together, and the rules of one skill share its rows. Skills share no rows, so
their probabilities multiply. Rules of other kinds are left out, such as benchmarks and the 5-gram
baseline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from picochat.evals.intervals import wilson_interval
from picochat.facts import EvalCell
from picochat.gate.row_bounds import RowBound, level_groups

Counts = npt.NDArray[np.float64]
"""Probability of each number of passed rows, from none to all."""
DIGITS = 6  # of a probability: machines round further digits differently
MARGINS = (0.05, 0.10, 0.15)
BELOW = 0.05


@dataclass(frozen=True)
class SkillRows:
    """The eval rows of one skill, the bounds on them, and the rate of its best trivial answerer."""

    cells: tuple[EvalCell, ...]
    bounds: tuple[RowBound, ...]
    trivial: float | None = None


@dataclass(frozen=True)
class Power:
    """Probabilities of passing every rule on rows.

    passing: margin above every bound -> probability, for a model of just these true rates.
    false_pass: the largest probability of a model that is BELOW its bounds in one skill, and
    MARGINS[1] above them in all others. weakest: that skill. hardest: the skill that a model
    MARGINS[1] above its bounds passes least often.
    """

    passing: Mapping[float, float]
    false_pass: float
    weakest: str
    hardest: str


def power(skills: Mapping[str, SkillRows]) -> Power:
    """The probabilities for the rows of these skills, of which there is at least one."""
    above = {
        margin: {name: passing_probability(rows, margin) for name, rows in skills.items()}
        for margin in MARGINS
    }
    others = above[MARGINS[1]]
    falsely = {
        name: passing_probability(rows, -BELOW)
        * math.prod(value for other, value in others.items() if other != name)
        for name, rows in skills.items()
    }
    weakest = max(falsely, key=lambda name: (falsely[name], name))
    return Power(
        passing={
            margin: round(math.prod(found.values()), DIGITS) for margin, found in above.items()
        },
        false_pass=round(falsely[weakest], DIGITS),
        weakest=weakest,
        hardest=min(others, key=lambda name: (others[name], name)),
    )


def passing_probability(rows: SkillRows, margin: float) -> float:
    """The probability that a model passes every bound on the rows of one skill.

    margin: how far its true rate on each row lies above the highest bound that counts the row.
    """
    lows = {part: _bound(rows, part) for part in ("unanswerable", "answerable")}
    refused, answered, both = _by_side(rows, margin)
    if both is None:
        passed = np.convolve(
            _at_least(refused, lows["unanswerable"]), _at_least(answered, lows["answerable"])
        )
    else:
        more_refused = _convolved(both, refused)
        table = np.transpose(_convolved(np.transpose(more_refused), answered))
        table[: _fewest(table.shape[0] - 1, lows["unanswerable"])] = 0.0
        table[:, : _fewest(table.shape[1] - 1, lows["answerable"])] = 0.0
        passed = _sums(table)
    count = len(passed) - 1
    least = max(_fewest(count, _bound(rows, "all")), _fewest_above(count, rows.trivial))
    return min(1.0, float(passed[least:].sum()))


def _by_side(rows: SkillRows, margin: float) -> tuple[Counts, Counts, Counts | None]:
    """(rows to refuse, rows to answer, the joint counts of levels that have both).

    Without the outcomes in which a level, or the pool of small levels, fails its bound. The joint
    counts are a table (refused, answered); None where no group of levels has rows of both kinds.
    """
    sizes: dict[str, int] = {}
    for cell in rows.cells:
        sizes[cell.level or ""] = sizes.get(cell.level or "", 0) + cell.rows
    judged = level_groups(sizes)
    alone = [(name,) for name in sizes if not any(name in group for group in judged)]
    sides, both = (np.ones(1), np.ones(1)), None
    for group in (*judged, *alone):
        low = _bound(rows, "levels") if group in judged else 0.0
        refused, answered = (_counts(rows, group, side, margin) for side in (False, True))
        if len(answered) == 1:
            sides = (np.convolve(sides[0], _at_least(refused, low)), sides[1])
        elif len(refused) == 1:
            sides = (sides[0], np.convolve(sides[1], _at_least(answered, low)))
        else:
            table = np.outer(refused, answered)
            fewest = _fewest(len(refused) + len(answered) - 2, low)
            table[_places(len(refused), len(answered)) < fewest] = 0.0
            both = table if both is None else _convolved_tables(both, table)
    return *sides, both


def _counts(rows: SkillRows, group: Sequence[str], answerable: bool, margin: float) -> Counts:
    counts: Counts = np.ones(1)
    for cell in rows.cells:
        if (cell.level or "") in group and cell.answerable == answerable:
            counts = np.convolve(counts, _cell(cell, _true_rate(rows, cell, margin)))
    return counts


def _convolved(table: Counts, counts: Counts) -> Counts:
    """The table with more rows of the first kind."""
    columns = [np.convolve(table[:, number], counts) for number in range(table.shape[1])]
    return np.stack(columns, axis=1)


def _convolved_tables(one: Counts, other: Counts) -> Counts:
    shape = (one.shape[0] + other.shape[0] - 1, one.shape[1] + other.shape[1] - 1)
    found = np.zeros(shape)
    for row, column in np.argwhere(other > 0).tolist():
        found[row : row + one.shape[0], column : column + one.shape[1]] += other[row, column] * one
    return found


def _sums(table: Counts) -> Counts:
    """The probability of each sum of row and column."""
    places = _places(table.shape[0], table.shape[1])
    return np.bincount(places.ravel(), weights=table.ravel()).astype(np.float64)


def _places(rows: int, columns: int) -> npt.NDArray[np.int64]:
    """At each place of a table the sum of its row and column."""
    return np.arange(rows, dtype=np.int64)[:, None] + np.arange(columns, dtype=np.int64)


def _bound(rows: SkillRows, part: str) -> float:
    return max((bound.low for bound in rows.bounds if bound.part == part), default=0.0)


def _true_rate(rows: SkillRows, cell: EvalCell, margin: float) -> float:
    side = "answerable" if cell.answerable else "unanswerable"
    lows = [bound.low for bound in rows.bounds if bound.part in ("all", "levels", side)]
    return min(1.0, max(0.0, max([*lows, rows.trivial or 0.0]) + margin))


def _cell(cell: EvalCell, rate: float) -> Counts:
    counts = np.ones(1)
    for size, items in sorted(cell.items.items()):
        passed = np.zeros(int(size) * items + 1)
        passed[:: int(size)] = binomial(items, rate)
        counts = np.convolve(counts, passed)
    return counts


@lru_cache(maxsize=4096)
def _binomial(count: int, rate: float) -> tuple[float, ...]:
    if rate in (0.0, 1.0):
        return tuple(float(passed == rate * count) for passed in range(count + 1))
    whole = math.lgamma(count + 1)
    return tuple(
        math.exp(
            whole
            - math.lgamma(passed + 1)
            - math.lgamma(count - passed + 1)
            + passed * math.log(rate)
            + (count - passed) * math.log1p(-rate)
        )
        for passed in range(count + 1)
    )


def binomial(count: int, rate: float) -> Counts:
    """The probability of each number of passes among `count` independent rows."""
    return np.array(_binomial(count, rate))


def _at_least(counts: Counts, low: float) -> Counts:
    """The counts without the outcomes below the fraction `low`."""
    kept: Counts = np.array(counts)
    kept[: _fewest(len(counts) - 1, low)] = 0.0
    return kept


def _fewest(rows: int, low: float) -> int:
    """The fewest passes among `rows` whose fraction is `low` or more, as the gate compares them."""
    return next((passed for passed in range(rows + 1) if passed >= low * rows - 1e-9), rows + 1)


def _fewest_above(rows: int, trivial: float | None) -> int:
    """The fewest passes whose 95% lower end is above the rate of the best trivial answerer."""
    if trivial is None or not rows:
        return 0
    return next(
        (n for n in range(rows + 1) if wilson_interval(n / rows, rows)[0] > trivial), rows + 1
    )
