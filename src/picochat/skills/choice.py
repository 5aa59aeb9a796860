"""The skill "choice": a plain question with four options, of which one is right.

An item is a fact of data/choice.toml. No SFT row has an eval fact or an eval wording. Wrong options
are answers of the same relation. The reply is the option with its label, "Paris (B)", because a
small model knows words better than letters. The evaluation compares the likelihoods of the four
replies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field

from picochat.core.records import Record
from picochat.skills.skill import AnswerStyle, Claim, Question, Skill, Split, draw, seeded, side_of
from picochat.skills.skill_data import ApartSides, Text, read_skill_data, with_slots

HELD_OUT_FRACTION = 0.3
LABELS = ("A", "B", "C", "D")
Level = Literal["language", "science", "world"]


def _four_answers(answers: dict[str, str]) -> dict[str, str]:
    if len(set(answers.values())) <= len(LABELS):
        raise ValueError("a relation needs five different answers or more, to fill four options")
    return answers


class Relation(Record):
    """Facts of one kind, subject -> answer. In a wording, {x} is the subject."""

    name: Text
    area: Level
    wordings: Annotated[ApartSides, AfterValidator(with_slots("x"))]
    answers: Annotated[dict[Text, Text], AfterValidator(_four_answers)]


class ChoiceData(Record):
    """data/choice.toml: the relations, and the frames around a question."""

    frames: Annotated[ApartSides, AfterValidator(with_slots("question"))]
    relations: Annotated[tuple[Relation, ...], Field(min_length=1)]


@lru_cache
def data() -> ChoiceData:
    return read_skill_data("choice.toml", ChoiceData)


@dataclass(frozen=True, eq=False)
class Fact:
    relation: Relation
    subject: str
    answer: str

    @property
    def item(self) -> str:
        return f"choice:{self.relation.name}:{self.subject}"

    @cached_property
    def side(self) -> Split:
        return side_of(self.item, HELD_OUT_FRACTION)


@lru_cache
def all_facts() -> tuple[Fact, ...]:
    return tuple(
        Fact(relation, subject, answer)
        for relation in data().relations
        for subject, answer in relation.answers.items()
    )


def make(count: int, split: Split, seed: int, answer_style: AnswerStyle) -> list[Question]:
    """`count` questions, with each of A to D right equally often. The style changes nothing.

    Raises WrongUsage where there are too few facts.
    """
    del answer_style
    facts = [fact for fact in all_facts() if fact.side == split]
    wordings = 2 * len(data().frames[split])
    questions = draw(
        count, "choice", split, facts, wordings, seed, lambda fact, n: _ask(fact, n, split, seed)
    )
    # Labels are assigned after the draw, which may pass over questions: each label is then right
    # equally often.
    labels = [
        label
        for turn in range(count // 4 + 1)
        for label in seeded("labels", split, seed, turn).sample(range(4), 4)
    ]
    return [_with_label(*pair) for pair in zip(questions, labels, strict=False)]


def wrong_options(fact: Fact, seed: int, wording: int) -> list[str]:
    """Three other answers of the fact's relation, from the fact's own side as far as they reach."""
    # With options from all answers, the right option of a held-out fact was nearly always the only
    # one that SFT had never given as an answer, and runs scored below chance (docs/decisions/0026).
    related = [each for each in all_facts() if each.relation is fact.relation]
    barred = {fact.answer, fact.subject}
    own = {each.answer for each in related if each.side == fact.side} - barred
    others = {each.answer for each in related} - barred - own
    rng = seeded("options", fact.item, seed, wording)
    chosen = rng.sample(sorted(own), min(3, len(own)))
    return chosen + rng.sample(sorted(others), 3 - len(chosen))


def _ask(fact: Fact, wording: int, split: Split, seed: int) -> Question:
    """The question with its right option first, and without the options in its prompt."""
    texts, frames = fact.relation.wordings[split], data().frames[split]
    text = texts[wording % len(texts)].format(x=fact.subject)
    prompt = frames[wording // len(texts) % len(frames)].replace(
        "{question}", text[0].upper() + text[1:]
    )
    options = (fact.answer, *wrong_options(fact, seed, wording))
    area = fact.relation.area
    return Question(fact.item, f"bench_choice_{area}", area, prompt, "", options=options)


def _with_label(question: Question, label: int) -> Question:
    """The question with its right option at place `label`, the list of options and the reply."""
    options = list(question.options[1:])
    options.insert(label, question.options[0])
    lines = "\n".join(f"{name}. {option}" for name, option in zip(LABELS, options, strict=True))
    return replace(
        question,
        prompt=f"{question.prompt}\n{lines}",
        reply=candidate_reply(options[label], LABELS[label]),
        options=tuple(options),
        correct_choice=LABELS[label],
    )


def candidate_reply(option: str, label: str) -> str:
    return f"{option} ({label})"


SKILL = Skill(
    name="choice",
    make=make,
    chance=1 / len(LABELS),
    levels=get_args(Level),
    category_prefixes=("bench_choice", "choice"),
    weights={"release_skills": 0.10, "behavior": 0.25, "weak_skills": 0.16, "full": 0.34},
    exercise_questions=800,
    claim=Claim(order=3, pass_rate=0.50, above_chance=0.15, first_release=True),
)
