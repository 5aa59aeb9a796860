"""The page of a comparison: the answer first, what it rests on, nothing that steers a terminal."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from picochat.evals.compared import ComparedModel, Side
from picochat.evals.comparison import Comparison, compare
from picochat.report.comparison_page import comparison_lines, comparison_picture
from tests.evals.test_comparison import (
    OTHER_LR,
    OTHER_SEED,
    better,
    half,
    make_documents,
    make_model,
    make_recipe,
    make_rows,
)


def compared(a: list[ComparedModel], b: list[ComparedModel]) -> Comparison:
    return compare(Side("runs/a", tuple(a)), Side("runs/b", tuple(b)))


def model(passed: list[bool], bits: float = 1.0, **parts: Any) -> ComparedModel:
    return make_model(rows=make_rows({"math": passed}), documents=make_documents(bits), **parts)


def lines(a: list[ComparedModel], b: list[ComparedModel]) -> list[str]:
    return comparison_lines(compared(a, b))


def test_the_answer_comes_first_and_says_what_one_run_cannot_tell() -> None:
    shown = lines([model(half())], [model(better(), 1.02, recipe=OTHER_LR)])
    assert shown[3] == (
        "3 of 3 measures differ by more than chance (Holm's correction over all 3 measures)"
    )
    assert shown[4:6] == [
        "    B is better: math",
        "    A is better: held-out text, base model; held-out text, chat model",
    ]
    assert "not their settings" in shown[6] and shown[7].endswith("picochat run tiny --seeds 3 ...")
    page = "\n".join(shown)
    assert "base.muon_lr  0.02  0.01" in page and "data: the same" in page
    row = next(line for line in shown if line.startswith("math "))
    assert "+0.171" in row and "< 0.001" in row and "larger than chance, B is better" in row
    assert " 0      30 " in row  # only A, only B


def test_what_only_a_seed_changes_is_no_difference_however_many_rows_it_changes() -> None:
    shown = lines([model(half())], [model(better(), recipe=OTHER_SEED)])
    assert shown[3].startswith("no difference: the settings and data are the same")
    assert shown[4].startswith("The two models differ in math: that is what a seed does")
    assert (
        "what differs: the training seed (42 and 43); the settings and data are the same" in shown
    )
    assert next(line for line in shown if line.startswith("math ")).endswith("as a seed does")
    again = lines([model(half())], [model(better())])
    assert "that is what a repetition does" in again[4]


def test_several_seeds_show_mean_and_spread_and_ask_for_no_more() -> None:
    a = [model(half(), name=f"seed-{n}") for n in (1, 2)]
    page = "\n".join(lines(a, [model(better(), recipe=OTHER_LR, name=f"s{n}") for n in (1, 2)]))
    assert "The seed counts as chance, beside the rows and documents." in page
    assert "--seeds" not in page and "only A" not in page
    assert "0.503 (0.000)" in page and "mean over runs" in page


def test_what_is_not_known_or_not_the_same_is_said() -> None:
    public = make_model("public", rows=make_rows({"math": half()}), recipe=None)
    shown = lines([model(half(180))], [public])
    assert "what differs: not known, because one side states no settings" in shown
    assert "not compared: held-out documents: B has none" in shown
    assert "compared: eval rows: 175 on both sides, 5 only of A" in shown
    versions = lines(
        [model(half())], [model(half(), recipe=make_recipe(picochat="9", machine="M"))]
    )
    assert {"    picochat of B: 9", "    machine of B: M"} <= set(versions)


def test_names_of_strangers_are_printable_on_the_page_and_in_the_picture() -> None:
    evil = "\x1b[2J<b>\u202e"
    rows = make_rows({"other": half()}, category=evil)
    a = make_model(rows=rows, recipe=make_recipe(settings={**make_recipe().settings, evil: 1}))
    found = compare(Side(evil, (a,)), Side("runs/b", (make_model(rows=rows, recipe=OTHER_LR),)))
    page, picture = "\n".join(comparison_lines(found)), comparison_picture(found)
    for text in (page, picture):
        assert "\x1b" not in text and "\u202e" not in text
    assert "<U+001B>" in page and "&lt;U+001B&gt;" in picture
    assert "<b>" not in picture


def test_the_picture_has_a_mark_for_each_measure_filled_where_it_differs() -> None:
    found = compared([model(half())], [model(better(), 1.0, recipe=OTHER_LR)])
    picture = ET.fromstring(comparison_picture(found))
    marks = [each.get("class", "") for each in picture.iter() if each.tag.endswith("circle")]
    assert [mark.split()[0] for mark in marks] == ["pc-bar", "pc-bg", "pc-bg"]
    assert comparison_picture(found) == comparison_picture(found)
