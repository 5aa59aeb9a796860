"""The charts of a run, drawn from its claims, its curves and what the clock said.

Decides nothing and reads no file; how a chart looks is decided in present/charts.py.

Losses of base training are shown in bits per byte, so that batches, held-out text and the 5-gram
model share one axis: nats per token become bits per byte at the mean tokens per byte of the
training shards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from picochat.facts import FindingRecord
from picochat.gate.render import counts_text, measured_text, worst_first
from picochat.present.charts import (
    NARROW,
    WIDE,
    Bar,
    Frame,
    Line,
    Point,
    VerdictRow,
    bar_chart,
    line_chart,
    thin,
    verdict_table,
)
from picochat.present.labels import STAGES
from picochat.present.values import loss, quantity
from picochat.present.values import rate as rate_text

Rows = Sequence[Mapping[str, Any]]


def page_charts(
    claimed: dict[str, Any], seen: dict[str, Any], curves: Mapping[str, Rows]
) -> dict[str, str]:
    """The charts of report.html by name, each as SVG."""
    return {
        "loss": loss_chart(claimed, curves["base"], NARROW),
        "sft_loss": sft_loss_chart(curves["sft"]),
        "rate": rate_chart(curves),
        "speed": speed_chart(seen.get("speeds", {})),
        "skills": skills_chart(claimed),
        **{f"levels_{skill}": levels_chart(claimed, skill) for skill in claimed["skills"]},
    }


def loss_chart(claimed: dict[str, Any], curve: Rows, frame: Frame = WIDE) -> str:
    """Base training in bits per byte: batches, held-out text as measured, the 5-gram line."""
    shards, scores = claimed["data"]["shards"], claimed["scores"]
    lines: list[Line] = []
    if shards and shards["train_text_bytes"]:
        bits = shards["train_tokens"] / shards["train_text_bytes"] / math.log(2)
        batches = [
            (float(row["tokens"]), row["loss"] * bits)
            for row in curve
            if row.get("loss") is not None
        ]
        lines.append(Line("training batches", thin(batches)))
    held_out = [
        (float(row["tokens"]), row["held_out_bits_per_byte"]) for row in claimed["held_out_curve"]
    ]
    lines.append(Line("held-out text", held_out, dots=True))
    ngram = scores["ngram_bits_per_byte"] if scores else None
    references: list[tuple[str, float]] = []
    if ngram is not None:
        seen = quantity(scores["ngram_train_tokens"])
        references = [(f"5-gram model of {seen} tokens {loss(ngram)}", ngram)]
    return line_chart(
        "Base training", lines, "tokens trained on", "bits per byte", references, frame
    )


def sft_loss_chart(curve: Rows) -> str:
    """Losses of fine-tuning on the assistant's tokens: training batches and held-out rows."""
    lines = [
        Line("training batches", thin(_points(curve, "step", "loss"))),
        Line("held-out rows", _points(curve, "step", "held_out_loss"), dots=True),
    ]
    return line_chart("Fine-tuning", lines, "steps", "nats per target token", (), NARROW)


def rate_chart(curves: Mapping[str, Rows]) -> str:
    """Both stages' learning rates as fractions of their peaks, over the course of each stage."""
    lines: list[Line] = []
    for stage, name in STAGES.items():
        points = _points(curves[stage], "step", "lr_fraction")
        last = points[-1][0] if points else 1.0
        lines.append(Line(name, thin([(step / last, fraction) for step, fraction in points])))
    return line_chart(
        "Learning rate",
        lines,
        "fraction of the stage's steps",
        "fraction of the peak rate",
        (),
        NARROW,
        least=0.0,
    )


def speed_chart(speeds: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """Tokens/s as the clock saw them."""
    lines: list[Line] = []
    for stage, name in STAGES.items():
        points = [(float(step), float(speed)) for step, speed in speeds.get(stage, ())]
        last = points[-1][0] if points else 1.0
        lines.append(Line(name, [(step / last, speed) for step, speed in points]))
    return line_chart(
        "Speed", lines, "fraction of the stage's steps", "tokens/s", (), NARROW, least=0.0
    )


def skills_chart(claimed: dict[str, Any]) -> str:
    """Clean pass rates with intervals; marks for the gate's bound, the base model and chance."""
    bars: list[Bar] = []
    for skill in claimed["skills"]:
        score = claimed["scores"]["skills"][skill]
        marks = (
            bound_value(claimed, f"skill_release_eval_{skill}"),
            score["base"]["fraction"],
            score["chance"],
        )
        bars.append(_bar(skill, score["clean"], marks))
    return bar_chart(
        "Skills: clean rows that pass", bars, ["bound of the gate", "base model", "chance"]
    )


def levels_chart(claimed: dict[str, Any], skill: str) -> str:
    """Pass rates of a skill's levels, and the bound of the lowest; empty with one level or none."""
    levels = claimed["scores"]["skills"][skill]["levels"]
    if len(levels) < 2:
        return ""
    bound = bound_value(claimed, f"skill_release_stage_{skill}")
    bars = [_bar(level, rate, (bound,)) for level, rate in sorted(levels.items())]
    return bar_chart(f"Levels of {skill}", bars, ["bound of the gate"])


def gate_chart(claimed: dict[str, Any]) -> str:
    verdict = claimed["verdict"]
    findings = worst_first(
        [FindingRecord.model_validate(finding) for finding in verdict["findings"]]
    )
    rows = [VerdictRow(f.status, f.name, measured_text(f), f.bound) for f in findings]
    summary = f"profile {claimed['profile']}: {counts_text(findings)}"
    return verdict_table(f"Release gate: {verdict['status']}", rows, summary)


def bound_value(claimed: dict[str, Any], rule: str) -> float | None:
    """The least value that a rule asks for, read from its finding (`>= 0.6`).

    None where the rule was not judged.
    """
    for finding in claimed["verdict"]["findings"]:
        if finding["name"] == rule and finding["bound"].startswith(">"):
            return float(finding["bound"].lstrip(">= ").replace(",", ""))
    return None


def _points(curve: Rows, x: str, y: str) -> list[Point]:
    return [(float(row[x]), float(row[y])) for row in curve if row.get(y) is not None]


def _bar(label: str, rate: Mapping[str, Any], marks: tuple[float | None, ...]) -> Bar:
    return Bar(label, rate["fraction"], rate["low"], rate["high"], rate_text(rate), marks)
