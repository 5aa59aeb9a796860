"""What a pack means for a scale: epochs, what the preflight will say, and how many rows to import
instead.

The bounds are the preflight's own, told here a second time because data may not import the gate; a
test reads both. The preflight measures tokens after dropping duplicates and with the run's
tokenizer, so near a bound it may say otherwise: an interval that holds a bound is reported as the
worse of the two.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from picochat.config import is_long_run, parameter_count, step_tokens
from picochat.core.records import read_json, read_record
from picochat.data.importing.import_report import ImportReport
from picochat.data.pack import LoadedSource
from picochat.data.preview.record import (
    Duplicates,
    Forecast,
    ImportAdvice,
    Interval,
    ScaleFit,
    SourcePreview,
    Status,
)
from picochat.scales import Scale

EPOCHS_WARN = 4.0
EPOCHS_BLOCK = 16.0
EPOCHS_LEAST = 0.25
SEVERITY: tuple[Status, ...] = ("pass", "warn", "block")


class Bound(NamedTuple):
    """One check of the preflight that a preview can foresee. None: no such bound."""

    check: str
    unit: str
    least_warn: float | None
    most_warn: float | None
    least_block: float | None
    most_block: float | None
    always: bool = False  # blocks in every profile, and in short runs as well

    def status(self, value: float) -> Status:
        if _outside(value, self.least_block, self.most_block):
            return "block"
        return "warn" if _outside(value, self.least_warn, self.most_warn) else "pass"

    def text(self) -> str:
        """`warns unless 0.25 to 4; blocks unless <= 16`."""
        ranges = (
            ("warns", self.least_warn, self.most_warn),
            ("blocks", self.least_block, self.most_block),
        )
        shown = percent_text if self.unit == "of documents" else number_text
        return "; ".join(
            f"{word} unless {text}"
            for word, least, most in ranges
            if (text := _range_text(least, most, shown))
        )


# fmt: off
BOUNDS: tuple[Bound, ...] = (
    #     check                       unit                warns below, above     blocks below, above
    Bound("documents",                "documents",        100, None,             1, None, True),
    Bound("duplicate_documents",      "of documents",     None, 0.03,            None, 0.10),
    Bound("near_duplicate_documents", "of documents",     None, 0.05,            None, 0.15),
    Bound("held_out_tokens",          "tokens",           1_000_000, None,       100_000, None),
    Bound("tokenizer_fit",            "bytes per token",  3.0, None,             1.5, None),
    Bound("corpus_model_fit",         "epochs",           None, EPOCHS_WARN,     None, EPOCHS_BLOCK),
    Bound("base_exposure",            "epochs",           EPOCHS_LEAST, EPOCHS_WARN, None, EPOCHS_BLOCK),
)
# fmt: on
SMALL_VOCABULARY = 4096  # below it tokenizer_fit does not warn


def fit_scale(
    sources: Sequence[SourcePreview],
    loaded: Sequence[LoadedSource],
    duplicates: Duplicates,
    scale: Scale,
) -> ScaleFit:
    """Planned tokens against the training tokens there are, and what follows."""
    config = scale.config
    planned = config.base.steps * step_tokens(config.base, config.model)
    parameters = parameter_count(config.model, config.tokenizer.vocab_size)
    target = round(parameters * config.gate.target_tokens_per_parameter)
    text_bytes = sum(source.text_bytes * source.weight for source in sources)
    held_out = (
        min(config.data.held_out_share, config.data.held_out_bytes / text_bytes)
        if text_bytes
        else 0.0
    )
    there = _distinct_tokens(sources, duplicates)
    train = scaled(there, 1 - held_out)
    epochs = inverse(planned, train)
    measured = {
        "documents": exactly(sum(source.documents for source in sources)),
        "duplicate_documents": _share(duplicates.exact_share, duplicates),
        "near_duplicate_documents": _share(duplicates.near_share, duplicates),
        "held_out_tokens": scaled(there, held_out),
        "tokenizer_fit": _bytes_per_token(sources),
        "corpus_model_fit": inverse(target, train),
        "base_exposure": epochs,
    }
    bounds = [
        each._replace(least_warn=None) if _lenient(each, config.tokenizer.vocab_size) else each
        for each in BOUNDS
    ]
    # As the preflight: only a long run of a release profile is blocked, but for what makes any run
    # meaningless.
    blocks = config.gate.profile != "research" and is_long_run(config)
    forecasts = [_forecast(bound, measured[bound.check], blocks) for bound in bounds]
    status = _worst(
        [
            forecast.status
            for forecast in forecasts
            if forecast.check in ("corpus_model_fit", "base_exposure")
        ]
    )
    advice = _advice(sources, loaded, planned, target, train)
    return ScaleFit(
        scale=scale.name,
        profile=config.gate.profile,
        parameters=parameters,
        planned_tokens=planned,
        target_tokens=target,
        train_tokens=train,
        epochs=epochs,
        unread_share=max(0.0, 1 - epochs.value) if epochs else None,
        verdict=_verdict(sources, loaded, planned, target, train, status),
        status=status,
        advice=advice,
        forecasts=forecasts,
    )


def exactly(value: float) -> Interval:
    return Interval(value=value, low=value, high=value)


def scaled(interval: Interval | None, factor: float) -> Interval | None:
    if interval is None:
        return None
    return Interval(
        value=interval.value * factor, low=interval.low * factor, high=interval.high * factor
    )


def inverse(above: float, interval: Interval | None) -> Interval | None:
    """`above` over the interval; None where that could be zero."""
    if interval is None or interval.low <= 0:
        return None
    return Interval(
        value=above / interval.value, low=above / interval.high, high=above / interval.low
    )


def added(intervals: Sequence[Interval]) -> Interval:
    """The sum, with the half-widths added as those of independent errors."""
    low = math.sqrt(sum((each.value - each.low) ** 2 for each in intervals))
    high = math.sqrt(sum((each.high - each.value) ** 2 for each in intervals))
    value = sum(each.value for each in intervals)
    return Interval(value=value, low=value - low, high=value + high)


def _distinct_tokens(sources: Sequence[SourcePreview], duplicates: Duplicates) -> Interval | None:
    """Tokens of all sources without what exact duplicates take, as far as those are known; None
    where one is unmeasured.
    """
    known = [source.tokens for source in sources if source.tokens is not None]
    if len(known) < len(sources) or not known:
        return None
    dropped = duplicates.exact_share if duplicates.complete and duplicates.exact_share else 0.0
    return scaled(added(known), 1 - dropped)


def _bytes_per_token(sources: Sequence[SourcePreview]) -> Interval | None:
    """Of the whole pack: its bytes over its tokens without those that open documents."""
    rates = [(source.text_bytes * source.weight, source.bytes_per_token) for source in sources]
    tokens = [inverse(text_bytes, rate) for text_bytes, rate in rates if text_bytes]
    known = [each for each in tokens if each is not None]
    return (
        inverse(sum(text_bytes for text_bytes, _ in rates), added(known))
        if known and len(known) == len(tokens)
        else None
    )


def _share(share: float | None, duplicates: Duplicates) -> Interval | None:
    """A share of all documents; a sample cannot foresee it, unless it is over a bound already."""
    if share is None:
        return None
    return exactly(share) if duplicates.complete else Interval(value=share, low=share, high=1.0)


def _lenient(bound: Bound, vocab_size: int) -> bool:
    return bound.check == "tokenizer_fit" and vocab_size < SMALL_VOCABULARY


def _forecast(bound: Bound, measured: Interval | None, blocks: bool) -> Forecast:
    sampled = (
        bound.check in ("duplicate_documents", "near_duplicate_documents")
        and measured
        and measured.high > measured.low
    )
    if measured is None or (sampled and bound.status(measured.low) == "pass"):
        status: Status = "unmeasured"
    else:
        ends = (measured.value,) if sampled else (measured.low, measured.value, measured.high)
        status = _worst([bound.status(end) for end in ends])
    if status == "block" and not (blocks or bound.always):
        status = "warn"
    return Forecast(
        check=bound.check, status=status, measured=measured, unit=bound.unit, bound=bound.text()
    )


def _worst(statuses: Sequence[Status]) -> Status:
    return "unmeasured" if "unmeasured" in statuses else max(statuses, key=SEVERITY.index)


def _outside(value: float, least: float | None, most: float | None) -> bool:
    return (least is not None and value < least) or (most is not None and value > most)


def number_text(number: float) -> str:
    return f"{number:,.0f}" if number >= 1_000 else f"{number:g}"


def percent_text(share: float) -> str:
    return f"{100 * share:g}%"


def _range_text(least: float | None, most: float | None, shown: Callable[[float], str]) -> str:
    if least is not None and most is not None:
        return f"{shown(least)} to {shown(most)}"
    return (
        f">= {shown(least)}"
        if least is not None
        else f"<= {shown(most)}"
        if most is not None
        else ""
    )


def _verdict(
    sources: Sequence[SourcePreview],
    loaded: Sequence[LoadedSource],
    planned: int,
    target: int,
    train: Interval | None,
    status: Status,
) -> str:
    """One sentence: enough, too small or too large, and what to change."""
    epochs = inverse(planned, train)
    if train is None or epochs is None:
        return "unmeasured: the sample holds too little text"
    if epochs.value < EPOCHS_LEAST:
        return (
            f"too large: {1 - epochs.value:.0%} of the text would never be read; preflight will"
            " warn"
        )
    unread = max(0.0, 1 - epochs.value)
    enough = f"; {unread:.0%} of the text would never be read" if unread >= 0.005 else ""
    if max(planned, target) / train.low <= EPOCHS_WARN:
        return f"enough{enough}"
    growing = _growing(sources, loaded)
    rows = _missing_documents(sources[growing], planned, target, train)
    label = sources[growing].label
    remedy = f"about {rows:,} more documents like {label}'s make it {EPOCHS_WARN:.0f} epochs"
    if _is_used_up(loaded[growing]):
        remedy += f"; {label} was imported whole, so they must come from another dataset"
    will = f"preflight will {status}"
    if epochs.high <= EPOCHS_WARN:
        return (
            f"enough for the plan{enough}; but {target / train.value:.3g} epochs to the target"
            f" tokens: {will}; {remedy}"
        )
    return (
        f"{'too small' if max(planned, target) / train.low > EPOCHS_BLOCK else 'small'}: {will};"
        f" {remedy}"
    )


def _growing(sources: Sequence[SourcePreview], loaded: Sequence[LoadedSource]) -> int:
    """The source to import more of: the largest whose dataset had more rows to give, else the
    largest.
    """
    open_ones = [
        n
        for n, source in enumerate(loaded)
        if _report(source) is not None and not _is_used_up(source)
    ]
    candidates = open_ones or range(len(sources))
    return max(candidates, key=lambda number: _token_count(sources[number]))


def _is_used_up(source: LoadedSource) -> bool:
    """Whether an import took every row that its dataset has."""
    report = _report(source)
    return report is not None and report.rows_seen < report.max_rows


def _token_count(source: SourcePreview) -> float:
    return source.tokens.value if source.tokens else 0.0


def _missing_documents(source: SourcePreview, planned: int, target: int, train: Interval) -> int:
    a_document = _token_count(source) / source.documents if source.documents else 0.0
    return (
        round_up((max(planned, target) / EPOCHS_WARN - train.low) / a_document) if a_document else 0
    )


def _advice(
    sources: Sequence[SourcePreview],
    loaded: Sequence[LoadedSource],
    planned: int,
    target: int,
    train: Interval | None,
) -> list[ImportAdvice]:
    """For a pack that is too small: more rows of one source.

    For one that is too large: fewer of each, so that the mix stays.
    """
    epochs = inverse(planned, train)
    if train is None or epochs is None:
        return []
    if max(planned, target) / train.low > EPOCHS_WARN:
        number = _growing(sources, loaded)
        return _advised(
            sources[number],
            loaded[number],
            more=_missing_documents(sources[number], planned, target, train),
        )
    if epochs.value < EPOCHS_LEAST:
        pairs = zip(sources, loaded, strict=True)
        return [
            one for source, place in pairs for one in _advised(source, place, factor=epochs.high)
        ]
    return []


def _advised(
    source: SourcePreview, loaded: LoadedSource, *, more: int = 0, factor: float = 1.0
) -> list[ImportAdvice]:
    """The import with rows for `more` documents, or with `factor` of its rows. Nothing for a source
    that no import made, or of which there is no more."""
    report = _report(loaded)
    if report is None or not report.rows_written or (more and _is_used_up(loaded)):
        return []
    a_document = report.rows_seen / report.rows_written
    rows = round_up((report.rows_seen + more * a_document) * factor)
    return [
        ImportAdvice(
            source=source.label,
            rows_now=report.rows_seen,
            max_rows=rows,
            command=_command(loaded, report, rows),
        )
    ]


def round_up(number: float) -> int:
    """To two digits that count, upwards: 812,345 becomes 820,000."""
    if number <= 10:
        return max(1, math.ceil(number))
    step = 10 ** (math.floor(math.log10(number)) - 1)
    return math.ceil(number / step - 1e-9) * step


def _command(source: LoadedSource, report: ImportReport, max_rows: int) -> str:
    """The import again, at the same places and revision, with another number of rows."""
    report_path = source.report_path()
    assert report_path is not None
    out = Path(os.path.normpath(report_path.parent / report.out_path))
    flags: list[tuple[str, str | None]] = [
        ("--dataset", _dataset(report, report_path)),
        ("--config", report.config_name),
        ("--split", report.split),
        ("--text-column", report.text_column),
        ("--revision", report.revision if report.kind == "hub" else None),
        ("--out", str(out)),
        ("--documents-dir", str(source.path)),
        ("--report", os.path.normpath(report_path)),
        ("--max-rows", str(max_rows)),
        ("--min-chars", str(report.min_chars)),
        ("--document-shard-rows", str(report.document_shard_rows)),
        ("--sample", report.sample if report.sample != "spread" else None),
        ("--seed", str(report.seed) if report.seed != 42 else None),
    ]
    given = [f"{flag} {shlex.quote(value)}" for flag, value in flags if value is not None]
    return " ".join(["picochat data hf-import", *given, "--force"])


def _dataset(report: ImportReport, report_path: Path) -> str:
    """The dataset as the command names it: of local files their place, which only the import's
    observation states.
    """
    observed = report_path.with_name(f"{report_path.stem}.observed.json")
    if report.kind == "hub" or not observed.is_file():
        return report.dataset
    return str(read_json(observed, "import observation").get("dataset", report.dataset))


def _report(source: LoadedSource) -> ImportReport | None:
    path = source.report_path()
    return read_record(ImportReport, path, "import report") if path else None
