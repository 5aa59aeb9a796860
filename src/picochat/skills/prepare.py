"""The stage `rows`: checks a pack's SFT and eval rows and fixes them for a run.

A tenth of the SFT rows is held out. The stage counts items and whole prompts that SFT and eval
share. It does not look for similar wordings (`honesty/`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from picochat.config import RunConfig
from picochat.core.errors import BadInput, Problem
from picochat.core.publish import Artifact, StagingFolder
from picochat.core.records import write_jsonl
from picochat.facts import RowsFacts
from picochat.honesty.normalize import normalized_text
from picochat.skills.scoring import can_fail
from picochat.skills.skill import hash_fraction
from picochat.skills.task_rows import (
    REMEDY,
    EvalRow,
    SftRow,
    read_eval_rows,
    read_published_rows,
    read_sft_rows,
    row_json,
)

HELD_OUT_SFT_FRACTION = 0.1


class HasRows(Protocol):
    """What the stage needs of a pack. The paths are None where the pack has no such rows."""

    @property
    def path(self) -> Path: ...
    @property
    def chat_path(self) -> Path | None: ...
    @property
    def eval_path(self) -> Path | None: ...


def prepare_rows(pack: HasRows, seed: int, staging: StagingFolder) -> None:
    """Write sft_train.jsonl, sft_held_out.jsonl and eval.jsonl from the pack's rows.

    Raises BadInput with the problems of both files where the pack names no rows or where they
    cannot be used.
    """
    sft, evals = _read_both(pack)
    train, held_out = split_sft_rows(sft, seed)
    for name, rows in (("sft_train", train), ("sft_held_out", held_out), ("eval", evals)):
        write_jsonl(staging.path(f"{name}.jsonl"), (row_json(row) for row in rows))
    staging.facts = _count(staging.folder).model_dump(mode="json")


def facts_from(files: Path, inputs: Mapping[str, Artifact], config: RunConfig) -> RowsFacts:
    """The facts of a `rows` artifact from its files. Inputs and settings are not used."""
    return _count(files)


def _count(files: Path) -> RowsFacts:
    train = list(read_published_rows(files / "sft_train.jsonl", SftRow))
    held_out = list(read_published_rows(files / "sft_held_out.jsonl", SftRow))
    evals = list(read_published_rows(files / "eval.jsonl", EvalRow))
    sft = [*train, *held_out]
    return RowsFacts(
        sft_train_rows=len(train),
        sft_held_out_rows=len(held_out),
        eval_rows=len(evals),
        sft_by_skill=_by_skill(row.skill for row in sft),
        eval_by_skill=_by_skill(row.skill for row in evals),
        eval_items_by_skill=_by_skill(
            skill for skill, _ in {(row.skill, _item_of(row)) for row in evals}
        ),
        repeated_sft_prompts=len(sft) - len({normalized_text(row.user) for row in sft}),
        eval_rows_without_rule=sum(not can_fail(row) for row in evals),
        shared_items=count_shared_items(sft, evals),
    )


def _by_skill(skills: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(skills).items()))


def _read_both(pack: HasRows) -> tuple[list[SftRow], list[EvalRow]]:
    problems: list[Problem] = []
    sft: list[SftRow] = []
    evals: list[EvalRow] = []
    try:
        sft = read_sft_rows(_required(pack.chat_path, "chat"))
    except BadInput as error:
        problems += [Problem(error.what), *error.problems]
    try:
        evals = read_eval_rows(_required(pack.eval_path, "eval"))
    except BadInput as error:
        problems += [Problem(error.what), *error.problems]
    if shared := sorted({row.id for row in sft} & {row.id for row in evals}):
        # Replies are stored and scored by id. If two rows shared an id, the rule of one row would
        # score the replies to both.
        problems.append(
            Problem(
                f"{len(shared)} ids stand for an SFT row and an eval row, the first: {shared[0]!r}"
            )
        )
    if problems:
        raise BadInput(
            f"the rows of pack {pack.path} are not usable",
            problems=problems,
            fix=REMEDY.format(pack=pack.path),
        )
    return sft, evals


def _required(path: Path | None, key: str) -> Path:
    if path is None:
        raise BadInput(f"{key}: the pack names no file", fix=REMEDY.format(pack="PACK"))
    return path


def split_sft_rows(rows: Sequence[SftRow], seed: int) -> tuple[list[SftRow], list[SftRow]]:
    """(train, held out), in the order of the file; about 10% are held out.

    The side depends on the seed and the row's item, so rows of one item stay on one side.
    """
    train: list[SftRow] = []
    held_out: list[SftRow] = []
    for row in rows:
        # By hash and not by position: adding or removing a row changes the side of no other row.
        fraction = hash_fraction(f"sft held out {seed} {_item_of(row)}")
        (held_out if fraction < HELD_OUT_SFT_FRACTION else train).append(row)
    return train, held_out


def count_shared_items(sft: Iterable[SftRow], evals: Iterable[EvalRow]) -> int:
    """Eval items that SFT rows contain: the same item, or the same prompt after normalization."""
    items: set[str] = set()
    prompts: set[str] = set()
    for row in sft:
        prompts.add(normalized_text(row.user))
        if row.item:
            items.add(row.item)
    return len(
        {
            _item_of(row)
            for row in evals
            if row.item in items or normalized_text(row.user) in prompts
        }
    )


def _item_of(row: SftRow | EvalRow) -> str:
    """The row's item, or its group if it has no item, or else its prompt."""
    return row.item or row.group or normalized_text(row.user)
