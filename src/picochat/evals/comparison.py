"""Compares two sides measure by measure, on the rows, items and documents that both have.

A measure is the pass rate of a skill, an accuracy on a benchmark, or bits per byte of held-out
text. Each has a paired test (paired_tests.py), and Holm's correction is over all of them; levels of
skills are a family of their own. Where a side has several runs, the seed counts as chance. With one
run on each side the tests tell these two models apart, not their settings. Runs of one recipe never
differ: what is seen between them is what a seed does (docs/decisions/0032).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import numpy as np

from picochat.core.errors import BadInput
from picochat.core.records import Record
from picochat.evals.compared import EVAL, ComparedModel, ScoredItem, ScoredRow, Side
from picochat.evals.paired_tests import (
    LEVEL,
    Estimate,
    Floats,
    holm,
    rows_test,
    seeds_test,
    spread,
    sums_test,
)
from picochat.evals.recipes import RecipeDifferences, recipe_differences
from picochat.skills.skill_table import OTHER, SKILLS

LN_2 = float(np.log(2.0))
Kind = Literal["rate", "bits per byte"]
Verdict = Literal["larger than chance", "no difference", "as a seed does"]
NONE_OF = {False: "has none", True: "have none"}
T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """The values of one measure.

    values_a, values_b: (runs, units). sizes: (units,), what sums over units are divided by.
    """

    name: str
    kind: Kind
    values_a: Floats
    values_b: Floats
    sizes: Floats


class MeasureResult(Record):
    """One measure of both sides.

    a, b: of each run, in the order of the side's runs. sd_a, sd_b: over runs; None of a single one.
    only_a, only_b: units that passed on one side alone; None where runs are several, or units do
    not pass or fail. difference, low, high: B - A with its 95% interval, None where it is not known
    (paired_tests.Estimate). p_holm: after Holm's correction over the family.
    """

    name: str
    kind: Kind
    units: int
    a: list[float]
    b: list[float]
    mean_a: float
    mean_b: float
    sd_a: float | None
    sd_b: float | None
    only_a: int | None
    only_b: int | None
    difference: float
    low: float | None
    high: float | None
    p: float
    p_holm: float
    verdict: Verdict
    better: Literal["A", "B"] | None


class Shared(Record):
    """How many units both sides have: of eval rows, of a benchmark, or of held-out documents.

    changed: of the same id with another content. contaminated: left out, because a scan of either
    side found them in its training text.
    """

    what: str
    shared: int
    only_a: int
    only_b: int
    changed: int
    contaminated: int


class Comparison(Record):
    """The result. `levels`: of skills, with a correction of their own."""

    a: str
    b: str
    runs_a: list[str]
    runs_b: list[str]
    differences: RecipeDifferences
    seeds_are_chance: bool
    measures: list[MeasureResult]
    levels: list[MeasureResult]
    shared: list[Shared]
    not_compared: list[str]

    @property
    def beyond_chance(self) -> list[MeasureResult]:
        return [each for each in self.measures if each.verdict == "larger than chance"]

    def to_json(self) -> dict[str, object]:
        """The comparison as one JSON object."""
        return {
            "schema_version": 1,
            "differs": [each.name for each in self.beyond_chance],
            "same_recipe": self.differences.same_recipe,
            **self.model_dump(mode="json"),
        }


def compare(a: Side, b: Side) -> Comparison:
    """The comparison of two sides. Raises BadInput where they have nothing in common."""
    differences = recipe_differences(a, b)
    shared: list[Shared] = []
    not_compared: list[str] = []
    skills, levels = _row_tables(a, b, shared, not_compared)
    tables = [
        *skills,
        *_item_tables(a, b, shared, not_compared),
        *_document_tables(a, b, shared, not_compared),
    ]
    if not tables:
        raise BadInput(
            f"{a.label} and {b.label} have nothing to compare: {'; '.join(not_compared)}",
            fix=(
                "compare models that were asked the same eval rows: make both runs from packs"
                " with one eval file"
            ),
        )
    same = differences.same_recipe
    return Comparison(
        a=a.label,
        b=b.label,
        runs_a=[model.name for model in a.models],
        runs_b=[model.name for model in b.models],
        differences=differences,
        seeds_are_chance=len(a.models) + len(b.models) > 2,
        measures=measured(tables, same_recipe=same),
        levels=measured(levels, same_recipe=same),
        shared=shared,
        not_compared=not_compared,
    )


def measured(tables: Sequence[Table], *, same_recipe: bool) -> list[MeasureResult]:
    """The tests of one family of measures, with Holm's correction over them."""
    estimates = [_estimate(table) for table in tables]
    corrected = holm([estimate.p for estimate in estimates])
    return [
        _result(table, estimate, p_holm, same_recipe)
        for table, estimate, p_holm in zip(tables, estimates, corrected, strict=True)
    ]


def _estimate(table: Table) -> Estimate:
    if len(table.values_a) + len(table.values_b) > 2:
        return seeds_test(table.values_a, table.values_b, table.sizes)
    if table.kind == "rate":
        return rows_test(table.values_a[0] > 0, table.values_b[0] > 0)
    return sums_test(table.values_b[0] - table.values_a[0], table.sizes)


def _result(table: Table, estimate: Estimate, p_holm: float, same_recipe: bool) -> MeasureResult:
    of_a, of_b = (
        (values.sum(axis=1) / table.sizes.sum()).tolist()
        for values in (table.values_a, table.values_b)
    )
    rows_of_one = table.kind == "rate" and len(of_a) + len(of_b) == 2
    passed_a, passed_b = table.values_a[0] > 0, table.values_b[0] > 0
    differs = p_holm <= LEVEL
    b_is_better = (estimate.difference > 0) == (table.kind == "rate")
    return MeasureResult(
        name=table.name,
        kind=table.kind,
        units=len(table.sizes),
        a=of_a,
        b=of_b,
        mean_a=float(np.mean(of_a)),
        mean_b=float(np.mean(of_b)),
        sd_a=spread(of_a),
        sd_b=spread(of_b),
        only_a=int((passed_a & ~passed_b).sum()) if rows_of_one else None,
        only_b=int((passed_b & ~passed_a).sum()) if rows_of_one else None,
        difference=estimate.difference,
        low=estimate.low,
        high=estimate.high,
        p=estimate.p,
        p_holm=p_holm,
        verdict=(
            "no difference"
            if not differs
            else "as a seed does"
            if same_recipe
            else "larger than chance"
        ),
        better=("B" if b_is_better else "A") if differs else None,
    )


# ---- what both sides have ------------------------------------------------------------------------


def _parts(
    a: Side, b: Side, part: Callable[[ComparedModel], T | None], what: str, missing: list[str]
) -> tuple[list[T], list[T]] | None:
    """This part of every model of A and of B; None, with the reason, where one lacks it."""
    lacking: list[str] = []
    for letter, side in (("A", a), ("B", b)):
        without = [model.name for model in side.models if part(model) is None]
        if without:
            some = f" ({', '.join(without)})" if len(without) < len(side.models) else ""
            lacking.append(f"{letter}{some}")
    if lacking:
        missing.append(f"{what}: {' and '.join(lacking)} {NONE_OF[len(lacking) > 1]}")
        return None
    of_a, of_b = (
        [found for model in side.models if (found := part(model)) is not None] for side in (a, b)
    )
    return of_a, of_b


def _in_common(
    what: str,
    of_a: Sequence[Mapping[str, T]],
    of_b: Sequence[Mapping[str, T]],
    content: Callable[[T], object],
    contaminated: Collection[str],
    shared: list[Shared],
) -> list[str]:
    """The ids that every model has with the same content, in the order of the first model."""
    ids_a, ids_b = (set.intersection(*(set(each) for each in side)) for side in (of_a, of_b))
    both = [id for id in of_a[0] if id in ids_a and id in ids_b]
    same = [
        id
        for id in both
        if all(content(each[id]) == content(of_a[0][id]) for each in (*of_a, *of_b))
    ]
    kept = [id for id in same if id not in contaminated]
    shared.append(
        Shared(
            what=what,
            shared=len(kept),
            only_a=len(ids_a - ids_b),
            only_b=len(ids_b - ids_a),
            changed=len(both) - len(same),
            contaminated=len(same) - len(kept),
        )
    )
    return kept


def _found_by_scans(a: Side, b: Side, what: str) -> set[str]:
    return {
        id for model in (*a.models, *b.models) for id in model.contaminated.get(what, frozenset())
    }


def _rates(
    name: str,
    units: Sequence[T],
    of_a: Iterable[Callable[[T], bool]],
    of_b: Iterable[Callable[[T], bool]],
) -> Table:
    """The table of a pass rate: a row of verdicts for each model."""
    values_a, values_b = (
        np.array([[float(passed(unit)) for unit in units] for passed in side])
        for side in (of_a, of_b)
    )
    return Table(name, "rate", values_a, values_b, np.ones(len(units)))


def _row_tables(
    a: Side, b: Side, shared: list[Shared], not_compared: list[str]
) -> tuple[list[Table], list[Table]]:
    """(a table for each skill and each category of own rows, a table for each level)."""
    parts = _parts(a, b, lambda model: model.rows, "eval rows", not_compared)
    if parts is None:
        return [], []
    of_a, of_b = parts
    contaminated = _found_by_scans(a, b, EVAL)
    ids = _in_common("eval rows", of_a, of_b, lambda each: each.row, contaminated, shared)
    if not ids:
        not_compared.append("eval rows: none is the same on both sides")
    rows = {id: of_a[0][id].row for id in ids}
    skills: dict[str, list[str]] = {skill.name: [] for skill in SKILLS}
    levels: dict[str, list[str]] = {}
    for id, row in rows.items():
        name = f"own rows, {row.category}" if row.skill == OTHER else row.skill
        skills.setdefault(name, []).append(id)
        if row.skill != OTHER and row.curriculum_stage:
            levels.setdefault(f"{row.skill}, {row.curriculum_stage}", []).append(id)
    passed_a, passed_b = ([partial(_has_passed, mine) for mine in side] for side in (of_a, of_b))
    of_skills, of_levels = (
        [_rates(name, mine, passed_a, passed_b) for name, mine in groups.items() if mine]
        for groups in (skills, levels)
    )
    return of_skills, of_levels


def _has_passed(rows: Mapping[str, ScoredRow], id: str) -> bool:
    return rows[id].passed


def _item_tables(a: Side, b: Side, shared: list[Shared], not_compared: list[str]) -> list[Table]:
    """Two tables for each benchmark: by acc and by acc_norm."""
    parts = _parts(a, b, lambda model: model.items, "external benchmarks", not_compared)
    if parts is None:
        return []
    names_a, names_b = (set.intersection(*(set(each) for each in side)) for side in parts)
    not_compared += [
        f"{name}: only {'A' if name in names_a else 'B'} was scored on it"
        for name in sorted(names_a ^ names_b)
    ]
    tables: list[Table] = []
    for name in sorted(names_a & names_b):
        of_a, of_b = ([each[name] for each in side] for side in parts)
        contaminated = _found_by_scans(a, b, name)
        ids = _in_common(name, of_a, of_b, lambda each: each.digest, contaminated, shared)
        if not ids:
            not_compared.append(f"{name}: no item is the same on both sides")
            continue
        for accuracy in ("acc", "acc_norm"):
            right_a, right_b = (
                [partial(_is_right, accuracy, mine) for mine in side] for side in (of_a, of_b)
            )
            tables.append(_rates(f"{name}, {accuracy}", ids, right_a, right_b))
    return tables


def _is_right(accuracy: str, items: Mapping[str, ScoredItem], id: str) -> bool:
    return bool(getattr(items[id], accuracy))


def _document_tables(
    a: Side, b: Side, shared: list[Shared], not_compared: list[str]
) -> list[Table]:
    """Bits per byte of the same documents by the base model and by the chat model."""
    what = "held-out documents"
    parts = _parts(a, b, lambda model: model.documents, what, not_compared)
    if parts is None:
        return []
    # Two documents may have the same text: the first of A is then compared with the first of B.
    of_a, of_b = (
        [dict(zip(_numbered([d.sha256 for d in each]), each, strict=True)) for each in side]
        for side in parts
    )
    keys = _in_common(what, of_a, of_b, lambda each: each.text_bytes, (), shared)
    sizes = np.array([float(of_a[0][key].text_bytes) for key in keys])
    if not sizes.any():
        not_compared.append(f"{what}: none is the same on both sides")
        return []
    tables: list[Table] = []
    for model, field in (("base model", "base_nats"), ("chat model", "chat_nats")):
        nats = [
            [[getattr(mine[key], field) for key in keys] for mine in side] for side in (of_a, of_b)
        ]
        if any(value is None for side in nats for mine in side for value in mine):
            not_compared.append(f"held-out text, {model}: a loss is not finite")
            continue
        bits_a, bits_b = (np.array(side, dtype=np.float64) / LN_2 for side in nats)
        tables.append(Table(f"held-out text, {model}", "bits per byte", bits_a, bits_b, sizes))
    return tables


def _numbered(digests: Iterable[str]) -> list[str]:
    """The digests with a number behind each, so that equal ones differ."""
    seen: Counter[str] = Counter()
    found: list[str] = []
    for digest in digests:
        found.append(f"{digest}~{seen[digest]}")
        seen[digest] += 1
    return found
