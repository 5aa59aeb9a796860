"""The order of the training rows: a pseudo-random permutation of each epoch, computed from seed and
epoch, never stored.

A cipher over the row number (a Feistel network on a rectangle hardly larger than the range, walked
until it falls inside: Black and Rogaway 2002) is a bijection of any size in a few bytes of memory,
so each row stands once in each epoch, and a resume needs the step number alone. The order is good
for training and no secret: it has no cryptographic strength. Knows nothing of tokens; `shards` cuts
the rows.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

ORDER_VERSION = 1  # part of every key: another way to permute is another order, and must say so
ROUNDS = (
    8  # four give a bijection that looks random; small ranges mix little in each, so twice that
)

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Permutation:
    """A bijection of 0..size-1, fixed by size, seed and epoch. Equal on every machine."""

    size: int
    seed: int
    epoch: int

    def __post_init__(self) -> None:
        assert 1 <= self.size < 1 << 62, "a permutation has at least one element"

    def __call__(self, positions: npt.ArrayLike) -> Indices:
        """The row at each position of the epoch; positions in [0, size), any shape."""
        start = np.asarray(positions, dtype=np.int64)
        assert not start.size or (int(start.min()) >= 0 and int(start.max()) < self.size), (
            "positions are inside the epoch"
        )
        height = math.isqrt(self.size - 1) + 1
        width = -(-self.size // height)
        keys = round_keys(self.seed, self.epoch)
        walked = encipher(start.ravel().astype(np.uint64), height, width, keys)
        # The rectangle has fewer than `height` numbers outside the range, so few walk on, and along
        # its cycle each comes inside again. Two positions never meet, since each number follows one
        # other alone.
        while len(outside := np.flatnonzero(walked >= self.size)):
            walked[outside] = encipher(walked[outside], height, width, keys)
        return walked.astype(np.int64).reshape(start.shape)


def encipher(
    numbers: npt.NDArray[np.uint64], height: int, width: int, keys: tuple[int, ...]
) -> npt.NDArray[np.uint64]:
    """A bijection of 0 .. height * width - 1: each round adds a mix of one coordinate to the other,
    by turns.
    """
    sides = np.uint64(height), np.uint64(width)
    row, column = numbers // sides[1], numbers % sides[1]
    for row_key, column_key in zip(keys[::2], keys[1::2], strict=True):
        row = (row + mix(column + np.uint64(row_key)) % sides[0]) % sides[0]
        column = (column + mix(row + np.uint64(column_key)) % sides[1]) % sides[1]
    return row * sides[1] + column


def mix(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The output function of SplitMix64 (Steele, Lea, Flood 2014): every input bit changes about
    half of the output bits.
    """
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


@lru_cache(maxsize=16)
def round_keys(seed: int, epoch: int) -> tuple[int, ...]:
    """One 64-bit key for each round."""
    digest = hashlib.sha512(
        f"picochat order {ORDER_VERSION}: seed {seed}, epoch {epoch}".encode()
    ).digest()
    return tuple(
        int.from_bytes(digest[8 * number : 8 * number + 8], "little") for number in range(ROUNDS)
    )


def rows_of_step(step: int, rows_per_step: int, row_count: int, seed: int) -> Indices:
    """(rows_per_step,) row numbers of a step, counted from 0. A step may end one epoch and begin
    the next.

    Depends on nothing but the arguments, so the step number alone resumes it.
    """
    positions = np.arange(step * rows_per_step, (step + 1) * rows_per_step, dtype=np.int64)
    epochs = positions // row_count
    rows = np.empty_like(positions)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        inside = epochs == epoch
        rows[inside] = Permutation(row_count, seed, epoch)(positions[inside] - epoch * row_count)
    return rows
