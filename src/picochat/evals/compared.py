"""What a comparison is made of: one record for each model, with parts that may be missing.

A reader for each kind of input fills it (release/compared_input.py). `None` means that the input
has no such part, and the comparison says so. Reads no files and tests nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from picochat.data.benchmarks.stage import BenchmarkItem
from picochat.evals.eval_records import EvaluatedItem, EvaluatedRow, HeldOutDocument
from picochat.evals.external import is_right, is_right_norm, is_usable
from picochat.evals.scores import judge
from picochat.skills.scoring import can_fail
from picochat.skills.skill_table import OTHER
from picochat.skills.task_rows import EvalRow

EVAL = "eval"
"""The name of the eval rows among the names of benchmarks."""


@dataclass(frozen=True)
class ScoredRow:
    """An eval row, and whether the chat model's reply to it passed."""

    row: EvalRow
    passed: bool


@dataclass(frozen=True)
class ScoredItem:
    """A benchmark item by the digest of its row, and whether it is right by both accuracies."""

    digest: str
    acc: bool
    acc_norm: bool


@dataclass(frozen=True)
class Recipe:
    """What a model was made from.

    settings: `section.key` -> value. data: what the maker gave, by name -> digest. made: kind of
    artifact -> digest, of what the stages made from it before training. text: the amount of text in
    words. picochat: version and commit. machine: devices and libraries, which change how numbers
    are rounded.
    """

    settings: Mapping[str, object]
    data: Mapping[str, str]
    made: Mapping[str, str]
    text: str
    picochat: str
    machine: str


@dataclass(frozen=True)
class ComparedModel:
    """One model and what is known of it.

    rows: by id. items: by benchmark and id. contaminated: ids that a contamination scan found, by
    benchmark or EVAL. recipe: None for a model that no run made.
    """

    name: str
    rows: Mapping[str, ScoredRow] | None = None
    items: Mapping[str, Mapping[str, ScoredItem]] | None = None
    documents: Sequence[HeldOutDocument] | None = None
    contaminated: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    recipe: Recipe | None = None


@dataclass(frozen=True)
class Side:
    """One of the two things that are compared: runs of one recipe, at least one.

    label: what the user named.
    """

    label: str
    models: tuple[ComparedModel, ...]


def scored_rows(rows: Mapping[str, EvalRow], asked: Iterable[EvaluatedRow]) -> dict[str, ScoredRow]:
    """The eval rows with verdicts on the replies, by id. Rows that no reply can fail are left out,
    as in the scores.
    """
    return {
        item.id: ScoredRow(rows[item.id], judge(rows[item.id], item).passed)
        for item in asked
        if item.set == EVAL and (item.skill != OTHER or can_fail(rows[item.id]))
    }


def scored_items(
    items: Iterable[BenchmarkItem], asked: Iterable[EvaluatedItem]
) -> dict[str, dict[str, ScoredItem]]:
    """The items with their verdicts, by benchmark and id.

    A benchmark with an item that cannot be judged is left out as a whole, as in the scores.
    """
    answers = {answer.id: answer for answer in asked}
    found: dict[str, dict[str, ScoredItem]] = {}
    unusable: set[str] = set()
    for item in items:
        answer = answers.get(item.id)
        if answer is not None and answer.too_long:
            scored = ScoredItem(item.digest, acc=False, acc_norm=False)
        elif answer is None or not is_usable(item, answer.log_likelihoods or ()):
            unusable.add(item.benchmark)
            continue
        else:
            likelihoods = answer.log_likelihoods or ()
            scored = ScoredItem(
                item.digest, is_right(item, likelihoods), is_right_norm(item, likelihoods)
            )
        found.setdefault(item.benchmark, {})[item.id] = scored
    return {name: mine for name, mine in found.items() if name not in unusable}
