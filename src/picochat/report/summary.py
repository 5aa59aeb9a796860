"""The summary of a run: what it claims, rendered from the artifacts' facts and from nothing else.

`claims` is pure over the published artifacts and run.json, so that anyone can make it again from a
bundle and compare. Clock and machine are not claims: they stand in the pages (`observed`), which
are observations. A run that is not finished gives a summary of what is there; what is missing is
null, never a guess.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from picochat.core.journal import read_journal
from picochat.core.machine import MachineRecord
from picochat.core.publish import StagingFolder
from picochat.core.records import (
    Record,
    pretty_json,
    read_json,
    read_jsonl,
    read_record,
    to_jsonable,
    write_atomic,
    write_json,
)
from picochat.evals.eval_records import read_replies
from picochat.evals.scores import Judged, judge
from picochat.facts import (
    FindingRecord,
    GateFacts,
    PreflightFacts,
    PreflightReport,
    RunFacts,
    ScoresFacts,
)
from picochat.gate.conclusion import conclusion
from picochat.gate.measures import JUDGED_SKILLS, best_trivial
from picochat.present.charts import thin
from picochat.present.labels import WORST_FIRST
from picochat.report.curves import gate_chart, loss_chart
from picochat.report.sections import html_page, markdown_page
from picochat.skills.task_rows import EvalRow, read_published_rows

SUMMARY_SCHEMA_VERSION = 2
SAMPLED_REPLIES = 4  # of each skill, half of them failing where there are any
SHOWN_HITS = 20
SHOWN_SPEEDS = 200
PARTS_OF_SFT = ("SFT",)  # of the forecast; every other part belongs to the base stage
WITHOUT_CLAIMS = ("summary", "host")  # itself, and what holds observations alone


class StageSpeed(Record):
    """How fast the training steps of a stage were. MFU counts attention as non-causal."""

    hours: float
    tokens_per_second: float
    mfu: float | None


def write_summary(facts: RunFacts, timings: Path, machine: Path, staging: StagingFolder) -> None:
    """Write the claims, what was observed, and the pages and charts of both.

    timings, machine: timings.jsonl and machine.json of the run folder. They go on changing with
    every later command, so what they said is kept in observed.json: the pages must be the same
    when they are rendered again.
    """
    seen = observed(facts, timings, machine)
    write_json(staging.volatile("observed.json"), seen)
    for name, data in rendered(facts, seen).items():
        path = (
            staging.volatile(name) if name in ("summary.md", "report.html") else staging.path(name)
        )
        write_atomic(path, data)


def rendered(facts: RunFacts, seen: dict[str, Any]) -> dict[str, bytes]:
    """Every page and chart of the summary, by name.

    The same artifacts and observations give the same bytes.
    """
    claimed = claims(facts)
    curves = {stage: _journal(facts, stage, "curve.jsonl") for stage in ("base", "sft")}
    loss, gate = loss_chart(claimed, curves["base"]), gate_chart(claimed)
    return {
        "summary.json": pretty_json(claimed),
        "summary.md": markdown_page(claimed, seen).encode(),
        "report.html": html_page(claimed, seen, curves).encode(),
        "loss.svg": loss.encode(),
        "gate.svg": gate.encode(),
    }


def _journal(facts: RunFacts, kind: str, name: str) -> list[dict[str, Any]]:
    """The rows of an artifact's journal; none where there is no such artifact."""
    return read_journal(facts.artifacts[kind].path(name)) if kind in facts.artifacts else []


def claims(facts: RunFacts) -> dict[str, Any]:
    """What the run claims: verdict, model, data, training, skills, contamination, replies."""
    config = facts.config
    claimed = {
        "schema_version": SUMMARY_SCHEMA_VERSION,
        "scale": config.scale,
        "seed": config.seed,
        "training_seed": config.training_seed,
        "profile": config.gate.profile,
        "verdict": _verdict(facts.gate),
        "conclusion": conclusion(facts.gate.findings) if facts.gate else None,
        "preflight": _preflight(facts.preflight),
        "model": {**to_jsonable(config.model), "vocab_size": config.tokenizer.vocab_size},
        "data": {
            "corpus": facts.corpus,
            "exercises": facts.exercises,
            "provenance": {item.label: asdict(item) for item in provenance_of(facts)},
            "rows": facts.rows,
            "tokenizer": facts.tokenizer,
            "shards": facts.shards,
            "conversations": facts.conversations,
        },
        "training": {"base": facts.base, "sft": facts.sft},
        "held_out_curve": _held_out_curve(facts),
        "scores": facts.scores,
        "trivial": {
            skill: best_trivial(facts, skill)
            for skill in (facts.trivial.skills if facts.trivial else ())
        },
        "skills": list(_skills_in_order(facts.scores)),
        "contamination": _contamination(facts),
        "export": facts.parity,
        "replies": sample_replies(facts),
        "artifacts": {
            kind: artifact.digest
            for kind, artifact in facts.artifacts.items()
            if kind not in WITHOUT_CLAIMS
        },
    }
    return to_jsonable(claimed)


def observed(facts: RunFacts, timings: Path, machine: Path) -> dict[str, Any]:
    """What clock and machine said: time, speed, cost, host. Not part of any claim."""
    metrics = {stage: _journal(facts, stage, "metrics.jsonl") for stage in ("base", "sft")}
    speeds = {stage: stage_speed(rows) for stage, rows in metrics.items()}
    hours_of = _stage_hours(facts, timings, speeds)
    hours = sum(hours_of.values()) if hours_of else None
    price = facts.config.gate.gpu_hour_usd
    forecast = _forecast(facts.preflight_report)
    seen = {
        "stages": speeds,
        "speeds": {stage: thin(_speeds(rows), SHOWN_SPEEDS) for stage, rows in metrics.items()},
        "hours_of": [
            {
                "stage": stage,
                "hours": spent,
                "forecast": forecast.get(stage),
                "usd": spent * price if price else None,
            }
            for stage, spent in hours_of.items()
        ],
        "hours": hours,
        "usd": hours * price if hours is not None and price is not None else None,
        "gpu_hour_usd": price,
        "machine": (
            read_record(MachineRecord, machine, "machine record") if machine.exists() else None
        ),
        "host": facts.host,
        "preflight": facts.preflight_report,
    }
    return to_jsonable(seen)


def _forecast(report: PreflightReport | None) -> dict[str, float]:
    """Hours that the preflight forecast for each stage of training.

    They include evaluations, saved states and compiling.
    """
    parts = report.plan.hours_of if report else {}
    if not parts:
        return {}
    sft = sum(hours for part, hours in parts.items() if part in PARTS_OF_SFT)
    return {"base": sum(parts.values()) - sft, "sft": sft}


def _speeds(rows: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """(step, tokens/s) of each report."""
    return [
        (float(row["step"]), row["tokens_per_second"])
        for row in rows
        if row.get("tokens_per_second") is not None
    ]


def _stage_hours(
    facts: RunFacts, timings: Path, speeds: dict[str, StageSpeed | None]
) -> dict[str, float]:
    """Hours of each stage by the clock, as last made; of a resumed stage at least its steps."""
    hours = {row["stage"]: row["seconds"] / 3600 for row in read_journal(timings)}
    for stage, speed in speeds.items():
        if speed is not None:
            hours[stage] = max(hours.get(stage, 0.0), speed.hours)
    return {kind: hours[kind] for kind in facts.artifacts if kind in hours and kind != "summary"}


def stage_speed(rows: list[dict[str, Any]]) -> StageSpeed | None:
    """Hours of training steps, mean tokens/s and MFU; None where the journal states no speed.

    Each row's speed is taken for the tokens since the row before. Evaluations and checkpoints
    between rows do not count.
    """
    seconds = tokens = weighted_mfu = mfu_tokens = 0.0
    before = 0
    for row in rows:
        count, speed, mfu = (
            row.get("tokens", 0) - before,
            row.get("tokens_per_second"),
            row.get("mfu"),
        )
        before = max(before, row.get("tokens", 0))
        if not speed or count <= 0:
            continue
        seconds, tokens = seconds + count / speed, tokens + count
        if mfu is not None:
            weighted_mfu, mfu_tokens = weighted_mfu + mfu * count, mfu_tokens + count
    if not tokens:
        return None
    mfu = weighted_mfu / mfu_tokens if mfu_tokens else None
    return StageSpeed(hours=seconds / 3600, tokens_per_second=tokens / seconds, mfu=mfu)


def sample_replies(facts: RunFacts) -> list[dict[str, Any]]:
    """Some eval replies of each skill for reading, failing ones first.

    They are those whose ids have the smallest SHA-256. A hash knows nothing of replies, so the
    choice follows neither from how good they are nor from who trained the model.
    """
    if "scores" not in facts.artifacts or "rows" not in facts.artifacts:
        return []
    evals = read_published_rows(facts.artifacts["rows"].path("eval.jsonl"), EvalRow)
    rows = {row.id: row for row in evals}
    chosen: dict[tuple[str, bool], list[Judged]] = {}
    for asked in read_replies(facts.artifacts["scores"].place):
        if asked.set == "eval" and asked.id in rows:
            judged = judge(rows[asked.id], asked)
            kept = chosen.setdefault((asked.skill, judged.passed), [])
            kept.append(judged)
            kept.sort(key=lambda item: hashlib.sha256(item.asked.id.encode()).digest())
            del kept[SAMPLED_REPLIES // 2 :]
    return [_shown_reply(judged) for key in sorted(chosen) for judged in chosen[key]]


def _shown_reply(judged: Judged) -> dict[str, Any]:
    asked = judged.asked.model_dump(
        include={"id", "skill", "stage", "prompt", "expected", "reply", "base_reply"}
    )
    return {
        **asked,
        "passed": judged.passed,
        "base_passed": judged.base_passed,
        "reason": judged.reason,
    }


def _verdict(gate: GateFacts | None) -> dict[str, Any]:
    findings = gate.findings if gate else []
    return {
        "status": gate.status if gate else "unfinished",
        "weakest_skill": gate.weakest_skill if gate else None,
        "blocking": _names(findings, "block"),
        "warning": _names(findings, "warn"),
        "unmeasured": _names(findings, "unmeasured"),
        "counts": {status: len(_names(findings, status)) for status in WORST_FIRST},
        "findings": findings,
    }


def _preflight(preflight: PreflightFacts | None) -> dict[str, Any]:
    findings = preflight.findings if preflight else []
    return {
        "status": preflight.status if preflight else "unfinished",
        "blocking": _names(findings, "block"),
        "warning": _names(findings, "warn"),
        "unmeasured": _names(findings, "unmeasured"),
    }


def _names(findings: list[FindingRecord], status: str) -> list[str]:
    return [finding.name for finding in findings if finding.status == status]


def _held_out_curve(facts: RunFacts) -> list[dict[str, float]]:
    keys = ("step", "tokens", "held_out_bits_per_byte")
    return [
        {key: row[key] for key in keys}
        for row in _journal(facts, "base", "curve.jsonl")
        if row.get("held_out_bits_per_byte") is not None
    ]


def _skills_in_order(scores: ScoresFacts | None) -> list[str]:
    """The skills that the pack has eval rows of, those that the gate judges first."""
    found = {name for name, score in (scores.skills if scores else {}).items() if score.all.count}
    return [skill for skill in JUDGED_SKILLS if skill in found] + sorted(found - set(JUDGED_SKILLS))


def _contamination(facts: RunFacts) -> dict[str, Any] | None:
    """The scan's counts and its first hits with coordinates; honesty/hits.jsonl has all of them."""
    honesty = facts.honesty
    if honesty is None:
        return None
    counts = to_jsonable(
        honesty.model_dump(exclude={"contaminated_eval_rows", "contaminated_external_rows"})
    )
    rows = read_jsonl(facts.artifacts["honesty"].path("hits.jsonl"), "hits")
    hits = [value for _, value in islice(rows, SHOWN_HITS)]
    return {**counts, "contaminated_eval_rows": len(honesty.contaminated_eval_rows), "hits": hits}


@dataclass(frozen=True)
class Provenance:
    """Where one imported source came from, by its import report. None: the report does not say."""

    label: str
    dataset: str | None
    config: str | None
    revision: str | None


def provenance_of(facts: RunFacts) -> tuple[Provenance, ...]:
    """Where each imported source came from: one for each import report of the corpus, by label."""
    if "corpus" not in facts.artifacts:
        return ()
    reports = sorted(facts.artifacts["corpus"].path("import_reports").glob("*.json"))
    return tuple(_stated_by(path.stem, read_json(path, "import report")) for path in reports)


def _stated_by(label: str, report: dict[str, object]) -> Provenance:
    def text(key: str) -> str | None:
        value = report.get(key)
        return value if isinstance(value, str) and value else None

    return Provenance(label, text("dataset"), text("config_name"), text("revision"))
