"""Whether a reply fits the question that it answers, by the words it says.

Each topic has phrases of which a fitting reply holds one or more. A line that holds phrases of many
topics would pass them all, so a reply must also hold more phrases of its own topic than of nearly
all others. Reads words and not meaning: a wrong answer in fitting words fits.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable

from picochat.honesty.normalize import words_of


class Topics:
    """The phrases of all topics of a skill, to compare a reply with.

    most: of how many topics one reply may hold as many phrases as of the topic it is asked about,
    that topic included. No reply fits more topics than that, whatever it says.
    """

    def __init__(self, topics: Iterable[Collection[str]], most: int) -> None:
        self.most = most
        self._with_phrase: defaultdict[str, list[int]] = defaultdict(list)
        for number, phrases in enumerate(topics):
            for phrase in {normalized(phrase) for phrase in phrases}:
                self._with_phrase[phrase].append(number)
        self._longest = max(len(phrase.split()) for phrase in self._with_phrase)

    def fits(self, reply: str, asked: Iterable[str]) -> bool:
        """Whether the reply fits the topic with the phrases `asked`."""
        said = _runs(words_of(reply), self._longest)
        own = len(said & {normalized(phrase) for phrase in asked})
        held = Counter(number for run in said for number in self._with_phrase.get(run, ()))
        return own > 0 and sum(count >= own for count in held.values()) <= self.most


def normalized(phrase: str) -> str:
    return " ".join(words_of(phrase))


def _runs(words: list[str], longest: int) -> set[str]:
    """Every run of up to `longest` consecutive words."""
    return {
        " ".join(words[start : start + length])
        for length in range(1, longest + 1)
        for start in range(len(words) - length + 1)
    }
