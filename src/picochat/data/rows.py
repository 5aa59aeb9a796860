"""Rows out of one open file, whatever its format: parquet, JSON lines (plain, gzip, zstd), text and Markdown.

A row is what the file says; whether its text is usable is `text_problem`, one named reason at a time. A file that cannot
be parsed raises BadInput with file and row; a single row without usable text never does: it is counted by who reads.
Does not know folders, sources or networks: a stream comes in, rows go out.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from picochat.core.errors import BadInput, did_you_mean

Format = Literal["parquet", "jsonl", "text"]
MISSING: Final = object()
BATCH_ROWS = 256
READ_BLOCK_BYTES = 4 << 20

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


class Row(NamedTuple):
    """One row as its file gives it. `number` counts from 0 in the file; `text` is MISSING where the column is absent."""

    number: int
    id: str | None
    text: object


def format_of(name: str) -> Format | None:
    """How a file of that name is read; None where its ending is not known."""
    lower = name.lower()
    return next((kind for ending, kind in FORMATS if lower.endswith(ending)), None)


def text_problem(text: object) -> str | None:
    """Why a row has no usable text: one reason, or None where it has. The order of the tests is part of the promise."""
    if text is MISSING:
        return "missing_text_column"
    if not isinstance(text, str):
        return "text_not_string"
    if not text.strip():
        return "empty_text"
    if "\0" in text:
        return "nul_character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "lone_surrogate"
    return None


def read_rows(stream: BinaryIO, name: str, text_column: str = "text", *, id_column: str | None = None) -> Iterator[Row]:
    """All rows of one file in their order. `name` picks the format and appears in errors."""
    kind = format_of(name)
    if kind == "parquet":
        yield from _read_all_groups(stream, name, text_column, id_column)
    elif kind == "jsonl":
        yield from _read_json_lines(stream, name, text_column, id_column)
    elif kind == "text":
        yield Row(0, None, _read_text(stream, name))
    else:
        raise BadInput(f"{name}: its ending says nothing that picochat reads", fix=f"known endings: {ENDINGS}")


def parquet_metadata(stream: BinaryIO, name: str) -> pq.FileMetaData:
    """Schema and row groups from the file's end. Raises BadInput where it is no parquet file."""
    with parquet_errors(name):
        return pq.read_metadata(stream)


def read_row_group(
    stream: BinaryIO,
    name: str,
    text_column: str,
    group: int,
    metadata: pq.FileMetaData,
    *,
    first_row: int = 0,
    id_column: str | None = None,
    whole: bool = True,
) -> Iterator[Row]:
    """The rows of one row group, numbered from `first_row`. Reads only the columns named.

    whole: fetch the column in one piece; otherwise in pages, for who stops early.
    """
    columns = _columns(metadata, name, text_column, id_column)
    with parquet_errors(name, group):
        file = pq.ParquetFile(stream, metadata=metadata, pre_buffer=whole, buffer_size=0 if whole else READ_BLOCK_BYTES)
        number = first_row
        batches = file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False)
        for batch in batches:
            texts = batch.column(columns[0]).to_pylist()
            ids = batch.column(columns[1]).to_pylist() if len(columns) > 1 else [None] * len(texts)
            for text, given in zip(texts, ids, strict=True):
                yield Row(number, _as_id(given), text)
                number += 1


@contextmanager
def parquet_errors(name: str, group: int | None = None) -> Generator[None, None, None]:
    """Turns what pyarrow raises on a broken file into BadInput that names file and row group."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        where = f"{name}, row group {group}" if group is not None else name
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{where}: not a readable parquet file ({first_line})") from error


def _columns(metadata: pq.FileMetaData, name: str, text_column: str, id_column: str | None) -> list[str]:
    known = metadata.schema.to_arrow_schema().names
    if text_column not in known:
        hint = did_you_mean(text_column, known)
        raise BadInput(f"{name} has no column {text_column!r}{hint}", fix=f"--text-column one of: {', '.join(known)}")
    with_id = id_column is not None and id_column in known and id_column != text_column
    return [text_column, id_column] if with_id and id_column else [text_column]


def _read_all_groups(stream: BinaryIO, name: str, text_column: str, id_column: str | None) -> Iterator[Row]:
    metadata = parquet_metadata(stream, name)
    first_row = 0
    for group in range(metadata.num_row_groups):
        # Pages, not the whole column: some files are one group of a million rows.
        yield from read_row_group(
            stream, name, text_column, group, metadata, first_row=first_row, id_column=id_column, whole=False
        )
        first_row += metadata.row_group(group).num_rows


def _read_json_lines(stream: BinaryIO, name: str, text_column: str, id_column: str | None) -> Iterator[Row]:
    number = -1
    try:
        for line_number, line in enumerate(_decompressed(stream, name), start=1):
            if not line.strip():
                continue
            number += 1
            value = _parse_line(line, name, line_number)
            given = value.get(id_column) if id_column else None
            yield Row(number, _as_id(given), value.get(text_column, MISSING))
    except (zstandard.ZstdError, gzip.BadGzipFile, EOFError) as error:
        raise BadInput(f"{name}, after row {number}: the compressed data is damaged or cut off ({error})") from None


def _decompressed(stream: BinaryIO, name: str) -> BinaryIO | io.BufferedReader:
    if name.lower().endswith(".gz"):
        return io.BufferedReader(gzip.GzipFile(fileobj=stream, mode="rb"), READ_BLOCK_BYTES)
    if name.lower().endswith(".zst"):
        return io.BufferedReader(_ZstdFrames(stream), READ_BLOCK_BYTES)
    return stream


class _ZstdFrames(io.RawIOBase):
    """The bytes of all zstd frames. Raises EOFError where the last one is cut off, which zstandard's own reader does not."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._ready = stream, b""
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._inside = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._inside = zstandard.ZstdDecompressor().decompressobj(), False
            data = data or self._stream.read(1 << 20)
            if not data:
                if self._inside:
                    raise EOFError("the last frame is not complete")
                return 0
            self._inside = True
            self._ready = self._frame.decompress(data)
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


def _parse_line(line: bytes, name: str, line_number: int) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadInput(f"{name}, line {line_number}: not UTF-8 text (byte {error.start} of the line)") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{name}, line {line_number}: not valid JSON ({error.msg})") from None
    if not isinstance(value, dict):
        raise BadInput(f"{name}, line {line_number}: a JSON object is needed, found {type(value).__name__}")
    return value


def _read_text(stream: BinaryIO, name: str) -> str:
    """A text file is one document; one that is not text is a mistake of the recipe, not a row to count."""
    data = stream.read()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{name}: not UTF-8 text (byte {error.start})", fix="convert it, or exclude it in the recipe") from None
    if "\0" in text:
        raise BadInput(f"{name}: holds NUL characters, so it is no text file", fix="exclude it in the recipe")
    return text


def _as_id(given: object) -> str | None:
    """A record's own id where it is one: usable text, or a whole number."""
    if isinstance(given, str):
        return given if text_problem(given) is None else None
    return str(given) if isinstance(given, int) and not isinstance(given, bool) else None
