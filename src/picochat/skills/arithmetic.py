"""The skill "math": adding, subtracting and multiplying small whole numbers, in words and stories.

An item is an operation with its number pair. SFT teaches all lines of the digit tables (7 + 8,
15 - 8, 7 x 8), and eval asks none of them. No SFT prompt and no SFT working therefore states a
held-out sum or product. Numbers stay below 200. There are no fractions, no negative numbers and no
divisions.
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
KINDS: dict[str, float] = {
    "add_single": 0.08,
    "add_no_carry": 0.06,
    "subtract_single": 0.07,
    "subtract_no_borrow": 0.06,
    "removal_story": 0.07,
    "add_carry": 0.17,
    "subtract_borrow": 0.16,
    "multiply_small": 0.33,
}
# The kinds that are scored together, so that each level has rows enough to be judged: a digit, or
# two digits each without a carry; two digits each with a carry or a borrowed ten; products.
LEVEL_OF = {
    "add_single": "plain",
    "add_no_carry": "plain",
    "subtract_single": "plain",
    "subtract_no_borrow": "plain",
    "removal_story": "plain",
    "add_carry": "carry",
    "subtract_borrow": "carry",
    "multiply_small": "multiply",
}
PRACTISED = (0.16, 0.14, 0.15, 0.12, 0.10, 0.10, 0.09, 0.14)  # of the kinds, among the exercises
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
    """data/math.toml: wordings of sums, stories, and the names and things in stories."""

    wordings: Wordings
    stories: Annotated[ApartSides, AfterValidator(with_slots("name", "things", "a", "b"))]
    names: ApartSides
    things: ApartSides


@lru_cache
def data() -> MathData:
    return read_skill_data("math.toml", MathData)


@dataclass(frozen=True)
class Sum:
    """An operation on the larger number a and the other number b."""

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


# ---- the sums of a kind --------------------------------------------------------------------------


@lru_cache
def sums_of(split: Split, kind: str) -> tuple[Sum, ...]:
    """Every sum of a kind on one side of the split."""
    return tuple(entry for entry in _pool(kind) if _side(entry) == split)


@lru_cache
def _pool(kind: str) -> tuple[Sum, ...]:
    """All sums of a kind, on both sides. No sum is in two kinds."""
    digits, tens = range(1, 10), range(10, 90)
    if kind == "add_single":
        return tuple(Sum("add", a, b) for a in range(1, 40) for b in digits if a >= b)
    if kind == "subtract_single":
        return tuple(Sum("subtract", a, b) for a in range(1, 40) for b in digits if a >= b)
    if kind == "removal_story":
        return tuple(Sum("subtract", a, b) for a in range(40, 80) for b in range(2, 10))
    if kind == "multiply_small":
        return tuple(
            Sum("multiply", a, b)
            for a in range(2, 50)
            for b in range(2, 10)
            if a >= b and a * b < 200
        )
    if kind in ("add_carry", "add_no_carry"):
        carries = kind == "add_carry"
        pairs = ((a, b) for a in tens for b in range(10, a + 1) if a + b < 100)
        return tuple(Sum("add", a, b) for a, b in pairs if (a % 10 + b % 10 > 9) == carries)
    borrows = kind == "subtract_borrow"
    pairs = ((a, b) for a in range(20, 100) for b in range(10, a) if a - b > 0)
    return tuple(Sum("subtract", a, b) for a, b in pairs if (a % 10 < b % 10) == borrows)


def _side(entry: Sum) -> Split:
    """The side of a sum; digit tables are always SFT."""
    # The working of every longer sum states lines of the digit tables. If one of them were held
    # out, SFT would teach an answer that eval asks (docs/decisions/0026).
    if entry.operation in ("add", "multiply") and entry.a <= 9:
        return "sft"
    if entry.operation == "subtract" and entry.a <= 18 and entry.b <= 9:
        return "sft"
    return side_of(entry.item, HELD_OUT_FRACTION)


# ---- questions -----------------------------------------------------------------------------------


def make(count: int, split: Split, seed: int, answer_style: AnswerStyle) -> list[Question]:
    """`count` questions over the kinds by their weights.

    Raises WrongUsage where a kind has too few items.
    """
    questions: list[Question] = []
    for kind, rows in divide_rows(count, KINDS).items():
        questions += draw(
            rows,
            kind,
            split,
            sums_of(split, kind),
            _count_wordings(kind, split),
            seed,
            lambda entry, n, kind=kind: _ask(entry, n, kind, split, answer_style),
        )
    return questions


def _count_wordings(kind: str, split: Split) -> int:
    if kind == "removal_story":
        return len(data().stories[split]) * len(data().names[split])
    return 2 * len(data().wordings.add[split])  # as they are, then with the numbers exchanged


def _ask(entry: Sum, wording: int, kind: str, split: Split, style: AnswerStyle) -> Question:
    prompt, exchanged = _prompt(entry, wording, kind, split)
    category = "bench_math_removal" if kind == "removal_story" else CATEGORIES[entry.operation]
    reply = _reply(entry, exchanged, style)
    return Question(
        entry.item, category, LEVEL_OF[kind], prompt, reply, final_answer=str(entry.answer)
    )


def _prompt(entry: Sum, wording: int, kind: str, split: Split) -> tuple[str, bool]:
    """The prompt, and whether it states the smaller number first."""
    if kind == "removal_story":
        names, things, stories = data().names[split], data().things[split], data().stories[split]
        thing = things[(entry.a + entry.b + wording) % len(things)]
        text = stories[wording % len(stories)]
        name = names[wording % len(names)]
        return text.format(name=name, things=thing, a=entry.a, b=entry.b), False
    sides: Sides = getattr(data().wordings, entry.operation)
    texts = sides[split]
    exchanged = wording >= len(texts) and entry.operation != "subtract"
    a, b = _operands(entry, exchanged)
    return texts[wording % len(texts)].format(a=a, b=b), exchanged


def _operands(entry: Sum, exchanged: bool) -> tuple[int, int]:
    return (entry.b, entry.a) if exchanged else (entry.a, entry.b)


@lru_cache(maxsize=32_768)
def _reply(entry: Sum, exchanged: bool, style: AnswerStyle) -> str:
    # Cached because exercises draw the same sums many times.
    a, b = _operands(entry, exchanged)
    return with_final_answer(working(entry.operation, a, b), str(entry.answer), style)


# ---- workings ------------------------------------------------------------------------------------


def working(operation: Operation, a: int, b: int) -> str:
    """The steps of a sum, column by column from the right. Every equation in it is true.

    47 + 38 is `7+8=15, 4+3+1=8.`: the ones, then the tens with the carry. 53 - 28 is
    `13-8=5, 5-2-1=2.`: the ones get the borrowed ten, and the tens lose it.
    """
    # As short as possible. With workings in words ("Ones: 7 + 8 = 15, carry 1.") and no exercises,
    # math passed 0 of 108 at `tiny` (docs/experiments.md).
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
    """Each digit of the longer number times the other number, which has one digit."""
    # Counting up (17, 34, 51 for 3 x 17) would state held-out products (docs/decisions/0026).
    longer, digit = max(a, b), min(a, b)
    ones = longer % 10 * digit
    carry = ones // 10
    tens = longer // 10 * digit + carry
    return (
        f"{longer % 10}x{digit}={ones},"
        f" {longer // 10}x{digit}{f'+{carry}' if carry else ''}={tens}."
    )


# ---- skill exercises -----------------------------------------------------------------------------


def _random_sum(rng: random.Random) -> tuple[str, Sum]:
    kind = rng.choices(tuple(KINDS), PRACTISED)[0]
    return kind, rng.choice(sums_of("sft", kind))


def practise(rng: random.Random) -> tuple[str, str]:
    """A (prompt, reply with its working) of the SFT side. A sum may come more than once."""
    kind, entry = _random_sum(rng)
    wording = rng.randrange(_count_wordings(kind, "sft"))
    prompt, exchanged = _prompt(entry, wording, kind, "sft")
    return prompt, _reply(entry, exchanged, "scratchpad")


def drill(rng: random.Random) -> str:
    """A sum of the SFT side on one line with working and answer: `47 + 38: 7+8=15, 4+3+1=8. 85`."""
    _, entry = _random_sum(rng)
    # A difference takes no random number here: all later exercises depend on how many were taken.
    exchanged = entry.operation != "subtract" and rng.random() < 0.5
    a, b = _operands(entry, exchanged)
    return f"{a} {SIGNS[entry.operation]} {b}: {working(entry.operation, a, b)} {entry.answer}"


def table_fact(rng: random.Random) -> str:
    """A step that workings are made of, such as `7+8=15`, `5-2-1=2` or `1x3+2=5`."""
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
    tens, carry = rng.randrange(1, 5), rng.randrange(1, 9)
    return f"{tens}x{b}+{carry}={tens * b + carry}"


SKILL = Skill(
    name="math",
    make=make,
    chance=0.0,
    levels=tuple(dict.fromkeys(LEVEL_OF.values())),
    category_prefixes=("bench_math", "math"),
    weights={"release_skills": 0.25, "behavior": 0.25, "weak_skills": 0.36, "full": 0.24},
    eval_weights={"release_skills": 0.172},
    claim=Claim(order=4, pass_rate=0.30, level_pass_rate=0.20, first_release=False),
)
