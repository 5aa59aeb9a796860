"""The preview for a terminal: one screen of plain lines, at most some 110 characters wide where
labels and texts allow.
"""

from __future__ import annotations

from picochat.data.preview.record import Forecast, Preview, ScaleFit, SourcePreview
from picochat.present.labels import STATUSES
from picochat.present.printable import one_line
from picochat.present.values import byte_quantity, estimate, percent, quantity

SHOWN_DOCUMENTS = 2
SHOWN_CHARACTERS = 140
SHOWN_LANGUAGES = 4
SHOWN_LINES = 2
LINE_CHARACTERS = 80


def render_preview(preview: Preview) -> str:
    """Verdict last, where it stays on the screen."""
    lines = [
        (
            f"pack {preview.name}: {preview.documents:,} documents,"
            f" {byte_quantity(preview.text_bytes)} of text; {preview.basis}"
        ),
        "",
    ]
    for source in preview.sources:
        lines += _source_lines(source)
    found = preview.duplicates
    lines += [
        (
            f"duplicates   exact {percent(found.exact_share)}, near {percent(found.near_share)} of"
            f" {found.basis}"
        ),
        *(
            f"             {pair.source} repeats {pair.of}: {pair.exact:,} exact, {pair.near:,}"
            " near"
            for pair in found.pairs
        ),
        f"SFT rows     {preview.sft.state}",
        f"eval rows    {preview.eval.state}",
        f"tokens       {preview.tokens_basis}",
        "",
        *_fit_lines(preview.fit),
    ]
    return "\n".join(lines) + "\n"


def _source_lines(source: SourcePreview) -> list[str]:
    about = "" if source.exact else "about "
    lengths = ", ".join(f"{name} {quantity(value)}" for name, value in source.percentiles.items())
    scripts = ", ".join(f"{name} {percent(share)}" for name, share in source.scripts.items())
    lines = [
        f"{source.label}   {source.origin}; licence {source.licence or 'not stated'}",
        (
            f"  documents  {about}{source.documents:,}, {about}{byte_quantity(source.text_bytes)}"
            f" in {source.files:,} files, weight {source.weight:g}; looked at"
            f" {source.looked_at_documents:,}, {byte_quantity(source.looked_at_bytes)}"
        ),
        f"  length     mean {quantity(source.mean_characters)} characters; {lengths}",
        f"  letters    {percent(source.ascii_letter_share)} ASCII; {scripts or 'none'}",
    ]
    if source.languages:
        lines.append(f"  languages  {_languages_text(source)}")
    if source.tokens:
        lines.append(
            f"  tokens     {estimate(source.tokens)} at"
            f" {estimate(source.bytes_per_token)} bytes per token"
        )
    for title, counts in (
        ("unusable", source.unusable_rows),
        ("skipped", source.skipped_at_import),
    ):
        if counts:
            lines.append(
                f"  {title:<10} "
                + ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
            )
    for line in source.repeated_lines[:SHOWN_LINES]:
        lines.append(
            f"  line       in {percent(line.share)} of documents: {one_line(line.line, LINE_CHARACTERS)}"
        )
    return [
        *lines,
        *(
            f"  | {one_line(shown.text, SHOWN_CHARACTERS)}"
            for shown in source.shown[:SHOWN_DOCUMENTS]
        ),
        "",
    ]


def _languages_text(source: SourcePreview) -> str:
    assert source.languages is not None
    shares = [
        f"{name} {percent(share)}"
        for name, share in list(source.languages.shares.items())[:SHOWN_LANGUAGES]
    ]
    rest = (("too short to tell", source.languages.too_short), ("unsure", source.languages.unsure))
    return ", ".join([*shares, *(f"{name} {percent(share)}" for name, share in rest if share)])


def _fit_lines(fit: ScaleFit) -> list[str]:
    lines = [
        (
            f"{fit.scale}   {quantity(fit.parameters)} parameters, target"
            f" {quantity(fit.target_tokens)} tokens"
        ),
        f"  plan       {quantity(fit.planned_tokens)} planned tokens over"
        f" {estimate(fit.train_tokens)} for training"
        + (f" = {estimate(fit.epochs)} epochs" if fit.epochs else ""),
        f"  preflight  {', '.join(_forecast_text(forecast) for forecast in fit.forecasts)}",
        f"  verdict    {fit.verdict}",
    ]
    return [*lines, *(f"  {advice.source:<10} {advice.command}" for advice in fit.advice)]


def _forecast_text(forecast: Forecast) -> str:
    return f"{forecast.check} {STATUSES[forecast.status].verb}"
