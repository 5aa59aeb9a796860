from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picochat.present.printable import printable
from picochat.preview.text_counts import (
    bin_edges,
    character_mix,
    language_mix,
    length_histogram,
    length_percentiles,
    load_identifier,
)

GERMAN = (
    "Die Katze schläft auf dem warmen Fensterbrett, während draußen der Regen gegen die Scheiben"
    " schlägt. " * 3
)
ENGLISH = (
    "The river runs past the old mill, and in the evening children throw stones into the quiet"
    " water. " * 3
)
FRENCH = (
    "Le chat dort sur le rebord de la fenêtre pendant que la pluie frappe doucement contre les"
    " vitres. " * 3
)


@given(st.lists(st.integers(1, 300_000), min_size=1, max_size=60))
def test_histogram_counts_every_document_in_the_bin_of_its_length(lengths: list[int]) -> None:
    found = length_histogram(lengths)
    for each in found:
        assert each.documents == sum(
            each.from_characters <= length < each.to_characters for length in lengths
        )
    assert sum(each.documents for each in found) == len(lengths)
    assert [each.to_characters for each in found[:-1]] == [
        each.from_characters for each in found[1:]
    ]


def test_no_documents_have_no_histogram_and_no_percentiles() -> None:
    assert (length_histogram([]), length_percentiles([])) == ([], {})


def test_bins_grow_by_a_constant_factor() -> None:
    edges = bin_edges(100_000)
    assert edges[:5] == [1, 2, 3, 4, 6]
    assert all(1.2 < later / former < 1.5 for former, later in pairwise(edges[6:]))


def test_scripts_are_shares_of_letters() -> None:
    ascii_fraction, scripts, kinds = character_mix(["abcd жжжж 1234"])
    assert ascii_fraction == 0.5
    assert scripts == {"CYRILLIC": 0.5, "LATIN": 0.5}
    assert kinds == pytest.approx({"letters": 8 / 14, "digits": 4 / 14, "spaces": 2 / 14})
    assert character_mix(["1234"]) == (None, {}, {"digits": 1.0})


def test_languages_are_told_apart_and_short_texts_are_not_guessed() -> None:
    identify = load_identifier()
    if identify is None:
        pytest.skip("py3langid is not installed")
    mix = language_mix([GERMAN, ENGLISH, ENGLISH, FRENCH, "Hm, ja."], identify)
    assert mix is not None
    assert mix.fractions == {"en": 0.4, "de": 0.2, "fr": 0.2}
    assert (mix.documents, mix.too_short, mix.unsure) == (5, 0.2, 0.0)


def test_language_is_judged_by_the_middle_and_only_where_the_model_is_sure() -> None:
    asked: list[str] = []

    def identify(text: str) -> tuple[str, float]:
        asked.append(text)
        return "xx", 0.9 if "sure" in text else 0.3

    mix = language_mix(["menu " * 200 + "sure " * 200 + "menu " * 200, "doubtful " * 20], identify)
    assert mix is not None
    assert "menu" not in asked[0]
    assert (mix.fractions, mix.unsure) == ({"xx": 0.5}, 0.5)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc\r\nd", "a\tb\nc\nd"),
        ("\x1b[31mred\x00", "<U+001B>[31mred<U+0000>"),
        ("ab\u202edc\u2066x", "ab<U+202E>dc<U+2066>x"),
        ("zero\u200bwidth \ufeff", "zero<U+200B>width <U+FEFF>"),
        ("lone \ud800", "lone <U+D800>"),
        ("Grüße, 世界", "Grüße, 世界"),
    ],
)
def test_what_hides_or_turns_text_is_shown_by_number(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_no_document_has_no_languages() -> None:
    assert language_mix([], lambda text: ("en", 1.0)) is None
