"""The charts of a preview page: what the pack has against the plan, and lengths of documents.

Which values they show is decided here; how a chart looks is decided in present/charts.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from picochat.data.preview.record import LengthBin, ScaleFit
from picochat.present.charts import estimate_chart, histogram
from picochat.present.values import quantity

EPOCHS_MARKED = (16, 4, 1)  # the bounds of preflight, and reading everything once


def plan_chart(fit: ScaleFit) -> str:
    """Training tokens there are, against the plan read once, 4 times and 16 times."""
    title = "Tokens for training against the plan"
    tokens, epochs = fit.train_tokens, fit.epochs
    if tokens is None or tokens.value <= 0 or epochs is None:
        return estimate_chart(title, None, (), (), fit.status)
    # Tokens that suffice at so many epochs of the plan or the target, whichever asks for more.
    needed = max(fit.planned_tokens, fit.target_tokens)
    marks = [(f"{n} epoch{'s' if n > 1 else ''}", needed / n) for n in EPOCHS_MARKED]
    read = (
        f"{quantity(epochs.value)} times"
        if epochs.value >= 1
        else f"at most once, {1 - epochs.value:.0%} never"
    )
    texts = (
        f"{quantity(tokens.value)} tokens, {quantity(fit.planned_tokens)} planned: each read {read}",
        "marks: tokens that suffice at so many epochs",
    )
    estimate = (tokens.value, tokens.low, tokens.high)
    return estimate_chart(title, estimate, marks, texts, fit.status)


def length_chart(label: str, lengths: Sequence[LengthBin]) -> str:
    """Documents by length, characters on a log scale."""
    bins = [(each.from_characters, each.to_characters, each.documents) for each in lengths]
    return histogram(f"Lengths of {label}", bins, "documents", "characters")
