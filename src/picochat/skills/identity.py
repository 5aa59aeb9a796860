"""The skill "identity": what Picochat is, what it can and cannot do, and what it is not.

An item is a way to ask: a phrasing of an open question, or a thing in "are you ...?" and "can you
...?". No SFT row has an eval phrasing, thing or opener, or a near-duplicate of one. Every right
reply names Picochat, so that each row can be scored strictly. A false identity in words that the
rules do not know passes. Asks only what is true of every model of this project: rows are written
before the model is chosen (docs/decisions/0030).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle
from typing import Annotated

from pydantic import AfterValidator, Field

from picochat.core.records import Record
from picochat.honesty.normalize import words_of
from picochat.skills.fitting import Topics
from picochat.skills.near_duplicates import groups_of
from picochat.skills.skill import (
    AnswerStyle,
    Claim,
    Question,
    ScoredRow,
    Skill,
    Split,
    divide_rows,
    draw,
    items_of_side,
)
from picochat.skills.skill_data import ApartSides, Text, Texts, read_skill_data

NAME = "picochat"
HELD_OUT_FRACTION = 0.5
YES_NO_LEVELS = ("are_you", "can_you")
LEVELS = ("open", *YES_NO_LEVELS)
MOST_FACTS = 3  # of all facts, that one reply may fit: the name, what has it, and what is asked
YES_OR_NO = ("yes", "no")


def _is_open(phrasings: Texts) -> Texts:
    for text in phrasings:
        if words_of(text)[0] in _AUXILIARIES:
            raise ValueError(f"{text!r} is answered by yes or no")
    return phrasings


_AUXILIARIES = frozenset(
    words_of(
        "am are can could did do does had has have is may must shall should was were will would"
    )
)


class Fact(Record):
    """The phrasings of one question, its right reply, and what other fitting replies say.

    fits: phrases of which a fitting reply holds at least one, and more than of nearly all others.
    """

    fact: Text
    reply: Text
    fits: Texts
    phrasings: Annotated[Texts, AfterValidator(_is_open)]


class IdentityData(Record):
    """data/identity.toml: open questions, and what stands in "are you ...?" and "can you ...?"."""

    openers: ApartSides
    open: Annotated[tuple[Fact, ...], Field(min_length=1)]
    are: Texts
    are_not: Texts
    able: Texts
    not_able: Texts


@lru_cache
def data() -> IdentityData:
    return read_skill_data("identity.toml", IdentityData)


@dataclass(frozen=True)
class WayToAsk:
    """One way to ask and its right reply.

    kind: the fact, or how a thing is asked about; the kinds of a level are asked equally often.
    must_include_any: the reply must contain at least one phrase of each group.
    """

    level: str
    kind: str
    item: str
    text: str
    reply: str
    must_include_any: tuple[tuple[str, ...], ...]


def make(count: int, split: Split, seed: int, answer_style: AnswerStyle) -> list[Question]:
    """`count` questions, equally many of each level and of each kind in it. No style matters.

    Raises WrongUsage where a kind has too few phrasings.
    """
    del answer_style
    questions: list[Question] = []
    before = openers(split)
    for level, rows in divide_rows(count, dict.fromkeys(LEVELS, 1.0)).items():
        ways = ways_to_ask(split)
        kinds = dict.fromkeys(way.kind for way in ways if way.level == level)
        for kind, part in divide_rows(rows, dict.fromkeys(kinds, 1.0)).items():
            questions += draw(
                part,
                f"{level}, {kind}",
                split,
                [way for way in ways if (way.level, way.kind) == (level, kind)],
                len(before),
                seed,
                lambda way, n: _ask(way, before[n]),
            )
    return questions


def openers(split: Split) -> tuple[str, ...]:
    """What may stand before the question. In eval it is never empty."""
    # The contamination scan flags a prompt of fewer than 6 words only where its answer follows
    # (docs/decisions/0008). With an opener, every eval prompt has 6 words or more.
    return ("", *data().openers.sft) if split == "sft" else data().openers.eval


# ---- ways to ask ---------------------------------------------------------------------------------


@lru_cache
def ways_to_ask(split: Split) -> tuple[WayToAsk, ...]:
    """Every way to ask on one side, in the order of the data file."""
    found = data()
    ways = [way for fact in found.open for way in _open_ways(fact, split)]
    ways += _yes_no_ways("are_you", found.are, found.are_not, split)
    ways += _yes_no_ways("can_you", found.able, found.not_able, split)
    return tuple(ways)


def _open_ways(fact: Fact, split: Split) -> Iterator[WayToAsk]:
    for text in items_of_side(
        fact.phrasings, groups_of(fact.phrasings), "identity", HELD_OUT_FRACTION, split
    ):
        yield WayToAsk("open", fact.fact, f"identity:{text}", text, fact.reply, (fact.fits,))


FORMS = ("plain_no", "contrast_yes", "contrast_no")
"""How a thing that is not true is asked about: alone, behind one that is true, or before it."""


def _yes_no_ways(
    level: str, true: Sequence[str], false: Sequence[str], split: Split
) -> Iterator[WayToAsk]:
    """Plain questions about each thing, and questions that hold a true and a false one.

    "Are you a program and not a nurse?" and "Are you a nurse and not a program?" hold the same
    words, and only their order decides. So neither word nor form gives the answer away.
    """
    groups = groups_of([*true, *false])
    mine = items_of_side(true, groups, f"identity {level}", HELD_OUT_FRACTION, split)
    for thing in mine:
        yield _yes_no_way(level, "plain_yes", thing, (thing, None))
    partners, forms = cycle(mine), cycle(FORMS)
    for thing in items_of_side(false, groups, f"identity {level}", HELD_OUT_FRACTION, split):
        # In eval a thing is asked about once, in SFT in every form.
        for form in (next(forms),) if split == "eval" else FORMS:
            pair = (None if form == "plain_no" else next(partners), thing)
            yield _yes_no_way(level, form, thing, pair)


def _yes_no_way(
    level: str, kind: str, item: str, things: tuple[str | None, str | None]
) -> WayToAsk:
    """things: what is true and what is not, of which one may be missing."""
    true, false = things
    joint, act = ("and not", "Are") if level == "are_you" else ("but not", "Can")
    answer = "yes" if kind.endswith("yes") else "no"
    asked = [thing for thing in (true, false) if thing]
    text = f" {joint} ".join(asked if answer == "yes" else reversed(asked))
    reply = _is(true, false) if level == "are_you" else _can(true, false)
    return WayToAsk(
        level,
        kind,
        f"identity:{level}:{item}",
        f"{act} you {text}?",
        f"{answer.capitalize()}. I am Picochat{reply}.",
        ((answer,),),
    )


def _is(true: str | None, false: str | None) -> str:
    known = f", {true or 'a small language model'}"
    return f"{known}, not {_for_you(false)}" if false else known


def _can(true: str | None, false: str | None) -> str:
    able = f" and can try to {_for_you(true)}" if true else ", a small text model"
    if not false:
        return able
    return (
        f"{able}, but cannot {_for_you(false)}" if true else f"{able}. I cannot {_for_you(false)}"
    )


def _for_you(thing: str) -> str:
    """A thing in the reply: "pay my bills" in the question is "pay your bills" there."""
    swapped = {"my": "your", "me": "you", "your": "my", "you": "I", "we": "we"}
    return " ".join(swapped.get(word, word) for word in thing.split())


def _ask(way: WayToAsk, opener: str) -> Question:
    return Question(
        way.item,
        "identity",
        way.level,
        f"{opener} {way.text}" if opener else way.text,
        way.reply,
        must_include_any=way.must_include_any,
    )


# ---- rules ---------------------------------------------------------------------------------------

_OTHERS = "|".join(
    (
        "chatgpt|gpt|gpt 4|claude|gemini|bard|llama|siri|alexa|copilot|mistral|deepseek|qwen|grok",
        "cortana|bert|ernie|openai|google|meta|anthropic|microsoft|apple|amazon",
        "human|person|man|woman|girl|boy|child|doctor|teacher",
    )
)
# Both patterns are matched against `words_of` a reply: lower case, no punctuation ("I'm": "i m").
NAME_CLAIM = re.compile(
    r"\b(?:my name is|i am called|i m called|call me|i am known as) (?!not\b)(?:the |a |an )?(\w+)"
)
OTHER_CLAIM = re.compile(
    rf"\b(?:i am|i m|am i) (?:just |only |really |also )?(?:a |an |the )?(?:{_OTHERS})\b"
    rf"|\b(?:made|built|created|trained|developed|owned) by (?:{_OTHERS})\b"
    rf"|\bi am not (?:really |called )?{NAME}\b"
)


def claims_another_identity(reply: str) -> bool:
    """Whether the reply claims another name or maker, or to be a person. Denials do not count."""
    said = " ".join(words_of(reply))
    return any(name != NAME for name in NAME_CLAIM.findall(said)) or bool(OTHER_CLAIM.search(said))


def _first_word_is_wrong(row: ScoredRow, reply: str) -> bool:
    """Whether a reply to a yes/no question does not open with the answer, or gives both answers."""
    if row.curriculum_stage not in YES_NO_LEVELS or not row.must_include_any:
        return False
    right = row.must_include_any[0][0]
    opened = {words[0] for part in re.split(r"[.!?;:,\n]+", reply) if (words := words_of(part))}
    return words_of(reply)[0] != right or len(opened & {*YES_OR_NO}) > 1


@lru_cache
def facts() -> Topics:
    """What the replies to all open questions say, so that no line passes for many of them."""
    return Topics([fact.fits for fact in data().open], MOST_FACTS)


def _is_another_fact(row: ScoredRow, reply: str) -> bool:
    asked = [phrase for group in row.must_include_any for phrase in group]
    return row.curriculum_stage == "open" and not facts().fits(reply, asked)


SKILL = Skill(
    name="identity",
    make=make,
    chance=0.0,
    levels=LEVELS,
    category_prefixes=("identity",),
    weights={
        "release_skills": 0.22,
        "release_behavior": 0.85,
        "behavior": 0.20,
        "weak_skills": 0.12,
        "full": 0.08,
    },
    eval_weights={"release_skills": 0.172},
    rules=(
        ("no_name", lambda row, reply: NAME not in words_of(reply)),
        ("another_identity", lambda row, reply: claims_another_identity(reply)),
        ("first_word", _first_word_is_wrong),
        ("another_fact", _is_another_fact),
    ),
    exercise_questions=1_000,
    claim=Claim(
        order=1,
        # A bag of words over canned lines passes 0.48, a constant 0.50 of a level of yes and no. A
        # public model of 135M parameters that learned the rows passes 0.68 (docs/decisions/0035).
        pass_rate=0.65,
        level_pass_rate=0.55,
        first_release=True,
        why="a public model should know what it is",
    ),
)
