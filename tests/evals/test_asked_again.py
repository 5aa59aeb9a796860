"""An item's likelihoods then and now: a difference within the limit is no difference, and a
judgement that turns is told.
"""

import pytest

from picochat.data.benchmarks.stage import BenchmarkItem
from picochat.evals.asked_again import Answer, compare_item
from picochat.evals.external_scores import is_right
from picochat.evals.record import ExternalAsked

ITEM = BenchmarkItem(id="q1", benchmark="quiz", digest="0", characters=[3, 3], correct=0)


def said(chat: list[float] | None, base: list[float] | None = None) -> ExternalAsked:
    return ExternalAsked(
        id="q1",
        benchmark="quiz",
        log_likelihoods=chat,
        base_log_likelihoods=base,
        cut=False,
        too_long=chat is None,
    )


def compared(stated: ExternalAsked, again: ExternalAsked, limit_nats: float = 0.1) -> Answer:
    return compare_item("quiz item q1", ITEM, is_right, [2, 2], stated, again, limit_nats)


@pytest.mark.parametrize(
    ("stated", "again", "equal", "apart", "judged_alike"),
    [
        (said([-1.0, -2.0]), said([-1.0, -2.0]), True, False, True),
        (
            said([-1.0, -2.0]),
            said([-1.19, -2.0]),
            True,
            False,
            True,
        ),  # two tokens: a sum may be off by twice the limit
        (said([-1.0, -2.0]), said([-1.21, -2.0]), False, True, True),
        (
            said([-1.0, -1.1]),
            said([-1.0, -0.95]),
            False,
            False,
            False,
        ),  # within the limit, and yet the other option
        (said([-1.0, -2.0], [-1.0, -2.0]), said([-1.0, -2.0], [-1.0, -9.0]), False, True, True),
        (said([-1.0]), said([-1.0, -2.0]), False, True, False),
        (said(None), said([-1.0, -2.0]), False, True, False),
        (said(None), said(None), True, False, True),
        (said([float("nan"), -2.0]), said([-1.0, -2.0]), False, True, False),
    ],
)
def test_likelihoods_are_compared_within_the_limit_and_judged(
    stated: ExternalAsked, again: ExternalAsked, equal: bool, apart: bool, judged_alike: bool
) -> None:
    answer = compared(stated, again)
    assert (answer.equal, answer.apart, answer.judged_alike) == (equal, apart, judged_alike)
    assert bool(answer.told) == (not equal)
