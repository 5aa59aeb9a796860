"""The order of the training rows: a pseudo-random permutation for each epoch, never stored.

The permutation is a cipher over the row numbers (a Feistel network), keyed by seed and epoch. Every
row appears once in each epoch, memory does not grow with the number of rows, and a resumed run
needs only the step number. The order has no cryptographic strength. `shards` reads the rows.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

# Part of every key. Any change of the permutation must raise it, so that no run mixes two orders. A
# test holds four rows of this version.
ORDER_VERSION = 1
# A Feistel network with random round functions looks random after four rounds (Luby and Rackoff
# 1988). A round mixes little in a range of a few rows, so there are twice as many. With eight, all
# 24 orders of four rows are equally frequent (docs/decisions/0006).
ROUNDS = 8

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Permutation:
    """A bijection of 0..size-1. Depends only on size, seed and epoch, on every machine."""

    size: int
    seed: int
    epoch: int

    def __post_init__(self) -> None:
        assert 1 <= self.size < 1 << 62, "a permutation has at least one element"

    def __call__(self, positions: npt.ArrayLike) -> Indices:
        """The row at each position of the epoch. Positions are in [0, size) and of any shape."""
        start = np.asarray(positions, dtype=np.int64)
        assert not start.size or (int(start.min()) >= 0 and int(start.max()) < self.size), (
            "positions are inside the epoch"
        )
        # A Feistel network needs two coordinates, so the cipher works on a rectangle. One of about
        # sqrt(size) by sqrt(size) has fewer than `height` numbers outside the range. A square of a
        # power of two can have four times the numbers of the range, and took eight times as long
        # (docs/decisions/0006).
        height = math.isqrt(self.size - 1) + 1
        width = -(-self.size // height)
        keys = round_keys(self.seed, self.epoch)
        walked = encipher(start.ravel().astype(np.uint64), height, width, keys)
        # Cycle walking (Black and Rogaway 2002): a number outside the range is enciphered again
        # until it is inside. This ends, because its cycle started inside, and two positions never
        # reach the same number, because the cipher is a bijection.
        while len(outside := np.flatnonzero(walked >= self.size)):
            walked[outside] = encipher(walked[outside], height, width, keys)
        return walked.astype(np.int64).reshape(start.shape)


def encipher(
    numbers: npt.NDArray[np.uint64], height: int, width: int, keys: tuple[int, ...]
) -> npt.NDArray[np.uint64]:
    """A bijection of 0 .. height * width - 1, with one round for each of `keys`.

    Each round adds a mix of one coordinate to the other. Subtraction would undo it, so the result
    is a bijection for any `mix`.
    """
    sides = np.uint64(height), np.uint64(width)
    row, column = numbers // sides[1], numbers % sides[1]
    for row_key, column_key in zip(keys[::2], keys[1::2], strict=True):
        row = (row + mix(column + np.uint64(row_key)) % sides[0]) % sides[0]
        column = (column + mix(row + np.uint64(column_key)) % sides[1]) % sides[1]
    return row * sides[1] + column


def mix(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The output function of SplitMix64 (Steele, Lea, Flood 2014).

    Every input bit changes about half of the output bits.
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
    """(rows_per_step,) row numbers of a step; steps and rows count from 0.

    A step may end one epoch and begin the next.
    """
    positions = np.arange(step * rows_per_step, (step + 1) * rows_per_step, dtype=np.int64)
    epochs = positions // row_count
    rows = np.empty_like(positions)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        inside = epochs == epoch
        rows[inside] = Permutation(row_count, seed, epoch)(positions[inside] - epoch * row_count)
    return rows
