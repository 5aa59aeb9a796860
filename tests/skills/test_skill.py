from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picochat.core.errors import WrongUsage
from picochat.skills.skill import Question, divide_rows, draw, side_of, with_final_answer


def ask(item: int, wording: int) -> Question:
    return Question(f"item {item}", "math", "add", f"{item} in wording {wording}?", "reply")


@given(st.integers(0, 5000), st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_shares_add_up_and_differ_from_the_weights_by_less_than_one_row(
    count: int, weights: list[int]
) -> None:
    named = {str(number): float(weight) for number, weight in enumerate(weights)}
    rows = divide_rows(count, named)
    assert sum(rows.values()) == count
    for name, weight in named.items():
        assert abs(rows[name] - count * weight / sum(weights)) < 1


def test_an_eval_item_is_asked_once_and_an_sft_item_again_only_in_another_wording() -> None:
    asked = draw(3, "add", "eval", range(3), 4, 1, ask)
    assert len({question.item for question in asked}) == 3
    with pytest.raises(WrongUsage) as error:
        draw(4, "add", "eval", range(3), 4, 1, ask)
    assert "4 eval rows are asked for, 3 independent ones exist" in error.value.problems[0].what
    trained = draw(12, "add", "sft", range(3), 4, 1, ask)
    assert len({question.prompt for question in trained}) == 12
    with pytest.raises(WrongUsage):
        draw(13, "add", "sft", range(3), 4, 1, ask)


def test_all_items_come_before_any_comes_again() -> None:
    first = draw(5, "add", "sft", range(5), 2, 7, ask)
    assert {question.item for question in first} == {f"item {n}" for n in range(5)}


def test_the_side_of_an_item_follows_from_the_item_and_holds_out_about_the_fraction() -> None:
    sides = [side_of(f"word {n}", 0.3) for n in range(4000)]
    assert sides == [side_of(f"word {n}", 0.3) for n in range(4000)]
    assert 0.27 < sides.count("eval") / len(sides) < 0.33


def test_the_draw_depends_on_the_seed_and_on_the_level() -> None:
    first = [q.item for q in draw(5, "add", "eval", range(50), 2, 1, ask)]
    assert [q.item for q in draw(5, "add", "eval", range(50), 2, 1, ask)] == first
    assert [q.item for q in draw(5, "add", "eval", range(50), 2, 2, ask)] != first
    assert [q.item for q in draw(5, "subtract", "eval", range(50), 2, 1, ask)] != first


def test_wordings_are_spread_evenly_over_the_items() -> None:
    questions = draw(40, "add", "sft", range(10), 4, 1, ask)
    for item in range(10):
        prompts = {q.prompt for q in questions if q.item == f"item {item}"}
        assert prompts == {f"{item} in wording {n}?" for n in range(4)}


def test_two_items_with_one_prompt_make_one_question() -> None:
    def same(item: int, wording: int) -> Question:
        return Question(f"item {item}", "math", "add", "the same?", "reply")

    assert len(draw(1, "add", "eval", range(3), 1, 1, same)) == 1
    with pytest.raises(WrongUsage):
        draw(2, "add", "eval", range(3), 1, 1, same)


@given(st.text(), st.floats(0, 1))
def test_a_larger_held_out_share_holds_out_the_same_items_and_more(
    text: str, fraction: float
) -> None:
    if side_of(text, fraction) == "eval":
        assert side_of(text, min(1.0, fraction + 0.1)) == "eval"
    assert side_of(text, 0.0) == "sft"


def test_a_reply_in_either_style_ends_in_its_answer() -> None:
    assert with_final_answer("7+8=15.", "15", "direct") == "15"
    assert with_final_answer("7+8=15.", "15", "scratchpad") == "7+8=15.\nFinal answer: 15"
