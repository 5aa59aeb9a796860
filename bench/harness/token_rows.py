"""Text as token ids and as rows of a context, for the benchmarks that train."""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor

from picochat.model.gpt import IGNORED_TARGET
from picochat.tokens.tokenizer import Tokenizer, train

Ids = npt.NDArray[np.int64]
HELD_OUT_ROWS_AT_ONCE = 16
DOCUMENTS_TO_CHOOSE_FROM = 1_000


def documents_of(source: Path) -> list[str]:
    """The texts of all parquet files below a folder, file by file. Exits where there is none."""
    texts = [
        text
        for file in sorted(source.rglob("*.parquet"))
        for text in pq.read_table(file)["text"].to_pylist()
    ]
    if not texts:
        sys.exit(f"no parquet files below {source}: python demo/fetch_corpus.py {source}")
    return texts


def tokenizer_of(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_bytes(train(texts, vocab_size))
        return Tokenizer.load(path)


def stream_of(texts: Sequence[str], tokenizer: Tokenizer) -> Ids:
    """The ids of all texts, a BOS before each."""
    return np.concatenate(
        [np.array([tokenizer.bos, *ids], np.int64) for ids in tokenizer.encode_many(texts)]
    )


def rows_at(stream: Ids, rows: Ids, context: int) -> Ids:
    """Rows of `context` + 1 ids by their numbers. The last id of a row begins the next one."""
    return stream[rows[:, None] * context + np.arange(context + 1)]


def all_rows(stream: Ids, context: int) -> Ids:
    return rows_at(stream, np.arange((len(stream) - 1) // context), context)


def document_rows(stream: Ids, bos: int, length: int, seed: int) -> Ids:
    """Rows (rows, length) that begin at documents, as nanochat's loader makes them.

    The longest document of a buffer that fits is taken next. Where none fits, the shortest is cut
    to the room that is left, and its rest is dropped.
    """
    documents = np.split(stream, np.flatnonzero(stream == bos)[1:])
    order = np.random.default_rng(seed).permutation(len(documents))
    coming = (documents[number] for number in order)
    buffer = list(itertools.islice(coming, DOCUMENTS_TO_CHOOSE_FROM))
    rows: list[Ids] = []
    while True:
        row: list[Ids] = []
        room = length
        while room and buffer:
            fitting = [number for number, found in enumerate(buffer) if len(found) <= room]
            if fitting:
                chosen = max(fitting, key=lambda number: len(buffer[number]))
            else:
                chosen = min(range(len(buffer)), key=lambda number: len(buffer[number]))
            row.append(buffer.pop(chosen)[:room])
            room -= len(row[-1])
            buffer += itertools.islice(coming, 1)
        if room:
            return np.stack(rows)
        rows.append(np.concatenate(row))


@torch.no_grad()
def summed_nats(logits_of: Callable[[Tensor], Tensor], rows: Tensor, bos: int) -> tuple[float, int]:
    """(nats, targets) of rows (rows, context + 1), summed in float64."""
    nats, targets = 0.0, 0
    for block in rows.split(HELD_OUT_ROWS_AT_ONCE):
        target = torch.where(block[:, 1:] == bos, IGNORED_TARGET, block[:, 1:])
        logits = logits_of(block[:, :-1].contiguous()).float()
        nats += float(F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum"))
        targets += int((target != IGNORED_TARGET).sum())
    return nats, targets
