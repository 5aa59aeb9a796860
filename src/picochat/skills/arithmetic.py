"""The skill "math": adding, subtracting and multiplying small whole numbers, in words and stories.

An item is an operation with its number pair. The digit tables (7 + 8, 15 - 8, 7 x 8) are taught
whole, as in school, and are never asked in eval; so no SFT prompt and no SFT working states a
held-out sum or product. Numbers stay below 160. No fractions, no negative numbers, no division.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import AfterValidator

from picochat.core.records import Record
from picochat.skills.skill import (
    AnswerStyle,
    Claim,
    Question,
    Skill,
    Split,
    divide_rows,
    draw,
    side_of,
    with_final_answer,
)
from picochat.skills.skill_data import ApartSides, Sides, read_skill_data, with_slots

HELD_OUT_FRACTION = 0.3
LEVELS: dict[str, float] = {
    "add_single": 0.16,
    "add_no_carry": 0.14,
    "add_carry": 0.10,
    "subtract_single": 0.15,
    "subtract_no_borrow": 0.12,
    "subtract_borrow": 0.09,
    "multiply_small": 0.14,
    "removal_story": 0.10,
}
CATEGORIES = {
    "add": "bench_math_addition",
    "subtract": "bench_math_subtraction",
    "multiply": "bench_math_multiplication",
}
SIGNS = {"add": "+", "subtract": "-", "multiply": "x"}

Operation = Literal["add", "subtract", "multiply"]
NumberWordings = Annotated[ApartSides, AfterValidator(with_slots("a", "b"))]


class Wordings(Record):
    add: NumberWordings
    subtract: NumberWordings
    multiply: NumberWordings


class MathData(Record):
    """data/math.toml: the wordings of sums, the stories, and who and what stands in stories."""

    wordings: Wordings
    stories: Annotated[ApartSides, AfterValidator(with_slots("name", "things", "a", "b"))]
    names: ApartSides
    things: ApartSides


@lru_cache
def data() -> MathData:
    return read_skill_data("math.toml", MathData)


@dataclass(frozen=True)
class Sum:
    """`operation` of the larger number a and the other number b."""

    operation: Operation
    a: int
    b: int

    @property
    def item(self) -> str:
        return f"math:{self.operation}:{self.a}:{self.b}"

    @property
    def answer(self) -> int:
        return {"add": self.a + self.b, "subtract": self.a - self.b, "multiply": self.a * self.b}[
            self.operation
        ]


# ---- which sums a level has ----------------------------------------------------------------------


@lru_cache
def sums_of(split: Split, level: str) -> tuple[Sum, ...]:
    """Every sum of a level that is on this side."""
    return tuple(entry for entry in _pool(level) if _side(entry) == split)


@lru_cache
def _pool(level: str) -> tuple[Sum, ...]:
    """All sums of a level. Levels share no item, so a pool can be drawn from without the others."""
    digits, tens = range(1, 10), range(10, 90)
    if level == "add_single":
        return tuple(Sum("add", a, b) for a in range(1, 40) for b in digits if a >= b)
    if level == "subtract_single":
        return tuple(Sum("subtract", a, b) for a in range(1, 40) for b in digits if a >= b)
    if level == "removal_story":
        return tuple(Sum("subtract", a, b) for a in range(40, 80) for b in range(2, 10))
    if level == "multiply_small":
        return tuple(
            Sum("multiply", a, b)
            for a in range(2, 31)
            for b in range(2, 10)
            if a >= b and a * b <= 150
        )
    if level in ("add_carry", "add_no_carry"):
        carries = level == "add_carry"
        pairs = ((a, b) for a in tens for b in range(10, a + 1) if a + b < 100)
        return tuple(Sum("add", a, b) for a, b in pairs if (a % 10 + b % 10 > 9) == carries)
    borrows = level == "subtract_borrow"
    pairs = ((a, b) for a in range(20, 100) for b in range(10, a) if a - b > 0)
    return tuple(Sum("subtract", a, b) for a, b in pairs if (a % 10 < b % 10) == borrows)


def _side(entry: Sum) -> Split:
    """The side of a sum; digit tables are always SFT."""
    # The working of every longer sum states lines of the digit tables. Were one of them held out,
    # SFT would teach an answer that eval asks (docs/decisions/0026).
    if entry.operation in ("add", "multiply") and entry.a <= 9:
        return "sft"
    if entry.operation == "subtract" and entry.a <= 18 and entry.b <= 9:
        return "sft"
    return side_of(entry.item, HELD_OUT_FRACTION)


# ---- questions -----------------------------------------------------------------------------------


def make(count: int, split: Split, seed: int, answer_style: AnswerStyle) -> list[Question]:
    """`count` questions over the levels by their weights.

    Raises WrongUsage where a level has too few items.
    """
    questions: list[Question] = []
    for level, rows in divide_rows(count, LEVELS).items():
        pool, wordings = sums_of(split, level), _count_wordings(level, split)
        questions += draw(
            rows,
            level,
            split,
            pool,
            wordings,
            seed,
            lambda entry, n, level=level: _ask(entry, n, level, split, answer_style),
        )
    return questions


def _count_wordings(level: str, split: Split) -> int:
    """How many ways there are to ask a sum of a level."""
    if level == "removal_story":
        return len(data().stories[split]) * len(data().names[split])
    return 2 * len(data().wordings.add[split])  # as they stand, then with the numbers turned round


def _ask(entry: Sum, wording: int, level: str, split: Split, style: AnswerStyle) -> Question:
    is_story = level == "removal_story"
    text = _story_text(entry, wording, split) if is_story else _plain_text(entry, wording, split)
    turned = not is_story and _is_turned(entry, wording, split)
    a, b = (entry.b, entry.a) if turned else (entry.a, entry.b)
    answer = str(entry.answer)
    return Question(
        entry.item,
        "bench_math_removal" if is_story else CATEGORIES[entry.operation],
        level,
        text,
        with_final_answer(working(entry.operation, a, b), answer, style),
        final_answer=answer,
    )


def _wordings(entry: Sum, split: Split) -> tuple[str, ...]:
    sides: Sides = getattr(data().wordings, entry.operation)
    return sides[split]


def _is_turned(entry: Sum, wording: int, split: Split) -> bool:
    """The second half of the wordings turns the numbers round where order does not matter."""
    return wording >= len(_wordings(entry, split)) and entry.operation != "subtract"


def _plain_text(entry: Sum, wording: int, split: Split) -> str:
    texts = _wordings(entry, split)
    a, b = (entry.b, entry.a) if _is_turned(entry, wording, split) else (entry.a, entry.b)
    return texts[wording % len(texts)].format(a=a, b=b)


def _story_text(entry: Sum, wording: int, split: Split) -> str:
    names, things, stories = data().names[split], data().things[split], data().stories[split]
    thing = things[(entry.a + entry.b + wording) % len(things)]
    text = stories[wording % len(stories)]
    return text.format(name=names[wording % len(names)], things=thing, a=entry.a, b=entry.b)


# ---- workings ------------------------------------------------------------------------------------


def working(operation: Operation, a: int, b: int) -> str:
    """The steps of a sum, column by column from the right; every statement in it is true.

    `7+8=15, 4+3+1=8.` is 47 + 38: ones, then tens with what is carried. A borrowed ten is given to
    the ones and taken from the tens: `13-8=5, 5-2-1=2.` is 53 - 28.
    """
    # In as few signs as possible: a small model loses the thread of longer workings. Written out
    # ("Ones: 7 + 8 = 15, carry 1."), math passed 0 of 108 at `tiny` (docs/experiments.md).
    if max(a, b) <= 9:
        return f"{a}{SIGNS[operation]}{b}={Sum(operation, a, b).answer}."
    return {"add": _add_working, "subtract": _subtract_working, "multiply": _multiply_working}[
        operation
    ](a, b)


def _add_working(a: int, b: int) -> str:
    ones = a % 10 + b % 10
    carry = ones // 10
    return (
        f"{a % 10}+{b % 10}={ones}, {a // 10}+{b // 10}{'+1' * carry}={a // 10 + b // 10 + carry}."
    )


def _subtract_working(a: int, b: int) -> str:
    borrow = int(a % 10 < b % 10)
    ones = a % 10 + 10 * borrow
    return (
        f"{ones}-{b % 10}={ones - b % 10},"
        f" {a // 10}-{b // 10}{'-1' * borrow}={a // 10 - b // 10 - borrow}."
    )


def _multiply_working(a: int, b: int) -> str:
    """The longer number's digits times the other number, whichever stands first."""
    # Counting up (17, 34, 51 for 3 x 17) would pass through products that are held out.
    longer, digit = max(a, b), min(a, b)
    ones = longer % 10 * digit
    carry = ones // 10
    tens = longer // 10 * digit + carry
    return (
        f"{longer % 10}x{digit}={ones},"
        f" {longer // 10}x{digit}{f'+{carry}' if carry else ''}={tens}."
    )


# ---- skill exercises -----------------------------------------------------------------------------


def practise(rng: random.Random) -> tuple[str, str]:
    """A (prompt, reply with its working) of the SFT side; the same sum may come again."""
    level = rng.choices(tuple(LEVELS), tuple(LEVELS.values()))[0]
    entry = rng.choice(sums_of("sft", level))
    if level == "removal_story":
        text = _story_text(entry, rng.randrange(_count_wordings(level, "sft")), "sft")
        return text, _reply(entry, False)
    wording = rng.randrange(_count_wordings(level, "sft"))
    return _plain_text(entry, wording, "sft"), _reply(entry, _is_turned(entry, wording, "sft"))


@lru_cache(maxsize=32_768)
def _reply(entry: Sum, turned: bool) -> str:
    a, b = (entry.b, entry.a) if turned else (entry.a, entry.b)
    return with_final_answer(working(entry.operation, a, b), str(entry.answer), "scratchpad")


def drill(rng: random.Random) -> str:
    """A sum of the SFT side on one line with working and answer: `47 + 38: 7+8=15, 4+3+1=8. 85`."""
    level = rng.choices(tuple(LEVELS), tuple(LEVELS.values()))[0]
    entry = rng.choice(sums_of("sft", level))
    # Drawn only where the numbers can be turned: what comes after depends on how often it is drawn.
    turned = entry.operation != "subtract" and rng.random() < 0.5
    a, b = (entry.b, entry.a) if turned else (entry.a, entry.b)
    return f"{a} {SIGNS[entry.operation]} {b}: {working(entry.operation, a, b)} {entry.answer}"


def table_fact(rng: random.Random) -> str:
    """A line of the tables that workings are made of, such as `7+8=15`, `5-2-1=2` or `1x3+2=5`."""
    kind = rng.randrange(6)
    a, b = rng.randrange(10), rng.randrange(10)
    if kind == 0:
        return f"{a}+{b}={a + b}"
    if kind == 1:
        a, b = min(a, 8), rng.randrange(max(1, 9 - a))
        return f"{a}+{b}+1={a + b + 1}"
    if kind == 2:
        return f"{a + b}-{b}={a}"
    if kind == 3:
        return f"{a + b + 1}-{b}-1={a}" if a + b < 9 else f"{a + b}-{a}={b}"
    if kind == 4:
        return f"{a}x{max(b, 1)}={a * max(b, 1)}"
    tens, carry = rng.randrange(1, 4), rng.randrange(1, 9)
    return f"{tens}x{b}+{carry}={tens * b + carry}"


SKILL = Skill(
    name="math",
    make=make,
    chance=0.0,
    levels=tuple(LEVELS),
    category_prefixes=("bench_math", "math"),
    weights={"release_skills": 0.30, "behavior": 0.25, "weak_skills": 0.36, "full": 0.24},
    claim=Claim(order=4, pass_rate=0.30, level_pass_rate=0.20, first_release=False),
)
