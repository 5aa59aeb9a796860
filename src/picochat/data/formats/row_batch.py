"""Rows as their file gives them, one at a time or many at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from picochat.data.formats.usable import text_problem

LONGEST_ID_CHARACTERS = 1000
Wanted = Sequence[bool]  # one flag for each row of a file


class Row(NamedTuple):
    """One row as its file gives it.

    `number` counts from 0 in the file; `text` is MISSING where the column is absent.
    """

    number: int
    id: str | None
    text: object


class RowBatch(NamedTuple):
    """Rows `first`, `first` + 1, ... of a file.

    `ids` None: the file's rows have no ids of their own, or nobody asked.
    """

    first: int
    texts: list[object]
    ids: list[str | None] | None

    def part(self, start: int, stop: int) -> RowBatch:
        """The rows at these positions of the batch."""
        return RowBatch(
            self.first + start, self.texts[start:stop], self.ids[start:stop] if self.ids else None
        )

    def rows(self) -> Iterator[Row]:
        ids = self.ids or [None] * len(self.texts)
        for number, (id, text) in enumerate(zip(ids, self.texts, strict=True), start=self.first):
            yield Row(number, id, text)


def usable_id(given: object) -> str | None:
    """A record's own id where it is one: usable text of a length to print, or a whole number."""
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str) or len(given) > LONGEST_ID_CHARACTERS:
        return None
    return given if text_problem(given) is None else None
