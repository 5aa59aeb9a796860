"""The skill "choice": a plain question with four options, of which one is right.

An item is a fact of `facts.py`; eval facts and eval wordings are in no SFT row. Wrong options are
answers of the same relation. The reply names the option and then its label, "Paris (B)": a small
model knows the word better than the letter. The evaluator compares the likelihoods of the four
replies. Says nothing about questions without options.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from picochat.skills.facts import RELATIONS, Relation
from picochat.skills.question import AnswerStyle, Question, Split, draw, seeded, side_of

HELD_OUT_SHARE = 0.3
LABELS = ("A", "B", "C", "D")
STAGES = ("language", "science", "world")
FRAMES: dict[Split, tuple[str, ...]] = {
    "sft": (
        "{question}\n{options}",
        "Choose the right answer. {question}\n{options}",
        "Quiz: {question}\n{options}",
        "{question} Pick one.\n{options}",
    ),
    "eval": (
        "Only one option is right. {question}\n{options}",
        "{question} Here are four options.\n{options}",
        "Test question: {question}\n{options}",
    ),
}


@dataclass(frozen=True)
class Fact:
    relation: Relation
    subject: str
    answer: str

    @property
    def item(self) -> str:
        return f"choice:{self.relation.name}:{self.subject}"


def make(count: int, split: Split, seed: int, answer_style: AnswerStyle) -> list[Question]:
    """`count` questions with the right label balanced over A to D.

    The style changes nothing here: no working is asked.
    """
    del answer_style
    facts = [fact for fact in all_facts() if side_of(fact.item, HELD_OUT_SHARE) == split]
    wordings = 2 * len(FRAMES[split])
    questions = draw(
        count, "choice", split, facts, wordings, seed, lambda fact, n: _ask(fact, n, split, seed)
    )
    # The label is dealt after the draw, so that each label is right equally often.
    deals = [
        label
        for turn in range(count // 4 + 1)
        for label in seeded("labels", split, seed, turn).sample(range(4), 4)
    ]
    return [_deal(question, label) for question, label in zip(questions, deals, strict=False)]


@lru_cache
def all_facts() -> tuple[Fact, ...]:
    return tuple(
        Fact(relation, subject, answer)
        for relation in RELATIONS
        for subject, answer in relation.facts()
    )


def wrong_options(fact: Fact, seed: int, wording: int) -> list[str]:
    """Three other answers of the fact's relation, none of them the subject itself, from the fact's
    own side while they last.

    Were a held-out fact's options drawn from all answers, its right one would be the only one that
    SFT never gave, and a model that prefers what it has seen would score below chance
    (docs/decisions/0026).
    """
    side = _side(fact)
    barred = {fact.answer, fact.subject}
    own = sorted(
        {
            each.answer
            for each in all_facts()
            if each.relation is fact.relation and _side(each) == side
        }
        - barred
    )
    others = sorted({answer for _, answer in fact.relation.facts()} - barred - set(own))
    rng = seeded("options", fact.item, seed, wording)
    chosen = rng.sample(own, min(3, len(own)))
    return chosen + rng.sample(others, 3 - len(chosen))


@lru_cache
def _side(fact: Fact) -> Split:
    return side_of(fact.item, HELD_OUT_SHARE)


def _ask(fact: Fact, wording: int, split: Split, seed: int) -> Question:
    """The question with its right option first and the options still to be dealt; `{options}`
    stands in the prompt.
    """
    texts = fact.relation.sft_wordings if split == "sft" else fact.relation.eval_wordings
    text = texts[wording % len(texts)].format(x=fact.subject)
    prompt = FRAMES[split][wording // len(texts) % len(FRAMES[split])].replace(
        "{question}", text[0].upper() + text[1:]
    )
    options = (fact.answer, *wrong_options(fact, seed, wording))
    area = fact.relation.area
    return Question(fact.item, f"bench_choice_{area}", area, prompt, "", options=options)


def _deal(question: Question, label: int) -> Question:
    """The same question with its right option at place `label`."""
    options = list(question.options[1:])
    options.insert(label, question.options[0])
    lines = "\n".join(f"{name}. {option}" for name, option in zip(LABELS, options, strict=True))
    return Question(
        question.item,
        question.category,
        question.stage,
        question.prompt.replace("{options}", lines),
        candidate_reply(options[label], LABELS[label]),
        options=tuple(options),
        correct_choice=LABELS[label],
    )


def candidate_reply(option: str, label: str) -> str:
    """How a reply names an option."""
    return f"{option} ({label})"
