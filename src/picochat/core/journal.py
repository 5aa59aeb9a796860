"""A journal is a file of one JSON object a line, each appended and flushed.

A kill costs at most the line that is being written, and readers ignore a torn last line. A writer
does not know its readers. A journal holds no results: results are artifacts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from picochat.core.records import canonical_json, write_atomic


class Journal:
    """Append-only rows at `path`. `truncate_after` drops rows of work that a resume will repeat."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, row: Mapping[str, object]) -> None:
        # Opened and closed for each row: closing flushes it, and `replace` may put another file in
        # its place between two rows.
        with self.path.open("ab") as stream:
            stream.write(canonical_json(dict(row)) + b"\n")

    def truncate_after(self, step: int) -> None:
        """Keep the rows whose `step` is at most `step`, and cut a torn tail."""
        self.replace([row for row in read_journal(self.path) if int(row.get("step", 0)) <= step])

    def replace(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Let the journal hold just these rows; a kill leaves the old ones or the new ones."""
        write_atomic(self.path, b"".join(canonical_json(dict(row)) + b"\n" for row in rows))


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The complete rows; an absent journal has none."""
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    for line in path.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
        # A kill may tear the last line. RecursionError comes from a line of thousands of brackets,
        # which is ignored like every other line that is not a JSON object.
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(cast("dict[str, Any]", row))
    return rows
