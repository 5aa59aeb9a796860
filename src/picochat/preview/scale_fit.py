"""Whether a pack is large enough for a scale: epochs, expected preflight, rows to import.

The preview's counts become the facts of a run, once for each end of the interval of the tokens, and
the gate's preflight decides on both. So checks and bounds are the gate's own. The preflight of the
run measures again, with the run's tokenizer and without duplicates, so near a bound it may decide
otherwise.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from picochat.config import RunConfig
from picochat.core.records import read_json, read_record
from picochat.data.importing.import_report import ImportReport
from picochat.data.pack import LoadedSource
from picochat.facts import (
    CorpusFacts,
    PlanRecord,
    PreflightReport,
    RowsFacts,
    RunFacts,
    ShardsFacts,
    SourceFacts,
    TokenizerFacts,
    TrivialFacts,
)
from picochat.gate.bounds import Bound
from picochat.gate.decide import BADNESS
from picochat.gate.preflight import CHECKS, decide_preflight
from picochat.preview.preview_record import (
    Duplicates,
    Forecast,
    ImportAdvice,
    Interval,
    ScaleFit,
    SourcePreview,
    Status,
)
from picochat.scales import Scale
from picochat.skills.exercises import EXERCISE_BYTES_PER_TOKEN, exercise_bytes

DUPLICATE_CHECKS = ("duplicate_documents", "near_duplicate_documents")
TOKEN_CHECKS = ("corpus_model_fit", "base_exposure")


def fit_scale(
    sources: Sequence[SourcePreview],
    loaded: Sequence[LoadedSource],
    duplicates: Duplicates,
    scale: Scale,
    rows: RowsFacts | None = None,
    trivial: TrivialFacts | None = None,
) -> ScaleFit:
    """Compare the planned tokens with the training tokens, forecast the preflight, give advice.

    rows: facts of the pack's SFT and eval rows; None if they were not read. trivial: what trivial
    answerers get right of them.
    """
    tokens = _pack_tokens(sources)
    ends = (tokens.value, tokens.low, tokens.high) if tokens else (None, None, None)
    facts = [
        replace(
            estimated_facts(sources, loaded, duplicates, rows, scale.config, end), trivial=trivial
        )
        for end in ends
    ]
    value, low, high = (decide_preflight(each) for each in facts)
    forecasts = _forecasts(value, low, high, sampled=not duplicates.complete)
    judged: list[Status] = [each.status for each in forecasts if each.check in TOKEN_CHECKS]
    status: Status = max(judged, key=BADNESS.index) if judged else "unmeasured"
    plan = value.plan
    train, epochs = (
        _interval(*(getattr(report.plan, name) for report in (value, low, high)))
        for name in ("train_tokens", "planned_epochs")
    )
    unread = max(0.0, 1 - epochs.value) if epochs else None
    verdict, advice = "unmeasured: the sample holds too little text", list[ImportAdvice]()
    exercises = facts[0].shards.exercise_tokens if facts[0].shards else 0
    if tokens is not None and train is not None and epochs is not None:
        verdict, advice = _conclude(sources, loaded, plan, tokens, train, epochs, status)
    return ScaleFit(
        scale=scale.name,
        profile=value.profile,
        parameters=plan.parameters,
        planned_tokens=plan.planned_tokens,
        target_tokens=plan.target_tokens,
        train_tokens=train,
        exercise_tokens=exercises,
        epochs=epochs,
        unread_fraction=unread,
        verdict=verdict,
        status=status,
        advice=advice,
        forecasts=forecasts,
    )


# ---- the facts of a run that the pack would give -------------------------------------------------


def estimated_facts(
    sources: Sequence[SourcePreview],
    loaded: Sequence[LoadedSource],
    duplicates: Duplicates,
    rows: RowsFacts | None,
    config: RunConfig,
    tokens: float | None,
) -> RunFacts:
    """The facts of a run on this pack if its sources have `tokens` tokens in total.

    tokens: with the weights; None if unknown, and then there are no shards. The facts of stages
    that a preview cannot predict are None.
    """
    # Exact duplicates are subtracted only if all documents were compared: a sample says nothing
    # about their number in the pack.
    kept = 1 - (duplicates.exact_fraction or 0.0) if duplicates.complete else 1.0
    read = round(sum(source.documents * max(1.0, source.weight) for source in sources))
    documents = sum(source.documents * source.weight for source in sources) * kept
    text_bytes = sum(source.text_bytes * source.weight for source in sources) * kept
    data = config.data
    held_out = min(data.held_out_fraction, data.held_out_bytes / text_bytes) if text_bytes else 0.0
    train_bytes = round(text_bytes * (1 - held_out))
    corpus = CorpusFacts(
        documents_read=read,
        documents=round(documents),
        train_documents=round(documents * (1 - held_out)),
        held_out_documents=round(documents * held_out),
        text_bytes=round(text_bytes),
        train_text_bytes=train_bytes,
        held_out_text_bytes=round(text_bytes * held_out),
        repeated_ids=0,
        exact_duplicates=round((duplicates.exact_fraction or 0.0) * read),
        near_duplicates=round((duplicates.near_fraction or 0.0) * documents),
        dropped={},
        duplicates=duplicates.pairs,
        held_out_fraction=held_out,
        sources=[_source_facts(*each) for each in zip(sources, loaded, strict=True)],
    )
    shards = None
    if tokens is not None:
        added_bytes = exercise_bytes(train_bytes, config.exercises.fraction)
        exercises = round(added_bytes / EXERCISE_BYTES_PER_TOKEN)
        shards = ShardsFacts(
            train_tokens=round(tokens * kept * (1 - held_out)) + exercises,
            held_out_tokens=round(tokens * kept * held_out),
            train_documents=corpus.train_documents,
            held_out_documents=corpus.held_out_documents,
            train_text_bytes=train_bytes + added_bytes,
            held_out_text_bytes=corpus.held_out_text_bytes,
            roundtrip_documents=0,  # nothing was encoded, so that check stays unmeasured
            roundtrip_failures=0,
            exercise_tokens=exercises,
        )
    size = config.tokenizer.vocab_size
    tokenizer = TokenizerFacts(vocab_size=size, merges=0)
    return RunFacts(config, corpus=corpus, rows=rows, tokenizer=tokenizer, shards=shards)


def _source_facts(source: SourcePreview, loaded: LoadedSource) -> SourceFacts:
    provenance = loaded.manifest.provenance if loaded.manifest else None
    return SourceFacts(
        label=source.label,
        kind="hub" if provenance and provenance.kind == "hub" else "files",
        documents=source.documents,
        text_bytes=source.text_bytes,
        pinned=True,  # a run records the digest of every file, and an import its revision
        licence=loaded.licence,
        import_report=loaded.report_path() is not None,
    )


def added(intervals: Sequence[Interval]) -> Interval:
    """The sum; half-widths are added in quadrature, as for independent errors."""
    low = math.sqrt(sum((each.value - each.low) ** 2 for each in intervals))
    high = math.sqrt(sum((each.high - each.value) ** 2 for each in intervals))
    value = sum(each.value for each in intervals)
    return Interval(value=value, low=value - low, high=value + high)


def _pack_tokens(sources: Sequence[SourcePreview]) -> Interval | None:
    """Tokens of all sources; None if one is unmeasured."""
    known = [source.tokens for source in sources if source.tokens is not None]
    return added(known) if known and len(known) == len(sources) else None


# ---- the expected preflight ----------------------------------------------------------------------


def _forecasts(
    value: PreflightReport, low: PreflightReport, high: PreflightReport, *, sampled: bool
) -> list[Forecast]:
    """A forecast for each check that has a number, in the order of the gate's table.

    sampled: duplicates were counted in a sample, so their fraction is only a lower bound. Such a
    check can warn or block, but never passes.
    """
    forecasts: list[Forecast] = []
    for findings in zip(value.findings, low.findings, high.findings, strict=True):
        measured = _interval(*(finding.measured for finding in findings))
        if measured is None:
            continue
        best, *_, worst = sorted(findings, key=lambda each: BADNESS.index(each.status))
        status, better = worst.status, best.status
        if sampled and worst.name in DUPLICATE_CHECKS:
            measured = measured.model_copy(update={"high": 1.0})
            if status == "pass":
                status = better = "unmeasured"
        forecasts.append(
            Forecast(
                check=worst.name,
                status=status,
                better=better,
                measured=measured,
                unit=worst.unit,
                bound=worst.bound,
            )
        )
    return forecasts


def _interval(value: float | None, *ends: float | None) -> Interval | None:
    """The value with its two ends in order; None if any of them is missing."""
    known = [end for end in ends if end is not None]
    if value is None or len(known) < len(ends):
        return None
    return Interval(value=value, low=min(known), high=max(known))


# ---- what to change ------------------------------------------------------------------------------


def exposure_bounds() -> tuple[float, float, float]:
    """Bounds of the check base_exposure in epochs: (warns below, warns above, blocks above)."""
    row = next(row for row in CHECKS if row.name == "base_exposure")
    warn, block = row.warn or Bound(), row.block or Bound()
    return warn.low or 0.0, warn.high or math.inf, block.high or math.inf


def _conclude(
    sources: Sequence[SourcePreview],
    loaded: Sequence[LoadedSource],
    plan: PlanRecord,
    tokens: Interval,
    train: Interval,
    epochs: Interval,
    status: Status,
) -> tuple[str, list[ImportAdvice]]:
    """(a verdict in one sentence, the imports that would change it).

    If the pack is too small, one source grows: the largest whose dataset has more rows. If it is
    too large, all imports shrink by the same factor, so that the mix stays. tokens: of the pack's
    text. train: of the training split and the exercises.
    """
    least, most, block = exposure_bounds()
    never = f"{max(0.0, 1 - epochs.value):.0%} of the text would never be read"
    paths = [source.report_path() for source in loaded]
    reports = [read_record(ImportReport, path, "import report") if path else None for path in paths]
    if epochs.value < least:
        imports = zip(sources, loaded, reports, strict=True)
        fewer = [advice for each in imports for advice in _advised(*each, 0, epochs.high)]
        return f"too large: {never}; preflight will {status}", fewer
    enough = f"; {never}" if 1 - epochs.value >= 0.005 else ""
    wanted = max(plan.planned_tokens, plan.target_tokens)
    if wanted / train.low <= most:
        return f"enough{enough}", []
    open_ones = [n for n, report in enumerate(reports) if report and not _is_used_up(report)]
    growing = max(open_ones or range(len(sources)), key=lambda number: _tokens_of(sources[number]))
    source, report = sources[growing], reports[growing]
    # More text also brings more exercises and more held-out text, assumed in today's proportion.
    missing = (wanted / most - train.low) * tokens.value / train.value
    rows = round_up(missing * source.documents / _tokens_of(source)) if _tokens_of(source) else 0
    remedy = f"about {rows:,} more documents like {source.label}'s make it {most:.0f} epochs"
    if report and _is_used_up(report):
        remedy += f"; {source.label} was imported whole, so they must come from another dataset"
    will = f"preflight will {status}; {remedy}"
    advice = _advised(source, loaded[growing], report, rows, 1.0)
    if epochs.high <= most:
        to_target = f"{plan.target_tokens / train.value:.3g} epochs to the target tokens"
        return f"enough for the plan{enough}; but {to_target}: {will}", advice
    return f"{'too small' if wanted / train.low > block else 'small'}: {will}", advice


def _tokens_of(source: SourcePreview) -> float:
    return source.tokens.value if source.tokens else 0.0


def _is_used_up(report: ImportReport) -> bool:
    """Whether the import took every row that its dataset has."""
    return report.rows_seen < report.max_rows


def _advised(
    source: SourcePreview,
    loaded: LoadedSource,
    report: ImportReport | None,
    more: int,
    factor: float,
) -> list[ImportAdvice]:
    """The import with rows for `more` documents, then times `factor`.

    Empty if the source was not imported, or if `more` are wanted and its dataset has no more rows.
    """
    if report is None or not report.rows_written or (more and _is_used_up(report)):
        return []
    rows = round_up(report.rows_seen * (1 + more / report.rows_written) * factor)
    return [
        ImportAdvice(
            source=source.label,
            rows_now=report.rows_seen,
            max_rows=rows,
            command=_import_command(loaded, report, rows),
        )
    ]


def round_up(number: float) -> int:
    """Round up to two significant digits: 812,345 becomes 820,000."""
    if number <= 10:
        return max(1, math.ceil(number))
    step = 10 ** (math.floor(math.log10(number)) - 1)
    return math.ceil(number / step - 1e-9) * step


def _import_command(source: LoadedSource, report: ImportReport, max_rows: int) -> str:
    """The same import, with the same paths and revision, for another number of rows."""
    report_path = source.report_path()
    assert report_path is not None
    dataset = report.dataset
    observed = report_path.with_name(f"{report_path.stem}.observed.json")
    if report.kind != "hub" and observed.is_file():
        # The path of local files is not in the report, because it would change its digest.
        dataset = str(read_json(observed, "import observation").get("dataset", dataset))
    flags: list[tuple[str, str | None]] = [
        ("--dataset", dataset),
        ("--config", report.config_name),
        ("--split", report.split),
        ("--text-column", report.text_column),
        ("--revision", report.revision if report.kind == "hub" else None),
        ("--out", str(Path(os.path.normpath(report_path.parent / report.out_path)))),
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
