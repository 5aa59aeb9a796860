"""Rows of one open file: parquet, JSON lines (plain, gzip, zstd), JSON, text in any markup.

A file that cannot be parsed raises BadInput with its name and the line or row group. A row without
usable text raises nothing; the caller tests it with `text_problem`. Does not open or find files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from shlex import quote
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import pyarrow as pa

from picochat.core.errors import BadInput
from picochat.data.formats.parquet_rows import read_all_groups, read_parquet_objects
from picochat.data.formats.row_batch import (
    MISSING,
    NOT_UTF8,
    TOO_LONG,
    UNREADABLE,
    Row,
    RowBatch,
    Wanted,
    usable_id,
)

Format = Literal["parquet", "jsonl", "json", "text"]

FORMATS: tuple[tuple[str, Format], ...] = (
    # ending        rows
    (".parquet", "parquet"),
    (".jsonl", "jsonl"),
    (".jsonl.gz", "jsonl"),
    (".jsonl.zst", "jsonl"),
    (".json", "json"),
    (".txt", "text"),
    (".text", "text"),
    (".md", "text"),
    (".markdown", "text"),
    (".rst", "text"),
    (".org", "text"),
    (".adoc", "text"),
    (".tex", "text"),
)
NOT_TEXT = frozenset(
    {
        *(".csv", ".tsv", ".xls", ".xlsx", ".ods", ".pdf", ".doc", ".docx", ".odt", ".rtf"),
        *(".epub", ".mobi", ".zip", ".tar", ".tgz", ".7z", ".gz", ".zst", ".xz", ".arrow"),
        *(".png", ".jpg", ".jpeg", ".gif", ".webp", ".mp3", ".mp4", ".wav", ".pkl", ".npy"),
        *(".npz", ".pt", ".safetensors"),
    }
)
"""Endings of files that are no plain text. One that is named by itself is refused at once."""
SEPARATOR = b"<|endoftext|>"
"""What separates the documents of a text file, as GPT-2's corpora have it."""
ENDINGS = ", ".join(ending for ending, _ in FORMATS)

READ_BLOCK_BYTES = 4 << 20
SMALL_BLOCK_BYTES = 8 << 10
LONGEST_LINE_BYTES = 64_000_000  # of a JSON lines or text file
# Text compresses 3 to 30 times, a repeated line about 200 times, a decompression bomb 1,000 times
# and more.
MOST_EXPANSION = 500
# A smaller file is not tested: it takes only seconds to read, and a valid shard may hold a document
# that repeats one letter.
EXPANSION_COUNTS_FROM_BYTES = 1_000_000_000
# A number of thousands of digits raises ValueError, thousands of brackets RecursionError.
UNREADABLE_JSON = (ValueError, RecursionError)
# Python's own limit depends on its version and on who calls: a row that was read once could fail
# when it is read again.
MOST_JSON_LEVELS = 500
UTF8_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def format_of(name: str) -> Format | None:
    """The format that a file's ending stands for; None for an unknown ending."""
    lower = name.lower()
    return next((kind for ending, kind in FORMATS if lower.endswith(ending)), None)


def read_rows(
    stream: BinaryIO, name: str, text_column: str = "text", *, id_column: str | None = None
) -> Iterator[Row]:
    """All rows of one file in order, read in small blocks for a caller that may stop early.

    name: picks the format, and appears in errors. A file of an unknown ending is read as text.
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
    """The rows of `read_rows` in batches.

    block_bytes: size of one read, except from parquet. wanted: one flag for each row of the file.
    Parquet may omit the other rows; JSON lines give MISSING as their text.
    """
    kind = format_of(name)
    asked = _Asked(text_column, id_column, block_bytes, wanted)
    if kind == "parquet":
        yield from read_all_groups(stream, name, text_column, id_column, wanted)
    elif kind == "jsonl":
        yield from _read_json_lines(stream, name, asked)
    elif kind == "json":
        yield from _read_json(stream, name, asked)
    else:
        yield from _read_text(stream, name)


def read_objects(stream: BinaryIO, name: str) -> Iterator[dict[str, Any]]:
    """All rows of a parquet or JSON lines file with all their columns."""
    kind = format_of(name)
    if kind == "parquet":
        return read_parquet_objects(stream, name)
    if kind == "jsonl":
        return _read_json_objects(stream, name)
    endings = ", ".join(ending for ending, known in FORMATS if known != "text")
    raise BadInput(
        f"{name}: its ending says nothing that holds rows", fix=f"known endings: {endings}"
    )


def read_lines(stream: BinaryIO, name: str) -> Iterator[bytes | None]:
    """The lines of a file, decompressed, without a byte order mark; None for one that is too long.

    Raises BadInput for UTF-16 and for compressed data that is damaged.
    """
    for lines in _lines(_blocks(stream, name, READ_BLOCK_BYTES)):
        yield from lines


# ---- JSON lines and text -------------------------------------------------------------------------


class _Asked(NamedTuple):
    """The parameters of `read_batches`."""

    text_column: str
    id_column: str | None
    block_bytes: int
    wanted: Wanted | None

    def text(self, row: dict[str, Any] | None) -> object:
        return UNREADABLE if row is None else row.get(self.text_column, MISSING)

    def id(self, row: dict[str, Any] | None) -> str | None:
        return usable_id(row.get(self.id_column)) if self.id_column and row else None


def _read_json_lines(stream: BinaryIO, name: str, asked: _Asked) -> Iterator[RowBatch]:
    line_number = number = 0  # of the line, from 1; of the row, from 0: blank lines are no rows
    wanted = asked.wanted
    for lines in _lines(_blocks(stream, name, asked.block_bytes)):
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
                texts.append(MISSING)  # not parsed: parsing is most of the cost of a row
                ids.append(None)
            else:
                value = _parse_line(line, name, line_number)
                texts.append(asked.text(value))
                ids.append(asked.id(value))
        yield RowBatch(number, texts, ids if asked.id_column else None)
        number += len(texts)


def _read_json_objects(stream: BinaryIO, name: str) -> Iterator[dict[str, Any]]:
    line_number = 0
    for lines in _lines(_blocks(stream, name, READ_BLOCK_BYTES)):
        for line in lines:
            line_number += 1
            if line is None:
                yield {}  # too long: a row without any of its values
            elif line and not line.isspace():
                yield _parse_line(line, name, line_number) or {}


def _read_json(stream: BinaryIO, name: str, asked: _Asked) -> Iterator[RowBatch]:
    """The objects of a list, one object, or JSON lines: the three things that are called .json."""
    start = stream.read(LONGEST_LINE_BYTES + 1)
    stream.seek(0)
    quoted = quote(name)
    is_list = start.removeprefix(UTF8_MARK).lstrip().startswith(b"[")
    if len(start) > LONGEST_LINE_BYTES and is_list:
        raise BadInput(
            f"{name}: a JSON list of more than {LONGEST_LINE_BYTES:,} bytes",
            fix=(
                f"make JSON lines of it: jq -c '.[]' {quoted} > {quote(name + 'l')} && mv {quoted}"
                f" {quote(name + '.old')}"
            ),
        )
    try:
        found = json.loads(start.decode("utf-8-sig")) if len(start) <= LONGEST_LINE_BYTES else None
    except UNREADABLE_JSON as error:
        if is_list and not isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
            raise BadInput(
                f"{name}: JSON that cannot be read ({str(error)[:100]})",
                fix="remove the values that are nested so deep, and the numbers of so many digits",
            ) from None
        found = None
    if not isinstance(found, (list, dict)):
        # Not one value: JSON lines, or broken, which reading lines says with its line number.
        yield from _read_json_lines(stream, name, asked)
        return
    rows = cast("list[object]", found if isinstance(found, list) else [found])
    objects = [cast("dict[str, Any]", row) if isinstance(row, dict) else {} for row in rows]
    texts = [
        row if isinstance(row, str) else asked.text(value)
        for row, value in zip(rows, objects, strict=True)
    ]
    yield RowBatch(0, texts, [asked.id(value) for value in objects] if asked.id_column else None)


def _read_text(stream: BinaryIO, name: str) -> Iterator[RowBatch]:
    """The documents of a text file: all of it, or the parts between separators.

    A part that is no UTF-8 text, or is too long, is a row without text.
    """
    for number, part in enumerate(_parts(_blocks(stream, name, READ_BLOCK_BYTES))):
        if part is None:
            yield RowBatch(number, [TOO_LONG], None)
        else:
            try:
                text: object = part.decode("utf-8")
            except UnicodeDecodeError:
                text = NOT_UTF8
            yield RowBatch(number, [text], None)


def _parts(blocks: Iterator[bytes]) -> Iterator[bytes | None]:
    """The bytes between separators, at least one part; None for a part that is too long.

    What follows the last separator counts where it is not blank.
    """
    rest, too_long, found_any = b"", False, False
    for block in blocks:
        # A separator may lie across two blocks, so it is looked for in the rest as well.
        *whole, rest = (rest + block).split(SEPARATOR)
        for part in whole:
            yield None if too_long or len(part) > LONGEST_LINE_BYTES else part
            too_long, found_any = False, True
        if len(rest) > LONGEST_LINE_BYTES:
            too_long, rest = True, rest[-len(SEPARATOR) :]
    if too_long or rest.strip() or not found_any:
        yield None if too_long else rest


def _blocks(stream: BinaryIO, name: str, block_bytes: int) -> Iterator[bytes]:
    """The bytes of the file, decompressed, without a byte order mark."""
    lower = name.lower()
    codec = "gzip" if lower.endswith(".gz") else "zstd" if lower.endswith(".zst") else None
    # Arrow's decompressor returns pieces of bounded size, reads files of several gzip members or
    # zstd frames, and raises where the last one is cut off.
    source: Any = (
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
            if block.startswith(UTF16_MARKS):
                raise BadInput(
                    f"{name}: UTF-16 text, UTF-8 is needed", fix=_as_utf8(quote(name), codec)
                )
            block = block.removeprefix(UTF8_MARK)
        total += len(block)
        if codec and total > EXPANSION_COUNTS_FROM_BYTES and total > MOST_EXPANSION * stream.tell():
            raise BadInput(
                f"{name}: {stream.tell():,} compressed bytes gave {total:,}, more than"
                f" {MOST_EXPANSION} times as many",
                fix="text does not compress so well; leave the file out, or inspect it yourself",
            )
        yield block


def _as_utf8(file: str, codec: str | None) -> str:
    """The command that writes a UTF-16 file as UTF-8. codec: also the name of its program."""
    again = "iconv -f UTF-16 -t UTF-8"
    made = f"{codec} -dc {file} | {again} | {codec} -c" if codec else f"{again} {file}"
    return f"{made} > NEW && mv NEW {file}"


def _lines(blocks: Iterator[bytes]) -> Iterator[list[bytes | None]]:
    """The lines of each block, without their ends; None for a line that is too long."""
    # `rest` is the unfinished line at the end of a block. When it gets too long it is dropped, and
    # bytes are skipped up to the next line end. So memory stays below the limit plus one block.
    rest, too_long = b"", False
    for block in blocks:
        if too_long:
            _, found, block = block.partition(b"\n")
            if not found:
                continue
            too_long = False
        *complete, rest = (rest + block).split(b"\n")
        lines = [line if len(line) <= LONGEST_LINE_BYTES else None for line in complete]
        if len(rest) > LONGEST_LINE_BYTES:
            lines.append(None)
            rest, too_long = b"", True
        yield lines
    if rest:
        yield [rest]


def _parse_line(line: bytes, name: str, line_number: int) -> dict[str, Any] | None:
    """The object of a line; None for valid JSON that Python cannot hold. Raises BadInput."""
    where, fix = f"{name}, line {line_number}", "repair or remove the line"
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        what = f"{where}: not UTF-8 text (byte {error.start} of the line)"
        raise BadInput(what, fix=fix) from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{where}: not valid JSON ({error.msg})", fix=fix) from None
    except UNREADABLE_JSON:
        return None
    if not isinstance(value, dict):
        what = f"{where}: a JSON object is needed, found {type(value).__name__}"
        raise BadInput(what, fix=fix)
    brackets = line.count(b"[") + line.count(b"{")
    return None if brackets > MOST_JSON_LEVELS and _levels(value) > MOST_JSON_LEVELS else value


def _levels(value: dict[str, Any]) -> int:
    """How deep the lists and objects of a JSON value are nested."""
    levels, inside = 0, cast("list[Any]", [value])
    while inside:
        levels += 1
        inside = [
            inner
            for outer in inside
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
    return levels
