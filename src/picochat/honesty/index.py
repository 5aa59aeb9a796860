"""The index of the items: sorted hashes of their runs, and the search for them in hashed texts.

This finds what `items.find_matches_slowly` defines, but fast. A whole prompt may have any number of
words, and hashing every size of window at every word would cost too much. So a run is found by its
head, the first 1 to 4 or 8 words. A table of bits rejects nearly all words at which no head begins,
a binary search among the heads rejects the others, and then the hash of the whole run is compared.
Equal words have equal hashes, so no match is missed. Unequal words may share a hash, so
`is_confirmed` compares the words themselves. Memory: about 50 bytes a run, 60 MB for a million.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from picochat.config import HonestyConfig
from picochat.honesty.items import (
    ANSWER_WITHIN_WORDS,
    SPECIFIC_WORDS,
    TEMPLATE_PROMPTS,
    Match,
    Rule,
    ScanItem,
    is_specific,
    least_different,
)
from picochat.honesty.word_hashes import HashedWords, Hashes, Places, WindowSums, hash_words

RULES: tuple[Rule, ...] = ("run", "coverage", "whole")
SMALL_KEYS = (1, 2, 3, 4)
# Bits of the table for each head. At most one word in 32 passes by chance, and the table still fits
# into a processor's cache.
SLOTS_PER_RUN = 32
BLOCK_WINDOWS = 100_000  # windows whose words are sorted at once: bounds the memory of a build
BITS = np.array([1 << bit for bit in range(8)], dtype=np.uint8)
# Makes equal runs of two skills or benchmarks unequal when template is counted. It is odd, so that
# different families stay different modulo 2^64.
FAMILY_FACTOR = np.uint64(0x8CB92BA72F3D8DD7)


class Runs(NamedTuple):
    """Runs of one size, as arrays.

    spelled: the number of each run's spelling. starts: its first word there. rules: the number of
    its rule in RULES.
    """

    hashes: Hashes
    spelled: Places
    starts: Places
    rules: npt.NDArray[np.uint8]

    def at(self, places: Places | npt.NDArray[np.bool_]) -> Runs:
        return Runs._make(array[places] for array in self)


@dataclass(frozen=True)
class Key:
    """The heads of `words` words by which runs of these `sizes` are found.

    heads: sorted hashes. seen: bit n is set if n is the leading `seen_bits` bits of some head.
    """

    words: int
    sizes: tuple[int, ...]
    heads: Hashes
    seen: npt.NDArray[np.uint8]
    seen_bits: int

    def places_in(self, sums: WindowSums) -> Places:
        """The words at which a head begins."""
        hashes = sums.all(self.words)
        slots = _slots(hashes, self.seen_bits)
        # A look-up in the table is cheap; the binary search is done only for the few that pass.
        places = np.flatnonzero(self.seen.take(slots >> 3) & BITS.take(slots & 7))
        found = hashes[places]
        nearest = np.minimum(np.searchsorted(self.heads, found), len(self.heads) - 1)
        return places[self.heads[nearest] == found]


@dataclass(frozen=True)
class Index:
    """All items and their runs.

    spelled: (item number, number of its spelling) for every spelling. runs: by size, sorted by
    hash. own_runs: for each item and spelling, how many 8-word runs are not template. unscannable:
    numbers of the items that are too short, or too long and repetitive, to search for. answers: for
    each item whose prompt must be followed by an answer, (words, hash) of each.
    """

    items: tuple[ScanItem, ...]
    spelled: tuple[tuple[int, int], ...]
    runs: dict[int, Runs]
    keys: tuple[Key, ...]
    own_runs: dict[tuple[int, int], int]
    template_runs: int
    unscannable: tuple[int, ...]
    answers: dict[int, tuple[tuple[int, int], ...]]

    @property
    def reach_words(self) -> int:
        """How many words a match may depend on, from its first word on."""
        return max(self.runs, default=0) + ANSWER_WITHIN_WORDS


# ---- building ------------------------------------------------------------------------------------


class Spelled:
    """Every spelling of every item, hashed."""

    def __init__(self, items: Sequence[ScanItem]) -> None:
        self.items = items
        self.numbers = [(n, m) for n, item in enumerate(items) for m in range(len(item.spellings))]
        self.words = [items[n].spellings[m] for n, m in self.numbers]
        hashed = hash_words(self.words)
        self.hashes = hashed.hashes
        self.sums = WindowSums(hashed.hashes)
        self.lengths = np.diff(hashed.ends, prepend=0)
        self.firsts = hashed.ends - self.lengths
        self.prompts = _numbered(items[n].prompt for n, _ in self.numbers)
        self.families = _numbered(items[n].family for n, _ in self.numbers)

    def different_words(self, starts: Places, size: int) -> Places:
        """How many different words each window of `size` words has."""
        different = np.ones(len(starts), dtype=np.int64)
        for first in range(0, len(starts), BLOCK_WINDOWS):
            block = slice(first, first + BLOCK_WINDOWS)
            windows = np.sort(self.hashes[starts[block, None] + np.arange(size)], axis=1)
            different[block] += (windows[:, 1:] != windows[:, :-1]).sum(axis=1)
        return different


def _numbered(values: Iterable[object]) -> Places:
    """For each value its number; equal values have equal numbers."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(each, len(numbers)) for each in values], dtype=np.int64)


def build_index(items: Sequence[ScanItem], config: HonestyConfig) -> Index:
    """The index of the items. It depends only on their words and the two sizes of runs."""
    spelled = Spelled(items)
    long_runs, long_template = _own_runs(spelled, config.hit_words, "run")
    short_runs, short_template = _own_runs(spelled, config.coverage_words, "coverage")
    item_of = [item for item, _ in spelled.numbers]
    has_long = {item_of[n] for n in np.unique(long_runs.spelled).tolist()}
    wholes = [
        n
        for n, words in enumerate(spelled.words)
        if item_of[n] not in has_long and items[item_of[n]].can_be_whole(words)
    ]
    runs = _by_size(config, long_runs, short_runs, spelled, wholes)
    searched = has_long | {item_of[n] for n in wholes}
    counts = np.bincount(short_runs.spelled, minlength=len(spelled.numbers)).tolist()
    return Index(
        items=tuple(items),
        spelled=tuple(spelled.numbers),
        runs=runs,
        keys=tuple(_keys(runs, spelled, config.coverage_words)),
        own_runs=dict(zip(spelled.numbers, counts, strict=True)),
        template_runs=long_template + short_template,
        unscannable=tuple(n for n in range(len(items)) if n not in searched),
        answers={
            item_of[n]: _answers(items[item_of[n]])
            for n in wholes
            if len(spelled.words[n]) < SPECIFIC_WORDS
        },
    )


def _answers(item: ScanItem) -> tuple[tuple[int, int], ...]:
    zero = np.zeros(1, dtype=np.int64)
    return tuple(
        (len(words), int(WindowSums(hash_words([words]).hashes).at(zero, len(words))[0]))
        for words in item.answers
    )


def _own_runs(spelled: Spelled, size: int, rule: Rule) -> tuple[Runs, int]:
    """(the runs of `size` words that are not template, how many runs are template).

    A run that occurs twice in a spelling counts once.
    """
    counts = np.maximum(spelled.lengths - size + 1, 0)
    of = np.repeat(np.arange(len(counts)), counts)
    starts = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    varied = spelled.different_words(spelled.firsts[of] + starts, size) >= least_different(size)
    of, starts = of[varied], starts[varied]
    hashes = spelled.sums.at(spelled.firsts[of] + starts, size)
    once = _first_of_each(hashes, of)
    hashes, of, starts = hashes[once], of[once], starts[once]
    in_family = hashes + spelled.families[of].astype(np.uint64) * FAMILY_FACTOR
    _, run_of = np.unique(in_family, return_inverse=True)
    # Different prompts are counted, not items: rows that repeat one prompt do not make it template.
    prompts_with = np.bincount(run_of[_first_of_each(run_of, spelled.prompts[of])])
    own = prompts_with[run_of] <= TEMPLATE_PROMPTS
    rules = np.full(len(hashes), RULES.index(rule), dtype=np.uint8)
    return Runs(hashes, of, starts, rules).at(own), int((prompts_with > TEMPLATE_PROMPTS).sum())


def _first_of_each(first: npt.NDArray[np.integer], second: npt.NDArray[np.integer]) -> Places:
    """The places, in ascending order, at which a pair of values occurs for the first time."""
    order = np.lexsort((second, first))
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (np.diff(first[order]) != 0) | (np.diff(second[order]) != 0)
    return np.sort(order[new])


def _by_size(
    config: HonestyConfig, long_runs: Runs, short_runs: Runs, spelled: Spelled, wholes: list[int]
) -> dict[int, Runs]:
    parts: dict[int, list[Runs]] = defaultdict(list)
    parts[config.hit_words].append(long_runs)
    parts[config.coverage_words].append(short_runs)
    for size in sorted({len(spelled.words[n]) for n in wholes}):
        of = np.array([n for n in wholes if len(spelled.words[n]) == size], dtype=np.int64)
        rules = np.full(len(of), RULES.index("whole"), dtype=np.uint8)
        hashes = spelled.sums.at(spelled.firsts[of], size)
        parts[size].append(Runs(hashes, of, np.zeros_like(of), rules))
    runs: dict[int, Runs] = {}
    for size, found in sorted(parts.items()):
        joined = Runs._make(np.concatenate(arrays) for arrays in zip(*found, strict=True))
        if len(joined.hashes):
            runs[size] = joined.at(np.argsort(joined.hashes, kind="stable"))
    return runs


def _keys(runs: dict[int, Runs], spelled: Spelled, coverage_words: int) -> Iterator[Key]:
    # Each length of head costs one more hash at every word of a text, so there are few lengths. A
    # head of 8 words is rare in any text; shorter runs get the longest head that fits.
    sizes_of: dict[int, list[int]] = defaultdict(list)
    for size in runs:
        longest = max(words for words in (*SMALL_KEYS, coverage_words) if words <= size)
        sizes_of[longest].append(size)
    for words, sizes in sorted(sizes_of.items()):
        heads = [
            spelled.sums.at(spelled.firsts[runs[size].spelled] + runs[size].starts, words)
            for size in sizes
        ]
        hashes = np.unique(np.concatenate(heads))
        bits = max(10, (SLOTS_PER_RUN * len(hashes)).bit_length())
        slots = np.unique(_slots(hashes, bits))
        seen = np.zeros(1 << (bits - 3), dtype=np.uint8)
        np.bitwise_or.at(seen, slots >> 3, BITS[slots & 7])
        yield Key(words, tuple(sizes), hashes, seen, bits)


def _slots(hashes: Hashes, bits: int) -> Places:
    """The leading bits of each hash, as a number."""
    return (hashes >> np.uint64(64 - bits)).view(np.int64)


# ---- searching -----------------------------------------------------------------------------------


def find_candidates(index: Index, hashed: HashedWords) -> dict[int, list[Match]]:
    """Number of the text -> every match by hash, ordered by position."""
    sums = WindowSums(hashed.hashes)
    touched: dict[int, set[Match]] = defaultdict(set)
    for key in index.keys:
        heads = key.places_in(sums)
        if not len(heads):
            continue
        texts = np.searchsorted(hashed.ends, heads, side="right")
        for size in key.sizes:
            inside = heads + size <= hashed.ends[texts]
            found = _matches_of_size(index, size, hashed, sums, heads[inside], texts[inside])
            for text, match in found:
                touched[int(hashed.texts[text])].add(match)
    return {
        text: sorted(matches, key=lambda match: (match.start, match))
        for text, matches in sorted(touched.items())
    }


def _matches_of_size(
    index: Index, size: int, hashed: HashedWords, sums: WindowSums, heads: Places, texts: Places
) -> Iterator[tuple[int, Match]]:
    """(place of the text in `hashed`, match) for each run that begins at one of `heads`."""
    runs = index.runs[size]
    hashes = sums.at(heads, size)
    low = np.searchsorted(runs.hashes, hashes)
    high = np.searchsorted(runs.hashes, hashes, side="right")
    for n in np.flatnonzero(high > low).tolist():
        text, start = int(texts[n]), int(heads[n])
        first, end = int(hashed.ends[text - 1]) if text else 0, int(hashed.ends[text])
        for run in range(int(low[n]), int(high[n])):
            item, spelling = index.spelled[int(runs.spelled[run])]
            rule = RULES[runs.rules[run]]
            if (
                rule != "whole"
                or size >= SPECIFIC_WORDS
                or _answer_follows(index.answers[item], sums, start + size, end)
            ):
                yield text, Match(rule, item, start - first, size, spelling, int(runs.starts[run]))


def _answer_follows(
    answers: tuple[tuple[int, int], ...], sums: WindowSums, start: int, end: int
) -> bool:
    last = min(end, start + ANSWER_WITHIN_WORDS)
    return any(
        np.uint64(answer) in sums.at(np.arange(start, last - size + 1), size)
        for size, answer in answers
    )


def is_confirmed(index: Index, words: Sequence[str], match: Match) -> bool:
    """Whether the words of a match, and not only their hashes, are equal."""
    item = index.items[match.item]
    run = tuple(words[match.start : match.start + match.size])
    if run != item.spellings[match.spelling][match.place : match.place + match.size]:
        return False
    return match.rule != "whole" or is_specific(item, words, match.start, match.size)


def coverage_of(index: Index, matches: Iterable[Match]) -> dict[int, float]:
    """Item number -> fraction of its own 8-word runs that were found, in its best spelling."""
    places: dict[tuple[int, int], set[int]] = defaultdict(set)
    for match in matches:
        if match.rule == "coverage":
            places[match.item, match.spelling].add(match.place)
    coverage: dict[int, float] = {}
    for (item, spelling), found in places.items():
        fraction = len(found) / index.own_runs[item, spelling]
        coverage[item] = max(coverage.get(item, 0.0), fraction)
    return coverage
