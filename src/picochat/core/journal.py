"""A journal: one JSON object a line, appended and flushed, so that a kill costs at most the line being written.

Readers ignore a torn last line. Who writes it does not know who reads it. Holds no results: results are artifacts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from picochat.core.records import canonical_json


class Journal:
    """Append-only rows at `path`. `truncate_after` drops rows of work that a resume will repeat."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, row: Mapping[str, object]) -> None:
        with self.path.open("ab") as stream:
            stream.write(canonical_json(dict(row)) + b"\n")

    def truncate_after(self, step: int) -> None:
        """Keep the rows whose `step` is at most `step`, and cut a torn tail."""
        rows = [row for row in read_journal(self.path) if int(row.get("step", 0)) <= step]
        temporary = self.path.with_name(f".{self.path.name}.cut")
        temporary.write_bytes(b"".join(canonical_json(row) + b"\n" for row in rows))
        os.replace(temporary, self.path)


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The complete rows; an absent journal has none."""
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    for line in path.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(cast("dict[str, Any]", row))
    return rows
