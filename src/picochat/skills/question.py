"""One question with its right reply and its rule, from which an SFT row or an eval row is made; and
how questions are drawn.

Which side of the split an item is on follows from the item alone, never from the seed: the eval
rows of one seed stay disjoint from the SFT rows of every other. Knows no skill; decides no wording.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from picochat.core.errors import Problem, WrongUsage

Split = Literal["sft", "eval"]
AnswerStyle = Literal["direct", "scratchpad"]
T = TypeVar("T")
FINAL_ANSWER = "Final answer:"
LONGEST_REPLY_WORDS = 80  # working included; longer replies are rambling, not working


@dataclass(frozen=True)
class Question:
    """`item` is what must not be on both sides: a number pair, a word, a fact, a topic, a phrasing."""

    item: str
    category: str
    stage: str
    prompt: str
    reply: str
    answerable: bool = True
    final_answer: str | None = None
    must_include_any: tuple[tuple[str, ...], ...] = ()
    options: tuple[str, ...] = ()
    correct_choice: str | None = None


def hash_share(text: str) -> float:
    """A number in [0, 1) that follows from the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def side_of(item: str, held_out_share: float) -> Split:
    return "eval" if hash_share(f"held out item {item}") < held_out_share else "sft"


def seeded(*parts: object) -> random.Random:
    """A generator that follows from the parts alone, the same on every machine (text seeds are
    hashed with sha512).
    """
    return random.Random(" ".join(str(part) for part in parts))


def share_rows(count: int, weights: Mapping[str, float]) -> dict[str, int]:
    """`count` whole rows divided by weight: largest remainders get the rest, ties by order."""
    total = sum(weights.values())
    exact = {name: count * weight / total for name, weight in weights.items()}
    rows = {name: int(value + 1e-9) for name, value in exact.items()}
    by_remainder = sorted(weights, key=lambda name: rows[name] - exact[name])
    for name in by_remainder[: count - sum(rows.values())]:
        rows[name] += 1
    return rows


def draw(
    count: int,
    stage: str,
    split: Split,
    items: Sequence[T],
    wordings: int,
    seed: int,
    ask: Callable[[T, int], Question],
) -> list[Question]:
    """`count` questions with distinct prompts: each item once, and only then (SFT alone) again in
    another wording.

    `ask(item, wording)` words an item, 0 <= wording < wordings. In eval an item is asked once, so
    that rows are independent. Raises WrongUsage where there are not enough.
    """
    order = list(items)
    seeded("draw", stage, split, seed).shuffle(order)
    found: dict[str, Question] = {}
    for turn in range(wordings if split == "sft" else 1):
        for position, item in enumerate(order):
            if len(found) == count:
                return list(found.values())
            question = ask(item, (position + turn) % wordings)
            found.setdefault(question.prompt, question)
    if len(found) < count:
        problem = Problem(
            f"{stage}: {count} {split} rows are asked for, {len(found)} independent ones exist"
        )
        raise WrongUsage(
            f"there are not enough items for {stage}", problems=[problem], fix="ask for fewer rows"
        )
    return list(found.values())


def with_final_answer(working: str, answer: str, style: AnswerStyle) -> str:
    """The reply in its style: the answer alone, or the working and then the line that decides."""
    return answer if style == "direct" else f"{working}\n{FINAL_ANSWER} {answer}"
