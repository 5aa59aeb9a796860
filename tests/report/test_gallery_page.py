"""The page of a gallery: every figure is the fact that it names in gallery.json, only rates of the
same rows stand together, and hostile text stays text.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

import pytest

from picochat.core.records import digest_bytes, to_jsonable
from picochat.evals.intervals import rate
from picochat.present.printable import excerpt, printable_line
from picochat.report.gallery_page import (
    Gallery,
    GalleryCheck,
    GalleryModel,
    GalleryRow,
    gallery_page,
    page_order,
)
from tests.report.test_sections import (
    CHROMIUM,
    HOSTILE_TEXTS,
    MEASURE,
    Page,
    browsed_title,
    check_numbers,
    fact_at,
)

ROWS, OTHER_ROWS = digest_bytes(b"rows"), digest_bytes(b"other rows")


def make_row(name: str = "mine", passed: int = 70, **changes: object) -> GalleryRow:
    """A bundle that verifies. changes: of its model."""
    values: dict[str, object] = {
        "about": "notes at tiny",
        "scale": "tiny",
        "verdict": "blocked",
        "profile": "skill_release",
        "eval_rows": ROWS,
        "rates": {"math": rate(passed - 30, 80), "own/rows": rate(30, 40)},
        "all_rows": rate(passed, 120),
        "base_bits_per_byte": 1.3674,
        "ngram_bits_per_byte": 1.6171,
        "of_ngram": 1.3674 / 1.6171,
        "parameters": 3_278_592,
        "tokens": 14_700_000,
        "hours": 1.05,
        "usd": 2.75,
        "machine": "1 x NVIDIA H100 80GB HBM3",
        **changes,
    }
    return GalleryRow(
        name=name,
        sha256=digest_bytes(name.encode()),
        made_by="0.1.0 at " + "0" * 40,
        evidence_digest=digest_bytes(b"evidence of " + name.encode()),
        checks=(GalleryCheck(name="facts from files", compared=17, note=None),),
        asked="not asked again",
        model=GalleryModel.model_validate(values),
        report="there/report.html",
    )


def make_failed(
    what: str = "math: states 1, the replies give 0", name: str = "forged"
) -> GalleryRow:
    return GalleryRow(
        name=name,
        sha256=None,
        made_by="0.0.9",
        other_version=f"it states that picochat 0.0.9 made it {what}",
        differences=20,
        first_differences=(what,),
    )


def make_gallery(*rows: GalleryRow, title: str = "Models") -> Gallery:
    return Gallery(
        schema_version=1,
        title=title,
        verified_on="2026-12-01",
        verified_by="0.1.0",
        rows=[rows[number] for number in page_order(rows)],
    )


def test_every_figure_is_the_fact_that_it_names() -> None:
    gallery = make_gallery(make_row(), make_row("bare", hours=None, usd=None), make_failed())
    page, documents = Page(gallery_page(gallery)), {"gallery": to_jsonable(gallery)}
    check_numbers(page, documents, more_than=40)
    for figure in page.figures:
        if figure.value is None:
            assert figure.text == str(fact_at(figure.path, documents)), figure


def test_only_rates_of_the_same_rows_stand_in_one_table() -> None:
    mine, theirs = make_row("mine"), make_row("theirs", passed=100)
    other = make_row("elsewhere", passed=109, eval_rows=OTHER_ROWS)
    together = gallery_page(make_gallery(mine, theirs))
    assert together.count("<table") == 1 and "do not compare" not in together
    apart = gallery_page(make_gallery(mine, other, theirs))
    assert apart.count("<table") == 2 and apart.count("do not compare") == 2
    sections = apart.split("<section")[1:]
    assert [*map(names_in, sections)] == [["elsewhere"], ["theirs", "mine"]]
    assert ROWS in sections[1] and OTHER_ROWS in sections[0]


def names_in(html: str) -> list[str]:
    return re.findall(r'/name">([^<]*)</span></a>', html)


def test_rows_are_ordered_by_verdict_profile_and_rate_and_what_fails_stands_last() -> None:
    rows = [
        make_failed(),
        make_row("low", passed=40),
        make_row("high", passed=90),
        make_row("unfinished", verdict="unfinished", eval_rows=None, all_rows=None, rates={}),
        make_row("research", verdict="approved", profile="research", passed=50),
        make_row("strict", verdict="approved", passed=40),
        make_row("base", verdict="warn", eval_rows=None, all_rows=None, rates={}),
    ]
    ordered = ["strict", "research", "high", "low", "base", "unfinished", "forged"]
    assert [row.name for row in make_gallery(*rows).rows] == ordered
    assert [row.name for row in make_gallery(*reversed(rows)).rows] == ordered
    base = make_row("base", verdict="approved", eval_rows=None, all_rows=None, rates={})
    assert [row.name for row in make_gallery(make_failed(), make_row(), base).rows] == [
        "base",
        "mine",
        "forged",
    ]


def test_what_does_not_verify_shows_no_figure_but_its_differences() -> None:
    page = Page(gallery_page(make_gallery(make_failed())))
    paths = {figure.path.rpartition("/")[2] for figure in page.figures}
    assert paths == {"title", "verified_on", "verified_by", "name", "differences", "0"} | {
        "other_version"
    }
    assert "and 19 more" in " ".join(page.outside.split())


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_hostile_text_stays_text_and_is_bounded(text: str) -> None:
    skill = printable_line(excerpt(text))  # as release/gallery.py names it
    odd = make_row(text, about=text, scale=text, machine=text, rates={skill: rate(1, 2)})
    asked = odd.model_copy(update={"asked": text, "made_by": text})
    html = gallery_page(make_gallery(asked, make_failed(text, text)))
    page = Page(html)
    assert not set(page.tags) & {"script", "img", "iframe", "link", "object", "base"}
    assert page.tags.count("style") == 1
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ufeff]", html
    )
    assert all(
        not name.startswith("on") and name not in ("src", "style", "action")
        for _, name, _ in page.attributes
    )
    links = {value for _, name, value in page.attributes if name == "href"}
    assert links == {"gallery.json", odd.report}
    assert len(html) < len(gallery_page(make_gallery(make_row(), make_failed()))) + 30_000


def test_the_keyboard_reaches_what_scrolls_and_every_table_has_its_names() -> None:
    html = gallery_page(make_gallery(make_row(), make_failed()))
    boxes = re.findall(
        r'<div class="wide" role="region" tabindex="0" aria-labelledby="([\w-]+)"', html
    )
    assert len(boxes) == html.count('class="wide"') == html.count("<table") == 2
    assert all(f'<h2 id="{name}">' in html for name in boxes)
    assert html.count("<caption") == html.count("<table")
    assert html.count("<th") - html.count("<thead") == html.count("<th scope=")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_nothing_overflows_a_phone_or_a_screen(tmp_path: Path) -> None:
    long = "n" * 300
    gallery = make_gallery(
        make_row(long, machine=long), make_row("mine"), make_failed(long, long), title=long
    )
    frames = (
        f'<iframe srcdoc="{escape(gallery_page(gallery))}"'
        f' style="border:0;width:{width}px;height:900px"></iframe>'
        for width in (390, 800, 1280)
    )
    outer = tmp_path / "outer.html"
    outer.write_text(f"<title>not measured</title>{''.join(frames)}{MEASURE}")
    assert browsed_title(outer, tmp_path) == "measured 390: 390  | 800: 800  | 1280: 1280 ."
