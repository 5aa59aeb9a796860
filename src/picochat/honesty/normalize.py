"""Normalized words, for the contamination scan and for the scoring of replies.

HTML entities are decoded (`&#39;`, `&nbsp;`, `&amp;quot;`), characters without a shape are dropped,
then NFKC is applied, case is folded, and letters of other alphabets become the Latin letters that
they look like: a reader sees no difference, and somebody may write them to hide a text. A word is a
run of letters and digits; everything else separates words. In scripts that are written without
spaces, each character is a word. `word_hashes` computes the same words faster.
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

# Soft hyphen, joiners, zero-width spaces, marks of direction, and selectors of a variant or a tag.
SHAPELESS = re.compile(
    "[\u00ad\u034f\u061c\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f"
    "\ufeff\U000e0000-\U000e0fff]"
)
# Of small letters, since case is folded before. Where only the capital looks alike, it decides. In
# a language that uses these letters a text still has the same words as any copy of it.
LOOK_ALIKES = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445"  # Cyrillic
    "\u0455\u0456\u0458\u0475\u04af\u04bb\u04cf\u0501\u051b\u051d"
    "\u03b1\u03b2\u03b5\u03b6\u03b7\u03b9\u03ba\u03bc\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7"  # Greek
    "\u0570\u0578\u057d\u0585"  # Armenian
    "\u0131\u0237\u0251\u0261"  # Latin without a dot, and of phonetics
    "\u1d00\u0299\u1d04\u1d05\u1d07\ua730\u0262\u029c\u026a\u1d0a\u1d0b\u029f\u1d0d\u0274\u1d0f\u1d18"
    "\u0280\ua731\u1d1b\u1d1c\u1d20\u1d21\u028f\u1d22",  # small capitals
    "abekmhopctyxsijvyhldqwabezhikmvoptyxhnuoijagabcdefghijklmnoprstuvwyz",
)


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


def without_shapeless(text: str) -> str:
    """The text without the characters that have no shape."""
    return text if text.isascii() else SHAPELESS.sub("", text)


def normal_characters(text: str) -> str:
    """NFKC, case folded, letters as the Latin ones that they look like."""
    # Case is folded, because `STRASSE` must equal `Straße`. NFKC does not change ASCII.
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", text).casefold().translate(LOOK_ALIKES)


def _normal(text: str) -> str:
    return normal_characters(without_shapeless(read_entities(text)))
