"""A finished run on one screen: verdict, curve, a few replies, and where everything lies.

Reads artifacts only. Plain text, so that it survives a pipe; what a model wrote is shown with its
control characters by number, so that it cannot steer the terminal.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from picochat.core.journal import read_journal
from picochat.core.records import read_jsonl
from picochat.evals.eval_records import EvaluatedRow
from picochat.facts import GateFacts, ScoresFacts, TrainFacts, facts_of
from picochat.gate.measures import JUDGED_SKILLS
from picochat.gate.render import counts_text, finding_lines
from picochat.present.printable import one_line
from picochat.present.terminal import columns, text_chart
from picochat.present.values import fraction, loss, quantity, rate
from picochat.run.folder import RunDir

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
    """Held-out bits per byte over the base steps as a chart, and the numbers to compare it with."""
    rows = read_journal(run.place("base") / "curve.jsonl")
    points = [
        (row["step"], row["held_out_bits_per_byte"])
        for row in rows
        if row["held_out_bits_per_byte"] is not None
    ]
    base = facts_of(run.artifact("base"), TrainFacts)
    return [
        "held-out bits per byte of the base model, by step",
        *text_chart(points),
        f"base model {loss(scores.base_bits_per_byte)} after {quantity(base.tokens)} tokens; a"
        f" 5-gram model of {quantity(scores.ngram_train_tokens)} tokens"
        f" {loss(scores.ngram_bits_per_byte)}",
    ]


def skill_lines(scores: ScoresFacts, gate: GateFacts) -> list[str]:
    """Clean pass rates with the gate's bound, and the base model and chance to compare with."""
    bounds = {finding.name: finding.bound for finding in gate.findings}
    rows = [("skill", "clean rows", "must be", "base model", "chance")]
    asked = {name: skill for name, skill in scores.skills.items() if skill.all.count}
    for name in (name for name in JUDGED_SKILLS if name in asked):
        skill = asked[name]
        bound = bounds.get(f"skill_release_eval_{name}", "")
        rows.append((name, rate(skill.clean), bound, rate(skill.base), fraction(skill.chance)))
    lines = columns(rows, right=(2, 4)) if asked else []
    if scores.own:
        own = [("own rows", "clean rows", "base model")]
        own += [
            (one_line(category, ONE_LINE), rate(score.clean), rate(score.base))
            for category, score in scores.own.items()
        ]
        lines += [*([""] if lines else []), *columns(own)]
    return lines


def reply_lines(asked: Sequence[EvaluatedRow]) -> list[str]:
    """The first eval rows of each skill, one that passed where there is one."""
    lines: list[str] = []
    shown: dict[str, int] = {}
    for item in asked:
        if item.set != "eval" or shown.get(item.skill, 0) >= REPLIES_SHOWN:
            continue
        shown[item.skill] = shown.get(item.skill, 0) + 1
        texts = (("expected", item.expected), ("base", item.base_reply), ("chat", item.reply))
        lines.append(f"  {item.skill}: {one_line(item.prompt, ONE_LINE)}")
        lines += [f"      {name:8}  {one_line(text or '', ONE_LINE)}" for name, text in texts]
    return lines
