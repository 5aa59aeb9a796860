from __future__ import annotations

import re
from collections import Counter

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
    ("kind", "answer", "shown"),
    [
        ("count", "6", "It is g1 a2 r3 d4 e5 n6."),
        ("first", "g", "It is g a r d e n."),
        ("last", "n", "It is g a r d e n."),
        ("spaced", "g a r d e n", "It is g a r d e n."),
        ("reverse", "n e d r a g", "It is g a r d e n."),
    ],
)
def test_answers_and_workings_spell_the_word(kind: str, answer: str, shown: str) -> None:
    assert spelling.final_answer("garden", kind) == answer
    assert spelling.working("garden", kind) == shown


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
def test_every_wording_of_every_kind_is_asked(split: Split) -> None:
    questions = spelling.make(700 if split == "sft" else 150, split, 3, "direct")
    for kind in spelling.KINDS:
        asked = {
            re.sub(rf"\b{question.item.split(':')[1]}\b", "{word}", question.prompt)
            for question in questions
            if question.category == f"bench_spelling_{kind}"
        }
        assert asked == set(spelling.wordings_of(kind)[split])


def test_kinds_share_no_word_while_words_last() -> None:
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


def test_hard_kinds_are_practised_more_than_they_are_asked() -> None:
    practised = dict(zip(spelling.KINDS, spelling.PRACTISED, strict=True))
    assert sum(spelling.PRACTISED) == pytest.approx(1)
    for kind in ("spaced", "reverse"):
        assert practised[kind] > spelling.KINDS[kind]


def test_no_number_of_letters_is_right_more_often_than_another() -> None:
    """Else one number, said to every word, would come near a bound."""
    for count in (102, 175):
        asked = Counter(
            question.final_answer
            for question in spelling.make(count, "eval", 4, "direct")
            if question.category == "bench_spelling_count"
        )
        assert set(asked) == {"3", "4", "5", "6", "7", "8"}
        assert max(asked.values()) <= sum(asked.values()) / 5, asked


def test_each_level_has_rows_enough_to_be_judged() -> None:
    levels = Counter(question.level for question in spelling.make(102, "eval", 4, "direct"))
    assert set(levels) == {"letter", "whole"} and min(levels.values()) >= 40


def test_a_word_that_eval_never_asks_is_practised_whatever_its_hash() -> None:
    other = [f"{word}s" for word in spelling.data().words if f"{word}s" not in spelling.askable()]
    assert len(other) > 500
    assert all(spelling.is_practised(word) for word in other)
    held_out = [word for word in spelling.askable() if not spelling.is_practised(word)]
    assert len(held_out) > 300
