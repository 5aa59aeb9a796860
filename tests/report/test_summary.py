import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from picochat.core.journal import read_journal
from picochat.core.records import read_json, to_jsonable, write_json
from picochat.present.values import rate
from picochat.report.sections import html_page, markdown_page
from picochat.report.summary import SAMPLED_REPLIES, stage_speed
from picochat.run.folder import RunDir
from picochat.skills.skill_table import SKILLS
from tests.builders import (
    make_config,
    make_rows_facts,
    make_scores_facts,
    make_trivial_facts,
    make_trivial_score,
)
from tests.run_builder import claims_of, make_run, observed_of, rendered_of

NOTHING: dict[str, list[dict[str, Any]]] = {"base": [], "sft": []}

TITLE = "fineweb-edu-dedup, cosmopedia-v2 at h100-100m"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return make_run(tmp_path_factory.mktemp("runs") / "run")


def numbers_in(value: object) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers_in(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers_in(item)]
    return [value] if isinstance(value, float) else []


def test_the_verdict_comes_first(run: RunDir) -> None:
    pages = rendered_of(run)
    assert pages["summary.md"].decode().splitlines()[0] == f"# {TITLE}: approved"
    html = pages["report.html"].decode()
    assert html.index(f"</span> {TITLE}: approved</h1>") < html.index("<h2")
    assert json.loads(pages["summary.json"])["verdict"]["status"] == "approved"


def test_a_blocked_run_says_so_first_and_names_rule_value_bound_and_remedy(tmp_path: Path) -> None:
    blocked = make_run(tmp_path / "run", facts={"rows": make_rows_facts(shared_items=2)})
    pages = rendered_of(blocked)
    text = pages["summary.md"].decode()
    assert text.startswith(f"# {TITLE}: blocked\n\nThe release gate blocked this model")
    assert "\n1. do what preflight.md says of these checks" in text
    assert (
        "**preflight** (block): checks of this run's preflight that block: 1 checks, must be = 0"
        " (eval_independence)" in text
    )
    assert 'class="verdict blocked"' in pages["report.html"].decode()


def test_the_same_run_gives_the_same_bytes(run: RunDir) -> None:
    assert rendered_of(run) == rendered_of(run)
    for name, data in rendered_of(run).items():
        assert (run.place("summary") / name).read_bytes() == data


def test_equal_work_claims_the_same_whatever_clock_and_machine_said(
    tmp_path: Path, run: RunDir
) -> None:
    other = make_run(tmp_path / "elsewhere")
    write_json(other.machine, {**read_json(other.machine), "cpu": "another processor"})
    (other.place("base") / "metrics.jsonl").write_text("")
    assert claims_of(other) == claims_of(run)
    assert observed_of(other) != observed_of(run)
    assert run.artifact("summary").digest == other.artifact("summary").digest


def test_claims_state_no_clock_no_machine_and_no_path(run: RunDir) -> None:
    text = json.dumps(claims_of(run))
    for word in ("processor", "tokens_per_second", "hours", str(run.root), "H100 80GB"):
        assert word not in text


def test_each_score_of_the_page_is_the_facts_score(run: RunDir) -> None:
    scores = claims_of(run)["scores"]
    page = rendered_of(run)["summary.md"].decode()
    for skill, score in scores["skills"].items():
        clean = score["clean"]
        assert clean["count"] > 0
        expected = (
            f"| {skill} | {clean['fraction']:.3f} ({clean['passed']} of {clean['count']}; 95%"
            f" {clean['low']:.3f} to {clean['high']:.3f}) |"
        )
        assert expected in page
    assert f"5-gram model of 50M tokens {scores['ngram_bits_per_byte']:.4f}" in page


def test_the_best_trivial_answer_stands_beside_each_skill(run: RunDir) -> None:
    pages = rendered_of(run)
    trivial = make_trivial_facts(identity=[make_trivial_score("identity", 40)])
    for facts in (make_trivial_facts(), trivial):
        claimed = {
            **claims_of(run),
            "trivial": {k: to_jsonable(v[0]) for k, v in facts.skills.items()},
        }
        page = markdown_page(claimed, observed_of(run))
        for scores in facts.skills.values():
            assert f"| {rate(scores[0].all)} by constant line |" in page
    assert b'data-fact="claims/trivial/identity/all/fraction"' in pages["report.html"]


def test_a_changed_fact_changes_every_page(tmp_path: Path, run: RunDir) -> None:
    stated = make_scores_facts(
        scored_checkpoint=run.artifact("sft").digest, ngram_bits_per_byte=1.61
    )
    other = make_run(tmp_path / "run", facts={"scores": stated})
    before, after = rendered_of(run), rendered_of(other)
    for name in ("summary.json", "summary.md", "report.html", "loss.svg"):
        assert before[name] != after[name], name


def test_unmeasured_facts_are_never_shown_as_numbers(tmp_path: Path) -> None:
    stated = make_scores_facts(ngram_bits_per_byte=None, base_bits_per_byte=None)
    run = make_run(tmp_path / "run", facts={"scores": stated})
    page = rendered_of(run)["summary.md"].decode()
    assert (
        "bits per byte: base model not measured, after SFT 1.0800, 5-gram model of 50M tokens not"
        " measured" in page
    )


@pytest.mark.parametrize("until", ["corpus", "shards", "preflight", "base", "scores"])
def test_an_unfinished_run_is_summed_up_as_unfinished(tmp_path: Path, until: str) -> None:
    run = make_run(tmp_path / "run", until=until)
    pages = rendered_of(run)
    assert pages["summary.md"].decode().splitlines()[0] == f"# {TITLE}: unfinished"
    assert json.loads(pages["summary.json"])["verdict"]["findings"] == []


class Strict(HTMLParser):
    """Counts tags, and refuses what would run or fetch something."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.forbidden: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        leads_away = [
            name for name, value in attrs if name == "href" and not (value or "").startswith("#")
        ]
        if tag in ("script", "link", "img", "iframe", "object") or any(
            n.startswith("on") or n == "src" for n, _ in attrs
        ):
            leads_away.append(tag)
        if leads_away:
            self.forbidden.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_neither_runs_nor_fetches_anything(run: RunDir) -> None:
    parser = Strict()
    html = rendered_of(run)["report.html"].decode()
    parser.feed(html)
    assert parser.open == []
    assert parser.forbidden == []
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", html)


def test_what_a_model_wrote_is_shown_and_not_interpreted(run: RunDir) -> None:
    assert "<script>alert(1)</script>" in json.dumps(claims_of(run)["replies"])
    pages = rendered_of(run)
    assert b"<script>" not in pages["report.html"]
    assert b"&lt;script&gt;alert(1)" in pages["report.html"]
    assert b"<script>" not in pages["summary.md"]
    assert b"&lt;script>alert(1)&lt;/script> \\| \\[no](x) |" in pages["summary.md"]


def test_replies_are_sampled_from_every_skill_failing_first(run: RunDir) -> None:
    replies = claims_of(run)["replies"]
    skills = {skill.name for skill in SKILLS if "release_skills" in skill.weights}
    assert {reply["skill"] for reply in replies} == skills
    assert (SAMPLED_REPLIES - 1) * len(skills) <= len(replies) <= SAMPLED_REPLIES * len(skills)
    for skill in ("math", "spelling"):
        assert [reply["passed"] for reply in replies if reply["skill"] == skill] == [
            False,
            False,
            True,
            True,
        ]
    assert all(bool(reply["passed"]) == (reply["reason"] == "passed") for reply in replies)


def test_charts_are_svg_with_the_baseline_in(run: RunDir) -> None:
    pages = rendered_of(run)
    loss = pages["loss.svg"].decode()
    ElementTree.fromstring(loss)
    ElementTree.fromstring(pages["gate.svg"].decode())
    assert "5-gram model of 50M tokens 1.700" in loss
    assert "held-out text" in loss
    assert pages["gate.svg"].decode().count("<circle") == len(claims_of(run)["verdict"]["findings"])


def test_time_is_tokens_over_measured_speed() -> None:
    rows = [
        {"tokens": 100, "tokens_per_second": 10.0, "mfu": 0.2},
        {"tokens": 400, "tokens_per_second": 100.0, "mfu": 0.4},
    ]
    speed = stage_speed(rows)
    assert speed
    assert (speed.hours, speed.tokens_per_second, speed.mfu) == pytest.approx(
        (13 / 3600, 400 / 13, 0.35)
    )
    assert stage_speed([]) is None
    assert stage_speed([{"step": 1, "tokens": 5, "loss": 3.0}]) is None


def test_cost_needs_a_price(tmp_path: Path) -> None:
    priced = make_run(
        tmp_path / "priced", until="sft", config=make_config(gate={"gpu_hour_usd": 3.0})
    )
    seen = observed_of(priced)
    assert seen["usd"] == pytest.approx(3.0 * seen["hours"])
    assert observed_of(make_run(tmp_path / "free", until="sft"))["usd"] is None


def test_time_is_the_clock_of_each_stage_and_at_least_its_steps(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", until="sft")
    steps = stage_speed(read_journal(run.place("base") / "metrics.jsonl"))
    assert steps
    rows = [
        {"stage": "tokenizer", "seconds": 36.0},
        {"stage": "base", "seconds": 1.0},
        {"stage": "sft", "seconds": 7200.0},
    ]
    run.timings.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spent = {row["stage"]: row["hours"] for row in observed_of(run)["hours_of"]}
    assert spent == {"tokenizer": 0.01, "base": steps.hours, "sft": 2.0}
    assert observed_of(run)["hours"] == pytest.approx(sum(spent.values()))


def test_pages_stay_as_they_were_when_a_later_command_changes_the_runs_records(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path / "run")
    write_json(run.machine, {**read_json(run.machine), "cpu": "another processor"})
    run.timings.write_text(json.dumps({"stage": "gate", "seconds": 5.0}) + "\n")
    again = rendered_of(run, read_json(run.place("summary") / "observed.json"))
    for name, data in again.items():
        assert (run.place("summary") / name).read_bytes() == data


def test_pages_come_from_the_claims_that_they_are_given(run: RunDir) -> None:
    claimed, seen = claims_of(run), observed_of(run)
    forged = copy.deepcopy(claimed)
    forged["verdict"]["status"] = "blocked"
    assert markdown_page(forged, seen).startswith(f"# {TITLE}: blocked")
    assert f"{TITLE}: blocked" in html_page(forged, seen, NOTHING)
    assert numbers_in(claimed)
