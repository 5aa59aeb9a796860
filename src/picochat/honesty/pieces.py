"""Long texts in pieces that overlap, so that one of any length is scanned in little memory and
nothing is lost at the cuts.

A cut lies at white space, else at a mark; a stretch of 4,096 characters without either may be cut
anywhere. Each piece reads on until it holds the words that a match at its end may need, but at most
16,384 characters: words that lie farther apart are not taken for neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from picochat.honesty.normalize import words_of

PIECE_CHARACTERS = 16_384
CUT_WITHIN = 4_096
CUTS = (
    re.compile(r"\s"),
    re.compile("[,.!?:\u3001\u3002\uff0c\uff01\uff1f]"),
)  # none of them stands in an HTML entity
LOOK_PER_WORD = 8  # characters; less would often be too few, and be counted twice
END_OF_WORD = re.compile(r"[0-9A-Za-z]\s")  # at least so many words, and quick to count


def pieces_of(
    text: str, reach_words: int, piece_characters: int = PIECE_CHARACTERS
) -> Iterator[tuple[int, str]]:
    """(offset, piece): together they hold every run of up to `reach_words` words, each run whole in
    at least one piece.
    """
    if len(text) <= piece_characters:
        yield from [(0, text)] if text else []
        return
    start = 0
    while start < len(text):
        end = _cut(text, start + piece_characters)
        yield start, text[start : _read_on(text, end, reach_words, piece_characters)]
        start = end


def _cut(text: str, place: int) -> int:
    if place >= len(text):
        return len(text)
    found = (pattern.search(text, place, place + CUT_WITHIN) for pattern in CUTS)
    return next((match.start() for match in found if match), place)


def _read_on(text: str, end: int, words: int, most: int) -> int:
    """The end of a stretch from `end` on that holds so many words."""
    look = LOOK_PER_WORD * words
    while end < len(text):
        further = _cut(text, end + look)
        if look >= most or further >= len(text) or _holds(text[end:further], words):
            return further
        look *= 2
    return end


def _holds(text: str, words: int) -> bool:
    if "&" not in text and len(END_OF_WORD.findall(text)) >= words:
        return True
    return len(words_of(text)) >= words
