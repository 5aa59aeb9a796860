"""`.eval_results/NAME.yaml`: scores on benchmarks in the form that the Hub's leaderboards read.

Written on request alone, since it enters the model on the leaderboard of a dataset. The publisher
names the task of the dataset's eval.yaml, which is on the Hub. Value, dataset and revision are
facts, and a note says how the score was made. Refused is what the form cannot state: a benchmark
from a local file, or a score of a part of its rows. Does not know whether the Hub counts the
dataset as a benchmark, nor whether its task asks in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from picochat.core.errors import Problem, WrongUsage
from picochat.core.network import PUBLIC_ENDPOINT
from picochat.facts import BenchmarkFacts, ExternalScore, RunFacts

EVAL_RESULTS = ".eval_results/"
READ_BY = {
    "acc": "the option with the largest log-likelihood",
    "acc_norm": "the option with the largest log-likelihood per character",
}


def named_tasks(given: Iterable[str]) -> dict[str, str]:
    """Benchmark -> task of its dataset, of `NAME=TASK`. Raises WrongUsage for another form."""
    tasks: dict[str, str] = {}
    for text in given:
        name, _, task = text.partition("=")
        if not name or not task.strip():
            raise WrongUsage(
                f"--eval-task {text} names no task",
                fix="--eval-task arc_easy=TASK, with an id of the eval.yaml of its dataset",
            )
        tasks[name] = task.strip()
    return tasks


def eval_results(
    tasks: Mapping[str, str], repo_id: str | None, facts: RunFacts | None, scored: bool
) -> dict[str, str]:
    """Name -> text of each file. The text is JSON, which every YAML reader takes.

    Raises WrongUsage that names each benchmark whose score does not fit the form.
    """
    measured = facts if scored else None
    problems = [
        Problem(f"--eval-task {name}: {why}")
        for name in tasks
        for why in _objections(name, measured)
    ]
    if problems:
        raise WrongUsage(
            "a leaderboard takes whole scores on datasets of the Hub",
            problems=problems,
            fix="leave these out: the card shows every score",
        )
    files: dict[str, str] = {}
    for name, task in sorted(tasks.items()):
        assert measured is not None and measured.benchmarks is not None
        assert measured.scores is not None
        found, score = measured.benchmarks.benchmarks[name], measured.scores.external[name]
        entry = _entry(found, score, task, repo_id)
        files[f"{EVAL_RESULTS}{name}.yaml"] = f"{json.dumps([entry], indent=2)}\n"
    return files


def _objections(name: str, facts: RunFacts | None) -> Iterator[str]:
    """Why the score on the benchmark cannot be stated; nothing where it can."""
    found = facts.benchmarks.benchmarks.get(name) if facts and facts.benchmarks else None
    score = facts.scores.external.get(name) if facts and facts.scores else None
    if found is None or score is None or score.all.fraction is None:
        yield "these weights have no score on it"
    elif found.dataset is None or found.revision is None:
        yield "was read from a local file"
    elif not score.all.count == found.rows == found.usable_rows:
        yield f"{found.rows} of its {found.usable_rows} rows were scored"


def _entry(
    found: BenchmarkFacts, score: ExternalScore, task: str, repo_id: str | None
) -> dict[str, object]:
    read_as = f"zero-shot, {score.read_by}: {READ_BY[score.read_by]}"
    return {
        "dataset": {"id": found.dataset, "task_id": task, "revision": found.revision},
        "value": score.all.fraction,
        **({"source": {"url": f"{PUBLIC_ENDPOINT}/{repo_id}"}} if repo_id else {}),
        "notes": f"{read_as}; {score.all.passed} of {score.all.count}; worded as by lm-eval",
    }
