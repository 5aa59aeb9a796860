"""Every skill of the table: its sides, wordings, levels, categories, rules and claims."""

from __future__ import annotations

import json
import re
import string
import subprocess
import sys
from pathlib import Path

import pytest

from picochat.gate.decide import RELEASE, SKILL_ONLY
from picochat.gate.measures import FIRST_RELEASE_SKILLS, JUDGED_SKILLS
from picochat.gate.release import RULES
from picochat.skills import scoring
from picochat.skills.skill import PROFILES, Claim, Question, Skill, Split, divide_rows
from picochat.skills.skill_table import OTHER, SKILLS, judged, skill_of

ROOT = Path(__file__).parents[2]
REPLIES = ("Hm.", "I cannot help.", "My name is Bob.")  # each breaks a rule of a skill
EACH = pytest.mark.parametrize("skill", SKILLS, ids=[skill.name for skill in SKILLS])


def many(skill: Skill, split: Split) -> list[Question]:
    """So many questions that each level, item and wording of a side has its turn."""
    return skill.make(250 if split == "sft" else 70, split, 42, "scratchpad")


@EACH
def test_no_slot_of_a_wording_stays_empty(skill: Skill) -> None:
    for split in ("sft", "eval"):
        for question in many(skill, split):
            texts = (question.prompt, question.reply, *question.options)
            slots = [name for text in texts for _, name, _, _ in string.Formatter().parse(text)]
            assert slots == [None] * len(texts), question
            assert all(text == text.strip() and text for text in texts), question


@EACH
def test_every_level_is_asked_on_both_sides_and_no_other(skill: Skill) -> None:
    for split in ("sft", "eval"):
        assert {question.level for question in many(skill, split)} == set(skill.levels)


@EACH
def test_every_category_belongs_to_the_skill(skill: Skill) -> None:
    for question in (*many(skill, "sft"), *many(skill, "eval")):
        assert skill_of(question.category) == skill.name


@EACH
def test_items_name_their_skill_so_that_skills_share_none(skill: Skill) -> None:
    for question in (*many(skill, "sft"), *many(skill, "eval")):
        assert question.item.startswith(f"{skill.name}:")


@EACH
def test_a_wording_of_eval_is_none_of_sft(skill: Skill) -> None:
    """With its items cut out of a prompt, what is left is the wording."""

    def wordings(split: Split) -> set[str]:
        found: set[str] = set()
        for question in many(skill, split):
            text = question.prompt.split("\n")[0].lower()
            for part in sorted(question.item.lower().split(":")[1:], key=len, reverse=True):
                text = text.replace(part, "_")
            found.add(text)
        return found

    assert wordings("sft").isdisjoint(wordings("eval"))


def test_names_and_category_prefixes_are_each_skills_own() -> None:
    names = [skill.name for skill in SKILLS]
    prefixes = [prefix for skill in SKILLS for prefix in skill.category_prefixes]
    assert len(names) == len(set(names)) and OTHER not in names
    assert len(prefixes) == len(set(prefixes))
    for skill in SKILLS:
        for prefix in skill.category_prefixes:
            assert skill_of(prefix) == skill_of(f"{prefix}_anything") == skill.name
            assert skill_of(f"{prefix}s") == skill_of(f"my_{prefix}") == OTHER


def test_every_profile_has_a_skill_and_every_skill_a_profile() -> None:
    assert {profile for skill in SKILLS for profile in skill.weights} == set(PROFILES)
    assert all(skill.weights and min(skill.weights.values()) > 0 for skill in SKILLS)


def test_every_judged_skill_has_rows_in_the_profile_of_a_release() -> None:
    without = [skill.name for skill, _ in judged() if "release_skills" not in skill.weights]
    assert without == [], "the preflight blocks a release run where a judged skill has no rows"


def test_every_claim_asks_for_more_than_chance_gives() -> None:
    for skill, claim in judged():
        assert skill.chance < claim.pass_rate <= 1
        assert (claim.above_chance is not None) == (skill.chance > 0)
        if claim.level_pass_rate is not None:
            assert skill.chance < claim.level_pass_rate < claim.pass_rate
            assert len(skill.levels) > 1
    orders = [claim.order for _, claim in judged()]
    assert orders == sorted(set(orders))


def test_the_gate_has_the_rows_of_each_claim_with_its_bounds() -> None:
    found = {(row.name, str(row.block), row.severity) for row in RULES}
    for skill, claim in judged():
        severity = RELEASE if claim.first_release else SKILL_ONLY
        name = f"skill_release_eval_{skill.name}"
        assert (name, f">= {claim.pass_rate}", severity) in found
        assert (name, "> 0", severity) in found  # above the best trivial answer
        for name, bound in rows_besides(skill, claim):
            assert (name, bound, severity) in found
    of_skills = [
        row for row in RULES if row.name.startswith(("skill_release_eval", "skill_release_stage"))
    ]
    levels = [claim for _, claim in judged() if claim.level_pass_rate is not None]
    assert len(of_skills) == 2 * len(judged()) + len(levels)


def rows_besides(skill: Skill, claim: Claim) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    if claim.level_pass_rate is not None:
        rows.append((f"skill_release_stage_{skill.name}", f">= {claim.level_pass_rate}"))
    if claim.above_chance is not None:
        rows.append((f"{skill.name}_adjusted_accuracy", f">= {claim.above_chance}"))
        rows.append((f"{skill.name}_adjusted_accuracy", "> 0"))
    return rows


def test_a_rule_of_one_skill_judges_no_row_of_another() -> None:
    of_skills = {reason: skill.name for skill in SKILLS for reason, _ in skill.rules}
    assert len(of_skills) == sum(len(skill.rules) for skill in SKILLS)
    rules = dict(scoring.RULES)
    for reason, owner in of_skills.items():
        for skill in (each for each in SKILLS if each.name != owner):
            for category in skill.category_prefixes:
                row = scoring.EvalRow(id="1", user="Is that so?", category=category)
                assert not any(rules[reason](row, text) for text in REPLIES)


def test_a_sixth_skill_is_trained_scored_and_judged_with_no_other_edit(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "tests.skills.run_sixth_skill", str(tmp_path)],
        capture_output=True,
        cwd=ROOT,
        env={"PYTHONPATH": ":".join([str(ROOT), *sys.path])},
        text=True,
    )
    assert process.returncode == 0, process.stderr
    made = json.loads(process.stdout)
    weights = {skill.name: skill.weights["full"] for skill in SKILLS if "full" in skill.weights}
    weights["weekdays"] = 0.1
    by_skill = made["eval_by_skill"]
    assert (made["sft_rows"], by_skill["weekdays"]) == (30, 40)
    assert by_skill == divide_rows(sum(by_skill.values()), weights)
    assert made["reason_of_two_days"] == "two_days"
    assert made["exercises"] == 10
    assert made["judged"] == [*JUDGED_SKILLS, "weekdays"]
    assert made["first_release"] == [*FIRST_RELEASE_SKILLS]
    assert made["fraction_passed"] == pytest.approx(2 / 3, abs=0.05)
    assert made["findings"] == {
        "skill_release_eval_weekdays": ["block", ">= 0.7"],
        "skill_release_stage_weekdays": ["pass", ">= 0.25"],
        "weekdays_adjusted_accuracy": ["pass", ">= 0.2"],
    }
    assert made["weakest"] == "weekdays"
    assert re.search(r"\| weekdays \| .* \| later \d+, earlier \d+ \|", made["page"])
    assert "## weekdays" in made["page"]
