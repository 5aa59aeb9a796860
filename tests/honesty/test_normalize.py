from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from picochat.honesty.normalize import normalized_text, spellings_of, words_of, words_with_offsets


def test_case_punctuation_line_breaks_and_entities_make_no_difference() -> None:
    assert (
        normalized_text("What, is\n\n THE—capital_of “France”?") == "what is the capital of france"
    )
    assert normalized_text("ﬁne ½ Ⅳ") == "fine 1 2 iv"
    assert normalized_text("STRASSE ΣΑΣ ПРИВЕТ") == normalized_text("Straße σας привет")
    assert (
        normalized_text("Tom&#39;s&nbsp;&quot;tea&#x22; &amp;amp; caf&eacute;") == "tom s tea café"
    )


def test_an_entity_that_does_not_exist_stays_text() -> None:
    assert normalized_text("AT&T; R&D &nosuchname; a&b") == "at t r d nosuchname a b"


def test_each_character_of_a_script_without_spaces_is_a_word() -> None:
    assert words_of("GPT会写中文。") == ["gpt", "会", "写", "中", "文"]
    assert words_of("ещё жди") == ["eщё", "жди"]


def test_letters_are_read_by_what_they_look_like_and_shapeless_characters_not_at_all() -> None:
    plain = "What is the capital of Peru?"
    cyrillic = plain.translate(str.maketrans("aceopP", "\u0430\u0441\u0435\u043e\u0440\u0420"))
    greek = plain.translate(str.maketrans("aoPi", "\u03b1\u03bf\u03a1\u03b9"))
    hidden = "Wh\u00adat is\u200b the cap\ufeffital o\u2060f &shy;Pe&#8203;ru?"
    small = "\u1d21\u029c\u1d00\u1d1b is the capital of Peru?"
    for text in (cyrillic, greek, hidden, small):
        assert text != plain and words_of(text) == words_of(plain)
    # A text in such an alphabet is still the same as its copy in other case, and as no other one.
    assert words_of("\u041d\u0415 \u0422\u0410\u041a") == words_of(
        "\u043d\u0435 \u0442\u0430\u043a"
    )
    assert words_of("\u043d\u0435 \u0442\u0430\u043a") != words_of(
        "\u043d\u043e \u0442\u0430\u043a"
    )


def test_spellings_are_what_stripping_marks_may_leave() -> None:
    assert spellings_of("It's well-known, isn&#39;t it?") == [
        ["it", "s", "well", "known", "isn", "t", "it"],
        ["its", "well", "known", "isnt", "it"],
        ["its", "wellknown", "isnt", "it"],
    ]
    assert spellings_of("nothing to drop here.") == [["nothing", "to", "drop", "here"]]


def test_lone_surrogates_and_control_characters_only_separate() -> None:
    assert words_of("a\ud800b\x00c\x7fd") == ["a", "b", "c", "d"]


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
