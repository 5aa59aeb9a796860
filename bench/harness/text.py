"""Real text for a benchmark, in any amount, and as a dataset folder of parquet files.

Of a source that holds more than is asked for, a fraction of the documents is drawn. Small and large
amounts are thus made of the same kinds of text. Documents come from parquet files with a text
column; without any, from the help topics that Python itself ships. Where more text is asked for
than there is, the documents come again with every fourth word exchanged for another of the same
document: real words at real frequencies, but no run of five words stands, so a copy is neither an
exact nor a near-duplicate. How often the text was repeated is returned, to be said beside every
figure. Memory: one document and one row group of a file.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DEMO_SOURCE = Path(__file__).parents[2] / "demo/out/source"
ROWS_PER_GROUP = 1000
LARGEST_FILE_BYTES = 64_000_000
LEAST_FILES = 8
LEAST_CHARACTERS = 200
FILES_AT_ONCE = 64
DOCUMENTS_IN_TURN = 32
# Drawn documents differ in size: a little more than asked for, so that one pass is enough.
SHARE_TO_SPARE = 1.02
# Less than the five words of a shingle, so each shingle of a copy holds a changed word.
CHANGED_WORD = 4
CARD = "---\nlicense: other\nlicense_name: of-its-source\n---\n# Text for a benchmark\n"


@dataclass(frozen=True)
class Made:
    """A dataset folder.

    repeats: how often the source was begun; 1 means that every text is as it was written.
    """

    rows: int
    text_bytes: int
    files: int
    repeats: int


def find_documents(source: Path | None, column: str) -> tuple[str, Callable[[], Iterator[str]]]:
    """(what the text is, a function that streams it from its start).

    source None: the demo's source, or Python's help topics where there is none.
    """
    folder = source or DEMO_SOURCE
    files = sorted(folder.rglob("*.parquet"))
    if files:
        return str(source or "demo/out/source"), lambda: _parquet_texts(files, column)
    if source is not None:
        raise SystemExit(f"{source} holds no parquet file")
    return "Python's help topics", _help_topics


def take_bytes(
    documents: Callable[[], Iterator[str]], text_bytes: int
) -> Iterator[tuple[int, str]]:
    """(pass over the source from 0 on, text), until the texts hold `text_bytes` bytes."""
    whole = sum(len(text.encode()) for text in documents() if len(text) >= LEAST_CHARACTERS)
    if not whole:
        raise SystemExit(f"the source holds no text of {LEAST_CHARACTERS} characters or more")
    fraction = min(1.0, SHARE_TO_SPARE * text_bytes / whole)
    draw = random.Random("take")
    taken = 0
    for copy in count():
        for number, text in enumerate(documents()):
            if len(text) < LEAST_CHARACTERS or draw.random() >= fraction:
                continue
            given = text if copy == 0 else with_changed_words(text, f"{copy} {number}")
            taken += len(given.encode())
            yield copy, given
            if taken >= text_bytes:
                return


def with_changed_words(text: str, seed: str) -> str:
    """Every fourth word exchanged for another word of the text, drawn by the seed."""
    draw = random.Random(seed)
    words = text.split(" ")
    changed = [
        draw.choice(words) if place % CHANGED_WORD == CHANGED_WORD - 1 else word
        for place, word in enumerate(words)
    ]
    return " ".join(changed)


def write_dataset(texts: Iterator[tuple[int, str]], folder: Path, text_bytes: int) -> Made:
    """Write at least eight parquet files of at most 64 MB of text below `folder`, and a card."""
    file_bytes = min(LARGEST_FILE_BYTES, max(1, text_bytes // LEAST_FILES))
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    rows = taken = files = repeats = in_file = 0
    writer: pq.ParquetWriter | None = None
    group: list[str] = []
    schema = pa.schema([("id", pa.string()), ("text", pa.string())])

    def write_group() -> None:
        nonlocal group
        ids = [f"row-{rows - len(group) + place:09d}" for place in range(len(group))]
        if writer is not None and group:
            writer.write_table(pa.table({"id": ids, "text": group}, schema=schema))
        group = []

    for copy, text in texts:
        if writer is None:
            writer = pq.ParquetWriter(folder / f"data/train-{files:05d}.parquet", schema)
            files, in_file = files + 1, 0
        size = len(text.encode())
        group.append(text)
        rows, taken, in_file, repeats = rows + 1, taken + size, in_file + size, copy + 1
        if len(group) == ROWS_PER_GROUP or in_file >= file_bytes:
            write_group()
        if in_file >= file_bytes:
            writer.close()
            writer = None
    write_group()
    if writer is not None:
        writer.close()
    return Made(rows, taken, files, repeats)


def _parquet_texts(files: list[Path], column: str) -> Iterator[str]:
    """A few documents of each of FILES_AT_ONCE files in turn: the head is as mixed as the whole."""
    for first in range(0, len(files), FILES_AT_ONCE):
        opened = [pq.ParquetFile(file) for file in files[first : first + FILES_AT_ONCE]]
        waiting = [
            file.iter_batches(batch_size=DOCUMENTS_IN_TURN, columns=[column]) for file in opened
        ]
        while waiting:
            for batches in tuple(waiting):
                batch = next(batches, None)
                if batch is None:
                    waiting.remove(batches)
                else:
                    yield from (text for text in batch.column(0).to_pylist() if text)
        for file in opened:
            file.close()


def _help_topics() -> Iterator[str]:
    from pydoc_data import topics

    yield from (text.replace("\0", " ") for _, text in sorted(topics.topics.items()))
