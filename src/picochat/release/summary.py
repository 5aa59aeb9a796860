"""The summary of a run: what it claims, rendered from the artifacts' facts and from nothing else.

`claims` is pure over the published artifacts and run.json, so that anyone can make it again from a
bundle and compare. Clock and machine are not claims: they stand in the pages (`observed`), which
are observations. A run that is not finished gives a summary of what is there; what is missing is
null, never a guess.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from itertools import islice
from typing import Any, TypeVar

from picochat.config import ResolvedConfig, RunConfig
from picochat.core.charts import thin
from picochat.core.errors import BadInput
from picochat.core.journal import read_journal
from picochat.core.machine import MachineRecord
from picochat.core.publish import Draft
from picochat.core.records import (
    Record,
    canonical_json,
    parse_record,
    plain,
    pretty_json,
    read_jsonl,
    read_record,
    write_atomic,
    write_json,
)
from picochat.evals.eval_records import EvaluatedRow
from picochat.evals.scores import Judged, judge
from picochat.gate.evidence import PreflightReport
from picochat.gate.measures import JUDGED_SKILLS
from picochat.gate.render import WORST_FIRST
from picochat.release.curves import gate_chart, loss_chart
from picochat.release.evidence import provenance_of
from picochat.release.report import html_page, markdown_page
from picochat.rundir import (
    PLACES,
    ConversationsFacts,
    CorpusFacts,
    FindingRecord,
    GateFacts,
    HonestyFacts,
    HostFacts,
    ParityFacts,
    PracticeFacts,
    PreflightFacts,
    RowsFacts,
    RunDir,
    ScoresFacts,
    ShardsFacts,
    TokenizerFacts,
    TrainFacts,
    facts_of,
)
from picochat.skills.rows import EvalRow, read_published_rows

SUMMARY_SCHEMA_VERSION = 2
SAMPLED_REPLIES = 4  # of each skill, half of them failing where there are any
SHOWN_HITS = 20
SHOWN_SPEEDS = 200
PARTS_OF_SFT = ("SFT",)  # of the forecast; every other part belongs to the base stage
F = TypeVar("F", bound=Record)


class StageSpeed(Record):
    """How fast the training steps of a stage were. MFU counts attention as non-causal."""

    hours: float
    tokens_per_second: float
    mfu: float | None


def write_summary(run: RunDir, config: RunConfig, draft: Draft) -> None:
    """The claims, what was observed, and the pages and charts of both. Raises BadInput where
    run.json differs.

    What clock and machine said is kept in observed.json, because run.json's neighbours (machine
    record, timings) go on changing with every later command, and the pages must be the same when
    they are rendered again.
    """
    if canonical_json(config) != canonical_json(_config(run)):
        raise BadInput(
            f"{run.config} states another configuration than this run has",
            fix="choose another --out-dir",
        )
    seen = observed(run)
    write_json(draft.observation("observed.json"), seen)
    for name, data in rendered(run, seen).items():
        path = (
            draft.observation(name) if name in ("summary.md", "report.html") else draft.path(name)
        )
        write_atomic(path, data)


def rendered(run: RunDir, seen: dict[str, Any]) -> dict[str, bytes]:
    """Every page and chart of the summary, by name.

    The same run folder and observations give the same bytes.
    """
    claimed = claims(run)
    curves = {stage: read_journal(run.place(stage) / "curve.jsonl") for stage in ("base", "sft")}
    loss, gate = loss_chart(claimed, curves["base"]), gate_chart(claimed)
    return {
        "summary.json": pretty_json(claimed),
        "summary.md": markdown_page(claimed, seen).encode(),
        "report.html": html_page(claimed, seen, curves).encode(),
        "loss.svg": loss.encode(),
        "gate.svg": gate.encode(),
    }


def claims(run: RunDir) -> dict[str, Any]:
    """What the run claims: verdict, model, data, training, skills, contamination, a sample of
    replies, digests.
    """
    config = _config(run)
    scores = _facts(run, "scores", ScoresFacts)
    claimed = {
        "schema_version": SUMMARY_SCHEMA_VERSION,
        "scale": config.scale,
        "seed": config.seed,
        "profile": config.gate.profile,
        "verdict": _verdict(_facts(run, "gate", GateFacts)),
        "preflight": _preflight(_facts(run, "preflight", PreflightFacts)),
        "model": {**plain(config.model), "vocab_size": config.tokenizer.vocab_size},
        "data": _data(run),
        "training": {stage: _facts(run, stage, TrainFacts) for stage in ("base", "sft")},
        "held_out_curve": _held_out_curve(run),
        "scores": scores,
        "skills": list(_skills_in_order(scores)),
        "contamination": _contamination(run),
        "export": _facts(run, "parity", ParityFacts),
        "replies": sample_replies(run),
        "artifacts": {
            place.kind: run.artifact(place.kind).digest
            for place in PLACES
            if _counts(run, place.kind)
        },
    }
    return plain(claimed)


def observed(run: RunDir) -> dict[str, Any]:
    """What clock and machine said: time, speed, cost, host. Not part of any claim."""
    config = _config(run)
    metrics = {stage: read_journal(run.place(stage) / "metrics.jsonl") for stage in ("base", "sft")}
    speeds = {stage: stage_speed(rows) for stage, rows in metrics.items()}
    hours_of = _stage_hours(run, speeds)
    hours, price = sum(hours_of.values()) if hours_of else None, config.gate.gpu_hour_usd
    host, preflight = run.place("host") / "host.json", run.place("preflight") / "preflight.json"
    report = (
        read_record(PreflightReport, preflight, "preflight report") if preflight.exists() else None
    )
    forecast = _forecast(report)
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
            read_record(MachineRecord, run.machine, "machine record")
            if run.machine.exists()
            else None
        ),
        "host": read_record(HostFacts, host, "host measurements") if host.exists() else None,
        "preflight": report,
    }
    return plain(seen)


def _forecast(report: PreflightReport | None) -> dict[str, float]:
    """Hours that the preflight foretold for both stages of training, evaluations, states and
    compiling included.
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


def _stage_hours(run: RunDir, speeds: dict[str, StageSpeed | None]) -> dict[str, float]:
    """Hours of each stage that this run folder made, by the clock; of a resumed stage at least its
    steps.
    """
    hours: dict[str, float] = {}
    for row in read_journal(run.timings):
        hours[row["stage"]] = row["seconds"] / 3600
    for stage, speed in speeds.items():
        if speed is not None:
            hours[stage] = max(hours.get(stage, 0.0), speed.hours)
    return {
        place.kind: hours[place.kind]
        for place in PLACES
        if place.kind in hours and place.kind != "summary"
    }


def stage_speed(rows: list[dict[str, Any]]) -> StageSpeed | None:
    """Hours of training steps, mean tokens/s and MFU from a metrics journal; None where it states
    no speed.

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


def sample_replies(run: RunDir) -> list[dict[str, Any]]:
    """Some eval replies of each skill for reading, failing ones first: those whose ids have the
    smallest SHA-256.

    A hash knows nothing of replies, so the choice follows neither from how good they are nor from
    who trained the model.
    """
    if not run.has("scores") or not run.has("rows"):
        return []
    rows = {
        row.id: row for row in read_published_rows(run.artifact("rows").path("eval.jsonl"), EvalRow)
    }
    chosen: dict[tuple[str, bool], list[Judged]] = {}
    for number, value in read_jsonl(run.artifact("scores").path("replies.jsonl"), "replies"):
        asked = parse_record(EvaluatedRow, value, f"replies.jsonl, line {number}")
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


def _config(run: RunDir) -> RunConfig:
    return read_record(ResolvedConfig, run.config, "configuration").config


def _facts(run: RunDir, kind: str, model: type[F]) -> F | None:
    return facts_of(run.artifact(kind), model) if run.has(kind) else None


def _counts(run: RunDir, kind: str) -> bool:
    """The summary does not speak of itself, and the host artifact holds observations alone."""
    return run.has(kind) and kind not in ("summary", "host")


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


def _data(run: RunDir) -> dict[str, Any]:
    return {
        "corpus": _facts(run, "corpus", CorpusFacts),
        "practice": _facts(run, "practice", PracticeFacts),
        "provenance": {item.label: asdict(item) for item in provenance_of(run)},
        "rows": _facts(run, "rows", RowsFacts),
        "tokenizer": _facts(run, "tokenizer", TokenizerFacts),
        "shards": _facts(run, "shards", ShardsFacts),
        "conversations": _facts(run, "conversations", ConversationsFacts),
    }


def _held_out_curve(run: RunDir) -> list[dict[str, float]]:
    rows = read_journal(run.place("base") / "curve.jsonl")
    keys = ("step", "tokens", "held_out_bits_per_byte")
    return [
        {key: row[key] for key in keys}
        for row in rows
        if row.get("held_out_bits_per_byte") is not None
    ]


def _skills_in_order(scores: ScoresFacts | None) -> list[str]:
    found = scores.skills if scores else {}
    return [skill for skill in JUDGED_SKILLS if skill in found] + sorted(
        set(found) - set(JUDGED_SKILLS)
    )


def _contamination(run: RunDir) -> dict[str, Any] | None:
    """The scan's counts, and the first of its hits with their coordinates; all of them are in
    honesty/hits.jsonl.
    """
    honesty = _facts(run, "honesty", HonestyFacts)
    if honesty is None:
        return None
    counts = plain(honesty.model_dump(exclude={"dirty_eval_rows", "dirty_external_rows"}))
    found = run.place("honesty") / "hits.jsonl"
    hits = (
        list(islice((value for _, value in read_jsonl(found, "hits")), SHOWN_HITS))
        if found.exists()
        else []
    )
    return {**counts, "dirty_eval_rows": len(honesty.dirty_eval_rows), "hits": hits}
