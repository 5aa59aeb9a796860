"""The skill "math": adding, taking away and multiplying small whole numbers, in words and as a short story.

An item is an operation with its number pair. The digit tables (7 + 8, 15 - 8) are taught whole, as in school, and are
never asked in eval; so no SFT prompt and no SFT working states a held-out sum as such (a product's counting list passes
through smaller multiples: docs/decisions/0007). Numbers stay below 160. No fractions, no negative numbers, no division.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from picochat.skills.question import AnswerStyle, Question, Split, draw, share_rows, side_of, with_final_answer

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
CATEGORIES = {"add": "bench_math_addition", "subtract": "bench_math_subtraction", "multiply": "bench_math_multiplication"}

# Eval wordings have at least six words, so that the contamination scan can look for each prompt as a whole.
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
    "sft": ("apples", "books", "coins", "cards", "eggs", "pens", "balls", "cups", "stamps", "shells"),
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
        return {"add": self.a + self.b, "subtract": self.a - self.b, "multiply": self.a * self.b}[self.operation]


def make(count: int, split: Split, seed: int, answer_style: AnswerStyle) -> list[Question]:
    """`count` questions over the stages by their weights. Raises WrongUsage where a stage has too few items."""
    questions: list[Question] = []
    for stage, rows in share_rows(count, STAGES).items():
        questions += _stage_questions(rows, stage, split, seed, answer_style)
    return questions


def _stage_questions(count: int, stage: str, split: Split, seed: int, style: AnswerStyle) -> list[Question]:
    pool = [entry for entry in _pool(stage) if _side(entry) == split]
    if stage == "removal_story":
        wordings = len(STORIES[split]) * len(NAMES[split])
        return draw(count, stage, split, pool, wordings, seed, lambda entry, n: _story(entry, n, split, style))
    wordings = 2 * len(WORDINGS[split]["add"])
    return draw(count, stage, split, pool, wordings, seed, lambda entry, n: _plain(entry, n, stage, split, style))


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
        return tuple(Sum("multiply", a, b) for a in range(2, 31) for b in range(2, 10) if a >= b and a * b <= 150)
    if stage in ("add_carry", "add_no_carry"):
        carries = stage == "add_carry"
        pairs = ((a, b) for a in tens for b in range(10, a + 1) if a + b < 100)
        return tuple(Sum("add", a, b) for a, b in pairs if (a % 10 + b % 10 > 9) == carries)
    borrows = stage == "subtract_borrow"
    pairs = ((a, b) for a in range(20, 100) for b in range(10, a) if a - b > 0)
    return tuple(Sum("subtract", a, b) for a, b in pairs if (a % 10 < b % 10) == borrows)


def _side(entry: Sum) -> Split:
    """Digit tables are always SFT: the working of longer sums states them."""
    if entry.operation == "add" and entry.a <= 9:
        return "sft"
    if entry.operation == "subtract" and entry.a <= 18 and entry.b <= 9:
        return "sft"
    return side_of(entry.item, HELD_OUT_SHARE)


def _plain(entry: Sum, wording: int, stage: str, split: Split, style: AnswerStyle) -> Question:
    """The second half of the wordings turns the numbers round where order does not matter."""
    texts = WORDINGS[split][entry.operation]
    a, b = (entry.b, entry.a) if wording >= len(texts) and entry.operation != "subtract" else (entry.a, entry.b)
    prompt = texts[wording % len(texts)].format(a=a, b=b)
    return _question(entry, CATEGORIES[entry.operation], stage, prompt, working(entry.operation, a, b), style)


def _story(entry: Sum, wording: int, split: Split, style: AnswerStyle) -> Question:
    names, things = NAMES[split], THINGS[split]
    text = STORIES[split][wording % len(STORIES[split])]
    thing = things[(entry.a + entry.b + wording) % len(things)]
    prompt = text.format(name=names[wording % len(names)], things=thing, a=entry.a, b=entry.b)
    shown = f"{entry.a} - {entry.b}: {working(entry.operation, entry.a, entry.b)}"
    return _question(entry, "bench_math_removal", "removal_story", prompt, shown, style)


def _question(entry: Sum, category: str, stage: str, prompt: str, shown: str, style: AnswerStyle) -> Question:
    answer = str(entry.answer)
    reply = with_final_answer(shown, answer, style)
    return Question(entry.item, category, stage, prompt, reply, final_answer=answer)


def working(operation: str, a: int, b: int) -> str:
    """The steps, column by column, or counted up (`2:34` is twice 17); every statement in it is true.

    Kept under 60 tokens, so that a reply with its working fits what the evaluator generates.
    """
    if operation == "multiply":
        base, times = max(a, b), min(a, b)
        return " ".join(f"{n}:{n * base}" for n in range(1, times + 1))
    if operation == "add":
        a, b = max(a, b), min(a, b)
        return _add_working(a, b)
    return _subtract_working(a, b)


def _add_working(a: int, b: int) -> str:
    if a < 10:
        return f"{a} + {b} = {a + b}."
    ones = a % 10 + b % 10
    carry = ones // 10
    parts = [str(n) for n in (a // 10, b // 10 or None, carry or None) if n is not None]
    tens = f"{' + '.join(parts)} = {a // 10 + b // 10 + carry}" if len(parts) > 1 else parts[0]
    return f"Ones: {a % 10} + {b % 10} = {ones}{', carry 1' if carry else ''}. Tens: {tens}."


def _subtract_working(a: int, b: int) -> str:
    if a < 10:
        return f"{a} - {b} = {a - b}."
    borrow = int(a % 10 < b % 10)
    ones = a % 10 + 10 * borrow
    parts = [str(n) for n in (a // 10, b // 10 or None, borrow or None) if n is not None]
    tens = f"{' - '.join(parts)} = {a // 10 - b // 10 - borrow}" if len(parts) > 1 else parts[0]
    return f"Ones: {ones} - {b % 10} = {ones - b % 10}{', borrow 1' if borrow else ''}. Tens: {tens}."
