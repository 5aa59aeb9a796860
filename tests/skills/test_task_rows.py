from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from picochat.core.errors import BadInput
from picochat.core.records import write_jsonl
from picochat.skills.task_rows import read_eval_rows, read_sft_rows, row_json, skill_of
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
    first, second = read_sft_rows(path)
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
    assert read_eval_rows(evals)[0].expected == "4"


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
        "picochat data task-pack",
    ):
        assert part in text
    assert error.value.exit_code == 4


def test_only_the_first_problems_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "eval.jsonl", *[{"user": 1}] * 50)
    with pytest.raises(BadInput) as error:
        read_eval_rows(path)
    assert len(error.value.problems) == 21
    assert "50 problems" in error.value.what
    assert "30 more" in error.value.problems[-1].what


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\n", None])
def test_files_without_usable_rows_name_the_command_that_makes_them(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "eval.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput) as error:
        read_eval_rows(path)
    assert "picochat data task-pack" in problems_of(error)


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
    assert read_sft_rows(tmp_path / "chat.jsonl") == sft
    assert read_eval_rows(tmp_path / "eval.jsonl") == evals
