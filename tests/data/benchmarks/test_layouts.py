"""Each published layout as lm-evaluation-harness reads it, and each reason against a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from picochat.core.errors import BadInput
from picochat.data.benchmarks import layouts
from picochat.data.benchmarks.layouts import (
    LAYOUTS,
    NO_ANSWER,
    OTHER_KEYS,
    BenchmarkRow,
    layout_of,
    listed_options,
    read_benchmark,
    read_item,
    sample_items,
    without_marks,
)
from picochat.data.benchmarks.resolve import local_benchmark
from tests.data.benchmarks.builders import (
    arc_lines,
    arc_rows,
    chat_rows,
    hellaswag_rows,
    mmlu_rows,
    parquet,
    piqa_rows,
    write_lines,
)

MMLU_CONTEXT = (
    "The following are multiple choice questions (with answers) about made up sums.\n\n"
    "What is 2 and one?\nA. 2\nB. 3\nC. 4\nD. 5\nAnswer:"
)
ARC_CONTEXT = (
    "Question: In the valley of Oltany, which thing number 2 do people carry over the"
    " pass?\nAnswer:"
)

READ: list[tuple[str, dict[str, Any], str, list[str], int]] = [
    # layout      row                context
    # options, from the first                        correct
    ("arc", arc_rows(3)[2], ARC_CONTEXT, ["a anchor of kind 2", "a bellows of kind 2"], 2),
    ("arc", arc_lines(3)[2], ARC_CONTEXT, ["a anchor of kind 2", "a bellows of kind 2"], 2),
    (
        "hellaswag",
        hellaswag_rows(2)[1],
        "Mending nets: How to mend net 1. Lay it out flat. Look for the knots. The fisher",
        ["pulls knot 1 kettle and waits."],
        1,
    ),
    (
        "piqa",
        piqa_rows(2)[1],
        "Question: To keep bread number 1 from going stale,\nAnswer:",
        ["wrap it in cloth number 1.", "leave it on the roof in the rain for a week."],
        1,
    ),
    ("mmlu", mmlu_rows(3)[2], MMLU_CONTEXT, ["A", "B", "C", "D"], 1),
    (
        "chat",
        chat_rows(2)[1],
        "Stone 1 is put on ice. The ice\n\n A: melts\n B: grows 1\nAnswer:",
        ["melts", "grows 1"],
        1,
    ),
]


@pytest.mark.parametrize(
    ("name", "row", "context", "options", "correct"), READ, ids=[read[0] for read in READ]
)
def test_a_published_row_becomes_what_the_harness_asks(
    name: str, row: dict[str, Any], context: str, options: list[str], correct: int
) -> None:
    layout = layout_of(row, "a file")
    assert layout.name == name
    item = read_item(layout, row, "x-00000")
    assert isinstance(item, BenchmarkRow)
    assert (item.context, item.options[: len(options)], item.correct) == (context, options, correct)


def test_every_layout_is_read_above() -> None:
    assert {read[0] for read in READ} == {layout.name for layout in LAYOUTS}


ARC, SWAG, PIQA, MMLU, CHAT = (
    arc_rows(1)[0],
    hellaswag_rows(1)[0],
    piqa_rows(1)[0],
    mmlu_rows(1)[0],
    chat_rows(1)[0],
)
UNUSABLE: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    # row   what is wrong with it                                         reason
    (ARC, {"answerKey": "E"}, layouts.NO_ANSWER),
    (ARC, {"question": "  "}, layouts.NO_QUESTION),
    (ARC, {"question": None}, layouts.NO_QUESTION),
    (ARC, {"choices": {"text": ["one"], "label": ["A"]}, "answerKey": "A"}, layouts.NO_OPTIONS),
    (
        ARC,
        {"choices": {"text": ["one", " "], "label": ["A", "B"]}, "answerKey": "A"},
        layouts.NO_OPTIONS,
    ),
    (
        ARC,
        {"choices": {"text": ["one", "half a pair \ud800"], "label": ["A", "B"]}, "answerKey": "A"},
        layouts.NO_UNICODE,
    ),
    (ARC, {"choices": ["one", "two"]}, layouts.OTHER_KEYS),
    (SWAG, {"label": ""}, layouts.NO_ANSWER),
    (SWAG, {"endings": ["one", "[title]"]}, layouts.NO_OPTIONS),
    (PIQA, {"label": -1}, layouts.NO_ANSWER),
    (PIQA, {"label": True}, layouts.NO_ANSWER),
    (MMLU, {"answer": 4}, layouts.NO_ANSWER),
    (MMLU, {"choices": ["1", None]}, layouts.NO_OPTIONS),
    (CHAT, {"ideal": "C"}, layouts.NO_ANSWER),
    (CHAT, {"input": [{"role": "user", "content": "Sum up the play."}]}, layouts.NO_OPTIONS),
    (CHAT, {"input": ["text"]}, layouts.NO_QUESTION),
]


@pytest.mark.parametrize(("row", "changes", "reason"), UNUSABLE)
def test_an_unusable_row_says_why(
    row: dict[str, Any], changes: dict[str, Any], reason: str
) -> None:
    layout = layout_of(row, "a file")
    assert isinstance(read_item(layout, row, "x"), BenchmarkRow)
    assert read_item(layout, {**row, **changes}, "x") == reason


def test_each_reason_has_a_row() -> None:
    assert {reason for _, _, reason in UNUSABLE} == {
        value
        for name, value in vars(layouts).items()
        if name.startswith(("NO_", "OTHER_")) and isinstance(value, str)
    }


def test_a_row_of_no_layout_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput) as refused:
        layout_of({"text": "plain", "id": 1}, "external benchmark x: a.jsonl")
    assert "its rows hold id, text" in refused.value.what
    assert refused.value.fix is not None
    assert all(layout.name in refused.value.fix for layout in LAYOUTS)


def test_pairs_of_blanks_are_joined_once() -> None:
    assert without_marks("  a    b [title] c [step] d ") == "a  b. c d"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("Which?\nA. A.first\nB. B.second\n", ["first", "second"]),
        ("Which?\nA. first\nof two lines\nB) second", ["first\nof two lines", "second"]),
        ("A: not yet\nWhich?\n A: first\n B: A.C. Smith", ["first", "A.C. Smith"]),
        ("Which?\nA. first\nC. third", []),
        ("no list", []),
    ],
)
def test_the_last_list_of_options_counts(text: str, options: list[str]) -> None:
    assert listed_options(text) == options


def test_labels_of_another_count_are_no_answer_and_no_question_is_no_item() -> None:
    arc = layouts.find_layout("arc")
    choices = {"text": ["a spoon", "a stone"], "label": ["A", "B", "C"]}
    assert (
        read_item(arc, {"question": "Which is hard?", "choices": choices, "answerKey": "B"}, "x")
        == layouts.NO_ANSWER
    )
    assert read_item(arc, {"choices": choices, "answerKey": "B"}, "x") == layouts.OTHER_KEYS


def test_labels_beside_a_file_are_its_rows_labels(tmp_path: Path) -> None:
    rows = piqa_rows(6)
    path = write_lines(
        tmp_path / "valid.jsonl", [{k: v for k, v in row.items() if k != "label"} for row in rows]
    )
    (tmp_path / "valid-labels.lst").write_text("".join(f"{row['label']}\n" for row in rows))
    found = local_benchmark("piqa", path)
    assert [file.name for file in found.files] == ["valid.jsonl", "valid-labels.lst"]
    assert [item.correct for item in read_benchmark("piqa", found.files).items] == [
        row["label"] for row in rows
    ]
    (tmp_path / "valid-labels.lst").write_text("0\n1\n")
    with pytest.raises(BadInput, match="6 rows and 2 labels") as caught:
        local_benchmark("piqa", path)
    assert caught.value.fix == "files of one split"
    write_lines(path, rows[:2])
    assert len(read_benchmark("piqa", local_benchmark("piqa", path).files).items) == 2


def test_every_row_is_an_item_or_counted(tmp_path: Path) -> None:
    rows = [*arc_rows(5), {**arc_rows(1)[0], "answerKey": "Z"}, {"stray": 1}, *arc_rows(1)]
    found = local_benchmark("quiz", write_lines(tmp_path / "quiz.jsonl", rows))
    read = read_benchmark("quiz", found.files)
    assert (read.rows_read, len(read.items)) == (8, 6)
    assert read.unusable == {NO_ANSWER: 1, OTHER_KEYS: 1}
    assert [item.id for item in read.items][-2:] == ["quiz-00004", "quiz-00007"]


def test_jsonl_and_parquet_give_the_same_items(tmp_path: Path) -> None:
    (tmp_path / "quiz.parquet").write_bytes(parquet(arc_rows()))
    lines = write_lines(tmp_path / "quiz.jsonl", arc_rows())
    both = [
        read_benchmark("quiz", local_benchmark("quiz", path).files).items
        for path in (lines, tmp_path / "quiz.parquet")
    ]
    assert both[0] == both[1]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json\n",
        b'{"text": "a"}\n',
        b'{"goal": "g", "sol1": "a", "sol2": "b", "label": -1}\n',
    ],
)
def test_a_file_without_items_is_bad_input(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(BadInput, match="x"):
        local_benchmark("x", tmp_path / "x.jsonl")


def test_a_sample_keeps_the_order_and_grows_with_its_size(tmp_path: Path) -> None:
    items = read_benchmark(
        "quiz", local_benchmark("quiz", write_lines(tmp_path / "q.jsonl", arc_rows())).files
    ).items
    few, more = sample_items(items, 10), sample_items(items, 20)
    assert len(few) == 10 and len(more) == 20
    assert [item for item in more if item in few] == few
    assert more == [item for item in items if item in more]
    assert sample_items(items, 0) == sample_items(items, 1_000) == items
    assert few != items[:10]
