import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picochat.data.corpus.minhash import ABSENT, signatures
from picochat.data.corpus.near_duplicates import band_rows, near_duplicate_clusters

VOCABULARY = [f"word{number}" for number in range(3000)]


def _text(seed: int, words: int = 120) -> str:
    return " ".join(random.Random(seed).choices(VOCABULARY, k=words))


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}


def _jaccard(one: str, other: str) -> float:
    """The slow oracle: the real fraction of common five-word runs."""
    a, b = _shingles(one), _shingles(other)
    return len(a & b) / len(a | b)


def _with_changes(text: str, changes: int, seed: int) -> str:
    words, at = text.split(), random.Random(seed)
    for place in at.sample(range(len(words)), changes):
        words[place] = "changed"
    return " ".join(words)


def test_estimate_agrees_with_the_real_similarity() -> None:
    pairs = [(_text(seed), _with_changes(_text(seed), seed % 12, seed)) for seed in range(120)]
    rows = signatures([text for pair in pairs for text in pair])
    errors = [
        (rows[2 * n] == rows[2 * n + 1]).mean() - _jaccard(*pair) for n, pair in enumerate(pairs)
    ]
    assert abs(float(np.mean(errors))) < 0.01
    assert float(np.std(errors)) < 0.06


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), planted=st.integers(1, 8), others=st.integers(0, 40))
def test_planted_copies_are_found_and_strangers_are_not(
    seed: int, planted: int, others: int
) -> None:
    strangers = [_text(seed * 1000 + number) for number in range(others)]
    copies = [
        _with_changes(_text(seed * 1000 + 500 + number), 1, seed) for number in range(planted)
    ]
    originals = [_text(seed * 1000 + 500 + number) for number in range(planted)]
    assert all(_jaccard(a, b) > 0.88 for a, b in zip(originals, copies, strict=True))
    texts = [*originals, *strangers, *copies]
    expected = [[number, planted + others + number] for number in range(planted)]
    assert near_duplicate_clusters(texts, 0.7) == expected


def test_clusters_are_what_is_connected_and_begin_with_the_first_document() -> None:
    chain = [_text(1, 400)]
    for step in range(4):
        chain.append(_with_changes(chain[-1], 4, step))
    assert _jaccard(chain[0], chain[4]) < 0.8 < _jaccard(chain[0], chain[1])
    texts = [_text(9), chain[2], _text(8), chain[0], chain[4], chain[1], chain[3]]
    assert near_duplicate_clusters(texts, 0.75) == [[1, 3, 4, 5, 6]]


@pytest.mark.parametrize(
    "change", [str.upper, lambda text: text.replace(" ", ",  "), lambda text: f"  {text}\n."]
)
def test_case_and_punctuation_do_not_tell_texts_apart(change: object) -> None:
    assert callable(change)
    text = _text(3)
    assert (signatures([text]) == signatures([change(text)])).all()


def test_letters_beyond_ascii_count_as_words() -> None:
    one = "Über die Änderung größerer Dinge schrieb er öfter Bücher über Äpfel und Öl"
    assert (signatures([one]) == signatures([one.lower()])).all()
    assert (signatures([one]) != signatures([one.replace("Ö", "Ä")])).any()


def test_signature_does_not_depend_on_the_other_texts() -> None:
    texts = [_text(seed, 5 + seed * 7) for seed in range(60)] + [
        "",
        "one two",
        "x" * 1_500_000,
        "a b c d e",
    ]
    together = signatures(texts)
    alone = np.concatenate([signatures([text]) for text in texts])
    assert (together == alone).all()


def test_texts_of_fewer_than_five_words_take_no_part() -> None:
    assert (signatures(["one two three four", "", "..."]) == ABSENT).all()
    assert near_duplicate_clusters(["one two three four"] * 3 + [""] * 3, 0.5) == []
    assert near_duplicate_clusters([], 0.5) == []


@pytest.mark.parametrize("jaccard", [0.3, 0.5, 0.8, 0.9, 0.99])
def test_bands_bring_pairs_at_the_threshold_together(jaccard: float) -> None:
    rows = band_rows(jaccard)
    assert 1 - (1 - jaccard**rows) ** (128 // rows) >= 0.99
