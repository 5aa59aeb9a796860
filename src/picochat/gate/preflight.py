"""The preflight: what can be known before a GPU-minute is spent. CHECKS is the table;
`run_preflight` writes the verdict.

Host measurements (memory, disk, speed, the attention kernel) are in preflight.json and in the
status that is shown and acted on. They stay out of the artifact's facts, so that its digest does
not depend on the clock: see docs/decisions/0009.
"""

from __future__ import annotations

from typing import Literal

from picochat.config import is_long_run
from picochat.core.publish import Draft
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
from picochat.gate.plan import plan, vocab_size
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


def _large_vocabulary(run: RunFacts) -> bool:
    """Small vocabularies cannot reach the fit of large ones, and are not held to it."""
    return vocab_size(run) >= 4096


def _has_budget(run: RunFacts) -> bool:
    return run.config.gate.budget_usd is not None


# fmt: off
CHECKS: tuple[Row, ...] = (
    Row("documents", "documents in the corpus", "documents", measures.documents, at_least(100), at_least(1), ALWAYS,
        "a handful of documents is a test of the path, not a corpus", IMPORT_MORE),
    Row("source_provenance", "sources without revision, licence or import report", "sources", measures.sources_without_provenance, exactly(0), None, ADVICE,
        "nobody can fetch the same text again, or knows what it may be used for", "import with picochat data hf-import ..., which records revision and licence; for local files name the licence in the recipe", details.unproven_sources),
    Row("source_provenance", "Hub sources without revision, licence or import report", "sources", measures.hub_sources_without_provenance, None, exactly(0), RELEASE,
        "a public claim needs a source that a stranger can fetch", "import again with picochat data hf-import ..., which records revision and licence", details.unproven_sources),
    Row("duplicate_documents", "share of exact duplicates among the documents read", "of documents", measures.duplicate_share, at_most(0.03), at_most(0.10), RELEASE,
        "duplicates are dropped, but many of them mean that the sources overlap", "remove overlapping sources from the recipe; picochat data preview --dataset-pack ... shows the share of each"),
    Row("near_duplicate_documents", "share of near-duplicates beyond the first of each cluster", "of documents", measures.near_duplicate_share, at_most(0.05), at_most(0.15), RELEASE,
        "text that is seen again and again is learned by heart", "drop them: --set data.drop_near_duplicates=true"),
    Row("held_out_tokens", "tokens of the held-out split", "tokens", measures.held_out_tokens, at_least(1_000_000), at_least(100_000), RELEASE,
        "a small held-out set moves with its noise", "hold out more: --set data.held_out_bytes=8000000 (and data.held_out_share), or " + IMPORT_MORE),
    Row("held_out_tokens", "tokens of the held-out split", "tokens", measures.held_out_tokens, None, at_least(1), ALWAYS,
        "without held-out text there is no validation at all", "hold out more: --set data.held_out_share=0.05"),
    Row("tokenizer_roundtrip", "sampled documents that do not decode to themselves", "documents", measures.roundtrip_failures, None, exactly(0), ALWAYS,
        "a tokenizer that loses text spoils everything after it", "report it with the document; remove the run folder's tokenizer and run again"),
    Row("tokenizer_fit", "held-out bytes per token", "bytes per token", measures.held_out_bytes_per_token, at_least(3.0), None, ADVICE,
        "a tokenizer that does not fit the text wastes context and compute", "train it on more of this text: --set tokenizer.train_bytes=200000000", applies=_large_vocabulary),
    Row("tokenizer_fit", "held-out bytes per token", "bytes per token", measures.held_out_bytes_per_token, None, at_least(1.5), RELEASE,
        "close to single bytes: the tokenizer was trained on other text", "train it on this text: --set tokenizer.train_bytes=200000000 --set tokenizer.vocab_size=8192"),
    Row("release_token_budget", "planned tokens over target tokens", "of the target", measures.planned_over_target, None, at_least(0.90), SKILL_CLAIM,
        "fewer tokens than the claim needs", STEPS, details.token_plan),
    Row("release_token_budget", "target tokens per parameter", "tokens per parameter", measures.target_tokens_per_parameter, None, at_least(20), SKILL_CLAIM,
        "a lower target would make the budget a matter of taste", "--set gate.target_tokens_per_parameter=20", details.token_plan),
    Row("compute_optimal_horizon", "planned tokens over target tokens", "of the target", measures.planned_over_target, between(0.5, 1.5), at_most(3.0), RELEASE,
        "far from the target, another model size would make more of the same compute", STEPS, details.token_plan),
    Row("corpus_model_fit", "epochs of the pack needed to reach the target tokens", "epochs", measures.epochs_to_target, at_most(4.0), at_most(16.0), RELEASE,
        "repeated text is worth less after about four epochs, and little after sixteen", IMPORT_MORE + "; or a smaller --scale", details.token_plan),
    Row("base_exposure", "epochs planned over the pack", "epochs", measures.planned_epochs, between(0.25, 4.0), at_most(16.0), RELEASE,
        "too many passes learn the text by heart; too few leave most of the pack unread", "above the bound: " + IMPORT_MORE + "; below it: more steps (--base-steps N) or a smaller pack", details.token_plan),
    Row("sft_category_balance", "smallest share of a judged skill in the SFT rows", "of SFT rows", measures.smallest_sft_skill_share, at_least(0.05), above(0), RELEASE,
        "a skill that is not trained cannot be claimed", TASK_PACK, details.sft_by_skill),
    Row("sft_rows", "SFT rows to train on", "rows", measures.sft_rows, at_least(500), at_least(300), RELEASE,
        "few rows teach their wording and not the skill", TASK_PACK),
    Row("sft_rows", "SFT rows to train on", "rows", measures.sft_rows, None, at_least(1), ALWAYS,
        "without rows there is no chat model", TASK_PACK),
    Row("sft_duplicate_prompts", "share of SFT prompts that stood before", "of SFT rows", measures.repeated_sft_prompt_share, at_most(0.10), at_most(0.25), RELEASE,
        "the same prompt twice is one row, counted twice", TASK_PACK),
    Row("sft_fits_context", "share of SFT rows longer than the context", "of SFT rows", measures.sft_share_over_context, at_most(0), at_most(0.01), RELEASE,
        "rows that do not fit are left out of training", "shorten the rows, or --set model.context=1024"),
    Row("sft_exposure", "passes over the SFT rows", "epochs", measures.planned_sft_epochs, at_most(25), at_most(60), RELEASE,
        "many passes over few rows are learned by heart", "fewer steps (--sft-steps N) or more rows: " + TASK_PACK),
    Row("eval_skill_release_coverage", "eval rows of the judged skill with the fewest", "rows", measures.smallest_eval_skill_rows, at_least(50), at_least(1), RELEASE,
        "a skill that is not tested cannot be claimed", TASK_PACK, details.eval_by_skill),
    Row("eval_power", "half-width of the 95% interval at p = 0.5, skill with the fewest independent items", "share", measures.widest_half_interval, at_most(0.14), at_most(0.20), RELEASE,
        "a wide interval can neither show nor rule out a pass", TASK_PACK, details.eval_items_by_skill),
    Row("eval_rules", "eval rows that no reply could fail", "rows", measures.eval_rows_without_rule, None, exactly(0), RELEASE,
        "such a row is a gift, not a test", "give each eval row an expected answer or a rule: " + TASK_PACK),
    Row("eval_independence", "eval items that the SFT rows contain", "items", measures.shared_items, None, exactly(0), RELEASE,
        "a score on trained items measures memory", TASK_PACK),
    Row("external_benchmarks", "rows of the largest external benchmark on this machine", "rows", measures.largest_benchmark_rows, at_least(500), at_least(1), SKILL_ONLY,
        "own skills alone are homework that the school graded itself", EXTERNAL, details.benchmarks),
    Row("external_benchmarks", "external benchmarks that were asked for and are not on this machine", "benchmarks", measures.unresolved_benchmarks, None, exactly(0), SKILL_ONLY,
        "leaving out a benchmark that could not be had would be choosing the result", RESOLVE, details.unresolved),
    Row("contamination_sft_eval", "eval prompts that stand in the SFT rows", "prompts", measures.exact_sft_prompts, None, exactly(0), RELEASE,
        "a score on seen items means nothing", TASK_PACK),
    Row("contamination_sft_eval", "largest 8-gram coverage of an eval prompt by one SFT row, template apart", "of its 8-grams", measures.largest_sft_coverage, below(0.7), None, ADVICE,
        "nearly the same prompt is nearly a seen item", TASK_PACK),
    Row("contamination_corpus_eval", "share of a skill's eval rows found in the corpus, worst skill", "of eval rows", measures.dirtiest_skill_share, exactly(0), at_most(0.05), RELEASE,
        "dirty rows leave the clean score with few rows", LEAVE_OUT + "; or another seed: picochat data task-pack ... --seed N --force", details.dirty_by_skill),
    Row("contamination_external", "share of a benchmark's rows found in the corpus, worst benchmark", "of its rows", measures.dirtiest_benchmark_share, exactly(0), None, SKILL_ADVICE,
        "the clean score leaves these rows out", LEAVE_OUT, details.benchmarks),
    Row("contamination_external", "share of a benchmark's rows found in the corpus, cleanest benchmark", "of its rows", measures.cleanest_benchmark_share, None, at_most(0.10), SKILL_ONLY,
        "no benchmark is left that the corpus has not seen", LEAVE_OUT + "; or name another benchmark: --external-eval NAME=PATH", details.benchmarks),
    Row("contamination_coverage", "share of the corpus bytes that were scanned", "of bytes", measures.scanned_share, None, at_least(1), RELEASE,
        "what was not scanned may hold the answers", "run the scan again: remove the run folder's honesty/ and run with --preflight-only"),
    Row("attention_backend_runtime", "attention backend on this device", "relative error", measures.attention_error, None, at_most(0.02), ALWAYS,
        "a kernel that computes something else trains something else", "choose another: --attn-backend efficient (or math)", details.attention, on_host=True),
    Row("memory_fit", "device memory left free at the peak of a real step", "of device memory", measures.free_memory_share, at_least(0.10), at_least(0.03), RELEASE,
        "a run that ends out of memory after an hour costs the hour", "smaller micro-batch: --set base.micro_batch=32 --set sft.micro_batch=32", on_host=True),
    Row("memory_fit", "device memory left free at the peak of a real step", "of device memory", measures.free_memory_share, None, above(0), ALWAYS,
        "out of memory", "smaller micro-batch: --set base.micro_batch=32 --set sft.micro_batch=32", on_host=True),
    Row("disk_space", "bytes needed for shards, checkpoints and bundle over bytes free", "of free bytes", measures.needed_over_free_disk, at_most(0.8), at_most(1.0), ALWAYS,
        "a full disk ends the run", "free some space, or put --out-dir on a larger disk", details.disk, on_host=True),
    Row("run_forecast", "forecast of the run", "hours", measures.forecast_hours, measured(), None, ADVICE,
        "hours and dollars are known before they are spent", "measure this host: picochat sanity preh100 --capacity-scale ...", details.forecast, on_host=True),
    Row("run_forecast", "forecast dollars over the budget", "of the budget", measures.forecast_over_budget, at_most(1), None, ADVICE,
        "the budget was yours", "fewer steps (--base-steps N), a larger --budget-usd, or name the price: --gpu-hour-usd", details.forecast, applies=_has_budget, on_host=True),
)
# fmt: on


def run_preflight(facts: RunFacts, draft: Draft) -> None:
    """Write preflight.json and preflight.md with the whole verdict; the facts leave out the host.

    Never raises for a blocked verdict: the runner reads the status of preflight.json.
    """
    report = decide_preflight(facts)
    write_json(draft.observation("preflight.json"), report)
    write_atomic(draft.observation("preflight.md"), preflight_page(report).encode())
    draft.facts = preflight_facts(report).model_dump(mode="json")


def decide_preflight(run: RunFacts) -> PreflightReport:
    """The whole verdict, a pure function of the evidence.

    A missed bound blocks a release profile only in a long run.
    """
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
    """The part of a report that is the same on every host."""
    findings = [finding for finding in report.findings if not finding.on_host]
    return PreflightFacts(
        status=STATUS[verdict(findings)], profile=report.profile, findings=findings
    )
