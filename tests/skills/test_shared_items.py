from __future__ import annotations

from functools import lru_cache

import pytest

from picochat.skills import choice, refusal
from picochat.skills.choice import LABELS, listing
from picochat.skills.shared_items import WITHIN_WORDS, EvalItems
from picochat.skills.skill_table import SKILLS
from picochat.skills.task_rows import EvalRow, SftRow
from picochat.skills.task_rows import eval_row as eval_row_of
from picochat.skills.task_rows import sft_row as sft_row_of
from tests.skills.rows_builder import eval_row, release_rows, sft_row


@lru_cache
def held_out_facts() -> EvalItems:
    """The eval rows of every held-out fact."""
    count = sum(fact.side == "eval" for fact in choice.all_facts())
    questions = choice.make(count, "eval", 1, "direct")
    return EvalItems(eval_row_of(question, n, "direct") for n, question in enumerate(questions))


def exercise_rows(seed: int) -> list[SftRow]:
    """The questions that stand among the exercises."""
    return [
        sft_row_of(question, number, "direct")
        for skill in SKILLS
        for number, question in enumerate(
            skill.make(skill.exercise_questions, "sft", seed, "direct")
        )
    ]


@pytest.mark.parametrize("seed", [1, 42])
def test_neither_sft_rows_nor_exercises_answer_a_held_out_fact(seed: int) -> None:
    rows = [*release_rows(2800, 100, seed=seed)[0], *exercise_rows(seed)]
    assert {row.id: found for row in rows if (found := held_out_facts().answered_by(row))} == {}
    assert len(rows) > 4_000


def test_no_harmless_look_alike_of_either_side_answers_a_held_out_fact() -> None:
    """Which look-alikes SFT has follows from the split of another skill."""
    asked = refusal.data().harmless
    found = {topic: held_out_facts().answered_in(f"{topic}? {asked[topic]}") for topic in asked}
    assert {topic: items for topic, items in found.items() if items} == {}


@pytest.mark.parametrize(
    ("item", "user", "assistant"),
    [
        (
            "young_animal:cat",
            "What is the baby of a cat called?",
            "The baby of a cat is called a kitten.",
        ),
        ("tool:write on paper", "What do we do with a pencil?", "We write or draw with a pencil."),
        ("tool:cut paper", "What do we use to cut paper?", "We use scissors to cut paper."),
        ("animal_sound:rooster", "Which bird sings at dawn?", "The rooster crows at dawn."),
        ("tool:drive in a nail", "How do I hit a nail straight?", "Let the hammer do the work."),
        ("capital:Germany", "Where is Berlin?", "It is the capital of Germany."),
        ("plural:bus", "Say it for more than one bus.", "Two buses."),
    ],
)
def test_an_answer_planted_in_any_form_is_found(item: str, user: str, assistant: str) -> None:
    planted = sft_row(user=user, assistant=assistant)
    assert held_out_facts().in_rows([planted]) == {f"choice:{item}"}


PARIS = eval_row(item="capital", user="x", subject="France", reference_answer="Paris")


def test_a_list_of_options_answers_nothing_and_the_reply_does() -> None:
    options = ["Paris", "Rome", "Oslo", "Bonn"]
    listed = {
        "user": listing("Which city is not in France?", LABELS, options),
        "choice_labels": [*LABELS],
        "choice_options": options,
    }
    items = EvalItems([PARIS])
    assert items.answered_by(sft_row(assistant="Rome", correct_choice="B", **listed)) == set()
    assert items.answered_by(sft_row(assistant="Paris", correct_choice="A", **listed)) == {
        "capital"
    }


@pytest.mark.parametrize(("between", "found"), [(WITHIN_WORDS - 1, 1), (WITHIN_WORDS, 0)])
def test_subject_and_answer_are_one_statement_only_close_to_each_other(
    between: int, found: int
) -> None:
    text = f"France {'word ' * between} Paris"
    assert len(EvalItems([PARIS]).answered_in(text)) == found


def test_earlier_turns_are_read_as_well() -> None:
    history = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris."},
    ]
    row = sft_row(user="Thank you.", assistant="With pleasure.", history=history)
    assert EvalItems([PARIS]).in_rows([row]) == {"capital"}


@pytest.mark.parametrize("text", ["a bus, and again the bus", "The capital of Italy is Rome.", ""])
def test_a_text_that_gives_no_answer_is_not_found(text: str) -> None:
    assert held_out_facts().answered_in(text) == set()


def test_a_shared_item_or_prompt_is_found_once_however_many_rows_ask_it() -> None:
    evals: list[EvalRow] = [
        eval_row(id="1", item="i1", user="a"),
        eval_row(id="2", item="i1", user="b"),
        eval_row(id="3", item="i2", user="Say it!"),
        eval_row(id="4", item="i3", user="c"),
    ]
    sft = [sft_row(item="i1"), sft_row(user="say: IT")]
    assert EvalItems(evals).in_rows(sft) == {"i1", "i2"}
