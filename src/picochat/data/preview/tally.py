"""What is counted of every text that a preview reads: lengths, bytes, repeated lines, and rows that
are not read.

The same tally serves a sample and a pass over all files. Memory: 8 bytes a document for its length,
and the bounded counter of lines; the texts themselves only pass by, but for the few that somebody
asked for by id.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from picochat.config import DataConfig
from picochat.core.progress import Progress
from picochat.data.documents import read_source_file
from picochat.data.pack import LoadedSource
from picochat.data.preview.lines import CAPACITY, LineCounter
from picochat.data.preview.sample import SourceSample


@dataclass
class SourceTally:
    """Counts of one source's texts."""

    lines: LineCounter
    lengths: array[int] = field(default_factory=lambda: array("q"))
    text_bytes: int = 0
    unusable: Counter[str] = field(default_factory=Counter)

    @property
    def documents(self) -> int:
        return len(self.lengths)

    def add(self, text: str, text_bytes: int) -> None:
        self.lengths.append(len(text))
        self.text_bytes += text_bytes
        self.lines.add(text)


def tally_samples(samples: Sequence[SourceSample]) -> list[SourceTally]:
    """Counts of the sampled texts."""
    tallies: list[SourceTally] = []
    for sample in samples:
        tally = SourceTally(_line_counter(len(samples)), unusable=sample.unusable)
        for text, size in zip(sample.texts, sample.text_bytes, strict=True):
            tally.add(text, size)
        tallies.append(tally)
    return tallies


def tally_files(
    sources: Sequence[LoadedSource], data: DataConfig, wanted: Collection[str]
) -> tuple[list[SourceTally], dict[str, str]]:
    """(counts of every text of every source, the texts of the wanted ids).

    Raises BadInput where a file is broken.
    """
    tallies: list[SourceTally] = []
    texts: dict[str, str] = {}
    total = sum(file.bytes for source in sources for file in source.files)
    with Progress("count lines and lengths", total / 1e6, "MB") as progress:
        for source in sources:
            tally = SourceTally(_line_counter(len(sources)))
            tallies.append(tally)
            for file in source.files:
                _tally_file(
                    source, file.name, source.least_chars(data.min_chars), tally, wanted, texts
                )
                progress.advance(
                    file.bytes / 1e6, f"{tally.documents:,} documents of {source.label}"
                )
    return tallies, texts


def _tally_file(
    source: LoadedSource,
    name: str,
    min_chars: int,
    tally: SourceTally,
    wanted: Collection[str],
    texts: dict[str, str],
) -> None:
    for row in read_source_file(source.path, name, source.text_column):
        problem = row.problem or ("below_min_chars" if len(row.text) < min_chars else None)
        if problem is not None:
            tally.unusable[problem] += 1
            continue
        tally.add(row.text, len(row.text.encode()))
        id = f"{source.label}:{row.id}"
        if id in wanted:
            texts[id] = row.text


def _line_counter(sources: int) -> LineCounter:
    """Many sources share the memory that one may have."""
    return LineCounter(max(2_000, CAPACITY // max(1, sources)))
