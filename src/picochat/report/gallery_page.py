"""The page of `picochat gallery`: models by the eval rows that they were asked, each with what was
verified.

`Gallery` is gallery.json; index.html is rendered from it and from nothing else, as report.html is
from its facts: each figure names its place in gallery.json. The page has no script and fetches
nothing. Its texts come from bundles and names of files, so they were made printable and bounded,
and are escaped. Verifies nothing: that is release/gallery.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, get_args

from picochat.config import GateConfig
from picochat.core.records import Record, to_jsonable
from picochat.facts import Rate
from picochat.present.labels import VERDICTS
from picochat.present.templates import render
from picochat.report.sections import TEMPLATES, Facts, place

GALLERY_SCHEMA_VERSION = 1
VERDICT_ORDER = tuple(VERDICTS)
PROFILES = get_args(GateConfig.model_fields["profile"].annotation)[::-1]  # the strictest first
VERDICT_STYLES = {"approved": "pass", "warn": "warn", "blocked": "block"}


class GalleryCheck(Record):
    """One kind of check: how many things it compared, and what it says of them."""

    name: str
    compared: int
    note: str | None


class GalleryModel(Record):
    """What the files of a bundle that verifies give, and what its clock and machine said.

    eval_rows: digest of the rows that were asked. rates: of clean eval rows, by skill; own rows
    together. all_rows: their sum. of_ngram: bits per byte of the base model over those of the
    5-gram model, on the same text. hours, usd and machine are the maker's word.
    """

    about: str
    scale: str
    verdict: Literal["approved", "warn", "blocked", "unfinished"]
    profile: str
    eval_rows: str | None
    rates: dict[str, Rate]
    all_rows: Rate | None
    base_bits_per_byte: float | None
    ngram_bits_per_byte: float | None
    of_ngram: float | None
    parameters: int | None
    tokens: int | None
    hours: float | None
    usd: float | None
    machine: str | None


class GalleryRow(Record):
    """One bundle. `model` is None where it does not verify: what it claims is then not shown.

    error: why it cannot be read. differences: how many; `first_differences` are some of them.
    other_version: that another version made it. asked: what came of asking the weights again, or
    that it was not done. report, bundle: paths from the page.
    """

    name: str
    sha256: str | None
    error: str | None = None
    made_by: str | None = None
    evidence_digest: str | None = None
    checks: tuple[GalleryCheck, ...] = ()
    differences: int = 0
    first_differences: tuple[str, ...] = ()
    other_version: str | None = None
    asked: str | None = None
    model: GalleryModel | None = None
    report: str | None = None
    bundle: str | None = None

    @property
    def answer(self) -> str:
        """Whether it verifies, in a few words."""
        if self.error is not None:
            return f"cannot be read: {self.error}"
        if self.model is None:
            return f"does not verify: {self.differences} differences"
        return f"verifies; {self.model.verdict} (profile {self.model.profile})"


class Gallery(Record):
    """gallery.json. verified_on: the day, in UTC. verified_by: the version of picochat."""

    schema_version: int
    title: str
    verified_on: str
    verified_by: str
    rows: list[GalleryRow]


@dataclass(frozen=True)
class Group:
    """Rows that were asked the same questions, by their position. `rates`: the columns."""

    eval_rows: str | None
    numbers: list[int]
    rates: list[str]


def page_order(rows: Sequence[GalleryRow]) -> list[int]:
    """Positions of the rows in the order of the page.

    Models that were asked the same rows stand together, the best group first: by verdict, by
    profile, by the rate of all rows. What does not verify stands last.
    """
    groups = [(row.model is None, (row.model and row.model.eval_rows) or "") for row in rows]
    ranks = [_rank(row) for row in rows]
    best = {
        group: min(r for g, r in zip(groups, ranks, strict=True) if g == group) for group in groups
    }
    return sorted(range(len(rows)), key=lambda at: (best[groups[at]], groups[at], ranks[at]))


def _rank(row: GalleryRow) -> tuple[int, int, float, str, str]:
    model = row.model
    if model is None:
        return (len(VERDICT_ORDER), 0, 0.0, row.name, row.sha256 or "")
    rate = (model.all_rows.fraction if model.all_rows else None) or 0.0
    verdict, profile = VERDICT_ORDER.index(model.verdict), PROFILES.index(model.profile)
    return (verdict, profile, -rate, row.name, row.sha256 or row.evidence_digest or "")


def gallery_page(gallery: Gallery) -> str:
    """index.html. The same gallery gives the same bytes."""
    facts = Facts({"gallery": to_jsonable(gallery)})
    failed = [number for number, row in enumerate(gallery.rows) if row.model is None]
    return render(
        TEMPLATES / "gallery.html.jinja",
        gallery=gallery,
        fact=facts,
        place=place,
        groups=_groups(gallery.rows),
        failed=failed,
        verdicts=VERDICTS,
        styles=VERDICT_STYLES,
    )


def _groups(rows: list[GalleryRow]) -> list[Group]:
    """The groups of the rows that verify, in the order of the page."""
    groups: list[Group] = []
    models = [(number, row.model) for number, row in enumerate(rows) if row.model is not None]
    for asked, members in groupby(models, key=lambda item: item[1].eval_rows):
        found = list(members)
        rates = dict.fromkeys(name for _, model in found for name in model.rates)
        groups.append(Group(asked, [number for number, _ in found], list(rates)))
    return groups
