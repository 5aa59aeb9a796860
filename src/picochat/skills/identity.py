"""The skill "identity": what Picochat is, what it can and cannot do, and what it is not.

An item is one way to ask: a phrasing of an open question, or the thing in "are you ...?" and "can
you ...?". Eval phrasings, things and openers are in no SFT row. Every reply names Picochat, so that
each row can be scored strictly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from picochat.skills.phrasings import ABLE, ARE, ARE_NOT, NOT_ABLE, OPEN_QUESTIONS
from picochat.skills.question import AnswerStyle, Question, Split, draw, share_rows, side_of

HELD_OUT_SHARE = 0.5
STAGES: dict[str, float] = {"open": 0.46, "are_you": 0.27, "can_you": 0.27}

OPENERS: dict[Split, tuple[str, ...]] = {
    "sft": ("", "Hello! ", "Hi. ", "Please tell me: ", "A question: ", "Quick question. "),
    "eval": (
        "Good morning to you. ",
        "Before we start, one thing. ",
        "I have just opened this chat. ",
    ),
}


@dataclass(frozen=True)
class Asked:
    """One way to ask, its right reply, and the word groups of which the reply must hold one each."""

    stage: str
    text: str
    reply: str
    must_include_any: tuple[tuple[str, ...], ...]

    @property
    def item(self) -> str:
        return f"identity:{self.text}"


def make(count: int, split: Split, seed: int, answer_style: AnswerStyle) -> list[Question]:
    """`count` questions over the stages.

    The style changes nothing here. Raises WrongUsage where phrasings run out.
    """
    del answer_style
    questions: list[Question] = []
    openers = OPENERS[split]
    for stage, rows in share_rows(count, STAGES).items():
        pool = [
            asked
            for asked in all_asked()
            if asked.stage == stage and side_of(asked.item, HELD_OUT_SHARE) == split
        ]
        questions += draw(
            rows, stage, split, pool, len(openers), seed, lambda asked, n: _ask(asked, openers[n])
        )
    return questions


@lru_cache
def all_asked() -> tuple[Asked, ...]:
    """Every way to ask, in the order of the tables."""
    yes, no = (("yes",),), (("no",),)
    asked = [
        Asked("open", text, reply, groups)
        for phrasings, reply, groups in OPEN_QUESTIONS
        for text in phrasings
    ]
    asked += [
        Asked("are_you", f"Are you {thing}?", f"Yes. I am Picochat, {thing}.", yes) for thing in ARE
    ]
    asked += [
        Asked(
            "are_you",
            f"Are you {thing}?",
            f"No. I am Picochat, a small language model, not {thing}.",
            no,
        )
        for thing in ARE_NOT
    ]
    asked += [
        Asked(
            "can_you",
            f"Can you {act}?",
            f"Yes. I am Picochat, and I can try to {_for_you(act)}.",
            yes,
        )
        for act in ABLE
    ]
    asked += [
        Asked(
            "can_you",
            f"Can you {act}?",
            f"No. I am Picochat, a small text model. I cannot {_for_you(act)}.",
            no,
        )
        for act in NOT_ABLE
    ]
    return tuple(asked)


def _for_you(act: str) -> str:
    """The act as its doer says it: "pay my bills" is asked, "pay your bills" is answered."""
    swapped = {"my": "your", "me": "you"}
    return " ".join(swapped.get(word, word) for word in act.split())


def _ask(asked: Asked, opener: str) -> Question:
    return Question(
        asked.item,
        "identity",
        asked.stage,
        opener + asked.text,
        asked.reply,
        must_include_any=asked.must_include_any,
    )
