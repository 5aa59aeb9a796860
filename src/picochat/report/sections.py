"""The pages of a summary: summary.md and report.html, rendered from claims and observations. No
reading of files, no deciding.

report.html is one file: no script, no font, nothing fetched, light or dark as the reader's system
is set, for screens, phones and paper. It is the rows of SECTIONS, each with a template in pages/ of
the same name; a row is left out where the run has nothing for it. Figures go through
`figures.Facts`; text that a model or a corpus wrote is shown, never interpreted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from picochat.core.plain_text import cell
from picochat.core.progress import byte_quantity, duration, quantity
from picochat.facts import FindingRecord
from picochat.gate.render import WORST_FIRST, measured_text
from picochat.honesty.contamination_page import BLIND_SPOTS
from picochat.report.curves import Rows, page_charts
from picochat.report.figures import NOT_MEASURED, Facts, place, rate_words, shortened

TEMPLATES = Path(__file__).parent / "pages"
SENTENCES = {
    "approved": "The release gate approved this model: every rule of its profile passes.",
    "warn": "The release gate found nothing that blocks, but not every rule passes.",
    "blocked": (
        "The release gate blocked this model: do not claim what the blocking rules speak of."
    ),
    "unfinished": "This run has no verdict: the release gate was not reached.",
}
OTHER_RATES = (
    ("sft_fit", "SFT rows answered, of those trained on"),
    ("sft_held_out_fit", "SFT rows answered, of those held out"),
    ("refusal", "unsafe or unanswerable prompts, refused"),
    ("over_refusal", "benign look-alikes, answered"),
    ("prompt_echo", "replies that echo the prompt"),
    ("unsupported_claims", "unanswerable prompts, answered as fact"),
    ("memorized", "training text continued word for word"),
)
Tree = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """One part of report.html.

    `shown`: whether the run has anything for it, from (claims, observations).
    """

    id: str
    title: str
    shown: Callable[[Tree, Tree], bool]


def _fails(claimed: Tree) -> bool:
    return any(finding["status"] != "pass" for finding in claimed["verdict"]["findings"])


SECTIONS: tuple[Section, ...] = (
    #       template         title                          shown where
    Section("todo",          "What to mend",                lambda claimed, seen: _fails(claimed)),
    Section("curves",        "Training",                    lambda claimed, seen: any(claimed["training"].values())),
    Section("skills",        "Skills",                      lambda claimed, seen: bool(claimed["scores"])),
    Section("external",      "External benchmarks",         lambda claimed, seen: bool(claimed["scores"] and claimed["scores"]["external"])),
    Section("replies",       "Replies, side by side",       lambda claimed, seen: bool(claimed["replies"])),
    Section("contamination", "Contamination",               lambda claimed, seen: bool(claimed["contamination"])),
    Section("data",          "Data",                        lambda claimed, seen: bool(claimed["data"]["corpus"])),
    Section("cost",          "Time and cost",               lambda claimed, seen: bool(seen["hours_of"])),
    Section("gate",          "Release gate",                lambda claimed, seen: bool(claimed["verdict"]["findings"])),
    Section("preflight",     "Preflight",                   lambda claimed, seen: bool(seen["preflight"])),
    Section("machine",       "Machine",                     lambda claimed, seen: True),
    Section("evidence",      "Digests, and how to verify",  lambda claimed, seen: True),
)  # fmt: skip


def markdown_page(claimed: Tree, seen: Tree) -> str:
    return _environment(html=False).get_template("summary.md.jinja").render(_context(claimed, seen))


def html_page(claimed: Tree, seen: Tree, curves: Mapping[str, Rows]) -> str:
    """The whole page. The same claims, observations and curves give the same bytes."""
    charts = {name: Markup(chart) for name, chart in page_charts(claimed, seen, curves).items()}
    sections = [section for section in SECTIONS if section.shown(claimed, seen)]
    context = _context(claimed, seen)
    return (
        _environment(html=True)
        .get_template("page.html.jinja")
        .render(context, charts=charts, sections=sections)
    )


def worst_order(findings: Sequence[Tree]) -> list[int]:
    """Positions of the findings: what blocks, then what was not measured, what warns and what
    passes.
    """
    return sorted(
        range(len(findings)), key=lambda number: WORST_FIRST.index(findings[number]["status"])
    )


def remedies(findings: Sequence[Tree]) -> list[tuple[int, list[int]]]:
    """What to do, the most pressing first: (position of a finding that names the remedy, positions
    of all that it mends).
    """
    found: dict[str | None, list[int]] = {}
    for number in worst_order(findings):
        if findings[number]["status"] != "pass":
            found.setdefault(findings[number]["fix"], []).append(number)
    return [(numbers[0], numbers) for numbers in found.values()]


def number_text(number: float | None, digits: int = 4) -> str:
    return NOT_MEASURED if number is None else f"{number:.{digits}f}"


def quantity_text(number: float | None) -> str:
    return NOT_MEASURED if number is None else quantity(number)


def hours_text(hours: float | None) -> str:
    return NOT_MEASURED if hours is None else duration(hours * 3600)


@lru_cache
def _environment(*, html: bool) -> Environment:
    """Templates and filters; kept, because compiling a template takes longer than everything that
    verification does else.
    """
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
        rate=rate_words,
        number=number_text,
        quantity=quantity_text,
        bytes=byte_quantity,
        hours=hours_text,
        shortened=shortened,
        measured=lambda finding: measured_text(FindingRecord.model_validate(finding)),
    )
    return environment


def _context(claimed: Tree, seen: Tree) -> Tree:
    findings = claimed["verdict"]["findings"]
    order = worst_order(findings)
    rules = {finding["name"]: number for number, finding in enumerate(findings)}
    return {
        "claims": claimed,
        "seen": seen,
        "fact": Facts({"claims": claimed, "seen": seen}),
        "place": place,
        "sentence": SENTENCES[claimed["verdict"]["status"]],
        "order": order,
        "remedies": remedies(findings),
        "rules": rules,
        "weakest": rules.get(f"skill_release_eval_{claimed['verdict']['weakest_skill']}"),
        "preflight_order": worst_order(seen["preflight"]["findings"]) if seen["preflight"] else [],
        "other_rates": OTHER_RATES,
        "blind_spots": BLIND_SPOTS,
    }
