from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from picochat.core.errors import BadInput
from picochat.core.records import write_jsonl
from picochat.skills.row_files import read_eval_rows, read_sft_rows
from picochat.skills.skill_table import skill_of
from picochat.skills.task_rows import as_eval_row, row_json
from tests.skills.rows_builder import eval_row, release_rows


def written(path: Path, *rows: dict[str, Any] | str) -> Path:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    )
    return path


def problems_of(error: pytest.ExceptionInfo[BadInput]) -> str:
    return "\n".join(error.value.lines())


@pytest.mark.parametrize(
    ("category", "skill"),
    [
        ("identity", "identity"),
        ("refusal_benign", "refusal"),
        ("bench_choice_world", "choice"),
        ("bench_math_addition", "math"),
        ("bench_spelling_count", "spelling"),
        ("mathematics", "other"),
        ("chat", "other"),
    ],
)
def test_the_skill_follows_from_the_category(category: str, skill: str) -> None:
    assert skill_of(category) == skill
    assert eval_row(category=category).skill == skill


def test_rows_of_other_makers_are_read_in_the_known_fields(tmp_path: Path) -> None:
    path = written(
        tmp_path / "chat.jsonl",
        {
            "user": "Hi",
            "assistant": "Hello",
            "group_id": "g1",
            "mixture_profile": "x",
            "mixture_weight": 0.5,
        },
        {
            "user": "2+2?",
            "assistant": "4",
            "category": "math",
            "template": "t",
            "fit_normalized_answer": "4",
        },
        "",
    )
    first, second = read_sft_rows(path).rows
    assert (first.id, first.group, first.tags) == (
        "sft-line-1",
        "g1",
        {"mixture_profile": "x", "mixture_weight": 0.5},
    )
    assert (second.group, second.skill, second.fit_normalized_answer) == ("t", "math", "4")
    evals = written(
        tmp_path / "eval.jsonl",
        {"user": "2+2?", "expected": "4", "level": 2, "must_include_any": [["4"]]},
    )
    assert read_eval_rows(evals).rows[0].expected == "4"


def test_all_problems_of_a_file_come_at_once_with_their_lines(tmp_path: Path) -> None:
    path = written(
        tmp_path / "chat.jsonl",
        {"user": "a", "assistant": "b", "id": "x"},
        {"user": 3, "assistant": "b"},
        {"user": "a", "asistant": "b"},
        "{broken",
        "[1]",
        {"user": "  ", "assistant": "b"},
        {"user": "a", "assistant": "b", "id": "x"},
    )
    with pytest.raises(BadInput) as error:
        read_sft_rows(path)
    text = problems_of(error)
    for part in (
        "line 2: user",
        "line 3: assistant: is missing",
        "line 3: asistant: unknown key, did you mean assistant?",
        "line 4: not valid JSON",
        "line 5: a JSON object is needed, found list",
        "line 6: user",
        "line 7: id 'x' stands on line 1 already",
        "mend or remove these lines",
    ):
        assert part in text
    assert error.value.exit_code == 4


def test_only_the_first_problems_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "eval.jsonl", *[{"user": number} for number in range(50)])
    with pytest.raises(BadInput) as error:
        read_eval_rows(path)
    assert len(error.value.problems) == 21
    assert "50 problems" in error.value.what
    assert "30 more" in error.value.problems[-1].what


def test_equal_problems_come_together_with_their_lines(tmp_path: Path) -> None:
    path = written(tmp_path / "eval.jsonl", *[{"user": 1}] * 50)
    with pytest.raises(BadInput) as error:
        read_eval_rows(path)
    (problem,) = error.value.problems
    assert problem.what.startswith("lines 1, 2, 3, 4, 5 and 45 more: user: ")


@pytest.mark.parametrize(
    ("content", "fix"),
    [(b"", "write rows into it"), (b"\n\n", "write rows into it"), (None, "correct the path")],
)
def test_files_without_rows_are_refused_with_their_remedy(
    tmp_path: Path, content: bytes | None, fix: str
) -> None:
    path = tmp_path / "eval.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput) as error:
        read_eval_rows(path)
    assert error.value.fix and fix in error.value.fix
    path.write_text('{"user": "q", "reference_answer": "a"}')
    assert len(read_eval_rows(path).rows) == 1


def test_a_right_choice_that_is_no_label_is_refused(tmp_path: Path) -> None:
    path = written(
        tmp_path / "e.jsonl", {"user": "q", "choice_labels": ["A"], "correct_choice": "B"}
    )
    with pytest.raises(BadInput) as error:
        read_eval_rows(path)
    assert "none of choice_labels" in problems_of(error)


def test_rows_survive_writing_and_reading(tmp_path: Path) -> None:
    sft, evals = release_rows(64, 32)
    for name, rows in (("chat", sft), ("eval", evals)):
        write_jsonl(tmp_path / f"{name}.jsonl", [row_json(row) for row in rows])
    assert read_sft_rows(tmp_path / "chat.jsonl").rows == sft
    assert read_eval_rows(tmp_path / "eval.jsonl").rows == evals


def test_an_unknown_skill_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    path = written(tmp_path / "e.jsonl", {"user": "q", "expected": "a", "skill": "maths"})
    with pytest.raises(BadInput) as error:
        read_eval_rows(path)
    assert "no skill; it is one of math, spelling, identity, choice, refusal" in problems_of(error)


def test_a_skill_that_is_given_outweighs_the_category(tmp_path: Path) -> None:
    path = written(
        tmp_path / "e.jsonl", {"user": "q", "expected": "a", "category": "math", "skill": "other"}
    )
    assert read_eval_rows(path).rows[0].skill == "other"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"user": "q", "choice_labels": ["A", "B"], "choice_options": ["x"]}, "1 choice_options"),
        ({"user": "q", "choice_labels": ["A", " "]}, "a label or an option is empty"),
        (
            {"user": "q", "choice_labels": ["A", "B"], "choice_options": ["x", ""]},
            "a label or an option is empty",
        ),
        ({"user": "q", "require_corpus_support": True}, "require_corpus_support"),
        ({"user": "q", "max_words": "ten"}, "max_words"),
        ({"user": "q", "must_include_any": ["a"]}, "must_include_any"),
        ({"user": "q", "expected": 4}, "expected"),
        ({}, "user: is missing"),
        ({"user": "q", "id": 7}, "id"),
    ],
)
def test_a_field_of_the_wrong_form_is_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as error:
        read_eval_rows(written(tmp_path / "e.jsonl", row))
    assert said in problems_of(error)


def test_the_same_key_twice_in_a_row_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "e.jsonl", '{"user": "q", "expected": "a", "expected": "b"}')
    with pytest.raises(BadInput) as error:
        read_eval_rows(path)
    assert "'expected' stands twice" in problems_of(error)


def test_what_is_written_leaves_defaults_out_and_keeps_what_all_read() -> None:
    assert row_json(eval_row(normalized_answers=["4"])) == {
        "id": "e1",
        "user": "Please answer this question for me now.",
        "category": "chat",
        "skill": "other",
        "answerable": True,
        "normalized_answers": ["4"],
    }


def test_the_eval_row_of_an_sft_row_asks_what_it_was_trained_on() -> None:
    sft, _ = release_rows(64, 32)
    for row in sft:
        asked = as_eval_row(row)
        assert (asked.user, asked.item, asked.skill) == (row.user, row.item, row.skill)
        assert asked.reference_answer == row.assistant
        assert (asked.correct_choice, asked.choice_options) == (
            row.correct_choice,
            row.choice_options,
        )
        assert asked.max_words == (80 if row.answer_style == "scratchpad" else None)


def test_eval_rows_of_a_pack_say_so_and_number_their_questions() -> None:
    _, evals = release_rows(64, 32)
    assert {row.split for row in evals} == {"eval"}
    assert len({row.id for row in evals}) == 32
    for row in evals:
        assert row.id.startswith(f"eval-{row.skill}-")
