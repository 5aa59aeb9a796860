"""The preflight: the table CHECKS judges what can be known before training starts.

Host measurements (memory, disk, speed, the attention kernel) count in the verdict that is shown and
acted on. They stay out of the artifact's facts, so that its digest does not depend on the machine:
see docs/decisions/0009.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from picochat.config import is_long_run
from picochat.core.publish import StagingFolder
from picochat.core.records import write_atomic, write_json
from picochat.facts import PreflightFacts, PreflightReport, RunFacts
from picochat.gate import details, measures
from picochat.gate.bounds import above, at_least, at_most, below, between, exactly, measured
from picochat.gate.decide import (
    ADVICE,
    ALWAYS,
    RELEASE,
    REPORT_SCHEMA_VERSION,
    SKILL_ADVICE,
    SKILL_CLAIM,
    SKILL_ONLY,
    Row,
    Strictness,
    decide,
    verdict,
)
from picochat.gate.plan import plan, sft_epochs, vocab_size
from picochat.gate.render import preflight_page

STATUS: dict[str, Literal["ready", "warn", "blocked"]] = {
    "pass": "ready",
    "warn": "warn",
    "block": "blocked",
}
IMPORT_MORE = (
    "import more rows (picochat data hf-import ... --max-rows N), then picochat data preview"
    " --dataset-pack ..."
)
TASK_PACK = (
    "picochat data task-pack --dataset-pack ... --profile release_skills --sft-rows 2800"
    " --eval-rows 700 --force"
)


def _rows_fix(own: str) -> Callable[[RunFacts], str]:
    """Make other rows where the task pack made them; `own`: what to do with rows of one's own."""
    return lambda run: TASK_PACK if measures.tested_skills(run) else own


LEAVE_OUT = (
    "honesty/report.md names the documents; list those of report.json (documents_to_leave_out) in"
    ' corpus_recipe.json under "exclude_documents", and run again'
)
EXTERNAL = (
    "--external-eval auto, or --external-eval NAME=PATH of a file in a published layout (.jsonl or"
    " .parquet)"
)
RESOLVE = (
    "the same command again with a network: only what is missing is fetched; or --external-eval"
    " auto --external-eval NAME=PATH with a file of it; benchmarks/unresolved.json says why"
)
STEPS = "--base-steps N, or another --scale"
SMALLER_BATCH = "smaller micro-batch: --set base.micro_batch=32 --set sft.micro_batch=32"


def _large_vocabulary(run: RunFacts) -> bool:
    """A small vocabulary cannot reach the bytes per token of a large one."""
    return vocab_size(run) >= 4096


def _has_tested_skill(run: RunFacts) -> bool:
    return not run.rows or bool(measures.tested_skills(run))


def _has_sft_rows(run: RunFacts) -> bool:
    """Also in a release, and without facts of the rows, where they count as unmeasured."""
    return run.config.gate.profile != "research" or not run.rows or run.rows.sft_train_rows > 0


def _has_budget(run: RunFacts) -> bool:
    return run.config.gate.budget_usd is not None


CHECKS: tuple[Row, ...] = (
    Row(
        name="documents",
        reading="documents in the corpus",
        unit="documents",
        measure=measures.documents,
        warn=at_least(100),
        block=at_least(1),
        severity=ALWAYS,
        why="a few documents can test the software, but not train a model",
        fix=IMPORT_MORE,
    ),
    Row(
        name="source_provenance",
        reading="sources without revision, licence or import report",
        unit="sources",
        measure=measures.sources_without_provenance,
        warn=exactly(0),
        severity=ADVICE,
        why="otherwise nobody can fetch the same text again or knows its licence",
        fix=(
            'name the licence of your own files: --license NAME beside --input, or "licence" of'
            " the source in corpus_recipe.json; picochat data hf-import records those of the Hub"
        ),
        detail=details.unproven_sources,
    ),
    Row(
        name="source_provenance",
        reading="Hub sources without revision, licence or import report",
        unit="sources",
        measure=measures.hub_sources_without_provenance,
        block=exactly(0),
        severity=RELEASE,
        why="a public claim needs a source that a stranger can fetch",
        fix="import again with picochat data hf-import ..., which records revision and licence",
        detail=details.unproven_sources,
    ),
    Row(
        name="duplicate_documents",
        reading="fraction of exact duplicates among the documents read",
        unit="of documents",
        measure=measures.duplicate_fraction,
        warn=at_most(0.03),
        block=at_most(0.10),
        severity=RELEASE,
        why="duplicates are dropped, but many of them show that sources overlap",
        fix=(
            "remove overlapping sources from the recipe; picochat data preview --dataset-pack ..."
            " shows the fraction of each"
        ),
    ),
    Row(
        name="near_duplicate_documents",
        reading="fraction of near-duplicates beyond the first of each cluster",
        unit="of documents",
        measure=measures.near_duplicate_fraction,
        warn=at_most(0.05),
        block=at_most(0.15),
        severity=RELEASE,
        why="a model memorizes text that it sees many times",
        fix="drop them: --set data.drop_near_duplicates=true",
    ),
    Row(
        name="held_out_tokens",
        reading="tokens of the held-out split",
        unit="tokens",
        measure=measures.held_out_tokens,
        warn=at_least(1_000_000),
        block=at_least(100_000),
        severity=RELEASE,
        why="the loss on a small held-out set is noisy",
        fix="hold out more: --set data.held_out_bytes=8000000 (and data.held_out_fraction), or "
        + IMPORT_MORE,
    ),
    Row(
        name="held_out_tokens",
        reading="tokens of the held-out split",
        unit="tokens",
        measure=measures.held_out_tokens,
        block=at_least(1),
        severity=ALWAYS,
        why="without held-out text there is no validation",
        fix="hold out more: --set data.held_out_fraction=0.05",
    ),
    Row(
        name="tokenizer_roundtrip",
        reading="sampled documents that do not decode to themselves",
        unit="documents",
        measure=measures.roundtrip_failures,
        block=exactly(0),
        severity=ALWAYS,
        why="a tokenizer that loses text damages every later stage",
        fix="report it with the document; remove the run folder's tokenizer and run again",
    ),
    Row(
        name="tokenizer_fit",
        reading="held-out bytes per token",
        unit="bytes per token",
        measure=measures.held_out_bytes_per_token,
        warn=at_least(3.0),
        severity=ADVICE,
        why="a tokenizer that does not fit the text wastes context and compute",
        fix="train it on more of this text: --set tokenizer.train_bytes=200000000",
        applies=_large_vocabulary,
    ),
    Row(
        name="tokenizer_fit",
        reading="held-out bytes per token",
        unit="bytes per token",
        measure=measures.held_out_bytes_per_token,
        block=at_least(1.5),
        severity=RELEASE,
        why="tokens of almost one byte show that the tokenizer was trained on other text",
        fix=(
            "train it on this text: --set tokenizer.train_bytes=200000000 --set"
            " tokenizer.vocab_size=8192"
        ),
    ),
    Row(
        name="release_token_budget",
        reading="planned tokens over target tokens",
        unit="of the target",
        measure=measures.planned_over_target,
        block=at_least(0.90),
        severity=SKILL_CLAIM,
        why="the release claims training on about the target tokens",
        fix=STEPS,
        detail=details.token_plan,
    ),
    Row(
        name="release_token_budget",
        reading="target tokens per parameter",
        unit="tokens per parameter",
        measure=measures.target_tokens_per_parameter,
        block=at_least(20),
        severity=SKILL_CLAIM,
        why="a lower target would make any budget large enough",
        fix="--set gate.target_tokens_per_parameter=20",
        detail=details.token_plan,
    ),
    Row(
        name="compute_optimal_horizon",
        reading="planned tokens over target tokens",
        unit="of the target",
        measure=measures.planned_over_target,
        warn=between(0.5, 1.5),
        block=at_most(3.0),
        severity=RELEASE,
        why="far from the target, another model size would use the same compute better",
        fix=STEPS,
        detail=details.token_plan,
    ),
    Row(
        name="corpus_model_fit",
        reading="epochs of the pack needed to reach the target tokens",
        unit="epochs",
        measure=measures.epochs_to_target,
        warn=at_most(4.0),
        block=at_most(16.0),
        severity=RELEASE,
        why="repeated text is worth less after about four epochs, and little after sixteen",
        fix=IMPORT_MORE + "; or a smaller --scale",
        detail=details.token_plan,
    ),
    Row(
        name="base_exposure",
        reading="epochs planned over the pack",
        unit="epochs",
        measure=measures.planned_epochs,
        warn=between(0.25, 4.0),
        block=at_most(16.0),
        severity=RELEASE,
        why="with too many passes the model memorizes; with too few most of the pack is unused",
        fix="above the bound: "
        + IMPORT_MORE
        + "; below it: more steps (--base-steps N) or a smaller pack",
        detail=details.token_plan,
    ),
    Row(
        name="sft_category_balance",
        reading="smallest fraction of a judged skill in the SFT rows",
        unit="of SFT rows",
        measure=measures.smallest_sft_skill_fraction,
        warn=at_least(0.05),
        block=above(0),
        severity=RELEASE,
        why="a skill that is not trained cannot be claimed",
        fix=TASK_PACK,
        detail=details.sft_by_skill,
        applies=_has_tested_skill,
    ),
    Row(
        name="sft_rows",
        reading="SFT rows to train on",
        unit="rows",
        measure=measures.sft_rows,
        warn=at_least(500),
        block=at_least(300),
        severity=RELEASE,
        why="few rows teach their wording and not the skill",
        fix=_rows_fix(
            "add rows to the pack's chat file; without any, the base model is published as it is"
        ),
    ),
    Row(
        name="sft_duplicate_prompts",
        reading="fraction of SFT prompts that stood before",
        unit="of SFT rows",
        measure=measures.repeated_sft_prompt_fraction,
        warn=at_most(0.10),
        block=at_most(0.25),
        severity=RELEASE,
        applies=_has_sft_rows,
        why="the same prompt twice is one row, counted twice",
        fix=_rows_fix("remove the rows of the pack's chat file whose prompt stood before"),
    ),
    Row(
        name="sft_fits_context",
        reading="fraction of SFT rows longer than the context",
        unit="of SFT rows",
        measure=measures.sft_fraction_over_context,
        warn=at_most(0),
        block=at_most(0.01),
        severity=RELEASE,
        why="rows that do not fit are left out of training",
        fix="shorten the rows, or --set model.context=1024",
        applies=_has_sft_rows,
    ),
    Row(
        name="sft_fits_context",
        reading="fraction of SFT rows longer than the context",
        unit="of SFT rows",
        measure=measures.sft_fraction_over_context,
        block=below(1),
        severity=ALWAYS,
        why="without one row that fits, the SFT stage cannot begin",
        fix="shorten the rows, or --set model.context=1024",
        applies=_has_sft_rows,
    ),
    Row(
        name="sft_exposure",
        reading="passes over the SFT rows",
        unit="epochs",
        measure=sft_epochs,
        warn=at_most(25),
        block=at_most(60),
        severity=RELEASE,
        applies=_has_sft_rows,
        why="many passes over few rows are learned by heart",
        fix="fewer steps (--sft-steps N) or more rows: " + TASK_PACK,
    ),
    Row(
        name="eval_skill_release_coverage",
        reading="eval rows of the judged skill with the fewest",
        unit="rows",
        measure=measures.smallest_eval_skill_rows,
        warn=at_least(50),
        block=at_least(1),
        severity=RELEASE,
        why="a skill that is not tested cannot be claimed",
        fix=(
            "this profile needs rows of every skill: "
            + TASK_PACK
            + " makes them in place of the pack's own; --long-run-gate-profile research needs none"
        ),
        detail=details.eval_by_skill,
        applies=measures.has_skills,
    ),
    Row(
        name="eval_power",
        reading=(
            "half-width of the 95% interval at p = 0.5, skill with the fewest independent items"
        ),
        unit="fraction",
        measure=measures.widest_half_interval,
        warn=at_most(0.14),
        block=at_most(0.20),
        severity=RELEASE,
        why="a wide interval can neither show nor rule out a pass",
        fix=_rows_fix("add questions to the pack's eval file: 50 give 0.14"),
        detail=details.eval_items_by_skill,
        applies=measures.has_eval_rows,
    ),
    Row(
        name="eval_fits_context",
        reading="fraction of a skill's eval rows that do not fit the context, worst skill",
        unit="of eval rows",
        measure=measures.eval_fraction_over_context,
        warn=exactly(0),
        block=at_most(0.5),
        severity=ALWAYS,
        why="a row that leaves no room for a reply is not asked and counts as failed",
        fix="shorten these rows, or take a longer context: --set model.context=1024",
        detail=details.eval_over_context,
        applies=measures.has_eval_rows,
    ),
    Row(
        name="eval_rules",
        reading="eval rows that no reply could fail",
        unit="rows",
        measure=measures.eval_rows_without_rule,
        block=exactly(0),
        severity=RELEASE,
        why="such a row is a gift, not a test",
        fix="give each eval row a reference_answer or another rule, as docs/own-data.md shows",
        applies=measures.has_eval_rows,
    ),
    Row(
        name="eval_independence",
        reading="eval items that the SFT rows contain",
        unit="items",
        measure=measures.shared_items,
        block=exactly(0),
        severity=RELEASE,
        why="a score on trained items measures memory",
        fix=_rows_fix("remove these questions from the pack's chat file, or from its eval file"),
        applies=measures.has_eval_rows,
    ),
    Row(
        name="external_benchmarks",
        reading="rows of the largest external benchmark on this machine",
        unit="rows",
        measure=measures.largest_benchmark_rows,
        warn=at_least(500),
        block=at_least(1),
        severity=SKILL_ONLY,
        why="the skills and their tests come from one project; a benchmark does not",
        fix=EXTERNAL,
        detail=details.benchmarks,
    ),
    Row(
        name="external_benchmarks",
        reading="external benchmarks that were asked for and are not on this machine",
        unit="benchmarks",
        measure=measures.unresolved_benchmarks,
        block=exactly(0),
        severity=SKILL_ONLY,
        why="without this check a run could leave out benchmarks that it does badly on",
        fix=RESOLVE,
        detail=details.unresolved,
    ),
    Row(
        name="contamination_sft_eval",
        reading="eval prompts that stand in the SFT rows",
        unit="prompts",
        measure=measures.exact_sft_prompts,
        block=exactly(0),
        severity=RELEASE,
        why="a score on seen items means nothing",
        fix=_rows_fix("remove these questions from the pack's chat file, or from its eval file"),
        applies=measures.has_eval_rows,
    ),
    Row(
        name="contamination_sft_eval",
        reading="largest 8-gram coverage of an eval prompt by one SFT row, template apart",
        unit="of its 8-grams",
        measure=measures.largest_sft_coverage,
        warn=below(0.7),
        severity=ADVICE,
        why="nearly the same prompt is nearly a seen item",
        fix=_rows_fix("look at the hits in honesty/report.md, and reword one of the two rows"),
        applies=measures.has_eval_rows,
    ),
    Row(
        name="contamination_corpus_eval",
        reading="fraction of a skill's eval rows found in the corpus, worst skill",
        unit="of eval rows",
        measure=measures.worst_skill_contamination,
        warn=exactly(0),
        block=at_most(0.05),
        severity=RELEASE,
        why="contaminated rows leave the clean score with few rows",
        fix=LEAVE_OUT,
        detail=details.contaminated_by_skill,
        applies=measures.has_eval_rows,
    ),
    Row(
        name="contamination_external",
        reading="fraction of a benchmark's rows found in the corpus, worst benchmark",
        unit="of its rows",
        measure=measures.worst_benchmark_fraction,
        warn=exactly(0),
        severity=SKILL_ADVICE,
        why="the clean score leaves these rows out",
        fix=LEAVE_OUT,
        detail=details.benchmarks,
    ),
    Row(
        name="contamination_external",
        reading="fraction of a benchmark's rows found in the corpus, cleanest benchmark",
        unit="of its rows",
        measure=measures.cleanest_benchmark_fraction,
        block=at_most(0.10),
        severity=SKILL_ONLY,
        why="at least one benchmark must be almost free of contamination",
        fix=LEAVE_OUT + "; or name another benchmark: --external-eval NAME=PATH",
        detail=details.benchmarks,
    ),
    Row(
        name="contamination_coverage",
        reading="fraction of the corpus bytes that were scanned",
        unit="of bytes",
        measure=measures.scanned_fraction,
        block=at_least(1),
        severity=RELEASE,
        why="text that was not scanned can contain eval rows",
        fix="run the scan again: remove the run folder's honesty/ and run with --preflight-only",
    ),
    Row(
        name="attention_backend_runtime",
        reading="attention backend on this device",
        unit="relative error",
        measure=measures.attention_error,
        block=at_most(0.02),
        severity=ALWAYS,
        why="a wrong kernel trains a wrong model",
        fix="choose another: --attn-backend efficient (or math)",
        detail=details.attention,
        on_host=True,
    ),
    Row(
        name="memory_fit",
        reading="device memory left free at the peak of a real step",
        unit="of device memory",
        measure=measures.free_memory_fraction,
        warn=at_least(0.10),
        block=at_least(0.03),
        severity=RELEASE,
        why="a run close to the limit can run out of memory after hours",
        fix=SMALLER_BATCH,
        on_host=True,
    ),
    Row(
        name="memory_fit",
        reading="device memory left free at the peak of a real step",
        unit="of device memory",
        measure=measures.free_memory_fraction,
        block=above(0),
        severity=ALWAYS,
        why="without free memory the run stops",
        fix=SMALLER_BATCH,
        on_host=True,
    ),
    Row(
        name="disk_space",
        reading="bytes needed for shards, checkpoints and bundle over bytes free",
        unit="of free bytes",
        measure=measures.needed_over_free_disk,
        warn=at_most(0.8),
        block=at_most(1.0),
        severity=ALWAYS,
        why="a full disk stops the run",
        fix="free some space, or put --out-dir on a larger disk",
        detail=details.disk,
        on_host=True,
    ),
    Row(
        name="baseline_memory",
        reading="memory of the 5-gram baseline over the host's",
        unit="of memory",
        measure=measures.baseline_over_memory,
        warn=at_most(0.5),
        block=at_most(0.8),
        severity=ALWAYS,
        why="scoring would stop after all of the training",
        fix="--set evals.ngram_train_tokens=50000000, or a host with more memory",
        detail=details.baseline_memory,
        applies=measures.memory_is_known,
        on_host=True,
    ),
    Row(
        name="run_forecast",
        reading="forecast of the run",
        unit="hours",
        measure=measures.forecast_hours,
        warn=measured(),
        severity=ADVICE,
        why="time and cost should be known before the run starts",
        fix="measure this host: picochat sanity preh100 --capacity-scale ...",
        detail=details.forecast,
        on_host=True,
    ),
    Row(
        name="run_forecast",
        reading="forecast dollars over the budget",
        unit="of the budget",
        measure=measures.forecast_over_budget,
        warn=at_most(1),
        severity=ADVICE,
        why="the run would cost more than the budget that was given",
        fix=(
            "fewer steps (--base-steps N), a larger --budget-usd, or name the price: --gpu-hour-usd"
        ),
        detail=details.forecast,
        applies=_has_budget,
        on_host=True,
    ),
)


def run_preflight(facts: RunFacts, staging: StagingFolder) -> None:
    """Write preflight.json and preflight.md. Does not raise if the verdict is blocked."""
    report = decide_preflight(facts)
    write_json(staging.volatile("preflight.json"), report)
    write_atomic(staging.volatile("preflight.md"), preflight_page(report).encode())
    staging.facts = preflight_facts(report).model_dump(mode="json")


def decide_preflight(run: RunFacts) -> PreflightReport:
    """The whole verdict, a pure function of the facts."""
    config = run.config
    profile, long_run = config.gate.profile, is_long_run(config)
    softened = profile == "research" or not long_run
    findings = decide(CHECKS, run, Strictness(profile, softened))
    return PreflightReport(
        schema_version=REPORT_SCHEMA_VERSION,
        status=STATUS[verdict(findings)],
        profile=profile,
        long_run=long_run,
        plan=plan(run),
        findings=findings,
    )


def preflight_facts(report: PreflightReport) -> PreflightFacts:
    """The verdict without the findings that depend on the host."""
    findings = [finding for finding in report.findings if not finding.on_host]
    return PreflightFacts(
        status=STATUS[verdict(findings)], profile=report.profile, findings=findings
    )
