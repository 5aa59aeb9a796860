"""Rows out of one open file, whatever its format: parquet, JSON lines (plain, gzip, zstd), text and
Markdown.

A row is what the file says; whether its text is usable is `text_problem`, one named reason at a
time. A file that cannot be parsed raises BadInput with file and row; a single row without usable
text never does: it is counted by who reads. Does not know folders, sources or networks: a stream
comes in, rows go out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, Literal

from picochat.core.errors import BadInput
from picochat.data.formats.line_rows import (
    READ_BLOCK_BYTES,
    read_json_lines,
    read_json_objects,
    read_text,
)
from picochat.data.formats.parquet_rows import (
    parquet_metadata,
    read_all_groups,
    read_parquet_objects,
)
from picochat.data.formats.row_batch import Row, RowBatch, Wanted
from picochat.data.formats.usable import text_problem

__all__ = [
    "ENDINGS",
    "FORMATS",
    "Format",
    "Row",
    "format_of",
    "parquet_metadata",
    "read_batches",
    "read_objects",
    "read_rows",
    "text_problem",
]

Format = Literal["parquet", "jsonl", "text"]
SMALL_BLOCK_BYTES = 8 << 10

FORMATS: tuple[tuple[str, Format], ...] = (
    # ending        rows
    (".parquet", "parquet"),
    (".jsonl", "jsonl"),
    (".jsonl.gz", "jsonl"),
    (".jsonl.zst", "jsonl"),
    (".txt", "text"),
    (".md", "text"),
)
ENDINGS = ", ".join(ending for ending, _ in FORMATS)


def format_of(name: str) -> Format | None:
    """How a file of that name is read; None where its ending is not known."""
    lower = name.lower()
    return next((kind for ending, kind in FORMATS if lower.endswith(ending)), None)


def read_rows(
    stream: BinaryIO, name: str, text_column: str = "text", *, id_column: str | None = None
) -> Iterator[Row]:
    """All rows of one file in their order, read in small blocks, for who may stop early.

    `name` picks the format and appears in errors.
    """
    for batch in read_batches(
        stream, name, text_column, id_column=id_column, block_bytes=SMALL_BLOCK_BYTES
    ):
        yield from batch.rows()


def read_batches(
    stream: BinaryIO,
    name: str,
    text_column: str = "text",
    *,
    id_column: str | None = None,
    block_bytes: int = READ_BLOCK_BYTES,
    wanted: Wanted | None = None,
) -> Iterator[RowBatch]:
    """The same rows, many at a time; block_bytes: read at once of a file that is no parquet.

    wanted: one flag for each row of the file; where it is not set, the row may be left unread or
    missing.
    """
    kind = format_of(name)
    if kind == "parquet":
        yield from read_all_groups(stream, name, text_column, id_column, wanted)
    elif kind == "jsonl":
        yield from read_json_lines(stream, name, text_column, id_column, block_bytes, wanted)
    elif kind == "text":
        yield read_text(stream, name)
    else:
        raise BadInput(
            f"{name}: its ending says nothing that picochat reads", fix=f"known endings: {ENDINGS}"
        )


def read_objects(stream: BinaryIO, name: str) -> Iterator[dict[str, Any]]:
    """All rows of a parquet or JSON lines file with everything they hold.

    Raises BadInput for other files and broken ones.
    """
    kind = format_of(name)
    if kind == "parquet":
        return read_parquet_objects(stream, name)
    if kind == "jsonl":
        return read_json_objects(stream, name)
    endings = ", ".join(ending for ending, known in FORMATS if known != "text")
    raise BadInput(
        f"{name}: its ending says nothing that holds rows", fix=f"known endings: {endings}"
    )
