from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from picochat.config import HonestyConfig
from picochat.honesty.ngrams import ScanItem, build_index, coverage_of, find_matches, find_matches_slowly

CONFIG = HonestyConfig()
SMALL = HonestyConfig(hit_words=4, coverage_words=2)
WORDS = st.lists(st.sampled_from("abcde"), max_size=9)


def item(name: str, prompt: str, *answers: str, skill: str = "math") -> ScanItem:
    return ScanItem(name, skill, tuple(prompt.split()), tuple(tuple(answer.split()) for answer in answers))


def rules_in(text: str, *items: ScanItem) -> set[tuple[str, str]]:
    index = build_index(items, CONFIG, {})
    return {(items[match.item].id, match.rule) for match in find_matches(index, text.split())}


@settings(max_examples=200)
@given(
    st.lists(WORDS, max_size=6),
    st.lists(st.sampled_from("abcdef"), max_size=40),
    st.dictionaries(st.sampled_from("abcde"), st.integers(0, 9)),
)
def test_the_anchored_search_finds_what_looking_everywhere_finds(
    prompts: list[list[str]], text: list[str], counts: dict[str, int]
) -> None:
    items = [ScanItem(str(n), "math", tuple(prompt), (("f",),)) for n, prompt in enumerate(prompts)]
    index = build_index(items, SMALL, counts)
    assert set(find_matches(index, text)) == set(find_matches_slowly(index, text))


def test_thirteen_words_in_a_row_are_a_hit_and_twelve_are_none() -> None:
    prompt = " ".join(f"w{n}" for n in range(20))
    words = prompt.split()
    assert ("i", "run") in rules_in("before " + " ".join(words[4:17]) + " after", item("i", prompt))
    assert ("i", "run") not in rules_in("before " + " ".join(words[4:16]) + " after", item("i", prompt))


def test_a_prompt_under_thirteen_words_is_matched_as_a_whole() -> None:
    short = item("i", "please spell the word garden backwards")
    assert ("i", "whole") in rules_in("so please spell the word garden backwards now", short)
    assert ("i", "whole") not in rules_in("so please spell the word garden", short)


def test_a_very_short_prompt_needs_its_answer_close_behind() -> None:
    generic = item("i", "who are you", "picochat")
    assert rules_in("who are you she asked the stranger", generic) == set()
    assert rules_in("who are you i am picochat", generic) == {("i", "whole")}
    assert rules_in("who are you " + "x " * 20 + "picochat", generic) == set()
    assert build_index([item("j", "who are you")], CONFIG, {}).unscannable == ("j",)


def test_words_that_many_prompts_of_a_skill_share_are_template() -> None:
    template = "only one of these four options is right so please pick the right one here"
    items = [item(str(n), f"{template} number {n}") for n in range(6)]
    index = build_index(items, CONFIG, {})
    assert index.template_runs > 0
    assert not any(match.rule == "run" for match in find_matches(index, template.split()))
    assert ("3", "run") in rules_in(f"{template} number 3", *items)
    few = build_index(items[:3], CONFIG, {})
    assert any(match.rule == "run" for match in find_matches(few, template.split()))


def test_template_is_counted_by_prompt_so_that_repeated_rows_hide_nothing() -> None:
    prompt = " ".join(f"w{n}" for n in range(15))
    same = [item(str(n), prompt) for n in range(9)]
    assert {name for name, rule in rules_in(prompt, *same) if rule == "run"} == {str(n) for n in range(9)}


def test_coverage_is_the_share_of_an_items_own_runs() -> None:
    words = [f"w{n}" for n in range(17)]
    index = build_index([item("i", " ".join(words))], CONFIG, {})
    text = [*words[:9], "x"]
    assert coverage_of(index, text, find_matches(index, text)) == {0: 2 / 10}
