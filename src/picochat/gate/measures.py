"""Measures: evidence in, one number out, or None where the evidence is missing. No thresholds here.

Each public function is the measure of at least one row of preflight.py or release.py. A ratio whose
denominator is missing or zero is None, never 0 and never infinite. One exception says so itself: a
kernel that was tried and failed is infinite. Counting planned work is in plan.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from picochat.config import EvalConfig
from picochat.evals.intervals import half_width
from picochat.gate.evidence import Evidence
from picochat.gate.plan import (
    needed_disk_bytes,
    parameters,
    plan,
    planned_tokens,
    sft_epochs,
    target_tokens,
)
from picochat.rundir import Rate, SkillScore, SourceFacts, TrainFacts
from picochat.skills.skill_table import judged

JUDGED_SKILLS = tuple(skill.name for skill, _ in judged())
FIRST_RELEASE_SKILLS = tuple(skill.name for skill, claim in judged() if claim.first_release)
LEAST_LEVEL_ROWS = 20
BASELINE_TOKENS = EvalConfig().ngram_train_tokens


def judged_skills(evidence: Evidence) -> tuple[str, ...]:
    """The skills that the profile makes claims about."""
    return (
        FIRST_RELEASE_SKILLS if evidence.config.gate.profile == "first_release" else JUDGED_SKILLS
    )


def ratio(part: float | None, whole: float | None) -> float | None:
    """part / whole; None where either is missing or the whole is zero."""
    return part / whole if part is not None and whole else None


def _largest(numbers: Iterable[float | None]) -> float | None:
    """The largest; None where there is none or any is missing."""
    found = list(numbers)
    known = [number for number in found if number is not None]
    return max(known) if known and len(known) == len(found) else None


def _smallest(numbers: Iterable[float | None]) -> float | None:
    largest = _largest(None if number is None else -number for number in numbers)
    return None if largest is None else -largest


# ---- preflight: the data -------------------------------------------------------------------------


def documents(evidence: Evidence) -> float | None:
    return evidence.corpus.documents if evidence.corpus else None


def sources_without_provenance(evidence: Evidence) -> float | None:
    return _count_unproven(evidence, ("hub", "files"))


def hub_sources_without_provenance(evidence: Evidence) -> float | None:
    return _count_unproven(evidence, ("hub",))


def _count_unproven(evidence: Evidence, kinds: tuple[str, ...]) -> float | None:
    if not evidence.corpus or not evidence.corpus.sources:
        return None
    return sum(
        source.kind in kinds and bool(provenance_gaps(source)) for source in evidence.corpus.sources
    )


def provenance_gaps(source: SourceFacts) -> list[str]:
    """What is not on record for a source. Local files have digests in place of an import report."""
    gaps = [] if source.pinned else ["revision or digests"]
    gaps += [] if source.licence else ["licence"]
    return gaps + (["import report"] if source.kind == "hub" and not source.import_report else [])


def duplicate_share(evidence: Evidence) -> float | None:
    corpus = evidence.corpus
    return ratio(corpus.exact_duplicates, corpus.documents_read) if corpus else None


def near_duplicate_share(evidence: Evidence) -> float | None:
    """Of the documents that stay: 0 where near-duplicates were dropped on request."""
    if not evidence.corpus:
        return None
    staying = 0 if evidence.config.data.drop_near_duplicates else evidence.corpus.near_duplicates
    return ratio(staying, evidence.corpus.documents)


def held_out_tokens(evidence: Evidence) -> float | None:
    return evidence.shards.held_out_tokens if evidence.shards else None


def roundtrip_failures(evidence: Evidence) -> float | None:
    shards = evidence.shards
    return shards.roundtrip_failures if shards and shards.roundtrip_documents else None


def held_out_bytes_per_token(evidence: Evidence) -> float | None:
    shards = evidence.shards
    return (
        ratio(shards.held_out_text_bytes, shards.held_out_tokens)
        if shards and evidence.tokenizer
        else None
    )


# ---- preflight: the plan -------------------------------------------------------------------------


def planned_over_target(evidence: Evidence) -> float | None:
    """Counts the plan alone, yet needs the shards: without them nothing can be trained on."""
    if not evidence.shards or not evidence.shards.train_tokens:
        return None
    return ratio(planned_tokens(evidence.config), target_tokens(evidence))


def target_tokens_per_parameter(evidence: Evidence) -> float | None:
    return ratio(target_tokens(evidence), parameters(evidence))


def epochs_to_target(evidence: Evidence) -> float | None:
    return ratio(target_tokens(evidence), evidence.shards.train_tokens if evidence.shards else None)


def planned_epochs(evidence: Evidence) -> float | None:
    return plan(evidence).planned_epochs


# ---- preflight: SFT and eval rows ----------------------------------------------------------------


def smallest_sft_skill_share(evidence: Evidence) -> float | None:
    rows = evidence.rows
    if not rows:
        return None
    total = sum(rows.sft_by_skill.values())
    return _smallest(
        ratio(rows.sft_by_skill.get(skill, 0), total) for skill in judged_skills(evidence)
    )


def sft_rows(evidence: Evidence) -> float | None:
    return evidence.rows.sft_train_rows if evidence.rows else None


def repeated_sft_prompt_share(evidence: Evidence) -> float | None:
    rows = evidence.rows
    return (
        ratio(rows.repeated_sft_prompts, rows.sft_train_rows + rows.sft_held_out_rows)
        if rows
        else None
    )


def sft_share_over_context(evidence: Evidence) -> float | None:
    conversations = evidence.conversations
    return ratio(conversations.rows_over_context, conversations.rows) if conversations else None


def planned_sft_epochs(evidence: Evidence) -> float | None:
    return sft_epochs(evidence)


def smallest_eval_skill_rows(evidence: Evidence) -> float | None:
    rows = evidence.rows
    if not rows or not rows.eval_rows:
        return None
    return min(rows.eval_by_skill.get(skill, 0) for skill in judged_skills(evidence))


def widest_half_interval(evidence: Evidence) -> float | None:
    """Half-width of the 95% Wilson interval at p = 0.5 of the skill with the fewest independent
    items.

    Rows that share an item are not independent, so the smaller of rows and items counts. Without
    any, it is the widest.
    """
    rows = evidence.rows
    if not rows or not rows.eval_rows:
        return None
    counts = [
        min(rows.eval_by_skill.get(s, 0), rows.eval_items_by_skill.get(s, 0))
        for s in judged_skills(evidence)
    ]
    return half_width(min(counts)) if min(counts) else 0.5


def eval_rows_without_rule(evidence: Evidence) -> float | None:
    rows = evidence.rows
    return rows.eval_rows_without_rule if rows and rows.eval_rows else None


def shared_items(evidence: Evidence) -> float | None:
    rows = evidence.rows
    return rows.shared_items if rows and rows.eval_rows else None


# ---- preflight: contamination --------------------------------------------------------------------


def exact_sft_prompts(evidence: Evidence) -> float | None:
    honesty = evidence.honesty
    return honesty.sft_exact_prompts if honesty and honesty.eval_rows else None


def largest_sft_coverage(evidence: Evidence) -> float | None:
    honesty = evidence.honesty
    return honesty.sft_largest_coverage if honesty and honesty.eval_rows else None


def dirtiest_skill_share(evidence: Evidence) -> float | None:
    """Largest share, over the judged skills, of eval rows that stand in the corpus."""
    honesty = evidence.honesty
    if not honesty:
        return None
    dirty, rows = honesty.corpus_dirty_by_skill, honesty.eval_by_skill
    return _largest(
        ratio(dirty.get(skill, 0), rows.get(skill)) for skill in judged_skills(evidence)
    )


def largest_benchmark_rows(evidence: Evidence) -> float | None:
    """None where no benchmark was resolved on this machine."""
    found = evidence.benchmarks
    return _largest(benchmark.rows for benchmark in found.benchmarks.values()) if found else None


def unresolved_benchmarks(evidence: Evidence) -> float | None:
    """None where none was asked for."""
    found = evidence.benchmarks
    return len(found.unresolved) if found and (found.benchmarks or found.unresolved) else None


def dirtiest_benchmark_share(evidence: Evidence) -> float | None:
    return _largest(_benchmark_shares(evidence))


def cleanest_benchmark_share(evidence: Evidence) -> float | None:
    return _smallest(_benchmark_shares(evidence))


def _benchmark_shares(evidence: Evidence) -> list[float | None]:
    """Of each benchmark that was resolved; None for one whose rows were not all looked for.

    A scan without a run counts alone.
    """
    honesty, found = evidence.honesty, evidence.benchmarks
    if not honesty:
        return []
    looked_for = honesty.external_rows
    resolved = (
        {name: facts.rows for name, facts in found.benchmarks.items()} if found else looked_for
    )
    return [
        ratio(honesty.external_dirty.get(name), rows) if looked_for.get(name) == rows else None
        for name, rows in resolved.items()
    ]


def scanned_share(evidence: Evidence) -> float | None:
    """Over what the stages counted that made corpus and practice, not the scan: a short scan cannot
    vouch for itself.
    """
    honesty, corpus, practice = evidence.honesty, evidence.corpus, evidence.practice
    if not honesty or not practice or not corpus or not corpus.text_bytes:
        return None
    return ratio(honesty.scanned_text_bytes, corpus.text_bytes + practice.text_bytes)


# ---- preflight: this host ------------------------------------------------------------------------


def attention_error(evidence: Evidence) -> float | None:
    """Infinite where the backend was tried and failed: that is measured, and no bound admits it."""
    host = evidence.host
    if host and host.attention_problem is not None:
        return math.inf
    return host.attention_error if host else None


def free_memory_share(evidence: Evidence) -> float | None:
    return evidence.host.free_memory_share if evidence.host else None


def needed_over_free_disk(evidence: Evidence) -> float | None:
    return ratio(
        needed_disk_bytes(evidence), evidence.host.free_disk_bytes if evidence.host else None
    )


def forecast_hours(evidence: Evidence) -> float | None:
    return plan(evidence).hours


def forecast_over_budget(evidence: Evidence) -> float | None:
    return ratio(plan(evidence).usd, evidence.config.gate.budget_usd)


# ---- release: the run ----------------------------------------------------------------------------


def blocking_preflight_checks(evidence: Evidence) -> float | None:
    """A report without a single finding vouches for nothing, so it is None."""
    report = evidence.preflight
    if not report or not report.findings:
        return None
    return max(
        sum(finding.status == "block" for finding in report.findings),
        int(report.status == "blocked"),
    )


def missing_steps(evidence: Evidence) -> float | None:
    if not evidence.base or not evidence.sft:
        return None
    return sum(max(0, facts.planned_steps - facts.steps) for facts in (evidence.base, evidence.sft))


def stages_with_broken_loss(evidence: Evidence) -> float | None:
    """Stages of training that saw a loss which is not finite, or that state no final loss."""
    if not evidence.base or not evidence.sft:
        return None
    return sum(_loss_is_broken(facts) for facts in (evidence.base, evidence.sft))


def _loss_is_broken(facts: TrainFacts) -> bool:
    return (
        not facts.losses_finite or facts.final_loss is None or not math.isfinite(facts.final_loss)
    )


def foreign_scores(evidence: Evidence) -> float | None:
    """1 where the scores are of another checkpoint than the one that ships."""
    if not evidence.scores or not evidence.shipped_checkpoint:
        return None
    return int(evidence.scores.scored_checkpoint != evidence.shipped_checkpoint)


def changed_files(evidence: Evidence) -> float | None:
    return evidence.changed_files


def loss_spikes(evidence: Evidence) -> float | None:
    return evidence.base.spikes + evidence.sft.spikes if evidence.base and evidence.sft else None


def bits_over_baseline(evidence: Evidence) -> float | None:
    """None where the 5-gram model saw less than its due: a baseline that knows nothing is beaten by
    anything.
    """
    scores, trained = (
        evidence.scores,
        evidence.preflight.plan.train_tokens if evidence.preflight else None,
    )
    seen = evidence.config.evals.ngram_train_tokens
    if seen < BASELINE_TOKENS and (trained is None or seen < trained):
        return None
    return ratio(scores.base_bits_per_byte, scores.ngram_bits_per_byte) if scores else None


# ---- release: what the model answers -------------------------------------------------------------


def share(rate: Rate | None) -> float | None:
    return rate.share if rate and rate.count else None


def skill_score(evidence: Evidence, skill: str) -> SkillScore | None:
    return evidence.scores.skills.get(skill) if evidence.scores else None


def clean_share(evidence: Evidence, skill: str) -> float | None:
    """Pass rate on the rows that the contamination scan found clean."""
    score = skill_score(evidence, skill)
    return share(score.clean) if score else None


def counted_levels(evidence: Evidence, skill: str) -> dict[str, Rate]:
    """The levels of a skill that have rows enough to be judged."""
    score = skill_score(evidence, skill)
    return {
        name: rate
        for name, rate in (score.stages if score else {}).items()
        if rate.count >= LEAST_LEVEL_ROWS
    }


def weakest_level_share(evidence: Evidence, skill: str) -> float | None:
    return _smallest(share(rate) for rate in counted_levels(evidence, skill).values())


def share_over_chance(evidence: Evidence, skill: str) -> float | None:
    """(pass rate - chance) / (1 - chance): 0 is guessing, 1 is perfect."""
    score = skill_score(evidence, skill)
    return _over_chance(share(score.clean), score.chance) if score else None


def share_over_chance_lower_95(evidence: Evidence, skill: str) -> float | None:
    score = skill_score(evidence, skill)
    low = score.clean.low if score and score.clean.count else None
    return _over_chance(low, score.chance) if score else None


def _over_chance(accuracy: float | None, chance: float) -> float | None:
    return None if accuracy is None else ratio(accuracy - chance, 1 - chance)


def external_above_chance(evidence: Evidence) -> float | None:
    """Benchmarks whose 95% lower end on clean rows is above chance; None where no benchmark was
    run.
    """
    if not evidence.scores or not evidence.scores.external:
        return None
    scores = evidence.scores.external.values()
    return sum(
        bool(score.clean.count) and score.clean.low is not None and score.clean.low > score.chance
        for score in scores
    )


def external_unmeasured(evidence: Evidence) -> float | None:
    """Benchmarks that were asked for and have no score, be it that they were not resolved.

    None where none was asked for.
    """
    asked = evidence.benchmarks
    if not evidence.scores or not asked or not (asked.benchmarks or asked.unresolved):
        return None
    scores = evidence.scores.external
    found = [scores[name].all for name in asked.benchmarks if name in scores]
    whole = sum(share(rate) is not None for rate in found)
    return len(asked.benchmarks) + len(asked.unresolved) - whole


def export_difference(evidence: Evidence) -> float | None:
    parity = evidence.parity
    return parity.largest_relative_difference if parity and parity.reader else None
