"""report.html: every figure is the fact it names, verdicts agree everywhere, and hostile text stays
text.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from picochat.core.records import read_json
from picochat.facts import GateReport, PreflightReport
from picochat.gate.render import gate_lines, preflight_lines
from picochat.honesty.contamination_page import BLIND_SPOTS
from picochat.present.printable import EXCERPT_CHARACTERS
from picochat.report.sections import (
    SECTIONS,
    TEMPLATES,
    html_page,
    markdown_page,
    with_flags,
    worst_order,
)
from picochat.report.summary import SAMPLED_REPLIES
from picochat.run.folder import RunDir
from tests.builders import (
    make_config,
    make_honesty_facts,
    make_rows_facts,
    make_scores_facts,
    make_train_facts,
)
from tests.run_builder import HOSTILE, claims_of, make_run, observed_of, rendered_of

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
SIZES = {
    "": 1,
    "%": 0.01,
    "k": 1e3,
    "M": 1e6,
    "B": 1e9,
    "T": 1e12,
    " B": 1,
    " kB": 1e3,
    " MB": 1e6,
    " GB": 1e9,
    " TB": 1e12,
    " USD": 1,
}
STATIC = {"95", "5", "256"}  # of "95% interval", "5-gram" and "SHA-256", which are words
TREE = dict[str, Any]


class Figure(NamedTuple):
    path: str
    value: str | None
    text: str


class Page(HTMLParser):
    """The marked figures of a page, its text outside of them, and its rows of findings."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.figures: list[Figure] = []
        self.outside = ""
        self.findings: list[tuple[str, str, str, str]] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self._open: list[dict[str, str | None]] = []
        self._cells: list[str] | None = None
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag in self.VOID:
            return
        if tag == "tr" and "data-finding" in dict(attrs):
            self._cells = []
        if tag in ("td", "th") and self._cells is not None:
            self._cells.append("")
        self._open.append({"tag": tag, **dict(attrs)})
        if "data-fact" in dict(attrs):
            self.figures.append(
                Figure(dict(attrs)["data-fact"] or "", dict(attrs).get("value"), "")
            )

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        assert self._open.pop()["tag"] == tag
        if tag == "tr" and self._cells is not None:
            status, name, measured, bound = (cell.strip() for cell in self._cells[:4])
            self.findings.append((status.split()[-1], name, measured, bound))
            self._cells = None

    def handle_data(self, data: str) -> None:
        if self._cells:
            self._cells[-1] += data
        if any("data-fact" in element for element in self._open):
            last = self.figures[-1]
            self.figures[-1] = last._replace(text=last.text + data)
        elif not any(element["tag"] in ("style", "svg", "title") for element in self._open):
            self.outside += data + " "


def page_of(run: RunDir) -> Page:
    return Page(rendered_of(run)["report.html"].decode())


def fact_at(path: str, documents: TREE) -> Any:
    found: Any = documents
    for part in path.split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        found = found[int(name)] if isinstance(found, list) else found[name]
    return found


def check_numbers(page: Page, documents: TREE, more_than: int) -> None:
    """Every number on the page is the fact that it names; there are more than so many."""
    numbers = [figure for figure in page.figures if figure.value is not None]
    assert len(numbers) > more_than
    for figure in numbers:
        fact = fact_at(figure.path, documents)
        if fact is None:
            assert (figure.value, figure.text) == ("", "not measured"), figure
            continue
        assert figure.value == repr(fact), figure
        number, half_unit = read_number(figure.text)
        assert abs(number - fact) <= half_unit + 1e-12, figure


def read_number(text: str) -> tuple[float, float]:
    """(the number that a text shows, half a unit of its last digit): `58.6%`, `1.05B`, `4.28 GB`,
    `1h 02m`.
    """
    if match := re.fullmatch(r"(?:(\d+)h )?(?:(\d+)m)?(?: ?(\d+)s)?", text):
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return (
            hours + minutes / 60 + seconds / 3600,
            1.001 / 60 if hours else 0.501 / 3600,
        )  # whole minutes that have passed
    match = NUMBER.match(text)
    assert match, text
    digits, size = match.group().replace(",", ""), SIZES[text[match.end() :]]
    mantissa, _, exponent = digits.partition("e")
    decimals = len(mantissa.partition(".")[2])
    unit = 10.0**-decimals * 10.0 ** int(exponent or 0) * size
    if (
        "e" not in digits and size >= 1e3 and decimals == 0
    ):  # three digits that count: 819k, but also 1e+03k
        unit = max(unit, size)
    return float(digits) * size, 0.5 * unit * 1.001


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDir]:
    """An approved run; one that is blocked, with a price; one of research, in which rules warn and
    are unmeasured.
    """
    folder = tmp_path_factory.mktemp("runs")
    unmeasured = {"scores": make_scores_facts(ngram_bits_per_byte=None)}
    spiked = {**unmeasured, "base": make_train_facts("base", spikes=5)}
    priced = make_config(gate={"profile": "first_release", "gpu_hour_usd": 2.5})
    return {
        "approved": make_run(folder / "a"),
        "blocked": make_run(
            folder / "b",
            config=priced,
            facts={**unmeasured, "rows": make_rows_facts(shared_items=2)},
        ),
        "research": make_run(
            folder / "c", config=make_config(gate={"profile": "research"}), facts=spiked
        ),
    }


# ---- every figure is a fact ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["approved", "blocked", "research"])
def test_every_number_on_the_page_is_the_fact_that_it_names(
    runs: dict[str, RunDir], name: str
) -> None:
    run = runs[name]
    documents = {"claims": json.loads(rendered_of(run)["summary.json"]), "seen": observed_of(run)}
    check_numbers(page_of(run), documents, more_than=200)


@pytest.mark.parametrize("name", ["approved", "blocked", "research"])
def test_every_marked_text_is_the_fact_that_it_names(runs: dict[str, RunDir], name: str) -> None:
    documents = {"claims": claims_of(runs[name]), "seen": observed_of(runs[name])}
    texts = [figure for figure in page_of(runs[name]).figures if figure.value is None]
    assert len(texts) > 100
    for figure in texts:
        fact = str(fact_at(figure.path, documents))
        assert figure.text == fact or figure.text.startswith(
            fact[:EXCERPT_CHARACTERS].split("\n")[0]
        ), figure


@pytest.mark.parametrize("name", ["approved", "blocked", "research"])
def test_no_number_stands_on_the_page_unmarked(runs: dict[str, RunDir], name: str) -> None:
    outside = page_of(runs[name]).outside.replace("cosmopedia-v2 at h100-100m", "")
    for spot in BLIND_SPOTS:
        outside = outside.replace(spot, "")
    assert set(re.findall(r"\d+(?:\.\d+)?", outside)) <= STATIC


def test_the_facts_of_the_page_are_those_that_the_gate_read(runs: dict[str, RunDir]) -> None:
    for run in runs.values():
        claimed, seen = claims_of(run), observed_of(run)
        assert (
            claimed["verdict"]["findings"] == read_json(run.place("gate") / "gate.json")["findings"]
        )
        assert seen["preflight"] == read_json(run.place("preflight") / "preflight.json")
        assert claimed["scores"] == read_json(run.place("scores") / "report.json")
        for kind, key in (("corpus", "corpus"), ("rows", "rows"), ("shards", "shards")):
            assert claimed["data"][key] == run.artifact(kind).facts
        for stage in ("base", "sft"):
            assert claimed["training"][stage] == run.artifact(stage).facts


def test_bars_are_as_long_as_the_rates_that_they_show(runs: dict[str, RunDir]) -> None:
    html = rendered_of(runs["approved"])["report.html"].decode()
    chart = html[html.index("Skills: clean rows that pass") :].split("</svg>")[0]
    widths = [
        float(width) for width in re.findall(r'<rect class="pc-bar"[^>]*? width="([\d.]+)"', chart)
    ]
    axis = [float(x) for x in re.findall(r'<line class="pc-grid"[^>]*? x1="([\d.]+)"', chart)]
    scores = claims_of(runs["approved"])["scores"]["skills"]
    fractions = [
        scores[skill]["clean"]["fraction"] for skill in claims_of(runs["approved"])["skills"]
    ]
    assert [width / (axis[-1] - axis[0]) for width in widths] == pytest.approx(fractions, abs=1e-3)


# ---- verdicts agree ------------------------------------------------------------------------------


def rows_of_markdown(text: str, first: str) -> list[tuple[str, ...]]:
    """The cells of the table whose head begins with `first`."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(first)) + 2
    found: list[tuple[str, ...]] = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        found.append(
            tuple(
                cell.strip().strip("`").replace("\\", "") for cell in line.strip("|").split(" | ")
            )
        )
    return found


def rows_of_terminal(lines: list[str]) -> list[tuple[str, ...]]:
    words = {"pass": "pass", "WARN": "warn", "BLOCK": "block", "none": "unmeasured"}
    table = [re.split(r" {2,}", line) for line in lines]
    return [(words[row[0]], *row[1:]) for row in table if len(row) == 4 and row[0] in words]


@pytest.mark.parametrize("name", ["approved", "blocked", "research"])
def test_gate_verdicts_agree_in_terminal_json_markdown_summary_page_and_picture(
    runs: dict[str, RunDir], name: str
) -> None:
    run = runs[name]
    pages = {key: data.decode() for key, data in rendered_of(run).items()}
    stated = read_json(run.place("gate") / "gate.json")
    terminal = gate_lines(GateReport.model_validate(stated))
    rows = rows_of_terminal(terminal)
    in_json = [(f["status"], f["name"], f["bound"]) for f in stated["findings"]]
    assert [(status, rule, bound) for status, rule, _, bound in rows] == [
        in_json[n] for n in worst_order(stated["findings"])
    ]
    assert rows_of_markdown((run.place("gate") / "gate.md").read_text(), "| status | name") == rows
    assert rows_of_markdown(pages["summary.md"], "| status | rule") == rows
    assert Page(pages["report.html"]).findings[: len(rows)] == rows
    assert re.findall(r"<title>(\w+)</title></circle>", pages["gate.svg"]) == [
        row[0] for row in rows
    ]
    for text in (
        (run.place("gate") / "gate.md").read_text().splitlines()[0],
        terminal[0],
        pages["summary.md"].splitlines()[0],
    ):
        assert f": {stated['status']}" in text
    assert f'class="verdict {stated["status"]}"' in pages["report.html"]
    assert json.loads(pages["summary.json"])["verdict"]["status"] == stated["status"]


@pytest.mark.parametrize("name", ["approved", "blocked", "research"])
def test_preflight_verdicts_agree_in_terminal_json_markdown_and_page(
    runs: dict[str, RunDir], name: str
) -> None:
    run = runs[name]
    stated = read_json(run.place("preflight") / "preflight.json")
    rows = rows_of_terminal(preflight_lines(PreflightReport.model_validate(stated)))
    assert (
        rows_of_markdown((run.place("preflight") / "preflight.md").read_text(), "| status | name")
        == rows
    )
    assert page_of(run).findings[-len(rows) :] == rows
    assert len(rows) == len(stated["findings"])


def test_these_runs_have_every_status_so_that_the_tests_above_can_fail(
    runs: dict[str, RunDir],
) -> None:
    found = [
        finding["status"]
        for run in runs.values()
        for finding in claims_of(run)["verdict"]["findings"]
    ]
    assert set(found) == {"pass", "warn", "block", "unmeasured"}
    assert [claims_of(run)["verdict"]["status"] for run in runs.values()] == [
        "approved",
        "blocked",
        "warn",
    ]


def test_what_blocks_comes_first_and_each_remedy_once(runs: dict[str, RunDir]) -> None:
    html = rendered_of(runs["blocked"])["report.html"].decode()
    section = html[html.index('id="todo"') :].split("</section>")[0]
    statuses = re.findall(r'<span class="s s-(\w+)">', section)
    failing = [
        f for f in claims_of(runs["blocked"])["verdict"]["findings"] if f["status"] != "pass"
    ]
    assert len(statuses) == len(failing) > 1
    assert statuses[0] == "block"
    assert section.count('<p class="fix">') == len({finding["fix"] for finding in failing})


# ---- replies -------------------------------------------------------------------------------------


def test_replies_are_chosen_by_the_hash_of_their_ids_alone(runs: dict[str, RunDir]) -> None:
    import hashlib

    from picochat.evals.eval_records import EvaluatedRow
    from picochat.evals.scores import judge
    from picochat.skills.task_rows import EvalRow, read_published_rows

    run = runs["approved"]
    rows = {
        row.id: row for row in read_published_rows(run.artifact("rows").path("eval.jsonl"), EvalRow)
    }
    judged = [
        judge(rows[asked.id], asked)
        for asked in map(
            EvaluatedRow.model_validate_json,
            (run.place("scores") / "replies.jsonl").read_text().splitlines(),
        )
        if asked.set == "eval"
    ]
    shown = claims_of(run)["replies"]
    for skill in ("identity", "refusal", "choice", "math", "spelling"):
        for passed in (False, True):
            ids = [
                item.asked.id
                for item in judged
                if item.asked.skill == skill and item.passed == passed
            ]
            ids.sort(key=lambda row: hashlib.sha256(row.encode()).hexdigest())
            found = [
                row["id"] for row in shown if row["skill"] == skill and row["passed"] == passed
            ]
            assert found == ids[: SAMPLED_REPLIES // 2]


HOSTILE_TEXTS = (
    HOSTILE,
    (
        "</p></article></main><style>*{display:none}</style><script>document.title='taken"
        " over'</script>"
    ),
    "\u202eturned around\u202c \u2066\u200b\ufeff \x00\x07\x1b[31m\x9b31m \r\n\x85 tail",
    "x" * 100_000,
    "line\n" * 20_000,
    "Z" + "\u0301\u0489\u0e49" * 5_000,
    "{{ 7 * 7 }} {% raw %} &lt;b&gt; &#x3c;",
    "] (x) | ` | **x** | <|assistant|> |",
    "",
)


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_hostile_text_stays_text_and_is_bounded(runs: dict[str, RunDir], text: str) -> None:
    claimed, seen = claims_of(runs["approved"]), observed_of(runs["approved"])
    plain = html_page(claimed, seen, {"base": [], "sft": []})
    for row in claimed["replies"]:
        row.update(prompt=text, reply=text, base_reply=text, expected=text, id=text)
    claimed["contamination"]["hits"] = [
        {"row": text, "document": text, "offset": 12, "words": text}
    ]
    html, markdown = html_page(claimed, seen, {"base": [], "sft": []}), markdown_page(claimed, seen)
    page = Page(html)
    assert not set(page.tags) & {"script", "img", "iframe", "link", "object", "b id"}
    assert page.tags.count("style") == Page(plain).tags.count("style")
    assert all(
        not name.startswith("on") and name not in ("src", "style", "action")
        for _, name, _ in page.attributes
    )
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ufeff]", html + markdown
    )
    assert len(html) < len(plain) + (len(claimed["replies"]) * 5 + 3) * (
        EXCERPT_CHARACTERS * 8 + 200
    )
    assert "<script" not in markdown
    rows = [
        line
        for line in markdown.splitlines()
        if line.startswith("| ") and line.endswith((" passed |", " |"))
    ]
    assert all(len(line) < 6 * (EXCERPT_CHARACTERS * 8 + 200) for line in rows)


# ---- the page as such ----------------------------------------------------------------------------


def test_hits_are_shown_with_their_coordinates(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run",
        facts={"honesty": make_honesty_facts(contaminated_eval_rows=["eval-math-00001"])},
        until="gate",
    )
    hit = {
        "row": "eval-math-00001",
        "where": "corpus",
        "document": "web:77",
        "offset": 4711,
        "rule": "run",
        "words": "a b c",
    }
    (run.place("honesty") / "hits.jsonl").write_text(json.dumps(hit) + "\n")
    pages = {name: data.decode() for name, data in rendered_of(run).items()}
    for part in ("eval-math-00001", "web:77", "4711"):
        assert part in pages["summary.md"]
        assert part in [figure.text for figure in Page(pages["report.html"]).figures]
    assert "None was found" not in pages["report.html"]


def test_a_clean_scan_says_so_and_what_it_cannot_see(runs: dict[str, RunDir]) -> None:
    outside = page_of(runs["approved"]).outside
    assert "None was found" in outside
    assert "a paraphrase: the same question in other words" in outside


@pytest.mark.parametrize("until", ["corpus", "preflight", "base", "scores", "parity"])
def test_an_unfinished_run_has_a_page_of_what_there_is(tmp_path: Path, until: str) -> None:
    run = make_run(tmp_path / "run", until=until)
    html = rendered_of(run)["report.html"].decode()
    page = Page(html)
    assert "h100-100m: unfinished" in html
    assert ("replies" in re.findall(r'<section id="(\w+)"', html)) == (
        until in ("scores", "parity")
    )
    assert "None" not in page.outside.replace("None was found", "").replace("No machine record", "")


def test_every_section_has_a_template_and_every_link_a_target(runs: dict[str, RunDir]) -> None:
    assert all((TEMPLATES / f"{section.id}.html.jinja").exists() for section in SECTIONS)
    page = page_of(runs["blocked"])
    ids = {value for _, name, value in page.attributes if name == "id"}
    links = {value for tag, name, value in page.attributes if (tag, name) == ("a", "href")}
    assert len(links) > 8
    assert links <= {f"#{target}" for target in ids}


def test_headings_descend_tables_have_captions_and_pictures_names(runs: dict[str, RunDir]) -> None:
    page = page_of(runs["blocked"])
    levels = [int(tag[1]) for tag in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.tags.count("table") == page.tags.count("caption") > 5
    html = rendered_of(runs["blocked"])["report.html"].decode()
    assert (
        html.count("<svg")
        == html.count('role="img"')
        == len(re.findall(r"<svg[^>]*>\s*<title>[^<]+</title>", html))
        > 4
    )
    assert html.count("<th") - html.count("<thead") == len(
        re.findall(r'<th [^>]*scope="(?:col|row)"', html)
    )


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_has_the_contrast_of_wcag_aa_on_both_of_its_grounds(scheme: int) -> None:
    css = (TEMPLATES / "page.css").read_text()
    colours = dict(re.findall(r"--(\w+):(#\w+)", re.findall(r":root\{([^}]*)\}", css)[scheme]))
    for ink in ("ink", "mute", "pass", "warn", "block", "unmeasured", "accent"):
        for ground in ("bg", "card"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (
                ink,
                ground,
                contrast(colours[ink], colours[ground]),
            )
    assert math.isclose(contrast("#000", "#fff"), 21)


def test_status_is_never_told_by_colour_alone(runs: dict[str, RunDir]) -> None:
    html = rendered_of(runs["blocked"])["report.html"].decode()
    for word, inside in re.findall(r'<span class="s s-(\w+)">(.*?)</span>(?=[^<]*<)', html):
        assert inside, word
    assert html.count('class="s s-') == len(
        re.findall(
            r'class="s s-\w+"><span aria-hidden="true">.</span>'
            r" (?:pass|warn|block|unmeasured|failed|passed)",
            html,
        )
    )


MEASURE = """<script>
onload = () => {
  const found = [...document.querySelectorAll('iframe')].map(frame => {
    const page = frame.contentDocument, width = page.documentElement.clientWidth;
    const beyond = [...page.querySelectorAll('main *')].filter(
      e => !e.closest('.wide,pre,svg,.said span') && e.getBoundingClientRect().right > width + 1);
    const names = beyond.slice(0, 3).map(e => e.tagName + '.' + e.className);
    return width + ': ' + page.documentElement.scrollWidth + ' ' + names;
  });
  document.title = 'measured ' + found.join(' | ') + '.';
};
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_nothing_overflows_a_phone_or_a_screen(runs: dict[str, RunDir], tmp_path: Path) -> None:
    """A window cannot be as narrow as a phone, but a frame can, and media queries see its width.

    What a reply holds is cut off.
    """
    claimed, seen = claims_of(runs["blocked"]), observed_of(runs["blocked"])
    for row, text in zip(claimed["replies"], HOSTILE_TEXTS, strict=False):
        row.update(reply=text, prompt=text, base_reply=text, id="i" * 200)
    page = html_page(claimed, seen, {"base": [], "sft": []})
    frames = (
        f'<iframe srcdoc="{escape(page)}" style="border:0;width:{width}px;height:900px"></iframe>'
        for width in (390, 1280)
    )
    outer = tmp_path / "outer.html"
    outer.write_text(f"<title>not measured</title>{''.join(frames)}{MEASURE}")
    assert browsed_title(outer, tmp_path) == "measured 390: 390  | 1280: 1280 ."


def browsed_title(page: Path, folder: Path) -> str:
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
    ]
    flags += [
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=2000",
        "--dump-dom",
    ]
    done = subprocess.run(
        [CHROMIUM or "", *flags, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return re.findall("<title>([^<]*)</title>", done.stdout)[0]


def test_only_whole_words_of_a_remedy_are_set_as_options() -> None:
    marked = str(with_flags("--base-steps N; --external-eval NAME=PATH & more"))
    assert marked == (
        '<code class="flag">--base-steps N</code>; <code class="flag">--external-eval</code>'
        " NAME=PATH &amp; more"
    )
