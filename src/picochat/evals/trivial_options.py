"""Trivial answerers of rows with options: each chooses one without understanding the question.

By place, length, letters that question and option share, how often SFT rows have the option as
their answer, and how often a sample of the corpus has its words, alone or near those of the
question. Of equal options the first is chosen; rows give the right option any place.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from pydantic import Field

from picochat.core.records import Record
from picochat.honesty.normalize import words_of
from picochat.skills.task_rows import EvalRow, SftRow

NEAR_WORDS = 20  # between a word of the question and an option in the corpus
MOST_PROMPTS_WITH = 0.01  # fraction of the prompts; a word of more of them is part of a wording
LEAST_PROMPTS_WITH = 3
RARE_OPTION = 5  # added to the occurrences of an option, so that one of few is not near by chance

Phrase = tuple[str, ...]


class OptionCounts(Record):
    """Occurrences in the sample of the corpus, for each option of a row, in their order."""

    alone: list[int]
    near: list[int] = Field(description="pairs of the option and a word of the question")


def has_options(row: EvalRow) -> bool:
    return row.correct_choice is not None and len(row.choice_options) > 1


def trivial_choices(
    sft: Sequence[SftRow], rows: Sequence[EvalRow], counts: Mapping[str, OptionCounts]
) -> dict[str, list[int]]:
    """Answerer -> the option that it chooses in each row. counts: by row id, of the corpus."""
    answers = Counter(
        option
        for row in sft
        for label, option in zip(row.choice_labels, row.choice_options, strict=False)
        if label == row.correct_choice
    )
    subjects = subject_words(rows, sft)
    most = max((len(row.choice_options) for row in rows), default=0)
    choose: dict[str, Callable[[EvalRow], Sequence[float]]] = {
        f"place {place + 1}": lambda row, place=place: [
            n == place for n in range(len(row.choice_options))
        ]
        for place in range(most)
    }
    choose |= {
        "longest option": lambda row: [len(option) for option in row.choice_options],
        "shortest option": lambda row: [-len(option) for option in row.choice_options],
        "frequent SFT answer": lambda row: [answers[option] for option in row.choice_options],
        "rare SFT answer": lambda row: [-answers[option] for option in row.choice_options],
        "shared letters": lambda row: _shared_letters(subjects[row.id], row.choice_options),
    }
    if counts:
        choose |= {
            "frequent in the corpus": lambda row: counts[row.id].alone,
            "rare in the corpus": lambda row: [-count for count in counts[row.id].alone],
            "nearness in the corpus": lambda row: counts[row.id].near,
            "nearness over frequency in the corpus": lambda row: [
                near / (alone + RARE_OPTION)
                for near, alone in zip(counts[row.id].near, counts[row.id].alone, strict=True)
            ],
        }
    return {
        name: [_first_largest(numbers(row)) for row in rows] for name, numbers in choose.items()
    }


def _first_largest(numbers: Sequence[float]) -> int:
    return max(range(len(numbers)), key=lambda number: (numbers[number], -number))


def _shared_letters(subject: Iterable[str], options: Sequence[str]) -> list[float]:
    """For each option the fraction of its different letters that the subject has."""
    asked = set("".join(subject))
    letters = [set("".join(words_of(option))) for option in options]
    return [len(found & asked) / max(1, len(found)) for found in letters]


def subject_words(rows: Sequence[EvalRow], sft: Sequence[SftRow]) -> dict[str, list[str]]:
    """Row id -> the words of its question that few questions have, so not those of a wording."""
    questions = {row.id: _question(row) for row in rows}
    asked = [*questions.values(), *(_question(row) for row in sft)]
    prompts_with = Counter(word for words in asked for word in set(words))
    few = max(LEAST_PROMPTS_WITH, int(MOST_PROMPTS_WITH * len(asked)))
    return {
        id: sorted({word for word in words if prompts_with[word] <= few})
        for id, words in questions.items()
    }


def _question(row: EvalRow | SftRow) -> list[str]:
    """The words of the prompt without the lines that list its options."""
    options = [words_of(option) for option in row.choice_options]
    found: list[str] = []
    for line in row.user.splitlines():
        words = words_of(line)
        if not any(words[-len(o) :] == o and len(words) <= len(o) + 1 for o in options if o):
            found += words
    return found


def count_options(
    rows: Sequence[EvalRow], subjects: Mapping[str, Sequence[str]], texts: Iterable[str]
) -> dict[str, OptionCounts]:
    """Row id -> how often the texts have each option, and near words of the row's question."""
    phrases = {row.id: [tuple(words_of(option)) for option in row.choice_options] for row in rows}
    asked: dict[Phrase, set[str]] = {}
    for id, options in phrases.items():
        for option in options:
            if option:
                asked.setdefault(option, set()).update(subjects[id])
    alone, near = _count(asked, texts)
    return {
        id: OptionCounts(
            alone=[alone[option] for option in options],
            near=[sum(near[option, word] for word in subjects[id]) for option in options],
        )
        for id, options in phrases.items()
    }


def _count(
    asked: Mapping[Phrase, set[str]], texts: Iterable[str]
) -> tuple[Counter[Phrase], Counter[tuple[Phrase, str]]]:
    """(occurrences of each phrase; pairs of it and one of its words, NEAR_WORDS apart or less)."""
    by_last: dict[str, list[Phrase]] = {}
    for phrase in asked:
        by_last.setdefault(phrase[-1], []).append(phrase)
    words_asked = {word for words in asked.values() for word in words}
    wanted = words_asked | set(by_last)
    alone: Counter[Phrase] = Counter()
    near: Counter[tuple[Phrase, str]] = Counter()
    for text in texts:
        words = words_of(text)
        recent_words: deque[tuple[int, str]] = deque()
        recent_phrases: deque[tuple[int, Phrase]] = deque()
        for place, word in enumerate(words):
            if word not in wanted:
                continue
            for recent in (recent_words, recent_phrases):
                while recent and recent[0][0] < place - NEAR_WORDS:
                    recent.popleft()
            for before, phrase in recent_phrases:
                if word in asked[phrase] and before < place:
                    near[phrase, word] += 1
            for phrase in by_last.get(word, ()):
                if tuple(words[max(0, place + 1 - len(phrase)) : place + 1]) == phrase:
                    alone[phrase] += 1
                    for before, other in recent_words:
                        if other in asked[phrase] and before <= place - len(phrase):
                            near[phrase, other] += 1
                    recent_phrases.append((place, phrase))
            if word in words_asked:
                recent_words.append((place, word))
    return alone, near
