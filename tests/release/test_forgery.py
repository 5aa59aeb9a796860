"""A publisher who claims more than is true, and makes every digest, score, verdict and page agree with it, is found out.

The run is a real one, small. docs/verification.md lists these attacks, and those that no check of files can find.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from picochat.release.bundle import make_bundle
from picochat.release.verify import inspect_bundle
from picochat.rundir import RunDir
from tests.forger import Rows, change_config, change_facts, change_json, change_rows, make_real_run, settle

Forgery = Callable[[RunDir], None]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of four steps, with a benchmark."""
    return make_real_run(tmp_path_factory.mktemp("honest")).root


@pytest.fixture
def run(honest: Path, tmp_path: Path) -> RunDir:
    shutil.copytree(honest, tmp_path / "run")
    return RunDir(tmp_path / "run")


def found_in(path: Path) -> list[str]:
    return [problem.what for problem in inspect_bundle(path).problems]


def bundled(run: RunDir) -> Path:
    """The bundle that picochat itself makes of the run as it is."""
    logs = run.root.parent / "logs"
    logs.mkdir(exist_ok=True)
    (logs / "train.log").write_text("a log\n")
    return make_bundle(run, run.root.parent / "run.tgz", logs, strict=True).path


def test_the_forger_leaves_nothing_to_find_in_an_honest_run(run: RunDir) -> None:
    settle(run)
    assert found_in(run.root) == []
    assert found_in(bundled(run)) == []


# ---- what was asked, and what was said ---------------------------------------------------------------------------------


def replies(run: RunDir, change: Callable[[Rows], Rows]) -> None:
    change_rows(run.place("scores") / "replies.jsonl", change)


def drop_failing(run: RunDir) -> None:
    replies(run, lambda rows: [row for row in rows if not (row["set"] == "eval" and row["skill"] == "math")] + rows[:1])


def drop_some(run: RunDir) -> None:
    replies(run, lambda rows: [row for row in rows if row["id"] != rows[3]["id"]])


def count_twice(run: RunDir) -> None:
    replies(run, lambda rows: [*rows, rows[0]])


def relabel(field: str, value: Any) -> Forgery:
    def forge(run: RunDir) -> None:
        replies(run, lambda rows: [{**rows[0], field: value}, *rows[1:]])

    return forge


def other_choice_shown(run: RunDir) -> None:
    def change(rows: Rows) -> Rows:
        number = next(n for n, row in enumerate(rows) if row["log_likelihoods"])
        return [*rows[:number], {**rows[number], "reply": "the right one"}, *rows[number + 1 :]]

    replies(run, change)


def choice_without_likelihoods(run: RunDir) -> None:
    replies(
        run,
        lambda rows: [
            {**row, "log_likelihoods": None, "reply": row["expected"]} if row["log_likelihoods"] else row for row in rows
        ],
    )


def fewer_recalled(run: RunDir) -> None:
    change_rows(run.place("scores") / "memorization.jsonl", lambda rows: rows[:3])


def other_prefixes(run: RunDir) -> None:
    change_rows(run.place("scores") / "memorization.jsonl", lambda rows: [{**row, "position": 1} for row in rows])


def weak_baseline(run: RunDir) -> None:
    change_json(run.place("scores") / "measured.json", lambda measured: measured.update(ngram_train_tokens=10))


def external_twice(run: RunDir) -> None:
    change_rows(
        run.place("scores") / "external.jsonl", lambda rows: [*rows, {**rows[0], "log_likelihoods": [0.0, -9.0, -9.0, -9.0]}]
    )


def a_page_of_scores(run: RunDir) -> None:
    page = run.place("scores") / "report.md"
    settle(run)
    page.write_text(page.read_text("utf-8").replace("| math |", "| mathematics |"), "utf-8")
    settle(run, judge=False)


def scores_json(run: RunDir) -> None:
    settle(run)
    change_json(run.place("scores") / "report.json", lambda facts: facts["prompt_echo"].update(passed=0))
    settle(run, judge=False)


# ---- rows, scan, benchmarks --------------------------------------------------------------------------------------------


def trained_on_an_eval_row(run: RunDir) -> None:
    """The SFT rows hold an eval prompt; the facts of rows and scan stay as clean as they were."""
    first = json.loads((run.place("rows") / "eval.jsonl").read_text().splitlines()[0])
    change_rows(run.place("rows") / "sft_train.jsonl", lambda rows: [{**rows[0], "user": first["user"]}, *rows[1:]])


def conversations_of_eval_rows(run: RunDir) -> None:
    """The published SFT rows are clean, but what was trained on is not made of them."""
    path = run.place("conversations") / "train.npz"
    with np.load(path) as arrays:
        tokens = {name: arrays[name].copy() for name in arrays.files}
    tokens["tokens"][5] ^= 1
    np.savez(path, **tokens)


def fact(kind: str, **values: Any) -> Forgery:
    return lambda run: change_facts(run, kind, lambda facts: facts.update(values))


def rows_made_easy(run: RunDir) -> None:
    change_rows(
        run.place("rows") / "eval.jsonl",
        lambda rows: [{key: row[key] for key in ("id", "user", "category", "skill", "answerable")} for row in rows],
    )


def hidden_hit(run: RunDir) -> None:
    """The scan's report names a dirty row, its facts do not."""
    first = json.loads((run.place("rows") / "eval.jsonl").read_text().splitlines()[0])
    change_json(
        run.place("honesty") / "report.json", lambda report: report["corpus_documents_holding"].update({first["id"]: 3})
    )


def chosen_dirty(run: RunDir) -> None:
    """Failing rows declared dirty, so that the clean rate rises."""
    first = json.loads((run.place("rows") / "eval.jsonl").read_text().splitlines()[0])
    change_facts(run, "honesty", lambda facts: facts.update(dirty_eval_rows=[first["id"]]))


def honesty_page(run: RunDir) -> None:
    page = run.place("honesty") / "report.md"
    page.write_text(page.read_text("utf-8").replace("Scanned", "Scanned twice"), "utf-8")


def long_runs(run: RunDir) -> None:
    change_config(run, lambda config: config["honesty"].update(hit_words=9999))


def small_chance(run: RunDir) -> None:
    change_facts(run, "benchmarks", lambda facts: facts["benchmarks"]["quiz"].update(chance=0.01))


def fewer_items(run: RunDir) -> None:
    change_rows(run.place("benchmarks") / "items.jsonl", lambda rows: rows[:50])
    change_facts(run, "benchmarks", lambda facts: facts["benchmarks"]["quiz"].update(rows=50))


def other_answers(run: RunDir) -> None:
    """In a run folder, where the texts are, an item must be the digest of its text."""
    change_rows(run.place("benchmarks") / "items.jsonl", lambda rows: [{**row, "correct": 0} for row in rows])


# ---- data, tokens, training --------------------------------------------------------------------------------------------


def source(**values: Any) -> Forgery:
    return lambda run: change_facts(run, "corpus", lambda facts: facts["sources"][0].update(values))


def longer_run(run: RunDir) -> None:
    change_config(run, lambda config: config["base"].update(steps=4000))
    change_facts(run, "base", lambda facts: facts.update(steps=4000, planned_steps=4000, scored_step=4000))


def larger_model(run: RunDir) -> None:
    change_config(run, lambda config: config["model"].update(layers=16))


def better_curve(run: RunDir) -> None:
    change_rows(
        run.place("base") / "curve.jsonl",
        lambda rows: [{**row, "held_out_bits_per_byte": 0.9} if row["held_out_bits_per_byte"] else row for row in rows],
    )


def shorter_sidecar(run: RunDir) -> None:
    change_json(run.place("shards") / "train-00000.json", lambda sidecar: sidecar.update(tokens=10**9))


def other_tokenizer(run: RunDir) -> None:
    change_json(run.place("base") / "model.json", lambda info: info.update(tokenizer_digest="0" * 64))


def parity_file(run: RunDir) -> None:
    change_json(run.place("parity") / "export_report.json", lambda report: report.update(problem="it differs", parity=None))


def cheaper(run: RunDir) -> None:
    change_json(run.place("summary") / "observed.json", lambda seen: seen.update(hours=0.01, usd=0.1))


def faster(run: RunDir) -> None:
    change_json(run.place("summary") / "observed.json", lambda seen: seen["stages"]["base"].update(tokens_per_second=1e9))


def calmer_preflight(run: RunDir) -> None:
    change_json(run.place("summary") / "observed.json", lambda seen: seen["preflight"].update(status="ready"))


def without_input(run: RunDir) -> None:
    change_json(run.place("gate") / "manifest.json", lambda manifest: manifest["inputs"].pop("honesty"))


FORGERIES: tuple[tuple[str, Forgery, str], ...] = (
    # attack, how, what verification says
    ("eval rows of a skill are not among the replies", drop_failing, "eval/replies.jsonl"),
    ("a failing eval row is not among the replies", drop_some, "eval/replies.jsonl"),
    ("a row that passes is counted twice", count_twice, "eval/replies.jsonl"),
    ("a failing eval row counts as an SFT row", relabel("set", "sft_train"), "eval/replies.jsonl"),
    ("a reply counts for another skill", relabel("skill", "choice"), "eval/replies.jsonl"),
    ("a reply counts for another stage", relabel("stage", "easy"), "eval/replies.jsonl"),
    ("a reply stands beside another question", relabel("prompt", "What is 1 + 1?"), "eval/replies.jsonl"),
    ("a reply stands beside another answer", relabel("expected", "anything"), "eval/replies.jsonl"),
    ("a choice shows another reply than the likeliest", other_choice_shown, "eval/replies.jsonl"),
    ("a choice has a reply in place of likelihoods", choice_without_likelihoods, "eval/replies.jsonl"),
    ("fewer training prefixes were continued", fewer_recalled, "eval/memorization.jsonl"),
    ("other training prefixes were continued", other_prefixes, "eval/memorization.jsonl"),
    ("the 5-gram baseline saw fewer tokens", weak_baseline, "eval/measured.json"),
    ("a benchmark item was answered twice", external_twice, "eval/external.jsonl"),
    ("the page of scores was edited", a_page_of_scores, "eval/report.md"),
    ("report.json of the scores was edited", scores_json, "eval/report.json"),
    ("an eval prompt is among the SFT rows", trained_on_an_eval_row, "rows.shared_items"),
    ("what was trained on is not the SFT rows", conversations_of_eval_rows, "sft/conversations/train.npz"),
    ("rows: more are stated than there are", fact("rows", eval_rows=700), "rows.eval_rows"),
    ("eval rows that no reply could fail", rows_made_easy, "rows.eval_rows_without_rule"),
    ("a row that the scan found is not among the dirty ones", hidden_hit, "honesty.dirty_eval_rows"),
    ("a failing row is declared dirty", chosen_dirty, "honesty.dirty_eval_rows"),
    ("less was scanned than the corpus holds", fact("honesty", scanned_documents=1), "honesty.scanned_documents"),
    ("the scan looked for longer runs than the settings say", long_runs, "hit_words"),
    ("the page of the scan was edited", honesty_page, "honesty/report.md"),
    ("a benchmark's chance is lowered", small_chance, "benchmarks.benchmarks.quiz.chance"),
    ("items of a benchmark are left out", fewer_items, "benchmarks.benchmarks.quiz"),
    ("more documents than the corpus has", fact("corpus", documents=10**6, train_documents=10**6 - 1), "corpus.documents"),
    ("a licence that no source states", source(licence="mit"), "corpus.sources[0].licence"),
    ("a source is called pinned from the Hub", source(kind="hub", import_report=True), "corpus.sources[0]"),
    ("more training tokens than the shards have", fact("shards", train_tokens=10**9), "shards.train_tokens"),
    ("a sidecar states more tokens than its shard has bytes", shorter_sidecar, "base/token_shards/train-00000"),
    ("a larger vocabulary", fact("tokenizer", vocab_size=8192), "tokenizer.vocab_size"),
    ("conversations that fit better", fact("conversations", longest_row_tokens=1), "conversations.longest_row_tokens"),
    ("practice that was not asked for", fact("practice", share_asked=0.0), "practice.share_asked"),
    ("more steps than the curve has", longer_run, "base.steps"),
    ("a larger model than the checkpoint's", larger_model, "base/checkpoint/model.json"),
    ("a better curve than the facts", better_curve, "base.held_out_bits_per_byte"),
    ("better facts than the curve", fact("base", held_out_bits_per_byte=0.9), "base.held_out_bits_per_byte"),
    ("a checkpoint of another tokenizer", other_tokenizer, "base/checkpoint/model.json"),
    ("fewer parameters", fact("sft", parameters=1), "sft.parameters"),
    ("an export that differs is stated as equal", parity_file, "parity."),
    ("less time and money than the stages took", cheaper, "summary/observed.json"),
    ("a faster training than the metrics say", faster, "summary/observed.json"),
    ("a better preflight than the run had", calmer_preflight, "summary/observed.json"),
    ("a verdict that was not made from the scan", without_input, "gate: does not state"),
)


@pytest.mark.parametrize(("forge", "expected"), [row[1:] for row in FORGERIES], ids=[row[0] for row in FORGERIES])
def test_a_claim_beyond_the_evidence_is_found(run: RunDir, forge: Forgery, expected: str) -> None:
    forge(run)
    if forge not in (a_page_of_scores, scores_json):
        settle(run)
    found = found_in(run.root)
    assert any(expected in what for what in found), found
