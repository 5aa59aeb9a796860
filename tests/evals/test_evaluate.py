"""The scores stage: its scores follow from the kept files, and its module needs no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from picochat.core.records import write_jsonl
from picochat.evals.eval_records import read_replies
from picochat.evals.evaluate import (
    MEMORIZED_TOKENS,
    PREFIX_TOKENS,
    facts_from,
    prefix_positions,
    questions,
)
from picochat.facts import ScoresFacts, facts_of
from tests.run_builder import make_run

KINDS = ("rows", "benchmarks", "honesty", "sft")


def test_scores_follow_from_the_files_and_not_from_what_the_manifest_states(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", until="scores")
    inputs = {kind: run.artifact(kind) for kind in KINDS}
    stated = facts_of(run.artifact("scores"), ScoresFacts)
    assert facts_from(run.place("scores"), inputs) == stated
    replies = read_replies(run.place("scores"))
    math = [row for row in replies if row.set == "eval" and row.skill == "math"]
    wrong = [row.model_copy(update={"reply": "no"}) if row in math else row for row in replies]
    write_jsonl(run.place("scores") / "replies.jsonl", wrong)
    again = facts_from(run.place("scores"), inputs)
    assert again.skills["math"].all.passed == 0 < stated.skills["math"].all.passed
    assert again.skills["spelling"] == stated.skills["spelling"]


def test_verification_imports_the_stage_without_torch() -> None:
    modules = "picochat.evals.evaluate, picochat.evals.external, picochat.release.verify"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_fit_questions_are_the_same_few_rows_whatever_their_order(tmp_path: Path) -> None:
    rows = make_run(tmp_path / "run", until="rows").artifact("rows")
    few, all_of_them = questions(rows, 5), questions(rows, None)
    assert sum(name == "eval" for name, _ in few) == sum(name == "eval" for name, _ in all_of_them)
    asked = [row.id for name, row in few if name == "sft_train"]
    assert len(asked) == 5
    path = rows.path("sft_train.jsonl")
    path.write_text("".join(f"{line}\n" for line in reversed(path.read_text().splitlines())))
    assert [row.id for name, row in questions(rows, 5) if name == "sft_train"] == asked


def test_prefixes_lie_inside_the_tokens_and_fit_the_context() -> None:
    span = PREFIX_TOKENS + MEMORIZED_TOKENS
    found = prefix_positions(1_000, 200, 42, span)
    assert len(found) == 200
    assert min(found) >= 0 and max(found) + span <= 1_000
    assert found == prefix_positions(1_000, 200, 42, span) != prefix_positions(1_000, 200, 43, span)
    assert prefix_positions(span, 200, 42, span) == []
    assert prefix_positions(1_000, 200, 42, span - 1) == []
