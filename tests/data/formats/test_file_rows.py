from __future__ import annotations

import io
import json

from picochat.data.formats.file_rows import MOST_JSON_LEVELS, read_rows
from picochat.data.formats.row_batch import text_problem


def _problem(levels: int, text: str) -> str | None:
    """Of a row whose values are nested so deep, the row itself included."""
    inside: object = []
    for _ in range(levels - 2):
        inside = [inside]
    line = json.dumps({"text": text, "n": inside})
    (row,) = read_rows(io.BytesIO(line.encode()), "x.jsonl")
    return text_problem(row.text)


def test_a_row_is_read_up_to_a_stated_depth_wherever_it_is_read() -> None:
    def from_below(frames: int) -> list[str | None]:
        if frames:
            return from_below(frames - 1)
        return [_problem(MOST_JSON_LEVELS + more, "fine") for more in (0, 1)]

    assert from_below(0) == from_below(200) == [None, "unreadable_json"]
    assert _problem(3, "[{" * 1000) is None  # brackets of a text are no levels
