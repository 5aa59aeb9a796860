"""What a skill is: the record `Skill`, the questions it asks, and how questions are drawn.

A question is one prompt with its right reply and its rule; an SFT row or an eval row is made of it.
Which side of the split a question is on follows from its item alone, never from the seed, so the
eval rows of one seed stay disjoint from the SFT rows of every other seed. This file knows no skill:
the table of them is `skill_table.py`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar, get_args

from picochat.core.errors import Problem, WrongUsage

Split = Literal["sft", "eval"]
AnswerStyle = Literal["direct", "scratchpad"]
Profile = Literal["release_skills", "release_behavior", "behavior", "weak_skills", "full"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
T = TypeVar("T")
FINAL_ANSWER = "Final answer:"
LONGEST_REPLY_WORDS = 80  # working included; longer replies are rambling, not working


@dataclass(frozen=True)
class Question:
    """One prompt with its right reply and what decides about other replies.

    item: what must not be on both sides: a number pair, a word, a fact, a topic, a phrasing.
    level: the part of the skill, such as `add_carry`; a level is also scored alone.
    subject: what the question asks about, in words, where the answer follows from it.
    final_answer: the answer that a reply must end in; None where other fields decide.
    must_include_any: the reply holds at least one phrase of each group.
    """

    item: str
    category: str
    level: str
    prompt: str
    reply: str
    answerable: bool = True
    final_answer: str | None = None
    must_include_any: tuple[tuple[str, ...], ...] = ()
    options: tuple[str, ...] = ()
    correct_choice: str | None = None
    subject: str | None = None


class ScoredRow(Protocol):
    """What a rule of a skill may read of an eval row."""

    @property
    def user(self) -> str: ...
    @property
    def answerable(self) -> bool: ...
    @property
    def curriculum_stage(self) -> str | None: ...
    @property
    def must_include_any(self) -> list[list[str]]: ...


Rule = tuple[str, Callable[[ScoredRow, str], bool]]
"""(reason, function of row and reply that is true where the reply breaks the rule)."""


@dataclass(frozen=True)
class Claim:
    """What the release gate demands of a judged skill.

    order: where the skill's rows stand among those of the other skills in the gate's table.
    pass_rate: the lowest pass rate on the clean eval rows.
    level_pass_rate: the lowest pass rate of the weakest level; None: levels are not judged.
    above_chance: the lowest (pass rate - chance) / (1 - chance), for a skill with a chance level.
    first_release: whether the profile `first_release` makes this claim, or `skill_release` alone.
    """

    order: int
    pass_rate: float
    first_release: bool
    level_pass_rate: float | None = None
    above_chance: float | None = None
    why: str = "the claim names this skill"


@dataclass(frozen=True)
class Skill:
    """One skill: how its rows are made, how its replies are scored, what the gate demands.

    make: (count, split, seed, answer style) to that many questions.
    chance: the pass rate of a reply that knows nothing.
    levels: the parts of the skill, in the order in which pages list them.
    category_prefixes: a row belongs to the skill if its category is one of these, or begins with
    one of these and an underscore.
    weights: its part of the rows of each profile that has it, relative to the other skills.
    eval_weights: its part of a profile's eval rows, where that is another one.
    rules: what its replies must satisfy besides the rules for all rows in `scoring.py`.
    eval_items: how many items its eval rows can have; a profile's part of more gives all of them.
    None: as many as are asked for.
    exercise_questions: how many of its SFT questions stand among the skill exercises as they are.
    claim: None for a skill that is trained and scored, and not judged.
    """

    name: str
    make: Callable[[int, Split, int, AnswerStyle], list[Question]]
    chance: float
    levels: tuple[str, ...]
    category_prefixes: tuple[str, ...]
    weights: Mapping[Profile, float]
    eval_weights: Mapping[Profile, float] = field(default_factory=dict["Profile", float])
    eval_items: Callable[[], int] | None = None
    rules: tuple[Rule, ...] = ()
    exercise_questions: int = 0
    claim: Claim | None = None


# ---- drawing questions ---------------------------------------------------------------------------


def hash_fraction(text: str) -> float:
    """A number in [0, 1) that follows from the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def side_of(item: str, held_out_fraction: float) -> Split:
    """The side of the split that an item is on, the same for every seed."""
    return "eval" if hash_fraction(f"held out item {item}") < held_out_fraction else "sft"


def items_of_side(
    items: Iterable[str],
    groups: Mapping[str, str],
    skill: str,
    held_out_fraction: float,
    split: Split,
) -> list[str]:
    """The items on one side, in their order. Items of one group are on one side.

    In eval only the first item of a group is there, so that the rows are independent.
    """
    chosen: dict[str, str] = {}
    found = [
        item for item in items if side_of(f"{skill}:{groups[item]}", held_out_fraction) == split
    ]
    for item in found:
        chosen.setdefault(groups[item], item)
    return found if split == "sft" else list(chosen.values())


def seeded(*parts: object) -> random.Random:
    """A generator that follows from the parts alone."""
    # A text as seed is hashed with sha512, so every machine and every PYTHONHASHSEED agree.
    return random.Random(" ".join(str(part) for part in parts))


def divide_rows(count: int, weights: Mapping[str, float]) -> dict[str, int]:
    """`count` whole rows divided by weight: largest remainders get the rest, ties by order."""
    total = sum(weights.values())
    exact = {name: count * weight / total for name, weight in weights.items()}
    # The small addition is for a product that comes out just below a whole number.
    rows = {name: int(value + 1e-9) for name, value in exact.items()}
    by_remainder = sorted(weights, key=lambda name: rows[name] - exact[name])
    for name in by_remainder[: count - sum(rows.values())]:
        rows[name] += 1
    return rows


def draw(
    count: int,
    level: str,
    split: Split,
    items: Sequence[T],
    wordings: int,
    seed: int,
    ask: Callable[[T, int], Question],
) -> list[Question]:
    """`count` questions with distinct prompts, each item once before any item comes again.

    Items come again in SFT alone, in another wording; in eval each is asked once, so that the rows
    are independent. `ask(item, wording)` makes the question, 0 <= wording < wordings. Raises
    WrongUsage where there are not enough items.
    """
    order = list(items)
    seeded("draw", level, split, seed).shuffle(order)
    found: dict[str, Question] = {}
    for turn in range(wordings if split == "sft" else 1):
        for position, item in enumerate(order):
            if len(found) == count:
                return list(found.values())
            question = ask(item, (position + turn) % wordings)
            found.setdefault(question.prompt, question)
    if len(found) < count:
        problem = Problem(
            f"{level}: {count} {split} rows are asked for, {len(found)} independent ones exist"
        )
        raise WrongUsage(
            f"there are not enough items for {level}", problems=[problem], fix="ask for fewer rows"
        )
    return list(found.values())


def with_final_answer(working: str, answer: str, style: AnswerStyle) -> str:
    """The reply in its style: the answer alone, or the working and then the line that decides."""
    return answer if style == "direct" else f"{working}\n{FINAL_ANSWER} {answer}"
