"""The pages and charts of a summary, rendered from its claims and observations. No reading of files, no deciding.

The templates stand beside this file. Text that a model or a corpus wrote is escaped: it is shown, never interpreted.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from picochat.core.charts import Bar, Line, VerdictRow, bar_chart, line_chart, thin, verdict_table
from picochat.core.progress import byte_quantity, duration, quantity
from picochat.gate.render import cell, counts_text, measured_text
from picochat.rundir import FindingRecord

TEMPLATES = Path(__file__).parent
SHOWN_CHARACTERS = 400
SENTENCES = {
    "approved": "The release gate approved this model: every rule of its profile passes.",
    "warn": "The release gate found nothing that blocks, but not every rule passes.",
    "blocked": "The release gate blocked this model: do not claim what the blocking rules speak of.",
    "unfinished": "This run has no verdict: the release gate was not reached.",
}


def markdown_page(claimed: dict[str, Any], seen: dict[str, Any]) -> str:
    return _environment(html=False).get_template("summary.md.jinja").render(_context(claimed, seen))


def html_page(claimed: dict[str, Any], seen: dict[str, Any], curves: dict[str, list[dict[str, Any]]]) -> str:
    """One self-contained page: no script, no font, nothing fetched."""
    charts = {
        "loss": Markup(loss_chart(claimed, curves["base"])),
        "sft_loss": Markup(sft_loss_chart(curves["sft"])),
        "skills": Markup(skills_chart(claimed)),
    }
    return _environment(html=True).get_template("report.html.jinja").render(_context(claimed, seen), charts=charts)


def loss_chart(claimed: dict[str, Any], curve: list[dict[str, Any]]) -> str:
    """Base training in bits per byte: batch losses at the pack's tokens per byte, held-out text as measured, the 5-gram line."""
    shards, scores = claimed["data"]["shards"], claimed["scores"]
    lines: list[Line] = []
    if shards and shards["train_text_bytes"]:
        bits = shards["train_tokens"] / shards["train_text_bytes"] / math.log(2)
        batches = [(float(row["tokens"]), row["loss"] * bits) for row in curve if row.get("loss") is not None]
        lines.append(Line("training batches", thin(batches)))
    held_out = [(float(row["tokens"]), row["held_out_bits_per_byte"]) for row in claimed["held_out_curve"]]
    lines.append(Line("held-out text", held_out, dots=True))
    ngram = scores["ngram_bits_per_byte"] if scores else None
    references = [(f"5-gram model {ngram:.3f}", ngram)] if ngram is not None else []
    return line_chart("Base training", lines, "tokens trained on", "bits per byte", references)


def sft_loss_chart(curve: list[dict[str, Any]]) -> str:
    points = [(float(row["step"]), row["loss"]) for row in curve if row.get("loss") is not None]
    return line_chart("Fine-tuning", [Line("training loss", thin(points))], "steps", "nats per target token")


def skills_chart(claimed: dict[str, Any]) -> str:
    """Clean pass rates with 95% intervals; ticks for the base model before SFT and for chance."""
    bars: list[Bar] = []
    for skill in claimed["skills"]:
        score = claimed["scores"]["skills"][skill]
        clean, base = score["clean"], score["base"]["share"]
        text = f"{clean['passed']} of {clean['count']}"
        bars.append(Bar(skill, clean["share"], clean["low"], clean["high"], text, (base, score["chance"])))
    return bar_chart("Skills: clean pass rate, 95% interval", bars, ["base model", "chance"])


def gate_chart(claimed: dict[str, Any]) -> str:
    verdict = claimed["verdict"]
    findings = [FindingRecord.model_validate(finding) for finding in verdict["findings"]]
    rows = [VerdictRow(f.status, f.name, measured_text(f), f.bound) for f in findings]
    summary = f"profile {claimed['profile']}: {counts_text(findings)}"
    return verdict_table(f"Release gate: {verdict['status']}", rows, summary)


def rate_text(rate: dict[str, Any] | None) -> str:
    """`0.586 (41 of 70, 95% 0.470 to 0.695)`."""
    if not rate or rate["share"] is None:
        return "not measured"
    interval = f", 95% {rate['low']:.3f} to {rate['high']:.3f}" if rate["low"] is not None else ""
    return f"{rate['share']:.3f} ({rate['passed']} of {rate['count']}{interval})"


def number_text(number: float | None, digits: int = 4) -> str:
    return "not measured" if number is None else f"{number:.{digits}f}"


def quantity_text(number: float | None) -> str:
    return "not measured" if number is None else quantity(number)


def hours_text(hours: float | None) -> str:
    return "not measured" if hours is None else duration(hours * 3600)


def shortened(text: object) -> str:
    """Text for one table cell: the first characters, and how many there were."""
    whole = "" if text is None else str(text)
    return whole if len(whole) <= SHOWN_CHARACTERS else f"{whole[:SHOWN_CHARACTERS]}... ({len(whole)} characters)"


@lru_cache
def _environment(*, html: bool) -> Environment:
    """Templates and filters; kept, because compiling a template takes longer than everything that verification does else."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        cell=lambda text: cell(str(text)),
        rate=rate_text,
        number=number_text,
        quantity=quantity_text,
        bytes=byte_quantity,
        hours=hours_text,
        shortened=shortened,
    )
    return environment


def _context(claimed: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
    findings = [FindingRecord.model_validate(finding) for finding in claimed["verdict"]["findings"]]
    return {
        "claims": claimed,
        "seen": seen,
        "sentence": SENTENCES[claimed["verdict"]["status"]],
        "findings": [{**f.model_dump(), "measured_text": measured_text(f)} for f in findings],
        "failing": [f for f in findings if f.status != "pass"],
    }
