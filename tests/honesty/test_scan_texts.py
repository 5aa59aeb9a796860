from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picochat.config import HonestyConfig
from picochat.honesty import scan_texts as scan_texts_module
from picochat.honesty.index import Index, build_index, is_confirmed
from picochat.honesty.items import LONGEST_WHOLE_WORDS, Match, item_of_row, scan_item
from picochat.honesty.normalize import words_of
from picochat.honesty.scan_texts import (
    BATCH_CHARACTERS,
    CUT_WITHIN,
    HITS_KEPT_PER_BENCHMARK_ROW,
    PIECE_CHARACTERS,
    Tally,
    pieces_of,
    scan_texts,
)

LONG = (
    "Only one option is right. Which of these rivers is by far the longest in the world?\nA."
    " Rhine\nB. Nile\nC. Thames\nD. Po"
)
SHORT = "Please tell me how many letters garden has."
RUSSIAN = "Какая из этих рек самая длинная в мире: Рейн, Нил, Темза или По? Выберите один ответ."
CHINESE = "下面哪一条河流是世界上最长的河流？请只选一个答案。"
GERMAN = "Welche Straße führt am schnellsten über den Fluß, und wie heißt die größte Brücke dort?"
ROWS: list[dict[str, Any]] = [
    {"id": "long", "user": LONG, "skill": "choice", "correct_choice": "B"},
    {"id": "short", "user": SHORT, "skill": "spelling", "normalized_answers": ["6"]},
    {
        "id": "who",
        "user": "Who are you?",
        "skill": "identity",
        "reference_answer": "I am Picochat.",
    },
    {"id": "ru", "user": RUSSIAN, "skill": "other"},
    {"id": "zh", "user": CHINESE, "skill": "other"},
    {"id": "de", "user": GERMAN, "skill": "other"},
]


def index_of(rows: Sequence[dict[str, Any]] = ROWS) -> Index:
    return build_index([item_of_row(row) for row in rows], HonestyConfig())


def found_in(*texts: str) -> set[str]:
    index = index_of()
    tally = scan_texts(index, [(f"d{n}", text) for n, text in enumerate(texts)])
    return {index.items[number].id for number in tally.texts_holding}


def filler(count: int, seed: int = 0) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    words = [
        "river",
        "the",
        "of",
        "garden",
        "tell",
        "long",
        "world",
        "letters",
        "option",
        "has",
        "how",
        "многие",
        "Rhine",
        "me",
    ]
    return [(f"doc-{n}", " ".join(rng.choices(words, k=80))) for n in range(count)]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("ru", RUSSIAN.upper()),
        ("ru", RUSSIAN.replace(" ", "\n")),
        ("zh", "他问：" + CHINESE.replace("？", " ？\n\n")),
        ("zh", "".join(f"{character}\n" for character in CHINESE)),
        ("de", GERMAN.upper()),
        ("de", "".join(f"&#{ord(c)};" if ord(c) > 127 else c for c in GERMAN)),
    ],
)
def test_rows_in_other_scripts_are_found(row: str, text: str) -> None:
    assert found_in(f"Before it. {text} After it.") == {row}


def test_broken_and_empty_texts_are_scanned_like_any_other() -> None:
    assert found_in("", "\x00", "\ud800", "\n\n", "&", "&#", "&;", "́", "\ufeff") == set()
    assert found_in(f"\x00\ud800{SHORT}\udfff\x00") == {"short"}
    assert found_in(SHORT.replace(" ", "\x00")) == {"short"}
    assert scan_texts(index_of(), []) == Tally()
    assert scan_texts(index_of([]), [("d", SHORT)]).documents == 1


def test_text_bytes_are_utf8_whatever_is_in_them() -> None:
    assert (
        scan_texts(index_of(), [("a", "aé"), ("b", "中"), ("c", "\ud800")]).text_bytes == 3 + 3 + 3
    )


def test_a_row_split_over_documents_is_in_none_of_them() -> None:
    words = LONG.split()
    assert found_in(" ".join(words[:12]), " ".join(words[12:])[:-20]) == set()


def test_a_row_at_any_place_of_a_long_document_is_found_with_its_offset() -> None:
    around = " ".join(text for _, text in filler(600))
    for place in (0, 16_300, 16_360, 16_380, 32_760, len(around)):
        text = f"{around[:place]} \n{LONG} | {around[place:]}"
        hit = scan_texts(index_of(), [("d", text)]).hits[0]
        assert (hit.row, hit.offset) == ("long", place + 2)


def test_coverage_is_gathered_over_a_whole_long_document() -> None:
    words = item_of_row(ROWS[0]).prompt
    parts = [" ".join(words[start : start + 11]) for start in (0, 4, 8, 12, 14)]
    apart = (" filler" * 4_000).join(parts)
    assert found_in(apart) == {"long"}
    assert found_in((" filler" * 4_000).join(parts[:2])) == set()


def test_a_very_short_prompt_and_its_answer_may_stand_on_both_sides_of_a_cut() -> None:
    for spaces in range(16_300, 16_400, 7):
        assert found_in(
            "x" * spaces
            + " Who are you? I, said the machine, am picochat. I am Picochat. "
            + " z" * 40_000
        ) == {"who"}


def test_all_hits_are_counted_and_only_the_first_are_kept() -> None:
    tally = scan_texts(index_of(), [(f"d{n}", SHORT) for n in range(70)])
    assert tally.texts_holding == {1: 70}
    assert [hit.document for hit in tally.hits] == [f"d{n}" for n in range(20)]
    benchmark = build_index([scan_item("b1", "x", SHORT, benchmark="arc")], HonestyConfig())
    tally = scan_texts(benchmark, [(f"d{n}", SHORT) for n in range(70)])
    assert (tally.texts_holding[0], len(tally.hits)) == (70, HITS_KEPT_PER_BENCHMARK_ROW)


def test_the_result_does_not_depend_on_the_number_of_workers() -> None:
    documents = [(name, text * 50) for name, text in filler(220)]
    documents[5] = ("early", "x. " + SHORT)
    documents[215] = ("late", "y. " + LONG)
    one, two = (
        scan_texts(index_of(), iter(documents), workers=workers, alone_characters=1)
        for workers in (1, 2)
    )
    assert one.text_bytes > 2 * BATCH_CHARACTERS
    assert one == two
    assert {hit.document for hit in one.hits} == {"early", "late"}


def test_a_run_that_repeats_itself_is_nobodys() -> None:
    grid = (
        "Continue: 0 0 1 0 0 0 1 1 0 0 0 0 0 1 0 0 0 1 0 0 0 0 1 then say which colour the fifth"
        " square of it has and why"
    )
    index = build_index([scan_item("grid", "arc", grid, benchmark="arc")], HonestyConfig())
    assert not scan_texts(
        index, [("d", "0 0 1 0 0 0 1 1 0 0 0 0 0 1 0 0 0 1 0 0 0 0")]
    ).texts_holding
    assert scan_texts(index, [("d", grid[-78:])]).texts_holding


def test_a_document_of_many_megabytes_is_scanned_like_many_short_ones() -> None:
    around = " ".join(text for _, text in filler(200))
    text = around * 120 + f" \u2014 {LONG} " + around
    (hit,) = scan_texts(index_of(), [("huge", text)]).hits[:1]
    assert len(text) > 9_000_000
    assert (hit.row, hit.offset) == ("long", 120 * len(around) + 3)


# ---- pieces --------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="abc  \n,é。&amp;", max_size=600), st.integers(1, 6), st.integers(3, 60))
def test_every_run_of_words_stands_whole_in_a_piece(
    text: str, words: int, piece_characters: int
) -> None:
    pieces = list(pieces_of(text, words, piece_characters))
    assert all(text[offset:].startswith(piece) for offset, piece in pieces)
    whole = words_of(text)
    runs = {tuple(whole[n : n + words]) for n in range(len(whole) - words + 1)}
    found = [words_of(piece) for _, piece in pieces]
    # `a&ap,b` and the like may end in the middle of what looks like an entity: only what a reader
    # would see as words is promised.
    near = piece_characters > 40
    assert not near or runs <= {
        tuple(of[n : n + words]) for of in found for n in range(len(of) - words + 1)
    }


def test_a_short_text_is_one_piece() -> None:
    assert list(pieces_of("a few words", 33)) == [(0, "a few words")]
    assert list(pieces_of("", 33)) == []


def test_a_text_without_any_place_to_cut_is_cut_all_the_same() -> None:
    text = "x" * (3 * CUT_WITHIN)
    pieces = list(pieces_of(text, 3, CUT_WITHIN))
    assert [offset for offset, _ in pieces] == [0, CUT_WITHIN, 2 * CUT_WITHIN]


def test_a_long_gap_does_not_make_pieces_endless() -> None:
    text = "word " + "-" * 2_000_000 + " word"
    assert sum(len(piece) for _, piece in pieces_of(text, 33)) < 3 * len(text)


def test_a_text_that_repeats_itself_is_compared_once_in_each_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[Match] = []

    def counted(index: Index, words: Sequence[str], match: Match) -> bool:
        compared.append(match)
        return is_confirmed(index, words, match)

    monkeypatch.setattr(scan_texts_module, "is_confirmed", counted)
    index = index_of([{"id": "repeats", "user": "0 1 " * 450, "skill": "other"}])
    tally = scan_texts(index, [("d", "0 1 " * 100_000)])
    assert dict(tally.texts_holding) == {0: 1}
    assert len(compared) < 100  # 198,200 words begin such a prompt


def test_a_prompt_that_repeats_itself_for_thousands_of_words_is_not_looked_for() -> None:
    rows = [
        {"id": str(words), "user": "0 1 " * (words // 2), "skill": "other"}
        for words in (LONGEST_WHOLE_WORDS, LONGEST_WHOLE_WORDS + 2)
    ]
    assert index_of(rows).unscannable == (1,)


@pytest.mark.parametrize("text", ["a" * 400_000, "a'" * 200_000, "abc " * 100_000])
@pytest.mark.parametrize("reach_words", [50, 1_020, 50_000])
def test_pieces_overlap_by_a_bounded_length(text: str, reach_words: int) -> None:
    characters = sum(len(piece) for _, piece in pieces_of(text, reach_words))
    most = PIECE_CHARACTERS + 2 * CUT_WITHIN
    assert characters / len(text) < 1 + most / PIECE_CHARACTERS
