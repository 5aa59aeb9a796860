"""What texts look like: lengths, languages, scripts, kinds of characters, and text made safe to
show.

Languages come from `py3langid`, a model of letter sequences; where it is not installed they are not
measured. It is asked about the middle of some documents, because a page's head is often a menu.
Close languages (Norwegian and Danish, Serbian and Croatian) are mixed up now and then, and code or
tables count as some language. See docs/decisions/0016.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from picochat.data.preview.record import LanguageMix, LengthBin

PERCENTILES = (5, 25, 50, 75, 95)
BINS_PER_DECADE = 8
SCRIPT_DOCUMENTS = 400
SCRIPT_CHARACTERS = 1_000  # of one document
LANGUAGE_DOCUMENTS = 300  # of one source
LANGUAGE_CHARACTERS = 500  # from the middle of one document
LEAST_LETTERS = 40  # fewer say too little about a language
LEAST_CONFIDENCE = 0.5
SHOWN_SCRIPTS = 5
SHOWN_LANGUAGES = 8
KINDS = {
    "L": "letters",
    "N": "digits",
    "Z": "spaces",
    "P": "punctuation",
    "S": "symbols",
    "M": "marks",
    "C": "control",
}

Identify = Callable[[str], tuple[str, float]]


def length_histogram(lengths: Sequence[int]) -> list[LengthBin]:
    """Documents by length in bins that grow by a constant factor, from the first that holds one to
    the last, without gaps.
    """
    if not len(lengths):
        return []
    edges = bin_edges(max(lengths))
    counts, _ = np.histogram(
        np.asarray(lengths, dtype=np.int64), bins=[*edges[:-1], edges[-1] - 0.5]
    )
    present = np.flatnonzero(counts)
    return [
        LengthBin(
            from_characters=edges[number],
            to_characters=edges[number + 1],
            documents=int(counts[number]),
        )
        for number in range(present[0], present[-1] + 1)
    ]


def length_percentiles(lengths: Sequence[int]) -> dict[str, float]:
    return (
        {f"p{p}": float(np.percentile(np.asarray(lengths), p)) for p in PERCENTILES}
        if len(lengths)
        else {}
    )


def bin_edges(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 7, 10, 13, 18 ... until one is larger than `most`: BINS_PER_DECADE in each
    power of ten, rounded.
    """
    edges: list[int] = []
    number = 0
    while not edges or edges[-1] <= most:
        edge = round(10 ** (number / BINS_PER_DECADE))
        if not edges or edge > edges[-1]:
            edges.append(edge)
        number += 1
    return edges


@lru_cache(maxsize=1)
def load_identifier() -> Identify | None:
    """A function from text to (language code, confidence); None where `py3langid` is not installed.

    Kept: loading takes a second.
    """
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    model: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    return model.classify


def language_mix(texts: Iterable[str], identify: Identify) -> LanguageMix:
    """Shares of documents by language, each judged by its middle."""
    found: Counter[str] = Counter()
    documents = too_short = unsure = 0
    for text in texts:
        documents += 1
        start = max(0, (len(text) - LANGUAGE_CHARACTERS) // 2)
        part = text[start : start + LANGUAGE_CHARACTERS]
        if sum(map(str.isalpha, part)) < LEAST_LETTERS:
            too_short += 1
            continue
        language, confidence = identify(part)
        if confidence < LEAST_CONFIDENCE:
            unsure += 1
        else:
            found[language] += 1
    whole = max(1, documents)
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    shares = {language: count / whole for language, count in ranked[:SHOWN_LANGUAGES]}
    if len(ranked) > SHOWN_LANGUAGES:
        shares["other"] = sum(count for _, count in ranked[SHOWN_LANGUAGES:]) / whole
    return LanguageMix(
        documents=documents, shares=shares, too_short=too_short / whole, unsure=unsure / whole
    )


def character_mix(texts: Iterable[str]) -> tuple[float | None, dict[str, float], dict[str, float]]:
    """(share of ASCII among letters, script -> share of letters, kind -> share of characters), from
    the heads of the texts.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text[:SCRIPT_CHARACTERS])
    scripts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    ascii_letters = 0
    for character, count in counts.items():
        kinds[_kind(character)] += count
        script = _script(character)
        if script is not None:
            scripts[script] += count
            ascii_letters += count * character.isascii()
    letters, characters = sum(scripts.values()), sum(kinds.values())
    if not letters:
        return None, {}, _shares(kinds, characters, len(KINDS))
    return (
        ascii_letters / letters,
        _shares(scripts, letters, SHOWN_SCRIPTS),
        _shares(kinds, characters, len(KINDS)),
    )


def _shares(counts: Counter[str], whole: int, most: int) -> dict[str, float]:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {name: count / whole for name, count in ranked[:most]}


@lru_cache(maxsize=100_000)
def _kind(character: str) -> str:
    return "spaces" if character in "\n\t\r" else KINDS[unicodedata.category(character)[0]]


@lru_cache(maxsize=100_000)
def _script(character: str) -> str | None:
    """The first word of a letter's Unicode name (LATIN, CYRILLIC, CJK ...); None for what is no
    letter.
    """
    return unicodedata.name(character, "UNNAMED").split()[0] if character.isalpha() else None
