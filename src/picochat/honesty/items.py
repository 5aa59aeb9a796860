"""What the scan looks for: one item for each row, and the definition of where a text holds it.

A run is an n-gram of words. There are three kinds of match: a run of 13 words (a hit wherever it
stands), runs of 8 words (for the coverage), and the whole prompt of an item that has no 13-word run
of its own. A run that stands in more than three different prompts of one skill, or of one
benchmark, is template: it belongs to no single item, and is left out. So is a run that repeats
itself (`0 0 1 0 0 0`). Sees words only: no paraphrase, no translation. docs/decisions/0008 has the
reasons.
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

# A run in more prompts of one skill than this is template. Only the rows that measure are counted:
# if SFT rows made template, a row that leaked many times would hide itself.
TEMPLATE_PROMPTS = 3
# A prompt of fewer words ("Who are you?") stands in every novel, so it counts only with one of its
# answers close behind.
SPECIFIC_WORDS = 6
ANSWER_WITHIN_WORDS = 20


@dataclass(frozen=True)
class ScanItem:
    """One row as the scan sees it; `scan_item` makes it of texts.

    spellings: every way to write the prompt, the plain one first. answers: any of them, close
    behind, makes a very short prompt specific. benchmark: None for our own eval rows.
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
        """Among whose prompts a shared run is template."""
        return (None, self.skill) if self.benchmark is None else (self.benchmark, "")

    def can_be_whole(self, spelling: Words) -> bool:
        """Whether the whole prompt says enough to be looked for."""
        return len(spelling) >= SPECIFIC_WORDS or bool(spelling and self.answers)


class Match(NamedTuple):
    """Words [start, start + size) of a text equal those of an item's spelling from `place` on.

    item, spelling: by number.
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
    """The item of a row. `prompt`: all that makes the row recognizable, options included."""
    given = (tuple(words) for answer in answers for words in spellings_of(answer))
    # Interned: ten thousand rows have few different words.
    spellings = tuple(tuple(map(sys.intern, words)) for words in spellings_of(prompt))
    return ScanItem(
        id, skill, spellings, tuple(dict.fromkeys(words for words in given if words)), benchmark
    )


def item_of_row(row: Mapping[str, Any]) -> ScanItem:
    """The item of an eval row: its prompt, with the options that the prompt does not show.

    Replies are not looked for by themselves: refusals and final answers are short and common.
    """
    prompt, options = str(row["user"]), [str(option) for option in row.get("choice_options", [])]
    shown = set(words_of(prompt))
    if not all(set(words_of(option)) <= shown for option in options):
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


# ---- the definition: slow, and what the fast path is held against --------------------------------


def find_matches_slowly(
    items: Sequence[ScanItem], config: HonestyConfig, words: Sequence[str]
) -> Iterator[Match]:
    """Every match in a text: each window of each size is compared with each item.

    The definition, too slow to use: a property test holds `index.find_matches` against it.
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
                for start, run in _standing(words, runs):
                    if rule != "whole" or is_specific(item, words, start, len(run)):
                        yield Match(rule, number, start, len(run), n, runs[run])


def own_runs(items: Sequence[ScanItem], size: int) -> list[list[dict[Words, int]]]:
    """For each spelling of each item: run of `size` words -> where it first begins.

    Without template and without runs that repeat themselves.
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
    """How many different words a run must have: half its length."""
    # Without this rule, puzzle rows of `0 0 1 0 0 0` are found in every table of numbers.
    return size // 2


def is_specific(item: ScanItem, words: Sequence[str], start: int, size: int) -> bool:
    """Whether a whole prompt is long enough to be the item, or an answer stands close behind."""
    if size >= SPECIFIC_WORDS:
        return True
    behind = words[start + size : start + size + ANSWER_WITHIN_WORDS]
    return any(True for answer in item.answers for _ in _standing(behind, {answer: 0}))


def _standing(words: Sequence[str], runs: Mapping[Words, int]) -> Iterator[tuple[int, Words]]:
    """(first word, run) of each of these runs that stands in a text."""
    for size in sorted({len(run) for run in runs}):
        for start in range(len(words) - size + 1):
            if (run := tuple(words[start : start + size])) in runs:
                yield start, run
