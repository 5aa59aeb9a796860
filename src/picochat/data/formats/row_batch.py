"""Rows of a file, many at a time, and whether the text of a row is usable.

Imports, previews and corpora share this one test; every refusal has a named reason. Length in
words, language, quality, --min-chars and repeated texts are matters of the reader.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

# Some thirty novels. What is longer is a dump of something, and a document is held in memory whole.
LONGEST_DOCUMENT_CHARACTERS = 20_000_000
LONGEST_ID_CHARACTERS = 1000
Wanted = Sequence[bool]  # one flag for each row of a file


class _NoText:
    """What a row holds instead of a text. `problem` is the reason that is counted."""

    def __init__(self, problem: str) -> None:
        self.problem = problem

    def __repr__(self) -> str:
        return f"<{self.problem}>"


MISSING: Final = _NoText("missing_text_column")
TOO_LONG: Final = _NoText("too_long")
NOT_UTF8: Final = _NoText("not_utf8")

TEXT_PROBLEMS: tuple[tuple[str, str], ...] = (
    # reason                 the row's text
    ("missing_text_column", "is absent"),
    ("text_not_string", "is null or of another type"),
    ("not_utf8", "is not UTF-8"),
    ("empty_text", "is empty or blank"),
    ("too_long", f"has more than {LONGEST_DOCUMENT_CHARACTERS:,} characters"),
    ("nul_character", "holds a NUL character"),
    ("lone_surrogate", "holds half of a surrogate pair"),
)


def text_problem(text: object) -> str | None:
    """Why a row has no usable text: the first reason of TEXT_PROBLEMS that applies, or None."""
    return encoded_text(text)[0]


def encoded_text(text: object) -> tuple[str | None, bytes]:
    """(None, the text as UTF-8), or (the reason why there is no usable text, no bytes)."""
    # The order of the tests is part of the result: reports count one reason for each row.
    if isinstance(text, _NoText):
        return text.problem, b""
    if not isinstance(text, str):
        return "text_not_string", b""
    if not text or text.isspace():
        return "empty_text", b""
    if len(text) > LONGEST_DOCUMENT_CHARACTERS:
        return "too_long", b""
    if "\0" in text:  # the separator of texts that are escaped together, see document_shards.py
        return "nul_character", b""
    try:
        return None, text.encode()
    except UnicodeEncodeError:
        return "lone_surrogate", b""


class Row(NamedTuple):
    """One row as its file gives it.

    number: counts from 0 in the file. text: MISSING where the column is absent.
    """

    number: int
    id: str | None
    text: object


class RowBatch(NamedTuple):
    """Rows `first`, `first` + 1, ... of a file.

    ids: None where the file's rows have no ids of their own, or where they were not asked for.
    """

    first: int
    texts: list[object]
    ids: list[str | None] | None

    def part(self, start: int, stop: int) -> RowBatch:
        """The rows at these positions of the batch."""
        ids = self.ids[start:stop] if self.ids else None
        return RowBatch(self.first + start, self.texts[start:stop], ids)

    def rows(self) -> Iterator[Row]:
        """The rows one by one."""
        ids = self.ids or [None] * len(self.texts)
        for number, (id, text) in enumerate(zip(ids, self.texts, strict=True), start=self.first):
            yield Row(number, id, text)


def usable_id(given: object) -> str | None:
    """A record's own id where it can be one: a whole number, or usable text of some length."""
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str) or len(given) > LONGEST_ID_CHARACTERS:
        return None
    return given if text_problem(given) is None else None
