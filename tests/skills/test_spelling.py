from __future__ import annotations

import pytest

from picochat.skills import spelling


def test_the_list_holds_at_least_600_distinct_plain_words() -> None:
    words = spelling.data().words
    assert len(words) == len(set(words)) >= 600
    assert all(
        word.isascii() and word.isalpha() and word.islower() and 3 <= len(word) <= 8
        for word in words
    )


def test_made_up_words_are_no_words_of_the_list() -> None:
    made = spelling.made_up_words()
    assert len(made) == len(set(made)) == spelling.MADE_UP_WORDS
    assert set(made).isdisjoint(spelling.data().words)


@pytest.mark.parametrize(
    ("level", "answer", "shown"),
    [
        ("count", "6", "It is g1 a2 r3 d4 e5 n6."),
        ("first", "g", "It is g a r d e n."),
        ("last", "n", "It is g a r d e n."),
        ("spaced", "g a r d e n", "It is g a r d e n."),
        ("reverse", "n e d r a g", "It is g a r d e n."),
    ],
)
def test_answers_and_workings_spell_the_word(level: str, answer: str, shown: str) -> None:
    assert spelling.final_answer("garden", level) == answer
    assert spelling.working("garden", level) == shown


def test_no_eval_word_is_asked_twice_and_made_up_words_are_about_a_fifth() -> None:
    questions = spelling.make(175, "eval", 4, "scratchpad")
    assert len({question.item for question in questions}) == 175
    made = sum(question.item.split(":")[1] in spelling.made_up_words() for question in questions)
    assert 0.15 < made / 175 < 0.25


def test_a_first_or_last_letter_cannot_be_right_by_taking_the_other() -> None:
    for question in spelling.make(400, "sft", 4, "direct"):
        word = question.item.split(":")[1]
        assert word[0] != word[-1]
