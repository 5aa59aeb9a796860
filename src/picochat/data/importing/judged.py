"""Rows judged and written out as the lines of shards, many at once, by the thread that read them.

What needs the order of the whole import (repeated texts, which shard) is not decided here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import xxhash

from picochat.data.document_lines import document_lines
from picochat.data.formats.row_batch import RowBatch
from picochat.data.formats.usable import encoded_text

PREVIEW_CHARACTERS = 160


@dataclass(frozen=True)
class JudgedRows:
    """Rows first, first + 1, ... of a file in parallel lists; a row without usable text has a
    problem and an empty line.

    `heads`: position -> (characters, the first of them on one line) of the rows without usable
    text.
    """

    file: int
    first: int
    problems: list[str | None]
    lines: list[bytes]
    characters: list[int]
    text_bytes: list[int]
    digests: list[bytes]
    heads: dict[int, tuple[int, str]]

    def __len__(self) -> int:
        return len(self.problems)

    def head(self, rows: int) -> JudgedRows:
        """The first `rows` of them."""
        if rows >= len(self):
            return self
        parts = {
            name: getattr(self, name)[:rows]
            for name in ("problems", "lines", "characters", "text_bytes", "digests")
        }
        return replace(self, **parts)

    def line_bytes(self) -> int:
        return sum(map(len, self.lines))


def judge_rows(batch: RowBatch, file: int, name: str, min_chars: int) -> JudgedRows:
    """The batch's rows as documents `<name>#<row>`, or the reason why a row is none."""
    problems: list[str | None] = []
    texts: list[bytes] = []
    characters: list[int] = []
    heads: dict[int, tuple[int, str]] = {}
    for position, text in enumerate(batch.texts):
        problem, data = encoded_text(text)
        if problem is not None:
            heads[position] = _head(text)
            characters.append(0)
        else:
            assert isinstance(text, str)
            characters.append(len(text))
            problem = "below_min_chars" if len(text) < min_chars else None
        problems.append(problem)
        texts.append(data)
    return JudgedRows(
        file=file,
        first=batch.first,
        problems=problems,
        lines=document_lines(texts, f"{name}#", batch.first),
        characters=characters,
        text_bytes=[len(data) for data in texts],
        digests=[xxhash.xxh3_128_digest(data) for data in texts],
        heads=heads,
    )


def shown(text: str) -> str:
    """The beginning of a text on one line, printable whatever it holds."""
    head = " ".join(text[: 2 * PREVIEW_CHARACTERS].split())[:PREVIEW_CHARACTERS]
    return head.encode("utf-8", errors="replace").decode()


def _head(text: object) -> tuple[int, str]:
    return (len(text), shown(text)) if isinstance(text, str) else (0, "")
