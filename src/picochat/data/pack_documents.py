"""Read the documents of a pack directly from its sources, before a corpus is built.

The recipe's choice of files, its lengths and its excluded documents apply; weights do not, and
duplicates are not removed. Ids are `LABEL:ID`, as in a corpus.
"""

from __future__ import annotations

from collections.abc import Iterator

import xxhash

from picochat.data.documents import Document, ReadRow, file_path, read_source_file
from picochat.data.formats.file_rows import format_of
from picochat.data.formats.parquet_rows import parquet_metadata
from picochat.data.pack import LoadedPack, LoadedSource

PLAIN_ENDINGS = (".txt", ".md", ".jsonl")


def read_pack(pack: LoadedPack, least_chars: int = 1) -> Iterator[Document]:
    """Every usable document, in the order of sources, files and rows.

    Raises BadInput if a file is broken.
    """
    excluded = set(pack.recipe.exclude_documents)
    for source in pack.sources:
        shortest = source.least_chars(least_chars)
        ids = DistinctIds()
        for file in source.files:
            for row in read_source_file(source.path, file.name, source.text_column):
                names = [f"{source.label}:{name}" for name in (row.id, row.place)]
                id = f"{source.label}:{ids.of(row)}"
                if row.problem is None and len(row.text) >= shortest and excluded.isdisjoint(names):
                    yield Document(id, row.text, source.label)


class DistinctIds:
    """Ids for the rows of one source, as a corpus has them: a repeated one becomes the place.

    repeated: how many did. Memory: some 60 bytes for each row that has an id of its own.
    """

    def __init__(self) -> None:
        self.repeated = 0
        self._seen: set[int] = set()

    def of(self, row: ReadRow) -> str:
        """The id of the next row."""
        if row.id == row.place:
            return row.id
        hash = xxhash.xxh3_64_intdigest(row.id.encode("utf-8", "replace"))
        if hash in self._seen:
            self.repeated += 1
            return row.place
        self._seen.add(hash)
        return row.id


def expected_bytes(pack: LoadedPack) -> int | None:
    """An estimate of a pack's bytes of text, for a progress bar; None if unknown."""
    sizes = [_expected(source) for source in pack.sources]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def _expected(source: LoadedSource) -> int | None:
    if source.manifest is not None:
        listed = {file.name for file in source.files}
        return sum(shard.text_bytes for shard in source.manifest.shards if shard.name in listed)
    if all(file.name.lower().endswith(PLAIN_ENDINGS) for file in source.files):
        return sum(file.bytes for file in source.files)
    stated = parquet_totals(source)
    return stated[1] if stated else None


def parquet_totals(source: LoadedSource) -> tuple[int, int] | None:
    """(rows, estimated bytes of text) from the footers of parquet files; None for other files.

    The bytes are those of the column before compression, without four for the length of each text.
    If the writer used a dictionary, a text that repeats in a row group may count once.
    """
    if not all(format_of(file.name) == "parquet" for file in source.files):
        return None
    rows = column_bytes = 0
    for file in source.files:
        path = file_path(source.path, file.name)
        with path.open("rb") as stream:
            metadata = parquet_metadata(stream, str(path))
        rows += metadata.num_rows
        for group in range(metadata.num_row_groups):
            described = metadata.row_group(group)
            for column in map(described.column, range(metadata.num_columns)):
                if column.path_in_schema == source.text_column:
                    column_bytes += column.total_uncompressed_size
    return rows, max(0, column_bytes - 4 * rows)
