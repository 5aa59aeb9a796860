"""FOLLOWS: for each kind of artifact, the comparison of what it states with what its files, its
inputs and the settings give.

A manifest's facts are what both verdicts and every page are made of: a fact that nobody could
derive would be a claim that nobody could check. An artifact without a row states nothing (host:
observations alone) or is decided again (preflight, gate).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from picochat.config import RunConfig
from picochat.core.errors import Problem
from picochat.core.publish import Artifact
from picochat.release import follows_data as data
from picochat.release import follows_training as training
from picochat.release.compare import Stated, compared


@dataclass(frozen=True)
class Follow:
    """One kind of artifact: what else must be there to compute its facts again, and what then
    differs.
    """

    kind: str
    needs: tuple[str, ...]
    differences: Callable[[Stated], list[Problem]]


FOLLOWS: tuple[Follow, ...] = (
    #      kind             needs                                                       what differs
    Follow("corpus",        (),                                                         data.corpus_differences),
    Follow("practice",      (),                                                         data.practice_differences),
    Follow("rows",          (),                                                         data.rows_differences),
    Follow("benchmarks",    (),                                                         data.benchmarks_differences),
    Follow("tokenizer",     (),                                                         data.tokenizer_differences),
    Follow("shards",        ("corpus", "practice", "tokenizer"),                        data.shards_differences),
    Follow("conversations", ("rows", "tokenizer"),                                      data.conversations_differences),
    Follow("honesty",       ("corpus", "practice", "rows", "benchmarks"),               data.honesty_differences),
    Follow("base",          ("tokenizer",),                                             training.base_differences),
    Follow("sft",           ("tokenizer",),                                             training.sft_differences),
    Follow("scores",        ("rows", "benchmarks", "shards", "honesty", "base", "sft"), training.scores_differences),
    Follow("parity",        (),                                                         training.parity_differences),
    Follow("summary",       (),                                                         training.summary_differences),
)  # fmt: skip


def facts_problems(
    config: RunConfig, artifacts: Mapping[str, Artifact], follows: tuple[Follow, ...] = FOLLOWS
) -> list[Problem]:
    """Everything that differs, in the order of the table."""
    run, problems = Stated(config, artifacts), list[Problem]()
    for run_worker in (row for row in follows if row.kind in artifacts):
        lacking = [kind for kind in run_worker.needs if kind not in artifacts]
        if lacking and "preflight" not in artifacts:
            continue  # a run that stopped before its first verdict: what is missing is named as such, and nothing rests on these facts
        if lacking:
            problems.append(
                Problem(
                    f"{run_worker.kind}: its facts cannot be computed again without"
                    f" {', '.join(lacking)}"
                )
            )
        else:
            problems += compared(
                run_worker.kind, lambda run_worker=run_worker: run_worker.differences(run)
            )
    return problems
