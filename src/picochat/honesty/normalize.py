"""Normalized words, for the contamination scan and for the scoring of replies.

HTML entities are decoded (`&#39;`, `&nbsp;`, `&amp;quot;`), then NFKC is applied, then case is
folded. A word is a run of letters and digits; everything else separates words. In scripts that are
written without spaces, each character is a word. `word_hashes` computes the same words faster.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator

# Thai, Lao, Tibetan, Myanmar, Khmer, kana and Han have no spaces between words. Without this rule,
# a Chinese row would be one word and too short to search for.
SPACELESS = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
SPACELESS_CHARACTER = re.compile(f"[{SPACELESS}]")
WORD = re.compile(rf"[^\W_{SPACELESS}]+|[^\W_](?<=[{SPACELESS}])")

# The parts of a text that are normalized one by one to find offsets: a run of ASCII without
# entities, whose length normalization keeps, or else the characters between two white spaces.
STRETCH = re.compile(r"[\x00-%'-\x7f]+(?=\s|\Z)|\S+")
MARK = re.compile(r"[^\w\s]|_")
APOSTROPHE = re.compile("(?<=\\w)['\u2019\u02bc](?=\\w)")
# Pages that were escaped twice contain `&amp;quot;`, which a reader takes for the same character.
ENTITY = re.compile(r"&(?:amp;)*(#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def words_of(text: str) -> list[str]:
    """The normalized words of a text."""
    return WORD.findall(_normal(text))


def normalized_text(text: str) -> str:
    """The normalized words with one space between them."""
    return " ".join(words_of(text))


def spellings_of(text: str) -> list[list[str]]:
    """The different spellings that cleaning may give a text; the first is `words_of(text)`.

    Cleaning turns `don't` into `don t` or `dont`, and `well-known` into `wellknown`. So marks are
    read as separators, then without apostrophes, then without any marks.
    """
    read = read_entities(text)
    found = [words_of(text), words_of(APOSTROPHE.sub("", read)), words_of(MARK.sub("", read))]
    return [words for number, words in enumerate(found) if words not in found[:number]]


def words_with_offsets(text: str) -> Iterator[tuple[str, int]]:
    """The words of `words_of`, each with its character offset in `text`.

    Where normalization changes the length of a part, its words have the offset of the part.
    """
    for chunk in STRETCH.finditer(text):
        normal = _normal(chunk.group())
        same_length = len(normal) == len(chunk.group())
        for word in WORD.finditer(normal):
            yield word.group(), chunk.start() + (word.start() if same_length else 0)


def read_entities(text: str) -> str:
    """The text with HTML entities replaced by their characters; unknown names are kept."""
    return ENTITY.sub(lambda found: html.unescape(f"&{found[1]};"), text) if "&" in text else text


def _normal(text: str) -> str:
    # Case is folded, because `STRASSE` must equal `Straße`. NFKC does not change ASCII.
    text = read_entities(text)
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
