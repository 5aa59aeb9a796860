"""Paired tests: the numbers of scipy and statsmodels, intervals that hold the truth, and tests that
find what is there and not more.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from picochat.core.records import read_json
from picochat.evals.paired_tests import (
    EXACT_UNITS,
    bootstrap_interval,
    holm,
    mcnemar_p,
    newcombe_interval,
    rows_test,
    seeds_test,
    sign_flip_p,
    spread,
    sums_test,
)
from picochat.evals.student_t import quantile_975, two_sided_p

GOLDEN = read_json(Path(__file__).parent / "golden" / "paired_tests.json")


@pytest.mark.parametrize(("only_a", "only_b", "p"), GOLDEN["mcnemar"])
def test_the_exact_test_of_rows_is_the_binomial_test_of_scipy(
    only_a: int, only_b: int, p: float
) -> None:
    assert mcnemar_p(only_a, only_b) == pytest.approx(p, rel=1e-12)
    assert mcnemar_p(only_b, only_a) == mcnemar_p(only_a, only_b)


def test_no_discordant_row_is_no_evidence() -> None:
    assert mcnemar_p(0, 0) == 1.0
    low, high = newcombe_interval(80, 0, 0, 95)
    assert low < 0 < high and high == pytest.approx(-low)


@pytest.mark.parametrize(("t", "degrees", "p"), GOLDEN["two_sided_t"])
def test_students_t_is_that_of_scipy(t: float, degrees: int, p: float) -> None:
    assert two_sided_p(t, degrees) == pytest.approx(p, rel=1e-9, abs=1e-14)
    assert two_sided_p(-t, degrees) == two_sided_p(t, degrees)


@pytest.mark.parametrize(("degrees", "t"), GOLDEN["t_975"])
def test_quantiles_of_students_t_are_those_of_scipy(degrees: int, t: float) -> None:
    assert quantile_975(degrees) == pytest.approx(t, rel=1e-9)


@pytest.mark.parametrize(("p_values", "corrected"), GOLDEN["holm"])
def test_holms_correction_is_that_of_statsmodels(
    p_values: list[float], corrected: list[float]
) -> None:
    assert holm(p_values) == pytest.approx(corrected)
    assert holm([]) == []


@pytest.mark.parametrize(("both", "only_a", "only_b"), [(0.6, 0.1, 0.1), (0.3, 0.05, 0.2)])
@pytest.mark.parametrize("rows", [40, 175])
def test_the_interval_of_a_paired_difference_holds_the_truth(
    rows: int, both: float, only_a: float, only_b: float
) -> None:
    random = np.random.default_rng(rows)
    tables = random.multinomial(
        rows, [both, only_a, only_b, 1 - both - only_a - only_b], 2_000
    ).tolist()
    held = [low <= only_b - only_a <= high for low, high in map(_interval, tables)]
    assert 0.935 <= np.mean(held) <= 0.98


def _interval(table: list[int]) -> tuple[float, float]:
    return newcombe_interval(*table)


def test_thirty_more_of_175_rows_are_found() -> None:
    random = np.random.default_rng(0)
    passed_a = np.arange(175) < 90
    passed_b = passed_a | (np.arange(175) < 120)
    lost = random.choice(90, 5, replace=False)
    passed_b[lost] = False
    found = rows_test(passed_a, passed_b)
    assert found.difference == pytest.approx(25 / 175)
    assert found.p < 1e-4 and found.low > 0
    assert rows_test(passed_b, passed_a).difference == -found.difference


def test_swapped_signs_are_counted_exactly_where_units_are_few() -> None:
    assert sign_flip_p(np.array([1.0, 2.0, 3.0])) == 2 / 8
    assert sign_flip_p(np.array([1.0])) == 1.0
    assert sign_flip_p(np.array([1.0, -1.0, 1.0, -1.0])) == 1.0
    # McNemar's test is the same test of rows that differ by one
    rows = np.array([1.0] * 9 + [-1.0] * 3 + [0.0])
    assert len(rows) == EXACT_UNITS
    assert sign_flip_p(rows) == pytest.approx(mcnemar_p(3, 9))
    more = np.concatenate([rows, np.zeros(40)])
    assert sign_flip_p(more) == pytest.approx(mcnemar_p(3, 9), abs=0.02)


def test_one_better_document_of_few_is_no_difference_however_much_better() -> None:
    sizes = np.full(4, 1000.0)
    found = sums_test(np.array([-50.0, -60.0, -40.0, -55.0]), sizes)
    assert (found.low, found.high, found.p) == (None, None, 2 / 16)


def test_documents_that_are_a_little_better_each_are_found() -> None:
    random = np.random.default_rng(3)
    sizes = random.integers(200, 5_000, 300).astype(float)
    noise = random.normal(0, 0.05, 300)
    found = sums_test((noise - 0.02) * sizes, sizes)
    assert found.low < -0.02 < found.high < 0 and found.p < 0.001
    assert found == sums_test((noise - 0.02) * sizes, sizes), "seeded: the same numbers each time"


def test_the_bootstrap_holds_the_truth_about_as_often_as_it_says() -> None:
    random, held = np.random.default_rng(5), 0
    for _ in range(100):
        sizes = random.integers(200, 5_000, 60).astype(float)
        low, high = bootstrap_interval(random.normal(0.01, 0.05, 60) * sizes, sizes)
        held += low <= 0.01 <= high
    assert held >= 88


def test_a_difference_of_seeds_is_the_formula_by_hand() -> None:
    # means 0.25, 0.75 and 0.5, 1.0; sd^2 of both 0.125, d = 0.25 in each of four units
    a = np.array([[1.0, 0, 0, 0], [1, 1, 1, 0]])
    b = np.array([[1.0, 0, 0, 1], [1, 1, 1, 1]])
    error = math.sqrt(0.125 * (1 / 2 + 1 / 2) + (0.0**2 + 0 + 0 + 1.0**2) / 16)
    # degrees: (2/16 + 1/16)^2 / ((2/16)^2 / 2 + (1/16)^2 / 3) = 3.86, below 2 (2 + 2 - 2) = 4
    found = seeds_test(a, b, np.ones(4))
    assert found.difference == pytest.approx(0.25)
    assert found.low is not None and found.high is not None
    assert found.p == pytest.approx(two_sided_p(0.25 / error, 3))
    assert found.high - found.low == pytest.approx(2 * quantile_975(3) * error)


def test_equal_runs_of_several_seeds_do_not_differ() -> None:
    same = np.ones((3, 5))
    found = seeds_test(same, same, np.ones(5))
    assert (found.difference, found.low, found.high, found.p) == (0.0, None, None, 1.0)


def test_the_spread_of_one_run_is_not_known() -> None:
    assert spread([0.5]) is None
    assert spread([0.4, 0.6]) == pytest.approx(math.sqrt(0.02))
