"""Which eval items the SFT rows contain: by item, by whole prompt, or by words.

By words: an SFT row that holds the answer of an eval row close to what that row asks about answers
it, in whatever form ("We use scissors to cut paper"). Only rows with a `subject` are compared by
words. Does not see other words for the same thing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from picochat.honesty.normalize import normalized_text, words_of
from picochat.skills.choice import listing
from picochat.skills.task_rows import EvalRow, SftRow

WITHIN_WORDS = 20  # between subject and answer: as far as a question is from its answer
# Words that say nothing about a subject.
FUNCTION_WORDS = frozenset(
    words_of(
        "a an the this that what which who how many much when do does is are be of to with have has"
        " on in it its we you i he she they our your my there into call called people tell me"
    )
)
ENDINGS = ("ing", "ed", "es", "s")
SHORTEST_STEM = 3


@dataclass(frozen=True)
class _Asked:
    """An eval row by its words: what it asks about, and its answer."""

    row: EvalRow
    subject: frozenset[str]
    answer: tuple[str, ...]
    stemmed: bool


class EvalItems:
    """The items of eval rows, to be looked for in SFT rows and other texts."""

    def __init__(self, evals: Iterable[EvalRow]) -> None:
        self._rows = list(evals)
        self._items = {row.item for row in self._rows if row.item}
        self._by_answer: dict[str, list[_Asked]] = defaultdict(list)
        for row in self._rows:
            if row.subject and row.reference_answer:
                asked = _asked(row, row.subject, row.reference_answer)
                self._by_answer[asked.answer[0]].append(asked)

    def in_rows(self, sft: Iterable[SftRow]) -> set[str]:
        """The items that these SFT rows contain."""
        items: set[str] = set()
        prompts: set[str] = set()
        answered: set[str] = set()
        for row in sft:
            prompts.add(normalized_prompt(row))
            if row.item:
                items.add(row.item)
            answered |= self.answered_by(row)
        same = {
            item_of(row)
            for row in self._rows
            if row.item in items or normalized_prompt(row) in prompts
        }
        return same | answered

    def answered_by(self, row: SftRow) -> set[str]:
        """The items that the words of one SFT row answer. Its list of options is not read."""
        # A list holds answers of other questions, of which none is said to be right.
        options = (
            "" if not row.choice_options else listing("", row.choice_labels, row.choice_options)
        )
        turns = [message.content for message in row.history]
        return self.answered_in("\n".join((*turns, row.user.removesuffix(options), row.assistant)))

    def answered_in(self, text: str) -> set[str]:
        """The items that the words of a text answer."""
        words = words_of(text)
        stems = [_stem(word) for word in words]
        return {
            item_of(asked.row)
            for word in {*words, *stems}
            for asked in self._by_answer.get(word, ())
            if _answers(stems if asked.stemmed else words, asked)
        }


def item_of(row: SftRow | EvalRow) -> str:
    """The row's item, or its group if it has no item, or else its prompt."""
    return row.item or row.group or normalized_prompt(row)


def normalized_prompt(row: SftRow | EvalRow) -> str:
    """All that stands before the last reply, normalized: many chats end in the same question."""
    turns = [message.content for message in row.history]
    return normalized_text("\n".join([*turns, row.user]))


def _asked(row: EvalRow, subject: str, answer: str) -> _Asked:
    # Where only endings tell subject and answer apart ("bus", "buses"), the words are compared.
    stemmed = not {*_content(subject, True)} & {*_content(answer, True)}
    words = frozenset(_content(subject, stemmed))
    return _Asked(row, words, tuple(_content(answer, stemmed)), stemmed)


def _content(text: str, stemmed: bool) -> list[str]:
    """The words of a text that are no function words, or all where there is no other."""
    words = words_of(text)
    kept = [word for word in words if word not in FUNCTION_WORDS] or words
    return [_stem(word) for word in kept] if stemmed else kept


def _stem(word: str) -> str:
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= SHORTEST_STEM:
            return word.removesuffix(ending)
    return word


def _answers(words: Sequence[str], asked: _Asked) -> bool:
    """Whether the answer stands in the text with half of the subject's words close to it."""
    return any(
        2 * len(asked.subject & {*near}) >= len(asked.subject)
        for near in _around(words, asked.answer)
    )


def _around(words: Sequence[str], run: tuple[str, ...]) -> Iterator[Sequence[str]]:
    """For each occurrence of `run`: the words within WITHIN_WORDS before it and after it."""
    size = len(run)
    for start in range(len(words) - size + 1):
        if tuple(words[start : start + size]) == run:
            before = words[max(0, start - WITHIN_WORDS) : start]
            yield [*before, *words[start + size : start + size + WITHIN_WORDS]]
