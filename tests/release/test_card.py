"""The card says what the facts say: no more, no less, and nothing that the facts do not say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from picochat.core.records import Record, parse_record
from picochat.export.export_record import ParityReport
from picochat.facts import BenchmarksFacts, ExercisesFacts, Rate, RunFacts, ScoresFacts
from picochat.present import values
from picochat.release.card import Subject, render_card
from picochat.report.summary import Provenance, provenance_of
from tests.builders import make_benchmark_facts, make_rate
from tests.export_builders import RunParts, corpus_facts, gate_facts, make_run, shards_facts
from tests.run_builder import facts_of_run

NOT_SHOWN = {
    "corpus": {
        "train_documents",
        "text_bytes",
        "train_text_bytes",
        "held_out_text_bytes",
        "dropped.duplicate",
        "repeated_ids",
        "held_out_fraction",
        "sources.*.pinned",
        "sources.*.import_report",
    },
    "rows": {
        "sources.*.label",
        "sft_by_skill.math",
        "eval_by_skill.math",
        "eval_items_by_skill.math",
        "chat_read.forms.own",
        "eval_read.forms.own",
        "eval_scored_by.exact answer",
        "sft_turns",
        "repeated_sft_prompts",
        "eval_rows_without_rule",
        "shared_items",
    },
    "shards": {
        "train_documents",
        "held_out_documents",
        "train_text_bytes",
        "held_out_text_bytes",
        "roundtrip_documents",
        "roundtrip_failures",
        "exercise_documents",
    },
    "exercises": {"fraction_asked", "words"},
    "honesty": {
        "scanned_documents",
        "sft_largest_coverage",
        "eval_by_skill.math",
        "contaminated_eval_rows.*",
    },
    "trivial": {
        "documents",
        "text_bytes",
        "skills.math.*.line",
        *(
            f"skills.math.*.{part}.{name}"
            for part in ("answerable", "unanswerable", "levels.add_carry")
            for name in ("passed", "count", "fraction", "low", "high")
        ),
    },
    "preflight": {"findings.*.message", "findings.*.on_host"},
    "gate": {"findings.*.on_host"},
    "base": {
        "stage",
        "parameters",
        "losses_finite",
        "scored_step",
        "held_out_bits_per_byte",
        "largest_centre_error",
    },
    "sft": {
        "stage",
        "parameters",
        "losses_finite",
        "scored_step",
        "held_out_bits_per_byte",
        "largest_centre_error",
    },
    "scores": {"external.riddles.cut_rows", "external.riddles.too_long_rows"},
}
"""Facts that the card leaves to the attached evidence.

Everything else must change the card when it changes.
"""


def parity() -> ParityReport:
    return ParityReport(
        reader="transformers 9.8.7",
        model_class="StableLmForCausalLM",
        dtype="float32",
        token_source="held-out text",
        tokens_compared=512,
        best_token_differs=0,
        largest_logit=6.0,
        largest_difference=8.5e-6,
        largest_relative_difference=1.5e-6,
        bound=1e-4,
        greedy_tokens=32,
        greedy_tokens_equal=True,
        greedy_largest_shortfall=0.0,
        missing_keys=[],
        unexpected_keys=[],
        texts_compared=5,
        texts_equal=True,
        chat_equal=True,
        end_id=4,
    )


def subject(**changes: Any) -> Subject:
    values: dict[str, Any] = {
        "model_name": "pico-test",
        "repo_id": None,
        "licence": "mit",
        "dataset_summary": "",
        "eval_summary": "",
        "stage": "sft",
        "step": 90,
        "context": 64,
        "vocab_size": 400,
        "architecture": "StableLmForCausalLM",
        "dtype": "float32",
        "parameters": 106_969_856,
        "stored_numbers": 106_997_248,
        "checkpoint_digest": "c" * 64,
        "tokenizer_digest": "d" * 64,
        "end_token": "<|end|>",
        "scored": True,
        "parity": parity(),
    }
    return Subject(**{**values, **changes})


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> RunFacts:
    facts = facts_of_run(make_run(tmp_path_factory.mktemp("card") / "run"))
    assert facts.preflight is not None
    # the card names the checks that did not pass, so none passes here
    findings = [
        finding.model_copy(update={"status": "warn"}) for finding in facts.preflight.findings
    ]
    exercises = ExercisesFacts(fraction_asked=0.1, documents=90, text_bytes=108_000, words=500)
    return replace(
        facts,
        exercises=exercises,
        shards=shards_facts(),
        preflight=facts.preflight.model_copy(update={"findings": findings}),
    )


def front_matter(card: str) -> dict[str, Any]:
    """The YAML between the two fences.

    Its values are written as JSON, so the standard library reads them.
    """
    lines = card.split("---\n")[1].splitlines()
    return {line.partition(": ")[0]: json.loads(line.partition(": ")[2]) for line in lines}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, list[str | int]]]:
    """(path with * for list positions, path as keys) of every number, text and truth value."""
    if isinstance(value, dict):
        items: list[tuple[str | int, Any]] = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        yield path, []
        return
    for key, item in items:
        step = "*" if isinstance(key, int) else key
        for name, keys in leaves(item, f"{path}.{step}" if path else step):
            yield name, [key, *keys]


def changed(record: Record, keys: list[str | int]) -> Record | None:
    """The record with one leaf changed, or None where no other value is allowed there."""
    tree = record.model_dump(mode="json")
    holder: Any = tree
    for key in keys[:-1]:
        holder = holder[key]
    old = holder[keys[-1]]
    others = {
        "approved": "blocked",
        "warn": "block",
        "pass": "block",
        "base": "sft",
        "sft": "base",
        "hub": "files",
        "files": "hub",
        "acc_norm": "acc",
    }
    if isinstance(old, bool):
        new: Any = not old
    elif isinstance(old, (int, float)):
        new = old + 1
    elif old is None:
        return None
    else:
        new = others.get(old, old + "-other")
    if keys == ["status"] and old == "warn":
        new = "blocked"
    holder[keys[-1]] = new
    return parse_record(type(record), tree, "changed record")


@pytest.mark.parametrize("section", sorted(NOT_SHOWN))
def test_changing_a_fact_changes_the_card(evidence: RunFacts, section: str) -> None:
    before = render_card(subject(), evidence)
    record = getattr(evidence, section)
    silent = set()
    for name, keys in leaves(record.model_dump(mode="json")):
        other = changed(record, keys)
        if (
            other is not None
            and render_card(subject(), replace(evidence, **{section: other})) == before
        ):
            silent.add(name)
    assert silent == NOT_SHOWN[section]


def test_each_rate_stands_with_its_count_and_interval(evidence: RunFacts) -> None:
    card = render_card(subject(), evidence)
    assert evidence.scores is not None
    for score in evidence.scores.skills.values():
        for rate in (score.all, score.clean, score.base, *score.levels.values()):
            assert (
                f"{rate.fraction:.3f} ({rate.passed} of {rate.count}; 95% {rate.low:.3f} to"
                f" {rate.high:.3f})" in card
            )


def test_the_best_trivial_answer_stands_below_its_skill(evidence: RunFacts) -> None:
    lines = render_card(subject(), evidence).splitlines()
    assert evidence.trivial is not None
    for skill, scores in evidence.trivial.skills.items():
        place = next(n for n, line in enumerate(lines) if line.startswith(f"| {skill} |"))
        name = f"{skill}: best trivial answer, {scores[0].answerer}"
        assert lines[place + 1].startswith(f"| {name} | {values.rate(scores[0].all)} |")


def test_results_for_the_hub_equal_the_scores(evidence: RunFacts) -> None:
    index = front_matter(render_card(subject(), evidence))["model-index"]
    metrics = index[0]["results"][0]["metrics"]
    assert evidence.scores is not None
    assert [metric["value"] for metric in metrics] == [
        score.all.fraction for score in evidence.scores.skills.values()
    ]


def test_a_rate_that_nothing_was_counted_for_is_not_measured(evidence: RunFacts) -> None:
    nothing = Rate(passed=0, count=0, fraction=None, low=None, high=None)
    assert evidence.scores is not None
    scores = evidence.scores.model_copy(update={"refusal": nothing, "ngram_bits_per_byte": None})
    card = render_card(subject(), replace(evidence, scores=scores))
    assert "| unsafe or unanswerable prompts, refused | not measured (0 of 0) |" in card
    assert "| 5-gram model of 1,000,000 training tokens | not measured |" in card


@pytest.mark.parametrize(
    ("status", "words"), [("blocked", "**blocked** this model"), ("warn", "did not fully approve")]
)
def test_a_model_that_was_not_approved_says_so_at_the_top(
    evidence: RunFacts, status: str, words: str
) -> None:
    card = render_card(subject(), replace(evidence, gate=gate_facts(status)))
    notice = card.split("# pico-test\n")[1].lstrip().splitlines()[0]
    assert notice.startswith("> ")
    assert words in notice
    assert "`skill_release_eval_math`" in notice


def test_unmeasured_rules_are_named_among_what_blocks(evidence: RunFacts) -> None:
    gate = gate_facts("blocked")
    findings = [
        item.model_copy(update={"status": "unmeasured", "measured": None}) for item in gate.findings
    ]
    card = render_card(
        subject(), replace(evidence, gate=gate.model_copy(update={"findings": findings}))
    )
    assert "`run_completed`, `refusal`, `skill_release_eval_math`" in card
    assert "| run_completed | unmeasured | unmeasured |" in card


def test_without_a_run_the_card_says_that_no_evidence_is_attached() -> None:
    card = render_card(subject(scored=False), None)
    assert "> No evidence is attached" in card
    assert "There are no scores" in card
    assert "model-index" not in front_matter(card)


def test_weights_that_were_not_scored_show_no_score_and_no_verdict(evidence: RunFacts) -> None:
    card = render_card(subject(scored=False), evidence)
    assert "not the ones that were scored" in card
    assert "43 of 70" not in card
    assert "approved" not in card
    assert "evidence/eval" not in card
    assert "model-index" not in front_matter(card)


def test_every_source_is_attributed_with_its_licence(evidence: RunFacts) -> None:
    card = render_card(subject(licence="mit", provenance=provenance_of(evidence)), evidence)
    assert (
        "[someone/some-corpus](/datasets/someone/some-corpus) (plain) at revision"
        f" {'0123abcd' * 5}, made available under the licence odc-by, which asks for attribution."
        in card
    )
    assert (
        "Fine-tuned on rows from [someone/some-chats](/datasets/someone/some-chats) (all) at"
        f" revision {'4567cdef' * 5}, made available under the licence apache-2.0, which asks"
        in card
    )
    assert (
        "wiki, made available under the licence cc-by-sa-4.0, which asks for attribution, share"
        " alike." in card
    )
    unknown = render_card(subject(), replace(evidence, corpus=corpus_facts(licence=None)))
    assert "made available under a licence that is not on record." in unknown


def notices_of(card: str) -> list[str]:
    return [line[2:] for line in card.splitlines() if line.startswith("> ")]


def test_a_licence_that_a_source_contradicts_is_said_at_the_top(evidence: RunFacts) -> None:
    assert notices_of(render_card(subject(licence="mit"), evidence))[1:] == [
        "The licence of this model is mit, which **contradicts** those of its training data: wiki"
        " (cc-by-sa-4.0) asks for attribution, share alike; licences that contradict none of them:"
        " cc-by-sa-4.0."
    ]
    assert notices_of(render_card(subject(licence="cc-by-sa-4.0"), evidence))[1:] == []


def test_what_nobody_can_tell_of_a_licence_is_said_at_the_top(evidence: RunFacts) -> None:
    unstated = replace(evidence, corpus=corpus_facts(licence=None))
    assert notices_of(render_card(subject(licence="cc-by-sa-4.0"), unstated))[1:] == [
        "The licence of this model is cc-by-sa-4.0. Whether that fits its training data is not"
        " known: web states no licence."
    ]
    assert notices_of(render_card(subject(licence="unknown"), evidence))[1:] == [
        "The licence of this model is unknown. Whether that fits its training data is not known:"
        " wiki (cc-by-sa-4.0) asks for attribution, share alike."
    ]


def test_the_card_gives_both_parameter_counts(evidence: RunFacts) -> None:
    card = render_card(subject(), evidence)
    assert "106,969,856 parameters" in card
    assert "106,997,248 numbers in float32, 27,392 more" in card


def hub_card(card: str) -> Any:
    """The metadata as the Hub's client reads it, which raises for a form that it does not take."""
    repocard = pytest.importorskip("huggingface_hub.repocard", reason="no huggingface_hub")
    return repocard.ModelCard(card).data


def test_the_hub_reads_the_front_matter_and_the_results(evidence: RunFacts) -> None:
    found = make_benchmark_facts(dataset="someone/riddles", config="hard", split="validation")
    card = render_card(
        subject(licence="apache-2.0", provenance=provenance_of(evidence)),
        replace(
            evidence,
            benchmarks=BenchmarksFacts(benchmarks={"riddles": found}, unresolved=[]),
            scores=with_riddles(evidence, acc=make_rate(250, 501), acc_norm=make_rate(300, 501)),
        ),
    )
    data = hub_card(card)
    assert (data.license, data.model_name) == ("apache-2.0", "pico-test")
    assert data.datasets == ["someone/some-chats", "someone/some-corpus"]
    *skills, acc, acc_norm = data.eval_results
    assert {(one.dataset_type, one.metric_type) for one in skills} == {
        ("picochat-skills", "accuracy")
    }
    assert {one.metric_name: one.metric_value for one in skills}["math (43 of 70)"] == 43 / 70
    for result, metric, passed in ((acc, "accuracy", 250), (acc_norm, "acc_norm", 300)):
        assert (result.dataset_type, result.dataset_config) == ("someone/riddles", "hard")
        assert (result.dataset_split, result.dataset_revision) == ("validation", found.revision)
        assert (result.metric_type, result.metric_value) == (metric, passed / 501)


def test_what_is_no_dataset_of_the_hub_is_not_named_as_one(evidence: RunFacts) -> None:
    """A folder that was imported, and a benchmark that was read from a file."""
    assert evidence.corpus and evidence.rows
    local = [source.model_copy(update={"kind": "files"}) for source in evidence.corpus.sources]
    found = make_benchmark_facts(dataset=None, revision=None)
    facts = replace(
        evidence,
        corpus=evidence.corpus.model_copy(update={"sources": local}),
        rows=evidence.rows.model_copy(update={"sources": []}),
        benchmarks=BenchmarksFacts(benchmarks={"riddles": found}, unresolved=[]),
        scores=with_riddles(evidence, acc=make_rate(250, 501)),
    )
    card = render_card(subject(provenance=provenance_of(evidence)), facts)
    assert "datasets" not in front_matter(card)
    assert "/datasets/" not in card
    assert {one.dataset_type for one in hub_card(card).eval_results} == {"picochat-skills"}


def test_a_run_without_a_result_has_no_model_index(evidence: RunFacts) -> None:
    assert evidence.scores
    scores = evidence.scores.model_copy(update={"skills": {}})
    card = render_card(subject(), replace(evidence, scores=scores))
    assert "model-index" not in front_matter(card)


def with_riddles(facts: RunFacts, **rates: Rate) -> ScoresFacts:
    assert facts.scores
    score = facts.scores.external["riddles"].model_copy(update=rates)
    return facts.scores.model_copy(update={"external": {"riddles": score}})


def test_text_from_the_facts_cannot_break_a_table(evidence: RunFacts) -> None:
    gate = gate_facts("blocked")
    findings = [item.model_copy(update={"message": "one | two\nthree"}) for item in gate.findings]
    card = render_card(
        subject(), replace(evidence, gate=gate.model_copy(update={"findings": findings}))
    )
    assert "one \\| two three |" in card


def test_a_run_that_was_never_judged_claims_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", RunParts(leave_out=("gate", "summary")))
    assert "has not judged this model" in render_card(subject(), facts_of_run(run))


def test_names_of_other_people_make_no_tag_no_link_and_no_second_line_of_front_matter(
    evidence: RunFacts,
) -> None:
    evil = "x\nlicense: mit\n---\n<img src=x onerror=alert(1)> [win](javascript:alert(1)) \x9b2J"
    assert evidence.corpus
    source = evidence.corpus.sources[0]
    sources = [source.model_copy(update={"licence": evil}), *evidence.corpus.sources[1:]]
    origin = Provenance(source.label, dataset=evil, config=evil, revision=evil)
    forged = replace(evidence, corpus=evidence.corpus.model_copy(update={"sources": sources}))
    card = render_card(subject(model_name=evil, provenance=(origin,)), forged)
    front, page = card.removeprefix("---\n").split("\n---\n", 1)
    code = page.split("```")[1]
    assert "<img" not in page.replace(code, "")
    assert [line.startswith("name = ") for line in code.splitlines()].count(True) == 1
    assert "[win](javascript" not in page.replace(code, "").replace("\\[win](javascript", "")
    assert [line.partition(":")[0] for line in front.splitlines()].count("license") == 1
    assert "\x9b" not in card
