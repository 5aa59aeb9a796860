"""Near-duplicates: clusters of texts whose MinHash sketches agree in at least the given fraction.

Sketches are cut into bands of numbers. Texts that share a whole band are compared; other texts are
not. The width of a band is chosen so that a pair at the threshold shares one with probability
RECALL. The comparison rests on the sketch's estimate. So about half of the pairs exactly at the
threshold are found, and nearly all of those 0.07 above it. Memory: four bytes a text; bands and
sketches are on disk. minhash.py says what the sketch does not detect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from picochat.data.corpus.hash_partitions import HashPartitions
from picochat.data.corpus.minhash import PLACES, Signatures, is_present, mixed, signatures

RECALL = 0.99  # fraction of the pairs at the threshold that must share a band
COMPARED_PAIRS = 1 << 15

Rows = npt.NDArray[np.int64]
BandRecord = np.dtype([("key", "<u8"), ("row", "<u4")])
ReadSignatures = Callable[[Rows], Signatures]


def near_duplicate_clusters(texts: Sequence[str], jaccard: float) -> list[list[int]]:
    """Clusters of positions in `texts`, which must fit in memory."""
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
    """(total,) the number of the first text of each text's cluster; its own number without cluster.

    blocks: (ascending numbers of texts, their sketches); texts without a block or with an ABSENT
    sketch are in no cluster. read: returns the sketches of ascending numbers. folder: for temporary
    files of about 250 bytes a text.
    """
    parents = np.arange(total, dtype=np.int32)
    width = band_rows(jaccard)
    # Texts that share a band must be in memory together, so bands are grouped by hash.
    with HashPartitions(folder, BandRecord, total * (PLACES // width)) as bands:
        for numbers, rows in blocks:
            present = is_present(rows)
            for records in _band_records(numbers[present], rows[present], width):
                bands.add(records)
        for records in bands.read():
            _connect_partition(records, parents, read, jaccard)
    return _roots(parents, np.arange(total, dtype=np.int64)).astype(np.int32)


def members_of_clusters(parents: npt.NDArray[np.int32]) -> tuple[Rows, Rows]:
    """(texts that are not the first of their cluster, ascending; the first text of each)."""
    members = np.flatnonzero(parents != np.arange(len(parents), dtype=np.int32))
    return members, parents[members].astype(np.int64)


def band_rows(jaccard: float) -> int:
    """Numbers in a band: the most with which RECALL of the pairs at the threshold share a band."""
    # A pair of similarity j agrees in a band of r numbers with probability j**r, and in none of n
    # bands with (1 - j**r)**n. With wider bands fewer unlike texts are compared.
    for rows in range(PLACES, 1, -1):
        if 1 - (1 - jaccard**rows) ** (PLACES // rows) >= RECALL:
            return rows
    return 1


def _band_records(numbers: Rows, rows: Signatures, width: int) -> Iterator[npt.NDArray[np.void]]:
    """One record for each text and band: a hash of the band's position and numbers, the text."""
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
    # Each text is compared only with the first text of its band and with the one before it. So a
    # band that a thousand texts share costs two thousand comparisons, not a million.
    begins = np.concatenate(([True], keys[1:] != keys[:-1]))
    first_of_band = np.maximum.accumulate(np.where(begins, np.arange(len(rows)), 0))
    left = np.concatenate((rows[first_of_band[same]], rows[same - 1]))
    right = np.concatenate((rows[same], rows[same]))
    for start in range(0, len(left), COMPARED_PAIRS):
        a, b = left[start : start + COMPARED_PAIRS], right[start : start + COMPARED_PAIRS]
        # Most pairs share several bands. Sketches of pairs that are joined already are not read.
        apart = _roots(parents, a) != _roots(parents, b)
        pairs = np.unique(np.stack((a[apart], b[apart])), axis=1)
        close = _agreement(pairs, read) >= jaccard
        for one, other in zip(pairs[0, close].tolist(), pairs[1, close].tolist(), strict=True):
            _join(parents, one, other)


def _agreement(pairs: npt.NDArray[np.int64], read: ReadSignatures) -> npt.NDArray[np.float64]:
    """(pairs,) the fraction of the 128 numbers in which two sketches agree."""
    wanted, position = np.unique(pairs, return_inverse=True)
    if not len(wanted):
        return np.zeros(0)
    rows = read(wanted)
    left, right = position.reshape(pairs.shape)
    return (rows[left] == rows[right]).mean(axis=1)


# Clusters are a disjoint-set forest: the parent of a text is an earlier text of its cluster.


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
    """Join two clusters. The smaller number becomes the root, so the root is the first text."""
    a, b = sorted((_root(parents, one), _root(parents, other)))
    parents[b] = a
