"""The stage that freezes a pack's SFT and eval rows for a run: both files checked, a tenth of the
SFT rows held out, all counted.

Does not look for contamination by wording (`honesty/`); what it counts as shared are items and
whole prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from picochat.core.errors import BadInput, Problem
from picochat.core.publish import Draft
from picochat.core.records import write_jsonl
from picochat.facts import RowsFacts
from picochat.honesty.normalize import normalized_text
from picochat.skills.question import hash_share
from picochat.skills.rows import REMEDY, EvalRow, SftRow, read_eval_rows, read_sft_rows, row_json
from picochat.skills.scoring import can_fail

if TYPE_CHECKING:
    from picochat.data.pack import LoadedPack

HELD_OUT_SFT_SHARE = 0.1


class HasRows(Protocol):
    """What the stage needs of a pack."""

    @property
    def path(self) -> Path: ...
    @property
    def chat_path(self) -> Path | None: ...
    @property
    def eval_path(self) -> Path | None: ...


def prepare_rows(pack: LoadedPack | HasRows, seed: int, draft: Draft) -> None:
    """The pack's rows, checked and split: sft_train.jsonl, sft_held_out.jsonl, eval.jsonl, and
    their facts.

    About 10% of the SFT rows are held out, by hash of their item, so that rows on one item stay on
    one side. Raises BadInput where the pack names no rows or they cannot be used; problems of both
    files come together.
    """
    sft, evals = _read_both(pack)
    train, held_out = split_sft_rows(sft, seed)
    for name, rows in (("sft_train", train), ("sft_held_out", held_out), ("eval", evals)):
        write_jsonl(draft.path(f"{name}.jsonl"), (row_json(row) for row in rows))
    draft.facts = rows_facts(train, held_out, evals).model_dump(mode="json")


def rows_facts(
    train: Sequence[SftRow], held_out: Sequence[SftRow], evals: Sequence[EvalRow]
) -> RowsFacts:
    """What follows from the rows as they are published."""
    sft = [*train, *held_out]
    return RowsFacts(
        sft_train_rows=len(train),
        sft_held_out_rows=len(held_out),
        eval_rows=len(evals),
        sft_by_skill=_by_skill(sft),
        eval_by_skill=_by_skill(evals),
        eval_items_by_skill=_items_by_skill(evals),
        repeated_sft_prompts=len(sft) - len({normalized_text(row.user) for row in sft}),
        eval_rows_without_rule=sum(not can_fail(row) for row in evals),
        shared_items=count_shared_items(sft, evals),
    )


def _read_both(pack: LoadedPack | HasRows) -> tuple[list[SftRow], list[EvalRow]]:
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
        # Replies are kept and judged by id: of two rows that share one, the rule of one would judge
        # both.
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
    """(train, held out), in the order of the file: the side follows from the seed and the row's
    item.
    """
    train: list[SftRow] = []
    held_out: list[SftRow] = []
    for row in rows:
        share = hash_share(f"sft held out {seed} {_item_of(row)}")
        (held_out if share < HELD_OUT_SFT_SHARE else train).append(row)
    return train, held_out


def count_shared_items(sft: Iterable[SftRow], evals: Iterable[EvalRow]) -> int:
    """Eval items that the SFT rows contain: the same item, or the same prompt after normalization."""
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
    """What a row asks about; where it names no item its group, else its prompt."""
    return row.item or row.group or normalized_text(row.user)


def _by_skill(rows: Iterable[SftRow | EvalRow]) -> dict[str, int]:
    return _sorted(Counter(row.skill for row in rows))


def _items_by_skill(rows: Iterable[EvalRow]) -> dict[str, int]:
    return _sorted(Counter(skill for skill, _ in {(row.skill, _item_of(row)) for row in rows}))


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))
