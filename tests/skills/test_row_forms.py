"""Chat rows and eval rows in the forms of other makers, read from real files of every kind."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from picochat.core.errors import BadInput
from picochat.facts import RowsLeftOut
from picochat.skills.row_files import read_eval_rows, read_sft_rows
from picochat.skills.scoring import score_reply
from picochat.skills.task_rows import EvalRow, Message, scored_by

SYSTEM, ASKED, SAID = "Be brief.", "What is a fox?", "An animal."
PARTS = [{"type": "text", "text": "What is "}, {"type": "text", "text": "a fox?"}]
SINGLE: dict[str, dict[str, Any]] = {
    "own": {"system": SYSTEM, "user": ASKED, "assistant": SAID},
    "messages": {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": ASKED},
            {"role": "assistant", "content": SAID},
        ]
    },
    "messages with text parts": {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": PARTS},
            {"role": "assistant", "content": [{"type": "text", "text": SAID}], "tool_calls": None},
        ],
        "tools": None,
    },
    "ShareGPT": {
        "conversations": [
            {"from": "system", "value": SYSTEM},
            {"from": "human", "value": ASKED},
            {"from": "gpt", "value": SAID},
        ]
    },
    "ShareGPT with a system text beside it": {
        "system": SYSTEM,
        "conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": SAID}],
    },
    "conversations with roles": {
        "conversations": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": ASKED},
            {"role": "assistant", "content": SAID},
        ]
    },
    "Alpaca": {"system": SYSTEM, "instruction": ASKED, "input": "", "output": SAID},
    "prompt and completion": {"system": SYSTEM, "prompt": ASKED, "completion": SAID},
    "prompt and response": {"system": SYSTEM, "prompt": ASKED, "response": SAID},
    "lists of messages, as TRL has them": {
        "prompt": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": ASKED}],
        "completion": [{"role": "assistant", "content": SAID}],
    },
    "question and answer": {"system": SYSTEM, "question": ASKED, "answer": SAID},
}


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("form", SINGLE)
def test_every_form_gives_the_same_conversation(form: str, tmp_path: Path) -> None:
    (row,) = read_sft_rows(written(tmp_path / "chat.jsonl", SINGLE[form])).rows
    assert (row.system, row.history, row.user, row.assistant) == (SYSTEM, [], ASKED, SAID)


def test_forms_may_stand_in_one_file_and_are_counted(tmp_path: Path) -> None:
    found = read_sft_rows(written(tmp_path / "chat.jsonl", *SINGLE.values()))
    assert len(found.rows) == len(SINGLE)
    assert found.read.forms == {
        "conversations": 3,
        "instruction": 1,
        "messages": 2,
        "own": 1,
        "prompt": 3,
        "question": 1,
    }
    assert found.read.dropped_keys == {"tools": 1}


def test_an_alpaca_input_stands_below_its_instruction(tmp_path: Path) -> None:
    row = {"instruction": "Translate.", "input": "Hund", "output": "dog"}
    (found,) = read_sft_rows(written(tmp_path / "chat.jsonl", row)).rows
    assert found.user == "Translate.\n\nHund"


@pytest.mark.parametrize(
    "row",
    [
        {
            "messages": [
                {"role": "user", "content": "Hi."},
                {"role": "assistant", "content": "Hello."},
                {"role": "user", "content": ASKED},
                {"role": "assistant", "content": SAID},
                {"role": "user", "content": "Thanks"},
            ]
        },
        {"instruction": ASKED, "output": SAID, "history": [["Hi.", "Hello."]]},
    ],
)
def test_several_turns_are_kept_up_to_the_last_reply(row: dict[str, Any], tmp_path: Path) -> None:
    (found,) = read_sft_rows(written(tmp_path / "chat.jsonl", row)).rows
    assert found.history == [
        Message(role="user", content="Hi."),
        Message(role="assistant", content="Hello."),
    ]
    assert (found.user, found.assistant) == (ASKED, SAID)


UNUSABLE = [
    ({"messages": [{"role": "user", "content": "Hi."}]}, "no turn of the assistant"),
    ({"messages": []}, "no turn of the assistant"),
    (
        {
            "messages": [
                {"role": "user", "content": "Hi."},
                {"role": "tool", "content": "7"},
                {"role": "assistant", "content": "Seven."},
            ]
        },
        "a turn of the role 'tool'",
    ),
    (
        {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": " "}]},
        "a turn of the assistant has no text",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]},
        "a turn has a part of the type 'image'",
    ),
    ({"messages": ["Hi."]}, "messages holds something that is no message"),
    ({"messages": [{"content": "Hi."}]}, "a turn has no role"),
    ({"prompt": "Hi."}, "prompt without completion or response or chosen"),
    ({"instruction": "Hi."}, "instruction without output"),
    ({"instruction": "Hi.", "output": "Yes.", "history": "x"}, "history is no list of pairs"),
    (
        {"conversations": [{"from": "gpt", "value": "Hello."}]},
        "no turn of the user before the last turn of the assistant",
    ),
]


@pytest.mark.parametrize(("row", "reason"), UNUSABLE)
def test_a_row_without_a_conversation_is_left_out_and_counted(
    row: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    found = read_sft_rows(written(tmp_path / "chat.jsonl", SINGLE["own"], row))
    assert len(found.rows) == 1
    assert found.read.left_out == {reason: RowsLeftOut(rows=1, first_line=2)}


def test_a_file_that_is_mostly_unusable_is_refused_with_its_lines(tmp_path: Path) -> None:
    rows = [SINGLE["own"], *(row for row, _ in UNUSABLE[:2])]
    with pytest.raises(BadInput) as error:
        read_sft_rows(written(tmp_path / "chat.jsonl", *rows))
    assert "2 of 3 rows cannot be used" in error.value.what
    assert error.value.problems[0].what == "lines 2, 3: no turn of the assistant"


def test_a_number_as_id_is_kept_and_a_repeated_one_replaced(tmp_path: Path) -> None:
    rows = [{**SINGLE["Alpaca"], "id": 7}, {**SINGLE["Alpaca"], "id": 7}]
    found = read_sft_rows(written(tmp_path / "chat.jsonl", *rows)).rows
    assert [row.id for row in found] == ["7", "sft-line-2"]


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz", "c.jsonl.zst", "c.json", "c.parquet"])
def test_every_kind_of_file_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    rows = [SINGLE["messages"], SINGLE["messages"]]
    path = tmp_path / name
    lines = "\ufeff" + "".join(json.dumps(row) + "\n" for row in rows)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines.encode()))
    elif name.endswith(".zst"):
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(lines.encode())
    elif name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(lines if name.endswith("l") else "\ufeff" + json.dumps(rows, indent=1))
    found = read_sft_rows(path)
    assert [(row.system, row.user, row.assistant) for row in found.rows] == [
        (SYSTEM, ASKED, SAID)
    ] * 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("chat.csv", b"a,b\n", "known endings: .jsonl"),
        ("chat.json", b'{"user": "a"}', "found one object"),
        ("chat.json", b"[1, ", "not valid JSON"),
        ("chat.parquet", b"PAR1", "cannot be read"),
        ("chat.jsonl.gz", b"\x1f\x8b\x08", "damaged or cut off"),
        ("chat.jsonl", b"\xff\xfe{\0", "UTF-16"),
    ],
)
def test_a_file_that_is_no_file_of_rows_is_one_clear_problem(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as error:
        read_sft_rows(tmp_path / name)
    text = " ".join(
        [error.value.what, error.value.fix or "", *(p.what for p in error.value.problems)]
    )
    assert said in text
    assert error.value.exit_code == 4


# ---- eval rows -----------------------------------------------------------------------------------


def eval_row(tmp_path: Path, **row: Any) -> EvalRow:
    return read_eval_rows(written(tmp_path / "eval.jsonl", row)).rows[0]


@pytest.mark.parametrize("form", [name for name in SINGLE if name != "own"])
def test_the_last_reply_of_a_foreign_row_is_the_reference(form: str, tmp_path: Path) -> None:
    row = eval_row(tmp_path, **SINGLE[form])
    assert (row.system, row.user, row.reference_answer) == (SYSTEM, ASKED, SAID)
    assert scored_by(row) == "exact answer"
    assert score_reply(row, "an  ANIMAL").passed
    assert score_reply(row, "It is an animal.").reason == "wrong_answer"


def test_a_reference_answer_alone_is_an_exact_match(tmp_path: Path) -> None:
    row = eval_row(tmp_path, user=ASKED, reference_answer="An animal.")
    assert [score_reply(row, said).passed for said in ("an animal", "AN ANIMAL.", "a plant")] == [
        True,
        True,
        False,
    ]


def test_beside_another_rule_a_reference_answer_decides_nothing(tmp_path: Path) -> None:
    row = eval_row(tmp_path, user=ASKED, reference_answer="An animal.", must_include=["animal"])
    assert scored_by(row) == "phrases"
    assert score_reply(row, "Some animal of the woods.").passed


def test_a_prompt_may_stand_with_a_rule_of_ours(tmp_path: Path) -> None:
    row = eval_row(tmp_path, prompt=ASKED, must_include=["animal"])
    assert (row.user, scored_by(row)) == (ASKED, "phrases")


def test_a_regular_expression_is_searched_for(tmp_path: Path) -> None:
    row = eval_row(tmp_path, user="When?", regex=r"\b19(39|45)\b")
    assert scored_by(row) == "regular expression"
    assert score_reply(row, "In 1945, I think.").passed
    assert score_reply(row, "In 19451.").reason == "no_match"


def test_no_regular_expression_takes_more_than_linear_time(tmp_path: Path) -> None:
    row = eval_row(tmp_path, user="When?", regex=r"^(a+)+$")
    assert score_reply(row, "a" * 100_000 + "!").reason == "no_match"


def test_an_expression_that_does_not_compile_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as error:
        eval_row(tmp_path, user="When?", regex="(")
    assert error.value.problems[0].what.startswith("line 1: regex: ")


def test_a_row_without_a_rule_says_so(tmp_path: Path) -> None:
    assert scored_by(eval_row(tmp_path, user="How are you today?")) == "nothing"


def test_a_date_that_python_cannot_hold_does_not_lose_the_row(tmp_path: Path) -> None:
    dates = pa.array([-800_000, 0], pa.int32()).cast(pa.date32())
    columns = {"prompt": ["one", "two"], "completion": ["1", "2"], "written": dates}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    found = read_sft_rows(tmp_path / "rows.parquet")
    assert [(row.user, row.assistant) for row in found.rows] == [("one", "1"), ("two", "2")]
