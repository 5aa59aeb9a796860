from __future__ import annotations

from collections import Counter

from picochat.skills import choice
from picochat.skills.skill import side_of


def test_there_are_at_least_250_distinct_facts() -> None:
    items = [fact.item for fact in choice.all_facts()]
    assert len(items) == len(set(items)) >= 250


def test_every_relation_has_enough_answers_for_four_options() -> None:
    for relation in choice.data().relations:
        assert len(set(relation.answers.values())) >= 5, relation.name


def test_the_right_label_stands_at_the_right_option_and_labels_are_balanced() -> None:
    answers = {fact.item: fact.answer for fact in choice.all_facts()}
    questions = choice.make(100, "eval", 42, "scratchpad")
    for question in questions:
        label = question.correct_choice
        assert label is not None
        assert question.options["ABCD".index(label)] == answers[question.item]
        assert len(set(question.options)) == 4
        assert f"{label}. {answers[question.item]}" in question.prompt.splitlines()
        assert question.reply == f"{answers[question.item]} ({label})"
    assert Counter(question.correct_choice for question in questions) == dict.fromkeys("ABCD", 25)


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


def test_no_fact_has_a_second_right_answer_among_its_wrong_options() -> None:
    """A subject that stands in two relations of one wording would make two options right."""
    for fact in choice.all_facts():
        for wording in range(4):
            options = choice.wrong_options(fact, 1, wording)
            assert len({*options, fact.answer, fact.subject}) == 5, fact


def test_a_held_out_fact_has_wrong_options_that_are_held_out_as_well() -> None:
    held_out = [fact for fact in choice.all_facts() if fact.side == "eval"]
    from_own_side = 0
    for fact in held_out:
        own = {
            each.answer
            for each in choice.all_facts()
            if each.relation is fact.relation and each.side == "eval"
        } - {fact.answer, fact.subject}
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
