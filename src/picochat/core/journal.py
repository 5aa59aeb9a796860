"""A journal is a file with one JSON object per line; each line is appended and flushed.

A kill loses at most the line that is being written, and readers ignore a torn last line. A journal
holds no results: results are artifacts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from picochat.core.records import canonical_json, write_atomic


class Journal:
    """Append-only rows at `path`. A resume drops the rows that it will write again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, row: Mapping[str, object]) -> None:
        # The file is opened for each row because `replace` may put another file in its place
        # between two rows. Closing flushes the row.
        with self.path.open("ab") as stream:
            stream.write(canonical_json(dict(row)) + b"\n")

    def truncate_after(self, step: int) -> None:
        """Keep the rows whose `step` is at most `step`, and cut a torn tail."""
        self.replace([row for row in read_journal(self.path) if int(row.get("step", 0)) <= step])

    def replace(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Replace all rows at once. A kill leaves either the old rows or the new ones."""
        write_atomic(self.path, b"".join(canonical_json(dict(row)) + b"\n" for row in rows))


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The complete rows; empty if there is no journal."""
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    for line in path.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
        # A kill may tear the last line. A line of thousands of brackets raises RecursionError; it
        # is ignored like every other line that is not a JSON object.
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(cast("dict[str, Any]", row))
    return rows
