from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from picochat.core.errors import BadInput
from picochat.data.pack import load_pack
from picochat.skills.public import PUBLIC_SETS, read_public_rows
from picochat.skills.row_files import read_sft_rows
from picochat.skills.scoring import score_reply
from picochat.skills.shared_items import EvalItems
from picochat.skills.task_rows import as_eval_row
from tests.data.builders import serving
from tests.fake_hub import FakeHub
from tests.skills.rows_builder import eval_row
from tests.skills.test_task_pack import make

CARD = (
    b"---\nlicense: mit\nconfigs:\n- config_name: %s\n  data_files:\n  - split: train\n    path:"
    b" %s/train-*\n---\n"
)
LONG = "word " * 200


def talk(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in turns], "source": "ours"}


CHATS = [
    *(
        talk(("user", f"What grows in field {n}?"), ("assistant", f"Corn number {n} grows there."))
        for n in range(30)
    ),
    talk(
        ("system", "Be kind."),
        ("user", "Hello?"),
        ("assistant", "Hello, friend."),
        ("user", "Bye"),
        ("assistant", "Bye."),
    ),
    talk(("user", "Tell me all."), ("assistant", LONG)),
    talk(("assistant", "I begin."), ("user", "No.")),
]
SUMS = [
    {
        "question": f"Ann has {n} pens and buys 1,000. How many?",
        "answer": f"{n} + 1000 = <<{n}+1000={n + 1000}>>{n + 1000}\n#### 1,{n:03d}",
    }
    for n in range(1, 30)
]
CHOICES = [
    {
        "id": f"q{n}",
        "question": f"Which is number {n}?",
        "answerKey": key,
        "choices": {"text": ["a", f"it {n}", "c", "d"], "label": labels},
    }
    for n in range(30)
    for key, labels in ([("B", list("ABCD"))] if n % 2 else [("2", list("1234"))])
]


def parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, row_group_size=10)
    return buffer.getvalue()


NO_EVALS = EvalItems([])


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """The three sets in their own layouts, with rows of our own."""
    with serving(FakeHub()) as hub:
        for each, rows in zip(PUBLIC_SETS, (CHATS, SUMS, CHOICES), strict=True):
            folder = each.config.encode()
            files = {
                "README.md": CARD % (folder, folder),
                f"{each.config}/train-00000-of-00001.parquet": parquet(rows),
            }
            hub.add_dataset(each.dataset, files)
        yield hub


def test_each_set_becomes_rows_that_pass_their_own_rules(hub: FakeHub) -> None:
    rows, counts = read_public_rows(40, seed=42, evals=NO_EVALS)
    assert [(count.name, count.rows) for count in counts] == [
        ("smoltalk", 20),
        ("gsm8k", 10),
        ("arc", 10),
    ]
    assert all(count.licence == "mit" and len(count.revision) == 40 for count in counts)
    by_skill = {
        skill: [row for row in rows if row.skill == skill] for skill in ("other", "math", "choice")
    }
    assert [len(found) for found in by_skill.values()] == [20, 10, 10]
    for row in (*by_skill["math"], *by_skill["choice"]):
        assert score_reply(as_eval_row(row), row.assistant).passed, row
    assert all(
        "<<" not in row.assistant and "," not in row.assistant.splitlines()[-1]
        for row in by_skill["math"]
    )
    assert {row.correct_choice for row in by_skill["choice"]} == {"B"}
    assert all(f"\nB. {row.assistant}\n" in row.user for row in by_skill["choice"])


def test_long_rows_and_rows_of_another_layout_are_passed_over_and_counted(hub: FakeHub) -> None:
    rows, counts = read_public_rows(400, seed=42, evals=NO_EVALS)
    assert counts[0].passed_over == {"too long": 1, "layout": 1}
    assert counts[0].rows == len(CHATS) - 2, "fewer than wanted where there are no more"
    assert next(row for row in rows if row.system).user == "Hello?"


def test_a_row_that_answers_an_eval_row_is_passed_over_and_counted(hub: FakeHub) -> None:
    row = eval_row(user="x", item="greeting", subject="hello", reference_answer="friend")
    rows, counts = read_public_rows(400, seed=42, evals=EvalItems([row]))
    assert not any(row.user == "Hello?" for row in rows)
    assert counts[0].passed_over["answers an eval row"] == 1


def test_the_same_seed_draws_the_same_rows(hub: FakeHub) -> None:
    assert read_public_rows(20, seed=1, evals=NO_EVALS) == read_public_rows(
        20, seed=1, evals=NO_EVALS
    )
    assert (
        read_public_rows(20, seed=1, evals=NO_EVALS)[0]
        != read_public_rows(20, seed=2, evals=NO_EVALS)[0]
    )


def test_a_set_of_another_layout_is_refused_with_what_was_found(hub: FakeHub) -> None:
    hub.add_dataset(
        "openai/gsm8k",
        {"main/train-00000-of-00001.parquet": parquet([{"question": "?", "answer": "no mark"}])},
    )
    with pytest.raises(BadInput, match="layout"):
        read_public_rows(20, seed=1, evals=NO_EVALS)


def test_the_task_pack_adds_them_and_says_where_they_come_from(
    hub: FakeHub, tmp_path: Path
) -> None:
    report = make(tmp_path, source="hf", public_rows=20, promote=True)
    rows = read_sft_rows(report.chat).rows
    assert len(rows) == 120
    assert sum(row.id.startswith(("sft-smoltalk", "sft-gsm8k", "sft-arc")) for row in rows) == 20
    page = report.page.read_text()
    assert "source hf" in page
    assert all(f"| {each.dataset} ({each.config}) | " in page for each in PUBLIC_SETS)
    assert all(count.revision in page for count in report.public)
    stated = load_pack(tmp_path / "dataset_pack.json").row_sources
    assert {source.licence for source in stated} == {"mit"}
    assert [(s.label, s.revision) for s in stated] == [(c.name, c.revision) for c in report.public]
    with_default = make(tmp_path, source="hf", force=True)
    assert len(read_sft_rows(with_default.chat).rows) == 125
    assert make(tmp_path, force=True, promote=True).public == ()
    assert load_pack(tmp_path / "dataset_pack.json").row_sources == []
