"""`picochat eval`: the scores of a folder follow from its kept replies, and work is not lost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from picochat.cli.main import run_command
from picochat.config import EvalConfig
from picochat.core.publish import open_artifact
from picochat.core.records import read_jsonl, read_record, write_jsonl
from picochat.data.benchmarks.stage import read_items
from picochat.evals.eval_records import read_external, read_replies
from picochat.evals.gpt_answerer import GptAnswerer
from picochat.evals.scores import judge
from picochat.facts import BenchmarksFacts, facts_of
from picochat.folder_eval.evaluate_folder import JOURNAL, ask
from picochat.folder_eval.folder_scores import FolderScores, folder_scores
from picochat.folder_eval.model_record import ModelRecord
from picochat.skills.mixture import make_rows
from picochat.skills.row_files import read_eval_rows, read_sft_rows
from picochat.skills.task_rows import EvalRow, row_json
from picochat.tokens.tokenizer import Tokenizer
from tests.data.benchmarks.builders import arc_rows, write_lines
from tests.export_builders import make_model, make_run, tokenizer_bytes
from tests.folder_builders import OWN_MODEL, make_export, make_llama


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("llama") / "tiny-llama")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack whose documents are not on this machine."""
    folder = tmp_path_factory.mktemp("pack")
    sft, evals = make_rows("release_skills", 60, 40, "scratchpad", 1)
    write_jsonl(folder / "chat.jsonl", map(row_json, sft))
    write_jsonl(folder / "eval.jsonl", map(row_json, evals))
    (folder / "dataset_pack.json").write_text(
        '{"name": "p", "corpus": "not-here", "chat": "chat.jsonl", "eval": "eval.jsonl"}'
    )
    return folder / "dataset_pack.json"


def evaluate(model: Path, pack: Path, out: Path, *more: str) -> int:
    flags = ["--device", "cpu", "--max-new-tokens", "8", "--out-dir", str(out)]
    return run_command(["eval", str(model), "--dataset-pack", str(pack), *flags, *more])


def scores_in(out: Path) -> FolderScores:
    return read_record(FolderScores, out / "scores.json")


def test_scores_follow_from_the_files_and_the_table_shows_them(
    llama: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    data = write_lines(tmp_path / "arc.jsonl", arc_rows(12))
    assert evaluate(llama, pack, out, "--external-eval", f"arc_own={data}") == 0
    shown = capsys.readouterr().out
    rows, model = (
        read_eval_rows(out / "eval.jsonl").rows,
        read_record(ModelRecord, out / "model.json"),
    )
    assert [row.id for row in rows] == [
        value["id"] for _, value in read_jsonl(pack.parent / "eval.jsonl")
    ]
    replies = read_replies(out)
    listed = [item for item in replies if item.set == "eval_listed"]
    assert len(replies) == len(rows) + len(listed) and listed
    assert all(item.base_reply is None for item in replies)
    benchmarks = open_artifact(out / "benchmarks", "benchmarks")
    scores = scores_in(out)
    assert scores == folder_scores(
        rows,
        read_sft_rows(pack.parent / "chat.jsonl").rows,
        replies,
        model_digest="x",
        replies_cut=scores.replies_cut,
        not_asked=scores.not_asked,
        benchmarks=facts_of(benchmarks, BenchmarksFacts),
        items=read_items(benchmarks),
        external=read_external(out),
    )
    by_id = {row.id: row for row in rows}
    passed = [judge(by_id[item.id], item).passed for item in replies if item.set == "eval"]
    assert sum(skill.passed.passed for skill in scores.skills.values()) == sum(passed)
    assert sum(skill.passed.count for skill in scores.skills.values()) == 40
    assert scores.external["arc_own"].all.count == 12
    assert model.model_class == "LlamaForCausalLM" and set(model.files) >= {"model.safetensors"}
    page = (out / "scores.md").read_text()
    for name, skill in scores.skills.items():
        assert f"| {name} | {skill.passed.passed} of {skill.passed.count} |" in page
        assert f"## Replies: {name}" in page
    assert "What this model was trained on is not known here" in shown and "arc_own" in shown
    assert "choice with the options listed" in shown


def test_the_same_command_reuses_and_another_setting_sets_aside(
    llama: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert evaluate(llama, pack, out, "--max-rows", "5") == 0
    first = capsys.readouterr()
    assert sum(skill.passed.count for skill in scores_in(out).skills.values()) == 5
    assert evaluate(llama, pack, out, "--max-rows", "5") == 0
    second = capsys.readouterr()
    assert "reused" in second.err and "asking" not in second.err
    assert second.out == first.out
    assert evaluate(llama, pack, out, "--max-rows", "6") == 0
    assert "they are set aside" in capsys.readouterr().err
    assert sum(skill.passed.count for skill in scores_in(out).skills.values()) == 6
    assert evaluate(llama, pack, out, "--max-rows", "5") == 0
    assert "reused" in capsys.readouterr().err
    assert sum(skill.passed.count for skill in scores_in(out).skills.values()) == 5


def test_kept_replies_are_judged_by_the_rules_of_now(
    llama: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    out = tmp_path / "out"
    assert evaluate(llama, pack, out, "--max-rows", "5") == 0
    replies = (out / "replies.jsonl").read_bytes()
    named = {result.rule for result in scores_in(out).rules}
    assert "prompt_echo" in named
    monkeypatch.setattr("picochat.folder_eval.folder_scores.OTHER_RULES", ("choice_listed",))
    capsys.readouterr()
    assert evaluate(llama, pack, out, "--max-rows", "5") == 0
    said = capsys.readouterr().err
    assert "judged again" in said and "asking" not in said
    assert "prompt_echo" not in {result.rule for result in scores_in(out).rules}
    assert (out / "replies.jsonl").read_bytes() == replies


class Killed(BaseException):
    pass


class Counting(GptAnswerer):
    """Counts what it is asked, and is killed at a given call."""

    asked: list[int]
    left: list[int]

    def greedy_replies(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int
    ) -> list[list[int]]:
        if not self.left:
            raise Killed
        self.left.pop()
        self.asked.append(len(prompts))
        return super().greedy_replies(prompts, max_new_tokens)


def counting(tmp_path: Path, calls: int) -> Counting:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(tokenizer_bytes())
    found = Counting(make_model(OWN_MODEL), Tokenizer.load(path))
    object.__setattr__(found, "asked", [])
    object.__setattr__(found, "left", [0] * calls)
    return found


def test_a_kill_loses_one_batch_and_nothing_else(tmp_path: Path) -> None:
    rows = make_rows("release_skills", 50, 24, "scratchpad", 1)[1]
    evals = EvalConfig(max_new_tokens=4, batch_rows=4)
    whole = ask(counting(tmp_path, 99), rows, evals, tmp_path / "whole")
    killed, going_on = counting(tmp_path, 3), counting(tmp_path, 99)
    with pytest.raises(Killed):
        ask(killed, rows, evals, tmp_path / "work")
    with (tmp_path / "work" / JOURNAL).open("ab") as stream:
        stream.write(b'{"id": "torn')
    again = ask(going_on, rows, evals, tmp_path / "work")
    texts = sum(not row.choice_labels for row in rows)
    assert sum(killed.asked) == 12 and sum(going_on.asked) == texts - 12
    assert (again.replies_cut, again.not_asked) == (whole.replies_cut, whole.not_asked)
    assert [item.reply for item in again.replies] == [item.reply for item in whole.replies]
    assert whole.replies_cut > 0


def test_a_question_that_does_not_fit_counts_as_failed(
    llama: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [EvalRow(id="long", user="word " * 300, category="own", normalized_answers=["yes"])]
    own = tmp_path / "pack"
    own.mkdir()
    write_jsonl(own / "eval.jsonl", map(row_json, rows))
    (own / "dataset_pack.json").write_text('{"corpus": "x", "eval": "eval.jsonl"}')
    assert evaluate(llama, own, tmp_path / "out") == 0
    assert "1 questions do not fit the context of 192 tokens" in capsys.readouterr().out
    scores = scores_in(tmp_path / "out")
    assert (scores.own["own"].all.passed, scores.own["own"].all.count, scores.skills) == (0, 1, {})


# ---- bad input -----------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> None:
    said = capsys.readouterr()
    assert said.out == "" and f"(exit {code})" in said.err
    for word in words:
        assert word in said.err, said.err


def test_what_is_no_model_folder_is_refused_and_a_good_one_taken(
    llama: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "fix: name a folder with config.json, weights and tokenizer"
    out = tmp_path / "out"
    assert evaluate(tmp_path / "none", pack, out) == 4
    refused(capsys, 4, "does not exist", name)
    assert evaluate(pack, pack, out) == 4
    refused(capsys, 4, "is a file", name)
    assert evaluate(pack.parent, pack, out) == 4
    refused(capsys, 4, "has no config.json", name)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    for given in (tmp_path / "m.gguf", tmp_path):
        assert evaluate(given, pack, out) == 4
        refused(
            capsys, 4, "is a GGUF file", "python bench/gguf_folder.py", "OUT makes a folder of it"
        )
    assert not out.exists()
    assert evaluate(llama, pack, out, "--max-rows", "1") == 0


def test_a_run_is_exported_first_as_the_remedy_says(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = make_run(tmp_path / "run"), tmp_path / "out"
    for folder in (run.root, run.place("sft")):
        assert evaluate(folder, pack, out) == 4
        refused(capsys, 4, "is of a picochat run", "fix: picochat export hf --checkpoint RUN/sft")
    folder = make_export(tmp_path / "work", make_model(OWN_MODEL))
    assert evaluate(folder, pack, out, "--max-rows", "1") == 0


def test_a_folder_without_a_chat_template_is_refused_and_taken_with_one(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_llama(tmp_path / "base")
    template = folder / "chat_template.jinja"
    text = template.read_text()
    template.unlink()
    assert evaluate(folder, pack, tmp_path / "out") == 4
    refused(capsys, 4, "has no chat template", "put its chat_template.jinja there")
    template.write_text(text)
    assert evaluate(folder, pack, tmp_path / "out", "--max-rows", "1") == 0


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("model.safetensors", "cannot load the model"),
        ("tokenizer.json", "cannot load the tokenizer"),
    ],
)
def test_a_folder_that_transformers_cannot_load_says_why(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str, words: str
) -> None:
    folder = make_llama(tmp_path / "model")
    whole = (folder / damage).read_bytes()
    (folder / damage).write_bytes(whole[:99])
    assert evaluate(folder, pack, tmp_path / "out") == 4
    refused(capsys, 4, words, "check that the folder is whole", "from_pretrained(FOLDER)")
    (folder / damage).write_bytes(whole)
    assert evaluate(folder, pack, tmp_path / "out", "--max-rows", "1") == 0


def test_code_of_the_folder_is_not_run(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_llama(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert evaluate(folder, pack, tmp_path / "out") == 4
    refused(capsys, 4, "transformers cannot load")
    assert not (tmp_path / "ran").exists()


def test_without_transformers_one_message_says_how_to_install_it(
    llama: Path,
    pack: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert evaluate(llama, pack, tmp_path / "out") == 4
    refused(capsys, 4, "which is not installed", "fix: pip install 'picochat[hf]'")


def test_a_pack_without_eval_rows_is_refused_and_filled_as_the_remedy_says(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text("Some text.")
    pack = tmp_path / "dataset_pack.json"
    pack.write_text('{"corpus": "text.txt"}')
    assert evaluate(llama, pack, tmp_path / "out") == 4
    refused(capsys, 4, "names no eval rows", f"fix: picochat data task-pack --dataset-pack {pack}")
    assert run_command(["data", "task-pack", "--dataset-pack", str(pack)]) == 0
    assert evaluate(llama, pack, tmp_path / "out", "--max-rows", "1") == 0


def test_results_never_replace_what_is_not_theirs(
    llama: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert evaluate(llama, pack, tmp_path / "mine") == 2
    refused(capsys, 2, "holds something else", "fix: choose another --out-dir")
    assert evaluate(llama, pack, tmp_path / "other", "--max-rows", "1") == 0
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
