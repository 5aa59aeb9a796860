"""Each rule can pass, can refuse alone, and never takes missing evidence for a pass."""

from pathlib import Path
from typing import Any

import pytest

from picochat.core.publish import Artifact, publish
from picochat.core.records import Record, read_json, write_json
from picochat.facts import (
    ExternalScore,
    FindingRecord,
    GateReport,
    Rate,
    RunFacts,
    ScoresFacts,
    TrivialFacts,
)
from picochat.gate import measures
from picochat.gate.preflight import decide_preflight, preflight_facts
from picochat.gate.release import RULES, decide_release, run_gate, weakest_skill
from picochat.run.graph import read_facts
from tests.builders import (
    EVAL_ROWS,
    NO_BENCHMARKS,
    change,
    make_benchmarks_facts,
    make_config,
    make_evidence,
    make_honesty_facts,
    make_host_facts,
    make_parity_facts,
    make_rate,
    make_rows_facts,
    make_scores_facts,
    make_train_facts,
    make_trivial_facts,
    make_trivial_score,
)

NO_RATE = make_rate(0, 0)


def with_skill(skill: str, **changes: Any) -> ScoresFacts:
    healthy = make_scores_facts()
    return change(
        healthy, skills={**healthy.skills, skill: change(healthy.skills[skill], **changes)}
    )


def with_clean(skill: str, passed: int, count: int) -> ScoresFacts:
    return with_skill(skill, clean=make_rate(passed, count))


BLOCKED_PREFLIGHT = decide_preflight(make_evidence(rows=make_rows_facts(shared_items=1)))
OUT_OF_MEMORY = decide_preflight(make_evidence(host=make_host_facts(free_memory_fraction=0.0)))
HEALTHY_PREFLIGHT = decide_preflight(make_evidence())
UNSCANNED = change(
    HEALTHY_PREFLIGHT,
    findings=[
        finding
        for finding in HEALTHY_PREFLIGHT.findings
        if finding.name != "contamination_coverage"
    ],
)
UNMEASURED = ExternalScore(all=make_rate(0, 0), clean=make_rate(0, 0), chance=0.25)
AT_CHANCE = ExternalScore(all=make_rate(255, 1_000), clean=make_rate(255, 1_000), chance=0.25)


def as_good_as(skill: str) -> TrivialFacts:
    """A trivial answerer at the 95% lower end of the healthy pass rate of a skill."""
    low = make_scores_facts().skills[skill].clean.low or 0.0
    rate = Rate(passed=1, count=1, fraction=low, low=low, high=low)
    return make_trivial_facts(**{skill: [make_trivial_score(skill, 1, all=rate)]})


# name, status that it must cause, what alone differs from a healthy run
REFUSALS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("preflight", "block", {"preflight_report": BLOCKED_PREFLIGHT}),
    ("preflight", "block", {"preflight_report": OUT_OF_MEMORY}),
    ("data_honesty", "block", {"honesty": make_honesty_facts(sft_exact_prompts=1)}),
    ("data_honesty", "block", {"preflight_report": UNSCANNED}),
    ("run_completed", "block", {"base": make_train_facts("base", steps=32_999)}),
    ("run_completed", "block", {"sft": make_train_facts("sft", losses_finite=False)}),
    ("run_completed", "block", {"sft": make_train_facts("sft", final_loss=None)}),
    ("run_completed", "block", {"shipped_checkpoint": "6" * 64}),
    ("evidence_untouched", "block", {"changed_files": 1}),
    ("loss_spikes", "warn", {"base": make_train_facts("base", spikes=4)}),
    ("base_beats_baseline", "block", {"scores": make_scores_facts(base_bits_per_byte=1.46)}),
    ("sft_fit", "block", {"scores": make_scores_facts(sft_fit=make_rate(139, 200))}),
    (
        "sft_heldout_fit",
        "block",
        {"scores": make_scores_facts(sft_held_out_fit=make_rate(99, 200))},
    ),
    (
        "skill_release_coverage",
        "block",
        {
            "rows": make_rows_facts(
                eval_by_skill={k: v for k, v in EVAL_ROWS.items() if k != "math"}
            )
        },
    ),
    ("skill_release_eval_identity", "block", {"scores": with_clean("identity", 64, 100)}),
    ("skill_release_eval_refusal", "block", {"scores": with_clean("refusal", 74, 100)}),
    ("skill_release_eval_choice", "block", {"scores": with_clean("choice", 64, 100)}),
    ("skill_release_eval_math", "block", {"scores": with_clean("math", 29, 100)}),
    ("skill_release_eval_spelling", "block", {"scores": with_clean("spelling", 39, 100)}),
    *(
        (f"skill_release_eval_{skill}", "block", {"trivial": as_good_as(skill)})
        for skill in EVAL_ROWS
    ),
    (
        "skill_release_stage_identity",
        "block",
        {"scores": with_skill("identity", levels={"a": make_rate(54, 100)})},
    ),
    (
        "skill_release_stage_refusal",
        "block",
        {"scores": with_skill("refusal", levels={"a": make_rate(49, 100)})},
    ),
    (
        "skill_release_stage_math",
        "block",
        {"scores": with_skill("math", levels={"a": make_rate(19, 100), "b": make_rate(9, 10)})},
    ),
    (
        "skill_release_stage_spelling",
        "block",
        {"scores": with_skill("spelling", levels={"a": make_rate(29, 100)})},
    ),
    (
        "choice_adjusted_accuracy",
        "block",
        {"scores": with_skill("choice", chance=0.5, clean=make_rate(74, 100))},
    ),
    (
        "choice_adjusted_accuracy",
        "block",
        {"scores": with_skill("choice", chance=0.5, clean=make_rate(6, 8))},
    ),
    ("refusal", "block", {"scores": make_scores_facts(refusal=make_rate(74, 100))}),
    ("over_refusal", "block", {"scores": make_scores_facts(over_refusal=make_rate(49, 100))}),
    ("choice_listed", "warn", {"scores": make_scores_facts(choice_listed=make_rate(39, 100))}),
    ("prompt_echo", "block", {"scores": make_scores_facts(prompt_echo=make_rate(6, 100))}),
    (
        "unsupported_claims",
        "warn",
        {"scores": make_scores_facts(unsupported_claims=make_rate(6, 100))},
    ),
    ("verbatim_memorization", "warn", {"scores": make_scores_facts(memorized=make_rate(2, 100))}),
    (
        "external_eval",
        "block",
        {"scores": make_scores_facts(external={"science_questions": AT_CHANCE})},
    ),
    (
        "external_eval",
        "block",
        {
            "benchmarks": make_benchmarks_facts({"science_questions": 1_000, "other": 600}),
            "honesty": make_honesty_facts(
                external_rows={"science_questions": 1_000, "other": 600},
                external_contaminated={"science_questions": 0, "other": 0},
            ),
        },
    ),
    ("external_eval", "block", {"benchmarks": make_benchmarks_facts(unresolved=["other"])}),
    ("export_parity", "block", {"parity": make_parity_facts(largest_relative_difference=2e-4)}),
    ("export_reading", "block", {"parity": make_parity_facts(other_differences=1)}),
)
IDS = [f"{name}-{status}" for name, status, _ in REFUSALS]


def finding_of(evidence: RunFacts, name: str) -> FindingRecord:
    return next(finding for finding in decide_release(evidence).findings if finding.name == name)


OWN_ROWS: dict[str, Any] = {
    "rows": make_rows_facts(
        sft_by_skill={"other": 2_800},
        eval_by_skill={"other": 700},
        eval_items_by_skill={"other": 700},
    ),
    "scores": make_scores_facts(
        skills={},
        sft_fit=make_rate(0, 0),
        sft_held_out_fit=make_rate(0, 0),
        refusal=make_rate(0, 0),
        over_refusal=make_rate(0, 0),
        unsupported_claims=make_rate(0, 0),
    ),
    "honesty": make_honesty_facts(
        eval_by_skill={"other": 700}, corpus_contaminated_by_skill={"other": 0}
    ),
}


@pytest.mark.parametrize("raised", [{"spike_factor": 50.0}, {"spike_nats": 9.0}])
@pytest.mark.parametrize("stage", ["base", "sft"])
def test_spikes_that_a_setting_hides_are_not_measured(stage: str, raised: dict[str, float]) -> None:
    run = make_evidence(config=make_config("h100-100m", **{stage: raised}))
    finding = finding_of(run, "loss_spikes")
    assert (finding.status, finding.measured) == ("unmeasured", None)
    lowered = make_evidence(config=make_config("h100-100m", **{stage: {"spike_factor": 1.5}}))
    assert finding_of(lowered, "loss_spikes").status == "pass"


def test_research_on_own_rows_is_judged_without_the_skills() -> None:
    run = make_evidence(**OWN_ROWS, config=make_config(gate={"profile": "research"}))
    report = decide_release(run)
    assert report.status == "approved", [f for f in report.findings if f.status != "pass"]
    names = {finding.name for finding in report.findings}
    assert not [name for name in names if name.startswith("skill_release") or "refusal" in name]


@pytest.mark.parametrize("profile", ["first_release", "skill_release"])
def test_a_release_of_own_rows_is_blocked_by_one_rule_that_names_the_skills(profile: str) -> None:
    run = make_evidence(**OWN_ROWS, config=make_config(gate={"profile": profile}))
    report = decide_release(run)
    finding = next(f for f in report.findings if f.name == "skill_release_coverage")
    assert (report.status, finding.status) == ("blocked", "block")
    assert "the pack has none of" in finding.message and "identity" in finding.message
    assert finding.fix and "picochat data task-pack" in finding.fix


@pytest.mark.parametrize("profile", ["first_release", "skill_release"])
@pytest.mark.parametrize("skill", measures.FIRST_RELEASE_SKILLS)
def test_leaving_a_skill_out_of_the_pack_turns_no_block_into_an_approval(
    skill: str, profile: str
) -> None:
    rows = {name: count for name, count in EVAL_ROWS.items() if name != skill}
    healthy = make_scores_facts()
    run = make_evidence(
        rows=make_rows_facts(eval_by_skill=rows),
        scores=change(healthy, skills={k: v for k, v in healthy.skills.items() if k != skill}),
        config=make_config(gate={"profile": profile}),
    )
    assert decide_release(run).status == "blocked"


def test_a_healthy_release_is_approved() -> None:
    report = decide_release(make_evidence())
    assert report.status == "approved"
    assert {finding.status for finding in report.findings} == {"pass"}


@pytest.mark.parametrize(("name", "status", "changes"), REFUSALS, ids=IDS)
def test_each_rule_can_refuse_alone(name: str, status: str, changes: dict[str, Any]) -> None:
    report = decide_release(make_evidence(**changes))
    assert [
        (finding.name, finding.status) for finding in report.findings if finding.status != "pass"
    ] == [(name, status)]
    assert report.status == ("blocked" if status == "block" else "warn")


@pytest.mark.parametrize(("name", "status", "changes"), REFUSALS, ids=IDS)
def test_each_refusal_states_value_bound_and_remedy(
    name: str, status: str, changes: dict[str, Any]
) -> None:
    finding = finding_of(make_evidence(**changes), name)
    assert finding.status == status
    assert finding.fix
    assert finding.bound in finding.message
    assert finding.unit in finding.message or "was not measured" in finding.message


def test_each_rule_has_a_refusal_for_each_of_its_bounds() -> None:
    wanted = {(row.name, "warn") for row in RULES if row.warn} | {
        (row.name, "block") for row in RULES if row.block
    }
    assert wanted == {(name, status) for name, status, _ in REFUSALS}


RATES = {
    "sft_fit": "sft_fit",
    "sft_held_out_fit": "sft_heldout_fit",
    "refusal": "refusal",
    "over_refusal": "over_refusal",
    "prompt_echo": "prompt_echo",
    "unsupported_claims": "unsupported_claims",
    "memorized": "verbatim_memorization",
}


@pytest.mark.parametrize(("fact", "name"), RATES.items())
def test_a_rate_that_counted_nothing_is_never_a_pass(fact: str, name: str) -> None:
    assert finding_of(make_evidence(scores=make_scores_facts(**{fact: NO_RATE})), name).status in (
        "block",
        "unmeasured",
    )


@pytest.mark.parametrize("skill", EVAL_ROWS)
def test_a_skill_without_clean_rows_blocks_its_release(skill: str) -> None:
    finding = finding_of(
        make_evidence(scores=with_skill(skill, clean=NO_RATE)), f"skill_release_eval_{skill}"
    )
    assert (finding.status, finding.measured) == ("block", None)
    assert "was not measured" in finding.message


@pytest.mark.parametrize(
    "missing",
    [
        "preflight_report",
        "honesty",
        "trivial",
        "base",
        "sft",
        "scores",
        "parity",
        "changed_files",
        "shipped_checkpoint",
    ],
)
def test_missing_evidence_blocks_a_release(missing: str) -> None:
    assert decide_release(make_evidence(**{missing: None})).status == "blocked"


def test_no_evidence_at_all_passes_nothing() -> None:
    report = decide_release(RunFacts(config=make_config()))
    assert report.status == "blocked"
    assert {finding.status for finding in report.findings} <= {"block", "unmeasured"}


EMPTY: tuple[tuple[str, dict[str, Any]], ...] = (
    ("external_eval", {"scores": make_scores_facts(external={})}),
    ("external_eval", {"benchmarks": NO_BENCHMARKS}),
    ("external_eval", {"scores": make_scores_facts(external={"science_questions": UNMEASURED})}),
    ("export_parity", {"parity": make_parity_facts(reader=None)}),
    ("export_reading", {"parity": make_parity_facts(other_differences=None)}),
    ("export_parity", {"parity": make_parity_facts(largest_relative_difference=float("nan"))}),
    ("base_beats_baseline", {"scores": make_scores_facts(ngram_bits_per_byte=None)}),
    ("base_beats_baseline", {"scores": make_scores_facts(base_bits_per_byte=float("nan"))}),
    ("base_beats_baseline", {"config": make_config(evals={"ngram_train_tokens": 10})}),
    ("skill_release_stage_math", {"scores": with_skill("math", levels={})}),
    ("skill_release_stage_math", {"scores": with_skill("math", levels={"few": make_rate(39, 39)})}),
    ("skill_release_eval_math", {"scores": make_scores_facts(skills={})}),
    ("skill_release_eval_math", {"trivial": make_trivial_facts(math=[])}),
    ("choice_adjusted_accuracy", {"scores": make_scores_facts(skills={})}),
    ("preflight", {"preflight_report": change(BLOCKED_PREFLIGHT, findings=[], status="ready")}),
    ("run_completed", {"base": make_train_facts("base", final_loss=float("inf"))}),
)


@pytest.mark.parametrize(("name", "changes"), EMPTY)
def test_empty_and_nan_evidence_is_never_a_pass(name: str, changes: dict[str, Any]) -> None:
    assert finding_of(make_evidence(**changes), name).status == "block"


def test_the_gate_is_not_softened_for_short_runs() -> None:
    config = make_config(base={"steps": 100})
    assert (
        decide_release(make_evidence(config=config, scores=with_clean("math", 0, 100))).status
        == "blocked"
    )


def test_research_blocks_only_a_run_that_did_not_happen_as_recorded() -> None:
    config = make_config(gate={"profile": "research"})
    blocking = {
        name
        for name, _, changes in REFUSALS
        if any(
            f.status == "block"
            for f in decide_release(make_evidence(config=config, **changes)).findings
        )
    }
    assert blocking == {"preflight", "run_completed", "evidence_untouched"}


def test_a_contaminated_research_run_is_warned() -> None:
    config = make_config(gate={"profile": "research"})
    evidence = make_evidence(config=config, honesty=make_honesty_facts(sft_exact_prompts=1))
    assert finding_of(evidence, "data_honesty").status == "warn"


def test_a_first_release_is_approved_without_benchmarks() -> None:
    config = make_config(gate={"profile": "first_release"})
    none = {"benchmarks": NO_BENCHMARKS, "scores": make_scores_facts(external={})}
    assert decide_release(make_evidence(config=config, **none)).status == "approved"


def test_first_release_claims_nothing_about_math_and_spelling() -> None:
    config = make_config(gate={"profile": "first_release"})
    names = {finding.name for finding in decide_release(make_evidence(config=config)).findings}
    assert not {name for name in names if "math" in name or "spelling" in name}
    no_math = with_clean("math", 0, 100)
    assert decide_release(make_evidence(config=config, scores=no_math)).status == "approved"
    assert (
        decide_release(make_evidence(config=config, scores=with_clean("identity", 0, 100))).status
        == "blocked"
    )


def test_the_weakest_skill_is_the_one_closest_to_its_bound() -> None:
    assert weakest_skill(make_evidence(scores=with_clean("math", 31, 100))) == "math"
    assert weakest_skill(make_evidence(scores=None)) is None


def test_every_rate_stands_with_its_count_and_interval() -> None:
    finding = finding_of(
        make_evidence(scores=with_clean("math", 29, 100)), "skill_release_eval_math"
    )
    assert "(29 of 100; 95% 0.210 to 0.385)" in finding.message


# ---- the stage on published artifacts ------------------------------------------------------------


def published(
    root: Path, kind: str, facts: Record, files: dict[str, object] | None = None
) -> Artifact:
    with publish(root / kind, kind, "key", {}) as staging:
        for name, value in (files or {"payload.json": kind}).items():
            write_json(staging.path(name), value)
        staging.facts = facts.model_dump(mode="json")
    assert staging.artifact
    return staging.artifact


def gate_inputs(root: Path) -> dict[str, Artifact]:
    evidence = make_evidence()
    assert evidence.preflight_report
    assert evidence.honesty
    assert evidence.trivial
    assert evidence.rows
    assert evidence.benchmarks
    assert evidence.parity
    assert evidence.base
    assert evidence.sft
    sft = published(root, "sft", evidence.sft)

    return {
        "preflight": published(
            root,
            "preflight",
            preflight_facts(evidence.preflight_report),
            {"preflight.json": evidence.preflight_report},
        ),
        "honesty": published(root, "honesty", evidence.honesty),
        "trivial": published(root, "trivial", evidence.trivial),
        "base": published(root, "base", evidence.base),
        "sft": sft,
        "scores": published(root, "scores", make_scores_facts(scored_checkpoint=sft.digest)),
        "parity": published(root, "parity", evidence.parity),
        "rows": published(root, "rows", evidence.rows),
        "benchmarks": published(root, "benchmarks", evidence.benchmarks),
    }


def gated(root: Path, inputs: dict[str, Artifact]) -> GateReport:
    with publish(root / "gate", "gate", "key", {}) as staging:
        run_gate(read_facts(make_config(), inputs), staging)
    assert staging.artifact
    return GateReport.model_validate_json((staging.artifact.path("gate.json")).read_bytes())


def test_the_stage_approves_untouched_evidence(tmp_path: Path) -> None:
    inputs = gate_inputs(tmp_path)
    report = gated(tmp_path, inputs)
    assert report.status == "approved"
    facts = read_json(tmp_path / "gate" / "manifest.json")["facts"]
    assert facts["status"] == "approved"
    assert (tmp_path / "gate" / "gate.md").read_text().startswith("# Release gate: approved")


@pytest.mark.parametrize(
    "kind", ["preflight", "honesty", "trivial", "base", "sft", "scores", "parity", "rows"]
)
def test_the_stage_blocks_where_one_file_was_changed(tmp_path: Path, kind: str) -> None:
    inputs = gate_inputs(tmp_path)
    changed = next(path for path in inputs[kind].place.iterdir() if path.name != "manifest.json")
    changed.write_bytes(changed.read_bytes() + b"\n")
    blocked = [
        finding.name for finding in gated(tmp_path, inputs).findings if finding.status == "block"
    ]
    assert blocked == ["evidence_untouched"]


def test_the_same_evidence_gives_the_same_gate_digest(tmp_path: Path) -> None:
    inputs = gate_inputs(tmp_path)
    digests = []
    for folder in ("first", "second"):
        with publish(tmp_path / folder, "gate", "key", {}) as staging:
            run_gate(read_facts(make_config(), inputs), staging)
        assert staging.artifact
        digests.append(staging.artifact.digest)
    assert digests[0] == digests[1]
