"""Training rows that begin at documents."""

from __future__ import annotations

import itertools
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Id = TypeVar("Id", bound=np.integer)
DOCUMENTS_TO_CHOOSE_FROM = 1_000


def document_rows(stream: npt.NDArray[Id], bos: int, length: int, seed: int) -> npt.NDArray[Id]:
    """Rows (rows, length) that begin at documents, as nanochat's loader makes them.

    The longest document of a buffer that fits is taken next. Where none fits, the shortest is cut
    to the room that is left, and its rest is dropped.
    """
    documents = np.split(stream, np.flatnonzero(stream == bos)[1:])
    order = np.random.default_rng(seed).permutation(len(documents))
    coming = (documents[number] for number in order)
    buffer = list(itertools.islice(coming, DOCUMENTS_TO_CHOOSE_FROM))
    rows: list[npt.NDArray[Id]] = []
    while True:
        row: list[npt.NDArray[Id]] = []
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
