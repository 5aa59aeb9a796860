"""Rows of parquet files: one row group at a time, only the text column, in batches of bounded size.

A column that holds no text is refused before a row is read. Bytes that are no UTF-8 are the problem
of their row alone.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from picochat.core.errors import BadInput, did_you_mean
from picochat.data.formats.row_batch import NOT_UTF8, RowBatch, Wanted, usable_id

BATCH_BYTES = 256 << 10  # the heap reuses small blocks; large ones fragment it
MOST_BATCH_ROWS = 4096
# A larger column of a row group is fetched in pages, even where all of it is wanted.
WHOLE_COLUMN_BYTES = 32 << 20
READ_BLOCK_BYTES = 4 << 20


def parquet_metadata(stream: BinaryIO, name: str) -> pq.FileMetaData:
    """Schema and row groups from the end of the file; BadInput where it is no parquet file."""
    with _parquet_errors(name):
        return pq.read_metadata(stream)


def _require_text_column(metadata: pq.FileMetaData, name: str, text_column: str) -> None:
    """Raise BadInput where the column is absent, occurs twice, or holds no text."""
    with _parquet_errors(name):
        schema = metadata.schema.to_arrow_schema()
    texts = [field.name for field in schema if _holds_text(field.type)]
    fix = (
        f"--text-column one of: {', '.join(texts)}" if texts else "no column of the file holds text"
    )
    if text_column not in schema.names:
        raise BadInput(
            f"{name} has no column {text_column!r}{did_you_mean(text_column, schema.names)}",
            fix=fix,
        )
    if schema.names.count(text_column) > 1:
        raise BadInput(
            f"{name} has {schema.names.count(text_column)} columns {text_column!r}",
            fix="rename one of them",
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

    whole: fetch the column in one piece where it is small. Without it the column is fetched in
    pages, for a reader that stops early.
    """
    _require_text_column(metadata, name, text_column)
    columns = [text_column]
    if id_column in metadata.schema.to_arrow_schema().names and id_column not in (
        None,
        text_column,
    ):
        columns.append(str(id_column))
    stored_bytes, batch_rows = _sizes(metadata, group, text_column)
    at_once = whole and stored_bytes <= WHOLE_COLUMN_BYTES
    with _parquet_errors(name, group):
        # The footer is passed in, so a row group costs no further request for it.
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
            ids = (
                [usable_id(value) for value in batch.column(columns[1]).to_pylist()]
                if len(columns) > 1
                else None
            )
            yield RowBatch(number, texts, ids)
            number += len(texts)


def read_all_groups(
    stream: BinaryIO,
    name: str,
    text_column: str,
    id_column: str | None,
    wanted: Wanted | None = None,
) -> Iterator[RowBatch]:
    """The rows of all row groups, or of those that hold a wanted row."""
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
            yield from batch.to_pylist()


@contextmanager
def _parquet_errors(name: str, group: int | None = None) -> Generator[None, None, None]:
    """Turn what pyarrow raises on a broken file into BadInput that names file and row group."""
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
    """(stored bytes of the text column in a row group, rows of a batch of about BATCH_BYTES)."""
    described = metadata.row_group(group)
    columns = (described.column(number) for number in range(described.num_columns))
    column = next(column for column in columns if column.path_in_schema == text_column)
    row_bytes = column.total_uncompressed_size // max(1, described.num_rows)
    batch_rows = min(MOST_BATCH_ROWS, max(1, BATCH_BYTES // max(1, row_bytes)))
    return column.total_compressed_size, batch_rows


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    types = pa.types
    tests = (types.is_null, types.is_binary, types.is_large_binary, types.is_binary_view)
    return _is_string(kind) or any(test(kind) for test in tests)


def _is_string(kind: pa.DataType) -> bool:
    types = pa.types
    return any(
        test(kind) for test in (types.is_string, types.is_large_string, types.is_string_view)
    )


def _python_texts(column: pa.Array) -> list[object]:
    """The values as str or None; NOT_UTF8 for bytes that are no UTF-8.

    Some writers store text as plain bytes.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_string(column.type):
        try:
            return column.to_numpy(zero_copy_only=False).tolist()
        except (pa.ArrowException, UnicodeDecodeError):
            # One bad text would cost the whole batch: as bytes, each is decoded by itself.
            column = column.cast(pa.large_binary())
    return [_decoded(value) for value in column.to_pylist()]


def _decoded(value: bytes | None) -> object:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return NOT_UTF8
