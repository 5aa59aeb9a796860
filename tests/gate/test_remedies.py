"""The remedies that are settings: with them, on the same facts, the check passes.

The facts that the setting changes are computed as a stage would: what is held out, the epochs.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from picochat.cli.main import run_command
from picochat.config import RunConfig, resolve
from picochat.facts import FindingRecord, RunFacts
from picochat.gate import remedies
from picochat.gate.preflight import decide_preflight
from picochat.gate.release import decide_release
from picochat.run.request import RunRequest, parse_settings
from picochat.run.runner import RunVerdict
from tests.builders import (
    NO_BENCHMARKS,
    change,
    make_benchmarks_facts,
    make_config,
    make_conversations_facts,
    make_corpus_facts,
    make_eval_cells,
    make_evidence,
    make_honesty_facts,
    make_host_facts,
    make_rate,
    make_rows_facts,
    make_scores_facts,
    make_shards_facts,
    make_train_facts,
    make_trivial_facts,
    make_trivial_score,
)

Follow = Callable[[str, RunConfig], RunConfig]


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch) -> Follow:
    """The configuration of a run whose command has the options of a remedy as well."""
    asked: list[RunRequest] = []

    def run_pack(request: RunRequest) -> RunVerdict:
        asked.append(request)
        return RunVerdict([], 0)

    monkeypatch.setattr("picochat.run.runner.run_pack", run_pack)

    def followed(fix: str, config: RunConfig) -> RunConfig:
        first = next(part for part in fix.split("; ") if "--" in part)
        first = first.removesuffix(", or a host with more memory")
        options = re.sub(r"^.*: (?=--)", "", first).replace(" N", " 1")
        words = ["run", "tiny", "--out-dir", "x", "--dataset-pack", "y", *shlex.split(options)]
        assert run_command(words) == 0, options
        request = asked[-1]
        return resolve(config, request.flags, parse_settings(request.settings)).config

    return followed


def finding(evidence: RunFacts, name: str) -> FindingRecord:
    return next(f for f in decide_preflight(evidence).findings if f.name == name)


def rule(evidence: RunFacts, name: str) -> FindingRecord:
    return next(f for f in decide_release(evidence).findings if f.name == name)


def first_release(**base: Any) -> RunConfig:
    return make_config(gate={"profile": "first_release"}, base=base)


PRICED = {"gpu_hour_usd": 3.0, "budget_usd": 2.0}
SHORT_TEXT = make_shards_facts(train_tokens=300)
SETTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    # check, what alone differs from a healthy run
    ("release_token_budget", {"config": make_config(base={"steps": 29_000})}),
    ("release_token_budget", {"config": make_config(gate={"target_tokens_per_parameter": 19.0})}),
    ("compute_optimal_horizon", {"config": make_config(base={"steps": 49_500})}),
    ("compute_optimal_horizon", {"config": make_config(base={"steps": 98_500})}),
    ("base_exposure", {"shards": make_shards_facts(train_tokens=9_000_000_000)}),
    (
        "base_exposure",
        {
            "config": first_release(steps=40_000),
            "shards": make_shards_facts(train_tokens=150_000_000),
        },
    ),
    ("near_duplicate_documents", {"corpus": make_corpus_facts(near_duplicates=150_000)}),
    ("training_rows", {"shards": SHORT_TEXT}),
    ("sft_exposure", {"config": make_config(sft={"steps": 1_800})}),
    ("sft_exposure", {"config": make_config(sft={"steps": 4_300})}),
    ("run_forecast", {"config": make_config(gate=PRICED)}),
    ("run_forecast", {"config": make_config(gate={"budget_usd": 100.0})}),
    ("baseline_memory", {"config": make_config(evals={"ngram_train_tokens": 2_000_000_000})}),
    (
        "external_benchmarks",
        {
            "config": make_config(external={"max_rows": 100}),
            "benchmarks": make_benchmarks_facts({"small": 100}),
        },
    ),
)


@pytest.mark.parametrize(("name", "changes"), SETTINGS, ids=[name for name, _ in SETTINGS])
def test_with_the_settings_of_the_remedy_the_check_passes(
    name: str, changes: dict[str, Any], follow: Follow
) -> None:
    evidence = make_evidence(**changes)
    before = finding(evidence, name)
    assert before.status != "pass" and before.fix
    mended = replace(evidence, config=follow(before.fix, evidence.config))
    if name == "external_benchmarks":  # the rows that are then asked
        assert mended.config.external.max_rows == 0
        mended = replace(mended, benchmarks=make_benchmarks_facts({"small": 1_000}))
    assert finding(mended, name).status == "pass", (before.fix, finding(mended, name))


@pytest.mark.parametrize("held_out_bytes", [8_000_000, 400_000])
def test_with_the_settings_of_the_remedy_enough_is_held_out(
    held_out_bytes: int, follow: Follow
) -> None:
    corpus = make_corpus_facts(text_bytes=400_000_000)
    shards = make_shards_facts(train_tokens=99_000_000, held_out_tokens=90_000)
    config = make_config(data={"held_out_bytes": held_out_bytes, "held_out_fraction": 0.001})
    evidence = make_evidence(corpus=corpus, shards=shards, config=config)
    before = finding(evidence, "held_out_tokens")
    assert before.fix
    data = follow(before.fix, config).data
    fraction = min(data.held_out_fraction, data.held_out_bytes / corpus.text_bytes)
    then = make_shards_facts(held_out_tokens=round(fraction * 99_090_000))
    assert finding(make_evidence(shards=then), "held_out_tokens").status == "pass"


def test_where_no_fraction_holds_out_enough_more_text_is_asked_for() -> None:
    shards = make_shards_facts(train_tokens=2_000_000, held_out_tokens=20_000)
    fix = finding(make_evidence(shards=shards), "held_out_tokens").fix
    assert fix and fix.startswith("add text")


@pytest.mark.parametrize("text_bytes", [100_000_000, 4_000_000_000])
def test_a_tokenizer_that_fits_badly_gets_more_text_or_more_tokens(
    text_bytes: int, follow: Follow
) -> None:
    corpus = make_corpus_facts(train_text_bytes=text_bytes)
    shards = make_shards_facts(held_out_text_bytes=5_000_000)
    evidence = make_evidence(corpus=corpus, shards=shards)
    fix = finding(evidence, "tokenizer_fit").fix
    assert fix
    before, after = evidence.config.tokenizer, follow(fix, evidence.config).tokenizer
    if text_bytes > before.train_bytes:
        assert before.train_bytes < after.train_bytes <= text_bytes
    else:
        assert after.vocab_size == 2 * before.vocab_size


@pytest.mark.parametrize(
    ("batch", "fitted", "wanted"), [(128, None, (64, 16)), (128, 32, (16, 16)), (128, 1, None)]
)
def test_memory_is_saved_by_half_of_what_was_measured(
    batch: int, fitted: int | None, wanted: tuple[int, int] | None, follow: Follow
) -> None:
    config = make_config(base={"micro_batch": batch}, sft={"sequences_per_step": 32})
    host = make_host_facts(free_memory_fraction=0.0, micro_batch=fitted)
    fix = finding(make_evidence(config=config, host=host), "memory_fit").fix
    assert fix
    after = follow(fix, config)
    if wanted:
        assert (after.base.micro_batch, after.sft.micro_batch) == wanted
        return
    assert after.runtime.activation_checkpointing
    last = finding(make_evidence(config=after, host=host), "memory_fit").fix
    assert last == "choose a smaller --scale, or a larger device with a new --out-dir"


def test_without_a_step_the_check_that_says_why_is_named() -> None:
    broken = make_host_facts(
        attention_problem="no kernel", tokens_per_second=None, measured_steps=0
    )
    fix = finding(make_evidence(host=broken), "run_forecast").fix
    assert fix and fix.startswith("mend attention_backend_runtime first")
    untimed = make_host_facts(tokens_per_second=None, measured_steps=0, free_memory_fraction=None)
    for name in ("run_forecast", "memory_fit"):
        fix = finding(make_evidence(host=untimed), name).fix
        assert fix and fix.startswith("mend training_rows or memory_fit first")


def test_what_a_source_lacks_decides_its_remedy() -> None:
    healthy = make_corpus_facts().sources
    cases = {
        remedies.LICENCE: change(healthy[0], licence=None),
        remedies.IMPORT_AGAIN: change(healthy[0], import_report=False),
        f"{remedies.LICENCE}; {remedies.IMPORT_AGAIN}": change(
            healthy[0], licence=None, import_report=False
        ),
    }
    for fix, source in cases.items():
        corpus = make_corpus_facts(sources=[source, healthy[1]])
        assert finding(make_evidence(corpus=corpus), "source_provenance").fix == fix


def test_more_rows_are_made_only_where_the_pack_has_rows_of_skills() -> None:
    few = {"sft_train_rows": 299}
    assert finding(make_evidence(rows=make_rows_facts(**few)), "sft_rows").fix == remedies.TASK_PACK
    own = make_rows_facts(**few, eval_by_skill={"chat": 700}, eval_items_by_skill={"chat": 700})
    fix = finding(make_evidence(rows=own), "sft_rows").fix
    assert fix == "add rows to the pack's chat file"


def test_the_pack_is_named_in_remedies_alone_and_quoted() -> None:
    lines = ["WARN PACK: a source of that name", f"    fix: {remedies.TASK_PACK}"]
    message, fix = remedies.with_pack(lines, Path("my packs/a.json"))
    assert message == lines[0]
    assert "--dataset-pack 'my packs/a.json' --sft-rows" in fix and "PACK" not in fix


# ---- the release gate ----------------------------------------------------------------------------


def test_a_lower_rate_is_lower_than_that_of_the_run(follow: Follow) -> None:
    config = make_config(base={"muon_lr": 0.004, "adamw_lr": 0.001})
    spiky = make_evidence(config=config, base=make_train_facts("base", spikes=4))
    broken = make_evidence(config=config, sft=make_train_facts("sft", losses_finite=False))
    for evidence, name, stage in ((spiky, "loss_spikes", "base"), (broken, "run_completed", "sft")):
        fix = rule(evidence, name).fix
        assert fix
        before, after = getattr(config, stage), getattr(follow(fix, config), stage)
        assert after.muon_lr == before.muon_lr / 2 and after.adamw_lr == before.adamw_lr / 2


def test_longer_training_is_longer(follow: Follow) -> None:
    config = make_config()
    weak = make_evidence(scores=make_scores_facts(base_bits_per_byte=1.46))
    fix = rule(weak, "base_beats_baseline").fix
    assert fix and follow(fix, config).base.steps == 2 * config.base.steps
    silent = make_evidence(
        scores=make_scores_facts(
            refusal=change(make_scores_facts().refusal, passed=1, fraction=1 / 70)
        )
    )
    fix = rule(silent, "refusal").fix
    assert fix and follow(fix.split("longer: ")[1], config).sft.steps == 2 * config.sft.steps


def test_a_baseline_of_few_tokens_is_counted_again_on_enough(follow: Follow) -> None:
    config = make_config(evals={"ngram_train_tokens": 1_000})
    evidence = make_evidence(config=config)
    before = rule(evidence, "base_beats_baseline")
    assert before.status == "block" and before.fix
    mended = replace(evidence, config=follow(before.fix, config))
    assert rule(mended, "base_beats_baseline").status == "pass"


def test_a_benchmark_that_is_missing_is_asked_for_and_one_without_a_score_is_scored() -> None:
    none = make_evidence(benchmarks=NO_BENCHMARKS, scores=make_scores_facts(external={}))
    fix = rule(none, "external_eval").fix
    assert fix and fix.startswith(remedies.EXTERNAL)
    unresolved = make_evidence(benchmarks=make_benchmarks_facts(unresolved=["piqa"]))
    assert rule(unresolved, "external_eval").fix == remedies.RESOLVE
    unscored = make_evidence(
        benchmarks=make_benchmarks_facts({"science_questions": 1_000, "other": 9})
    )
    assert rule(unscored, "external_eval").fix == remedies.SCORE_AGAIN


def test_what_the_gate_blocks_for_contamination_has_its_remedy_in_the_preflight() -> None:
    evidence = make_evidence(honesty=make_honesty_facts(sft_exact_prompts=1))
    evidence = replace(evidence, preflight_report=decide_preflight(evidence))
    blocked = rule(evidence, "data_honesty")
    assert blocked.status == "block" and blocked.fix == remedies.AS_PREFLIGHT_SAYS
    assert "contamination_sft_eval" in blocked.message
    assert finding(evidence, "contamination_sft_eval").fix == remedies.SHARED_QUESTIONS


def test_a_context_of_the_remedy_holds_the_longest_row(follow: Follow) -> None:
    conversations = make_conversations_facts(rows_over_context=29, longest_row_tokens=1_900)
    evidence = make_evidence(conversations=conversations)
    fix = finding(evidence, "sft_fits_context").fix
    assert fix
    assert follow(fix.split("context: ")[1], evidence.config).model.context == 2_048


def test_rows_that_the_trivial_answer_fails_mend_its_check() -> None:
    """A hundred rows more of the skill that the remedy names, none of which the answer passes."""
    passed = make_trivial_facts(identity=[make_trivial_score("identity", 105)])
    before = finding(make_evidence(trivial=passed), "eval_trivial_answers")
    assert before.status == "block" and before.fix
    assert before.fix.startswith("add rows of identity that the best trivial answer fails")
    more = make_trivial_score("identity", 105, all=make_rate(105, 275))
    mended = make_evidence(trivial=make_trivial_facts(identity=[more]))
    assert finding(mended, "eval_trivial_answers").status == "pass"


@pytest.mark.parametrize(("few", "status"), [(25, "warn"), (5, "block")])
def test_more_rows_of_the_named_skill_mend_the_power_of_the_gate(few: int, status: str) -> None:
    others = [cell for cell in make_eval_cells() if cell.skill != "choice"]

    def with_choice(rows: int) -> RunFacts:
        cells = [*others, *make_eval_cells({"choice": {"science": rows}})]
        return make_evidence(rows=make_rows_facts(eval_cells=cells))

    before = finding(with_choice(few), "gate_power")
    assert before.status == status and before.fix
    assert before.fix == "add rows of choice to the pack's eval file, of every level"
    assert finding(with_choice(400), "gate_power").status == "pass"
