"""The documents of a pack straight from its sources, for who needs neither splits nor duplicates
found: each once, streamed.

Honours what the recipe says about files, lengths and documents to leave out; not weights. Ids are
`LABEL:ID`, as in a corpus.
"""

from __future__ import annotations

from collections.abc import Iterator

from picochat.data.documents import Document, read_source_file
from picochat.data.pack import LoadedPack, LoadedSource
from picochat.data.preview.sample import parquet_totals

PLAIN_ENDINGS = (".txt", ".md", ".jsonl")


def read_pack(pack: LoadedPack, least_chars: int = 1) -> Iterator[Document]:
    """Every usable document, in the order of sources, files and rows.

    Raises BadInput where a file is broken.
    """
    excluded = set(pack.recipe.exclude_documents)
    for source in pack.sources:
        shortest = source.least_chars(least_chars)
        for file in source.files:
            for row in read_source_file(source.path, file.name, source.text_column):
                id = f"{source.label}:{row.id}"
                if row.problem is None and len(row.text) >= shortest and id not in excluded:
                    yield Document(id, row.text, source.label)


def expected_bytes(pack: LoadedPack) -> int | None:
    """About how many bytes of text a pack holds, to show progress by; None where its files do not
    tell.
    """
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
