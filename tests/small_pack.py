"""A pack of real text that every machine has (Python's help topics) and a model small enough for
tests.
"""

from __future__ import annotations

import pydoc_data.topics
from pathlib import Path

from picochat.core.records import write_jsonl
from picochat.skills.mixture import make_rows
from picochat.skills.task_rows import row_json

SHAPE = {
    "tokenizer.vocab_size": 600,
    "model.layers": 1,
    "model.width": 64,
    "model.heads": 2,
    "model.kv_heads": 1,
    "model.mlp_width": 64,
}
SMALL = [word for key, value in SHAPE.items() for word in ("--set", f"{key}={value}")] + [
    "--base-steps",
    "1",
    "--sft-steps",
    "1",
]
TEXTS = list(pydoc_data.topics.topics.values())


def make_pack(folder: Path) -> Path:
    """A pack that works: help texts of Python as documents, 60 SFT rows, 40 eval rows."""
    (folder / "text").mkdir(parents=True)
    for number, text in enumerate(TEXTS):
        (folder / "text" / f"{number:03d}.txt").write_text(text, encoding="utf-8")
    sft, evals = make_rows("release_skills", 60, 40, "scratchpad", 1)
    write_jsonl(folder / "chat.jsonl", map(row_json, sft))
    write_jsonl(folder / "eval.jsonl", map(row_json, evals))
    (folder / "recipe.json").write_text(
        '{"name": "r", "sources": [{"path": "text", "label": "help"}]}'
    )
    (folder / "pack.json").write_text(
        '{"name": "p", "corpus": {"recipe": "recipe.json"}, "chat": "chat.jsonl", "eval":'
        ' "eval.jsonl", "rows_from": "task-pack"}'
    )
    return folder / "pack.json"
