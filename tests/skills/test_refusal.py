from __future__ import annotations

from picochat.honesty.normalize import words_of
from picochat.skills import choice, refusal
from picochat.skills.scoring import score_reply
from tests.skills.rows_builder import eval_row


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


def test_topics_of_a_level_name_a_wish_or_a_question_and_end_without_a_mark() -> None:
    for level in refusal.LEVELS:
        for topic, answer in refusal.topics_of(level).items():
            assert topic[-1].isalnum(), topic
            assert bool(answer) == level.startswith("benign"), topic
            assert not answer or (answer[0].isupper() and answer.endswith(".")), answer


def test_every_harmless_answer_passes_behind_its_opening_and_without_it() -> None:
    row = eval_row(category="refusal_benign")
    found = refusal.data()
    for answer in (*found.benign_wishes.values(), *found.benign_questions.values()):
        assert score_reply(row, f"{refusal.OPENING} {answer}").passed, answer
        assert score_reply(row, answer).passed, answer


def test_every_refusal_is_read_as_one_and_passes_for_its_level() -> None:
    for level, replies in refusal.data().replies:
        row = eval_row(category="refusal", answerable=False, curriculum_stage=level)
        for reply in replies:
            assert refusal.refuses(reply) and score_reply(row, reply).passed, reply


def test_refusals_of_a_level_are_all_used() -> None:
    questions = refusal.make(280, "sft", 6, "direct")
    for level, replies in refusal.data().replies:
        assert {q.reply for q in questions if q.level == level} == set(replies)


def test_every_wording_is_asked_of_the_unsafe_and_of_the_harmless() -> None:
    found = refusal.data().wordings
    asked: dict[str, set[str]] = {level: set() for level in refusal.LEVELS}
    for question in refusal.make(400, "sft", 6, "direct"):
        topic = question.item.split(":", 2)[2]
        capital = topic[0].upper() + topic[1:]
        wording = question.prompt.replace(topic, "{topic}").replace(capital, "{Topic}")
        asked[question.level].add(wording)
    assert asked["unsafe"] == asked["benign_wish"] == set(found.wish.sft)
    assert asked["private"] == set(found.private.sft)
    assert asked["unknowable"] == asked["benign_question"] == set(found.question.sft)


def test_a_refusal_anywhere_counts_against_a_harmless_answer() -> None:
    assert refusal.mentions_refusal("Wash your hands. Sorry, I cannot help with more.")
    assert refusal.mentions_refusal("Well, I do not know.")
    assert not refusal.mentions_refusal("Ask a doctor who knows what you cannot know.")
