"""What the training seed alone moves: one recipe with several seeds, as a table and a chart.

The runs share data and settings, so what differs between them is chance. Decides nothing;
`picochat run compare` tells whether two recipes differ by more than that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pydantic import Field

from picochat.core.journal import read_journal
from picochat.core.publish import Artifact
from picochat.core.records import Record
from picochat.facts import GateFacts, ScoresFacts, facts_of
from picochat.present.charts import Line, line_chart
from picochat.present.labels import OTHER_RATES
from picochat.present.values import NOT_MEASURED

SPREAD_SCHEMA_VERSION = 1


class Measure(Record):
    """One measurement of every finished run, in the order of the runs; None: not measured.

    mean, standard_deviation: over the runs that measured it; the second needs two of them, and has
    n - 1 in its denominator.
    """

    name: str
    values: list[float | None]
    mean: float | None
    standard_deviation: float | None


class Spread(Record):
    """seeds.json: the runs of a recipe, which differ in their training seed alone.

    runs: folders, one for each seed. finished: those that have a verdict. verdicts: of these.
    """

    schema_version: int = SPREAD_SCHEMA_VERSION
    runs: list[str] = Field(min_length=1)
    finished: list[str] = Field(default=[])
    verdicts: list[str] = Field(default=[])
    measures: list[Measure] = Field(default=[])


def spread_of(runs: Sequence[str], finished: Mapping[str, Mapping[str, Artifact]]) -> Spread:
    """runs: the names of all run folders. finished: the artifacts of those that have a verdict."""
    scores = [facts_of(artifacts["scores"], ScoresFacts) for artifacts in finished.values()]
    return Spread(
        runs=list(runs),
        finished=list(finished),
        verdicts=[facts_of(run["gate"], GateFacts).status for run in finished.values()],
        measures=_measures(scores),
    )


def _measures(scores: Sequence[ScoresFacts]) -> list[Measure]:
    each = [_values(score) for score in scores]
    names = dict.fromkeys(name for values in each for name in values)
    return [measure(name, [values.get(name) for values in each]) for name in names]


def measure(name: str, values: Sequence[float | None]) -> Measure:
    known = [value for value in values if value is not None]
    mean = math.fsum(known) / len(known) if known else None
    deviation = None
    if mean is not None and len(known) > 1:
        deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in known) / (len(known) - 1))
    return Measure(name=name, values=list(values), mean=mean, standard_deviation=deviation)


def _values(scores: ScoresFacts) -> dict[str, float | None]:
    """Measure -> its value in one run; rates over no row are left out."""
    values: dict[str, float | None] = {
        "base model, held-out bits per byte": scores.base_bits_per_byte,
        "chat model, held-out bits per byte": scores.sft_bits_per_byte,
    }
    rates = {name: skill.clean for name, skill in scores.skills.items()}
    rates |= {f"own rows, {name}": score.clean for name, score in scores.own.items()}
    rates |= {name: score.clean for name, score in scores.external.items()}
    rates |= {label: getattr(scores, name) for name, label in OTHER_RATES.items()}
    return {**values, **{name: rate.fraction for name, rate in rates.items() if rate.count}}


def table(spread: Spread) -> list[tuple[str, ...]]:
    """A head line and a line for each measure: its value in each run, mean and deviation."""
    rows: list[tuple[str, ...]] = [("", *spread.finished, "mean", "standard deviation")]
    for each in spread.measures:
        values = [*each.values, each.mean, each.standard_deviation]
        rows.append((each.name, *(_number(value) for value in values)))
    return [*rows, ("release gate", *spread.verdicts, "", "")]


def _number(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.4f}"


def markdown_page(spread: Spread, chart: str) -> str:
    """seeds.md. chart: the file name of the chart."""
    head, *body = table(spread)
    lines = [
        f"# One recipe, {len(spread.finished)} training seeds",
        "",
        "These runs share text, rows, tokenizer and settings. They differ in their first weights"
        " and in the order of the training rows. What differs below is therefore chance: another"
        " recipe is better only where it gains more than this.",
        "",
        f"![Held-out bits per byte of each seed]({chart})",
        "",
        f"| {' | '.join(head)} |",
        f"|---|{'---:|' * (len(head) - 1)}",
        *(f"| {' | '.join(row)} |" for row in body),
        "",
        "A claim about the recipe is about all of these runs. The best of several seeds is not the"
        " recipe's result.",
    ]
    return "\n".join(lines) + "\n"


def curves_chart(finished: Mapping[str, Mapping[str, Artifact]]) -> str:
    """Held-out bits per byte of the base model over its training, a line for each run, as SVG."""
    lines: list[Line] = []
    for name, artifacts in finished.items():
        curve = read_journal(artifacts["base"].path("curve.jsonl"))
        points = [
            (float(row["tokens"]), float(row["held_out_bits_per_byte"]))
            for row in curve
            if row.get("held_out_bits_per_byte") is not None
        ]
        lines.append(Line(name, points, dots=True))
    return line_chart("Base training, each seed", lines, "tokens trained on", "bits per byte")
