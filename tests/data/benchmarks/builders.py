"""Made-up rows in the layouts of published benchmarks, and a Hub that holds them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fake_hub import FakeHub

Rows = list[dict[str, Any]]
THINGS = ("lantern", "kettle", "anchor", "bellows", "compass", "ladder", "quill", "saddle")


def arc_rows(count: int = 40) -> Rows:
    """Rows as allenai/ai2_arc has them on the Hub.

    Every fourth row has digits for labels, every fifth has three options.
    """
    rows: Rows = []
    for number in range(count):
        texts = [
            f"a {THINGS[(number + step) % len(THINGS)]} of kind {number}"
            for step in range(3 if number % 5 == 0 else 4)
        ]
        labels = list("1234" if number % 4 == 0 else "ABCD")[: len(texts)]
        question = (
            f"In the valley of Oltany, which thing number {number} do people carry over the pass?"
        )
        choices = {"text": texts, "label": labels}
        rows.append(
            {
                "id": f"V_{number}",
                "question": question,
                "choices": choices,
                "answerKey": labels[number % len(labels)],
            }
        )
    return rows


def arc_lines(count: int = 4) -> Rows:
    """The same as the authors publish them."""
    return [
        {
            "id": row["id"],
            "question": {
                "stem": row["question"],
                "choices": [
                    {"text": text, "label": label}
                    for text, label in zip(
                        row["choices"]["text"], row["choices"]["label"], strict=True
                    )
                ],
            },
            "answerKey": row["answerKey"],
        }
        for row in arc_rows(count)
    ]


def hellaswag_rows(count: int = 30) -> Rows:
    """Rows as Rowan/hellaswag has them on the Hub.

    With marks of WikiHow, a second half of the context that may be empty, and labels as text.
    """
    return [
        {
            "ind": number,
            "activity_label": "Mending nets" if number % 2 else "Home and Garden",
            "ctx_a": (
                f"[header] How to mend net {number} [title] Lay it out  flat. [step] "
                + "Look for the knots." * (9 if number % 10 == 9 else 1)
            ),
            "ctx_b": "the fisher" if number % 2 else "",
            "ctx": "unused",
            "endings": [
                f"pulls knot {number} {word} [substeps] and waits."
                for word in THINGS[number % 4 : number % 4 + 4]
            ],
            "source_id": f"made~{number}",
            "split": "val",
            "split_type": "indomain",
            "label": str(number % 4),
        }
        for number in range(count)
    ]


def piqa_rows(count: int = 20) -> Rows:
    return [
        {
            "goal": f"To keep bread number {number} from going stale,",
            "sol1": f"wrap it in cloth number {number}.",
            "sol2": "leave it on the roof in the rain for a week.",
            "label": number % 2,
        }
        for number in range(count)
    ]


def mmlu_rows(count: int = 4) -> Rows:
    return [
        {
            "question": f" What is {number} and one? ",
            "subject": "made_up_sums",
            "choices": [str(number + step) for step in range(4)],
            "answer": 1,
        }
        for number in range(count)
    ]


def chat_rows(count: int = 4) -> Rows:
    system = {"role": "system", "content": "Answer with the letter."}
    return [
        {
            "input": [
                system,
                {
                    "role": "user",
                    "content": (
                        f"Stone {number} is put on ice. The ice\n\n A: melts\n B: grows {number}"
                    ),
                },
            ],
            "ideal": "AB"[number % 2],
        }
        for number in range(count)
    ]


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def parquet(rows: Rows) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


ARC_CARD = """---
license: cc-by-sa-4.0
configs:
- config_name: ARC-Challenge
  data_files:
  - split: test
    path: ARC-Challenge/test-*
- config_name: ARC-Easy
  data_files:
  - split: train
    path: ARC-Easy/train-*
  - split: test
    path: ARC-Easy/test-*
---
# Questions
"""


def add_arc(hub: FakeHub) -> str:
    files = {
        "README.md": ARC_CARD.encode(),
        "ARC-Challenge/test-00000-of-00001.parquet": parquet(arc_rows(3)),
        "ARC-Easy/train-00000-of-00001.parquet": parquet(arc_rows(5)),
        "ARC-Easy/test-00000-of-00001.parquet": parquet(arc_rows()),
    }
    return hub.add_dataset("allenai/ai2_arc", files)


def add_hellaswag(hub: FakeHub) -> str:
    files = {
        f"data/{split}-00000-of-00001.parquet": parquet(hellaswag_rows())
        for split in ("train", "validation")
    }
    return hub.add_dataset("Rowan/hellaswag", files)


def add_piqa(hub: FakeHub) -> str:
    """A repository of a script alone, whose rows are on the branch that the Hub made.

    Returns that branch's commit.
    """
    hub.add_dataset(
        "ybisk/piqa", {"README.md": b"---\nlicense: unknown\n---\n", "piqa.py": b"# a script\n"}
    )
    converted = {
        "plain_text/train/0000.parquet": parquet(piqa_rows(3)),
        "plain_text/validation/0000.parquet": parquet(piqa_rows()),
    }
    return hub.add_dataset("ybisk/piqa", converted, branch="refs/convert/parquet")
