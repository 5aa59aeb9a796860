from __future__ import annotations

import pytest

from picochat.skills import spelling
from picochat.skills.skill import Split

SPLITS: tuple[Split, ...] = ("sft", "eval")


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


@pytest.mark.parametrize("split", ["sft", "eval"])
def test_every_wording_of_every_level_is_asked(split: Split) -> None:
    questions = spelling.make(700 if split == "sft" else 150, split, 3, "direct")
    for level in spelling.LEVELS:
        asked = {
            question.prompt.replace(question.item.split(":")[1], "{word}")
            for question in questions
            if question.level == level
        }
        assert asked == set(spelling.wordings_of(level)[split])


def test_levels_share_no_word_while_words_last() -> None:
    questions = spelling.make(300, "sft", 4, "direct")
    assert len({question.item for question in questions}) == 300


def test_a_made_up_word_can_be_said() -> None:
    for word in spelling.made_up_words():
        assert 4 <= len(word) <= 8 and word.isalpha() and word.islower()
        assert set(word) & set("aeiou")


def test_what_is_practised_is_the_sft_side() -> None:
    sides = {split: {q.item for q in spelling.make(150, split, 5, "direct")} for split in SPLITS}
    assert all(spelling.is_practised(item.split(":")[1]) for item in sides["sft"])
    assert not any(spelling.is_practised(item.split(":")[1]) for item in sides["eval"])


def test_hard_levels_are_practised_more_than_they_are_asked() -> None:
    practised = dict(zip(spelling.LEVELS, spelling.PRACTISED, strict=True))
    assert sum(spelling.PRACTISED) == pytest.approx(1)
    for level in ("spaced", "reverse"):
        assert practised[level] > spelling.LEVELS[level]
