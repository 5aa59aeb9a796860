from __future__ import annotations

import random

import pytest
from bench.harness.disguises import DISGUISES, Disguise, number_in_words

from picochat.config import HonestyConfig
from picochat.honesty.contamination_page import BLIND_SPOTS
from picochat.honesty.index import Index, build_index
from picochat.honesty.items import item_of_row, scan_item
from picochat.honesty.scan_texts import scan_batch
from picochat.skills.mixture import make_rows
from picochat.skills.task_rows import row_json

BENCHMARK = (  # written for this test, in the manner of public ones
    (
        "Sam leaves a metal spoon and a wooden spoon in a pot of boiling soup. After five minutes,"
        ' which handle isn\'t safe to touch, and why? A: "the metal one", because metal carries'
        " heat well B: the wooden one, since wood floats C: neither of the two"
    ),
    (
        "A farmer's well-kept field lies between a river and a road. If the river rises 3 metres in"
        " May, what will most likely happen to the crops that grow on the lowest 12% of the land?"
        " A) They'll dry out. B) They'll be flooded. C) Nothing changes."
    ),
    (
        "Passage: All members of the club who play chess also play bridge, but none of those who"
        " play bridge sing in the choir. Question: which of the following can't be true? A. Some"
        " chess players sing. B. Some singers don't play. C. All sing."
    ),
    (
        "Maria bought 14 apples at $2.50 a kilo & gave half of them to her brother's friends; how"
        " many of the apples did she keep, if she had eaten three on the way home before she gave"
        " any away? Options: 4 / 5 / 7 / 11"
    ),
)


@pytest.fixture(scope="module")
def planted_rows() -> tuple[Index, list[str]]:
    """160 eval rows of the five skills and the benchmark rows above."""
    _, evals = make_rows("release_skills", 60, 160, "scratchpad", 7)
    items = [item_of_row(row_json(row)) for row in evals]
    items += [scan_item(f"b{n}", "b", text, benchmark="b") for n, text in enumerate(BENCHMARK)]
    return build_index(items, HonestyConfig()), [row.user for row in evals] + list(BENCHMARK)


def found_and_planted(index: Index, texts: list[str], disguise: Disguise) -> tuple[list[str], int]:
    """(the texts whose row is not found in this disguise, how many rows it changes)."""
    missed: list[str] = []
    planted = 0
    for n, text in enumerate(texts):
        changed = disguise.change(text, random.Random(n))
        if changed is None:
            continue
        planted += 1
        document = (
            f"Some words of real text, \u201cquoted\u201d. {changed} And more of it, in caf\u00e9s"
            " & elsewhere."
        )
        if n not in scan_batch(index, "corpus", [("d", document)]).texts_holding:
            missed.append(changed)
    return missed, planted


@pytest.mark.parametrize("disguise", [d for d in DISGUISES if d.promised], ids=lambda d: d.name)
def test_a_row_is_found_in_each_promised_disguise(
    planted_rows: tuple[Index, list[str]], disguise: Disguise
) -> None:
    missed, planted = found_and_planted(*planted_rows, disguise)
    assert missed == []
    assert planted >= len(BENCHMARK)


@pytest.mark.parametrize("disguise", [d for d in DISGUISES if not d.promised], ids=lambda d: d.name)
def test_no_more_is_promised_than_is_found(
    planted_rows: tuple[Index, list[str]], disguise: Disguise
) -> None:
    missed, planted = found_and_planted(*planted_rows, disguise)
    assert planted > 10
    assert missed, "found every time: then it could be promised"
    assert any(disguise.name.split()[0] in spot for spot in BLIND_SPOTS), (
        "and the report has to say so"
    )


def test_there_are_twelve_disguises_and_nine_promises() -> None:
    assert len({disguise.name for disguise in DISGUISES}) == 12
    assert sum(disguise.promised for disguise in DISGUISES) == 9


def test_numbers_are_written_as_a_reader_says_them() -> None:
    said = {
        0: "zero",
        47: "forty-seven",
        100: "one hundred",
        305: "three hundred and five",
        2013: "two thousand thirteen",
    }
    assert {number: number_in_words(number) for number in said} == said
