"""Each check can pass, can refuse alone, and never takes missing evidence for a pass."""

from dataclasses import replace
from typing import Any

import pytest

from picochat.config import RunConfig
from picochat.facts import EvalCell, FindingRecord, RowSource, RunFacts, TokenizerFacts
from picochat.gate.preflight import CHECKS, decide_preflight, preflight_facts
from tests.builders import (
    EVAL_ROWS,
    NO_BENCHMARKS,
    SFT_ROWS,
    change,
    make_benchmarks_facts,
    make_config,
    make_conversations_facts,
    make_corpus_facts,
    make_eval_cells,
    make_evidence,
    make_honesty_facts,
    make_host_facts,
    make_rows_facts,
    make_shards_facts,
    make_trivial_facts,
    make_trivial_score,
)

UNPINNED = [change(source, pinned=False) for source in make_corpus_facts().sources]
UNLICENSED = [
    change(UNPINNED[0], pinned=True, licence=None, kind="files", import_report=False),
    *make_corpus_facts().sources,
]
SHORT_CORPUS = make_shards_facts(train_tokens=120_000_000)


def first_release(**base: Any) -> RunConfig:
    """A profile that does not judge the token budget, so that other plan checks can block alone."""
    return make_config(gate={"profile": "first_release"}, base=base)


def under(licence: str, **gate: Any) -> dict[str, Any]:
    """A corpus whose first source has another licence, and the licence of the model."""
    first, *others = make_corpus_facts().sources
    sources = [change(first, licence=licence), *others]
    return {"corpus": make_corpus_facts(sources=sources), "config": make_config(gate=gate)}


def with_choice_rows(count: int) -> list[EvalCell]:
    """The healthy cells with so many rows of choice."""
    few = make_eval_cells({"choice": {"science": count}})
    return [*(cell for cell in make_eval_cells() if cell.skill != "choice"), *few]


# name, status that it must cause, what alone differs from a healthy run
REFUSALS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("documents", "warn", {"corpus": make_corpus_facts(documents=99, near_duplicates=0)}),
    ("documents", "block", {"corpus": make_corpus_facts(documents=0, near_duplicates=0)}),
    ("source_provenance", "warn", {"corpus": make_corpus_facts(sources=UNLICENSED)}),
    ("source_provenance", "block", {"corpus": make_corpus_facts(sources=UNPINNED)}),
    ("licence_fit", "warn", under("cc-by-nc-4.0")),
    ("licence_fit", "warn", under("other", license="mit")),
    ("licence_fit", "block", under("cc-by-nc-4.0", license="mit")),
    ("licence_fit", "block", under("cc-by-nd-4.0")),
    (
        "licence_fit",
        "block",
        {
            "rows": make_rows_facts(sources=[RowSource(label="arc", licence="cc-by-sa-4.0")]),
            "config": make_config(gate={"license": "mit"}),
        },
    ),
    ("duplicate_documents", "warn", {"corpus": make_corpus_facts(exact_duplicates=31_000)}),
    ("duplicate_documents", "block", {"corpus": make_corpus_facts(exact_duplicates=101_000)}),
    ("near_duplicate_documents", "warn", {"corpus": make_corpus_facts(near_duplicates=50_000)}),
    ("near_duplicate_documents", "block", {"corpus": make_corpus_facts(near_duplicates=150_000)}),
    (
        "held_out_tokens",
        "warn",
        {"shards": make_shards_facts(held_out_tokens=999_999, held_out_text_bytes=4_000_000)},
    ),
    (
        "held_out_tokens",
        "block",
        {"shards": make_shards_facts(held_out_tokens=99_999, held_out_text_bytes=400_000)},
    ),
    ("tokenizer_roundtrip", "block", {"shards": make_shards_facts(roundtrip_failures=1)}),
    ("tokenizer_fit", "warn", {"shards": make_shards_facts(held_out_text_bytes=5_000_000)}),
    ("tokenizer_fit", "block", {"shards": make_shards_facts(held_out_text_bytes=2_900_000)}),
    ("release_token_budget", "block", {"config": make_config(base={"steps": 29_000})}),
    (
        "release_token_budget",
        "block",
        {"config": make_config(gate={"target_tokens_per_parameter": 19.0})},
    ),
    ("compute_optimal_horizon", "warn", {"config": make_config(base={"steps": 49_500})}),
    ("compute_optimal_horizon", "block", {"config": make_config(base={"steps": 98_500})}),
    (
        "corpus_model_fit",
        "warn",
        {
            "config": first_release(steps=18_000),
            "shards": make_shards_facts(train_tokens=400_000_000),
        },
    ),
    ("corpus_model_fit", "block", {"config": first_release(steps=18_000), "shards": SHORT_CORPUS}),
    (
        "base_exposure",
        "warn",
        {
            "config": make_config(base={"steps": 40_000}),
            "shards": make_shards_facts(train_tokens=600_000_000),
        },
    ),
    ("base_exposure", "warn", {"shards": make_shards_facts(train_tokens=9_000_000_000)}),
    (
        "base_exposure",
        "block",
        {
            "config": make_config(base={"steps": 40_000}),
            "shards": make_shards_facts(train_tokens=150_000_000),
        },
    ),
    ("training_rows", "block", {"shards": make_shards_facts(train_tokens=0)}),
    ("export_shape", "block", {"config": make_config(model={"head_width": 32})}),
    ("export_shape", "block", {"config": make_config(model={"centred": False})}),
    (
        "sft_category_balance",
        "warn",
        {"rows": make_rows_facts(sft_by_skill={**SFT_ROWS, "choice": 100})},
    ),
    (
        "sft_category_balance",
        "block",
        {"rows": make_rows_facts(sft_by_skill={**SFT_ROWS, "choice": 0})},
    ),
    (
        "sft_rows",
        "warn",
        {"rows": make_rows_facts(sft_train_rows=499), "config": make_config(sft={"steps": 200})},
    ),
    (
        "sft_rows",
        "block",
        {"rows": make_rows_facts(sft_train_rows=299), "config": make_config(sft={"steps": 200})},
    ),
    ("sft_duplicate_prompts", "warn", {"rows": make_rows_facts(repeated_sft_prompts=300)}),
    ("sft_duplicate_prompts", "block", {"rows": make_rows_facts(repeated_sft_prompts=701)}),
    ("sft_fits_context", "warn", {"conversations": make_conversations_facts(rows_over_context=1)}),
    (
        "sft_fits_context",
        "block",
        {"conversations": make_conversations_facts(rows_over_context=29)},
    ),
    ("sft_exposure", "warn", {"config": make_config(sft={"steps": 1_800})}),
    ("sft_exposure", "block", {"config": make_config(sft={"steps": 4_300})}),
    (
        "eval_skill_release_coverage",
        "warn",
        {"rows": make_rows_facts(eval_by_skill={**EVAL_ROWS, "choice": 49})},
    ),
    (
        "eval_skill_release_coverage",
        "block",
        {"rows": make_rows_facts(eval_by_skill={**EVAL_ROWS, "choice": 0})},
    ),
    (
        "eval_power",
        "warn",
        {"rows": make_rows_facts(eval_items_by_skill={**EVAL_ROWS, "choice": 30})},
    ),
    (
        "eval_power",
        "block",
        {"rows": make_rows_facts(eval_items_by_skill={**EVAL_ROWS, "choice": 15})},
    ),
    (
        "eval_fits_context",
        "warn",
        {"conversations": make_conversations_facts(eval_rows_over_context={"math": 1})},
    ),
    (
        "eval_fits_context",
        "block",
        {"conversations": make_conversations_facts(eval_rows_over_context={"math": 106})},
    ),
    ("eval_rules", "block", {"rows": make_rows_facts(eval_rows_without_rule=1)}),
    ("eval_independence", "block", {"rows": make_rows_facts(shared_items=1)}),
    (
        "eval_trivial_answers",
        "warn",
        {"trivial": make_trivial_facts(identity=[make_trivial_score("identity", 74)])},
    ),
    (
        "eval_trivial_answers",
        "block",
        {"trivial": make_trivial_facts(identity=[make_trivial_score("identity", 79)])},
    ),
    ("gate_power", "warn", {"rows": make_rows_facts(eval_cells=with_choice_rows(25))}),
    ("gate_power", "block", {"rows": make_rows_facts(eval_cells=with_choice_rows(5))}),
    (
        "external_benchmarks",
        "warn",
        {
            "benchmarks": make_benchmarks_facts({"small": 499}),
            "honesty": make_honesty_facts(
                external_rows={"small": 499}, external_contaminated={"small": 0}
            ),
        },
    ),
    (
        "external_benchmarks",
        "block",
        {
            "benchmarks": make_benchmarks_facts({"none": 0}),
            "honesty": make_honesty_facts(
                external_rows={"none": 0}, external_contaminated={"none": 0}
            ),
        },
    ),
    ("external_benchmarks", "block", {"benchmarks": make_benchmarks_facts(unresolved=["other"])}),
    ("contamination_sft_eval", "warn", {"honesty": make_honesty_facts(sft_largest_coverage=0.7)}),
    ("contamination_sft_eval", "block", {"honesty": make_honesty_facts(sft_exact_prompts=1)}),
    (
        "contamination_corpus_eval",
        "warn",
        {"honesty": make_honesty_facts(corpus_contaminated_by_skill={"math": 1})},
    ),
    (
        "contamination_corpus_eval",
        "block",
        {"honesty": make_honesty_facts(corpus_contaminated_by_skill={"math": 11})},
    ),
    (
        "contamination_external",
        "warn",
        {"honesty": make_honesty_facts(external_contaminated={"science_questions": 1})},
    ),
    (
        "contamination_external",
        "block",
        {"honesty": make_honesty_facts(external_contaminated={"science_questions": 101})},
    ),
    (
        "contamination_coverage",
        "block",
        {"honesty": make_honesty_facts(scanned_text_bytes=4_299_999_999)},
    ),
    ("attention_backend_runtime", "block", {"host": make_host_facts(attention_error=0.021)}),
    (
        "attention_backend_runtime",
        "block",
        {"host": make_host_facts(attention_error=None, attention_problem="no kernel")},
    ),
    ("memory_fit", "warn", {"host": make_host_facts(free_memory_fraction=0.09)}),
    ("memory_fit", "block", {"host": make_host_facts(free_memory_fraction=0.02)}),
    ("disk_space", "warn", {"host": make_host_facts(free_disk_bytes=12_000_000_000)}),
    ("disk_space", "block", {"host": make_host_facts(free_disk_bytes=10_000_000_000)}),
    ("baseline_memory", "warn", {"host": make_host_facts(memory_bytes=9_000_000_000)}),
    ("baseline_memory", "block", {"host": make_host_facts(memory_bytes=6_000_000_000)}),
    ("run_forecast", "unmeasured", {"host": make_host_facts(tokens_per_second=None)}),
    (
        "run_forecast",
        "warn",
        {"config": make_config(gate={"gpu_hour_usd": 3.0, "budget_usd": 2.0})},
    ),
    ("run_forecast", "unmeasured", {"config": make_config(gate={"budget_usd": 2.0})}),
)

# what cannot be measured any more when the first is missing altogether
IMPLIED = {
    ("documents", "block"): {"near_duplicate_documents"},
    ("eval_skill_release_coverage", "block"): {"eval_power"},
    ("external_benchmarks", "block"): {"contamination_external"},
    ("training_rows", "block"): {
        "release_token_budget",
        "compute_optimal_horizon",
        "corpus_model_fit",
        "base_exposure",
    },
}


def finding_of(evidence: RunFacts, name: str) -> FindingRecord:
    return next(finding for finding in decide_preflight(evidence).findings if finding.name == name)


def test_a_healthy_pack_reaches_ready() -> None:
    report = decide_preflight(make_evidence())
    assert report.status == "ready"
    assert {finding.status for finding in report.findings} == {"pass"}
    assert {finding.fix for finding in report.findings} == {None}


@pytest.mark.parametrize(
    ("name", "status", "changes"),
    REFUSALS,
    ids=[f"{name}-{status}" for name, status, _ in REFUSALS],
)
def test_each_check_can_refuse_alone(name: str, status: str, changes: dict[str, Any]) -> None:
    report = decide_preflight(make_evidence(**changes))
    as_bad = [finding for finding in report.findings if finding.status == status]
    worse = [finding for finding in report.findings if finding.status == "block"]
    assert name in [finding.name for finding in as_bad]
    if status == "block":
        assert {finding.name for finding in worse} - IMPLIED.get((name, status), set()) == {name}
        assert report.status == "blocked"
    else:
        assert not worse
        assert report.status == "warn"


@pytest.mark.parametrize(
    ("name", "status", "changes"),
    REFUSALS,
    ids=[f"{name}-{status}" for name, status, _ in REFUSALS],
)
def test_each_refusal_states_value_bound_and_remedy(
    name: str, status: str, changes: dict[str, Any]
) -> None:
    finding = finding_of(make_evidence(**changes), name)
    assert finding.fix
    assert finding.bound in finding.message
    if finding.measured is not None:
        assert finding.unit in finding.message
    else:
        assert "was not measured" in finding.message or "failed" in finding.message


def test_each_check_has_a_refusal_for_each_of_its_bounds() -> None:
    wanted = {(row.name, "warn") for row in CHECKS if row.warn and str(row.warn) != "any number"}
    wanted |= {(row.name, "block") for row in CHECKS if row.block}
    assert wanted <= {(name, status) for name, status, _ in REFUSALS}


FACTS = (
    "corpus",
    "exercises",
    "rows",
    "tokenizer",
    "shards",
    "conversations",
    "honesty",
    "trivial",
    "host",
)


def test_no_evidence_at_all_passes_nothing() -> None:
    report = decide_preflight(RunFacts(config=make_config()))
    assert report.status == "blocked"
    assert {finding.status for finding in report.findings} <= {"block", "unmeasured"}


@pytest.mark.parametrize("missing", FACTS)
def test_missing_facts_block_a_long_release_run(missing: str) -> None:
    healthy = make_evidence()
    report = decide_preflight(replace(healthy, **{missing: None}))
    assert report.status == "blocked"
    blocked = [finding for finding in report.findings if finding.status == "block"]
    assert all(finding.measured is None for finding in blocked)


@pytest.mark.parametrize("missing", FACTS)
def test_missing_facts_keep_a_research_run_from_ready(missing: str) -> None:
    healthy = make_evidence(config=make_config(gate={"profile": "research"}))
    report = decide_preflight(replace(healthy, **{missing: None}))
    assert report.status == "warn"


EMPTY = (
    (
        "documents",
        {"corpus": make_corpus_facts(sources=[], documents_read=0, documents=0, text_bytes=0)},
    ),
    ("source_provenance", {"corpus": make_corpus_facts(sources=[])}),
    ("licence_fit", {"corpus": make_corpus_facts(sources=[])}),
    ("duplicate_documents", {"corpus": make_corpus_facts(documents_read=0)}),
    ("near_duplicate_documents", {"corpus": make_corpus_facts(documents=0)}),
    ("held_out_tokens", {"shards": make_shards_facts(held_out_tokens=0)}),
    ("tokenizer_roundtrip", {"shards": make_shards_facts(roundtrip_documents=0)}),
    ("tokenizer_fit", {"shards": make_shards_facts(held_out_tokens=0)}),
    ("base_exposure", {"shards": make_shards_facts(train_tokens=0)}),
    ("release_token_budget", {"shards": make_shards_facts(train_tokens=0)}),
    ("compute_optimal_horizon", {"shards": make_shards_facts(train_tokens=0)}),
    ("corpus_model_fit", {"shards": make_shards_facts(train_tokens=0)}),
    ("training_rows", {"shards": None}),
    ("export_shape", {"shards": None}),
    ("sft_category_balance", {"rows": make_rows_facts(sft_by_skill={})}),
    ("sft_rows", {"rows": make_rows_facts(sft_train_rows=0)}),
    ("sft_duplicate_prompts", {"rows": make_rows_facts(sft_train_rows=0, sft_held_out_rows=0)}),
    ("sft_exposure", {"rows": make_rows_facts(sft_train_rows=0)}),
    ("sft_fits_context", {"conversations": make_conversations_facts(rows=0)}),
    ("eval_fits_context", {"rows": make_rows_facts(eval_rows=0, eval_by_skill={})}),
    ("eval_rules", {"rows": make_rows_facts(eval_rows=0, eval_by_skill={})}),
    ("eval_skill_release_coverage", {"rows": make_rows_facts(eval_rows=0, eval_by_skill={})}),
    ("eval_power", {"rows": make_rows_facts(eval_rows=0, eval_by_skill={})}),
    ("eval_independence", {"rows": make_rows_facts(eval_rows=0, eval_by_skill={})}),
    ("eval_trivial_answers", {"trivial": make_trivial_facts(math=[])}),
    ("gate_power", {"rows": make_rows_facts(eval_cells=[])}),
    ("gate_power", {"rows": make_rows_facts(eval_cells=with_choice_rows(0)[:-1])}),
    ("external_benchmarks", {"benchmarks": NO_BENCHMARKS}),
    ("contamination_external", {"benchmarks": NO_BENCHMARKS}),
    (
        "contamination_external",
        {"honesty": make_honesty_facts(external_rows={"science_questions": 999})},
    ),
    ("contamination_external", {"honesty": make_honesty_facts(external_rows={})}),
    ("contamination_external", {"honesty": make_honesty_facts(external_contaminated={})}),
    ("contamination_sft_eval", {"honesty": make_honesty_facts(eval_rows=0)}),
    ("contamination_corpus_eval", {"honesty": make_honesty_facts(eval_by_skill={"math": 210})}),
    ("contamination_coverage", {"corpus": make_corpus_facts(text_bytes=0)}),
    ("disk_space", {"host": make_host_facts(free_disk_bytes=0)}),
    ("baseline_memory", {"shards": None}),
    ("run_forecast", {"host": make_host_facts(tokens_per_second=float("nan"))}),
    ("attention_backend_runtime", {"host": make_host_facts(attention_error=float("nan"))}),
    ("memory_fit", {"host": make_host_facts(free_memory_fraction=float("nan"))}),
    ("contamination_sft_eval", {"honesty": make_honesty_facts(sft_largest_coverage=float("nan"))}),
)


def test_each_check_has_a_case_without_evidence() -> None:
    assert {row.name for row in CHECKS} - {name for name, _ in EMPTY} == set()


@pytest.mark.parametrize(("name", "changes"), EMPTY, ids=[name for name, _ in EMPTY])
def test_empty_and_nan_evidence_is_never_a_pass(name: str, changes: dict[str, Any]) -> None:
    assert finding_of(make_evidence(**changes), name).status != "pass"


def test_a_short_release_run_is_warned_and_not_blocked() -> None:
    config = make_config(base={"steps": 100})
    report = decide_preflight(make_evidence(config=config, rows=make_rows_facts(shared_items=3)))
    assert not report.long_run
    assert (
        finding_of(
            make_evidence(config=config, rows=make_rows_facts(shared_items=3)), "eval_independence"
        ).status
        == "warn"
    )
    assert report.status == "warn"


@pytest.mark.parametrize("profile", ["research", "first_release", "skill_release"])
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("documents", {"corpus": make_corpus_facts(documents=0)}),
        ("held_out_tokens", {"shards": make_shards_facts(held_out_tokens=0)}),
        ("tokenizer_roundtrip", {"shards": make_shards_facts(roundtrip_failures=1)}),
        ("training_rows", {"shards": make_shards_facts(train_tokens=512)}),
        (
            "eval_fits_context",
            {"conversations": make_conversations_facts(eval_rows_over_context={"math": 106})},
        ),
        ("sft_fits_context", {"conversations": make_conversations_facts(rows_over_context=2_800)}),
        (
            "attention_backend_runtime",
            {"host": make_host_facts(attention_problem="no kernel", attention_error=None)},
        ),
        ("memory_fit", {"host": make_host_facts(free_memory_fraction=0.0)}),
        ("disk_space", {"host": make_host_facts(free_disk_bytes=10)}),
        ("baseline_memory", {"host": make_host_facts(memory_bytes=10)}),
    ],
)
def test_what_makes_a_run_meaningless_blocks_every_profile_and_length(
    profile: str, name: str, changes: dict[str, Any]
) -> None:
    config = make_config(gate={"profile": profile}, base={"steps": 100})
    assert finding_of(make_evidence(config=config, **changes), name).status == "block"


def test_first_release_judges_identity_refusal_and_choice_alone() -> None:
    config = make_config(gate={"profile": "first_release"})
    without_math = make_rows_facts(
        sft_by_skill={**SFT_ROWS, "math": 0, "spelling": 0},
        eval_by_skill={**EVAL_ROWS, "math": 0, "spelling": 0},
    )
    assert decide_preflight(make_evidence(config=config, rows=without_math)).status == "ready"
    without_choice = make_rows_facts(sft_by_skill={**SFT_ROWS, "choice": 0})
    assert decide_preflight(make_evidence(config=config, rows=without_choice)).status == "blocked"


def test_a_first_release_claims_nothing_about_benchmarks() -> None:
    config = make_config(gate={"profile": "first_release"})
    report = decide_preflight(make_evidence(config=config, benchmarks=NO_BENCHMARKS))
    assert report.status == "ready"
    assert not [finding.name for finding in report.findings if "external" in finding.name]


def test_an_unresolved_benchmark_is_named_with_what_to_do() -> None:
    finding = finding_of(
        make_evidence(benchmarks=make_benchmarks_facts(unresolved=["hellaswag", "piqa"])),
        "external_benchmarks",
    )
    assert "(hellaswag, piqa)" in finding.message
    assert finding.fix and "with a network" in finding.fix and "NAME=PATH" in finding.fix


def test_dropping_near_duplicates_mends_their_check() -> None:
    many = make_corpus_facts(near_duplicates=150_000)
    config = make_config(data={"drop_near_duplicates": True})
    assert (
        finding_of(make_evidence(config=config, corpus=many), "near_duplicate_documents").status
        == "pass"
    )


def test_a_small_vocabulary_is_not_held_to_the_fit_of_large_ones() -> None:
    poor_fit = make_shards_facts(held_out_text_bytes=5_000_000)
    small = TokenizerFacts(vocab_size=2048, merges=1_780)
    assert (
        finding_of(make_evidence(tokenizer=small, shards=poor_fit), "tokenizer_fit").status
        == "pass"
    )


def test_host_measurements_stay_out_of_the_facts() -> None:
    fast, slow = (
        make_host_facts(tokens_per_second=9e5),
        make_host_facts(tokens_per_second=None, free_memory_fraction=0.01),
    )
    reports = [decide_preflight(make_evidence(host=host)) for host in (fast, slow)]
    assert [report.status for report in reports] == ["ready", "blocked"]
    assert preflight_facts(reports[0]) == preflight_facts(reports[1])
    assert not any(finding.on_host for finding in preflight_facts(reports[0]).findings)


def test_the_forecast_names_its_parts_and_their_sum() -> None:
    report = decide_preflight(make_evidence(config=make_config(gate={"gpu_hour_usd": 3.0})))
    assert report.plan.hours == pytest.approx(sum(report.plan.hours_of.values()))
    assert set(report.plan.hours_of) == {
        "base",
        "held-out evaluations",
        "SFT",
        "checkpoints",
        "compile",
    }
    assert report.plan.hours_of["base"] == pytest.approx(33_000 * 65_536 / 560_000 / 3600)
    assert report.plan.usd == pytest.approx(3.0 * (report.plan.hours or 0))


def test_the_forecast_counts_sft_rows_as_long_as_they_can_get() -> None:
    longest = make_conversations_facts(longest_row_tokens=128)
    hours = decide_preflight(
        make_evidence(config=make_config(), conversations=longest)
    ).plan.hours_of
    assert hours["SFT"] == pytest.approx(400 * 32 * 128 / 560_000 / 3600)
    beyond = make_conversations_facts(longest_row_tokens=10_000)
    hours = decide_preflight(
        make_evidence(config=make_config(), conversations=beyond)
    ).plan.hours_of
    assert hours["SFT"] == pytest.approx(400 * 32 * 512 / 560_000 / 3600), (
        "rows beyond the context are left out"
    )


def test_the_runbooks_names_are_the_tables_names() -> None:
    runbook = (
        "release_token_budget compute_optimal_horizon corpus_model_fit base_exposure"
        " sft_category_balance"
    )
    runbook += " eval_skill_release_coverage attention_backend_runtime"
    assert set(runbook.split()) <= {row.name for row in CHECKS}
