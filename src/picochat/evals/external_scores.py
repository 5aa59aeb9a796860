"""Scores on external benchmarks as a pure function of kept likelihoods. Needs no model, no texts
and no torch.

Two accuracies, as lm-evaluation-harness defines them: `acc` takes the option with the largest
summed log-likelihood, `acc_norm` the one with the largest sum over the option's length in
characters (not bytes, not tokens), so that a longer option is not punished. Of equal ones the first
counts. An item with an option that is too long for the model counts as failed. One that is missing,
or whose likelihoods are no numbers, leaves the whole benchmark unmeasured: a score over the rest
would be a choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from picochat.data.benchmarks.stage import BenchmarkItem
from picochat.evals.intervals import rate
from picochat.evals.record import ExternalAsked
from picochat.facts import BenchmarkFacts, ExternalScore, Rate

LogLikelihoods = Sequence[float]
Rule = Callable[[BenchmarkItem, LogLikelihoods], bool]


def external_scores_of(
    benchmarks: Mapping[str, BenchmarkFacts],
    items: Sequence[BenchmarkItem],
    asked: Sequence[ExternalAsked],
    dirty: Mapping[str, Collection[str]],
) -> dict[str, ExternalScore]:
    """Benchmark -> score.

    `items`: every item that must have been asked; `dirty`: ids that the scan found, by benchmark.
    """
    by_id = {answer.id: answer for answer in asked}
    return {
        name: _score(
            facts,
            [item for item in items if item.benchmark == name],
            by_id,
            set(dirty.get(name, ())),
        )
        for name, facts in benchmarks.items()
    }


def _score(
    facts: BenchmarkFacts,
    items: Sequence[BenchmarkItem],
    asked: Mapping[str, ExternalAsked],
    dirty: Collection[str],
) -> ExternalScore:
    mine = {item.id: asked[item.id].log_likelihoods for item in items if item.id in asked}
    theirs = {item.id: asked[item.id].base_log_likelihoods for item in items if item.id in asked}
    too_long = {item.id for item in items if item.id in asked and asked[item.id].too_long}
    read = is_right_norm if facts.read_by == "acc_norm" else is_right
    rows = items if len(items) == facts.rows else []
    verdicts = _verdicts(rows, mine, too_long, read)
    clean = [verdicts[item.id] for item in rows if item.id not in dirty] if verdicts else []
    return ExternalScore(
        all=_rate(verdicts.values()),
        clean=_rate(clean),
        chance=facts.chance,
        base=_rate(_verdicts(rows, theirs, too_long, read).values()),
        read_by=facts.read_by,
        acc=_rate(_verdicts(rows, mine, too_long, is_right).values()),
        acc_norm=_rate(_verdicts(rows, mine, too_long, is_right_norm).values()),
        cut_rows=sum(item.id in asked and asked[item.id].cut for item in items),
        too_long_rows=len(too_long),
    )


def is_right(item: BenchmarkItem, log_likelihoods: LogLikelihoods) -> bool:
    """Whether the correct option has the largest sum."""
    return _largest(log_likelihoods) == item.correct


def is_right_norm(item: BenchmarkItem, log_likelihoods: LogLikelihoods) -> bool:
    """Whether the correct option has the largest sum per character."""
    return (
        _largest(
            [found / count for found, count in zip(log_likelihoods, item.characters, strict=True)]
        )
        == item.correct
    )


def _verdicts(
    items: Sequence[BenchmarkItem],
    said: Mapping[str, LogLikelihoods | None],
    too_long: Collection[str],
    right: Rule,
) -> dict[str, bool]:
    """Item id -> whether it is right; empty where one of the items cannot be judged."""
    verdicts: dict[str, bool] = {}
    for item in items:
        found = said.get(item.id)
        if item.id in too_long:
            verdicts[item.id] = False
        elif found is not None and is_usable(item, found):
            verdicts[item.id] = right(item, found)
        else:
            return {}
    return verdicts


def _rate(verdicts: Collection[bool]) -> Rate:
    return rate(sum(verdicts), len(verdicts))


def is_usable(item: BenchmarkItem, log_likelihoods: LogLikelihoods) -> bool:
    """Whether there is a finite number for each option."""
    return len(log_likelihoods) == len(item.characters) and all(
        math.isfinite(number) for number in log_likelihoods
    )


def _largest(numbers: Sequence[float]) -> int:
    return max(range(len(numbers)), key=numbers.__getitem__)
