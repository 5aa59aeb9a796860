"""Measures: each reads one number from the facts of a run, or None if the evidence is missing.

The rows of preflight.py and release.py use them and have the bounds. A ratio with a missing or zero
denominator is None, so that missing evidence never looks like a good number. plan.py computes the
planned work.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from picochat.config import EvalConfig, TrainConfig
from picochat.data.licences import Comparison, compare_licences
from picochat.evals.intervals import half_width, rate
from picochat.facts import Rate, RunFacts, SkillScore, SourceFacts, TrainFacts, TrivialScore
from picochat.gate.plan import (
    baseline_bytes,
    baseline_tokens,
    needed_disk_bytes,
    parameters,
    plan,
    planned_tokens,
    target_tokens,
)
from picochat.gate.power import MARGINS, Power, SkillRows, power
from picochat.gate.row_bounds import Part, level_groups, row_bounds
from picochat.skills.skill_table import OTHER, judged

JUDGED_SKILLS = tuple(skill.name for skill, _ in judged())
FIRST_RELEASE_SKILLS = tuple(skill.name for skill, claim in judged() if claim.first_release)
USUAL = TrainConfig(steps=1)
BASELINE_TOKENS = EvalConfig().ngram_train_tokens  # enough for a baseline, whatever a run sets


def judged_skills(run: RunFacts) -> tuple[str, ...]:
    """The skills that the profile makes claims about."""
    return FIRST_RELEASE_SKILLS if run.config.gate.profile == "first_release" else JUDGED_SKILLS


def tested_skills(run: RunFacts) -> tuple[str, ...]:
    """The judged skills that the pack has eval rows of."""
    rows = run.rows
    return tuple(s for s in judged_skills(run) if rows and rows.eval_by_skill.get(s))


def ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _largest(numbers: Iterable[float | None]) -> float | None:
    """The largest; None if there is none or one is missing."""
    known: list[float] = []
    for number in numbers:
        if number is None:
            return None
        known.append(number)
    return max(known, default=None)


def _smallest(numbers: Iterable[float | None]) -> float | None:
    largest = _largest(None if number is None else -number for number in numbers)
    return None if largest is None else -largest


# ---- preflight: the data -------------------------------------------------------------------------


def documents(run: RunFacts) -> float | None:
    return run.corpus.documents if run.corpus else None


def sources_without_provenance(run: RunFacts) -> float | None:
    return _count_unproven(run, ("hub", "files"))


def hub_sources_without_provenance(run: RunFacts) -> float | None:
    return _count_unproven(run, ("hub",))


def _count_unproven(run: RunFacts, kinds: tuple[str, ...]) -> float | None:
    if not run.corpus or not run.corpus.sources:
        return None
    return sum(
        source.kind in kinds and bool(provenance_gaps(source)) for source in run.corpus.sources
    )


def provenance_gaps(source: SourceFacts) -> list[str]:
    """What is not on record for a source. Only Hub sources need an import report."""
    gaps = [] if source.pinned else ["revision or digests"]
    gaps += [] if source.licence else ["licence"]
    return gaps + (["import report"] if source.kind == "hub" and not source.import_report else [])


def sources_against_licence(run: RunFacts) -> float | None:
    """Sources whose licence the model's contradicts; without one, those that the best one does."""
    found = compared_licences(run)
    return len(found.contradicted) if found else None


def sources_of_unclear_licence(run: RunFacts) -> float | None:
    found = compared_licences(run)
    return len(found.unknown) if found else None


def compared_licences(run: RunFacts) -> Comparison | None:
    """The licences of the sources beside that of the model; None without sources."""
    sources = run.licences()
    return compare_licences(sources, run.config.gate.license) if sources else None


def duplicate_fraction(run: RunFacts) -> float | None:
    corpus = run.corpus
    return ratio(corpus.exact_duplicates, corpus.documents_read) if corpus else None


def near_duplicate_fraction(run: RunFacts) -> float | None:
    """Near-duplicates left in the corpus, over its documents."""
    if not run.corpus:
        return None
    left = 0 if run.config.data.drop_near_duplicates else run.corpus.near_duplicates
    return ratio(left, run.corpus.documents)


def held_out_tokens(run: RunFacts) -> float | None:
    return run.shards.held_out_tokens if run.shards else None


def roundtrip_failures(run: RunFacts) -> float | None:
    shards = run.shards
    return shards.roundtrip_failures if shards and shards.roundtrip_documents else None


def held_out_bytes_per_token(run: RunFacts) -> float | None:
    shards = run.shards if run.tokenizer else None
    return ratio(shards.held_out_text_bytes, shards.held_out_tokens) if shards else None


# ---- preflight: the plan -------------------------------------------------------------------------


def planned_over_target(run: RunFacts) -> float | None:
    """None without shards: the plan alone is no evidence that there are tokens to train on."""
    if not run.shards or not run.shards.train_tokens:
        return None
    return ratio(planned_tokens(run.config), target_tokens(run))


def target_tokens_per_parameter(run: RunFacts) -> float | None:
    return ratio(target_tokens(run), parameters(run))


def epochs_to_target(run: RunFacts) -> float | None:
    return ratio(target_tokens(run), run.shards.train_tokens if run.shards else None)


def training_rows(run: RunFacts) -> float | None:
    """Rows of the context in the training tokens; neighbouring rows share one token."""
    shards = run.shards
    return max(0, shards.train_tokens - 1) // run.config.model.context if shards else None


def planned_epochs(run: RunFacts) -> float | None:
    return plan(run).planned_epochs


def settings_beyond_stock(run: RunFacts) -> float | None:
    """Settings of the model that no stock class can hold.

    None without shards: settings alone are no evidence of a run.
    """
    if not run.shards:
        return None
    model = run.config.model
    return int(model.heads * model.head_width != model.width) + int(not model.centred)


# ---- preflight: SFT and eval rows ----------------------------------------------------------------


def smallest_sft_skill_fraction(run: RunFacts) -> float | None:
    rows = run.rows
    if not rows:
        return None
    total = sum(rows.sft_by_skill.values())
    return _smallest(ratio(rows.sft_by_skill.get(skill, 0), total) for skill in tested_skills(run))


def sft_rows(run: RunFacts) -> float | None:
    return run.rows.sft_train_rows if run.rows else None


def repeated_sft_prompt_fraction(run: RunFacts) -> float | None:
    if not run.rows:
        return None
    return ratio(
        run.rows.repeated_sft_prompts, run.rows.sft_train_rows + run.rows.sft_held_out_rows
    )


def eval_fraction_over_context(run: RunFacts) -> float | None:
    """Fraction of a skill's eval rows, or of own rows, that do not fit; the worst of them."""
    if not run.conversations or not run.rows:
        return None
    too_long = run.conversations.eval_rows_over_context
    counts = run.rows.eval_by_skill.items()
    return _largest(ratio(too_long.get(skill, 0), rows) for skill, rows in counts if rows)


def sft_fraction_over_context(run: RunFacts) -> float | None:
    conversations = run.conversations
    return ratio(conversations.rows_over_context, conversations.rows) if conversations else None


def smallest_eval_skill_rows(run: RunFacts) -> float | None:
    rows = run.rows
    if not rows or not rows.eval_rows:
        return None
    return min(rows.eval_by_skill.get(skill, 0) for skill in judged_skills(run))


def missing_skills(run: RunFacts) -> float | None:
    """Judged skills without an eval row."""
    return len(judged_skills(run)) - len(tested_skills(run)) if run.rows else None


def widest_half_interval(run: RunFacts) -> float | None:
    """Half-width of the 95% Wilson interval at p = 0.5, for the skill with the fewest items.

    Rows that share an item are not independent, so the smaller of rows and items counts. A pack
    without rows of a judged skill is measured by its own rows.
    """
    rows = run.rows
    if not rows or not rows.eval_rows:
        return None
    counts = [
        min(rows.eval_by_skill.get(s, 0), rows.eval_items_by_skill.get(s, 0))
        for s in tested_skills(run) or (OTHER,)
    ]
    return half_width(min(counts)) if min(counts) else 0.5


def eval_rows_without_rule(run: RunFacts) -> float | None:
    rows = run.rows
    return rows.eval_rows_without_rule if rows and rows.eval_rows else None


def shared_items(run: RunFacts) -> float | None:
    rows = run.rows
    return rows.shared_items if rows and rows.eval_rows else None


def best_trivial(run: RunFacts, skill: str) -> TrivialScore | None:
    """The trivial answerer that passes the most eval rows of a skill."""
    scores = run.trivial.skills.get(skill, []) if run.trivial else []
    return max(scores, key=lambda score: score.all.fraction or 0.0, default=None)


def trivial_over_bound(run: RunFacts) -> float | None:
    """How far the best trivial answerer of a skill reaches over the rules on its rows, worst skill.

    An answerer passes a skill only if it passes every rule on its rows, so the rule that it misses
    by the most counts: one that refuses everything passes `refusal` alone.
    """
    return _largest(trivial_reach(run, skill, "fraction") for skill in tested_skills(run))


def trivial_over_bound_upper_95(run: RunFacts) -> float | None:
    return _largest(trivial_reach(run, skill, "high") for skill in tested_skills(run))


def most_trivial_skill(run: RunFacts) -> str | None:
    """The skill whose rules a trivial answerer passes, or comes closest to passing."""
    reach = {skill: trivial_reach(run, skill, "fraction") for skill in tested_skills(run)}
    known = {skill: found for skill, found in reach.items() if found is not None}
    return max(known, key=lambda skill: known[skill], default=None)


def trivial_reach(run: RunFacts, skill: str, end: str) -> float | None:
    """Largest over the answerers of the smallest difference of a rate and its bound.

    end: `fraction`, or `high` for the upper end of the rates.
    """
    bounds = row_bounds([skill])
    scores = run.trivial.skills.get(skill, []) if run.trivial else []
    reached = [
        _smallest(
            getattr(found, end) - bound.low
            for bound in bounds
            for found in _part_rates(score, bound.part)
            if found.count
        )
        for score in scores
    ]
    return _largest(reached)


def _part_rates(score: TrivialScore, part: Part) -> list[Rate]:
    """The rates that a rule on this part of the rows compares with its bound."""
    if part == "levels":
        return list(_judged_levels(score.levels).values())
    return [getattr(score, part)]


def power_of(run: RunFacts) -> Power | None:
    """The probabilities of passing the rules on rows; None without rows of a judged skill."""
    rows = run.rows
    cells = rows.eval_cells if rows else []
    skills = {
        skill: SkillRows(
            cells=tuple(cell for cell in cells if cell.skill == skill),
            bounds=row_bounds([skill]),
            trivial=trivial.all.fraction if (trivial := best_trivial(run, skill)) else None,
        )
        for skill in tested_skills(run)
    }
    return power(skills) if skills and all(each.cells for each in skills.values()) else None


def passing_power(run: RunFacts) -> float | None:
    """Probability that a model MARGINS[1] above every bound passes all rules on rows."""
    found = power_of(run)
    return found.passing[MARGINS[1]] if found else None


def false_pass(run: RunFacts) -> float | None:
    found = power_of(run)
    return found.false_pass if found else None


# ---- preflight: contamination --------------------------------------------------------------------


def exact_sft_prompts(run: RunFacts) -> float | None:
    honesty = run.honesty
    return honesty.sft_exact_prompts if honesty and honesty.eval_rows else None


def largest_sft_coverage(run: RunFacts) -> float | None:
    honesty = run.honesty
    return honesty.sft_largest_coverage if honesty and honesty.eval_rows else None


def worst_skill_contamination(run: RunFacts) -> float | None:
    """Largest fraction, over all skills and own rows, of eval rows that stand in the corpus."""
    honesty = run.honesty
    if not honesty:
        return None
    return _largest(
        ratio(honesty.corpus_contaminated_by_skill.get(skill, 0), honesty.eval_by_skill.get(skill))
        for skill, rows in (run.rows or honesty).eval_by_skill.items()
        if rows
    )


def largest_benchmark_rows(run: RunFacts) -> float | None:
    """None if no benchmark was resolved."""
    found = run.benchmarks
    return _largest(benchmark.rows for benchmark in found.benchmarks.values()) if found else None


def unresolved_benchmarks(run: RunFacts) -> float | None:
    """None if no benchmark was asked for."""
    found = run.benchmarks
    return len(found.unresolved) if found and (found.benchmarks or found.unresolved) else None


def worst_benchmark_fraction(run: RunFacts) -> float | None:
    return _largest(_benchmark_fractions(run))


def cleanest_benchmark_fraction(run: RunFacts) -> float | None:
    return _smallest(_benchmark_fractions(run))


def _benchmark_fractions(run: RunFacts) -> list[float | None]:
    """One for each resolved benchmark; None for one that was not scanned for all of its rows.

    A scan of a pack has no resolved benchmarks: there its own counts are taken.
    """
    honesty, found = run.honesty, run.benchmarks
    if not honesty:
        return []
    scanned = honesty.external_rows
    resolved = {name: facts.rows for name, facts in found.benchmarks.items()} if found else scanned
    return [
        ratio(honesty.external_contaminated.get(name), rows) if scanned.get(name) == rows else None
        for name, rows in resolved.items()
    ]


def scanned_fraction(run: RunFacts) -> float | None:
    """Scanned bytes over the bytes of corpus and exercises.

    The total comes from the stages that made these: a scan that stopped early would itself state
    too small a total.
    """
    honesty, corpus, exercises = run.honesty, run.corpus, run.exercises
    if not honesty or not exercises or not corpus or not corpus.text_bytes:
        return None
    return ratio(honesty.scanned_text_bytes, corpus.text_bytes + exercises.text_bytes)


# ---- preflight: this host ------------------------------------------------------------------------


def attention_error(run: RunFacts) -> float | None:
    """Infinite if the backend was tried and failed: that is measured, and no bound admits it."""
    host = run.host
    if host and host.attention_problem is not None:
        return math.inf
    return host.attention_error if host else None


def free_memory_fraction(run: RunFacts) -> float | None:
    return run.host.free_memory_fraction if run.host else None


def needed_over_free_disk(run: RunFacts) -> float | None:
    return ratio(needed_disk_bytes(run), run.host.free_disk_bytes if run.host else None)


def baseline_over_memory(run: RunFacts) -> float | None:
    """Memory of the 5-gram baseline over the host's."""
    tokens = baseline_tokens(run)
    needed = None if tokens is None else baseline_bytes(tokens)
    return ratio(needed, run.host.memory_bytes if run.host else None)


def memory_is_known(run: RunFacts) -> bool:
    """Whether the system says how much memory it has; also without facts of the host."""
    return not run.host or run.host.memory_bytes is not None


def forecast_hours(run: RunFacts) -> float | None:
    return plan(run).hours


def forecast_over_budget(run: RunFacts) -> float | None:
    return ratio(plan(run).usd, run.config.gate.budget_usd)


# ---- release: the run ----------------------------------------------------------------------------


def blocking_preflight_checks(run: RunFacts) -> float | None:
    """At least 1 if the report's status is blocked; None for a report without findings."""
    report = run.preflight_report
    if not report or not report.findings:
        return None
    return max(
        sum(finding.status == "block" for finding in report.findings),
        int(report.status == "blocked"),
    )


def missing_steps(run: RunFacts) -> float | None:
    if not run.base or not run.sft:
        return None
    return sum(max(0, facts.planned_steps - facts.steps) for facts in (run.base, run.sft))


def stages_with_broken_loss(run: RunFacts) -> float | None:
    """Training stages with a loss that is not finite, or without a final loss."""
    if not run.base or not run.sft:
        return None
    return sum(_loss_is_broken(facts) for facts in (run.base, run.sft))


def _loss_is_broken(facts: TrainFacts) -> bool:
    return (
        not facts.losses_finite
        or (facts.planned_steps > 0 and facts.final_loss is None)
        or not math.isfinite(facts.final_loss or 0.0)
    )


def foreign_scores(run: RunFacts) -> float | None:
    """1 if the scores are of another checkpoint than the one that ships, otherwise 0."""
    if not run.scores or not run.shipped_checkpoint:
        return None
    return int(run.scores.scored_checkpoint != run.shipped_checkpoint)


def changed_files(run: RunFacts) -> float | None:
    return run.changed_files


def loss_spikes(run: RunFacts) -> float | None:
    """None if the settings call fewer losses a spike than their defaults do."""
    raised = any(
        stage.spike_factor > USUAL.spike_factor or stage.spike_nats > USUAL.spike_nats
        for stage in (run.config.base, run.config.sft)
    )
    if raised or not run.base or not run.sft:
        return None
    return run.base.spikes + run.sft.spikes


def bits_over_baseline(run: RunFacts) -> float | None:
    """Bits per byte of the base model over those of the 5-gram baseline.

    None if the baseline saw fewer tokens than BASELINE_TOKENS and than the pack holds: every model
    beats a baseline that was trained on too little.
    """
    scores, report = run.scores, run.preflight_report
    in_pack = report.plan.train_tokens if report else None
    seen = run.config.evals.ngram_train_tokens
    if seen < BASELINE_TOKENS and (in_pack is None or seen < in_pack):
        return None
    return ratio(scores.base_bits_per_byte, scores.ngram_bits_per_byte) if scores else None


# ---- release: what the model answers -------------------------------------------------------------


def fraction(rate: Rate | None) -> float | None:
    return rate.fraction if rate and rate.count else None


def skill_score(run: RunFacts, skill: str) -> SkillScore | None:
    return run.scores.skills.get(skill) if run.scores else None


def clean_fraction(run: RunFacts, skill: str) -> float | None:
    """Pass rate on the rows that the contamination scan did not find."""
    score = skill_score(run, skill)
    return fraction(score.clean) if score else None


def fraction_over_trivial_lower_95(run: RunFacts, skill: str) -> float | None:
    """The 95% lower end of the clean pass rate minus the rate of the best trivial answerer."""
    score, trivial = skill_score(run, skill), best_trivial(run, skill)
    if not score or not trivial or score.clean.low is None or trivial.all.fraction is None:
        return None
    return score.clean.low - trivial.all.fraction


def counted_levels(run: RunFacts, skill: str) -> dict[str, Rate]:
    """The levels of a skill that are judged: those with enough rows, and the pool of the others."""
    score = skill_score(run, skill)
    return _judged_levels(score.levels if score else {})


def _judged_levels(levels: Mapping[str, Rate]) -> dict[str, Rate]:
    """The rate of each group of levels that are judged together, by their names."""
    groups = level_groups({name: found.count for name, found in levels.items()})
    return {
        " + ".join(group): rate(
            sum(levels[name].passed for name in group), sum(levels[name].count for name in group)
        )
        for group in groups
    }


def weakest_level_fraction(run: RunFacts, skill: str) -> float | None:
    return _smallest(fraction(rate) for rate in counted_levels(run, skill).values())


def fraction_over_chance(run: RunFacts, skill: str) -> float | None:
    """(pass rate - chance) / (1 - chance): 0 is guessing, 1 is perfect."""
    score = skill_score(run, skill)
    return _over_chance(fraction(score.clean), score.chance) if score else None


def fraction_over_chance_lower_95(run: RunFacts, skill: str) -> float | None:
    score = skill_score(run, skill)
    low = score.clean.low if score and score.clean.count else None
    return _over_chance(low, score.chance) if score else None


def _over_chance(accuracy: float | None, chance: float) -> float | None:
    return None if accuracy is None else ratio(accuracy - chance, 1 - chance)


def external_above_chance(run: RunFacts) -> float | None:
    """Benchmarks whose 95% lower end on clean rows is above chance; None if none was run."""
    if not run.scores or not run.scores.external:
        return None
    return sum(
        bool(score.clean.count) and score.clean.low > score.chance
        for score in run.scores.external.values()
        if score.clean.low is not None and score.chance is not None
    )


def external_unmeasured(run: RunFacts) -> float | None:
    """Benchmarks that were asked for and have no score, unresolved ones included.

    None if none was asked for.
    """
    asked = run.benchmarks
    if not run.scores or not asked or not (asked.benchmarks or asked.unresolved):
        return None
    scores = run.scores.external
    unscored = [
        name
        for name in asked.benchmarks
        if name not in scores or fraction(scores[name].all) is None
    ]
    return len(unscored) + len(asked.unresolved)


def export_difference(run: RunFacts) -> float | None:
    parity = run.parity
    return parity.largest_relative_difference if parity and parity.reader else None


def other_export_differences(run: RunFacts) -> int | None:
    parity = run.parity
    return parity.other_differences if parity and parity.reader else None
