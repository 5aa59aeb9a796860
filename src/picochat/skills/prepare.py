"""The stage `rows`: checks a pack's SFT and eval rows and fixes them for a run.

A tenth of the SFT rows is held out. The stage counts items that SFT and eval share
(`shared_items.py`). It does not look for similar wordings (`honesty/`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from picochat.config import RunConfig
from picochat.core.errors import BadInput, Problem
from picochat.core.publish import Artifact, StagingFolder
from picochat.core.records import Record, read_record, write_json, write_jsonl
from picochat.facts import EvalCell, RowsFacts, RowSource, RowsRead
from picochat.skills.row_files import RowFile, read_eval_rows, read_sft_rows
from picochat.skills.scoring import can_fail
from picochat.skills.shared_items import EvalItems, item_of, normalized_prompt
from picochat.skills.skill import hash_fraction
from picochat.skills.skill_table import OTHER
from picochat.skills.task_rows import EvalRow, SftRow, read_published_rows, row_json, scored_by

HELD_OUT_SFT_FRACTION = 0.1
MEASURED = "measured.json"
NO_ROWS: RowFile[Any] = RowFile([], RowsRead(forms={}, left_out={}, dropped_keys={}))


class RowsMeasured(Record):
    """measured.json: what became of the rows of the pack's files, which are not published.

    sources: of the SFT rows, as the pack states them.
    """

    chat: RowsRead
    evals: RowsRead
    sources: list[RowSource]


class HasRows(Protocol):
    """What the stage needs of a pack. The paths are None where the pack has no such rows."""

    @property
    def path(self) -> Path: ...
    @property
    def chat_path(self) -> Path | None: ...
    @property
    def eval_path(self) -> Path | None: ...
    @property
    def row_sources(self) -> list[RowSource]: ...


def prepare_rows(pack: HasRows, seed: int, staging: StagingFolder) -> None:
    """Write sft_train.jsonl, sft_held_out.jsonl and eval.jsonl from the pack's rows.

    A pack that names no file has no such rows. Raises BadInput where rows cannot be used; problems
    of both files come together.
    """
    chat, evals = _read_both(pack)
    train, held_out = split_sft_rows(chat.rows, seed)
    for name, rows in (("sft_train", train), ("sft_held_out", held_out), ("eval", evals.rows)):
        write_jsonl(staging.path(f"{name}.jsonl"), (row_json(row) for row in rows))
    measured = RowsMeasured(chat=chat.read, evals=evals.read, sources=pack.row_sources)
    write_json(staging.path(MEASURED), measured)
    staging.facts = _count(staging.folder).model_dump(mode="json")


def facts_from(files: Path, inputs: Mapping[str, Artifact], config: RunConfig) -> RowsFacts:
    """The facts of a `rows` artifact from its files. Inputs and settings are not used."""
    return _count(files)


def _count(files: Path) -> RowsFacts:
    train = list(read_published_rows(files / "sft_train.jsonl", SftRow))
    held_out = list(read_published_rows(files / "sft_held_out.jsonl", SftRow))
    evals = list(read_published_rows(files / "eval.jsonl", EvalRow))
    measured = read_record(RowsMeasured, files / MEASURED, "measurements of the rows")
    sft = [*train, *held_out]
    return RowsFacts(
        chat_read=measured.chat,
        eval_read=measured.evals,
        sft_turns=sum(assistant_turns(row) for row in sft),
        eval_scored_by=_by_skill(scored_by(row) for row in evals),
        sft_train_rows=len(train),
        sft_held_out_rows=len(held_out),
        eval_rows=len(evals),
        sft_by_skill=_by_skill(row.skill for row in sft),
        eval_by_skill=_by_skill(row.skill for row in evals),
        eval_items_by_skill=_by_skill(
            skill for skill, _ in {(row.skill, item_of(row)) for row in evals}
        ),
        repeated_sft_prompts=len(sft) - len({normalized_prompt(row) for row in sft}),
        eval_rows_without_rule=sum(not can_fail(row) for row in evals),
        shared_items=len(EvalItems(evals).in_rows(sft)),
        eval_cells=eval_cells(evals),
        sources=measured.sources,
    )


def eval_cells(rows: Iterable[EvalRow]) -> list[EvalCell]:
    """The rows of the skills by skill, level and whether they are to be answered, sorted."""
    cells: dict[tuple[str, str, bool], Counter[str]] = {}
    for row in rows:
        if row.skill != OTHER:
            key = (row.skill, row.curriculum_stage or "", row.answerable)
            cells.setdefault(key, Counter())[item_of(row)] += 1
    return [
        EvalCell(
            skill=skill,
            level=level or None,
            answerable=answerable,
            rows=items.total(),
            items={str(size): n for size, n in sorted(Counter(items.values()).items())},
        )
        for (skill, level, answerable), items in sorted(cells.items())
    ]


def assistant_turns(row: SftRow) -> int:
    """Turns of the assistant in a conversation; all of them are trained."""
    return 1 + sum(message.role == "assistant" for message in row.history)


def _by_skill(skills: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(skills).items()))


def _read_both(pack: HasRows) -> tuple[RowFile[SftRow], RowFile[EvalRow]]:
    errors: list[BadInput] = []
    found: list[RowFile[Any]] = []
    for path, read in ((pack.chat_path, read_sft_rows), (pack.eval_path, read_eval_rows)):
        try:
            found.append(read(path) if path else NO_ROWS)
        except BadInput as error:
            errors.append(error)
    if errors:
        raise BadInput(
            f"the rows of pack {pack.path} are not usable",
            problems=[
                each
                for error in errors
                for each in (Problem(error.what, error.fix), *error.problems)
            ],
        )
    sft, evals = found
    if shared := sorted({row.id for row in sft.rows} & {row.id for row in evals.rows}):
        # Replies are kept and scored by id: of two rows that share one, the rule of one would score
        # the replies to both.
        raise BadInput(
            f"the rows of pack {pack.path} are not usable: {len(shared)} ids stand for an SFT row"
            f" and an eval row, the first: {shared[0]!r}",
            fix="give the eval rows other ids, or leave the key `id` out of them",
        )
    return sft, evals


def split_sft_rows(rows: Sequence[SftRow], seed: int) -> tuple[list[SftRow], list[SftRow]]:
    """(train, held out), in the order of the file; about 10% are held out.

    The side depends on the seed and the row's item, so rows of one item stay on one side.
    """
    train: list[SftRow] = []
    held_out: list[SftRow] = []
    for row in rows:
        # By hash and not by position: adding or removing a row changes the side of no other row.
        fraction = hash_fraction(f"sft held out {seed} {item_of(row)}")
        (held_out if fraction < HELD_OUT_SFT_FRACTION else train).append(row)
    return train, held_out
