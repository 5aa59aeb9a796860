"""Text as the contamination scan sees it: words without case, punctuation, compatibility forms and line breaks.

A word is a run of letters and digits after NFKC and lower case; all else only separates. Languages written without
spaces give one word for a whole run: there the scan sees little. Says nothing about meaning.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

WORD = re.compile(r"[^\W_]+")
CHUNK = re.compile(r"\S+")


def words_of(text: str) -> list[str]:
    """The normalized words of a text."""
    return WORD.findall(_normal(text))


def normalized_text(text: str) -> str:
    """The normalized words, one space between them: equal for texts that differ only in case, punctuation and breaks."""
    return " ".join(words_of(text))


def words_with_offsets(text: str) -> Iterator[tuple[str, int]]:
    """(word, character offset in the text as given). The same words as `words_of`.

    The offset is exact where normalization keeps lengths; elsewhere it is the start of the run between two spaces.
    """
    for chunk in CHUNK.finditer(text):
        normal = _normal(chunk.group())
        same_length = len(normal) == len(chunk.group())
        for word in WORD.finditer(normal):
            yield word.group(), chunk.start() + (word.start() if same_length else 0)


def _normal(text: str) -> str:
    """NFKC of the lower case; plain ASCII, the common case, needs no NFKC."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
