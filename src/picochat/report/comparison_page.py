"""The page of `picochat run compare`: lines for the terminal, and a picture of the differences.

The verdict comes first, then what differs in the recipes, then every measure. Names and settings
may come from a bundle of somebody else, so they are made printable. Computes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from picochat.evals.comparison import Comparison, MeasureResult
from picochat.evals.recipes import Difference, RecipeDifferences
from picochat.present.charts import Interval, IntervalGroup, interval_chart
from picochat.present.printable import one_line
from picochat.present.terminal import columns
from picochat.present.values import count, fraction, loss

ONE_LINE = 60
SEVERAL_SEEDS = "picochat run tiny --seeds 3 ..."
LARGER, SEED, NONE = "larger than chance", "as a seed does", "no difference"


def comparison_lines(found: Comparison) -> list[str]:
    """The whole comparison as lines of text."""
    return [
        *_sides(found),
        "",
        *conclusion(found),
        "",
        *_recipes(found.differences),
        "",
        *_measures(found),
        *_levels(found),
        "",
        *_notes(found),
    ]


def conclusion(found: Comparison) -> list[str]:
    """The answer in a sentence or two, with what it rests on."""
    tests = len(found.measures)
    over = f"Holm's correction over all {tests} measures"
    if found.differences.same_recipe:
        return _same_recipe(found)
    beyond = found.beyond_chance
    if not beyond:
        first = f"no difference: none of {tests} measures differs by more than chance ({over})"
    else:
        first = f"{len(beyond)} of {tests} measures differ by more than chance ({over})"
    lines = [first]
    for side in ("B", "A"):
        if names := [each.name for each in beyond if each.better == side]:
            lines.append(f"    {side} is better: {_names(names)}")
    if found.seeds_are_chance:
        return [*lines, "The seed counts as chance, beside the rows and documents."]
    if not found.differences.known:
        return [*lines, "How one side was made is not known: this tells these two models apart."]
    return [
        *lines,
        "One run on each side: this tells these two models apart, not their settings, because"
        " another seed",
        f"alone gives another model too. Train both with several seeds: {SEVERAL_SEEDS}",
    ]


def _same_recipe(found: Comparison) -> list[str]:
    seeds = set(found.differences.seeds_a) == set(found.differences.seeds_b)
    lines = ["no difference: the settings and data are the same, so all that is seen is chance"]
    differing = [each.name for each in found.measures if each.verdict == SEED]
    if differing and not found.seeds_are_chance:
        cause = "a repetition" if seeds else "a seed"
        lines.append(
            f"The two models differ in {_names(differing)}: that is what {cause} does, and a change"
        )
        lines.append("of settings must do more than that to count.")
    return lines


def _names(names: Sequence[str]) -> str:
    return "; ".join(one_line(name, ONE_LINE) for name in names)


# ---- sides and recipes ---------------------------------------------------------------------------


def _sides(found: Comparison) -> list[str]:
    rows = [
        (side, one_line(label, 2 * ONE_LINE), _seeds(seeds))
        for side, label, seeds in (
            ("A", found.a, found.differences.seeds_a),
            ("B", found.b, found.differences.seeds_b),
        )
    ]
    return columns(rows)


def _seeds(seeds: Sequence[str]) -> str:
    known = [seed for seed in seeds if seed != "unknown"]
    if not known:
        return ""
    return f"seed {known[0]}" if len(seeds) == 1 else f"{len(seeds)} runs, seeds {', '.join(known)}"


def _recipes(found: RecipeDifferences) -> list[str]:
    """What differs in settings, data, software and machine."""
    if not found.known:
        return ["what differs: not known, because one side states no settings"]
    if found.same_recipe and not found.machine:
        lines = [f"what differs: {_seed_words(found)}; the settings and data are the same"]
    else:
        lines = ["what differs"]
        lines += _table("setting", found.settings) or ["    settings: the same"]
        lines += _table("data", found.data) or ["    data: the same"]
        lines += [f"    {_seed_words(found)}"]
        lines += _versions((*found.picochat, *found.machine))
    for each in found.data_seed:
        lines.append(f"    the seed of splits, samples and exercises: {each.a} and {each.b}")
    if found.made:
        lines.append(f"    made before training, and different: {', '.join(found.made)}")
    return lines


def _seed_words(found: RecipeDifferences) -> str:
    if found.seeds_a == found.seeds_b:
        plural = "s" if len(found.seeds_a) > 1 else ""
        return f"the same training seed{plural} ({', '.join(found.seeds_a)})"
    return f"the training seed ({', '.join(found.seeds_a)} and {', '.join(found.seeds_b)})"


def _table(name: str, differing: Sequence[Difference]) -> list[str]:
    if not differing:
        return []
    rows = [(f"    {name}", "A", "B")]
    rows += [
        (f"    {one_line(each.name, ONE_LINE)}", _value(each.a), _value(each.b))
        for each in differing
    ]
    return columns(rows)


def _versions(differing: Sequence[Difference]) -> list[str]:
    return [
        line
        for each in differing
        for line in (
            f"    {each.name} of A: {one_line(each.a or '', 2 * ONE_LINE)}",
            f"    {each.name} of B: {one_line(each.b or '', 2 * ONE_LINE)}",
        )
    ]


def _value(text: str | None) -> str:
    return "none" if text is None else one_line(text, ONE_LINE)


# ---- measures ------------------------------------------------------------------------------------


def _measures(found: Comparison) -> list[str]:
    several = found.seeds_are_chance
    head = ("measure", "rows", "A", "B", "B - A", "95% interval")
    head += ("p", "Holm's p", "verdict") if several else ("only A", "only B", "p", "Holm's p", "")
    rows = [(*head[:-1], "verdict")]
    for each in found.measures:
        rows.append(
            (
                one_line(each.name, ONE_LINE),
                count(each.units),
                _mean(each.kind, each.mean_a, each.sd_a),
                _mean(each.kind, each.mean_b, each.sd_b),
                signed(each.kind, each.difference),
                _interval(each),
                *(() if several else (_only(each.only_a), _only(each.only_b))),
                p_value(each.p),
                p_value(each.p_holm),
                _verdict(each),
            )
        )
    lines = columns(rows, right=range(1, len(head) - 1))
    if any(each.kind == "bits per byte" for each in found.measures):
        lines.append("held-out text: bits per byte, where less is better; rows are its documents")
    if several:
        lines.append("mean over runs, and its standard deviation in brackets")
    return lines


def _levels(found: Comparison) -> list[str]:
    """The levels that differ; their correction is over all levels."""
    shown = [each for each in found.levels if each.verdict != NONE]
    if not found.levels:
        return []
    over = f"of {len(found.levels)} levels of skills"
    if not shown:
        return [f"{over}: none differs (Holm's correction over them)"]
    names = [
        f"{one_line(each.name, ONE_LINE)} ({fraction(each.mean_a)} and {fraction(each.mean_b)})"
        for each in shown
    ]
    return [f"{over}, different (Holm's correction over them): {'; '.join(names)}"]


def _notes(found: Comparison) -> list[str]:
    lines = [
        f"compared: {one_line(each.what, ONE_LINE)}: {count(each.shared)} on both sides"
        + "".join(
            f", {count(number)} {what}"
            for number, what in (
                (each.only_a, "only of A"),
                (each.only_b, "only of B"),
                (each.changed, "of one id with another content"),
                (each.contaminated, "left out: found in the training text of a side"),
            )
            if number
        )
        for each in found.shared
    ]
    return lines + [f"not compared: {one_line(each, 2 * ONE_LINE)}" for each in found.not_compared]


def _verdict(each: MeasureResult) -> str:
    return f"{each.verdict}, {each.better} is better" if each.verdict == LARGER else each.verdict


def _mean(kind: str, mean: float, deviation: float | None) -> str:
    form = fraction if kind == "rate" else loss
    return form(mean) if deviation is None else f"{form(mean)} ({form(deviation)})"


def signed(kind: str, value: float) -> str:
    """`+0.086` for rates, `-0.0110` for bits per byte."""
    return f"{value:+.3f}" if kind == "rate" else f"{value:+.4f}"


def _interval(each: MeasureResult) -> str:
    if each.low is None or each.high is None:
        return "not known"
    return f"{signed(each.kind, each.low)} to {signed(each.kind, each.high)}"


def p_value(p: float) -> str:
    """Three digits, or `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _only(number: int | None) -> str:
    return "" if number is None else count(number)


# ---- the picture ---------------------------------------------------------------------------------


def comparison_picture(found: Comparison) -> str:
    """The differences with their intervals as SVG: rates, and below them bits per byte."""
    groups = [
        IntervalGroup(
            title,
            [
                Interval(
                    one_line(each.name, ONE_LINE),
                    each.difference,
                    each.difference if each.low is None else each.low,
                    each.difference if each.high is None else each.high,
                    signed(each.kind, each.difference),
                    each.verdict == LARGER,
                )
                for each in found.measures
                if each.kind == kind
            ],
        )
        for title, kind in (
            ("pass rate of B minus that of A: right is better for B", "rate"),
            ("bits per byte of B minus those of A: left is better for B", "bits per byte"),
        )
    ]
    a, b = (one_line(Path(label).name, ONE_LINE) for label in (found.a, found.b))
    title = f"B ({b}) minus A ({a})"
    note = conclusion(found)[0]
    return interval_chart(title, [group for group in groups if group.intervals], note)
