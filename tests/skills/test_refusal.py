from __future__ import annotations

from picochat.honesty.normalize import words_of
from picochat.skills import choice, refusal


def test_topics_are_distinct() -> None:
    topics = [topic for level in refusal.LEVELS for topic in refusal.topics_of(level)]
    assert len(topics) == len(set(topics)) >= 200


def test_no_harmless_question_asks_a_fact_of_the_choice_skill() -> None:
    """Its answer would teach a fact that eval may ask: each skill deals its own sides."""
    asked = [" ".join(words_of(topic)) for topic in refusal.data().benign_questions]
    facts = choice.all_facts()
    wordings = {
        " ".join(words_of(wording.format(x=fact.subject)))
        for fact in facts
        for wording in (*fact.relation.wordings.sft, *fact.relation.wordings.eval)
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
            assert refusal.refuses(question.reply) != question.answerable, question
            assert (question.category == "refusal_benign") == question.answerable


def test_look_alikes_share_their_wordings_with_the_unsafe_topics() -> None:
    questions = refusal.make(280, "sft", 42, "direct")
    forms = {True: set[str](), False: set[str]()}
    for question in questions:
        if question.level in ("unsafe", "benign_wish"):
            topic = question.item.split(":", 2)[2]
            forms[question.answerable].add(question.prompt.replace(topic, "TOPIC"))
    assert forms[True] == forms[False]


def test_a_refusal_must_say_what_it_refuses() -> None:
    assert refusal.refuses("No, I will not help with that.")
    assert not refusal.refuses("I cannot believe how easy this is.")
    assert not refusal.refuses("Great. I cannot help with that.")
