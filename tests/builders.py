"""Builders: healthy facts, evidence and whole run folders, from which a test changes the one thing
that it is about.

`make_evidence()` is what a good h100-100m run of the skill_release profile states: every check
passes on it. Facts are changed with `change(facts, name=value)`. `make_run` (tests/run_builder.py)
publishes a whole run folder of such facts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from picochat.config import RunConfig
from picochat.core.records import Record
from picochat.data.benchmarks.stage import BenchmarkItem
from picochat.evals.eval_records import EvaluatedItem
from picochat.evals.intervals import rate
from picochat.export.export_record import ParityReport
from picochat.facts import (
    BenchmarkFacts,
    BenchmarksFacts,
    ConversationsFacts,
    CorpusFacts,
    EvalCell,
    ExercisesFacts,
    ExternalScore,
    HonestyFacts,
    HostFacts,
    ParityFacts,
    Rate,
    RowsFacts,
    RowsRead,
    RunFacts,
    ScoresFacts,
    ShardsFacts,
    SkillScore,
    SourceFacts,
    TokenizerFacts,
    TrainFacts,
    TrivialFacts,
    TrivialScore,
)
from picochat.gate.preflight import decide_preflight
from picochat.scales import find_scale
from picochat.skills.skill_table import judged

R = TypeVar("R", bound=Record)
SHIPPED = "5" * 64
EVAL_ROWS = {"identity": 121, "refusal": 184, "choice": 172, "math": 121, "spelling": 102}
SFT_ROWS = {"identity": 592, "refusal": 727, "choice": 269, "math": 673, "spelling": 539}
STAGES = {
    "identity": {"open": 41, "are_you": 40, "can_you": 40},
    "refusal": {"unsafe": 41, "private": 41, "unknowable": 40, "harmless": 62},
    "choice": {"language": 76, "science": 47, "world": 49},
    "math": {"plain": 41, "carry": 40, "multiply": 40},
    "spelling": {"letter": 50, "whole": 52},
}
for added in (skill for skill, _ in judged() if skill.name not in EVAL_ROWS):
    # A judged skill that is new in SKILLS is healthy as well.
    EVAL_ROWS[added.name], SFT_ROWS[added.name] = 100, 400
    STAGES[added.name] = dict.fromkeys(added.levels, 100)
CHANCE = {skill.name: skill.chance for skill, _ in judged()}


def change(record: R, **changes: Any) -> R:
    """The record with other values, checked like one that was read from a file."""
    return type(record).model_validate(
        {**{name: getattr(record, name) for name in type(record).model_fields}, **changes}
    )


def make_config(scale: str = "h100-100m", **sections: dict[str, Any]) -> RunConfig:
    """A scale's configuration with some sections' values replaced: `make_config(gate={"profile":
    "research"})`.
    """
    config = find_scale(scale).config
    return change(
        config,
        **{name: change(getattr(config, name), **values) for name, values in sections.items()},
    )


def make_rate(passed: int, count: int) -> Rate:
    return rate(passed, count)


def make_corpus_facts(**changes: Any) -> CorpusFacts:
    sources = [
        SourceFacts(
            label=label,
            kind="hub",
            documents=documents,
            text_bytes=documents * 4_300,
            pinned=True,
            licence="odc-by",
            import_report=True,
        )
        for label, documents in (("fineweb-edu-dedup", 800_000), ("cosmopedia-v2", 195_000))
    ]
    facts = CorpusFacts(
        documents_read=1_000_000,
        documents=995_000,
        train_documents=993_100,
        held_out_documents=1_900,
        text_bytes=4_278_500_000,
        train_text_bytes=4_270_500_000,
        held_out_text_bytes=8_000_000,
        repeated_ids=0,
        exact_duplicates=4_000,
        near_duplicates=9_000,
        dropped={"exact_duplicate": 4_000, "short": 1_000},
        duplicates=[],
        held_out_fraction=0.00187,
        sources=sources,
    )
    return change(facts, **changes)


def make_exercises_facts(**changes: Any) -> ExercisesFacts:
    return change(
        ExercisesFacts(fraction_asked=0.01, documents=17_000, text_bytes=21_500_000, words=14_000),
        **changes,
    )


def own_rows(count: int) -> RowsRead:
    """A file of so many rows in picochat's own form, all of them used."""
    return RowsRead(forms={"own": count}, left_out={}, dropped_keys={})


def make_rows_facts(**changes: Any) -> RowsFacts:
    facts = RowsFacts(
        chat_read=own_rows(2_800),
        eval_read=own_rows(700),
        sft_turns=2_800,
        eval_scored_by={"exact answer": 700},
        sft_train_rows=2_240,
        sft_held_out_rows=560,
        eval_rows=700,
        sft_by_skill=SFT_ROWS,
        eval_by_skill=EVAL_ROWS,
        eval_items_by_skill=EVAL_ROWS,
        repeated_sft_prompts=0,
        eval_rows_without_rule=0,
        shared_items=0,
        eval_cells=make_eval_cells(),
    )
    return change(facts, **changes)


def make_eval_cells(rows: dict[str, dict[str, int]] | None = None) -> list[EvalCell]:
    """Eval rows of different items by skill and level; `un...` levels are those to refuse.

    Without `rows`, ten times the healthy ones: enough that luck decides no rule.
    """
    counts = rows or {
        skill: {level: 10 * count for level, count in levels.items()}
        for skill, levels in STAGES.items()
    }
    return [
        EvalCell(
            skill=skill,
            level=level,
            answerable=not level.startswith("un"),
            rows=count,
            items={"1": count},
        )
        for skill, levels in counts.items()
        for level, count in levels.items()
    ]


def make_trivial_score(skill: str, passed: int, **changes: Any) -> TrivialScore:
    """A trivial answerer that passes so many of a skill's rows, spread evenly over their parts."""
    rows = EVAL_ROWS[skill]
    levels = {
        level: make_rate(passed * count // rows, count) for level, count in STAGES[skill].items()
    }
    score = TrivialScore(
        answerer="constant line",
        line="I am Picochat.",
        all=make_rate(passed, rows),
        levels=levels,
        unanswerable=make_rate(0, 0),
        answerable=make_rate(passed, rows),
    )
    return change(score, **changes)


def make_trivial_facts(**scores: list[TrivialScore]) -> TrivialFacts:
    """Trivial answerers that pass a tenth of the rows; `scores` replaces those of a skill."""
    healthy = {skill: [make_trivial_score(skill, rows // 10)] for skill, rows in EVAL_ROWS.items()}
    return TrivialFacts(skills={**healthy, **scores}, text_bytes=8_000_000, documents=1_860)


def make_benchmark_facts(**changes: Any) -> BenchmarkFacts:
    facts = BenchmarkFacts(
        layout="arc",
        read_by="acc_norm",
        dataset="someone/questions",
        config=None,
        split="test",
        revision="0123abcd" * 5,
        licence="cc-by-sa-4.0",
        files={"test.parquet": "6" * 64},
        rows_read=1_000,
        unusable={},
        usable_rows=1_000,
        rows=1_000,
        chance=0.25,
    )
    return change(facts, **changes)


def make_benchmark_items(
    name: str = "science_questions", count: int = 1_000
) -> list[BenchmarkItem]:
    """Items of four options of eight characters, the first one correct."""
    digests = ["7" * 64] * count
    return [
        BenchmarkItem(
            id=f"{name}-{number:05d}", benchmark=name, digest=digest, characters=[8] * 4, correct=0
        )
        for number, digest in enumerate(digests)
    ]


def make_external_answers(items: list[BenchmarkItem], right: int) -> list[EvaluatedItem]:
    """The first `right` items answered right by the chat model, and none by the base model."""
    return [
        EvaluatedItem(
            id=item.id,
            benchmark=item.benchmark,
            log_likelihoods=[-1.0 if number < right else -9.0, -2.0, -3.0, -4.0],
            base_log_likelihoods=[-9.0, -2.0, -3.0, -4.0],
            cut=False,
            too_long=False,
        )
        for number, item in enumerate(items)
    ]


def make_benchmarks_facts(
    rows: dict[str, int] | None = None, unresolved: list[str] | None = None
) -> BenchmarksFacts:
    """Benchmarks by name with that many rows; without any, the healthy one."""
    counts = rows or {"science_questions": 1_000}
    found = {
        name: make_benchmark_facts(rows=count, usable_rows=count, rows_read=count)
        for name, count in counts.items()
    }
    return BenchmarksFacts(benchmarks=found, unresolved=unresolved or [])


NO_BENCHMARKS = BenchmarksFacts(benchmarks={}, unresolved=[])


def make_shards_facts(**changes: Any) -> ShardsFacts:
    facts = ShardsFacts(
        train_tokens=1_050_000_000,
        held_out_tokens=1_970_000,
        train_documents=1_010_100,
        held_out_documents=1_900,
        train_text_bytes=4_292_000_000,
        held_out_text_bytes=8_000_000,
        roundtrip_documents=400,
        roundtrip_failures=0,
        exercise_documents=17_000,
        exercise_tokens=12_000_000,
    )
    return change(facts, **changes)


def make_conversations_facts(**changes: Any) -> ConversationsFacts:
    facts = ConversationsFacts(
        rows=2_800,
        tokens=168_000,
        target_tokens=70_000,
        longest_row_tokens=190,
        rows_over_context=0,
    )
    return change(facts, **changes)


def make_honesty_facts(**changes: Any) -> HonestyFacts:
    facts = HonestyFacts(
        corpus_text_bytes=4_300_000_000,
        scanned_text_bytes=4_300_000_000,
        scanned_documents=1_012_000,
        eval_rows=700,
        sft_exact_prompts=0,
        sft_largest_coverage=0.4,
        corpus_contaminated_by_skill=dict.fromkeys(EVAL_ROWS, 0),
        eval_by_skill=EVAL_ROWS,
        external_rows={"science_questions": 1_000},
        external_contaminated={"science_questions": 0},
        contaminated_eval_rows=[],
    )
    return change(facts, **changes)


def make_host_facts(**changes: Any) -> HostFacts:
    facts = HostFacts(
        device_name="NVIDIA H100 80GB HBM3",
        attention_backend="flash",
        attention_error=0.004,
        attention_problem=None,
        tokens_per_second=560_000.0,
        mfu=0.41,
        peak_memory_bytes=34_000_000_000,
        free_memory_fraction=0.55,
        free_disk_bytes=400_000_000_000,
        memory_bytes=200_000_000_000,
        compile_s=60.0,
        measured_steps=20,
    )
    return change(facts, **changes)


def make_train_facts(stage: str = "base", **changes: Any) -> TrainFacts:
    steps = 33_000 if stage == "base" else 400
    facts = TrainFacts(
        stage="base" if stage == "base" else "sft",
        steps=steps,
        planned_steps=steps,
        tokens=steps * 65_536,
        parameters=106_969_856,
        first_loss=9.01,
        final_loss=2.95,
        losses_finite=True,
        spikes=0,
        scored_step=steps,
        held_out_loss=2.97,
        held_out_bits_per_byte=1.05,
        largest_centre_error=1e-9,
    )
    return change(facts, **changes)


def make_skill_score(skill: str, fraction: float = 0.9, base_fraction: float = 0.1) -> SkillScore:
    rows = EVAL_ROWS[skill]
    rate = make_rate(round(fraction * rows), rows)
    return SkillScore(
        all=rate,
        clean=rate,
        base=make_rate(round(base_fraction * rows), rows),
        chance=CHANCE[skill],
        levels={
            name: make_rate(round(fraction * count), count) for name, count in STAGES[skill].items()
        },
    )


def make_scores_facts(**changes: Any) -> ScoresFacts:
    facts = ScoresFacts(
        base_bits_per_byte=1.05,
        sft_bits_per_byte=1.08,
        ngram_bits_per_byte=1.70,
        ngram_train_tokens=50_000_000,
        skills={skill: make_skill_score(skill) for skill in EVAL_ROWS},
        sft_fit=make_rate(190, 200),
        sft_held_out_fit=make_rate(500, 560),
        refusal=make_rate(60, 70),
        over_refusal=make_rate(33, 35),
        choice_listed=make_rate(56, 70),
        prompt_echo=make_rate(3, 700),
        unsupported_claims=make_rate(1, 35),
        memorized=make_rate(0, 64),
        scored_checkpoint=SHIPPED,
        external={
            "science_questions": ExternalScore(
                all=make_rate(330, 1_000), clean=make_rate(330, 1_000), chance=0.25
            )
        },
    )
    return change(facts, **changes)


def make_parity_facts(**changes: Any) -> ParityFacts:
    return change(
        ParityFacts(
            reader="transformers 5.20.2",
            largest_relative_difference=3e-6,
            greedy_tokens_equal=True,
            other_differences=0,
        ),
        **changes,
    )


def make_parity_report(**changes: Any) -> ParityReport:
    """A comparison in which nothing is wrong."""
    values: dict[str, Any] = {
        "reader": "transformers",
        "model_class": "X",
        "dtype": "float32",
        "token_source": "held-out text",
        "tokens_compared": 512,
        "best_token_differs": 0,
        "largest_logit": 6.0,
        "largest_difference": 6e-4,
        "largest_relative_difference": 1e-4,
        "bound": 1e-4,
        "greedy_tokens": 32,
        "greedy_tokens_equal": True,
        "greedy_largest_shortfall": 0.0,
        "missing_keys": [],
        "unexpected_keys": [],
        "texts_compared": 5,
        "texts_equal": True,
        "chat_equal": True,
        "end_id": 4,
    }
    return ParityReport(**{**values, **changes})


def make_evidence(**changes: Any) -> RunFacts:
    """All the evidence of a healthy run; `preflight_report` is decided from it unless a change
    gives another.
    """
    evidence = RunFacts(
        config=make_config(),
        corpus=make_corpus_facts(),
        exercises=make_exercises_facts(),
        rows=make_rows_facts(),
        benchmarks=make_benchmarks_facts(),
        tokenizer=TokenizerFacts(vocab_size=8192, merges=7_920),
        shards=make_shards_facts(),
        conversations=make_conversations_facts(),
        honesty=make_honesty_facts(),
        trivial=make_trivial_facts(),
        host=make_host_facts(),
        base=make_train_facts("base"),
        sft=make_train_facts("sft"),
        scores=make_scores_facts(),
        parity=make_parity_facts(),
        changed_files=0,
        shipped_checkpoint=SHIPPED,
    )
    evidence = replace(evidence, preflight_report=decide_preflight(evidence))
    return replace(evidence, **changes)
