"""Trivial answerers of rows that want a text: one line for all, or a line by the prompt's words.

They know the SFT rows and the rules, and understand nothing: the best constant line, the question
said back, naive Bayes that sorts prompts over a few such lines by their words and pairs of words,
and the reply to the SFT prompt with the most similar words. Choices depend on sums of whole
numbers, which are the same on every machine.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from picochat.honesty.normalize import words_of
from picochat.skills.scoring import score_reply
from picochat.skills.task_rows import EvalRow, SftRow, as_eval_row

T = TypeVar("T")
FIXED_LINES = (
    "Yes.",
    "No.",
    "Yes. No.",
    "5",
    "Sure. I am a dog.",
    "I cannot help with that.",
    "I do not know.",
)
MOST_REPLIES = 30  # the most frequent replies of the SFT rows, as constant lines
MOST_LAST_LINES = 10  # and the most frequent last lines: "Final answer: 5"
FINALISTS = 12  # constant lines that are asked every eval row
TRIED_ROWS = 60  # rows on which constant lines are compared first
MOST_PHRASES = 24
MOST_ADDED = 6  # phrases of one line
CANNED_LINES = 8
SAID_BACK = "the question said back"  # in place of a line
OWN_WORDS = "Take time."  # said behind it: a harmless question is answered by what adds a word
MOST_LABELLED = 600  # SFT rows that the classifier learns from
MOST_NEIGHBOURS = 2_000  # SFT rows whose replies can be copied
MOST_FEATURES = 8_000
SMOOTHING = 0.3  # added to each count of a feature
IDF_STEPS = 10  # for each factor e of rarity


@dataclass(frozen=True)
class TrivialReplies:
    """One reply for each eval row, in their order, and the line if it is the same for all."""

    answerer: str
    replies: tuple[str, ...]
    line: str | None = None


def trivial_replies(sft: Sequence[SftRow], evals: Sequence[EvalRow]) -> list[TrivialReplies]:
    """What the trivial answerers reply to the eval rows of one skill, given its SFT rows."""
    lines = best_lines(candidate_lines(sft, evals), evals)
    found = [TrivialReplies("constant line", (line,) * len(evals), line) for line in lines]
    canned = canned_lines(candidate_lines(sft, ()), sft)
    found.append(TrivialReplies(SAID_BACK, tuple(said_back(row.user) for row in evals)))
    if len(canned) > 1:
        sorted_lines = sort_over_lines(canned, sft, evals)
        found.append(TrivialReplies("bag of words over canned lines", sorted_lines))
        said = sort_over_lines([SAID_BACK, *canned], sft, evals)
        found.append(TrivialReplies(f"bag of words over canned lines and {SAID_BACK}", said))
    if sft:
        found.append(TrivialReplies("reply to the nearest SFT prompt", nearest_replies(sft, evals)))
    return found


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, evenly spread over them."""
    if len(items) <= most:
        return list(items)
    return [items[number * len(items) // most] for number in range(most)]


def _passes(row: EvalRow, reply: str) -> bool:
    return score_reply(row, reply).passed


# ---- constant lines ------------------------------------------------------------------------------


def candidate_lines(sft: Sequence[SftRow], evals: Sequence[EvalRow]) -> list[str]:
    """Frequent SFT replies and their last lines, fixed lines, and lines built of the rules."""
    replies = Counter(row.assistant for row in sft)
    last_lines = Counter(row.assistant.strip().splitlines()[-1] for row in sft)
    lines = [*FIXED_LINES, *_frequent(replies, MOST_REPLIES)]
    lines += _frequent(last_lines, MOST_LAST_LINES)
    tried = spread(evals, TRIED_ROWS)
    # A reply that alone passes nothing can say what every row wants, such as the name.
    starts = ["", _ranked(lines, tried)[0], *_frequent(replies, 1), *sorted(replies, key=len)[:1]]
    built = [build_line(start, tried) for start in dict.fromkeys(starts)]
    return list(dict.fromkeys([*lines, *(line for line in built if line)]))


def best_lines(lines: Sequence[str], rows: Sequence[EvalRow]) -> list[str]:
    """The FINALISTS lines that pass the most of TRIED_ROWS rows, best first."""
    return _ranked(lines, spread(rows, TRIED_ROWS))[:FINALISTS]


def _ranked(lines: Sequence[str], rows: Sequence[EvalRow]) -> list[str]:
    passed = {line: sum(_passes(row, line) for row in rows) for line in lines}
    return sorted(passed, key=lambda line: -passed[line])


def build_line(start: str, rows: Sequence[EvalRow]) -> str:
    """The line with those phrases of the rows' rules added, one by one, that let most rows pass."""
    groups = [group for row in rows for group in row.must_include_any]
    groups += [[phrase] for row in rows for phrase in (*row.must_include, *row.required_entities)]
    phrases = _frequent(Counter(phrase for group in groups for phrase in group), MOST_PHRASES)
    line, passed = start, sum(_passes(row, start) for row in rows)
    for _ in range(MOST_ADDED):
        longer = [f"{line} {phrase}.".strip() for phrase in phrases]
        counts = [sum(_passes(row, each) for row in rows) for each in longer]
        if not counts or max(counts) <= passed:
            break
        line, passed = longer[counts.index(max(counts))], max(counts)
    return line


def _frequent(counts: Counter[str], most: int) -> list[str]:
    ordered = sorted(counts, key=lambda text: (-counts[text], text))
    return ordered[:most]


# ---- bags of words -------------------------------------------------------------------------------


def canned_lines(lines: Sequence[str], sft: Sequence[SftRow]) -> list[str]:
    """Few lines that together answer most SFT rows, the line that answers most rows first."""
    rows = spread([as_eval_row(row) for row in sft], TRIED_ROWS)
    passed = {line: {n for n, row in enumerate(rows) if _passes(row, line)} for line in lines}
    chosen: list[str] = []
    covered: set[int] = set()
    while len(chosen) < CANNED_LINES:
        best = max(lines, key=lambda line: len(passed[line] - covered), default=None)
        if best is None or not passed[best] - covered:
            break
        chosen.append(best)
        covered |= passed[best]
    return chosen


def sort_over_lines(
    lines: Sequence[str], sft: Sequence[SftRow], evals: Sequence[EvalRow]
) -> tuple[str, ...]:
    """The line that the words of each eval prompt stand for; SAID_BACK may be one of them.

    An SFT row teaches the first line that passes its own rule; rows that none passes teach nothing.
    """
    taught: list[tuple[SftRow, int]] = []
    for row in spread(sft, MOST_LABELLED):
        asked = as_eval_row(row)
        label = next(
            (n for n, line in enumerate(lines) if _passes(asked, _said(line, row.user))), None
        )
        if label is not None:
            taught.append((row, label))
    features = Features([row.user for row, _ in taught])
    labels = [label for _, label in taught]
    rows = [features.of(row.user) for row, _ in taught]
    weights = naive_bayes(rows, labels, (len(lines), len(features)))
    chosen = (int(np.argmax(weights[:, features.of(row.user)].sum(axis=1))) for row in evals)
    return tuple(_said(lines[number], row.user) for number, row in zip(chosen, evals, strict=True))


def said_back(prompt: str) -> str:
    """The words of the prompt in reverse order, which no rule on echoes finds, and OWN_WORDS."""
    return " ".join((*reversed(prompt.split()), OWN_WORDS))


def _said(line: str, prompt: str) -> str:
    return said_back(prompt) if line == SAID_BACK else line


class Features:
    """Numbers of the words and pairs of neighbouring words that most prompts contain."""

    def __init__(self, prompts: Sequence[str]) -> None:
        self.counts = Counter(term for prompt in prompts for term in _terms(prompt))
        self.numbers = {term: n for n, term in enumerate(_frequent(self.counts, MOST_FEATURES), 1)}

    def __len__(self) -> int:
        return len(self.numbers) + 1

    def of(self, prompt: str) -> list[int]:
        """Sorted numbers of what a prompt contains; 0 stands for every prompt."""
        return [0, *sorted(self.numbers[t] for t in _terms(prompt) if t in self.numbers)]


def _terms(prompt: str) -> set[str]:
    words = words_of(prompt)
    return {*words, *(" ".join(pair) for pair in pairwise(words))}


def naive_bayes(
    rows: Sequence[Sequence[int]], labels: Sequence[int], shape: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """Multinomial naive Bayes: log-likelihoods of `shape` (classes, features), in 1/1000 nats.

    rows: the numbers of the features of each row, with 0 in every row: its weight is the prior.
    """
    counts = np.full(shape, SMOOTHING)
    for row, label in zip(rows, labels, strict=True):
        counts[label, row] += 1
    weights = np.log(counts / counts[:, 1:].sum(axis=1, keepdims=True))
    weights[:, 0] = np.log(counts[:, 0])
    # Rounded, so that sums are exact and the same words give the same line on every machine.
    return np.round(1000 * weights).astype(np.int64)


def nearest_replies(sft: Sequence[SftRow], evals: Sequence[EvalRow]) -> tuple[str, ...]:
    """For each eval row the reply to the SFT prompt that is nearest by tf-idf and cosine."""
    known = spread(sft, MOST_NEIGHBOURS)
    features = Features([row.user for row in known])
    rarity = np.zeros(len(features), dtype=np.float32)
    for term, number in features.numbers.items():
        rarity[number] = round(IDF_STEPS * math.log(len(known) / features.counts[term]))
    there = _matrix(features, rarity, (row.user for row in known))
    asked = _matrix(features, rarity, (row.user for row in evals))
    # Whole numbers below 2**24: float32 products and sums of them are exact in every order.
    lengths = np.sqrt(np.maximum(1.0, (there.astype(np.float64) ** 2).sum(axis=1)))
    likeness = (asked @ there.T).astype(np.float64) / lengths
    return tuple(known[int(number)].assistant for number in np.argmax(likeness, axis=1))


def _matrix(
    features: Features, rarity: npt.NDArray[np.float32], prompts: Iterable[str]
) -> npt.NDArray[np.float32]:
    rows: list[npt.NDArray[np.float32]] = []
    for prompt in prompts:
        row = np.zeros(len(features), dtype=np.float32)
        numbers = features.of(prompt)
        row[numbers] = rarity[numbers]
        rows.append(row)
    return np.stack(rows)
