"""What is counted of the texts of a source: lengths, repeated lines, languages, characters.

Lengths and lines are counted of every text that is read, of a sample or of all files; languages and
characters of some. Memory is bounded but for 8 bytes a document, its length.

Languages come from `py3langid`, a model of letter sequences; where it is not installed they are not
measured. Close languages (Norwegian and Danish, Serbian and Croatian) are mixed up now and then,
and code or tables count as some language: see docs/decisions/0016.
"""

from __future__ import annotations

import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from picochat.config import DataConfig
from picochat.core.progress import Progress
from picochat.data.documents import read_source_file
from picochat.data.pack import LoadedSource
from picochat.preview.preview_record import LanguageMix, LengthBin, RepeatedLine
from picochat.preview.text_sample import SourceSample

LINE_CHARACTERS = (20, 400)  # shorter lines repeat by chance, longer ones are whole texts
LINE_CAPACITY = 50_000
LEAST_DOCUMENTS = 3
PERCENTILES = (5, 25, 50, 75, 95)
BINS_PER_DECADE = 8
SCRIPT_CHARACTERS = 1_000  # of one document
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


# ---- every text that is read ---------------------------------------------------------------------


class LineCounter:
    """Documents by line, in bounded memory. `error`: by how much a count may be too low.

    A line counts once for each document that holds it. Does not see lines that differ in one
    character.
    """

    def __init__(self, capacity: int = LINE_CAPACITY) -> None:
        self.capacity = capacity
        self.error = 0
        self.documents = 0
        self._counts: dict[str, int] = {}

    def add(self, text: str) -> None:
        """Count the lines of one document."""
        self.documents += 1
        least, most = LINE_CHARACTERS
        lines = {line for each in text.split("\n") if least <= len(line := each.strip()) <= most}
        for line in lines:
            self._counts[line] = self._counts.get(line, 0) + 1
        if len(self._counts) > 2 * self.capacity:
            self._prune()

    def most_repeated(self, count: int) -> list[RepeatedLine]:
        """The lines in the most documents, at least LEAST_DOCUMENTS; ties in alphabetical order."""
        least = max(LEAST_DOCUMENTS, 2 * self.error)
        repeated = sorted((-found, line) for line, found in self._counts.items() if found >= least)
        return [
            RepeatedLine(
                line=line,
                documents=-found,
                documents_at_most=self.error - found,
                fraction=-found / self.documents,
            )
            for found, line in repeated[:count]
        ]

    def _prune(self) -> None:
        # Misra and Gries in batches: the smallest counts are taken off all, and what falls to zero
        # is forgotten. So a kept count is too low by at most `error`, and every line in more than
        # `error` documents is kept.
        taken = sorted(self._counts.values(), reverse=True)[self.capacity]
        self._counts = {
            line: found - taken for line, found in self._counts.items() if found > taken
        }
        self.error += taken


@dataclass
class SourceTally:
    """Counts of one source's texts. `unusable`: rows that are not read, by reason."""

    lines: LineCounter
    lengths: array[int] = field(default_factory=lambda: array("q"))
    text_bytes: int = 0
    unusable: Counter[str] = field(default_factory=Counter)

    @property
    def documents(self) -> int:
        return len(self.lengths)

    def add(self, text: str, text_bytes: int) -> None:
        self.lengths.append(len(text))
        self.text_bytes += text_bytes
        self.lines.add(text)


def tally_samples(samples: Sequence[SourceSample]) -> list[SourceTally]:
    """Counts of the sampled texts."""
    tallies: list[SourceTally] = []
    for sample in samples:
        tally = SourceTally(_line_counter(len(samples)), unusable=sample.unusable)
        for text, size in zip(sample.texts, sample.text_bytes, strict=True):
            tally.add(text, size)
        tallies.append(tally)
    return tallies


def tally_files(
    sources: Sequence[LoadedSource], data: DataConfig, wanted: Collection[str]
) -> tuple[list[SourceTally], dict[str, str]]:
    """(counts of every text of every source, the texts of the wanted ids).

    Raises BadInput where a file is broken.
    """
    tallies: list[SourceTally] = []
    texts: dict[str, str] = {}
    total = sum(file.bytes for source in sources for file in source.files)
    with Progress("count lines and lengths", total / 1e6, "MB") as progress:
        for source in sources:
            tally = SourceTally(_line_counter(len(sources)))
            tallies.append(tally)
            min_chars = source.least_chars(data.min_chars)
            for file in source.files:
                for row in read_source_file(source.path, file.name, source.text_column):
                    problem = row.problem or (
                        "below_min_chars" if len(row.text) < min_chars else None
                    )
                    if problem is not None:
                        tally.unusable[problem] += 1
                        continue
                    tally.add(row.text, len(row.text.encode()))
                    id = f"{source.label}:{row.id}"
                    if id in wanted:
                        texts[id] = row.text
                progress.advance(
                    file.bytes / 1e6, f"{tally.documents:,} documents of {source.label}"
                )
    return tallies, texts


def _line_counter(sources: int) -> LineCounter:
    """A counter of a size with which all sources together take the memory that one may."""
    return LineCounter(max(2_000, LINE_CAPACITY // max(1, sources)))


# ---- lengths -------------------------------------------------------------------------------------


def length_histogram(lengths: Sequence[int]) -> list[LengthBin]:
    """Documents by length in bins that grow by a constant factor, without gaps.

    From the first bin that holds a document to the last.
    """
    if not len(lengths):
        return []
    edges = bin_edges(max(lengths))
    # The last bin of numpy.histogram includes its upper edge; ours never do.
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
    if not len(lengths):
        return {}
    return {f"p{p}": float(np.percentile(np.asarray(lengths), p)) for p in PERCENTILES}


def bin_edges(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 7, 10, 13, 18 ... until one is larger than `most`.

    BINS_PER_DECADE in each power of ten, rounded.
    """
    edges: list[int] = []
    number = 0
    while not edges or edges[-1] <= most:
        edge = round(10 ** (number / BINS_PER_DECADE))
        if not edges or edge > edges[-1]:
            edges.append(edge)
        number += 1
    return edges


# ---- languages and characters --------------------------------------------------------------------


@lru_cache(maxsize=1)
def load_identifier() -> Identify | None:
    """A function from text to (language code, confidence); None without `py3langid`.

    Cached: loading takes a second.
    """
    try:
        from py3langid import langid  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    model: Any = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    return model.classify


def language_mix(texts: Iterable[str], identify: Identify) -> LanguageMix:
    """Shares of documents by language."""
    found: Counter[str] = Counter()
    documents = too_short = unsure = 0
    for text in texts:
        documents += 1
        # The middle, because the head of a web page is often a menu.
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
    fractions = _largest_fractions(found, whole, SHOWN_LANGUAGES)
    if len(found) > SHOWN_LANGUAGES:
        fractions["other"] = sum(sorted(found.values())[:-SHOWN_LANGUAGES]) / whole
    return LanguageMix(
        documents=documents, fractions=fractions, too_short=too_short / whole, unsure=unsure / whole
    )


def character_mix(texts: Iterable[str]) -> tuple[float | None, dict[str, float], dict[str, float]]:
    """(fraction of ASCII among letters, fraction of letters by script, of characters by kind).

    Counted in the heads of the texts.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text[:SCRIPT_CHARACTERS])
    scripts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    ascii_letters = 0
    for character, count in counts.items():
        category = unicodedata.category(character)[0]
        kinds["spaces" if character in "\n\t\r" else KINDS[category]] += count
        if character.isalpha():
            # The first word of a letter's name is its script: LATIN, CYRILLIC, CJK ...
            scripts[unicodedata.name(character, "UNNAMED").split()[0]] += count
            ascii_letters += count * character.isascii()
    letters, characters = sum(scripts.values()), sum(kinds.values())
    return (
        ascii_letters / letters if letters else None,
        _largest_fractions(scripts, letters, SHOWN_SCRIPTS),
        _largest_fractions(kinds, characters, len(KINDS)),
    )


def _largest_fractions(counts: Counter[str], whole: int, most: int) -> dict[str, float]:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {name: count / whole for name, count in ranked[:most]}
