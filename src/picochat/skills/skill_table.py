"""SKILLS: every skill of the project, one record each; what others list of skills follows from it.

To add a skill, write its module with a `Skill` record and its data file, and list the record here.
"""

from __future__ import annotations

from picochat.skills import arithmetic, choice, identity, refusal, spelling
from picochat.skills.skill import Claim, Skill

# Rows are made and mixed in this order, so another order gives other bytes: append at the end.
SKILLS: tuple[Skill, ...] = (
    arithmetic.SKILL,
    spelling.SKILL,
    identity.SKILL,
    choice.SKILL,
    refusal.SKILL,
)

OTHER = "other"
"""The skill of a row whose category belongs to none."""


def judged() -> tuple[tuple[Skill, Claim], ...]:
    """The skills that the release gate judges, with what it demands, in the order of its table."""
    judged = [(skill, skill.claim) for skill in SKILLS if skill.claim is not None]
    return tuple(sorted(judged, key=lambda pair: pair[1].order))


def skill_of(category: str) -> str:
    """The skill of a category such as bench_math_addition; `other` where it belongs to none."""
    for skill in SKILLS:
        for prefix in skill.category_prefixes:
            if category == prefix or category.startswith(prefix + "_"):
                return skill.name
    return OTHER
