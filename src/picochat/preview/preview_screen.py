"""The preview for a terminal: plain lines, most of them under 110 characters."""

from __future__ import annotations

from picochat.present.labels import STATUSES, WORST_FIRST
from picochat.present.printable import one_line
from picochat.present.values import byte_quantity, estimate, percent, quantity
from picochat.preview.preview_record import Preview, ScaleFit, SourcePreview

SHOWN_DOCUMENTS = 2
LINE_CHARACTERS = 80
SHOWN_CHARACTERS = 140
SHOWN_LANGUAGES = 4
SHOWN_LINES = 2


def render_preview(preview: Preview) -> str:
    """The whole text. The verdict comes last, so that it stays visible when the text scrolls."""
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
            f"duplicates   exact {percent(found.exact_fraction)},"
            f" near {percent(found.near_fraction)} of {found.basis}"
        ),
        *(
            f"             {pair.source} repeats {pair.of}: {pair.exact:,} exact, {pair.near:,}"
            " near"
            for pair in found.pairs
        ),
        f"SFT rows     {preview.sft.state}",
        *(f"             {detail}" for detail in preview.sft.details),
        f"eval rows    {preview.eval.state}",
        *(f"             {detail}" for detail in preview.eval.details),
        f"tokens       {preview.tokens_basis}",
        "",
        *_fit_lines(preview.fit),
    ]
    return "\n".join(lines) + "\n"


def _source_lines(source: SourcePreview) -> list[str]:
    about = "" if source.exact else "about "
    lengths = ", ".join(f"{name} {quantity(value)}" for name, value in source.percentiles.items())
    scripts = ", ".join(f"{name} {percent(fraction)}" for name, fraction in source.scripts.items())
    lines = [
        f"{source.label}   {source.origin}; licence {source.licence or 'not stated'}",
        (
            f"  documents  {about}{source.documents:,}, {about}{byte_quantity(source.text_bytes)}"
            f" in {source.files:,} files, weight {source.weight:g}; looked at"
            f" {source.looked_at_documents:,}, {byte_quantity(source.looked_at_bytes)}"
        ),
        f"  length     mean {quantity(source.mean_characters)} characters; {lengths}",
        f"  letters    {percent(source.ascii_letter_fraction)} ASCII; {scripts or 'none'}",
    ]
    if source.languages:
        found = source.languages
        fractions = list(found.fractions.items())[:SHOWN_LANGUAGES]
        fractions += [("too short to tell", found.too_short), ("unsure", found.unsure)]
        named = ", ".join(f"{name} {percent(fraction)}" for name, fraction in fractions if fraction)
        lines.append(f"  languages  {named}")
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
    lines += [f"  left out   {line}" for line in source.left_out()]
    for line in source.repeated_lines[:SHOWN_LINES]:
        lines.append(
            f"  line       in {percent(line.fraction)} of documents:"
            f" {one_line(line.line, LINE_CHARACTERS)}"
        )
    return [
        *lines,
        *(
            f"  | {one_line(shown.text, SHOWN_CHARACTERS)}"
            for shown in source.shown[:SHOWN_DOCUMENTS]
        ),
        "",
    ]


def _fit_lines(fit: ScaleFit) -> list[str]:
    tokens = f"{quantity(fit.planned_tokens)} planned tokens over {estimate(fit.train_tokens)}"
    exercises = (
        f", {quantity(fit.exercise_tokens)} of them exercises," if fit.exercise_tokens else ""
    )
    epochs = f" = {estimate(fit.epochs)} epochs" if fit.epochs else ""
    checks: dict[str, list[str]] = {}
    for forecast in sorted(fit.forecasts, key=lambda each: WORST_FIRST.index(each.status)):
        word, better = STATUSES[forecast.status].verb, STATUSES[forecast.better].verb
        text = word if forecast.status == forecast.better else f"{word} or {better}"
        checks.setdefault(text, []).append(forecast.check)
    preflight = [f"{text}: {', '.join(names)}" for text, names in checks.items()]
    return [
        f"{fit.scale}   {quantity(fit.parameters)} parameters, target"
        f" {quantity(fit.target_tokens)} tokens",
        f"  plan       {tokens} for training{exercises}{epochs}",
        *(f"  {'' if n else 'preflight':<10} {line}" for n, line in enumerate(preflight)),
        f"  verdict    {fit.verdict}",
        *(f"  {advice.source:<10} {advice.command}" for advice in fit.advice),
    ]
