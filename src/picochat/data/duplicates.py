"""Near-duplicates by MinHash: documents that share most of their runs of five words, as clusters.

Texts are lower-cased and cut into words (ASCII letters and digits, and every byte beyond ASCII); each run of five words is
one 64-bit hash; 128 permutations keep the smallest of each. Documents whose signatures agree in at least the asked share
are near-duplicates, and clusters are what is connected. The estimate's standard error is 0.035 at similarity 0.8.

Memory: 512 bytes a document for the signatures, so 0.5 GB for a million, and some 30 more bytes while they are compared.
Does not see translations, paraphrases, or a short text inside a long one; documents of fewer than five words take no part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

SHINGLE_WORDS = 5
PERMUTATIONS = 128
RECALL = 0.99  # of pairs just at the threshold that must share a band
BATCH_BYTES = 1 << 20
COMPARED_PAIRS = 1 << 16

U64 = npt.NDArray[np.uint64]
Signatures = npt.NDArray[np.uint32]
Places = npt.NDArray[np.int64]


def _constants(name: str, count: int) -> U64:
    """Odd 64-bit numbers from a name: the same everywhere, whatever numpy's generators become."""
    digests = (hashlib.sha256(f"{name} {index}".encode()).digest()[:8] for index in range(count))
    return np.array([int.from_bytes(digest, "little") | 1 for digest in digests], dtype=np.uint64)


MULTIPLIERS = _constants("minhash multiplier", PERMUTATIONS)
OFFSETS = _constants("minhash offset", PERMUTATIONS)
WORD_FACTORS = _constants("shingle word", SHINGLE_WORDS)
BYTE_CODES = _constants("byte", 256)
BYTE_BASE = _constants("byte base", 1)[0]
NO_SHINGLE = np.uint32(0xFFFFFFFF)

_lower = np.arange(256, dtype=np.uint8)
_lower[ord("A") : ord("Z") + 1] += 32
_is_word = np.zeros(256, dtype=bool)
for _first, _last in (("0", "9"), ("A", "Z"), ("a", "z")):
    _is_word[ord(_first) : ord(_last) + 1] = True
_is_word[128:] = True


def signatures(texts: Sequence[str]) -> Signatures:
    """One row of 128 numbers for each text; a row of NO_SHINGLE where a text has fewer than five words."""
    found = np.full((len(texts), PERMUTATIONS), NO_SHINGLE, dtype=np.uint32)
    batch: list[bytes] = []
    first = size = 0
    for index, text in enumerate(texts):
        data = (text if text.isascii() else text.lower()).encode("utf-8", errors="replace")
        batch.append(data)
        size += len(data)
        if size >= BATCH_BYTES or index == len(texts) - 1:
            _sign(batch, found[first : index + 1])
            first, batch, size = index + 1, [], 0
    return found


def cluster_signatures(rows: Signatures, jaccard: float) -> list[list[int]]:
    """Clusters of row numbers, each sorted, in the order of their first row. Rows of NO_SHINGLE are in none."""
    parents = np.arange(len(rows), dtype=np.int64)
    present = np.flatnonzero(rows[:, 0] != NO_SHINGLE) if len(rows) else np.zeros(0, dtype=np.int64)
    for left, right in _candidate_pairs(rows, present, jaccard):
        for start in range(0, len(left), COMPARED_PAIRS):
            a, b = left[start : start + COMPARED_PAIRS], right[start : start + COMPARED_PAIRS]
            close = (rows[a] == rows[b]).mean(axis=1) >= jaccard
            for one, other in zip(a[close].tolist(), b[close].tolist(), strict=True):
                _join(parents, one, other)
    return _clusters(parents)


def near_duplicate_clusters(texts: Sequence[str], jaccard: float) -> list[list[int]]:
    """Clusters of positions in `texts` whose five-word runs agree in at least this share."""
    return cluster_signatures(signatures(texts), jaccard)


def band_rows(jaccard: float) -> int:
    """Numbers in a band: the most that still brings RECALL of the pairs just at the threshold together."""
    for rows in range(PERMUTATIONS, 1, -1):
        if 1 - (1 - jaccard**rows) ** (PERMUTATIONS // rows) >= RECALL:
            return rows
    return 1


def _sign(batch: list[bytes], out: Signatures) -> None:
    shingles, counts = _shingles(batch)
    having = np.flatnonzero(counts)
    if not len(having):
        return
    starts = np.concatenate(([0], np.cumsum(counts[having])[:-1]))
    for permutation in range(PERMUTATIONS):
        # Multiply-shift: the high half of a 64-bit product is a good hash, and wraps without a modulus.
        hashed = ((shingles * MULTIPLIERS[permutation] + OFFSETS[permutation]) >> np.uint64(32)).astype(np.uint32)
        out[having, permutation] = np.minimum.reduceat(hashed, starts)


def _shingles(batch: list[bytes]) -> tuple[U64, Places]:
    """(hashes of all five-word runs in order, how many each text has)."""
    text = _lower[np.frombuffer(b"\n".join(batch) + b"\n", dtype=np.uint8)]
    ends = np.cumsum([len(data) + 1 for data in batch], dtype=np.int64)
    words, word_starts = _words(text)
    if len(words) < SHINGLE_WORDS:
        return np.zeros(0, dtype=np.uint64), np.zeros(len(batch), dtype=np.int64)
    owner = np.searchsorted(ends, word_starts, side="right")
    runs = len(words) - SHINGLE_WORDS + 1
    hashed = np.zeros(runs, dtype=np.uint64)
    for offset in range(SHINGLE_WORDS):
        hashed += words[offset : offset + runs] * WORD_FACTORS[offset]
    inside = owner[:runs] == owner[SHINGLE_WORDS - 1 :]
    return _mixed(hashed[inside]), np.bincount(owner[:runs][inside], minlength=len(batch))


def _words(text: npt.NDArray[np.uint8]) -> tuple[U64, Places]:
    """(hash of each word, its first byte's position). A word's hash is a polynomial of its bytes, without regard to where it stands."""
    inside = _is_word[text]
    edges = np.diff(inside.astype(np.int8), prepend=0)
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if len(starts) == 0:
        return np.zeros(0, dtype=np.uint64), starts
    position = np.arange(len(text), dtype=np.int64)
    since_start = position - np.maximum.accumulate(np.where(edges == 1, position, 0))
    powers = _powers(int((stops - starts).max()))
    terms = np.where(inside, BYTE_CODES[text] * powers[np.minimum(since_start, len(powers) - 1)], np.uint64(0))
    return _mixed(np.add.reduceat(terms, starts)), starts


def _powers(count: int) -> U64:
    return np.cumprod(np.concatenate((np.ones(1, dtype=np.uint64), np.full(count - 1, BYTE_BASE, dtype=np.uint64))))


def _mixed(values: U64) -> U64:
    """Every bit of a value spread over all bits (the finalizer of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _candidate_pairs(rows: Signatures, present: Places, jaccard: float) -> Iterator[tuple[Places, Places]]:
    """(left, right) row numbers that share a band: each with the first and with its neighbour of the same band value."""
    width = band_rows(jaccard)
    for first in range(0, PERMUTATIONS - width + 1, width):
        band = rows[:, first : first + width]
        value = np.zeros(len(present), dtype=np.uint64)
        for column in range(width):
            value = _mixed(value + band[present, column].astype(np.uint64) + MULTIPLIERS[column])
        order = np.argsort(value, kind="stable")
        sorted_value = value[order]
        same = np.flatnonzero(sorted_value[1:] == sorted_value[:-1]) + 1
        if not len(same):
            continue
        new_group = np.concatenate(([True], sorted_value[1:] != sorted_value[:-1]))
        group_first = np.maximum.accumulate(np.where(new_group, np.arange(len(order)), 0))
        yield present[order[same - 1]], present[order[same]]
        yield present[order[group_first[same]]], present[order[same]]


def _root(parents: Places, item: int) -> int:
    while parents[item] != item:
        parents[item] = parents[parents[item]]
        item = int(parents[item])
    return item


def _join(parents: Places, one: int, other: int) -> None:
    """The smaller row number is the root, so that a cluster is known by its first document."""
    a, b = sorted((_root(parents, one), _root(parents, other)))
    parents[b] = a


def _clusters(parents: Places) -> list[list[int]]:
    members: dict[int, list[int]] = {}
    for item in np.flatnonzero(parents != np.arange(len(parents))).tolist():
        members.setdefault(_root(parents, item), []).append(item)
    return [[root, *members[root]] for root in sorted(members)]
