from __future__ import annotations

import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from picochat.honesty.normalize import WORD, normalized_text, words_of, words_with_offsets


def test_case_punctuation_and_line_breaks_make_no_difference() -> None:
    assert normalized_text("What, is\n\n THE—capital_of “France”?") == "what is the capital of france"
    assert normalized_text("ﬁne ½ Ⅳ") == "fine 1 2 iv"


@settings(max_examples=300)
@given(st.text())
def test_the_fast_split_gives_the_words_of_the_readable_pattern(text: str) -> None:
    slow = WORD.findall(unicodedata.normalize("NFKC", text).lower())
    assert words_of(text) == slow


@settings(max_examples=300)
@given(st.text(alphabet=st.characters(max_codepoint=0x2FFF)))
def test_offsets_come_with_the_same_words(text: str) -> None:
    assert [word for word, _ in words_with_offsets(text)] == words_of(text)
    for _, offset in words_with_offsets(text):
        assert 0 <= offset < len(text)


@given(st.text(alphabet="aB c\n,.é"))
def test_offsets_point_at_the_word(text: str) -> None:
    for word, offset in words_with_offsets(text):
        assert text[offset : offset + len(word)].lower() == word
