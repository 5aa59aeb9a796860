"""Whether a reply fits the question that it answers, by the words it says.

Each topic has phrases of which a fitting reply holds one or more. A line that holds phrases of many
topics would pass them all, so a reply must also fit its own topic better than nearly all others. A
phrase of few topics says more than one of many: "treasure" more than "choose". Reads words and not
meaning: a wrong answer in fitting words fits.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable

from picochat.honesty.normalize import words_of

WEIGHT_STEPS = 100
"""Of a phrase, for each factor e of rarity. Whole numbers, so that sums are equal anywhere."""


class Topics:
    """The phrases of all topics of a skill, to compare a reply with.

    most: how many topics one reply may fit as well as the topic that it is asked about, that topic
    included. No reply fits more topics than that, whatever it says.
    """

    def __init__(self, topics: Iterable[Collection[str]], most: int) -> None:
        self.most = most
        self._with_phrase: defaultdict[str, list[int]] = defaultdict(list)
        self._topics = 0
        for number, phrases in enumerate(topics):
            self._topics += 1
            for phrase in {normalized(phrase) for phrase in phrases}:
                self._with_phrase[phrase].append(number)
        self._longest = max(len(phrase.split()) for phrase in self._with_phrase)

    def fits(self, reply: str, asked: Iterable[str]) -> bool:
        """Whether the reply fits the topic with the phrases `asked`."""
        said = _runs(words_of(reply), self._longest)
        own = sum(self._weight(phrase) for phrase in said & {normalized(each) for each in asked})
        held: Counter[int] = Counter()
        for phrase in said:
            if having := self._with_phrase.get(phrase):
                held.update(dict.fromkeys(having, self._weight(phrase)))
        return own > 0 and sum(weight >= own for weight in held.values()) <= self.most

    def _weight(self, phrase: str) -> int:
        """The rarer, the more; at least 1. A phrase of no topic weighs as one of one topic."""
        having = len(self._with_phrase.get(phrase, ())) or 1
        return max(1, round(WEIGHT_STEPS * math.log(self._topics / having)))


def normalized(phrase: str) -> str:
    return " ".join(words_of(phrase))


def _runs(words: list[str], longest: int) -> set[str]:
    """Every run of up to `longest` consecutive words."""
    return {
        " ".join(words[start : start + length])
        for length in range(1, longest + 1)
        for start in range(len(words) - length + 1)
    }
