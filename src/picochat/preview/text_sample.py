"""The texts that a preview reads: all of a small pack, a bounded sample of a large one.

A pack of at most WHOLE_BYTES is read as a whole. A larger one shares a budget of bytes among its
sources. The sample of a source comes from up to SAMPLE_FILES files, spread evenly over it: from up
to SAMPLE_GROUPS row groups of a parquet file, from the beginning of another file. The texts are
held in memory, at most about 200 MB.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from shlex import quote
from typing import BinaryIO, TypeVar

from picochat.config import DataConfig
from picochat.core.errors import BadInput
from picochat.core.progress import Progress
from picochat.data.documents import ReadRow, file_path, row_place
from picochat.data.formats.file_rows import format_of, read_rows
from picochat.data.formats.parquet_rows import parquet_metadata, read_row_group
from picochat.data.formats.row_batch import Row, text_problem
from picochat.data.pack import LoadedSource
from picochat.data.pack_documents import DistinctIds

SAMPLE_BYTES = 20_000_000
WHOLE_BYTES = 50_000_000
SAMPLE_FILES = 24  # of one source
SAMPLE_GROUPS = 8  # of one parquet file
NEARLY_ALL = 1 - 1e-9
# Bytes of text that are read for each byte of a pack that is read as a whole. The size of a
# compressed file says little about its text, and without a limit the text might not fit in memory.
EXPANSION = 4

T = TypeVar("T")


@dataclass
class SourceSample:
    """Texts of one source; each list has one entry for each text.

    file_bytes: the part of the source's files that was read. complete: all of the source was read.
    """

    source: LoadedSource
    min_chars: int
    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    text_bytes: list[int] = field(default_factory=list)
    file_numbers: list[int] = field(default_factory=list)
    unusable: Counter[str] = field(default_factory=Counter)
    distinct: DistinctIds = field(default_factory=DistinctIds)
    file_bytes: float = 0.0
    complete: bool = False

    def spread(self, count: int) -> list[int]:
        """At most `count` positions, spread evenly over the texts."""
        return _evenly(range(len(self.texts)), count)

    def chosen(self, count: int, seed: int) -> list[int]:
        """At most `count` random positions; the same for the same seed and label."""
        generator = random.Random(f"{seed} {self.source.label}")
        return sorted(generator.sample(range(len(self.texts)), min(count, len(self.texts))))


def read_sample(
    sources: Sequence[LoadedSource],
    data: DataConfig,
    sample_bytes: int = SAMPLE_BYTES,
    whole_bytes: int = WHOLE_BYTES,
) -> list[SourceSample]:
    """A sample of every source, or all text if the sources have at most `whole_bytes` together.

    Raises BadInput if a file is broken.
    """
    sizes = [sum(_text_sizes(source)) for source in sources]
    whole = sum(sizes) <= whole_bytes
    budgets = [size * EXPANSION for size in sizes] if whole else share_budget(sizes, sample_bytes)
    with Progress(
        "read text" if whole else "read sample", sum(sizes if whole else budgets) / 1e6, "MB"
    ) as progress:
        return [
            _read_source(source, budget, data, progress)
            for source, budget in zip(sources, budgets, strict=True)
        ]


def share_budget(sizes: Sequence[int], total: int) -> list[int]:
    """Divide `total` equally among sources; what a small one does not need goes to the others."""
    budgets = [0] * len(sizes)
    left = total
    for rank, index in enumerate(sorted(range(len(sizes)), key=lambda number: sizes[number])):
        budgets[index] = min(sizes[index], left // (len(sizes) - rank))
        left -= budgets[index]
    return budgets


def _text_sizes(source: LoadedSource) -> list[int]:
    """Text bytes of each file if the manifest states them, else the size of the file."""
    shards = source.manifest.shards if source.manifest else []
    stated = {shard.name: shard.text_bytes for shard in shards}
    return [max(1, stated.get(file.name, file.bytes)) for file in source.files]


def _read_source(
    source: LoadedSource, budget: int, data: DataConfig, progress: Progress
) -> SourceSample:
    sample = SourceSample(source, source.least_chars(data.min_chars))
    sizes = _text_sizes(source)
    whole = sum(sizes) <= budget
    numbers = list(range(len(sizes))) if whole else _evenly(range(len(sizes)), SAMPLE_FILES)
    chosen_bytes = sum(sizes[number] for number in numbers)
    sample.complete = whole
    taken = passed = 0
    for number in numbers:
        # Take the same fraction of every file. The same number of bytes would give files of short
        # documents too much weight: a mean length of 983 characters was measured as 250
        # (docs/decisions/0016).
        passed += sizes[number]
        until = budget if whole else budget * passed // chosen_bytes
        part, read_all = _read_file(sample, number, until - taken, whole)
        taken += part
        sample.complete = sample.complete and read_all
        progress.advance(part / 1e6, f"{len(sample.texts):,} documents of {source.label}")
    return sample


def _evenly(items: Sequence[T], count: int) -> list[T]:
    if len(items) <= count:
        return list(items)
    return [items[number * len(items) // count] for number in range(count)]


def _read_file(sample: SourceSample, number: int, budget: int, whole: bool) -> tuple[int, bool]:
    """(text bytes taken, whether the whole file was read)."""
    file = sample.source.files[number]
    path = file_path(sample.source.path, file.name)
    try:
        stream = path.open("rb")
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read: {error.strerror}",
            fix=f"chmod u+r {quote(str(path))}, or leave it out",
        ) from None
    with stream:
        if format_of(file.name) == "parquet":
            taken, fraction = _read_parquet(sample, number, stream, str(path), budget, whole)
        else:
            rows = read_rows(stream, str(path), sample.source.text_column, id_column="id")
            taken, _, ended = _take(sample, number, rows, budget)
            fraction = 1.0 if ended else min(stream.tell() / max(1, file.bytes), NEARLY_ALL)
    sample.file_bytes += file.bytes * fraction
    return taken, fraction == 1.0


def _read_parquet(
    sample: SourceSample, number: int, stream: BinaryIO, path: str, budget: int, whole: bool
) -> tuple[int, float]:
    """(text bytes taken, fraction of the file's rows that were read)."""
    metadata = parquet_metadata(stream, path)
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    groups = list(range(len(sizes))) if whole else _evenly(range(len(sizes)), SAMPLE_GROUPS)
    taken = rows_read = 0
    for place, group in enumerate(groups):
        batches = read_row_group(
            stream,
            path,
            sample.source.text_column,
            group,
            metadata,
            first_row=sum(sizes[:group]),
            id_column="id",
            whole=False,
        )
        rows = (row for batch in batches for row in batch.rows())
        left = budget - taken
        share = left if whole else left // (len(groups) - place)
        part, count, _ = _take(sample, number, rows, share)
        taken += part
        rows_read += count
    return taken, rows_read / metadata.num_rows if metadata.num_rows else 1.0


def _take(
    sample: SourceSample, number: int, rows: Iterator[Row], budget: int
) -> tuple[int, int, bool]:
    """(text bytes taken, rows read, whether the rows ended before the budget was used up)."""
    name = sample.source.files[number].name
    taken = count = 0
    for row in rows:
        if taken >= budget:
            return taken, count, False
        count += 1
        problem = text_problem(row.text)
        text = row.text if isinstance(row.text, str) else ""
        place = row_place(name, row.number)
        id = sample.distinct.of(ReadRow(row.id or place, place, text, problem))
        if problem is None and len(text) < sample.min_chars:
            problem = "below_min_chars"
        if problem is not None:
            sample.unusable[problem] += 1
            continue
        size = len(text.encode())
        sample.ids.append(id)
        sample.texts.append(text)
        sample.text_bytes.append(size)
        sample.file_numbers.append(number)
        taken += size
    return taken, count, True
