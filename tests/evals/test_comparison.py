"""Comparing two sides: what improved is found, chance is not, and what one side lacks is said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from picochat.core.errors import BadInput
from picochat.core.records import digest_bytes
from picochat.evals.compared import ComparedModel, Recipe, ScoredItem, ScoredRow, Side
from picochat.evals.comparison import Comparison, Table, compare, measured
from picochat.evals.eval_records import HeldOutDocument
from picochat.evals.paired_tests import Floats
from picochat.skills.task_rows import EvalRow

SKILLS = ("math", "spelling", "identity", "choice", "refusal")
SETTINGS: dict[str, object] = {
    "seed": 42,
    "training_seed": 42,
    "base.muon_lr": 0.02,
    "host.workers": 2,
}


def make_recipe(**changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "settings": SETTINGS,
        "data": {"text": "d1", "chat and eval rows": "d2"},
        "made": {"shards": "s"},
        "text": "10 documents, 1 MB",
        "picochat": "0.1.0",
        "machine": "a CPU",
    }
    return Recipe(**{**values, **changes})


def make_rows(passed: dict[str, Sequence[bool]], **changes: Any) -> dict[str, ScoredRow]:
    """Rows `SKILL-NUMBER` with these verdicts; every second one is of the level `easy`."""
    return {
        f"{skill}-{number}": ScoredRow(
            EvalRow.model_validate(
                {
                    "id": f"{skill}-{number}",
                    "user": f"question {number}",
                    "skill": skill,
                    "curriculum_stage": "hard" if number % 2 else "easy",
                    **changes,
                }
            ),
            bool(verdict),
        )
        for skill, verdicts in passed.items()
        for number, verdict in enumerate(verdicts)
    }


def make_documents(bits: float, count: int = 40, first: int = 0) -> list[HeldOutDocument]:
    """Documents of 500 bytes; `first` is the number of the first."""
    return [
        HeldOutDocument(
            sha256=digest_bytes(f"document {number}".encode()),
            text_bytes=500,
            base_nats=bits * 500 * float(np.log(2)) * (1 + number % 7 / 10),
            chat_nats=bits * 500 * float(np.log(2)) * (1 + number % 7 / 10),
        )
        for number in range(first, first + count)
    ]


def make_model(name: str = "run", **parts: Any) -> ComparedModel:
    whole: dict[str, Any] = {"recipe": make_recipe()}
    return ComparedModel(name=name, **{**whole, **parts})


def side(*models: ComparedModel, label: str = "somewhere") -> Side:
    return Side(label, models)


def verdicts(found: Comparison) -> dict[str, str]:
    return {each.name: each.verdict for each in found.measures}


OTHER_LR = make_recipe(settings={**SETTINGS, "base.muon_lr": 0.01})
OTHER_SEED = make_recipe(settings={**SETTINGS, "training_seed": 43})


# ---- what is found -------------------------------------------------------------------------------


def half(count: int = 175) -> list[bool]:
    return [number % 2 == 0 for number in range(count)]


def better(count: int = 175, more: int = 30) -> list[bool]:
    """As `half`, with `more` rows that pass besides."""
    return [number % 2 == 0 or number < 2 * more for number in range(count)]


def test_thirty_more_of_175_rows_are_a_difference_of_that_skill_alone() -> None:
    a = make_model(rows=make_rows({skill: half() for skill in SKILLS}))
    b = make_model(
        rows=make_rows({skill: half() for skill in SKILLS} | {"math": better()}), recipe=OTHER_LR
    )
    found = compare(side(a), side(b))
    assert [each.name for each in found.beyond_chance] == ["math"]
    math = found.beyond_chance[0]
    assert (math.only_a, math.only_b, math.better) == (0, 30, "B")
    assert math.difference == pytest.approx(30 / 175)
    back = compare(side(b), side(a)).beyond_chance[0]
    assert (back.better, back.difference) == ("A", -math.difference)


def test_a_level_is_named_where_it_alone_differs() -> None:
    passed = [number % 4 == 0 for number in range(160)]
    easy = [number % 4 == 0 or (number % 2 == 0 and number < 60) for number in range(160)]
    a = make_model(rows=make_rows({"math": passed}))
    b = make_model(rows=make_rows({"math": easy}), recipe=OTHER_LR)
    levels = {each.name: each.verdict for each in compare(side(a), side(b)).levels}
    assert levels == {"math, easy": "larger than chance", "math, hard": "no difference"}


def test_fewer_bits_per_byte_are_better() -> None:
    a, b = make_model(documents=make_documents(1.05)), make_model(documents=make_documents(1.02))
    found = compare(side(a), side(make_model(documents=b.documents, recipe=OTHER_LR)))
    assert {each.name: each.better for each in found.measures} == {
        "held-out text, base model": "B",
        "held-out text, chat model": "B",
    }
    assert found.measures[0].mean_a == pytest.approx(1.05 * 1.295, rel=0.05)


def test_two_runs_that_differ_in_the_seed_alone_never_differ() -> None:
    """However many rows differ between them: that is what a seed does."""
    a = make_model(rows=make_rows({"math": half()}))
    b = make_model(rows=make_rows({"math": better()}), recipe=OTHER_SEED)
    found = compare(side(a), side(b))
    assert found.differences.same_recipe and found.beyond_chance == []
    assert verdicts(found) == {"math": "as a seed does"}
    assert found.measures[0].p_holm < 1e-6


@pytest.mark.parametrize(
    ("settings", "seed"),
    [({"seed": 43}, "42"), ({"training_seed": 7}, "7"), ({"seed": 7, "training_seed": 7}, "7")],
)
def test_either_seed_is_chance(settings: dict[str, object], seed: str) -> None:
    recipe = make_recipe(settings={**SETTINGS, **settings})
    rows = make_rows({"math": half()})
    found = compare(side(make_model(rows=rows)), side(make_model(rows=rows, recipe=recipe)))
    assert found.differences.same_recipe
    assert (found.differences.seeds_a, found.differences.seeds_b) == (["42"], [seed])
    assert bool(found.differences.data_seed) == ("seed" in settings)


@pytest.mark.parametrize(
    "recipe",
    [
        OTHER_LR,
        make_recipe(data={"text": "other", "chat and eval rows": "d2"}),
        make_recipe(picochat="0.2.0"),
        None,
    ],
    ids=["setting", "data", "version", "not known"],
)
def test_another_recipe_is_no_other_seed(recipe: Recipe | None) -> None:
    a = make_model(rows=make_rows({"math": half()}))
    found = compare(side(a), side(make_model(rows=make_rows({"math": better()}), recipe=recipe)))
    assert verdicts(found) == {"math": "larger than chance"}


@pytest.mark.parametrize(
    "recipe",
    [make_recipe(settings={**SETTINGS, "host.workers": 9}), make_recipe(machine="another CPU")],
    ids=["host", "machine"],
)
def test_what_changes_no_result_is_no_other_recipe(recipe: Recipe) -> None:
    rows = make_rows({"math": half()})
    found = compare(side(make_model(rows=rows)), side(make_model(rows=rows, recipe=recipe)))
    assert found.differences.same_recipe and found.differences.settings == []


# ---- chance is not found -------------------------------------------------------------------------


def simulated(
    random: np.random.Generator, runs: int, seed_sd: float, shift: float = 0.0
) -> list[Table]:
    """Five skills of 100 rows and two measures of 12 documents, from two sides without a difference
    but `shift`, in logits of every row.

    Rows have difficulties of their own, and a seed moves a whole skill.
    """
    tables: list[Table] = []
    for skill in SKILLS:
        easiness = random.normal(0.3, 1.5, 100)
        sides: list[Floats] = []
        for of_b in (0.0, shift):
            moved = easiness + of_b + random.normal(0, seed_sd, (runs, 1))
            sides.append((random.random((runs, 100)) < 1 / (1 + np.exp(-moved))).astype(float))
        tables.append(Table(skill, "rate", sides[0], sides[1], np.ones(100)))
    sizes = random.integers(200, 5_000, 12).astype(float)
    for model in ("base", "chat"):
        text = random.normal(1.0, 0.2, 12)
        sides = [
            (text + random.normal(0, 0.02, (runs, 12)) + random.normal(0, seed_sd / 50, (runs, 1)))
            * sizes
            for _ in range(2)
        ]
        tables.append(Table(model, "bits per byte", sides[0], sides[1], sizes))
    return tables


def found_in(tables: list[Table]) -> bool:
    return any(each.verdict != "no difference" for each in measured(tables, same_recipe=False))


def test_equal_models_differ_in_at_most_one_of_twenty_comparisons() -> None:
    random = np.random.default_rng(11)
    assert np.mean([found_in(simulated(random, 1, 0.0)) for _ in range(300)]) <= 0.05


@pytest.mark.parametrize("seed_sd", [0.0, 0.2, 0.5])
def test_equal_settings_with_three_seeds_differ_in_at_most_one_of_twenty(seed_sd: float) -> None:
    random = np.random.default_rng(12)
    assert np.mean([found_in(simulated(random, 3, seed_sd)) for _ in range(400)]) <= 0.05


def test_one_run_on_each_side_cannot_tell_a_seed_from_a_setting() -> None:
    """Why the page asks for several seeds: the two models do differ, and the settings do not."""
    random = np.random.default_rng(13)
    assert np.mean([found_in(simulated(random, 1, 0.5)) for _ in range(100)]) > 0.2


def test_a_change_of_every_skill_is_found_with_five_seeds() -> None:
    random = np.random.default_rng(14)
    assert np.mean([found_in(simulated(random, 5, 0.2, shift=0.8)) for _ in range(60)]) > 0.9


def test_several_runs_show_their_mean_and_spread() -> None:
    passed = ([True] * 5 + [False] * 5, [True] * 6 + [False] * 4, [True] * 7 + [False] * 3)
    of_a = [
        make_model(f"seed-{n}", rows=make_rows({"math": each})) for n, each in enumerate(passed)
    ]
    b = make_model(rows=make_rows({"math": [True] * 10}), recipe=OTHER_LR)
    found = compare(side(*of_a), side(b))
    (math,) = found.measures
    assert found.seeds_are_chance and math.a == [0.5, 0.6, 0.7] and math.b == [1.0]
    assert (math.mean_a, math.sd_a) == (pytest.approx(0.6), pytest.approx(0.1))
    assert (math.sd_b, math.only_a, math.only_b) == (None, None, None)


# ---- the same rows and documents -----------------------------------------------------------------


def test_rows_count_where_id_and_content_are_the_same_and_no_scan_found_them() -> None:
    a = make_model(rows=make_rows({"math": half(10)}))
    rows = make_rows({"math": half(12)})
    rows["math-3"] = ScoredRow(rows["math-3"].row.model_copy(update={"user": "another"}), True)
    b = make_model(rows=rows, contaminated={"eval": frozenset({"math-5"})}, recipe=OTHER_LR)
    found = compare(side(a), side(b))
    (shared,) = found.shared
    assert (shared.shared, shared.only_a, shared.only_b) == (8, 0, 2)
    assert (shared.changed, shared.contaminated) == (1, 1)
    assert found.measures[0].units == 8


def test_documents_of_other_tokenizers_are_found_by_their_text() -> None:
    a = make_model(documents=make_documents(1.0))
    b = make_model(documents=make_documents(1.0, first=10)[::-1], recipe=OTHER_LR)
    found = compare(side(a), side(b))
    assert (found.shared[0].shared, found.shared[0].only_a, found.shared[0].only_b) == (30, 10, 10)
    assert [each.difference for each in found.measures] == [0.0, 0.0]


def test_equal_documents_are_compared_as_often_as_both_sides_have_them() -> None:
    documents = make_documents(1.0, count=12)
    a = make_model(documents=[*documents, documents[0], documents[0]])
    b = make_model(documents=[documents[0], *documents], recipe=OTHER_LR)
    (shared,) = compare(side(a), side(b)).shared
    assert (shared.shared, shared.only_a) == (13, 1)


def items(right: Sequence[bool]) -> dict[str, dict[str, ScoredItem]]:
    return {"quiz": {f"q{n}": ScoredItem(f"d{n}", each, not each) for n, each in enumerate(right)}}


def test_benchmarks_are_compared_by_both_accuracies() -> None:
    a = make_model(items=items([False] * 30 + [True] * 30))
    b = make_model(items=items([True] * 60), recipe=OTHER_LR)
    found = compare(side(a), side(b))
    assert {each.name: each.better for each in found.measures} == {
        "quiz, acc": "B",
        "quiz, acc_norm": "A",
    }


def test_what_a_side_lacks_is_said() -> None:
    a = make_model(rows=make_rows({"math": half()}), documents=make_documents(1.0), items=items([]))
    b = make_model(rows=make_rows({"math": half()}), items={"piqa": {}}, recipe=None)
    found = compare(side(a), side(b))
    assert found.not_compared == [
        "piqa: only B was scored on it",
        "quiz: only A was scored on it",
        "held-out documents: B has none",
    ]
    assert not found.differences.known and [each.name for each in found.measures] == ["math"]


def test_a_run_of_several_that_lacks_something_is_named() -> None:
    rows = make_rows({"math": half()})
    a = [make_model(f"seed-{n}", rows=rows, documents=make_documents(1.0)) for n in (1, 2)]
    b = [
        make_model("seed-1", rows=rows, documents=make_documents(1.0)),
        make_model("s2", rows=rows),
    ]
    found = compare(side(*a), side(*b))
    assert found.not_compared == [
        "external benchmarks: A and B have none",
        "held-out documents: B (s2) has none",
    ]


def test_a_loss_that_is_not_finite_is_not_compared() -> None:
    lost = [each.model_copy(update={"chat_nats": None}) for each in make_documents(1.0)]
    found = compare(
        side(make_model(documents=make_documents(1.0))),
        side(make_model(documents=lost, recipe=OTHER_LR)),
    )
    assert [each.name for each in found.measures] == ["held-out text, base model"]
    assert found.not_compared[-1] == "held-out text, chat model: a loss is not finite"


def test_models_that_were_asked_nothing_in_common_are_refused() -> None:
    a = make_model(rows=make_rows({"math": half()}))
    b = make_model(rows=make_rows({"math": half()}, system="Be brief."))
    with pytest.raises(BadInput, match="eval rows: none is the same on both sides") as caught:
        compare(side(a), side(b))
    assert "one eval file" in str(caught.value.fix)
    again = make_model(rows=make_rows({"math": half()}))  # what the remedy asks for
    assert compare(side(a), side(again)).measures[0].units == 175
