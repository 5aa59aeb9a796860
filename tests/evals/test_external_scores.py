"""Scores of benchmarks follow from kept likelihoods alone, and nothing that is not whole is
measured.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from picochat.data.benchmarks.stage import BenchmarkItem
from picochat.evals.external_scores import external_scores_of, is_right, is_right_norm
from picochat.evals.record import ExternalAsked
from picochat.facts import ExternalScore
from tests.builders import make_benchmark_facts, make_benchmark_items, make_external_answers


def item(characters: list[int], correct: int) -> BenchmarkItem:
    return BenchmarkItem(
        id="q-00000", benchmark="q", digest="0" * 64, characters=characters, correct=correct
    )


def score(
    count: int = 100, right: int = 60, dirty: tuple[str, ...] = (), **changes: Any
) -> ExternalScore:
    """The score of a benchmark with one answer replaced by `changes`."""
    items = make_benchmark_items("q", count)
    answers = make_external_answers(items, right)
    if changes:
        answers[3] = ExternalAsked.model_validate({**answers[3].model_dump(), **changes})
    facts = {"q": make_benchmark_facts(rows=count)}
    return external_scores_of(facts, items, answers, {"q": list(dirty)})["q"]


def test_the_largest_sum_and_the_largest_sum_per_character_are_two_answers() -> None:
    sums = [-10.0, -12.0]
    assert is_right(item([5, 10], 0), sums) and not is_right(item([5, 10], 1), sums)
    assert is_right_norm(item([5, 10], 1), sums) and not is_right_norm(item([5, 10], 0), sums)


def test_of_equal_options_the_first_counts() -> None:
    assert is_right(item([1, 1], 0), [-1.0, -1.0])
    assert not is_right(item([1, 1], 1), [-1.0, -1.0])


def test_each_rate_counts_its_own_rows_and_its_own_model() -> None:
    found = score(dirty=("q-00000", "q-00099"))
    assert (found.all.passed, found.all.count) == (60, 100)
    assert (found.clean.passed, found.clean.count) == (59, 98)
    assert found.base is not None and (found.base.passed, found.base.count) == (0, 100)
    assert found.acc == found.acc_norm == found.all
    assert found.all.low is not None and found.all.low < 0.6 < (found.all.high or 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"log_likelihoods": None},
        {"log_likelihoods": [-1.0, -2.0, -3.0]},
        {"log_likelihoods": [-1.0, math.nan, -3.0, -4.0]},
        {"log_likelihoods": [-1.0, -math.inf, -3.0, -4.0]},
        {"id": "q-99999"},
    ],
)
def test_one_row_without_a_score_leaves_the_benchmark_unmeasured(changes: dict[str, Any]) -> None:
    found = score(**changes)
    assert [rate.share for rate in (found.all, found.clean, found.acc, found.acc_norm) if rate] == [
        None
    ] * 4


def test_a_base_model_without_a_score_leaves_the_chat_models() -> None:
    found = score(base_log_likelihoods=None)
    assert found.base is not None and found.base.share is None
    assert found.all.count == 100


def test_fewer_items_than_the_facts_state_are_no_benchmark() -> None:
    items = make_benchmark_items("q", 99)
    found = external_scores_of(
        {"q": make_benchmark_facts(rows=100)}, items, make_external_answers(items, 99), {}
    )
    assert found["q"].all.share is None and found["q"].clean.share is None


def test_an_option_too_long_for_the_model_counts_as_failed() -> None:
    found = score(too_long=True, log_likelihoods=None, base_log_likelihoods=None)
    assert (found.all.passed, found.all.count, found.too_long_rows) == (59, 100, 1)


def test_the_accuracy_that_the_gate_reads_is_the_benchmarks_own() -> None:
    items = [
        BenchmarkItem(id="q-00000", benchmark="q", digest="0" * 64, characters=[5, 10], correct=1)
    ]
    answers = [
        ExternalAsked(
            id="q-00000",
            benchmark="q",
            log_likelihoods=[-10.0, -12.0],
            base_log_likelihoods=[0.0, 0.0],
            cut=False,
            too_long=False,
        )
    ]
    for read_by, passed in (("acc", 0), ("acc_norm", 1)):
        facts = {"q": make_benchmark_facts(rows=1, read_by=read_by)}
        assert external_scores_of(facts, items, answers, {})["q"].all.passed == passed
