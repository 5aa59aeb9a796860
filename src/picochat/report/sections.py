"""The pages of a summary: summary.md and report.html, rendered from claims and observations.

Reads no files and decides nothing. report.html is one file: no script, no font, nothing fetched,
light or dark as the reader's system is set, for screens, phones and paper. It is the rows of
SECTIONS, each with a template in pages/ of the same name; a row is left out where the run has
nothing for it.

report.html writes nothing that is measured or stated but through `Facts`: each figure carries the
place of its fact (`data-fact`, a path such as `claims/scores/skills/math/clean/fraction`) and its
exact value, so that anyone can read the page back against summary.json and observed.json. Text that
a model or a corpus wrote is shown, bounded, and never interpreted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from picochat.facts import FindingRecord
from picochat.gate.render import measured_text
from picochat.honesty.contamination_page import BLIND_SPOTS
from picochat.present.labels import OTHER_RATES, STAGES, STATUSES, VERDICTS, WORST_FIRST
from picochat.present.printable import excerpt, printable
from picochat.present.templates import render
from picochat.present.values import FORMS, NOT_MEASURED, counts_form
from picochat.report.curves import Rows, page_charts

TEMPLATES = Path(__file__).parent / "pages"
SHOWN_SOURCES = 3  # in the title
FLAG = re.compile(r"(--[a-z][a-z-]*(?: N\b)?)")
Tree = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """One part of report.html.

    `shown`: whether the run has anything for it, from (claims, observations).
    """

    id: str
    title: str
    shown: Callable[[Tree, Tree], bool]


def _fails(claimed: Tree, _: Tree) -> bool:
    return any(finding["status"] != "pass" for finding in claimed["verdict"]["findings"])


def _has_trained(claimed: Tree, _: Tree) -> bool:
    return any(claimed["training"].values())


def _has_benchmarks(claimed: Tree, _: Tree) -> bool:
    return bool(claimed["scores"] and claimed["scores"]["external"])


def _claims(*path: str) -> Callable[[Tree, Tree], bool]:
    """Whether the claims hold anything at this path of names."""

    def shown(claimed: Tree, _: Tree) -> bool:
        found: Any = claimed
        for name in path:
            found = found[name]
        return bool(found)

    return shown


def _always(*_: Tree) -> bool:
    return True


SECTIONS: tuple[Section, ...] = (
    # template, title, shown where
    Section("todo", "What to fix", _fails),
    Section("curves", "Training", _has_trained),
    Section("skills", "Skills", _claims("scores")),
    Section("external", "External benchmarks", _has_benchmarks),
    Section("replies", "Replies, side by side", _claims("replies")),
    Section("contamination", "Contamination", _claims("contamination")),
    Section("data", "Data", _claims("data", "corpus")),
    Section("cost", "Time and cost", lambda _, seen: bool(seen["hours_of"])),
    Section("gate", "Release gate", _claims("verdict", "findings")),
    Section("preflight", "Preflight", lambda _, seen: bool(seen["preflight"])),
    Section("machine", "Machine", _always),
    Section("evidence", "Digests, and how to verify", _always),
)


def markdown_page(claimed: Tree, seen: Tree) -> str:
    """summary.md."""
    return render(TEMPLATES / "summary.md.jinja", **_context(claimed, seen))


def html_page(claimed: Tree, seen: Tree, curves: Mapping[str, Rows]) -> str:
    """report.html. The same claims, observations and curves give the same bytes."""
    charts = {name: Markup(chart) for name, chart in page_charts(claimed, seen, curves).items()}
    sections = [section for section in SECTIONS if section.shown(claimed, seen)]
    context = _context(claimed, seen)
    return render(TEMPLATES / "page.html.jinja", **context, charts=charts, sections=sections)


def worst_order(findings: Sequence[Tree]) -> list[int]:
    """Positions of the findings, the worst first."""
    return sorted(
        range(len(findings)), key=lambda number: WORST_FIRST.index(findings[number]["status"])
    )


def title_of(claimed: Tree) -> str:
    """The run by its text and its scale: `notes at tiny`."""
    sources = (claimed["data"]["corpus"] or {}).get("sources", [])
    labels = [source["label"] for source in sources[:SHOWN_SOURCES]]
    text = ", ".join([*labels, *(["..."] if len(sources) > len(labels) else [])])
    return f"{text} at {claimed['scale']}" if text else claimed["scale"]


def remedies(findings: Sequence[Tree]) -> list[tuple[int, list[int]]]:
    """What to do, the most pressing first.

    Each is (position of a finding that names the remedy, positions of all that it fixes).
    """
    found: dict[str | None, list[int]] = {}
    for number in worst_order(findings):
        if findings[number]["status"] != "pass":
            found.setdefault(findings[number]["fix"], []).append(number)
    return [(numbers[0], numbers) for numbers in found.values()]


def _context(claimed: Tree, seen: Tree) -> Tree:
    findings = claimed["verdict"]["findings"]
    rules = {finding["name"]: number for number, finding in enumerate(findings)}
    return {
        "claims": claimed,
        "seen": seen,
        "fact": Facts({"claims": claimed, "seen": seen}),
        "place": place,
        "measured": lambda finding: measured_text(FindingRecord.model_validate(finding)),
        "statuses": STATUSES,
        "verdict_label": VERDICTS[claimed["verdict"]["status"]],
        "stage_labels": STAGES,
        "other_rates": OTHER_RATES,
        "order": worst_order(findings),
        "remedies": remedies(findings),
        "title": title_of(claimed),
        "rules": rules,
        "weakest": rules.get(f"skill_release_eval_{claimed['verdict']['weakest_skill']}"),
        "preflight_order": worst_order(seen["preflight"]["findings"]) if seen["preflight"] else [],
        "blind_spots": BLIND_SPOTS,
    }


class Facts:
    """The documents that a page is rendered from, by name.

    Called with a path and a form it gives the marked figure.
    """

    def __init__(self, documents: Mapping[str, Any]) -> None:
        self.documents = documents

    def __call__(self, path: str, form: str = "text") -> Markup:
        """The fact at `path` as HTML.

        form: a name in FORMS, `text` (bounded), `whole` (for short texts, uncut) or `fix` (the
        same, with its flags as code).
        """
        value = self.at(path)
        if form in FORMS:
            stated = "" if value is None else repr(value)
            return Markup('<data value="{}" data-fact="{}">{}</data>').format(
                stated, path, FORMS[form](value)
            )
        text = excerpt(value) if form == "text" else printable("" if value is None else str(value))
        if form == "fix":
            text = with_flags(text)
        return Markup('<span data-fact="{}">{}</span>').format(path, text)

    def rate(self, path: str) -> Markup:
        """The rate at `path` in its one form, each of its numbers marked."""
        found = self.at(path)
        if found is None:
            return escape(NOT_MEASURED)
        counts = counts_form(found["low"])
        return Markup(f'{{fraction}} <span class="of mute">({counts})</span>').format(
            fraction=self(f"{path}/fraction", "fraction"),
            passed=self(f"{path}/passed", "count"),
            count=self(f"{path}/count", "count"),
            low=self(f"{path}/low", "fraction"),
            high=self(f"{path}/high", "fraction"),
        )

    def at(self, path: str) -> Any:
        """The value at a path of names and positions.

        A name that holds a slash is written with ~1, a tilde as ~0.
        """
        found: Any = self.documents
        for part in path.split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            found = found[int(name)] if isinstance(found, list) else found[name]
        return found


def place(name: str) -> str:
    """A name as one part of a path."""
    return name.replace("~", "~0").replace("/", "~1")


def with_flags(text: str) -> Markup:
    """Flags of a command as code, so that a line is not broken at their hyphens."""
    flag = Markup('<code class="flag">{}</code>')
    return Markup("").join(
        flag.format(part) if FLAG.fullmatch(part) else escape(part) for part in FLAG.split(text)
    )
