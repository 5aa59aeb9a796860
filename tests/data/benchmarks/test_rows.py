"""Files as items: labels beside a file, counted rows, and a sample that no seed moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from picochat.core.errors import BadInput
from picochat.data.benchmarks.layouts import NO_ANSWER, OTHER_KEYS
from picochat.data.benchmarks.resolve import local_benchmark
from picochat.data.benchmarks.rows import read_benchmark, sample_items
from tests.data.benchmarks.builders import arc_rows, parquet, piqa_rows, write_lines


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
    with pytest.raises(BadInput, match="6 rows and 2 labels"):
        local_benchmark("piqa", path)


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
