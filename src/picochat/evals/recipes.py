"""What differs between the recipes of two sides: settings, data, seed, software.

A difference in the seeds alone is none of the recipe: it is what chance is. Settings that change no
model and no reply (HOST_OR_JUDGING) are left out. Says nothing about results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pydantic import Field

from picochat.core.records import Record
from picochat.evals.compared import ComparedModel, Recipe, Side
from picochat.present.values import short_digest

SEEDS = ("seed", "training_seed")
HOST_OR_JUDGING = ("host.", "gate.")
BY_DIGEST = ("external.benchmarks",)  # may be a path; the digest of the artifact says what was read


class Difference(Record):
    """One thing that differs, with both values as text; None where a side has no such thing."""

    name: str
    a: str | None
    b: str | None


class RecipeDifferences(Record):
    """What differs between two sides.

    known: whether both sides state how they were made; without it the lists say nothing.
    made: kinds of artifacts made before training that differ, whatever the cause.
    machine: devices and libraries, which change how numbers are rounded, as a seed does.
    data_seed: of splits, samples and exercises. seeds_a, seeds_b: of training, of each run.
    """

    known: bool
    settings: list[Difference] = Field(default=[])
    data: list[Difference] = Field(default=[])
    made: list[str] = Field(default=[])
    picochat: list[Difference] = Field(default=[])
    machine: list[Difference] = Field(default=[])
    data_seed: list[Difference] = Field(default=[])
    seeds_a: list[str]
    seeds_b: list[str]

    @property
    def same_recipe(self) -> bool:
        """Whether nothing differs but seeds and machines, so that all that is seen is chance."""
        return self.known and not (self.settings or self.data or self.picochat)


def recipe_differences(a: Side, b: Side) -> RecipeDifferences:
    """What differs between the recipes. Settings and data of a side are those of its first run."""
    one, other = a.models[0].recipe, b.models[0].recipe
    seeds_a, seeds_b = ([seed_of(model) for model in side.models] for side in (a, b))
    if one is None or other is None:
        return RecipeDifferences(known=False, seeds_a=seeds_a, seeds_b=seeds_b)
    return RecipeDifferences(
        known=True,
        settings=setting_differences(one, other),
        data=_data(one, other),
        made=_made(a.models, b.models),
        picochat=_texts("picochat", a, b, lambda recipe: recipe.picochat),
        machine=_texts("machine", a, b, lambda recipe: recipe.machine),
        data_seed=_texts("seed", a, b, lambda recipe: str(recipe.settings["seed"])),
        seeds_a=seeds_a,
        seeds_b=seeds_b,
    )


def is_same_recipe(one: Recipe, other: Recipe) -> bool:
    """Whether two runs have the same settings and data, so that they may stand on one side."""
    return not (setting_differences(one, other) or _data(one, other))


def seed_of(model: ComparedModel) -> str:
    """The training seed, or `unknown` for a model that no run made."""
    if model.recipe is None:
        return "unknown"
    return str(model.recipe.settings["training_seed"])


def setting_differences(one: Recipe, other: Recipe) -> list[Difference]:
    """The settings that differ, without seeds and without what changes no result."""
    return [
        Difference(name=key, a=_text(one.settings, key), b=_text(other.settings, key))
        for key in dict.fromkeys((*one.settings, *other.settings))
        if one.settings.get(key) != other.settings.get(key)
        and key not in (*SEEDS, *BY_DIGEST)
        and not key.startswith(HOST_OR_JUDGING)
    ]


def _text(settings: Mapping[str, object], key: str) -> str | None:
    return str(settings[key]) if key in settings else None


def _data(one: Recipe, other: Recipe) -> list[Difference]:
    return [
        Difference(name=name, a=_data_text(one, name), b=_data_text(other, name))
        for name in dict.fromkeys((*one.data, *other.data))
        if one.data.get(name) != other.data.get(name)
    ]


def _data_text(recipe: Recipe, name: str) -> str | None:
    digest = recipe.data.get(name)
    if not digest:
        return None
    return f"{short_digest(digest)}, {recipe.text}" if name == "text" else short_digest(digest)


def _made(a: Sequence[ComparedModel], b: Sequence[ComparedModel]) -> list[str]:
    """Kinds of artifacts of which the runs of both sides have not the same ones."""

    def digests(models: Sequence[ComparedModel], kind: str) -> set[str | None]:
        return {model.recipe.made.get(kind) for model in models if model.recipe}

    kinds = dict.fromkeys(kind for model in (*a, *b) if model.recipe for kind in model.recipe.made)
    return [kind for kind in kinds if digests(a, kind) != digests(b, kind)]


def _texts(name: str, a: Side, b: Side, text: Callable[[Recipe], str]) -> list[Difference]:
    """The texts of all runs of each side, where they are not the same on both."""
    one, other = (
        "; ".join(sorted({text(model.recipe) for model in side.models if model.recipe}))
        for side in (a, b)
    )
    return [] if one == other else [Difference(name=name, a=one, b=other)]
