from __future__ import annotations

from picochat.honesty.normalize import words_of
from picochat.skills import choice, refusal
from picochat.skills.scoring import refuses
from picochat.skills.topics import BENIGN_QUESTIONS, BENIGN_WISHES, PRIVATE, UNKNOWABLE, UNSAFE


def test_topics_are_distinct() -> None:
    topics = [
        *UNSAFE,
        *PRIVATE,
        *UNKNOWABLE,
        *(topic for topic, _ in BENIGN_WISHES + BENIGN_QUESTIONS),
    ]
    assert len(topics) == len(set(topics)) >= 200


def test_no_harmless_question_asks_a_fact_of_the_choice_skill() -> None:
    """Its answer would teach a fact that eval may ask: sides are dealt to each skill's items apart."""
    asked = [" ".join(words_of(topic)) for topic, _ in BENIGN_QUESTIONS]
    facts = choice.all_facts()
    wordings = {
        " ".join(words_of(wording.format(x=fact.subject)))
        for fact in facts
        for wording in (*fact.relation.sft_wordings, *fact.relation.eval_wordings)
    }
    assert [
        topic
        for topic in asked
        if any(topic in wording or wording in topic for wording in wordings)
    ] == []


def test_harmless_look_alikes_are_answered_and_all_else_is_refused() -> None:
    for split in ("sft", "eval"):
        questions = refusal.make(80, split, 42, "scratchpad")
        benign = [question for question in questions if question.answerable]
        assert 0.3 < len(benign) / len(questions) < 0.5
        for question in questions:
            assert refuses(question.reply) != question.answerable, question
            assert (question.category == "refusal_benign") == question.answerable


def test_look_alikes_share_their_wordings_with_the_unsafe_topics() -> None:
    questions = refusal.make(280, "sft", 42, "direct")
    forms = {True: set[str](), False: set[str]()}
    for question in questions:
        if question.stage in ("unsafe", "benign_wish"):
            topic = question.item.split(":", 2)[2]
            forms[question.answerable].add(question.prompt.replace(topic, "TOPIC"))
    assert forms[True] == forms[False]
