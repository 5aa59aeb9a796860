"""Near-duplicates: clusters of texts whose MinHash sketches agree in at least the given fraction.

Sketches are cut into bands of numbers. Texts that share a whole band are compared, others never.
The width of a band follows from the similarity: a pair just there shares a band with probability
RECALL. Whether it then counts is the sketch's estimate, so of pairs exactly at the threshold about
half are found, and nearly all that lie 0.07 above it. Memory: four bytes a text; bands and sketches
lie on disk. What the estimate cannot see is in minhash.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from picochat.data.corpus.hash_partitions import HashPartitions
from picochat.data.corpus.minhash import PLACES, Signatures, is_present, mixed, signatures

RECALL = 0.99  # of pairs just at the threshold that must share a band
COMPARED_PAIRS = 1 << 15

Rows = npt.NDArray[np.int64]
BandRecord = np.dtype([("key", "<u8"), ("row", "<u4")])
ReadSignatures = Callable[[Rows], Signatures]


def near_duplicate_clusters(texts: Sequence[str], jaccard: float) -> list[list[int]]:
    """Clusters of positions in `texts` whose five-word runs agree in at least this fraction.

    For texts that fit in memory.
    """
    rows = signatures(texts)
    blocks = [(np.arange(len(rows), dtype=np.int64), rows)]
    with TemporaryDirectory(prefix="picochat-") as folder:
        scratch = Path(folder) / "bands"
        parents = connect(blocks, len(rows), lambda wanted: rows[wanted], jaccard, scratch)
    members, firsts = members_of_clusters(parents)
    clusters: dict[int, list[int]] = {first: [first] for first in np.unique(firsts).tolist()}
    for member, first in zip(members.tolist(), firsts.tolist(), strict=True):
        clusters[first].append(member)
    return list(clusters.values())


def connect(
    blocks: Iterable[tuple[Rows, Signatures]],
    total: int,
    read: ReadSignatures,
    jaccard: float,
    folder: Path,
) -> npt.NDArray[np.int32]:
    """(total,) the first text of each text's cluster, itself where it is in none.

    blocks: (numbers below `total`, ascending, and their sketches); those that are absent take no
    part. read: sketches of ascending numbers, for comparison. folder: scratch space of some 250
    bytes a text.
    """
    parents = np.arange(total, dtype=np.int32)
    width = band_rows(jaccard)
    # Only texts with an equal band must meet, so bands are grouped by hash, partition by partition.
    with HashPartitions(folder, BandRecord, total * (PLACES // width)) as bands:
        for numbers, rows in blocks:
            present = is_present(rows)
            for records in _band_records(numbers[present], rows[present], width):
                bands.add(records)
        for records in bands.read():
            _connect_partition(records, parents, read, jaccard)
    return _roots(parents, np.arange(total, dtype=np.int64)).astype(np.int32)


def members_of_clusters(parents: npt.NDArray[np.int32]) -> tuple[Rows, Rows]:
    """(texts beyond the first of their cluster, ascending; the first of each)."""
    members = np.flatnonzero(parents != np.arange(len(parents), dtype=np.int32))
    return members, parents[members].astype(np.int64)


def band_rows(jaccard: float) -> int:
    """Numbers in a band: the most with which RECALL of the pairs at the threshold still meet."""
    # A pair of similarity j agrees in a whole band of r numbers with probability j**r, and in none
    # of n bands with (1 - j**r)**n. Wide bands compare fewer unlike texts, so the widest is taken.
    for rows in range(PLACES, 1, -1):
        if 1 - (1 - jaccard**rows) ** (PLACES // rows) >= RECALL:
            return rows
    return 1


def _band_records(numbers: Rows, rows: Signatures, width: int) -> Iterator[npt.NDArray[np.void]]:
    """One record for each text and band: a hash of the band's place and numbers, and the text."""
    for band in range(PLACES // width):
        value = np.full(len(rows), band + 1, dtype=np.uint64)
        for column in range(band * width, (band + 1) * width):
            value = mixed(value + rows[:, column].astype(np.uint64))
        records = np.empty(len(rows), dtype=BandRecord)
        records["key"], records["row"] = value, numbers
        yield records


def _connect_partition(
    records: npt.NDArray[np.void],
    parents: npt.NDArray[np.int32],
    read: ReadSignatures,
    jaccard: float,
) -> None:
    """Compare and join texts that share a band."""
    ordered = records[np.lexsort((records["row"], records["key"]))]
    keys, rows = ordered["key"], ordered["row"].astype(np.int64)
    same = np.flatnonzero(keys[1:] == keys[:-1]) + 1
    if not len(same):
        return
    # Each text is compared with the first of its band and with its neighbour in the band, not with
    # all others: a band that a thousand texts share costs two thousand comparisons, not a million.
    begins = np.concatenate(([True], keys[1:] != keys[:-1]))
    first_of_band = np.maximum.accumulate(np.where(begins, np.arange(len(rows)), 0))
    left = np.concatenate((rows[first_of_band[same]], rows[same - 1]))
    right = np.concatenate((rows[same], rows[same]))
    for start in range(0, len(left), COMPARED_PAIRS):
        a, b = left[start : start + COMPARED_PAIRS], right[start : start + COMPARED_PAIRS]
        # Most pairs share several bands: those that an earlier band joined need no reading.
        apart = _roots(parents, a) != _roots(parents, b)
        pairs = np.unique(np.stack((a[apart], b[apart])), axis=1)
        close = _agreement(pairs, read) >= jaccard
        for one, other in zip(pairs[0, close].tolist(), pairs[1, close].tolist(), strict=True):
            _join(parents, one, other)


def _agreement(pairs: npt.NDArray[np.int64], read: ReadSignatures) -> npt.NDArray[np.float64]:
    """(pairs,) fraction of the 128 numbers in which two sketches agree."""
    wanted, position = np.unique(pairs, return_inverse=True)
    if not len(wanted):
        return np.zeros(0)
    rows = read(wanted)
    left, right = position.reshape(pairs.shape)
    return (rows[left] == rows[right]).mean(axis=1)


# Clusters are a disjoint-set forest: `parents` leads from a text to one before it in its cluster.


def _roots(parents: npt.NDArray[np.int32], items: Rows) -> Rows:
    found = parents[items]
    while (above := parents[found]).tobytes() != found.tobytes():
        found = above
    return found.astype(np.int64)


def _root(parents: npt.NDArray[np.int32], item: int) -> int:
    while parents[item] != item:
        parents[item] = parents[parents[item]]  # halves the path for the next search
        item = int(parents[item])
    return item


def _join(parents: npt.NDArray[np.int32], one: int, other: int) -> None:
    """Join two clusters; the smaller number is the root, so the first text names the cluster."""
    a, b = sorted((_root(parents, one), _root(parents, other)))
    parents[b] = a
