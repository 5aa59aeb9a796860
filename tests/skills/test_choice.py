from __future__ import annotations

from collections import Counter

import pytest

from picochat.skills import choice
from picochat.skills.skill import Question, Split, side_of


def test_there_are_at_least_250_distinct_facts() -> None:
    items = [fact.item for fact in choice.all_facts()]
    assert len(items) == len(set(items)) >= 250


def test_every_relation_has_enough_answers_for_four_options() -> None:
    for relation in choice.data().relations:
        assert len(set(relation.answers.values())) >= 5, relation.name


@pytest.mark.parametrize("split", ["sft", "eval"])
def test_the_reply_is_the_right_option_and_its_places_are_balanced(split: Split) -> None:
    facts = {fact.item: fact for fact in choice.all_facts()}
    questions = choice.make(160, split, 42, "scratchpad")
    for question in questions:
        label, fact = question.correct_choice, facts[question.item]
        assert label is not None
        assert question.options["ABCD".index(label)] == question.reply == fact.answer
        assert len({option.lower() for option in question.options}) == 4
        assert question.subject == fact.subject
    for some in (questions, [q for q in questions if is_listed(q)]):
        places = Counter(question.correct_choice for question in some)
        assert set(places.values()) <= {len(some) // 4}


def is_listed(question: Question) -> bool:
    """Whether the prompt lists the options."""
    lines = zip(choice.LABELS, question.options, strict=True)
    return question.prompt.split("\n")[1:] == [f"{label}. {option}" for label, option in lines]


def test_eval_lists_no_options_and_half_of_sft_does() -> None:
    for question in choice.make(160, "eval", 42, "direct"):
        assert "\n" not in question.prompt
    questions = choice.make(280, "sft", 42, "direct")
    assert sum(map(is_listed, questions)) == 140
    assert all(is_listed(question) == ("\n" in question.prompt) for question in questions)


def test_wrong_options_come_from_the_same_relation() -> None:
    facts = {fact.item: fact for fact in choice.all_facts()}
    for question in choice.make(300, "sft", 1, "direct"):
        known = set(facts[question.item].relation.answers.values())
        assert set(question.options) <= known


def test_having_been_an_answer_in_sft_tells_nothing_about_an_eval_option() -> None:
    facts = {fact.item: fact for fact in choice.all_facts()}
    given = {
        (fact.relation.name, fact.answer)
        for fact in facts.values()
        if side_of(fact.item, choice.HELD_OUT_FRACTION) == "sft"
    }
    right: list[bool] = []
    wrong: list[bool] = []
    for question in choice.make(70, "eval", 42, "direct"):
        fact = facts[question.item]
        for option in question.options:
            (right if option == fact.answer else wrong).append(
                (fact.relation.name, option) in given
            )
    assert abs(sum(right) / len(right) - sum(wrong) / len(wrong)) < 0.1


def test_eval_wordings_are_not_those_of_sft() -> None:
    for relation in choice.data().relations:
        assert set(relation.wordings.sft).isdisjoint(relation.wordings.eval)
    assert set(choice.data().frames.sft).isdisjoint(choice.data().frames.eval)


def test_what_may_be_right_as_well_is_no_option() -> None:
    barred = 0
    for fact in choice.all_facts():
        also = set(fact.relation.also.get(fact.subject, ()))
        for seed in range(8):
            options = choice.wrong_options(fact, seed, 0)
            assert len({*options, fact.answer, fact.subject}) == 5, fact
            assert also.isdisjoint(options), fact
        barred += len(also)
    assert barred > 100


@pytest.mark.parametrize(
    ("relation", "subject", "second"),
    [
        ("opposite", "loud", "soft"),
        ("opposite", "right", "false"),
        ("opposite", "high", "down"),
        ("young_animal", "deer", "calf"),
        ("animal_sound", "cat", "hiss"),
        ("animal_home", "ant", "nest"),
        ("tool", "catch fish", "hook"),
    ],
)
def test_a_known_second_answer_is_barred(relation: str, subject: str, second: str) -> None:
    found = next(each for each in choice.data().relations if each.name == relation)
    assert second in found.answers.values()
    assert second in found.barred(subject)


def test_a_held_out_fact_has_wrong_options_that_are_held_out_as_well() -> None:
    held_out = [fact for fact in choice.all_facts() if fact.side == "eval"]
    from_own_side = 0
    for fact in held_out:
        own = {
            each.answer
            for each in choice.all_facts()
            if each.relation is fact.relation and each.side == "eval"
        } - fact.relation.barred(fact.subject)
        found = set(choice.wrong_options(fact, 1, 0)) & own
        assert len(found) == min(3, len(own))
        from_own_side += len(found) == 3
    assert from_own_side / len(held_out) > 0.5


def test_every_wording_and_frame_is_asked_and_opens_with_a_capital() -> None:
    for split in ("sft", "eval"):
        questions = choice.make(500 if split == "sft" else 130, split, 4, "direct")
        heads = [question.prompt.split("\n")[0] for question in questions]
        assert all(head[0].isupper() for head in heads)
        for frame in choice.data().frames[split]:
            before, _, after = frame.partition("{question}")
            assert any(head.startswith(before) and head.endswith(after) for head in heads), frame


def test_levels_are_the_areas_of_the_relations() -> None:
    assert {relation.area for relation in choice.data().relations} == set(choice.SKILL.levels)
    names = [relation.name for relation in choice.data().relations]
    assert len(names) == len(set(names))
