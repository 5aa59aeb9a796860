"""Batches of rows, and the test whether a row's text is usable.

Imports, previews and corpora share this test. Each refusal has a named reason. Minimum length,
language, quality and repeated texts are tested elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

# About thirty novels. A document is held in memory whole, and a longer text is usually a data dump.
LONGEST_DOCUMENT_CHARACTERS = 20_000_000
LONGEST_ID_CHARACTERS = 1000
Wanted = Sequence[bool]  # one flag for each row of a file


class _NoText:
    """Stands for a text that is absent. problem: the reason that reports count."""

    def __init__(self, problem: str) -> None:
        self.problem = problem

    def __repr__(self) -> str:
        return f"<{self.problem}>"


MISSING: Final = _NoText("missing_text_column")
TOO_LONG: Final = _NoText("too_long")
NOT_UTF8: Final = _NoText("not_utf8")
UNREADABLE: Final = _NoText("unreadable_json")

TEXT_PROBLEMS: tuple[tuple[str, str], ...] = (
    # reason                 the row's text
    ("missing_text_column", "is absent"),
    ("text_not_string", "is null or of another type"),
    ("not_utf8", "is not UTF-8"),
    ("unreadable_json", "is in JSON of more than 500 levels, or beside a number of 4,300 digits"),
    ("empty_text", "is empty or blank"),
    ("too_long", f"has more than {LONGEST_DOCUMENT_CHARACTERS:,} characters"),
    ("nul_character", "holds a NUL character"),
    ("lone_surrogate", "holds half of a surrogate pair"),
)


def text_problem(text: object) -> str | None:
    """Why a row has no usable text: the first reason of TEXT_PROBLEMS that applies, or None."""
    return encoded_text(text)[0]


def encoded_text(text: object) -> tuple[str | None, bytes]:
    """(None, the text as UTF-8) for a usable text, else (reason, b"")."""
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
    """One row of a file.

    number: from 0 in the file. text: a str, another value of the file, or MISSING, TOO_LONG or
    NOT_UTF8.
    """

    number: int
    id: str | None
    text: object


class RowBatch(NamedTuple):
    """Rows `first`, `first` + 1, ... of a file.

    ids: None where the file has no id column or none was asked for.
    """

    first: int
    texts: list[object]
    ids: list[str | None] | None

    def part(self, start: int, stop: int) -> RowBatch:
        """The rows at positions start to stop of the batch."""
        ids = self.ids[start:stop] if self.ids else None
        return RowBatch(self.first + start, self.texts[start:stop], ids)

    def rows(self) -> Iterator[Row]:
        ids = self.ids or [None] * len(self.texts)
        for number, (id, text) in enumerate(zip(ids, self.texts, strict=True), start=self.first):
            yield Row(number, id, text)


def usable_id(given: object) -> str | None:
    """The value of an id column as an id: an integer, or usable text of bounded length.

    None for any other value.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str) or len(given) > LONGEST_ID_CHARACTERS:
        return None
    return given if text_problem(given) is None else None
