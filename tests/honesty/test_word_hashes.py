from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picochat.honesty.normalize import words_of
from picochat.honesty.word_hashes import WindowSums, hash_texts, hash_words

ODD_CHARACTERS = "aZ9 _-\n\0\x1f\x85é\u0301\u0308ßẞﬁ½Ⅳ…“’\u00a0\u3000中文がか\u3099ไทยЖïİıſǅ가\u1100\u1161\u11a8ㅏ한\ud800\udfff😀𝟘𠀀&#39;amp;\u0345ᾳ\u00b4\u200b\u00ad٣०"  # noqa: E501
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.text(alphabet=ODD_CHARACTERS, max_size=30),
        st.text(
            alphabet=st.characters(max_codepoint=0x2FFF, categories=["L", "M", "N", "P", "S", "Z"]),
            max_size=20,
        ),
        st.text(alphabet="ab\n ", min_size=1, max_size=200),
    ),
    max_size=6,
)


def words_by_text(texts: list[str]) -> list[list[int]]:
    hashed = hash_texts(texts)
    found: list[list[int]] = [[] for _ in texts]
    start = 0
    for text, end in zip(hashed.texts.tolist(), hashed.ends.tolist(), strict=True):
        found[text] = hashed.hashes[start:end].tolist()
        start = end
    assert sorted(hashed.texts.tolist()) == list(range(len(texts)))
    assert start == len(hashed.hashes)
    return found


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_the_fast_words_are_those_of_the_readable_form(texts: list[str]) -> None:
    readable = [words_of(text) for text in texts]
    hashed = hash_words(readable)
    firsts = [0, *hashed.ends.tolist()]
    expected = [hashed.hashes[firsts[n] : firsts[n + 1]].tolist() for n in range(len(texts))]
    assert words_by_text(texts) == expected


def test_every_character_becomes_what_the_readable_form_makes_of_it() -> None:
    """All of the scripts with case, marks and compatibility forms; of the large regular ones every
    thirteenth.
    """
    codes = [
        *range(0x3400),
        *range(0xA640, 0xABFF),
        *range(0xF900, 0x10000),
        *range(0x1D400, 0x1F200),
        *range(0x3400, 0x32000, 13),
    ]
    texts = [f"q{chr(code)}q" for code in codes]
    hashed = hash_words([words_of(text) for text in texts])
    firsts = [0, *hashed.ends.tolist()]
    expected = [hashed.hashes[firsts[n] : firsts[n + 1]].tolist() for n in range(len(texts))]
    found = words_by_text(texts)
    assert [hex(code) for n, code in enumerate(codes) if found[n] != expected[n]] == []


@settings(deadline=None)
@given(
    st.lists(st.text(alphabet="ab", min_size=1, max_size=80), min_size=2, max_size=2, unique=True)
)
def test_different_words_differ_in_hash(pair: list[str]) -> None:
    (one,), (other,) = words_by_text(pair)
    assert one != other


def test_a_long_word_is_known_by_its_head_its_tail_and_its_length() -> None:
    long = "x" * 64 + "middle" + "y" * 8
    assert words_by_text([long]) != words_by_text([long + "y"])
    assert words_by_text([long]) == words_by_text([long.replace("middle", "centre")]), (
        "so the words must be compared"
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 9))
def test_windows_have_equal_hashes_where_their_words_are_equal(
    numbers: list[int], size: int
) -> None:
    hashes = np.array([7919 * number + 1 for number in numbers], dtype=np.uint64)
    windows = WindowSums(hashes).all(size).tolist()
    runs = [tuple(numbers[n : n + size]) for n in range(len(numbers) - size + 1)]
    assert len(windows) == len(runs)
    assert len(set(zip(windows, runs, strict=True))) == len(set(runs)) == len(set(windows))
    starts = np.arange(len(runs))
    assert WindowSums(hashes).at(starts, size).tolist() == windows


@pytest.mark.parametrize("words", [1_000, 70_000])
def test_a_window_has_the_same_hash_wherever_it_stands(words: int) -> None:
    tail = np.arange(1, 9, dtype=np.uint64)
    far = WindowSums(np.concatenate([np.full(words, 5, dtype=np.uint64), tail]))
    assert far.all(8)[-1] == WindowSums(tail).all(8)[0]
