from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from picochat.config import HonestyConfig
from picochat.honesty.index import Index, build_index, coverage_of, find_candidates, is_confirmed
from picochat.honesty.items import Match, ScanItem, find_matches_slowly, own_runs, scan_item
from picochat.honesty.normalize import words_of
from picochat.honesty.word_hashes import hash_texts, hash_words

CONFIG = HonestyConfig()
SMALL = HonestyConfig(hit_words=4, coverage_words=2)
SIZES = st.sampled_from([(4, 2), (13, 8), (3, 3), (2, 4), (6, 5), (1, 1)])
PROMPTS = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["a", "b", "c", "it's", "d-e", "Ж", "中"]), max_size=9),
        st.sampled_from(["m", "n"]),
    ),
    max_size=8,
)
TEXT = st.lists(
    st.sampled_from(["a", "B,", "c", "it's", "its", "de", "d", "e.\n", "f", "ж", "中", "&amp;"]),
    max_size=40,
)


def item(name: str, prompt: str, *answers: str, skill: str = "math") -> ScanItem:
    return scan_item(name, skill, prompt, answers)


def find_matches(index: Index, words: Sequence[str]) -> list[Match]:
    return confirmed(index, words, find_candidates(index, hash_words([words])).get(0, []))


def confirmed(index: Index, words: Sequence[str], matches: Iterable[Match]) -> list[Match]:
    return [match for match in matches if is_confirmed(index, words, match)]


def rules_in(text: str, *items: ScanItem) -> set[tuple[str, str]]:
    index = build_index(items, CONFIG)
    return {(items[match.item].id, match.rule) for match in find_matches(index, text.split())}


@settings(max_examples=200, deadline=None)
@given(PROMPTS, st.lists(TEXT, max_size=4), SIZES, st.booleans())
def test_the_search_by_hashes_finds_exactly_what_comparing_everywhere_finds(
    prompts: list[tuple[list[str], str]],
    texts: list[list[str]],
    sizes: tuple[int, int],
    with_answers: bool,
) -> None:
    items = [
        scan_item(
            str(n),
            skill,
            " ".join(words),
            ["f"] if with_answers else [],
            benchmark="b" if skill == "n" else None,
        )
        for n, (words, skill) in enumerate(prompts)
    ]
    config = HonestyConfig(hit_words=sizes[0], coverage_words=sizes[1])
    index = build_index(items, config)
    given_texts = [" ".join(words) for words in texts]
    touches = find_candidates(index, hash_texts(given_texts))
    for number, text in enumerate(given_texts):
        words = words_of(text)
        slow = set(find_matches_slowly(items, config, words))
        assert set(touches.get(number, [])) == slow
        assert set(confirmed(index, words, touches.get(number, []))) == slow


@settings(max_examples=100, deadline=None)
@given(PROMPTS, st.integers(1, 5))
def test_own_and_template_runs_are_counted_as_the_definition_says(
    prompts: list[tuple[list[str], str]], size: int
) -> None:
    items = [scan_item(str(n), skill, " ".join(words)) for n, (words, skill) in enumerate(prompts)]
    index = build_index(items, HonestyConfig(hit_words=7, coverage_words=size))
    counts = {
        (n, m): len(runs)
        for n, of_item in enumerate(own_runs(items, size))
        for m, runs in enumerate(of_item)
    }
    assert index.own_runs == counts


def test_a_hash_that_only_looks_alike_is_no_match() -> None:
    index = build_index([item("i", "please spell the word garden backwards")], CONFIG)
    touches = find_candidates(index, hash_texts(["please spell the word garden backwards"]))[0]
    assert (
        confirmed(index, ["please", "spell", "the", "word", "gardens", "backwards"], touches) == []
    )
    assert (
        confirmed(index, ["please", "spell", "the", "word", "garden", "backwards"], touches)
        == touches
    )


def test_no_match_reaches_from_one_text_into_the_next() -> None:
    index = build_index([item("i", "please spell the word garden backwards")], CONFIG)
    assert (
        find_candidates(index, hash_texts(["please spell the", "word garden backwards", "", "é"]))
        == {}
    )
    assert list(
        find_candidates(index, hash_texts(["é", "please spell the word garden backwards"]))
    ) == [1]


def test_thirteen_words_in_a_row_are_a_hit_and_twelve_are_none() -> None:
    prompt = " ".join(f"w{n}" for n in range(20))
    words = prompt.split()
    assert ("i", "run") in rules_in("before " + " ".join(words[4:17]) + " after", item("i", prompt))
    assert ("i", "run") not in rules_in(
        "before " + " ".join(words[4:16]) + " after", item("i", prompt)
    )


def test_a_prompt_under_thirteen_words_is_matched_as_a_whole() -> None:
    short = item("i", "please spell the word garden backwards")
    assert ("i", "whole") in rules_in("so please spell the word garden backwards now", short)
    assert ("i", "whole") not in rules_in("so please spell the word garden", short)


def test_a_very_short_prompt_needs_its_answer_close_behind() -> None:
    generic = item("i", "who are you", "picochat")
    assert rules_in("who are you she asked the stranger", generic) == set()
    assert rules_in("who are you i am picochat", generic) == {("i", "whole")}
    assert rules_in("who are you " + "x " * 20 + "picochat", generic) == set()
    assert build_index([item("j", "who are you"), item("k", "")], CONFIG).unscannable == (0, 1)


def test_words_that_many_prompts_of_a_skill_share_are_template() -> None:
    template = "only one of these four options is right so please pick the right one here"
    items = [item(str(n), f"{template} number {n}") for n in range(6)]
    index = build_index(items, CONFIG)
    assert index.template_runs > 0
    assert not any(match.rule == "run" for match in find_matches(index, template.split()))
    assert ("3", "run") in rules_in(f"{template} number 3", *items)
    few = build_index(items[:3], CONFIG)
    assert any(match.rule == "run" for match in find_matches(few, template.split()))


def test_template_is_judged_within_one_benchmark_as_within_one_skill() -> None:
    words = " ".join(f"w{n}" for n in range(13))
    of_one = [scan_item(str(n), "x", f"{words} end{n}", benchmark="arc") for n in range(4)]
    of_two = [scan_item(str(n), "x", f"{words} end{n}", benchmark=f"b{n % 2}") for n in range(4)]
    assert "run" not in {
        match.rule for match in find_matches(build_index(of_one, CONFIG), words.split())
    }
    assert "run" in {
        match.rule for match in find_matches(build_index(of_two, CONFIG), words.split())
    }


def test_template_is_counted_by_prompt_so_that_repeated_rows_hide_nothing() -> None:
    prompt = " ".join(f"w{n}" for n in range(15))
    same = [item(str(n), prompt) for n in range(9)]
    assert {name for name, rule in rules_in(prompt, *same) if rule == "run"} == {
        str(n) for n in range(9)
    }


def test_coverage_is_the_share_of_an_items_own_runs() -> None:
    words = [f"w{n}" for n in range(17)]
    index = build_index([item("i", " ".join(words))], CONFIG)
    assert coverage_of(index, find_matches(index, [*words[:9], "x", *words[:8]])) == {0: 2 / 10}


def test_coverage_is_that_of_the_best_spelling_and_never_a_mixture() -> None:
    prompt = "it's an odd-looking thing, isn't it, that nobody's dog won't bark at ever"
    index = build_index([item("i", prompt)], CONFIG)
    assert len(index.items[0].spellings) == 3
    for text in (
        prompt,
        prompt.replace("'", ""),
        prompt.replace("'", "").replace("-", ""),
        prompt.replace("'", " "),
    ):
        assert coverage_of(index, find_matches(index, words_of(text))) == {0: 1.0}


def test_no_items_touch_nothing() -> None:
    index = build_index([], CONFIG)
    assert find_candidates(index, hash_texts(["some text", ""])) == {}
    assert index.reach_words > 0
    assert np.array_equal(hash_texts([]).ends, [])
