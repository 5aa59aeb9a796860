"""The skill "math": adding, taking away and multiplying small whole numbers, in words and as a
short story.

An item is an operation with its number pair. The digit tables (7 + 8, 15 - 8, 7 x 8) are taught
whole, as in school, and are never asked in eval; so no SFT prompt and no SFT working states a
held-out sum or product (docs/decisions/0026). Numbers stay below 160. No fractions, no negative
numbers, no division.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

from picochat.skills.question import (
    AnswerStyle,
    Question,
    Split,
    draw,
    share_rows,
    side_of,
    with_final_answer,
)

HELD_OUT_SHARE = 0.3
STAGES: dict[str, float] = {
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

# Eval wordings have at least six words, so that the contamination scan can look for each prompt as
# a whole.
WORDINGS: dict[Split, dict[str, tuple[str, ...]]] = {
    "sft": {
        "add": (
            "What is {a} + {b}?",
            "Add {a} + {b}.",
            "{a} + {b} = ?",
            "Work out {a} + {b}.",
            "How much is {a} + {b}?",
            "Find the sum {a} + {b}.",
            "Solve {a} + {b}.",
            "Please add {a} and {b}.",
        ),
        "subtract": (
            "What is {a} - {b}?",
            "Subtract: {a} - {b}.",
            "{a} - {b} = ?",
            "Work out {a} - {b}.",
            "How much is {a} - {b}?",
            "Find the difference {a} - {b}.",
            "Solve {a} - {b}.",
            "Take {b} away from {a}: {a} - {b}.",
        ),
        "multiply": (
            "What is {a} x {b}?",
            "Multiply {a} x {b}.",
            "{a} x {b} = ?",
            "Work out {a} x {b}.",
            "How much is {a} x {b}?",
            "Find the product {a} x {b}.",
            "Solve {a} x {b}.",
            "Please multiply {a} and {b}.",
        ),
    },
    "eval": {
        "add": (
            "Please calculate this sum for me: {a} + {b}",
            "What number do you get from {a} + {b}?",
            "Tell me the result of {a} + {b}.",
            "I need the total of {a} + {b}.",
        ),
        "subtract": (
            "Please calculate this difference for me: {a} - {b}",
            "What number do you get from {a} - {b}?",
            "Tell me the result of {a} - {b}.",
            "I need to know what {a} - {b} leaves.",
        ),
        "multiply": (
            "Please calculate this product for me: {a} x {b}",
            "What number do you get from {a} x {b}?",
            "Tell me the result of {a} x {b}.",
            "I need to know what {a} x {b} makes.",
        ),
    },
}
STORIES: dict[Split, tuple[str, ...]] = {
    "sft": (
        "{name} has {a} {things}. {name} gives away {b}. How many are left?",
        "There are {a} {things} in a box. {name} takes out {b}. How many stay in the box?",
        "{name} had {a} {things} and lost {b}. How many does {name} have now?",
        "{name} owns {a} {things}. {b} of them break. How many are whole?",
        "A basket has {a} {things} in it. {b} are taken by {name}. How many are in it now?",
        "{name} picks up {a} {things} and drops {b}. How many does {name} hold?",
    ),
    "eval": (
        "{name} bought {a} {things} and then sold {b}. How many {things} remain?",
        "A shelf holds {a} {things}. {name} carries {b} of them away. How many {things} remain?",
    ),
}
NAMES: dict[Split, tuple[str, ...]] = {
    "sft": ("Anna", "Ben", "Mia", "Tom", "Sara", "Leo", "Nina", "Paul", "Emma", "Max"),
    "eval": ("Olga", "Ravi", "Chen", "Lucy", "Omar", "Kate"),
}
THINGS: dict[Split, tuple[str, ...]] = {
    "sft": (
        "apples",
        "books",
        "coins",
        "cards",
        "eggs",
        "pens",
        "balls",
        "cups",
        "stamps",
        "shells",
    ),
    "eval": ("lemons", "candles", "buttons", "marbles", "plates", "tickets"),
}


@dataclass(frozen=True)
class Sum:
    """`operation` of the larger number a and the other b; for multiply, a is counted up b times."""

    operation: str
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


def make(count: int, split: Split, seed: int, answer_style: AnswerStyle) -> list[Question]:
    """`count` questions over the stages by their weights.

    Raises WrongUsage where a stage has too few items.
    """
    questions: list[Question] = []
    for stage, rows in share_rows(count, STAGES).items():
        questions += _stage_questions(rows, stage, split, seed, answer_style)
    return questions


def practise(rng: random.Random) -> tuple[str, str]:
    """(prompt, reply with its working) of the SFT side: stages by their weights, wordings evenly.

    Items may come again.
    """
    stage = rng.choices(_STAGE_NAMES, _STAGE_WEIGHTS)[0]
    entry = rng.choice(sums_of("sft", stage))
    if stage == "removal_story":
        return _story_text(
            entry, rng.randrange(len(STORIES["sft"]) * len(NAMES["sft"])), "sft"
        ), _reply(entry, False)
    wording = rng.randrange(2 * len(WORDINGS["sft"]["add"]))
    return _plain_text(entry, wording, "sft"), _reply(entry, _is_turned(entry, wording, "sft"))


def drill(rng: random.Random) -> str:
    """A sum of the SFT side with its working and its answer on one line: `47 + 38: 7+8=15, 4+3+1=8.
    85`.
    """
    entry = rng.choice(sums_of("sft", rng.choices(_STAGE_NAMES, _STAGE_WEIGHTS)[0]))
    a, b = (
        (entry.b, entry.a)
        if entry.operation != "subtract" and rng.random() < 0.5
        else (entry.a, entry.b)
    )
    return f"{a} {SIGNS[entry.operation]} {b}: {working(entry.operation, a, b)} {entry.answer}"


def table_fact(rng: random.Random) -> str:
    """A line of the tables that every working is made of: `7+8=15`, `4+3+1=8`, `13-8=5`, `5-2-1=2`,
    `7x3=21`, `1x3+2=5`.
    """
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


_STAGE_NAMES, _STAGE_WEIGHTS = tuple(STAGES), tuple(STAGES.values())


@lru_cache
def sums_of(split: Split, stage: str) -> tuple[Sum, ...]:
    """Every sum of a stage that is on this side."""
    return tuple(entry for entry in _pool(stage) if _side(entry) == split)


@lru_cache(maxsize=32_768)
def _reply(entry: Sum, turned: bool) -> str:
    a, b = (entry.b, entry.a) if turned else (entry.a, entry.b)
    return with_final_answer(working(entry.operation, a, b), str(entry.answer), "scratchpad")


def _stage_questions(
    count: int, stage: str, split: Split, seed: int, style: AnswerStyle
) -> list[Question]:
    pool = sums_of(split, stage)
    if stage == "removal_story":
        wordings = len(STORIES[split]) * len(NAMES[split])
        return draw(
            count,
            stage,
            split,
            pool,
            wordings,
            seed,
            lambda entry, n: _story(entry, n, split, style),
        )
    wordings = 2 * len(WORDINGS[split]["add"])
    return draw(
        count,
        stage,
        split,
        pool,
        wordings,
        seed,
        lambda entry, n: _plain(entry, n, stage, split, style),
    )


@lru_cache
def _pool(stage: str) -> tuple[Sum, ...]:
    """All sums of a stage. The pools of different stages share no item."""
    digits, tens = range(1, 10), range(10, 90)
    if stage == "add_single":
        return tuple(Sum("add", a, b) for a in range(1, 40) for b in digits if a >= b)
    if stage == "subtract_single":
        return tuple(Sum("subtract", a, b) for a in range(1, 40) for b in digits if a >= b)
    if stage == "removal_story":
        return tuple(Sum("subtract", a, b) for a in range(40, 80) for b in range(2, 10))
    if stage == "multiply_small":
        return tuple(
            Sum("multiply", a, b)
            for a in range(2, 31)
            for b in range(2, 10)
            if a >= b and a * b <= 150
        )
    if stage in ("add_carry", "add_no_carry"):
        carries = stage == "add_carry"
        pairs = ((a, b) for a in tens for b in range(10, a + 1) if a + b < 100)
        return tuple(Sum("add", a, b) for a, b in pairs if (a % 10 + b % 10 > 9) == carries)
    borrows = stage == "subtract_borrow"
    pairs = ((a, b) for a in range(20, 100) for b in range(10, a) if a - b > 0)
    return tuple(Sum("subtract", a, b) for a, b in pairs if (a % 10 < b % 10) == borrows)


def _side(entry: Sum) -> Split:
    """Digit tables are always SFT: the working of longer sums states them."""
    if entry.operation in ("add", "multiply") and entry.a <= 9:
        return "sft"
    if entry.operation == "subtract" and entry.a <= 18 and entry.b <= 9:
        return "sft"
    return side_of(entry.item, HELD_OUT_SHARE)


def _plain(entry: Sum, wording: int, stage: str, split: Split, style: AnswerStyle) -> Question:
    turned = _is_turned(entry, wording, split)
    a, b = (entry.b, entry.a) if turned else (entry.a, entry.b)
    prompt = _plain_text(entry, wording, split)
    return _question(
        entry, CATEGORIES[entry.operation], stage, prompt, working(entry.operation, a, b), style
    )


def _is_turned(entry: Sum, wording: int, split: Split) -> bool:
    """The second half of the wordings turns the numbers round where order does not matter."""
    return wording >= len(WORDINGS[split][entry.operation]) and entry.operation != "subtract"


def _plain_text(entry: Sum, wording: int, split: Split) -> str:
    texts = WORDINGS[split][entry.operation]
    a, b = (entry.b, entry.a) if _is_turned(entry, wording, split) else (entry.a, entry.b)
    return texts[wording % len(texts)].format(a=a, b=b)


def _story(entry: Sum, wording: int, split: Split, style: AnswerStyle) -> Question:
    shown = working(entry.operation, entry.a, entry.b)
    return _question(
        entry,
        "bench_math_removal",
        "removal_story",
        _story_text(entry, wording, split),
        shown,
        style,
    )


def _story_text(entry: Sum, wording: int, split: Split) -> str:
    names, things = NAMES[split], THINGS[split]
    thing = things[(entry.a + entry.b + wording) % len(things)]
    text = STORIES[split][wording % len(STORIES[split])]
    return text.format(name=names[wording % len(names)], things=thing, a=entry.a, b=entry.b)


def _question(
    entry: Sum, category: str, stage: str, prompt: str, shown: str, style: AnswerStyle
) -> Question:
    answer = str(entry.answer)
    reply = with_final_answer(shown, answer, style)
    return Question(entry.item, category, stage, prompt, reply, final_answer=answer)


def working(operation: str, a: int, b: int) -> str:
    """The steps, column by column from the right, in as few signs as they can be said; every
    statement in it is true.

    `7+8=15, 4+3+1=8.` is 47 + 38: ones, then tens with what is carried. A borrowed ten is given to
    the ones and taken from the tens: `13-8=5, 5-2-1=2.` is 53 - 28. A small model loses the thread
    of longer workings (docs/experiments.md).
    """
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
    """The longer number's digits times the other one, whichever stands first."""
    longer, digit = max(a, b), min(a, b)
    ones = longer % 10 * digit
    carry = ones // 10
    tens = longer // 10 * digit + carry
    return (
        f"{longer % 10}x{digit}={ones},"
        f" {longer // 10}x{digit}{f'+{carry}' if carry else ''}={tens}."
    )
