"""A publisher who claims more than is true, and makes every digest, score, verdict and page agree
with it, is found out.

The run is a real one, small. docs/verification.md lists these attacks, and those that no check of
files can find.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from picochat.cli.main import run_command
from picochat.core.errors import BadInput, WrongUsage
from picochat.core.publish import exclusive
from picochat.core.records import digest_bytes
from picochat.data.corpus.build import facts_from
from picochat.evals import evaluate
from picochat.export.export_record import facts_from as parity_facts
from picochat.facts import HonestyFacts
from picochat.honesty.contamination_page import contamination_page
from picochat.honesty.contamination_scan import contaminated_rows
from picochat.release.bundle import make_bundle
from picochat.release.cross_checks import CROSS_CHECKS
from picochat.release.verify import inspect_bundle
from picochat.run.folder import RunDir
from picochat.run.graph import ARTIFACTS
from tests.builders import make_parity_report
from tests.forger import (
    Rows,
    change_config,
    change_facts,
    change_json,
    change_rows,
    make_real_run,
    rows_of,
    settle,
)

Forgery = Callable[[RunDir], None]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of four steps, with a benchmark."""
    return make_real_run(tmp_path_factory.mktemp("honest")).root


def copied(honest: Path, folder: Path) -> RunDir:
    shutil.copytree(honest, folder / "run")
    return RunDir(folder / "run")


@pytest.fixture
def run(honest: Path, tmp_path: Path) -> RunDir:
    return copied(honest, tmp_path)


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


# ---- what was asked, and what was said -----------------------------------------------------------


def first_eval_row(run: RunDir) -> dict[str, Any]:
    return rows_of(run.place("rows") / "eval.jsonl")[0]


def replies(run: RunDir, change: Callable[[Rows], Rows]) -> None:
    change_rows(run.place("scores") / "replies.jsonl", change)


def drop_failing(run: RunDir) -> None:
    replies(
        run,
        lambda rows: (
            [row for row in rows if not (row["set"] == "eval" and row["skill"] == "math")]
            + rows[:1]
        ),
    )


def drop_some(run: RunDir) -> None:
    replies(run, lambda rows: [row for row in rows if row["id"] != rows[3]["id"]])


def count_twice(run: RunDir) -> None:
    replies(run, lambda rows: [*rows, rows[0]])


def relabel(number: int, field: str, value: Any) -> Forgery:
    def forge(run: RunDir) -> None:
        replies(
            run,
            lambda rows: [
                {**row, field: value} if at == number else row for at, row in enumerate(rows)
            ],
        )

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
            (
                {**row, "log_likelihoods": None, "reply": row["expected"]}
                if row["log_likelihoods"]
                else row
            )
            for row in rows
        ],
    )


def fewer_recalled(run: RunDir) -> None:
    change_rows(run.place("scores") / "memorization.jsonl", lambda rows: rows[:3])


def other_prefixes(run: RunDir) -> None:
    change_rows(
        run.place("scores") / "memorization.jsonl",
        lambda rows: [{**row, "position": 1} for row in rows],
    )


def weak_baseline(run: RunDir) -> None:
    change_json(
        run.place("scores") / "measured.json",
        lambda measured: measured.update(ngram_train_tokens=10),
    )


def better_documents(run: RunDir) -> None:
    change_rows(
        run.place("scores") / "held_out.jsonl",
        lambda rows: [{**row, "base_nats": row["base_nats"] / 2} for row in rows],
    )


def hard_documents_left_out(run: RunDir) -> None:
    change_rows(
        run.place("scores") / "held_out.jsonl",
        lambda rows: sorted(rows, key=lambda row: row["chat_nats"] / row["text_bytes"])[:-1],
    )


def external_twice(run: RunDir) -> None:
    change_rows(
        run.place("scores") / "external.jsonl",
        lambda rows: [*rows, {**rows[0], "log_likelihoods": [0.0, -9.0, -9.0, -9.0]}],
    )


def a_page_of_scores(run: RunDir) -> None:
    page = run.place("scores") / "report.md"
    page.write_text(page.read_text("utf-8").replace("| math |", "| mathematics |"), "utf-8")


def scores_json(run: RunDir) -> None:
    change_json(
        run.place("scores") / "report.json", lambda facts: facts["prompt_echo"].update(passed=77)
    )


# ---- rows, scan, benchmarks ----------------------------------------------------------------------


def trained_on_an_eval_row(run: RunDir) -> None:
    """The SFT rows hold an eval prompt; the facts of rows and scan stay as clean as they were."""
    first = first_eval_row(run)
    change_rows(
        run.place("rows") / "sft_train.jsonl",
        lambda rows: [{**rows[0], "user": first["user"]}, *rows[1:]],
    )


def id_of_an_eval_row(run: RunDir) -> None:
    change_rows(
        run.place("rows") / "sft_train.jsonl",
        lambda rows: [{**rows[0], "id": first_eval_row(run)["id"]}, *rows[1:]],
    )


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
        lambda rows: [
            {key: row[key] for key in ("id", "user", "category", "skill", "answerable")}
            for row in rows
        ],
    )
    replies(run, lambda rows: [row for row in rows if row["set"] != "eval_listed"])


def harder_to_guess(run: RunDir) -> None:
    """The best trivial answerer of a skill, a constant line, is not spoken of."""
    change_facts(
        run, "trivial", lambda facts: facts["skills"].update(identity=facts["skills"]["math"])
    )


def options_not_counted(run: RunDir) -> None:
    change_json(
        run.place("trivial") / "measured.json", lambda measured: measured["options"].clear()
    )


def hidden_hit(run: RunDir) -> None:
    """The scan's report names a contaminated row, its facts do not."""
    first = first_eval_row(run)
    change_json(
        run.place("honesty") / "report.json",
        lambda report: report["corpus_documents_holding"].update({first["id"]: 3}),
    )


def chosen_contaminated(run: RunDir) -> None:
    """Failing rows declared contaminated, so that the clean rate rises."""
    first = first_eval_row(run)
    change_facts(run, "honesty", lambda facts: facts.update(contaminated_eval_rows=[first["id"]]))


def honesty_page(run: RunDir) -> None:
    page = run.place("honesty") / "report.md"
    page.write_text(page.read_text("utf-8").replace("Scanned", "Scanned twice"), "utf-8")


def shorter_runs(run: RunDir) -> None:
    change_config(run, lambda config: config["honesty"].update(hit_words=5))


def strange_hit(run: RunDir) -> None:
    (run.place("honesty") / "hits.jsonl").write_text('{"<img src=x>": 1}\n')


def without_its_places(run: RunDir) -> None:
    """A failing row declared contaminated in report, facts and page, with no place to look up."""
    first = first_eval_row(run)
    report = run.place("honesty") / "report.json"
    change_json(report, lambda value: value["corpus_documents_holding"].update({first["id"]: 1}))
    stated = json.loads(report.read_text("utf-8"))
    change_facts(
        run,
        "honesty",
        lambda facts: facts.update(
            contaminated_eval_rows=contaminated_rows(stated),
            corpus_contaminated_by_skill={
                **facts["corpus_contaminated_by_skill"],
                first["skill"]: facts["corpus_contaminated_by_skill"][first["skill"]] + 1,
            },
        ),
    )
    facts = HonestyFacts.model_validate(
        json.loads((run.place("honesty") / "manifest.json").read_text("utf-8"))["facts"]
    )
    page = contamination_page(facts, stated)
    (run.place("honesty") / "report.md").write_text(page, "utf-8")


def add_place(run: RunDir, where: str, document: str) -> None:
    """A place at which the first eval row is said to stand."""
    row = first_eval_row(run)
    hit = {
        "row": row["id"],
        "skill": row["skill"],
        "benchmark": None,
        "where": where,
        "document": document,
        "offset": 0,
        "rule": "run of 13 words",
        "words": "words of nowhere",
    }
    change_rows(run.place("honesty") / "hits.jsonl", lambda rows: [*rows, hit])


def an_invented_place(run: RunDir) -> None:
    """The same, with a place in a document that need not be left out."""
    without_its_places(run)
    add_place(run, "corpus", "a document of nowhere")


def a_place_in_an_sft_row(run: RunDir) -> None:
    add_place(run, "sft", "1")


def parity(**values: Any) -> Forgery:
    """A comparison that was made, with these values in its report and the facts that follow."""
    stated = {
        "tokens_compared": 128,
        "largest_logit": 2.0,
        "largest_difference": 2e-6,
        "largest_relative_difference": 1e-6,
        **values,
    }
    report = make_parity_report(**stated).model_dump(mode="json")

    def forge(run: RunDir) -> None:
        place = run.place("parity")
        change_json(place / "export_report.json", lambda value: value.update(parity=report))
        again = parity_facts(place, {"tokenizer": run.artifact("tokenizer")})
        change_facts(run, "parity", lambda facts: facts.update(again.model_dump(mode="json")))

    return forge


def blind_to_the_tokenizer(run: RunDir) -> None:
    """The report says that ids differ; the facts, of which the verdict is made, do not."""
    parity(texts_equal=False)(run)
    change_facts(run, "parity", lambda facts: facts.update(other_differences=0))


def small_chance(run: RunDir) -> None:
    change_facts(run, "benchmarks", lambda facts: facts["benchmarks"]["quiz"].update(chance=0.01))


def fewer_items(run: RunDir) -> None:
    change_rows(run.place("benchmarks") / "items.jsonl", lambda rows: rows[:50])
    change_facts(run, "benchmarks", lambda facts: facts["benchmarks"]["quiz"].update(rows=50))


def other_answers(run: RunDir) -> None:
    """In a run folder, where the texts are, an item must be the digest of its text."""
    change_rows(
        run.place("benchmarks") / "items.jsonl",
        lambda rows: [{**row, "correct": 0} for row in rows],
    )


def another_asked(run: RunDir) -> None:
    change_config(run, lambda config: config["external"]["benchmarks"].append("arc_easy"))


def other_sample(run: RunDir) -> None:
    (run.place("exercises") / "sample.txt").write_text("== sums\n")


# ---- data, tokens, training ----------------------------------------------------------------------


def source(**values: Any) -> Forgery:
    return lambda run: change_facts(run, "corpus", lambda facts: facts["sources"][0].update(values))


def more_text(run: RunDir) -> None:
    """In the measured sizes and in all facts that follow from them."""
    measured = run.place("corpus") / "measured.json"
    change_json(
        measured,
        lambda sizes: sizes["text_bytes"].update(dict.fromkeys(sizes["text_bytes"], 10**10)),
    )
    change_facts(
        run,
        "corpus",
        lambda facts: facts.update(facts_from(run.place("corpus")).model_dump(mode="json")),
    )


def longer_run(run: RunDir) -> None:
    change_config(run, lambda config: config["base"].update(steps=4000))
    change_facts(
        run, "base", lambda facts: facts.update(steps=4000, planned_steps=4000, scored_step=4000)
    )


def larger_model(run: RunDir) -> None:
    change_config(run, lambda config: config["model"].update(layers=16))


def better_curve(run: RunDir) -> None:
    change_rows(
        run.place("base") / "curve.jsonl",
        lambda rows: [
            {**row, "held_out_bits_per_byte": 0.9} if row["held_out_bits_per_byte"] else row
            for row in rows
        ],
    )


def other_rates(run: RunDir) -> None:
    change_rows(
        run.place("base") / "curve.jsonl",
        lambda rows: [{**row, "lr_fraction": row["lr_fraction"] and 0.5} for row in rows],
    )


def a_spike(run: RunDir) -> None:
    """A curve of as many steps as a spike needs, with one."""

    def change(rows: Rows) -> Rows:
        first = rows[0]
        return [
            {**first, "step": step, "loss": 100.0 if step == 25 else 1.0} for step in range(1, 26)
        ] + rows

    change_rows(run.place("base") / "curve.jsonl", change)


def fewer_evaluations(run: RunDir) -> None:
    """The evaluation that another one looks better beside is gone."""
    change_rows(
        run.place("base") / "curve.jsonl",
        lambda rows: [row for row in rows if row["loss"] is not None or row["step"] != 2],
    )


def more_tokens_a_step(run: RunDir) -> None:
    change_rows(
        run.place("base") / "curve.jsonl",
        lambda rows: [{**row, "tokens": 10 * row["tokens"]} for row in rows],
    )
    change_facts(run, "base", lambda facts: facts.update(tokens=10 * facts["tokens"]))


def skipped_steps(run: RunDir) -> None:
    """Steps that went badly were never there."""
    change_json(
        run.place("sft") / "measured.json",
        lambda measured: measured.update(skipped_steps=3, spikes=0),
    )
    change_facts(run, "sft", lambda facts: facts.update(skipped_steps=3))


def a_document_without_text(run: RunDir) -> None:
    path = run.place("shards") / "train-00000.starts"
    starts = np.fromfile(path, dtype="<i8")
    starts[2] = starts[1] + 1
    starts.tofile(path)


def more_tokens_than_bytes(run: RunDir) -> None:
    """Sidecars and facts agree on tokens that the text cannot have."""

    def fewer(stated: dict[str, Any]) -> None:
        stated["text_bytes"] = 10

    change_json(run.place("shards") / "held_out-00000.json", fewer)
    change_facts(run, "shards", lambda facts: facts.update(held_out_text_bytes=10))


def shorter_sidecar(run: RunDir) -> None:
    change_json(
        run.place("shards") / "train-00000.json", lambda sidecar: sidecar.update(tokens=10**9)
    )


def other_tokenizer(run: RunDir) -> None:
    change_json(
        run.place("sft") / "model.json", lambda info: info.update(tokenizer_digest="0" * 64)
    )


def cheaper(run: RunDir) -> None:
    change_json(
        run.place("summary") / "observed.json", lambda seen: seen.update(hours=0.01, usd=0.1)
    )


def faster(run: RunDir) -> None:
    change_json(
        run.place("summary") / "observed.json",
        lambda seen: seen["stages"]["base"].update(tokens_per_second=1e9),
    )


def calmer_preflight(run: RunDir) -> None:
    change_json(
        run.place("summary") / "observed.json",
        lambda seen: seen["preflight"].update(status="ready"),
    )


def shorter_stage(run: RunDir) -> None:
    change_json(
        run.place("summary") / "observed.json",
        lambda seen: seen["hours_of"][0].update(hours=0.0001),
    )


def without_input(run: RunDir) -> None:
    change_json(
        run.place("gate") / "manifest.json", lambda manifest: manifest["inputs"].pop("honesty")
    )


NOT_AS_ASKED = "stated otherwise than in the rows"
FORGERIES: tuple[tuple[str, str, Forgery, str], ...] = (
    # of, attack, how, what verification says. Those of one kind are tried one after the other,
    # those of other kinds together.
    ("scores", "eval rows of a skill are not among the replies", drop_failing, "was not asked"),
    ("scores", "a failing eval row is not among the replies", drop_some, "was not asked"),
    ("scores", "a row that passes is counted twice", count_twice, "stands there more than once"),
    (
        "scores",
        "a failing eval row counts as an SFT row",
        relabel(0, "set", "sft_train"),
        "is no question of this run",
    ),
    ("scores", "a reply counts for another skill", relabel(1, "skill", "other"), NOT_AS_ASKED),
    ("scores", "a reply counts for another stage", relabel(1, "stage", "easy"), NOT_AS_ASKED),
    (
        "scores",
        "a reply stands beside another question",
        relabel(1, "prompt", "What is 1 + 1?"),
        NOT_AS_ASKED,
    ),
    (
        "scores",
        "a reply stands beside another answer",
        relabel(1, "expected", "anything"),
        NOT_AS_ASKED,
    ),
    ("scores", "a choice shows another reply than the likeliest", other_choice_shown, NOT_AS_ASKED),
    (
        "scores",
        "a choice has a reply in place of likelihoods",
        choice_without_likelihoods,
        NOT_AS_ASKED,
    ),
    (
        "scores",
        "fewer training prefixes were continued",
        fewer_recalled,
        "eval/memorization.jsonl: holds other prefixes",
    ),
    (
        "scores",
        "other training prefixes were continued",
        other_prefixes,
        "eval/memorization.jsonl: holds other prefixes",
    ),
    (
        "scores",
        "the 5-gram baseline saw fewer tokens",
        weak_baseline,
        "eval/measured.json.ngram_train_tokens: states 10",
    ),
    (
        "scores",
        "the base model is better than training measured",
        better_documents,
        "eval/held_out.jsonl: its documents give",
    ),
    (
        "scores",
        "a hard held-out document is not among the losses",
        hard_documents_left_out,
        "eval/held_out.jsonl.documents: states",
    ),
    ("scores", "a benchmark item was answered twice", external_twice, "eval/external.jsonl"),
    (
        "rows",
        "an eval prompt is among the SFT rows",
        trained_on_an_eval_row,
        "rows.shared_items: states 0, its files give 1",
    ),
    (
        "rows",
        "more rows are stated than there are",
        fact("rows", eval_rows=700),
        "rows.eval_rows: states 700",
    ),
    (
        "rows",
        "a source of the rows is not spoken of",
        fact("rows", sources=[{"label": "arc", "licence": "mit"}]),
        "rows.sources: states",
    ),
    (
        "rows",
        "eval rows that no reply could fail",
        rows_made_easy,
        "rows.eval_rows_without_rule: states 0",
    ),
    (
        "rows",
        "an SFT row with the id and another rule than an eval row",
        id_of_an_eval_row,
        "is the id of more than one row",
    ),
    (
        "conversations",
        "what was trained on is not the SFT rows",
        conversations_of_eval_rows,
        "sft/conversations/train.npz: is not what",
    ),
    (
        "conversations",
        "rows that fit better",
        fact("conversations", longest_row_tokens=1),
        "conversations.longest_row_tokens: states 1",
    ),
    (
        "honesty",
        "a row that the scan found is not among the contaminated ones",
        hidden_hit,
        "honesty.contaminated_eval_rows",
    ),
    (
        "honesty",
        "a failing row is declared contaminated",
        chosen_contaminated,
        "honesty.contaminated_eval_rows",
    ),
    (
        "honesty",
        "fewer documents were scanned than there are",
        fact("honesty", scanned_documents=1),
        "honesty.scanned_documents: states 1",
    ),
    (
        "honesty",
        "the settings tell of shorter runs than the scan looked for",
        shorter_runs,
        "honesty/report.json.hit_words: states 13",
    ),
    ("honesty", "the page of the scan was edited", honesty_page, "honesty/report.md: differs"),
    (
        "honesty",
        "a hit of another shape, to be shown in the summary",
        strange_hit,
        "hits.jsonl, line 1",
    ),
    (
        "honesty",
        "a failing row is declared contaminated everywhere, with no place to look up",
        without_its_places,
        "honesty/hits.jsonl: lists other places of",
    ),
    (
        "honesty",
        "the place at which a failing row is said to stand is in no document to leave out",
        an_invented_place,
        "documents_to_leave_out lacks a document of nowhere",
    ),
    (
        "honesty",
        "a place in the SFT rows that they do not have",
        a_place_in_an_sft_row,
        "lists other places in SFT rows",
    ),
    (
        "trivial",
        "a trivial answerer that does well is left out",
        harder_to_guess,
        "trivial.skills.identity",
    ),
    (
        "trivial",
        "the corpus was not searched for the options",
        options_not_counted,
        "counts other options than the eval rows have",
    ),
    (
        "trivial",
        "options were counted in more text than the corpus has",
        fact("trivial", text_bytes=10**12),
        "trivial.text_bytes: states 1,000,000,000,000",
    ),
    (
        "benchmarks",
        "a benchmark's chance is lowered",
        small_chance,
        "benchmarks.benchmarks.quiz.chance: states 0.01",
    ),
    (
        "benchmarks",
        "items of a benchmark are left out",
        fewer_items,
        "benchmarks/items.jsonl: holds 50 items of quiz",
    ),
    (
        "benchmarks",
        "other options are called correct",
        other_answers,
        "differs from its text in rows/quiz.jsonl",
    ),
    (
        "benchmarks",
        "a benchmark that was asked for is not spoken of",
        another_asked,
        "the settings ask for",
    ),
    (
        "corpus",
        "more documents than the corpus has",
        fact("corpus", documents=10**6, train_documents=10**6 - 1),
        "corpus.documents: states 1000000",
    ),
    (
        "corpus",
        "fewer repeated ids than rows were renamed for",
        fact("corpus", repeated_ids=7),
        "corpus.repeated_ids: states 7",
    ),
    (
        "corpus",
        "a licence that no source states",
        source(licence="mit"),
        "corpus.sources[0].licence",
    ),
    (
        "corpus",
        "a source is called one of the Hub",
        source(kind="hub", import_report=True),
        "corpus.sources[0].import_report",
    ),
    (
        "corpus",
        "more text than the files have",
        source(text_bytes=10**10),
        "bytes of text, its files have fewer",
    ),
    (
        "corpus",
        "more text than the files have, measured so",
        more_text,
        "bytes of text, its files have fewer",
    ),
    (
        "shards",
        "more training tokens than the shards have",
        fact("shards", train_tokens=10**9),
        "shards.train_tokens: states 1000000000",
    ),
    (
        "shards",
        "a sidecar states more tokens than its shard has bytes",
        shorter_sidecar,
        "base/token_shards/train-00000.json.tokens",
    ),
    (
        "shards",
        "more exercises among the tokens than the last documents have",
        fact("shards", exercise_tokens=10**6),
        "shards.exercise_tokens: states 1000000",
    ),
    (
        "shards",
        "a document that has no text",
        a_document_without_text,
        "train-00000.starts: has a document without text",
    ),
    (
        "shards",
        "more tokens than the text has bytes",
        more_tokens_than_bytes,
        "more than its text has bytes",
    ),
    (
        "tokenizer",
        "a larger vocabulary",
        fact("tokenizer", vocab_size=8192),
        "tokenizer.vocab_size: states 8192",
    ),
    (
        "exercises",
        "less exercises than there was",
        fact("exercises", fraction_asked=0.0),
        "exercises.fraction_asked: states 0",
    ),
    ("exercises", "a sample of other exercises", other_sample, "exercises/sample.txt: differs"),
    ("base", "more steps than the curve has", longer_run, "base.steps: states 4000"),
    (
        "base",
        "a larger model than the checkpoint's",
        larger_model,
        "base/checkpoint/model.json.model.layers: states 1",
    ),
    ("base", "a better curve than the facts", better_curve, "base.held_out_bits_per_byte"),
    (
        "base",
        "better facts than the curve",
        fact("base", held_out_bits_per_byte=0.9),
        "base.held_out_bits_per_byte: states 0.9",
    ),
    (
        "base",
        "another learning rate than the settings",
        other_rates,
        "another step or learning rate",
    ),
    ("base", "a spike that is not spoken of", a_spike, "base.spikes: states 0"),
    (
        "base",
        "an evaluation that the curve lacks",
        fewer_evaluations,
        "evaluation at step 2: missing",
    ),
    (
        "base",
        "more tokens in a step than the settings give",
        more_tokens_a_step,
        "other tokens than the settings give",
    ),
    (
        "sft",
        "steps that were skipped where none may be",
        skipped_steps,
        "sft.skipped_steps: states 3",
    ),
    (
        "sft",
        "a checkpoint of another tokenizer",
        other_tokenizer,
        "sft/checkpoint/model.json.tokenizer_digest",
    ),
    ("sft", "fewer parameters", fact("sft", parameters=1), "sft.parameters: states 1"),
    (
        "parity",
        "an export that was not compared is stated as equal",
        fact("parity", reader="a reader", largest_relative_difference=0.0),
        "parity.reader",
    ),
    (
        "parity",
        "an export with another tokenizer is stated as equal",
        blind_to_the_tokenizer,
        "parity.other_differences: states 0, its files give 1",
    ),
    (
        "parity",
        "fewer tokens were compared than the stage compares",
        parity(tokens_compared=2),
        "parity.tokens_compared: states 2",
    ),
    (
        "parity",
        "a wider bound than the stage has",
        parity(bound=0.1, largest_relative_difference=0.05, largest_difference=0.1),
        "parity.bound: states 0.1",
    ),
    (
        "parity",
        "a smaller difference than its parts give",
        parity(largest_difference=0.1),
        "parity.largest_relative_difference: states 1e-06",
    ),
    (
        "gate",
        "a verdict that was not made from the scan",
        without_input,
        "gate: does not state which honesty",
    ),
    ("summary", "less time and money than the stages took", cheaper, "summary/observed.json.hours"),
    (
        "summary",
        "a faster training than the metrics say",
        faster,
        "summary/observed.json.stages.base.tokens_per_second",
    ),
    (
        "summary",
        "a better preflight than the run had",
        calmer_preflight,
        "summary/observed.json.preflight.status",
    ),
    (
        "summary",
        "a stage took less time than its timing",
        shorter_stage,
        "timings.jsonl has no such time",
    ),
)
PAGES: tuple[tuple[str, Forgery, str], ...] = (
    # attacks on what follows from the replies alone, made after everything else agrees
    ("the page of scores was edited", a_page_of_scores, "eval/report.md: differs"),
    ("report.json of the scores was edited", scores_json, "eval/report.json: differs"),
)


def test_replies_to_no_question_are_one_message(honest: Path, tmp_path: Path) -> None:
    forged = copied(honest, tmp_path)
    replies(forged, lambda rows: [*rows, {**rows[0], "id": "none"}])
    inputs = {kind: forged.artifact(kind) for kind in ("sft", "rows", "benchmarks", "honesty")}
    with pytest.raises(BadInput, match="has 1 replies to no question of its rows, the first: 'no"):
        evaluate.facts_from(forged.place("scores"), inputs)


@pytest.fixture(scope="module")
def rounds(honest: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What is found of each forgery: the first of every kind in one run, the second in the next
    one, and so on.

    Of scores those that are told by different words go together.
    """
    counts: dict[str, int] = {}
    batches: dict[int, list[tuple[str, Forgery]]] = {}
    for kind, attack, forge, expected in FORGERIES:
        what = expected if kind == "scores" else kind
        counts[what] = counts.get(what, -1) + 1
        batches.setdefault(counts[what], []).append((attack, forge))
    found: dict[str, list[str]] = {}
    for number, batch in batches.items():
        forged = copied(honest, tmp_path_factory.mktemp(f"round-{number}"))
        for _, forge in batch:
            forge(forged)
        settle(forged)
        found |= dict.fromkeys((attack for attack, _ in batch), found_in(forged.root))
    return found


@pytest.mark.parametrize(
    ("attack", "expected"),
    [(row[1], row[3]) for row in FORGERIES],
    ids=[row[1] for row in FORGERIES],
)
def test_a_claim_beyond_the_evidence_is_found(
    rounds: dict[str, list[str]], attack: str, expected: str
) -> None:
    assert any(expected in what for what in rounds[attack]), rounds[attack]


@pytest.mark.parametrize(
    ("forge", "expected"), [row[1:] for row in PAGES], ids=[row[0] for row in PAGES]
)
def test_an_edited_page_is_found(run: RunDir, forge: Forgery, expected: str) -> None:
    settle(run)
    forge(run)
    settle(run, judge=False)
    assert any(expected in what for what in found_in(run.root))


def test_a_bundle_tells_each_forgery_in_one_line_and_exits_3(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    larger_model(run)
    settle(run)
    assert run_command(["run", "verify", str(bundled(run))]) == 3
    said = capsys.readouterr().err
    assert (
        "    base/checkpoint/model.json.model.layers: states 1, settings, tokenizer and facts give"
        " 16\n" in said
    )
    assert "Traceback" not in said


# ---- what is in a bundle that no artifact vouches for --------------------------------------------


def repacked(bundle: Path, add: dict[str, bytes], without: str = " ") -> Path:
    """The bundle with other files, and SHA256SUMS over all of them."""
    files: dict[str, bytes] = {}
    with tarfile.open(bundle) as archive:
        for member in archive:
            stream = archive.extractfile(member)
            assert stream is not None
            files[member.name.partition("/")[2]] = stream.read()
    files = {
        name: data for name, data in {**files, **add}.items() if name not in (without, "SHA256SUMS")
    }
    sums = "".join(f"{digest_bytes(data)}  {name}\n" for name, data in sorted(files.items()))
    path = bundle.with_name("again.tgz")
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, data in {**files, "SHA256SUMS": sums.encode()}.items():
            info = tarfile.TarInfo(f"run/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_what_no_artifact_vouches_for_is_found(run: RunDir) -> None:
    path = bundled(run)
    assert "CLAIMS.md: belongs to no artifact, so nothing vouches for it" in found_in(
        repacked(path, {"CLAIMS.md": b"# Best of all"})
    )
    alone = found_in(repacked(path, {}, without="gate/manifest.json"))
    assert "gate/gate.json: belongs to no artifact, so nothing vouches for it" in alone


def test_a_bundle_of_another_layout_is_refused_by_name(run: RunDir) -> None:
    contents = {"schema_version": 2, "new_field": 1}
    with pytest.raises(BadInput, match="is a bundle of layout 2, this version of picochat reads 1"):
        inspect_bundle(repacked(bundled(run), {"bundle.json": json.dumps(contents).encode()}))


NO_NUMBERS = (
    "NaN",
    "1e999",
    "-Infinity",
    "true",
    '"0.9"',
    "1" * 5000,
    "[" * 5000 + "]" * 5000,
    '"\\ud800"',
    '{"a": 1, "a": 2}',
    "\xff",
)
FIELDS = {
    "base/checkpoint/manifest.json": b'"final_loss": ',
    "eval/measured.json": b'"ngram_bits_per_byte": ',
    "eval/held_out.jsonl": b'"base_nats":',
    "eval/replies.jsonl": b'"base_reply":',
    "sft/checkpoint/curve.jsonl": b'"loss":',
    "preflight/preflight.json": b'"planned_tokens": ',
}


@pytest.mark.parametrize("value", NO_NUMBERS, ids=[value[:9] for value in NO_NUMBERS])
def test_numbers_that_are_none_are_differences_and_no_traceback(run: RunDir, value: str) -> None:
    for name, field in FIELDS.items():
        data = (run.root / name).read_bytes()
        start = data.index(field) + len(field)
        end = start + next(place for place, byte in enumerate(data[start:]) if byte in b",}\n")
        (run.root / name).write_bytes(data[:start] + value.encode("latin-1") + data[end:])
    report = inspect_bundle(run.root)
    assert report.exit_code == 3
    assert report.lines()
    assert report.to_json()


# ---- names, terminals, times ---------------------------------------------------------------------


def test_names_cannot_speak_to_the_terminal(run: RunDir) -> None:
    """A manifest may list any name; it is printed on one line without control characters."""
    evil = "eval\x1b[2J\nnothing differs\u202egpj.exe"
    change_json(
        run.place("gate") / "manifest.json",
        lambda manifest: manifest["files"].update({evil: {"sha256": "0", "bytes": 1}}),
    )
    lines = inspect_bundle(run.root).lines()
    told = next(line for line in lines if "is missing" in line)
    assert told.strip() == "gate/eval<U+001B>[2J<U+000A>nothing differs<U+202E>gpj.exe: is missing"


def test_a_run_in_progress_is_not_verified(run: RunDir) -> None:
    with exclusive(run.lock, "the run"), pytest.raises(WrongUsage, match="is in use by a run"):
        inspect_bundle(run.root)
    assert inspect_bundle(run.root).exit_code == 0


def test_verifying_works_where_torch_cannot_be_imported(run: RunDir) -> None:
    code = f"""
import sys
sys.modules.update(torch=None, transformers=None, safetensors=None)
from pathlib import Path
from picochat.release.verify import verify_bundle
assert verify_bundle(Path({str(run.root)!r})).exit_code == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_artifact_that_states_facts_has_them_computed_again() -> None:
    decided = {"preflight", "gate"}  # computed again as verdicts
    assert {spec.kind for spec in ARTIFACTS if spec.facts} - decided == {
        spec.kind for spec in ARTIFACTS if spec.facts_from
    }


def test_what_is_checked_across_artifacts_is_a_kind_of_the_graph() -> None:
    assert set(CROSS_CHECKS) < {spec.kind for spec in ARTIFACTS}


def test_the_page_about_verification_has_a_row_for_every_kind_of_forgery() -> None:
    page = (Path(__file__).parents[2] / "docs" / "verification.md").read_text("utf-8")
    assert {kind for kind, *_ in FORGERIES} == set(re.findall(r"^\| `(\w+)` \|", page, re.M))
