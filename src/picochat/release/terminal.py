"""A finished run on one screen: verdict, curves, a few replies beside what was expected, and where
everything lies.

Reads artifacts only. Plain text, so that it survives a pipe; what a model wrote is shown with its
control characters by number, so that it cannot steer the terminal.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

from picochat.core.journal import read_journal
from picochat.core.plain_text import visible
from picochat.core.records import read_jsonl
from picochat.evals.eval_records import EvaluatedRow
from picochat.evals.scores import interval_text, rate_text
from picochat.facts import GateFacts, ScoresFacts, TrainFacts, facts_of
from picochat.gate.measures import JUDGED_SKILLS
from picochat.gate.render import counts_text, finding_lines
from picochat.run.folder import RunDir

CHART_WIDTH = 64
CHART_HEIGHT = 10
REPLIES_SHOWN = 2
ONE_LINE = 110
WHERE = (("report", "report.html"), ("summary", "summary.md"), ("gate", "gate.md"))


def show_lines(run: RunDir) -> list[str]:
    """The screen of `picochat run show`. Raises BadInput where the run is not finished."""
    gate = facts_of(run.artifact("gate"), GateFacts)
    scores_artifact = run.artifact("scores")
    scores = facts_of(scores_artifact, ScoresFacts)
    asked = [
        EvaluatedRow.model_validate_json(json.dumps(value))
        for _, value in read_jsonl(scores_artifact.path("replies.jsonl"))
    ]
    failed = [finding for finding in gate.findings if finding.status != "pass"]
    lines = [f"release gate: {gate.status} (profile {gate.profile}; {counts_text(gate.findings)})"]
    lines += [f"weakest skill: {gate.weakest_skill}"] if gate.weakest_skill else []
    lines += ["", *finding_lines(failed)] if failed else []
    lines += [
        "",
        *skill_lines(scores, gate),
        "",
        *curve_lines(run, scores),
        "",
        "replies (expected | base model | chat model)",
    ]
    lines += [*reply_lines(asked), "", *(f"{name}: {run.root / file}" for name, file in WHERE)]
    return lines


def curve_lines(run: RunDir, scores: ScoresFacts) -> list[str]:
    """Held-out bits per byte over the base steps, as a chart of text, and the numbers that frame
    it.
    """
    rows = read_journal(run.place("base") / "curve.jsonl")
    points = [
        (row["step"], row["held_out_bits_per_byte"])
        for row in rows
        if row["held_out_bits_per_byte"] is not None
    ]
    base = facts_of(run.artifact("base"), TrainFacts)
    lines = ["held-out bits per byte of the base model, by step", *text_chart(points)]
    ngram = (
        f"{scores.ngram_bits_per_byte:.3f}"
        if scores.ngram_bits_per_byte is not None
        else "not measured"
    )
    final = (
        f"{scores.base_bits_per_byte:.3f}"
        if scores.base_bits_per_byte is not None
        else "not measured"
    )
    lines.append(
        f"base model {final}; a 5-gram model of the same tokens {ngram}; {base.tokens:,} training"
        " tokens"
    )
    return lines


def text_chart(points: Sequence[tuple[float, float]]) -> list[str]:
    """Points (x, y) as rows of text, y downward from its maximum; fewer than two points are listed
    instead.
    """
    if len(points) < 2:
        return [f"  {x:g}: {y:.3f}" for x, y in points]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = min(ys), max(ys)
    grid = [[" "] * CHART_WIDTH for _ in range(CHART_HEIGHT)]
    for column in range(CHART_WIDTH):
        x = xs[0] + (xs[-1] - xs[0]) * column / (CHART_WIDTH - 1)
        y = _interpolated(points, x)
        row = round((high - y) / (high - low) * (CHART_HEIGHT - 1)) if high > low else 0
        grid[row][column] = "*"
    labels = [
        f"{high - (high - low) * row / (CHART_HEIGHT - 1):6.3f}" for row in range(CHART_HEIGHT)
    ]
    lines = [
        f"  {label} |{''.join(cells).rstrip()}" for label, cells in zip(labels, grid, strict=True)
    ]
    return [
        *lines,
        "         +" + "-" * CHART_WIDTH,
        f"          {xs[0]:<{CHART_WIDTH - 8}g}{xs[-1]:>8g}",
    ]


def _interpolated(points: Sequence[tuple[float, float]], x: float) -> float:
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]


def skill_lines(scores: ScoresFacts, gate: GateFacts) -> list[str]:
    """Clean pass rates, which the gate judges, with interval and bound; the base model and chance
    beside.
    """
    bounds = {finding.name: finding.bound for finding in gate.findings}
    lines = [
        f"{'skill':10} {'clean rows':>18} {'95% interval':>16} {'must be':>9} {'base model':>18}"
        f" {'chance':>7}"
    ]
    for name in (name for name in JUDGED_SKILLS if name in scores.skills):
        skill = scores.skills[name]
        rates = f"{rate_text(skill.clean):>18} {interval_text(skill.clean):>16}"
        bound = bounds.get(f"skill_release_eval_{name}", "")
        lines.append(
            f"{name:10} {rates} {bound:>9} {rate_text(skill.base):>18} {skill.chance:>7.2f}"
        )
    return lines


def reply_lines(asked: Sequence[EvaluatedRow]) -> list[str]:
    """The first eval rows of each skill, one that passed where there is one."""
    lines: list[str] = []
    shown: dict[str, int] = {}
    for item in asked:
        if item.set != "eval" or shown.get(item.skill, 0) >= REPLIES_SHOWN:
            continue
        shown[item.skill] = shown.get(item.skill, 0) + 1
        lines += [f"  {item.skill}: {_one_line(item.prompt)}"]
        lines += [
            f"      expected  {_one_line(item.expected)}",
            f"      base      {_one_line(item.base_reply)}",
        ]
        lines += [f"      chat      {_one_line(item.reply)}"]
    return lines


def _one_line(text: str | None) -> str:
    folded = visible(" / ".join((text or "")[:ONE_LINE].splitlines()))
    return folded if len(folded) < ONE_LINE else folded[: ONE_LINE - 3] + "..."
