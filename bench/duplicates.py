"""Near-duplicates: our MinHash and datasketch's on the same documents, and on planted pairs.

    python bench/duplicates.py --source FOLDER --documents 20000 [--pairs 300] [--quick]
    pip install datasketch        # the peer; without it its figures are null

Ours: `near_duplicate_clusters` of data/corpus/near_duplicates.py, on one core, its bands on disk as
in the corpus. Peer: for each document a `MinHash` of 128 permutations over the same five-word
shingles (`update_batch`), then `MinHashLSH(threshold=0.8)`: query, insert, as its users write it.
Both times begin with the texts, so cutting words is within them.

Planted pairs: a real document (its first 1,500 words) and a copy with words replaced until the
exact Jaccard similarity of the two sets of shingles is within 0.01 of 0.70, 0.75 ... 0.95. A pair
counts as found where it is in one cluster (ours) or where the query of the copy gives the document
(peer). At 0.8 and above a miss is a false negative, below 0.8 a find is a false positive. Both
decide by estimates of 128 permutations (standard error 0.035 at 0.8), so near the threshold about
half are "wrong" by definition.

Figures: `duplicates_documents_per_second`; `duplicates_false_negative_fraction` over pairs of 0.80
and more, and `duplicates_false_positive_fraction` over those below; found shares by similarity
stand in the table and in `found`.
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.figures import figure, installed, say, table
from harness.text import find_documents, take_bytes

SIMILARITIES = (0.70, 0.75, 0.80, 0.85, 0.90, 0.95)
THRESHOLD = 0.8
SHINGLE_WORDS = 5
PERMUTATIONS = 128
WITHIN = 0.01
# A replaced word changes five shingles: a short text cannot come within 0.01 of every similarity.
LEAST_WORDS = 150
MOST_WORDS = 1500  # pairs are heads of documents: long ones would only take longer
QUICK = (1000, 40)
WORD = re.compile(rb"[0-9a-z\x80-\xff]+")


@dataclass(frozen=True)
class Pair:
    text: str
    copy: str
    jaccard: float
    aimed_at: float


@dataclass(frozen=True)
class Found:
    """documents_per_second over the real documents; `pairs[i]`: whether the pair i was found."""

    documents_per_second: float
    pairs: list[bool]
    peak_rss_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path)
    parser.add_argument("--column", default="text")
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=300, help="planted pairs of each similarity")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument(
        "--quick", action="store_true", help="--documents {} --pairs {}".format(*QUICK)
    )
    flags = parser.parse_args()
    documents, pairs_each = QUICK if flags.quick else (flags.documents, flags.pairs)
    source, stream = find_documents(flags.source, flags.column)
    texts: list[str] = []
    repeats = 0
    for copy, text in take_bytes(stream, 1 << 60):
        texts.append(text)
        repeats = copy + 1
        if len(texts) == documents:
            break
    say(
        f"{len(texts):,} documents of {source}, {sum(map(len, texts)) / 1e6:.1f} million"
        f" characters, begun {repeats} times"
    )
    pairs = plant(texts, pairs_each, random.Random(flags.seed))
    ours = by_picochat(texts, pairs)
    peer = (
        by_datasketch(texts, pairs) if installed("datasketch", "pip install datasketch") else None
    )
    report(
        pairs,
        ours,
        peer,
        {"source": source, "repeats": repeats, "documents": len(texts), "pairs": len(pairs)},
    )


# ---- planted pairs -------------------------------------------------------------------------------


def shingles(text: str) -> set[bytes]:
    """All runs of five words, cut as in data/corpus/minhash.py; written anew to check it."""
    words = WORD.findall(text.lower().encode("utf-8", "replace"))
    return {
        b" ".join(words[start : start + SHINGLE_WORDS])
        for start in range(len(words) - SHINGLE_WORDS + 1)
    }


def plant(texts: Sequence[str], pairs_each: int, draw: random.Random) -> list[Pair]:
    """`pairs_each` pairs of each similarity, each of another document; short ones are left out."""
    heads = (text.split(maxsplit=MOST_WORDS)[:MOST_WORDS] for text in texts)
    bases = [
        " ".join(words)
        for words in heads
        if len(words) >= LEAST_WORDS and len(shingles(" ".join(words))) >= LEAST_WORDS
    ]
    vocabulary = sorted({word for text in bases[:2000] for word in text.split() if word.isalpha()})
    found: list[Pair] = []
    for aimed_at in SIMILARITIES:
        made = 0
        for text in draw.sample(bases, len(bases)):
            pair = planted(text, aimed_at, vocabulary, draw)
            if pair:
                found.append(pair)
                made += 1
            if made == pairs_each:
                break
        if made < pairs_each:
            say(f"only {made} of {pairs_each} pairs of similarity {aimed_at:.2f} could be made")
    return found


def planted(
    text: str, aimed_at: float, vocabulary: Sequence[str], draw: random.Random
) -> Pair | None:
    """The text, and a copy with words replaced until it has the similarity that was aimed at.

    None where a replacement jumped below it.
    """
    words, before = text.split(), shingles(text)
    changed = list(words)
    jaccard = 1.0
    while jaccard > aimed_at + WITHIN:
        # A similarity j leaves 2j / (1 + j) of the shingles. Half of what is missing is taken at a
        # time: places may overlap.
        missing = (
            (2 * jaccard / (1 + jaccard) - 2 * aimed_at / (1 + aimed_at))
            * len(before)
            / SHINGLE_WORDS
        )
        for _ in range(max(1, int(missing / 2))):
            changed[draw.randrange(len(changed))] = draw.choice(vocabulary)
        after = shingles(" ".join(changed))
        jaccard = len(before & after) / len(before | after)
    return (
        Pair(text, " ".join(changed), jaccard, aimed_at) if jaccard >= aimed_at - WITHIN else None
    )


# ---- the two -------------------------------------------------------------------------------------


def by_picochat(texts: Sequence[str], pairs: Sequence[Pair]) -> Found:
    from picochat.data.corpus.near_duplicates import near_duplicate_clusters

    started = time.monotonic()
    near_duplicate_clusters(texts, THRESHOLD)
    seconds = time.monotonic() - started
    # Each pair by itself: clusters also follow chains over other documents, which would hide what a
    # single comparison does.
    found = [bool(near_duplicate_clusters([pair.text, pair.copy], THRESHOLD)) for pair in pairs]
    return Found(len(texts) / seconds, found, peak_mb())


def by_datasketch(texts: Sequence[str], pairs: Sequence[Pair]) -> Found:
    from datasketch import MinHash, MinHashLSH  # pyright: ignore[reportMissingImports]

    def sketch(text: str) -> MinHash:
        minhash = MinHash(num_perm=PERMUTATIONS)
        minhash.update_batch(list(shingles(text)))
        return minhash

    started = time.monotonic()
    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    for number, text in enumerate(texts):
        minhash = sketch(text)
        index.query(minhash)
        index.insert(number, minhash)
    seconds = time.monotonic() - started
    found: list[bool] = []
    for pair in pairs:
        alone = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
        alone.insert("text", sketch(pair.text))
        found.append(bool(alone.query(sketch(pair.copy))))
    return Found(len(texts) / seconds, found, peak_mb())


def report(
    pairs: Sequence[Pair], ours: Found, peer: Found | None, about: dict[str, object]
) -> None:
    rows = []
    for aimed_at in SIMILARITIES:
        chosen = [index for index, pair in enumerate(pairs) if pair.aimed_at == aimed_at]
        mean = sum(pairs[index].jaccard for index in chosen) / len(chosen) if chosen else 0.0
        rows.append(
            (
                f"{aimed_at:.2f}",
                len(chosen),
                f"{mean:.4f}",
                fraction(ours, chosen),
                fraction(peer, chosen),
            )
        )
    table(
        "planted pairs found, by exact similarity",
        ("similarity", "pairs", "mean", "ours", "datasketch"),
        rows,
    )
    similar = [index for index, pair in enumerate(pairs) if pair.jaccard >= THRESHOLD]
    others = [index for index, pair in enumerate(pairs) if pair.jaccard < THRESHOLD]
    peak = ours.peak_rss_mb
    about["found"] = {row[0]: [row[3], row[4]] for row in rows}
    missed = [
        None if (part := fraction(found, similar)) is None else 1 - part for found in (ours, peer)
    ]
    figure(
        "duplicates_false_negative_fraction",
        missed[0],
        missed[1],
        "fraction of pairs",
        peak,
        **about,
    )
    figure(
        "duplicates_false_positive_fraction",
        fraction(ours, others),
        fraction(peer, others),
        "fraction of pairs",
        peak,
        **about,
    )
    theirs = peer.documents_per_second if peer else None
    figure(
        "duplicates_documents_per_second",
        ours.documents_per_second,
        theirs,
        "documents/s on one core",
        peak,
        **about,
    )


def fraction(found: Found | None, chosen: Sequence[int]) -> float | None:
    return sum(found.pairs[index] for index in chosen) / len(chosen) if found and chosen else None


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
