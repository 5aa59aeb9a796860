"""Normalized words: text without case, punctuation, compatibility forms, breaks and HTML entities.

Entities are read first (`&#39;`, `&nbsp;`, `&amp;quot;`), then NFKC, then case is folded. A word is
a run of letters and digits of what comes out; everything else separates words. In scripts that are
written without spaces each character is a word of its own. The contamination scan and the scoring
of replies read words by this file. It decides about a hit; `word_hashes` finds the same words
faster. Says nothing about meaning.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator

# Han, kana, Thai, Lao, Tibetan, Myanmar, Khmer: no spaces between words.
# Without this rule a Chinese row would be one word, and too short to look for.
SPACELESS = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
SPACELESS_CHARACTER = re.compile(f"[{SPACELESS}]")
WORD = re.compile(rf"[^\W_{SPACELESS}]+|[^\W_](?<=[{SPACELESS}])")

# Where offsets are as in the text: plain ASCII up to a white space, without entities; else whatever
# stands between two.
STRETCH = re.compile(r"[\x00-%'-\x7f]+(?=\s|\Z)|\S+")
MARK = re.compile(r"[^\w\s]|_")
APOSTROPHE = re.compile("(?<=\\w)['\u2019\u02bc](?=\\w)")
# `&amp;quot;` is what a page shows that was escaped twice; both are the same character to a reader.
ENTITY = re.compile(r"&(?:amp;)*(#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def words_of(text: str) -> list[str]:
    """The normalized words of a text."""
    return WORD.findall(_normal(text))


def normalized_text(text: str) -> str:
    """The normalized words with one space between them.

    Equal for texts that differ only in case, punctuation and line breaks.
    """
    return " ".join(words_of(text))


def spellings_of(text: str) -> list[list[str]]:
    """The words of a text in the spellings that other people's cleaning gives, its own first.

    Marks as separators, apostrophes dropped, all marks dropped: cleaning turns `don't` into `don t`
    or `dont`, and `well-known` into `wellknown`.
    """
    read = read_entities(text)
    found = [words_of(text), words_of(APOSTROPHE.sub("", read)), words_of(MARK.sub("", read))]
    return [words for number, words in enumerate(found) if words not in found[:number]]


def words_with_offsets(text: str) -> Iterator[tuple[str, int]]:
    """(word, character offset in the text as given).

    The same words as `words_of`. The offset is exact where normalization keeps lengths; elsewhere
    it is the start of the run between two spaces.
    """
    for chunk in STRETCH.finditer(text):
        normal = _normal(chunk.group())
        same_length = len(normal) == len(chunk.group())
        for word in WORD.finditer(normal):
            yield word.group(), chunk.start() + (word.start() if same_length else 0)


def read_entities(text: str) -> str:
    """The text with its HTML entities replaced by their characters.

    An unknown name stays as it is.
    """
    return ENTITY.sub(lambda found: html.unescape(f"&{found[1]};"), text) if "&" in text else text


def _normal(text: str) -> str:
    # Folded, not lowered: `STRASSE` must equal `Straße`. ASCII, the common case, needs no NFKC.
    text = read_entities(text)
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
