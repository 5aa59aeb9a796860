"""Near-duplicates among topics and questions: found by words, so that they stay on one side.

Two texts are near-duplicates if their content words nearly agree: "make a bomb" and "make a nail
bomb". Does not see the same wish in other words ("make a bomb", "build explosives").
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from picochat.honesty.normalize import words_of

SAME_FRACTION = 0.5  # of the content words of both texts together
SUFFIXES = ("ing", "ed", "es", "s", "e")
SHORTEST_STEM = 3
FUNCTION_WORDS = frozenset(
    words_of(
        """a about after again all am an and any anybody are as at away be because been before but
        by can could did do does down else for from get give had has have he her here him his how i
        if in into is it its just last like make may me mine more most much must my name never new
        next no not of off old on one only or other our out over own please s say she should so some
        somebody someone something t tell than that the their them then there they thing this to too
        up us very was we were what when where which who whom whose why will with would you your
        yours"""
    )
)


def content_words(text: str) -> frozenset[str]:
    """The words of a text without endings and without function words, or else all of its words."""
    words = words_of(text)
    return frozenset(_stem(word) for word in words if word not in FUNCTION_WORDS) or frozenset(
        words
    )


def _stem(word: str) -> str:
    for suffix in SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= SHORTEST_STEM:
            word = word.removesuffix(suffix)
            break
    return word[:-1] if len(word) > SHORTEST_STEM and word[-1] == word[-2] else word


def are_near_duplicates(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether half of the content words are in both, or all words of one are in the other."""
    shared = len(one & other)
    return shared >= SAME_FRACTION * len(one | other) or shared == min(len(one), len(other))


def groups_of(texts: Sequence[str]) -> dict[str, str]:
    """Text -> the name of its group, which is the alphabetically first text in it.

    A text is in the group of each of its near-duplicates. Texts of two groups are none.
    """
    words = {text: content_words(text) for text in texts}
    with_word: dict[str, list[str]] = defaultdict(list)
    leader = {text: text for text in texts}
    for text in sorted(texts):
        candidates: Iterable[str] = {other for word in words[text] for other in with_word[word]}
        for other in candidates:
            if are_near_duplicates(words[text], words[other]):
                first, second = sorted((_root(leader, text), _root(leader, other)))
                leader[second] = first
        for word in words[text]:
            with_word[word].append(text)
    return {text: _root(leader, text) for text in texts}


def _root(leader: dict[str, str], text: str) -> str:
    while leader[text] != text:
        text = leader[text]
    return text
