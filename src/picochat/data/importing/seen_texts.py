"""A set of text digests that is exact and whose memory does not grow with the number of texts.

A filter of fixed size says of nearly every new text that it is new; only what it cannot tell is
looked up in a table on disk. New digests reach that table in sorted batches, which costs a fraction
of inserting them one by one. The file lies in the folder given, so a full disk is noticed as such,
and goes when it is closed. It outlives no process. Two texts of the same 128-bit digest count as
one text.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from picochat.core.errors import HostProblem

FILTER_WORDS = (
    1 << 21
)  # 16 MB: one text in a hundred is looked up in vain when ten million have been seen
BITS_PER_TEXT = 4
DIGEST_BYTES = 16
UNSORTED_DIGESTS = 1 << 16
TABLE_CACHE_KB = 4_000


class SeenTexts:
    """`add(digests)` says which of them are new, and remembers them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "seen.sqlite"
        self._path.unlink(missing_ok=True)
        self._filter = np.full(FILTER_WORDS, 0, dtype=np.uint64)
        self._unsorted: set[bytes] = set()
        self._table = sqlite3.connect(self._path, isolation_level=None)
        for pragma in (
            "journal_mode = off",
            "synchronous = off",
            "locking_mode = exclusive",
            f"cache_size = -{TABLE_CACHE_KB}",
        ):
            self._table.execute(f"PRAGMA {pragma}")
        self._table.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")
        self._table.execute("BEGIN")

    def add(self, digests: Sequence[bytes]) -> list[bool]:
        """For each 16-byte digest, whether it was not seen before, neither earlier nor further
        ahead in `digests`.
        """
        perhaps_seen = self._pass_filter(digests)
        fresh: list[bool] = []
        for digest, perhaps in zip(digests, perhaps_seen, strict=True):
            new = digest not in self._unsorted and not (perhaps and self._in_table(digest))
            if new:
                self._unsorted.add(digest)
            fresh.append(new)
        if len(self._unsorted) >= UNSORTED_DIGESTS:
            self._move_to_table()
        return fresh

    def close(self) -> None:
        self._table.close()
        self._path.unlink(missing_ok=True)

    def _pass_filter(self, digests: Sequence[bytes]) -> list[bool]:
        """For each digest, whether the filter held it already; afterwards it holds all of them."""
        halves = np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)
        words = (halves[:, 0] & np.uint64(FILTER_WORDS - 1)).astype(np.int64)
        bits = np.zeros(len(halves), dtype=np.uint64)
        for number in range(BITS_PER_TEXT):
            bits |= np.uint64(1) << ((halves[:, 1] >> np.uint64(6 * number)) & np.uint64(63))
        held = (self._filter[words] & bits) == bits
        np.bitwise_or.at(self._filter, words, bits)
        return held.tolist()

    def _in_table(self, digest: bytes) -> bool:
        return (
            self._table.execute("SELECT 1 FROM seen WHERE digest = ?", (digest,)).fetchone()
            is not None
        )

    def _move_to_table(self) -> None:
        """One statement for the whole batch: the interpreter is left to other threads meanwhile."""
        ordered = b"".join(sorted(self._unsorted))
        try:
            self._table.execute(
                "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 <"
                " :count) INSERT INTO seen SELECT substr(:digests, 16 * i + 1, 16) FROM n",
                {"count": len(self._unsorted), "digests": ordered},
            )
        except sqlite3.OperationalError as error:
            raise HostProblem(
                f"{self._path} cannot be written ({error}); what was finished is kept",
                fix="free some space, then the same command goes on",
            ) from None
        self._unsorted.clear()
