"""Rows of JSON lines (plain, gzip, zstd) and of text files. Memory holds one block of lines,
however long a line is.

A line longer than LONGEST_LINE_BYTES is a counted row without text. Compressed data that blows up
beyond MOST_EXPANSION is refused. A UTF-8 byte order mark at the start is dropped; line ends inside
texts stay as they are; UTF-16 is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

from picochat.core.errors import BadInput
from picochat.data.formats.row_batch import RowBatch, Wanted, usable_id
from picochat.data.formats.usable import LONGEST_LINE_BYTES, MISSING, TOO_LONG

READ_BLOCK_BYTES = 4 << 20
MOST_EXPANSION = 500  # text compresses 3 to 30 times, the same line over and over some 200 times, a bomb 1,000 times and more
EXPANSION_COUNTS_FROM_BYTES = (
    1_000_000_000  # seconds of work; a shard of our own may hold a document of one letter
)
UTF8_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_json_lines(
    stream: BinaryIO,
    name: str,
    text_column: str,
    id_column: str | None,
    block_bytes: int = READ_BLOCK_BYTES,
    wanted: Wanted | None = None,
) -> Iterator[RowBatch]:
    """The objects of a JSON lines file, the lines of a block at a time. Blank lines are no rows.
    Raises BadInput that names the line.

    wanted: lines of other rows are not parsed, and stand as MISSING.
    """
    line_number = number = 0
    for lines in _lines(_blocks(stream, name, block_bytes)):
        texts: list[object] = []
        ids: list[str | None] = []
        for line in lines:
            line_number += 1
            if line is None:
                texts.append(TOO_LONG)
                ids.append(None)
            elif not line or line.isspace():
                continue
            elif wanted is not None and not wanted[number + len(texts)]:
                texts.append(MISSING)
                ids.append(None)
            else:
                value = _parse_line(line, name, line_number)
                texts.append(value.get(text_column, MISSING))
                ids.append(usable_id(value.get(id_column)) if id_column else None)
        yield RowBatch(number, texts, ids if id_column else None)
        number += len(texts)


def read_json_objects(stream: BinaryIO, name: str) -> Iterator[dict[str, Any]]:
    """The objects of a JSON lines file, whole.

    A line that is too long is an empty one. Raises BadInput that names the line.
    """
    line_number = 0
    for lines in _lines(_blocks(stream, name)):
        for line in lines:
            line_number += 1
            if line is None:
                yield {}
            elif line and not line.isspace():
                yield _parse_line(line, name, line_number)


def read_text(stream: BinaryIO, name: str) -> RowBatch:
    """A text file is one document; one that is not text is a mistake of who named it, not a row to
    count.
    """
    pieces: list[bytes] = []
    size = 0
    for block in _blocks(stream, name):
        pieces.append(block)
        size += len(block)
        if size > LONGEST_LINE_BYTES:
            return RowBatch(0, [TOO_LONG], None)
    fix = "convert it (iconv -t UTF-8), or leave the file out"
    try:
        text = b"".join(pieces).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{name}: not UTF-8 text (byte {error.start})", fix=fix) from None
    if "\0" in text:
        raise BadInput(
            f"{name}: holds NUL characters, so it is no text file", fix="leave the file out"
        )
    return RowBatch(0, [text], None)


def _blocks(stream: BinaryIO, name: str, block_bytes: int = READ_BLOCK_BYTES) -> Iterator[bytes]:
    """The bytes of the file, decompressed, without a byte order mark."""
    lower = name.lower()
    codec = "gzip" if lower.endswith(".gz") else "zstd" if lower.endswith(".zst") else None
    # Arrow's decompressor: bounded pieces, several members or frames, and an error where the last
    # one is cut off.
    source: _Readable = (
        pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), codec) if codec else stream
    )
    total = 0
    while True:
        try:
            block = source.read(block_bytes)
        except (pa.ArrowException, OSError) as error:
            what = "the compressed data is damaged or cut off" if codec else "it cannot be read"
            raise BadInput(
                f"{name}, after {total:,} bytes of text: {what} ({error})",
                fix="fetch or write it again",
            ) from None
        if not block:
            return
        if total == 0:
            block = _without_mark(block, name)
        total += len(block)
        if codec and total > EXPANSION_COUNTS_FROM_BYTES and total > MOST_EXPANSION * stream.tell():
            raise BadInput(
                f"{name}: {stream.tell():,} compressed bytes gave {total:,}, more than"
                f" {MOST_EXPANSION} times as many",
                fix="no text is like that; leave the file out, or decompress it yourself and look",
            )
        yield block


def _without_mark(block: bytes, name: str) -> bytes:
    if block.startswith(UTF16_MARKS):
        raise BadInput(f"{name}: UTF-16 text, UTF-8 is needed", fix="iconv -f UTF-16 -t UTF-8")
    return block.removeprefix(UTF8_MARK)


def _lines(blocks: Iterator[bytes]) -> Iterator[list[bytes | None]]:
    """The lines of each block without their ends; None for one that is too long, which is not held."""
    rest, too_long = b"", False
    for block in blocks:
        if too_long:
            _, found, block = block.partition(b"\n")
            if not found:
                continue
            too_long = False
        lines: list[bytes | None] = list((rest + block).split(b"\n"))
        rest = lines.pop() or b""
        lines = [
            line if line is not None and len(line) <= LONGEST_LINE_BYTES else None for line in lines
        ]
        if len(rest) > LONGEST_LINE_BYTES:
            lines.append(None)
            rest, too_long = b"", True
        yield lines
    if rest:
        yield [rest]


def _parse_line(line: bytes, name: str, line_number: int) -> dict[str, Any]:
    fix = "mend or remove the line"
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{name}, line {line_number}: not UTF-8 text (byte {error.start} of the line)", fix=fix
        ) from None
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{name}, line {line_number}: not valid JSON ({error.msg})", fix=fix
        ) from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # a number of thousands of digits; brackets nested too deeply
        raise BadInput(
            f"{name}, line {line_number}: JSON that cannot be read ({str(error)[:100]})", fix=fix
        ) from None
    if not isinstance(value, dict):
        raise BadInput(
            f"{name}, line {line_number}: a JSON object is needed, found {type(value).__name__}",
            fix=fix,
        )
    return value
