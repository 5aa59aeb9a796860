"""The items that the contamination scan searches for, and the definition of a match in a text.

A run is an n-gram of words. There are three kinds of match: a run of 13 words, runs of 8 words (for
the coverage), and the whole prompt of an item that has no 13-word run of its own. A run in more
than three different prompts of one skill or one benchmark is template. Template belongs to no item
and is not searched for; neither are runs with few different words (`0 0 1 0 0 0`).
docs/decisions/0008 has the reasons. Paraphrases and translations do not match.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from picochat.config import HonestyConfig
from picochat.honesty.normalize import spellings_of, words_of

Words = tuple[str, ...]
Rule = Literal["run", "coverage", "whole"]

# A run in more prompts of one skill than this is template. SFT rows are not counted: a row that
# leaked into them many times would become template and so hide itself.
TEMPLATE_PROMPTS = 3
# A longer prompt without a run of its own repeats itself ("0 1 0 1 ..."), and need not lie within
# one piece of a text.
LONGEST_WHOLE_WORDS = 1000
# Novels are full of shorter prompts ("Who are you?"). These match only if one of their answers
# follows within ANSWER_WITHIN_WORDS.
SPECIFIC_WORDS = 6
ANSWER_WITHIN_WORDS = 20


@dataclass(frozen=True)
class ScanItem:
    """One eval or benchmark row.

    spellings: of the prompt, as `spellings_of` gives them. answers: one of them must follow a very
    short prompt. benchmark: None for our own eval rows.
    """

    id: str
    skill: str
    spellings: tuple[Words, ...]
    answers: tuple[Words, ...] = ()
    benchmark: str | None = None

    @property
    def prompt(self) -> Words:
        return self.spellings[0]

    @property
    def family(self) -> tuple[str | None, str]:
        """The skill or the benchmark within which template is counted."""
        return (None, self.skill) if self.benchmark is None else (self.benchmark, "")

    def can_be_whole(self, spelling: Words) -> bool:
        """Whether this spelling, as a whole prompt, is specific enough to be searched for."""
        if len(spelling) >= SPECIFIC_WORDS:
            return len(spelling) <= LONGEST_WHOLE_WORDS
        return bool(spelling and self.answers)


class Match(NamedTuple):
    """Words [start, start + size) of a text equal `size` words of a spelling from `place` on.

    item: its number. spelling: its number within the item.
    """

    rule: Rule
    item: int
    start: int
    size: int
    spelling: int
    place: int


def scan_item(
    id: str, skill: str, prompt: str, answers: Iterable[str] = (), *, benchmark: str | None = None
) -> ScanItem:
    """The item of a row. `prompt` includes the options."""
    given = (tuple(words) for answer in answers for words in spellings_of(answer))
    # Interning saves memory: ten thousand rows have few different words.
    spellings = tuple(tuple(map(sys.intern, words)) for words in spellings_of(prompt))
    return ScanItem(
        id, skill, spellings, tuple(dict.fromkeys(words for words in given if words)), benchmark
    )


def item_of_row(row: Mapping[str, Any]) -> ScanItem:
    """The item of an eval row: its prompt, and the options that are part of the question.

    A row with a subject asks a whole question. Another one may ask "Which of these is right?", as
    many texts do: options that its prompt does not show are part of it. Replies alone are not
    searched for, because refusals and final answers are short and common.
    """
    prompt, options = str(row["user"]), [str(option) for option in row.get("choice_options", [])]
    shown = set(words_of(prompt))
    if not row.get("subject") and not all({*words_of(option)} <= shown for option in options):
        prompt = "\n".join([prompt, *options])
    given = [*row.get("normalized_answers", []), *row.get("aliases", [])]
    given += [
        row.get(key)
        for key in ("normalized_answer", "final_answer", "expected", "reference_answer")
    ]
    return scan_item(
        str(row["id"]),
        str(row.get("skill", "other")),
        prompt,
        [answer for answer in given if answer],
    )


# ---- the definition of a match -------------------------------------------------------------------


def find_matches_slowly(
    items: Sequence[ScanItem], config: HonestyConfig, words: Sequence[str]
) -> Iterator[Match]:
    """Every match in a text, found by comparing each window of each size with each item.

    This is the definition and too slow for use. A property test compares the index with it.
    """
    long_runs, short_runs = (
        own_runs(items, size) for size in (config.hit_words, config.coverage_words)
    )
    for number, item in enumerate(items):
        whole = not any(long_runs[number])
        for n, spelling in enumerate(item.spellings):
            wholes = {spelling: 0} if whole and item.can_be_whole(spelling) else dict[Words, int]()
            by_rule: dict[Rule, dict[Words, int]] = {
                "run": long_runs[number][n],
                "coverage": short_runs[number][n],
                "whole": wholes,
            }
            for rule, runs in by_rule.items():
                for start, run in _occurrences(words, runs):
                    if rule != "whole" or is_specific(item, words, start, len(run)):
                        yield Match(rule, number, start, len(run), n, runs[run])


def own_runs(items: Sequence[ScanItem], size: int) -> list[list[dict[Words, int]]]:
    """For each spelling of each item: run of `size` words -> the word at which it first begins.

    Template and runs with few different words are left out.
    """
    runs = [[_runs(words, size) for words in item.spellings] for item in items]
    prompts_with: dict[tuple[object, Words], set[Words]] = defaultdict(set)
    for item, of_item in zip(items, runs, strict=True):
        for run in (run for of_spelling in of_item for run in of_spelling):
            prompts_with[item.family, run].add(item.prompt)
    template = {key for key, prompts in prompts_with.items() if len(prompts) > TEMPLATE_PROMPTS}
    return [
        [
            {run: place for run, place in of_spelling.items() if (item.family, run) not in template}
            for of_spelling in of_item
        ]
        for item, of_item in zip(items, runs, strict=True)
    ]


def _runs(words: Words, size: int) -> dict[Words, int]:
    runs = {words[i : i + size]: i for i in reversed(range(len(words) - size + 1))}
    return {run: place for run, place in runs.items() if len(set(run)) >= least_different(size)}


def least_different(size: int) -> int:
    """How many different words a run must have."""
    # Without this rule, puzzle rows such as `0 0 1 0 0 0` were found in tables of numbers.
    return size // 2


def is_specific(item: ScanItem, words: Sequence[str], start: int, size: int) -> bool:
    """Whether a whole prompt of `size` words is long enough, or an answer follows it closely."""
    if size >= SPECIFIC_WORDS:
        return True
    behind = words[start + size : start + size + ANSWER_WITHIN_WORDS]
    return any(True for _ in _occurrences(behind, dict.fromkeys(item.answers, 0)))


def _occurrences(words: Sequence[str], runs: Mapping[Words, int]) -> Iterator[tuple[int, Words]]:
    """(number of the first word, run) of every occurrence of these runs."""
    for size in sorted({len(run) for run in runs}):
        for start in range(len(words) - size + 1):
            if (run := tuple(words[start : start + size])) in runs:
                yield start, run
