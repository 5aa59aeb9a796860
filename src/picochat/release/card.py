"""The model card: front matter for the Hub and a page for people, both made from the run's facts.

Every figure on the card is a fact of a manifest, so the card cannot say more than the evidence
does: change a fact and the card changes. What was not measured is written as "not measured", never
left out. Words that are the publisher's own (the two summaries) stand apart and are marked as such.
Reads no files; the template is card.md.jinja.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from picochat.data.licences import compare_licences, demand, demands
from picochat.export.export_record import ParityReport
from picochat.facts import Rate, RowSource, RunFacts, ScoresFacts, SourceFacts
from picochat.gate.measures import best_trivial
from picochat.gate.render import measured_text
from picochat.present.labels import OTHER_RATES, STAGES
from picochat.present.printable import cell, printable_line
from picochat.present.templates import render
from picochat.release.evidence import attached_places
from picochat.report.summary import Provenance

TEMPLATE = Path(__file__).with_name("card.md.jinja")
HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
TAGS = ("picochat", "text-generation", "conversational", "small-language-model")


@dataclass(frozen=True)
class Subject:
    """What is exported, apart from the run's facts.

    `scored`: these very weights gave the run's scores. `commit`: of the code that trained them.
    `versions`: of that code and its libraries. `provenance`: where each imported source of the
    corpus came from. `eval_tasks`: benchmark -> task of its dataset, for the Hub's leaderboards.
    """

    model_name: str
    repo_id: str | None
    licence: str
    dataset_summary: str
    eval_summary: str
    stage: str
    step: int
    context: int
    vocab_size: int
    architecture: str
    dtype: str
    parameters: int
    stored_numbers: int
    checkpoint_digest: str
    tokenizer_digest: str
    end_token: str
    scored: bool
    parity: ParityReport
    commit: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    provenance: tuple[Provenance, ...] = ()
    eval_tasks: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Score:
    """One rate as the card shows it.

    `base` and `chance` are None where the row has no such comparison.
    """

    name: str
    rate: Rate
    clean: Rate | None = None
    base: Rate | None = None
    chance: float | None = None


def render_card(subject: Subject, facts: RunFacts | None) -> str:
    """README.md of the export. `facts` is None for a checkpoint that lies in no run folder."""
    scores = facts.scores if facts and subject.scored else None
    gate = facts.gate if facts and subject.scored else None
    page = render(
        TEMPLATE,
        subject=subject,
        facts=facts,
        scores=scores,
        gate=gate,
        notices=list(notices(subject, facts)),
        measured=measured_text,
        stages=STAGES,
        rates=list(score_rows(scores, facts)) if scores and facts else [],
        sources=facts.corpus.sources if facts and facts.corpus else [],
        provenance={item.label: item for item in subject.provenance},
        attributions=list(attributions(subject, facts)),
        settings=recipe(facts) if facts else [],
        attached=attached_places(facts.artifacts, subject.scored) if facts else [],
    )
    return f"---\n{front_matter(subject, facts)}---\n{page}"


def notices(subject: Subject, facts: RunFacts | None) -> Iterator[str]:
    """What a reader must know first: the verdict, then what the licences of the sources object."""
    yield _verdict(subject, facts)
    if facts is None:
        return
    sources = facts.licences()
    found = compare_licences(sources, subject.licence)
    ours = f"The licence of this model is {cell(subject.licence)}"
    if found.contradicted:
        objections = cell(f"{demands(sources, found.contradicted)}; {found.choice}")
        yield f"{ours}, which **contradicts** those of its training data: {objections}."
    if found.unknown:
        unclear = cell(demands(sources, found.unknown))
        yield f"{ours}. Whether that fits its training data is not known: {unclear}."


def _verdict(subject: Subject, facts: RunFacts | None) -> str:
    if facts is None:
        return (
            "No evidence is attached: this checkpoint lies in no run folder, so nothing here was"
            " measured by its release gate."
        )
    if not subject.scored:
        return (
            "These weights are not the ones that were scored: no score and no verdict of the run"
            " applies to them."
        )
    if facts.gate is None:
        return (
            "The release gate has not judged this model: take nothing here for a claim about its"
            " quality."
        )
    if facts.gate.status == "blocked":
        return f"The release gate **blocked** this model: {_names(facts, 'block', 'unmeasured')}."
    if facts.gate.status == "warn":
        return (
            "The release gate did not fully approve this model: it warns of"
            f" {_names(facts, 'warn')}."
        )
    return f"The release gate approved this model under the profile `{facts.gate.profile}`."


def _names(facts: RunFacts, *statuses: str) -> str:
    findings = facts.gate.findings if facts.gate else []
    return (
        ", ".join(f"`{finding.name}`" for finding in findings if finding.status in statuses)
        or "no rule by name"
    )


def score_rows(scores: ScoresFacts, facts: RunFacts) -> Iterator[Score]:
    """Every rate of the scores: each skill, its levels, own rows, benchmarks, behaviour.

    Below each skill stands what an answerer that understands nothing reaches.
    """
    for skill, score in scores.skills.items():
        yield Score(skill, score.all, score.clean, score.base, score.chance)
        if trivial := best_trivial(facts, skill):
            yield Score(f"{skill}: best trivial answer, {trivial.answerer}", trivial.all)
        for level, rate in score.levels.items():
            yield Score(f"{skill}: {level}", rate)
    for category, own in scores.own.items():
        yield Score(f"own rows: {cell(category)}", own.all, own.clean, own.base)
    for name, benchmark in scores.external.items():
        yield Score(
            f"external: {name}, {benchmark.read_by}",
            benchmark.all,
            benchmark.clean,
            benchmark.base,
            benchmark.chance,
        )
        for metric, rate in (("acc", benchmark.acc), ("acc_norm", benchmark.acc_norm)):
            if rate is not None and metric != benchmark.read_by:
                yield Score(f"external: {name}, {metric}", rate)
    for name, label in OTHER_RATES.items():
        yield Score(label, getattr(scores, name))


def attributions(subject: Subject, facts: RunFacts | None) -> Iterator[str]:
    """One sentence a source: its name and origin, its licence, and what that asks."""
    if facts is None or facts.corpus is None:
        return
    origins = {item.label: item for item in subject.provenance}
    for source in facts.corpus.sources:
        origin = origins.get(source.label) or Provenance(source.label, None, None, None)
        name = _origin(origin, is_on_hub(source, origin))
        yield f"Trained on text from {name}, {_licence(source.licence)}."
    for rows in facts.rows.sources if facts.rows and subject.stage == "sft" else []:
        name = _origin(rows, _has_hub_name(rows.dataset))
        yield f"Fine-tuned on rows from {name}, {_licence(rows.licence)}."


def is_on_hub(source: SourceFacts, origin: Provenance | None) -> bool:
    """Whether the source was imported from a dataset of the Hub, and not from a folder."""
    return source.kind == "hub" and origin is not None and _has_hub_name(origin.dataset)


def _has_hub_name(dataset: str | None) -> bool:
    return dataset is not None and HUB_NAME.fullmatch(dataset) is not None


def _origin(source: Provenance | RowSource, on_hub: bool) -> str:
    """Dataset, config and revision; the label where no dataset is on record."""
    name = cell(source.dataset or source.label)
    if on_hub:
        name = f"[{source.dataset}](/datasets/{source.dataset})"
    part = f" ({cell(source.config)})" if source.config else ""
    return name + part + (f" at revision {cell(source.revision)}" if source.revision else "")


def _licence(licence: str | None) -> str:
    if not licence:
        return "made available under a licence that is not on record"
    return f"made available under the licence {cell(licence)}, which {demand(licence)}"


def recipe(facts: RunFacts) -> list[tuple[str, str]]:
    """(setting, value) of the sections that decide what the weights become."""
    config = facts.config
    rows = [
        ("scale", config.scale),
        ("seed", str(config.seed)),
        ("training_seed", str(config.training_seed)),
    ]
    for section in ("data", "exercises", "tokenizer", "model", "counts", "base", "sft", "runtime"):
        values: dict[str, Any] = getattr(config, section).model_dump(mode="json")
        rows += [
            (f"{section}.{key}", "off" if value is None else json.dumps(value))
            for key, value in values.items()
        ]
    return rows


def front_matter(subject: Subject, facts: RunFacts | None) -> str:
    """The YAML that the Hub reads. Values are written as JSON, which every YAML reader takes."""
    fields: dict[str, object] = {
        "license": subject.licence,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": list(TAGS),
    }
    provenance = {item.label: item for item in subject.provenance}
    sources = facts.corpus.sources if facts and facts.corpus else []
    datasets = {
        provenance[source.label].dataset
        for source in sources
        if is_on_hub(source, provenance.get(source.label))
    }
    rows = facts.rows.sources if facts and facts.rows else []
    datasets |= {item.dataset for item in rows if _has_hub_name(item.dataset)}
    if datasets:
        fields["datasets"] = sorted(datasets, key=str)
    results = list(index_results(facts)) if facts and subject.scored else []
    if results:
        fields["model-index"] = [{"name": subject.model_name, "results": results}]
    # YAML takes JSON, but no control characters beyond those that JSON escapes.
    return "".join(
        f"{key}: {printable_line(json.dumps(value, ensure_ascii=False))}\n"
        for key, value in fields.items()
    )


def index_results(facts: RunFacts) -> Iterator[dict[str, object]]:
    """The results of the card's `model-index`: the skills, and each benchmark of the Hub.

    The skills have a name of our own, since they are no leaderboard's task. A benchmark from a
    local file has no dataset that the form could name; the table on the card shows it.
    """
    scores = facts.scores
    if scores is None:
        return
    skills = [
        metric
        for skill, score in scores.skills.items()
        for metric in _metric("accuracy", skill, score.all)
    ]
    yield from _result({"type": "picochat-skills", "name": "picochat-skills"}, skills)
    benchmarks = facts.benchmarks.benchmarks if facts.benchmarks else {}
    for name, score in scores.external.items():
        found = benchmarks.get(name)
        if found is None or found.dataset is None:
            continue
        dataset = {
            "type": found.dataset,
            "name": name,
            "config": found.config,
            "split": found.split,
            "revision": found.revision,
        }
        metrics = [
            *_metric("accuracy", "acc, zero-shot", score.acc),
            *_metric("acc_norm", "acc_norm, zero-shot", score.acc_norm),
        ]
        yield from _result({key: value for key, value in dataset.items() if value}, metrics)


def _result(
    dataset: dict[str, str], metrics: list[dict[str, object]]
) -> Iterator[dict[str, object]]:
    if metrics:
        yield {"task": {"type": "text-generation"}, "dataset": dataset, "metrics": metrics}


def _metric(type: str, name: str, rate: Rate | None) -> Iterator[dict[str, object]]:
    if rate is not None and rate.fraction is not None:
        name = f"{name} ({rate.passed} of {rate.count})"
        yield {"type": type, "name": name, "value": rate.fraction}
