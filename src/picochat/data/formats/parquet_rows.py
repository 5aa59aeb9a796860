"""Reads the text column of parquet files, one row group at a time, in batches of bounded size.

A column that cannot hold text is refused before any row is read. A value that is not UTF-8 becomes
NOT_UTF8 and does not affect other rows.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from picochat.core.errors import BadInput, did_you_mean
from picochat.data.formats.row_batch import NOT_UTF8, RowBatch, Wanted, usable_id

# What pyarrow raises for a date before year 1, an unknown time zone, and text that is not UTF-8.
UNUSABLE_VALUE = (ValueError, OverflowError, LookupError, pa.ArrowException)
BATCH_BYTES = 256 << 10  # the heap reuses small blocks; large ones fragment it
MOST_BATCH_ROWS = 4096
# A larger column of a row group is fetched in pages, even where all of it is wanted.
WHOLE_COLUMN_BYTES = 32 << 20
READ_BLOCK_BYTES = 4 << 20
STRING_TYPES = (pa.string(), pa.large_string(), pa.string_view())
# Some writers store text as plain bytes. A column of nulls is allowed: its rows hold no text.
BYTES_TYPES = (pa.null(), pa.binary(), pa.large_binary(), pa.binary_view())


def parquet_metadata(stream: BinaryIO, name: str) -> pq.FileMetaData:
    """Schema and row groups from the file's footer. Raises BadInput for another kind of file."""
    with _parquet_errors(name):
        return pq.read_metadata(stream)


def _require_text_column(metadata: pq.FileMetaData, name: str, text_column: str) -> None:
    with _parquet_errors(name):
        schema = metadata.schema.to_arrow_schema()
    texts = [field.name for field in schema if _holds_text(field.type)]
    fix = (
        f'--text-column, or "text_column" of the source in a recipe, one of: {", ".join(texts)}'
        if texts
        else (
            "leave the file out: none of its columns holds text; rows of conversations go into"
            " --chat of picochat data init-pack"
        )
    )
    if text_column not in schema.names:
        raise BadInput(
            f"{name} has no column {text_column!r}{did_you_mean(text_column, schema.names)}",
            fix=fix,
        )
    if schema.names.count(text_column) > 1:
        raise BadInput(
            f"{name} has {schema.names.count(text_column)} columns {text_column!r}",
            fix="rename one of them in the program that writes the file",
        )
    kind = schema.field(text_column).type
    if not _holds_text(kind):
        raise BadInput(f"{name}: column {text_column!r} holds {str(kind)[:80]}, not text", fix=fix)


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
) -> Iterator[RowBatch]:
    """The rows of one row group, numbered from `first_row`.

    whole: fetch a small column in one piece. False fetches pages, for a caller that may stop early.
    """
    _require_text_column(metadata, name, text_column)
    columns = [text_column]
    if id_column not in (None, text_column) and _holds_ids(metadata, name, id_column):
        columns.append(id_column)
    stored_bytes, batch_rows = _sizes(metadata, group, text_column)
    at_once = whole and stored_bytes <= WHOLE_COLUMN_BYTES
    with _parquet_errors(name, group):
        # With the metadata passed in, opening a row group costs no request for the footer.
        file = pq.ParquetFile(
            stream,
            metadata=metadata,
            pre_buffer=at_once,
            buffer_size=0 if at_once else READ_BLOCK_BYTES,
        )
        number = first_row
        for batch in file.iter_batches(
            batch_size=batch_rows, row_groups=[group], columns=columns, use_threads=False
        ):
            texts = _python_texts(batch.column(text_column))
            ids = _python_ids(batch.column(columns[1])) if len(columns) > 1 else None
            yield RowBatch(number, texts, ids)
            number += len(texts)


def read_all_groups(
    stream: BinaryIO,
    name: str,
    text_column: str,
    id_column: str | None,
    wanted: Wanted | None = None,
) -> Iterator[RowBatch]:
    """The rows of all row groups, or only of the groups with a wanted row."""
    metadata = parquet_metadata(stream, name)
    _require_text_column(metadata, name, text_column)
    first_row = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if wanted is None or any(wanted[first_row : first_row + rows]):
            # In pages, because some files are one row group of a million rows.
            yield from read_row_group(
                stream,
                name,
                text_column,
                group,
                metadata,
                first_row=first_row,
                id_column=id_column,
                whole=False,
            )
        first_row += rows


def read_parquet_objects(stream: BinaryIO, name: str) -> Iterator[dict[str, Any]]:
    """All rows with all columns, for files of a few megabytes."""
    with _parquet_errors(name):
        for batch in pq.ParquetFile(stream).iter_batches(
            batch_size=MOST_BATCH_ROWS, use_threads=False
        ):
            yield from python_rows(batch)


def python_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of a batch; None for a value that Python cannot hold, such as a year before 1."""
    columns = [_python_values(column) for column in batch.columns]
    names = batch.schema.names
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _python_values(column: pa.Array) -> list[Any]:
    try:
        return column.to_pylist()
    except UNUSABLE_VALUE:
        return [_python_value(value) for value in column]


def _python_value(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except UNUSABLE_VALUE:
        return None


@contextmanager
def _parquet_errors(name: str, group: int | None = None) -> Generator[None, None, None]:
    """Raise pyarrow's errors about a broken file as BadInput with the file and row group."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        where = f"{name}, row group {group}" if group is not None else name
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"{where}: not a readable parquet file ({first_line[:200]})",
            fix="fetch or write it again",
        ) from error


def _sizes(metadata: pq.FileMetaData, group: int, text_column: str) -> tuple[int, int]:
    """(compressed bytes of the text column in a row group, rows in about BATCH_BYTES of text)."""
    described = metadata.row_group(group)
    columns = (described.column(number) for number in range(described.num_columns))
    column = next(column for column in columns if column.path_in_schema == text_column)
    row_bytes = column.total_uncompressed_size // max(1, described.num_rows)
    batch_rows = min(MOST_BATCH_ROWS, max(1, BATCH_BYTES // max(1, row_bytes)))
    return column.total_compressed_size, batch_rows


def _holds_text(kind: pa.DataType) -> bool:
    return _plain(kind) in (*STRING_TYPES, *BYTES_TYPES)


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values, of a dictionary too."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _python_texts(column: pa.Array) -> list[object]:
    """The values as str or None, or NOT_UTF8."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.type in STRING_TYPES:
        try:
            return column.to_numpy(zero_copy_only=False).tolist()
        except (pa.ArrowException, UnicodeDecodeError):
            # One bad text fails the conversion of the whole batch; as bytes, each is decoded alone.
            column = column.cast(pa.large_binary())
    return [_decoded(value) for value in column.to_pylist()]


def _holds_ids(metadata: pq.FileMetaData, name: str, id_column: str) -> bool:
    """Whether there is one column of this name, of integers or text; no other value is an id."""
    with _parquet_errors(name):
        schema = metadata.schema.to_arrow_schema()
    kinds = [_plain(field.type) for field in schema if field.name == id_column]
    return len(kinds) == 1 and (pa.types.is_integer(kinds[0]) or kinds[0] in STRING_TYPES)


def _python_ids(column: pa.Array) -> list[str | None]:
    is_text = _plain(column.type) in STRING_TYPES
    return [
        usable_id(value) for value in (_python_texts(column) if is_text else column.to_pylist())
    ]


def _decoded(value: bytes | None) -> object:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return NOT_UTF8
