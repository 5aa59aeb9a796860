"""A score goes to a leaderboard of the Hub only on request, whole, and in the form it reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from picochat.cli.main import run_command
from picochat.core.errors import WrongUsage
from picochat.facts import BenchmarksFacts, RunFacts
from picochat.release.hub_results import eval_results, named_tasks
from tests.builders import make_benchmark_facts, make_rate
from tests.export_builders import make_run
from tests.run_builder import facts_of_run

TASKS = {"riddles": "riddles_hard"}


def facts_with(facts: RunFacts, passed: int = 300, **benchmark: Any) -> RunFacts:
    assert facts.scores
    given = {"dataset": "someone/riddles", "rows": 501, "usable_rows": 501, **benchmark}
    score = facts.scores.external["riddles"].model_copy(update={"all": make_rate(passed, 501)})
    return replace(
        facts,
        benchmarks=BenchmarksFacts(
            benchmarks={"riddles": make_benchmark_facts(**given)}, unresolved=[]
        ),
        scores=facts.scores.model_copy(update={"external": {"riddles": score}}),
    )


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> RunFacts:
    return facts_of_run(make_run(tmp_path_factory.mktemp("hub") / "run"))


def test_the_client_of_the_hub_reads_dataset_task_revision_value_and_notes(facts: RunFacts) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="no huggingface_hub")
    yaml = pytest.importorskip("yaml", reason="no PyYAML")
    made = eval_results(TASKS, "someone/pico-test", facts_with(facts), scored=True)
    assert list(made) == [".eval_results/riddles.yaml"]
    (entry,) = hub.parse_eval_result_entries(yaml.safe_load(made[".eval_results/riddles.yaml"]))
    assert (entry.dataset_id, entry.task_id) == ("someone/riddles", "riddles_hard")
    assert (entry.dataset_revision, entry.value) == ("0123abcd" * 5, 300 / 501)
    assert entry.source_url == "https://huggingface.co/someone/pico-test"
    assert entry.notes == (
        "zero-shot, acc_norm: the option with the largest log-likelihood per character;"
        " 300 of 501; worded as by lm-eval"
    )
    assert hub.eval_result_entries_to_yaml([entry]) == yaml.safe_load(next(iter(made.values())))


def test_nothing_is_written_unasked(facts: RunFacts) -> None:
    assert eval_results({}, "someone/pico-test", facts_with(facts), scored=True) == {}


def test_what_the_form_cannot_state_is_refused(facts: RunFacts) -> None:
    whole = facts_with(facts)
    for given, scored, why in (
        (None, True, "these weights have no score on it"),
        (whole, False, "these weights have no score on it"),
        (facts, True, "these weights have no score on it"),
        (facts_with(facts, dataset=None, revision=None), True, "was read from a local file"),
        (facts_with(facts, usable_rows=2_000), True, "501 of its 2000 rows were scored"),
    ):
        with pytest.raises(WrongUsage) as caught:
            eval_results(TASKS, None, given, scored)
        assert [problem.what for problem in caught.value.problems] == [
            f"--eval-task riddles: {why}"
        ]
        assert eval_results({}, None, given, scored) == {}  # the remedy


def test_a_task_is_named_for_a_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named_tasks(["arc_easy=ARC-Easy", "piqa=a=b"]) == {"arc_easy": "ARC-Easy", "piqa": "a=b"}
    for text in ("arc_easy", "arc_easy=", "=x"):
        with pytest.raises(WrongUsage, match="names no task"):
            named_tasks([text])
    words = ["export", "hf", "--checkpoint", str(tmp_path), "--tokenizer", "t.json"]
    assert run_command([*words, "--out-dir", str(tmp_path / "m"), "--eval-task", "arc_easy"]) == 2
    assert "names no task" in capsys.readouterr().err
