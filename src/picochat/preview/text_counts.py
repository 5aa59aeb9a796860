"""Counts of the texts of a source: lengths, repeated lines, languages, characters.

Lengths and lines are counted in every text that is read, languages and characters in some. Memory
is bounded except for 8 bytes per document, its length.

Languages are detected by `py3langid`, a model of letter sequences; without it they are not
measured. It sometimes confuses close languages (Norwegian and Danish, Serbian and Croatian), and
it gives code and tables a language too (docs/decisions/0016).
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
from picochat.data.pack_documents import DistinctIds
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
    """Counts the documents that hold each line, in bounded memory.

    error: the most by which a count may be too low. Lines must be equal, except for white space
    around them.
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
        """The lines in the most documents, at least LEAST_DOCUMENTS; ties sorted by line."""
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
        # Misra and Gries (Finding repeated elements, 1982) in batches: one number is subtracted
        # from all counts, and lines at zero are dropped. So a count is too low by at most `error`,
        # and every line in more than `error` documents is kept.
        taken = sorted(self._counts.values(), reverse=True)[self.capacity]
        self._counts = {
            line: found - taken for line, found in self._counts.items() if found > taken
        }
        self.error += taken


@dataclass
class SourceTally:
    """Counts of the texts of one source.

    unusable: rows without a usable text, by reason. repeated_ids: rows with the id of an earlier
    one.
    """

    lines: LineCounter
    lengths: array[int] = field(default_factory=lambda: array("q"))
    text_bytes: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    repeated_ids: int = 0

    @property
    def documents(self) -> int:
        return len(self.lengths)

    def add(self, text: str, text_bytes: int) -> None:
        self.lengths.append(len(text))
        self.text_bytes += text_bytes
        self.lines.add(text)


def tally_samples(samples: Sequence[SourceSample]) -> list[SourceTally]:
    tallies: list[SourceTally] = []
    for sample in samples:
        tally = SourceTally(
            _line_counter(len(samples)),
            unusable=sample.unusable,
            repeated_ids=sample.distinct.repeated,
        )
        for text, size in zip(sample.texts, sample.text_bytes, strict=True):
            tally.add(text, size)
        tallies.append(tally)
    return tallies


def tally_files(
    sources: Sequence[LoadedSource], data: DataConfig, wanted: Collection[str]
) -> tuple[list[SourceTally], dict[str, str]]:
    """(counts of all texts by source, the texts of the wanted ids).

    Raises BadInput if a file is broken.
    """
    tallies: list[SourceTally] = []
    texts: dict[str, str] = {}
    total = sum(file.bytes for source in sources for file in source.files)
    with Progress("count lines and lengths", total / 1e6, "MB") as progress:
        for source in sources:
            tally = SourceTally(_line_counter(len(sources)))
            tallies.append(tally)
            min_chars = source.least_chars(data.min_chars)
            distinct = DistinctIds()
            for file in source.files:
                for row in read_source_file(source.path, file.name, source.text_column):
                    id = f"{source.label}:{distinct.of(row)}"
                    problem = row.problem or (
                        "below_min_chars" if len(row.text) < min_chars else None
                    )
                    if problem is not None:
                        tally.unusable[problem] += 1
                        continue
                    tally.add(row.text, len(row.text.encode()))
                    if id in wanted:
                        texts[id] = row.text
                progress.advance(
                    file.bytes / 1e6, f"{tally.documents:,} documents of {source.label}"
                )
            tally.repeated_ids = distinct.repeated
    return tallies, texts


def _line_counter(sources: int) -> LineCounter:
    """A counter for one of several sources, which share the capacity of one counter."""
    return LineCounter(max(2_000, LINE_CAPACITY // max(1, sources)))


# ---- lengths -------------------------------------------------------------------------------------


def length_histogram(lengths: Sequence[int]) -> list[LengthBin]:
    """Documents by length, in bins of equal width on a log scale.

    Empty bins are left out at both ends, but not between.
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

    They are 10 ** (n / BINS_PER_DECADE), rounded, without repeats.
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

    It is cached because loading the model takes 1 to 2 s.
    """
    try:
        from py3langid import langid  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    model: Any = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    return model.classify


def language_mix(texts: Iterable[str], identify: Identify) -> LanguageMix | None:
    """Fractions of documents by language; None without a document."""
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
    if not documents:
        return None
    fractions = _largest_fractions(found, documents, SHOWN_LANGUAGES)
    if len(found) > SHOWN_LANGUAGES:
        fractions["other"] = sum(sorted(found.values())[:-SHOWN_LANGUAGES]) / documents
    return LanguageMix(
        documents=documents,
        fractions=fractions,
        too_short=too_short / documents,
        unsure=unsure / documents,
    )


def character_mix(texts: Iterable[str]) -> tuple[float | None, dict[str, float], dict[str, float]]:
    """(fraction of ASCII among letters, fractions of letters by script, of characters by kind).

    Only the first SCRIPT_CHARACTERS of each text are counted.
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
