"""The eval side as an index of word n-grams, and where a text touches it.

Three kinds of match: a run of 13 words (a hit wherever it stands), runs of 8 words (for the coverage share), and a whole
prompt of fewer than 13 words. A run that stands in more than three different prompts of one skill is template: it
belongs to no single item, and is left out. Sees words only: no paraphrase, no translation.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Literal, NamedTuple

from picochat.config import HonestyConfig

Words = tuple[str, ...]
Rule = Literal["run", "coverage", "whole"]

TEMPLATE_PROMPTS = 3  # a run in more prompts of one skill than this is template
SPECIFIC_WORDS = 6  # a prompt of fewer words ("who are you") counts only with its answer close behind
ANSWER_WITHIN_WORDS = 20


@dataclass(frozen=True)
class ScanItem:
    """One eval row as the scan sees it. `answers`: any of them, close behind, makes a very short prompt specific."""

    id: str
    skill: str
    prompt: Words
    answers: tuple[Words, ...] = ()


class Match(NamedTuple):
    """Words [start, start + size) of a text are a run of item number `item`."""

    rule: Rule
    item: int
    start: int
    size: int


@dataclass(frozen=True)
class Index:
    """`runs`: run -> (rule, item) pairs. `anchors`: word -> (size, place in the run) of the runs that it gives away.

    `own_runs`: for each item its 8-word runs outside the template. `unscannable`: items too short to look for.
    """

    items: tuple[ScanItem, ...]
    runs: Mapping[Words, tuple[tuple[Rule, int], ...]]
    anchors: Mapping[str, tuple[tuple[int, int], ...]]
    own_runs: tuple[int, ...]
    template_runs: int
    unscannable: tuple[str, ...]


def build_index(items: Sequence[ScanItem], config: HonestyConfig, word_counts: Mapping[str, int]) -> Index:
    """The index of the items. `word_counts`, from a sample of the texts, only makes it fast: any will do."""
    runs: dict[Words, list[tuple[Rule, int]]] = defaultdict(list)
    long_runs, template_long = _own_runs(items, config.hit_words)
    short_runs, template_short = _own_runs(items, config.coverage_words)
    unscannable: list[str] = []
    for number, item in enumerate(items):
        for run in long_runs[number]:
            runs[run].append(("run", number))
        for run in short_runs[number]:
            runs[run].append(("coverage", number))
        if long_runs[number]:
            continue
        if len(item.prompt) >= SPECIFIC_WORDS or (item.prompt and item.answers):
            runs[item.prompt].append(("whole", number))
        else:
            unscannable.append(item.id)
    frozen = {run: tuple(entries) for run, entries in runs.items()}
    own = tuple(len(short_runs[number]) for number in range(len(items)))
    return Index(tuple(items), frozen, _anchors(frozen, word_counts), own, template_long + template_short, tuple(unscannable))


def _own_runs(items: Sequence[ScanItem], size: int) -> tuple[list[set[Words]], int]:
    """For each item its runs of `size` words outside the template; and how many runs are template."""
    prompts_with: dict[tuple[str, Words], set[Words]] = defaultdict(set)
    of_item = [{item.prompt[i : i + size] for i in range(len(item.prompt) - size + 1)} for item in items]
    for item, runs in zip(items, of_item, strict=True):
        for run in runs:
            prompts_with[item.skill, run].add(item.prompt)
    template = {key for key, prompts in prompts_with.items() if len(prompts) > TEMPLATE_PROMPTS}
    own = [{run for run in runs if (item.skill, run) not in template} for item, runs in zip(items, of_item, strict=True)]
    return own, len(template)


def _anchors(runs: Iterable[Words], word_counts: Mapping[str, int]) -> dict[str, tuple[tuple[int, int], ...]]:
    """For each run its rarest word, so that only few places of a text are looked at."""
    places: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for run in runs:
        rarest = min(range(len(run)), key=lambda i, run=run: (word_counts.get(run[i], 0), -len(run[i]), run[i]))
        places[run[rarest]].add((len(run), rarest))
    return {word: tuple(sorted(found)) for word, found in places.items()}


def find_matches(index: Index, words: Sequence[str]) -> list[Match]:
    """Every match in a text's words, by position. A very short prompt matches only with an answer close behind."""
    anchors, runs = index.anchors, index.runs
    matches: list[Match] = []
    for position in compress(range(len(words)), map(anchors.__contains__, words)):
        for size, place in anchors[words[position]]:
            start = position - place
            if start < 0:
                continue
            run = tuple(words[start : start + size])
            if len(run) == size and run in runs:
                matches += [Match(rule, item, start, size) for rule, item in runs[run]]
    kept = [match for match in matches if match.rule != "whole" or _is_specific(index.items[match.item], match, words)]
    return sorted(set(kept), key=lambda match: (match.start, match.item, match.rule))


def _is_specific(item: ScanItem, match: Match, words: Sequence[str]) -> bool:
    if len(item.prompt) >= SPECIFIC_WORDS:
        return True
    end = match.start + match.size
    behind = tuple(words[end : end + ANSWER_WITHIN_WORDS])
    return any(answer and _holds(behind, answer) for answer in item.answers)


def _holds(words: Words, run: Words) -> bool:
    return any(words[i : i + len(run)] == run for i in range(len(words) - len(run) + 1))


def coverage_of(index: Index, words: Sequence[str], matches: Iterable[Match]) -> dict[int, float]:
    """For each item touched: the share of its own 8-word runs that stand somewhere in the text."""
    found: dict[int, set[Words]] = defaultdict(set)
    for match in matches:
        if match.rule == "coverage":
            found[match.item].add(tuple(words[match.start : match.start + match.size]))
    return {item: len(runs) / index.own_runs[item] for item, runs in found.items()}


def count_words(texts: Iterable[Sequence[str]]) -> Counter[str]:
    """How often each word stands in a sample of texts."""
    counts: Counter[str] = Counter()
    for words in texts:
        counts.update(words)
    return counts


def find_matches_slowly(index: Index, words: Sequence[str]) -> Iterator[Match]:
    """The same as `find_matches`, readable: every window of every size is looked up. The oracle of the tests."""
    for size in sorted({len(run) for run in index.runs}):
        for start in range(len(words) - size + 1):
            for rule, item in index.runs.get(tuple(words[start : start + size]), ()):
                match = Match(rule, item, start, size)
                if rule != "whole" or _is_specific(index.items[item], match, words):
                    yield match
