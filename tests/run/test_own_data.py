"""Other people's data by one command: a folder, with chats in any form or with none at all."""

from __future__ import annotations

import json
import pydoc_data.topics
from pathlib import Path

import pytest

from picochat.cli.main import run_command
from picochat.core.journal import read_journal
from picochat.facts import ExercisesFacts, GateFacts, RowsFacts, ScoresFacts, TrainFacts, facts_of
from picochat.release.bundle import make_bundle
from picochat.release.verify import inspect_bundle
from picochat.run.folder import RunDir
from tests.forger import settle

STEPS = ("--base-steps", "6", "--sft-steps", "4")
SMALL = [
    *("--set", "tokenizer.vocab_size=512", "--set", "model.layers=1", "--set", "model.width=32"),
    *("--set", "model.heads=2", "--set", "model.kv_heads=1", "--set", "model.head_width=16"),
    *("--set", "model.mlp_width=48", "--set", "model.context=64"),
    *("--set", "base.sequences_per_step=4", "--set", "sft.sequences_per_step=4"),
]


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real English in a folder as people have them."""
    folder = tmp_path_factory.mktemp("own") / "notes"
    (folder / "more").mkdir(parents=True)
    endings = (".md", ".txt", ".rst", ".org", ".html", ".py")
    for number, (name, text) in enumerate(sorted(pydoc_data.topics.topics.items())):
        place = folder / "more" if number % 3 else folder
        (place / f"{name.replace('/', '-')}{endings[number % len(endings)]}").write_text(text)
    return folder


def chats(folder: Path) -> Path:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Note {n}?"},
                {"role": "assistant", "content": [{"type": "text", "text": "Which one?"}]},
                {"role": "user", "content": f"Number {n}, please."},
                {"role": "assistant", "content": f"It is note {n}."},
            ]
        }
        for n in range(40)
    ]
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def questions(folder: Path) -> Path:
    rows = [
        *({"prompt": f"What is note {n} of?", "completion": "Python"} for n in range(6)),
        {"user": "What do all the notes tell about?", "regex": "(?i)python"},
        {"user": "How do you like all of these notes?"},
    ]
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run_own(
    notes: Path, out: Path, *more: str, steps: tuple[str, ...] = STEPS
) -> tuple[int, RunDir]:
    code = run_command(
        ["run", "tiny", "--input", str(notes), "--out-dir", str(out), *SMALL, *steps, *more]
    )
    return code, RunDir(out)


def verified(run: RunDir, bundle: Path) -> None:
    make_bundle(run, bundle, None, False)
    report = inspect_bundle(bundle)
    assert report.exit_code == 0, [problem.what for problem in report.problems]


def test_a_folder_and_chats_of_others_give_a_verdict_by_one_command(
    notes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ("--chat", str(chats(tmp_path)), "--eval", str(questions(tmp_path)))
    code, run = run_own(notes, tmp_path / "run", *rows)
    told = capsys.readouterr()
    assert code == 0, told.err
    assert ".html" in told.err and "left out" in told.err and "--include" in told.err
    assert "no skill exercises" in told.err
    facts = facts_of(run.artifact("rows"), RowsFacts)
    assert facts.chat_read.forms == {"messages": 40} and facts.sft_turns == 80
    assert facts.eval_scored_by == {"exact answer": 6, "nothing": 1, "regular expression": 1}
    assert facts_of(run.artifact("exercises"), ExercisesFacts).documents == 0
    own = facts_of(run.artifact("scores"), ScoresFacts).own["chat"]
    assert (own.all.count, own.not_scored) == (7, 1)
    gate = facts_of(run.artifact("gate"), GateFacts)
    assert not [f.name for f in gate.findings if f.name.startswith("skill_")]
    assert "| chat |" in (run.root / "summary/summary.md").read_text()
    assert run_own(notes, tmp_path / "run", *rows)[0] == 0
    assert "building" not in capsys.readouterr().err, "the same command goes on where it stopped"
    verified(run, tmp_path / "bundle.tgz")


def test_a_folder_alone_gives_a_base_model_that_is_published_as_it_is(
    notes: Path, tmp_path: Path
) -> None:
    code, run = run_own(notes, tmp_path / "run")
    assert code == 0
    sft = facts_of(run.artifact("sft"), TrainFacts)
    assert (sft.steps, sft.planned_steps, sft.first_loss, sft.held_out_loss) == (0, 0, None, None)
    weights = [
        run.artifact(kind).path("model.safetensors").read_bytes() for kind in ("base", "sft")
    ]
    assert weights[0] == weights[1]
    assert read_journal(run.artifact("sft").path("curve.jsonl")) == []
    verified(run, tmp_path / "bundle.tgz")


def test_other_weights_are_not_passed_off_as_those_of_the_base_stage(
    notes: Path, tmp_path: Path
) -> None:
    _, run = run_own(notes, tmp_path / "run")
    path = run.artifact("sft").path("model.safetensors")
    data = bytearray(path.read_bytes())
    data[-4] ^= 1
    path.unlink()  # it may be a link into the cache
    path.write_bytes(bytes(data))
    settle(run)
    problems = " ".join(problem.what for problem in inspect_bundle(run.root).problems)
    assert "its weights are not those of the base stage" in problems


def test_a_release_of_own_rows_is_refused_before_training_with_what_is_missing(
    notes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ("--chat", str(chats(tmp_path)), "--eval", str(questions(tmp_path)))
    code, run = run_own(
        notes,
        tmp_path / "run",
        *rows,
        "--long-run-gate-profile",
        "skill_release",
        steps=("--base-steps", "5000"),
    )
    assert code == 3
    assert not run.place("base").exists()
    assert "picochat data task-pack" in capsys.readouterr().out
