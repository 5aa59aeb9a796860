"""Rows for tests: an eval row or an SFT row with one thing said about it."""

from __future__ import annotations

from typing import Any, cast

from picochat.skills.mixture import make_rows
from picochat.skills.skill import AnswerStyle
from picochat.skills.task_rows import EvalRow, SftRow


def eval_row(**fields: Any) -> EvalRow:
    return EvalRow(**{"id": "e1", "user": "Please answer this question for me now.", **fields})


def sft_row(**fields: Any) -> SftRow:
    return SftRow(**{"id": "s1", "user": "Hello?", "assistant": "Hello.", **fields})


def release_rows(
    sft: int = 560, evals: int = 240, style: str = "scratchpad", seed: int = 42
) -> tuple[list[SftRow], list[EvalRow]]:
    return make_rows("release_skills", sft, evals, cast("AnswerStyle", style), seed)
