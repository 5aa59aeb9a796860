"""Tests and intervals for two models that were given the same units: rows, or documents.

One idea for both: if the models did not differ, their names could be swapped on each unit. For rows
that pass or fail this is McNemar's exact test, for losses of documents the test of swapped signs.
Where a side has several runs with other seeds, the seed counts as chance too (`seeds_test`).

All tests take units as independent. Rows of one item, or documents of one site, are not quite that.
Knows nothing of skills, files or pages. Needs numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from picochat.evals.intervals import wilson_interval
from picochat.evals.student_t import quantile_975, two_sided_p

LEVEL = 0.05
RESAMPLES = 10_000
LEAST_UNITS = 10  # for a bootstrap: of fewer it is much too narrow
EXACT_UNITS = 13  # so many have fewer than RESAMPLES ways to swap, and all of them are tried
MOST_DEGREES = 2
BLOCK_NUMBERS = 1 << 22  # drawn at once: 32 MB

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A difference B - A with its 95% interval, and the p value of no difference.

    low, high: None where they are not known: units are too few, or equal in every run.
    """

    difference: float
    low: float | None
    high: float | None
    p: float


# ---- one run on each side ------------------------------------------------------------------------


def rows_test(passed_a: npt.NDArray[np.bool_], passed_b: npt.NDArray[np.bool_]) -> Estimate:
    """The difference of two pass rates on the same rows, at least one."""
    both, neither = int((passed_a & passed_b).sum()), int((~passed_a & ~passed_b).sum())
    only_a, only_b = int((passed_a & ~passed_b).sum()), int((~passed_a & passed_b).sum())
    low, high = newcombe_interval(both, only_a, only_b, neither)
    difference = (only_b - only_a) / len(passed_a)
    return Estimate(difference, low, high, mcnemar_p(only_a, only_b))


def mcnemar_p(only_a: int, only_b: int) -> float:
    """The exact two-sided p of McNemar's test (1947): a binomial with 1/2 on the discordant rows.

    1 where no row is discordant.
    """
    rows = only_a + only_b
    tail = sum(math.comb(rows, count) for count in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / 2**rows)


def newcombe_interval(both: int, only_a: int, only_b: int, neither: int) -> tuple[float, float]:
    """The 95% interval of the rate of B minus that of A.

    Method 10 of Newcombe 1998 (Statistics in Medicine 17, 2635): Wilson's intervals of both rates
    and their correlation. Unlike the plain normal one it has a width where no row is discordant.
    """
    rows = both + only_a + only_b + neither
    rate_a, rate_b = (both + only_a) / rows, (both + only_b) / rows
    (low_a, high_a), (low_b, high_b) = wilson_interval(rate_a, rows), wilson_interval(rate_b, rows)
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    product = both * neither - only_a * only_b
    corrected = product if product < 0 else max(0.0, product - rows / 2)
    phi = corrected / math.sqrt(margins) if margins else 0.0
    down = _joined(rate_b - low_b, high_a - rate_a, phi)
    up = _joined(high_b - rate_b, rate_a - low_a, phi)
    return max(-1.0, rate_b - rate_a - down), min(1.0, rate_b - rate_a + up)


def _joined(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def sums_test(difference: Floats, sizes: Floats, seed: int = 0) -> Estimate:
    """The difference of two ratios of sums, such as nats over bytes, on the same units.

    difference: B - A of each unit (units,). sizes: what the sums are divided by (units,), the same
    for both. The p is that of swapped signs, the interval that of the bootstrap over units, which
    needs LEAST_UNITS of them.
    """
    enough = len(difference) >= LEAST_UNITS
    low, high = bootstrap_interval(difference, sizes, seed) if enough else (None, None)
    estimate = float(difference.sum() / sizes.sum())
    return Estimate(estimate, low, high, sign_flip_p(difference, seed))


def sign_flip_p(difference: Floats, seed: int = 0) -> float:
    """The part of all ways to swap A and B on units whose sum is at least as far from 0.

    Fisher's randomization test (1935). Few units are swapped in every way, and then n units never
    give less than 2 / 2^n; of many, RESAMPLES ways are drawn, and the way that was seen counts as
    one of them, so p is never 0.
    """
    seen = abs(float(difference.sum())) * (1 - 1e-12)  # equal sums round differently
    units = len(difference)
    if units <= EXACT_UNITS:
        ways = (np.arange(1 << units)[:, None] >> np.arange(units)) & 1
        return float((np.abs((2.0 * ways - 1.0) @ difference) >= seen).mean())
    random = np.random.default_rng([seed, 1])
    reached = 0
    for rows in _blocks(units):
        signs = random.integers(0, 2, (rows, units), dtype=np.int8)
        sums = 2.0 * (signs @ difference) - difference.sum()
        reached += int((np.abs(sums) >= seen).sum())
    return (1 + reached) / (1 + RESAMPLES)


def bootstrap_interval(difference: Floats, sizes: Floats, seed: int = 0) -> tuple[float, float]:
    """The 95% percentile interval of sum(difference) / sum(sizes) over RESAMPLES resamples of the
    units (Efron 1979). Too narrow for few units.
    """
    random = np.random.default_rng([seed, 2])
    units, found = len(difference), list[Floats]()
    for rows in _blocks(units):
        drawn = random.integers(0, units, (rows, units))
        found.append(difference[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(found), [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def _blocks(units: int) -> list[int]:
    """How many resamples are drawn together, so that the memory does not grow with the units."""
    rows = max(1, BLOCK_NUMBERS // units)
    return [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]


# ---- several runs on a side ----------------------------------------------------------------------


def seeds_test(values_a: Floats, values_b: Floats, sizes: Floats) -> Estimate:
    """The difference of two means over runs, where seed and unit are chance.

    values_a, values_b: (runs, units), three runs or more together. sizes: (units,), as in
    `sums_test`. The squared standard error is that of the seed, pooled over both sides, plus that
    of the units: sd^2 (1/nA + 1/nB) + sum(d^2) / sum(sizes)^2, where d is the difference of the
    means of a unit. What a seed does to single units is in both parts, so the test errs towards no
    difference (docs/decisions/0032).

    Degrees of freedom: those of Satterthwaite (1946), because the part of the units rests on many
    units, but at most MOST_DEGREES times nA + nB - 2, because the part of the seed rests on few
    runs and comes out too small by chance.
    """
    count_a, count_b, units = len(values_a), len(values_b), len(sizes)
    of_runs = count_a + count_b - 2
    means_a, means_b = (values.sum(axis=1) / sizes.sum() for values in (values_a, values_b))
    squares = sum(float(((means - means.mean()) ** 2).sum()) for means in (means_a, means_b))
    differences = values_b.mean(axis=0) - values_a.mean(axis=0)
    by_seed = squares / of_runs * (1 / count_a + 1 / count_b)
    by_units = float((differences**2).sum()) / float(sizes.sum()) ** 2
    difference = float(differences.sum() / sizes.sum())
    variance = by_seed + by_units
    if variance == 0.0:  # then every unit is equal
        return Estimate(0.0, None, None, 1.0)
    satterthwaite = variance**2 / (by_seed**2 / of_runs + by_units**2 / max(1, units - 1))
    degrees = max(1, int(min(satterthwaite, MOST_DEGREES * of_runs)))
    error = math.sqrt(variance)
    reach = quantile_975(degrees) * error
    p = two_sided_p(difference / error, degrees)
    return Estimate(difference, difference - reach, difference + reach, p)


def spread(means: Sequence[float]) -> float | None:
    """The standard deviation of runs around their mean; None of a single run."""
    return float(np.std(means, ddof=1)) if len(means) > 1 else None


# ---- several measures ----------------------------------------------------------------------------


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values after Holm's correction (1979), in the order given.

    Where nothing differs, one of them is below LEVEL with a probability of at most LEVEL, however
    the measures depend on each other.
    """
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - place)))
        corrected[index] = largest
    return corrected
