"""The schemas of rows agree with what reading accepts, and the examples of the docs work."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from picochat.core.errors import BadInput
from picochat.skills.row_files import read_eval_rows, read_sft_rows
from picochat.skills.row_schema import chat_row_schema, eval_row_schema
from picochat.skills.task_rows import row_json, scored_by
from tests.skills.rows_builder import release_rows
from tests.skills.test_row_forms import SINGLE

PAGE = Path(__file__).parents[2] / "docs/own-data.md"
CHAT = jsonschema.Draft202012Validator(json.loads(chat_row_schema()))
EVAL = jsonschema.Draft202012Validator(json.loads(eval_row_schema()))


def examples(heading: str) -> list[dict[str, Any]]:
    part = PAGE.read_text().split(f"## {heading}\n")[1]
    block = re.search(r"```jsonl\n(.*?)```", part, re.DOTALL)
    assert block
    return [json.loads(line) for line in block.group(1).splitlines()]


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_chat_row_of_the_page_is_read_and_fits_the_schema(tmp_path: Path) -> None:
    rows = examples("Chat rows")
    found = read_sft_rows(lines(tmp_path / "chat.jsonl", rows))
    assert len(found.rows) == len(rows) == sum(found.read.forms.values())
    assert set(found.read.forms) == {
        "messages",
        "conversations",
        "instruction",
        "prompt",
        "question",
        "own",
    }
    assert not found.read.left_out and not found.read.dropped_keys
    assert all(CHAT.is_valid(row) for row in rows)


def test_every_eval_row_of_the_page_is_read_and_has_its_rule(tmp_path: Path) -> None:
    rows = examples("Eval rows")
    found = read_eval_rows(lines(tmp_path / "eval.jsonl", rows)).rows
    assert [scored_by(row) for row in found] == [
        "exact answer",
        "regular expression",
        "phrases",
        "choice",
        "length",
    ]
    assert all(EVAL.is_valid(row) for row in rows)


@pytest.mark.parametrize("form", SINGLE)
def test_every_form_fits_both_schemas(form: str) -> None:
    assert CHAT.is_valid(SINGLE[form])
    assert form == "own" or EVAL.is_valid(SINGLE[form])


def test_rows_of_the_task_pack_fit_the_schemas() -> None:
    sft, evals = release_rows(100, 50)
    assert all(CHAT.is_valid(row_json(row)) for row in sft)
    assert all(EVAL.is_valid(row_json(row)) for row in evals)


@pytest.mark.parametrize(
    "row",
    [
        {"user": "a"},
        {"user": "a", "assistant": "b", "asistant": "c"},
        {"user": 3, "assistant": "b"},
        {"prompt": 3, "completion": "b"},
        {"messages": "Hi."},
        {"instruction": "a"},
        {},
    ],
)
def test_what_the_schema_refuses_is_refused_or_left_out(
    row: dict[str, Any], tmp_path: Path
) -> None:
    assert not CHAT.is_valid(row)
    with pytest.raises(BadInput):
        read_sft_rows(lines(tmp_path / "chat.jsonl", [row]))
