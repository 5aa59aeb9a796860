"""What a verdict comes to in a sentence or two: which rules fail, how far, what to do first.

A pure function of the findings, so terminal, Markdown and HTML say the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from picochat.facts import FindingRecord

NEAR = 0.75
"""A rate is near its bound if it reaches this fraction of it."""
SKILL_RULE = re.compile(r"skill_release_(?:eval|stage)_(\w+)")
LOWEST = re.compile(r">=? ([\d.]+)")
SHOWN_RULES = 5


def conclusion(findings: Sequence[FindingRecord]) -> str:
    """One or two sentences; of the rules that block if any does, else of those that warn."""
    failing = [f for f in findings if f.status == "block"]
    failing = failing or [f for f in findings if f.status == "warn"]
    if not failing:
        unmeasured = [f.name for f in findings if f.status == "unmeasured"]
        return f"Not measured: {_listed(unmeasured)}." if unmeasured else "Every rule passes."
    by_skill = {
        match.group(1): finding
        for finding in reversed(failing)
        if (match := SKILL_RULE.fullmatch(finding.name))
    }
    others = [f.name for f in failing if not SKILL_RULE.fullmatch(f.name)]
    sentences: list[str] = []
    if "base_beats_baseline" in others:
        others.remove("base_beats_baseline")
        sentences.append(
            "The base model predicts text hardly better than a count of 5-grams: train it longer"
            " (--base-steps N) or on more text."
        )
    if by_skill:
        sentences.append(_on_skills(by_skill))
    if others:
        more = "Also" if sentences else "These rules"
        sentences.append(f"{more} fail: {_listed(others)}.")
    return " ".join(sentences)


def _on_skills(by_skill: dict[str, FindingRecord]) -> str:
    """How far the failing skills are from their bounds, and what to do."""
    far = sorted(skill for skill, finding in by_skill.items() if not is_near(finding))
    near = sorted(skill for skill, finding in by_skill.items() if is_near(finding))
    parts = [f"{_listed(far)} {_be(far)} far from the bound"] if far else []
    parts += [f"{_listed(near)} {_be(near)} near {'it' if far else 'the bound'}"] if near else []
    said = ", ".join(parts)
    what = (
        "train SFT longer (--sft-steps N)"
        if near and not far
        else "train SFT longer (--sft-steps N) or with more rows (--sft-rows N of task-pack)"
    )
    return f"{said[0].upper()}{said[1:]}: {what}."


def is_near(finding: FindingRecord) -> bool:
    """Whether a rate reaches three quarters of its lower bound; never without a measurement."""
    bound = LOWEST.fullmatch(finding.bound)
    if finding.measured is None or bound is None:
        return False
    return finding.measured >= NEAR * float(bound.group(1))


def _be(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:SHOWN_RULES])
    more = len(names) - len(shown)
    if more > 0:
        return f"{', '.join(shown)} and {more} more"
    return " and ".join([*([", ".join(shown[:-1])] if shown[:-1] else []), *shown[-1:]])
