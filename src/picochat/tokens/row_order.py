"""The order of the training rows: a pseudo-random permutation of each epoch, computed, not stored.

The permutation is a cipher over the row numbers (a Feistel network), keyed by seed and epoch. It is
a bijection of any size that needs a few bytes of memory, so every row stands once in each epoch and
a resumed run needs the step number alone. The order has no cryptographic strength. Knows nothing of
tokens: `shards` cuts the rows.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

# Part of every key. Another way to permute is another order of the rows: raise it with any change
# below, so that no run mixes two orders. A test holds four rows of this version.
ORDER_VERSION = 1
# Four rounds of a Feistel network with random round functions look random (Luby and Rackoff 1988).
# In a range of a few rows a round mixes little, so twice as many; with eight, all 24 orders of four
# rows come equally often (docs/decisions/0006).
ROUNDS = 8

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
        # The cipher works on a rectangle, because a Feistel network needs two coordinates. One of
        # about sqrt(size) by sqrt(size) has fewer than `height` numbers more than the range; a
        # square of a power of two has up to three times as many as the range, and made the order of
        # a step eight times slower (docs/decisions/0006).
        height = math.isqrt(self.size - 1) + 1
        width = -(-self.size // height)
        keys = round_keys(self.seed, self.epoch)
        walked = encipher(start.ravel().astype(np.uint64), height, width, keys)
        # Cycle walking (Black and Rogaway 2002): a number outside the range is enciphered again
        # until it falls inside, which it does because its cycle began inside. The result is a
        # bijection of the range: each number follows one other alone, so two positions never meet.
        while len(outside := np.flatnonzero(walked >= self.size)):
            walked[outside] = encipher(walked[outside], height, width, keys)
        return walked.astype(np.int64).reshape(start.shape)


def encipher(
    numbers: npt.NDArray[np.uint64], height: int, width: int, keys: tuple[int, ...]
) -> npt.NDArray[np.uint64]:
    """A bijection of 0 .. height * width - 1, keyed by `keys`, two of which make a pair of rounds.

    Each round adds a mix of one coordinate to the other, which subtracting would undo: so it is a
    bijection whatever `mix` is.
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
    """(rows_per_step,) row numbers of a step, counted from 0.

    A step may end one epoch and begin the next. Depends on nothing but the arguments, so the step
    number alone resumes it.
    """
    positions = np.arange(step * rows_per_step, (step + 1) * rows_per_step, dtype=np.int64)
    epochs = positions // row_count
    rows = np.empty_like(positions)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        inside = epochs == epoch
        rows[inside] = Permutation(row_count, seed, epoch)(positions[inside] - epoch * row_count)
    return rows
