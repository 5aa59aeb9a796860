"""The texts beside measured numbers: which skill, which source, how many.

They are part of findings and so of digests, but no verdict depends on them. A function returns an
empty string if it has nothing to add.
"""

from __future__ import annotations

from picochat.data.licences import demands
from picochat.facts import RunFacts, TrivialScore
from picochat.gate import measures
from picochat.gate.plan import baseline_bytes, baseline_tokens, plan
from picochat.gate.row_bounds import LEAST_LEVEL_ROWS
from picochat.present.printable import one_line
from picochat.present.values import (
    byte_quantity,
    count,
    dollars,
    fraction,
    hours,
    loss,
    quantity,
    rate,
)
from picochat.skills.skill_table import OTHER

SHOWN_LINE = 120  # characters of a trivial answer


def unproven_sources(run: RunFacts) -> str:
    sources = run.corpus.sources if run.corpus else []
    gaps = {source.label: measures.provenance_gaps(source) for source in sources}
    return "; ".join(
        f"{label} lacks {', '.join(missing)}" for label, missing in gaps.items() if missing
    )


def licences(run: RunFacts) -> str:
    """What each source asks, and which licences of a model contradict none of them."""
    found = measures.compared_licences(run)
    if not found:
        return ""
    sources, chosen = run.licences(), run.config.gate.license
    model = f"model: {one_line(chosen, SHOWN_LINE)}" if chosen else "model: no licence named"
    return f"{model}; {demands(sources, sources)}; {found.choice}"


def token_plan(run: RunFacts) -> str:
    numbers = plan(run)
    planned, target = quantity(numbers.planned_tokens), quantity(numbers.target_tokens)
    return (
        f"planned {planned}, target {target}, in the pack {quantity(numbers.train_tokens)} tokens;"
        f" {quantity(numbers.parameters)} parameters"
    )


def _by_skill(run: RunFacts, counts: dict[str, int]) -> str:
    return ", ".join(f"{skill} {counts.get(skill, 0)}" for skill in measures.judged_skills(run))


def sft_by_skill(run: RunFacts) -> str:
    return _by_skill(run, run.rows.sft_by_skill) if run.rows else ""


def eval_by_skill(run: RunFacts) -> str:
    return _by_skill(run, run.rows.eval_by_skill) if run.rows else ""


def missing_skills(run: RunFacts) -> str:
    """The skills that the profile needs and that the pack has no eval rows of."""
    tested = measures.tested_skills(run)
    missing = [skill for skill in measures.judged_skills(run) if skill not in tested]
    return f"the pack has none of {', '.join(missing)}" if missing else ""


def eval_items_by_skill(run: RunFacts) -> str:
    if not run.rows:
        return ""
    items = run.rows.eval_items_by_skill
    skills = measures.tested_skills(run) or (OTHER,)
    counts = ", ".join(f"{skill} {items.get(skill, 0)}" for skill in skills)
    return f"independent items: {counts}"


def trivial_answers(run: RunFacts) -> str:
    """The best trivial answer of the worst skill in full, and the rates of the others."""
    worst = measures.most_trivial_skill(run)
    best = {skill: measures.best_trivial(run, skill) for skill in measures.tested_skills(run)}
    others = ", ".join(
        f"{skill} {fraction(score.all.fraction)}"
        for skill, score in best.items()
        if score and skill != worst
    )
    shown = best.get(worst) if worst else None
    return f"{worst}: {trivial_text(shown)}; {others}" if shown else ""


def best_trivial(run: RunFacts, skill: str) -> str:
    best = measures.best_trivial(run, skill)
    return trivial_text(best) if best else "no trivial answers"


def trivial_text(score: TrivialScore) -> str:
    """The rate of a trivial answerer and how it answers: `0.41 (29 of 70; ...) by place 2`."""
    line = f" {one_line(score.line, SHOWN_LINE)!r}" if score.line else ""
    return f"best trivial answer {rate(score.all)} by {score.answerer}{line}"


def gate_power(run: RunFacts) -> str:
    """The probability for each margin, and the skill in which a false pass is likeliest."""
    found = measures.power_of(run)
    if not found:
        return ""
    passing = ", ".join(f"+{margin:.2f} {fraction(p)}" for margin, p in found.passing.items())
    return f"passes at {passing}; falsely {fraction(found.false_pass)} by {found.weakest}"


def eval_over_context(run: RunFacts) -> str:
    too_long = run.conversations.eval_rows_over_context if run.conversations else {}
    return ", ".join(f"{skill} {rows}" for skill, rows in too_long.items())


def contaminated_by_skill(run: RunFacts) -> str:
    if not run.honesty:
        return ""
    found = run.honesty.corpus_contaminated_by_skill
    return ", ".join(
        f"{skill} {found.get(skill, 0)} of {rows}"
        for skill, rows in run.honesty.eval_by_skill.items()
        if rows
    )


def benchmarks(run: RunFacts) -> str:
    """Each benchmark with the number of its rows that the scan found in the corpus."""
    if not run.benchmarks or not run.benchmarks.benchmarks:
        return "no external benchmark was resolved"
    contaminated = run.honesty.external_contaminated if run.honesty else {}
    return ", ".join(
        f"{name} {contaminated.get(name, '?')} of {f.rows} found"
        for name, f in run.benchmarks.benchmarks.items()
    )


def unresolved(run: RunFacts) -> str:
    return ", ".join(run.benchmarks.unresolved) if run.benchmarks else ""


def attention(run: RunFacts) -> str:
    host = run.host
    if not host:
        return ""
    problem = (
        f"failed: {host.attention_problem}"
        if host.attention_problem
        else "relative error against float32 math"
    )
    return f"{host.attention_backend} on {host.device_name}: {problem}"


def disk(run: RunFacts) -> str:
    return f"{byte_quantity(run.host.free_disk_bytes)} free" if run.host else ""


def baseline_memory(run: RunFacts) -> str:
    """The tokens that the 5-gram baseline counts, its memory and the host's."""
    tokens = baseline_tokens(run)
    if tokens is None or not run.host or not run.host.memory_bytes:
        return ""
    return (
        f"{quantity(tokens)} training tokens, {byte_quantity(baseline_bytes(tokens))} of"
        f" {byte_quantity(run.host.memory_bytes)}"
    )


def forecast(run: RunFacts) -> str:
    """The hours of each part, the speed, and the price if one was given."""
    numbers = plan(run)
    if numbers.hours is None or not run.host or not run.host.tokens_per_second:
        return "no speed was measured on this host"
    parts = " + ".join(f"{name} {hours(spent)}" for name, spent in numbers.hours_of.items())
    price = "no price given (--gpu-hour-usd)" if numbers.usd is None else dollars(numbers.usd)
    return (
        f"{parts} at {quantity(run.host.tokens_per_second)} tokens/s; {price}; scoring and"
        " export are not counted"
    )


def run_steps(run: RunFacts) -> str:
    stages = [facts for facts in (run.base, run.sft) if facts]
    return ", ".join(
        f"{facts.stage} {count(facts.steps)} of {count(facts.planned_steps)}" for facts in stages
    )


def bits(run: RunFacts) -> str:
    scores = run.scores
    if not scores or scores.base_bits_per_byte is None or scores.ngram_bits_per_byte is None:
        return ""
    return (
        f"base {loss(scores.base_bits_per_byte)}, 5-gram model of"
        f" {quantity(scores.ngram_train_tokens)} training tokens {loss(scores.ngram_bits_per_byte)}"
        " bits per byte"
    )


def weakest_level(run: RunFacts, skill: str) -> str:
    """The name and rate of the level with the lowest pass rate."""
    levels = measures.counted_levels(run, skill)
    if not levels:
        return f"the levels of {skill} have fewer than {LEAST_LEVEL_ROWS} rows together"
    name, lowest = min(levels.items(), key=lambda item: (item[1].fraction or 0.0, item[0]))
    return f"{name}: {rate(lowest)}"


def external_scores(run: RunFacts) -> str:
    """The score of each benchmark on clean rows, and the names of the unresolved ones."""
    if not run.scores or not run.scores.external:
        return "no external benchmark was run"
    found = [
        f"{name}: {score.read_by} {rate(score.clean)}, chance {fraction(score.chance)}"
        for name, score in run.scores.external.items()
    ]
    missing = unresolved(run)
    return "; ".join([*found, f"not resolved: {missing}"] if missing else found)


def export_reader(run: RunFacts) -> str:
    reader = run.parity.reader if run.parity else None
    return f"read back by {reader}" if reader else "the export was not read back"


def preflight_blocks(run: RunFacts) -> str:
    findings = run.preflight_report.findings if run.preflight_report else []
    return ", ".join(finding.name for finding in findings if finding.status == "block")
