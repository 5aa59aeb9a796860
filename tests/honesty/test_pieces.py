from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from picochat.honesty.normalize import words_of
from picochat.honesty.pieces import CUT_WITHIN, pieces_of


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
