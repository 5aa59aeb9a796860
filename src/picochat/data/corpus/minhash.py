"""MinHash sketches: 128 numbers for each text, which estimate how many five-word runs texts share.

Texts are lower-cased and cut into words of ASCII letters, digits and bytes beyond ASCII. Each run
of five words becomes a 64-bit hash. The sketch is that of Dahlgaard, Knudsen and Thorup, "Fast
Similarity Sketching" (FOCS 2017). In each round every run falls into one of 128 places. A place
keeps the smallest hash of the first round that reaches it. A long text fills all places in one or
two rounds, so each of its runs is hashed once or twice and not 128 times. Two texts agree in a
place with a probability equal to their Jaccard similarity, as in classic MinHash. The standard
error at 0.8 is 0.035.

The sketch keeps 16 bits of each number, so different numbers agree once in 65,536. A text of fewer
than five words has no run, and its row is ABSENT. The sketch does not detect translations,
paraphrases, or a short text inside a long one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

SHINGLE_WORDS = 5
PLACES = 128
ABSENT = np.uint16(0xFFFF)
# A place that is still empty after the last round, as in short texts, takes the minimum over all
# runs. Filling it from a full place ("optimal densification") was tried. Below 120 words its error
# is 0.029 to 0.037 instead of 0.020 to 0.030, and it is no faster (docs/decisions/0015).
ROUNDS = 16
# Hashed at once. Where a longer text is cut depends on it alone, so its sketch does not depend on
# the texts around it.
PIECE_BYTES = 1 << 18
GROUP_WORDS = 300_000  # sketched at once
FILLED_TOGETHER = 1_000_000  # hashes computed at once for places that stayed empty
# Runs that a round no longer needs are removed if fewer than this fraction are needed. Above it,
# removing them costs more than it saves.
WORTH_FILTERING = 0.8

U64 = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Signatures = npt.NDArray[np.uint16]


def _constants(name: str, count: int) -> U64:
    """Odd 64-bit numbers that depend on a name, and not on the version of numpy."""
    digests = (hashlib.sha256(f"{name} {index}".encode()).digest()[:8] for index in range(count))
    return np.array([int.from_bytes(digest, "little") | 1 for digest in digests], dtype=np.uint64)


def _powers(base: int, count: int) -> U64:
    """base**0 to base**(count - 1), modulo 2**64."""
    factors = np.full(count, base, dtype=np.uint64)
    factors[0] = 1
    return np.cumprod(factors)


def _byte_tables() -> tuple[npt.NDArray[np.int8], U64]:
    """(1 for each byte that belongs to a word, the code of each byte in a word's hash)."""
    letters = np.zeros(256, dtype=np.int8)
    for first, last in (("0", "9"), ("A", "Z"), ("a", "z")):
        letters[ord(first) : ord(last) + 1] = 1
    letters[128:] = 1
    codes = _constants("byte", 256)
    # Capitals have the code of their small letters: ASCII texts need no lower-casing.
    codes[ord("A") : ord("Z") + 1] = codes[ord("a") : ord("z") + 1]
    return letters, np.where(letters == 1, codes, np.uint64(0))


MULTIPLIERS = _constants("minhash multiplier", ROUNDS + PLACES)
OFFSETS = _constants("minhash offset", ROUNDS + PLACES)
WORD_FACTORS = _constants("shingle word", SHINGLE_WORDS)
BYTE_BASE = int(_constants("byte base", 1)[0])
IN_WORD, BYTE_CODES = _byte_tables()
POWERS = _powers(BYTE_BASE, 2 * PIECE_BYTES)
INVERSE_POWERS = _powers(pow(BYTE_BASE, -1, 1 << 64), 2 * PIECE_BYTES)
EMPTY = np.uint32(0xFFFFFFFF)


def signatures(texts: Sequence[str]) -> Signatures:
    """(texts, 128) the sketches. Each row depends only on its text."""
    found = np.full((len(texts), PLACES), ABSENT, dtype=np.uint16)
    for first, words, counts in _groups_of_words(texts):
        runs, runs_of = _runs(words, counts)
        _sketch(runs, runs_of, found[first : first + len(counts)])
    return found


def is_present(rows: Signatures) -> npt.NDArray[np.bool_]:
    """(rows,) whether each row is a sketch and not ABSENT."""
    # Four numbers are enough: in a sketch all their bits are one by chance once in 2**64.
    return (rows[:, :4] != ABSENT).any(axis=1)


def mixed(values: U64) -> U64:
    """The finalizer of splitmix64: each bit of the result depends on every bit of the value."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


# ---- words ---------------------------------------------------------------------------------------


def _groups_of_words(texts: Sequence[str]) -> Iterator[tuple[int, U64, Counts]]:
    """(number of the first text, hashes of all words in order, words of each text) of each group.

    A group has about GROUP_WORDS words, and only whole texts.
    """
    first, hashed, owners = 0, [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]

    def group(stop: int) -> tuple[int, U64, Counts]:
        counts = np.bincount(np.concatenate(owners) - first, minlength=stop - first)
        return first, np.concatenate(hashed), counts

    for batch, owners_of_pieces in _batches_of_pieces(texts):
        begins = owners_of_pieces[0]
        full = sum(map(len, hashed)) >= GROUP_WORDS
        # If a batch begins in the middle of a text, the group takes that batch as well.
        whole = begins > first and (not len(owners[-1]) or owners[-1][-1] < begins)
        if full and whole:
            yield group(begins)
            first, hashed, owners = begins, [], []
        words, words_of_piece = _word_hashes(batch)
        hashed.append(words)
        owners.append(np.repeat(np.array(owners_of_pieces, dtype=np.int64), words_of_piece))
    yield group(len(texts))


def _batches_of_pieces(texts: Sequence[str]) -> Iterator[tuple[list[bytes], list[int]]]:
    """(pieces of texts, number of each piece's text), about PIECE_BYTES at a time."""
    batch: list[bytes] = []
    owners: list[int] = []
    size = 0
    for number, text in enumerate(texts):
        lowered = text if text.isascii() else text.lower()
        for piece in _pieces(lowered.encode("utf-8", errors="replace")):
            if batch and size + len(piece) + 1 > PIECE_BYTES:
                yield batch, owners
                batch, owners, size = [], [], 0
            batch.append(piece)
            owners.append(number)
            size += len(piece) + 1
    if batch:
        yield batch, owners


def _pieces(data: bytes) -> Iterator[bytes]:
    """The text in pieces of at most PIECE_BYTES, cut after blanks, or inside a longer word."""
    start = 0
    while len(data) - start > PIECE_BYTES:
        end = start + PIECE_BYTES
        blank = max(data.rfind(b" ", start, end), data.rfind(b"\n", start, end))
        stop = blank + 1 if blank >= start else end
        yield data[start:stop]
        start = stop
    yield data[start:]


def _word_hashes(pieces: list[bytes]) -> tuple[U64, Counts]:
    """(hash of each word in order, words of each piece)."""
    text = np.frombuffer(b"\n".join(pieces) + b"\n", dtype=np.uint8)
    edges = np.diff(IN_WORD[text], prepend=np.int8(0))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    ends_of_pieces = np.cumsum([len(piece) + 1 for piece in pieces])
    counts = np.diff(np.searchsorted(starts, ends_of_pieces), prepend=0)
    # A word's hash is a polynomial of its bytes, modulo 2**64. It is the difference of two prefix
    # sums, divided by the power at the word's start. So all words are hashed without a loop.
    sums = np.zeros(len(text) + 1, dtype=np.uint64)
    np.cumsum(BYTE_CODES[text] * POWERS[: len(text)], out=sums[1:])
    return mixed((sums[stops] - sums[starts]) * INVERSE_POWERS[starts]), counts


def _runs(words: U64, counts: Counts) -> tuple[U64, Counts]:
    """(hashes of the runs of five words of each text, in order; how many each text has)."""
    # `words` has the words of all texts. Runs that begin in one text and end in another are hashed
    # as well, and removed at the end.
    of_text = np.maximum(counts - (SHINGLE_WORDS - 1), 0)
    total = len(words) - SHINGLE_WORDS + 1
    if total <= 0:
        return np.zeros(0, dtype=np.uint64), np.zeros(len(counts), dtype=np.int64)
    hashed = np.zeros(total, dtype=np.uint64)
    for offset in range(SHINGLE_WORDS):
        hashed += words[offset : offset + total] * WORD_FACTORS[offset]
    owner = np.repeat(np.arange(len(counts)), counts)
    return mixed(hashed[owner[:total] == owner[SHINGLE_WORDS - 1 :]]), of_text


# ---- sketches ------------------------------------------------------------------------------------


def _sketch(runs: U64, runs_of: Counts, out: Signatures) -> None:
    """Write the sketches of texts that have runs into their rows of `out`."""
    having = np.flatnonzero(runs_of)
    table = np.full(len(having) * PLACES, EMPTY, dtype=np.uint32)
    owner = np.repeat(np.arange(len(having)), runs_of[having])
    for round_number in range(ROUNDS):
        if not len(runs):
            break
        _throw(runs, owner, round_number, table)
        # Texts whose places are all filled need no further round.
        left = (table.reshape(-1, PLACES) == EMPTY).any(axis=1)[owner]
        if left.sum() < WORTH_FILTERING * len(runs):
            runs, owner = runs[left], owner[left]
    _fill_by_minimum(runs, owner, table)
    out[having] = table.reshape(-1, PLACES).astype(np.uint16)


def _throw(runs: U64, owner: Counts, round_number: int, table: npt.NDArray[np.uint32]) -> None:
    """One round: each run falls into a place of its text; empty places take their smallest run."""
    hashed = runs * MULTIPLIERS[round_number] + OFFSETS[round_number]
    # The high bits of a 64-bit product are mixed best. Seven of them are the place, the next 32 the
    # rank.
    places = owner * PLACES + (hashed >> np.uint64(57)).astype(np.int64)
    empty = table[places] == EMPTY
    np.minimum.at(table, places[empty], _rank(hashed[empty] >> np.uint64(25)))


def _fill_by_minimum(runs: U64, owner: Counts, table: npt.NDArray[np.uint32]) -> None:
    """Fill each empty place by classic MinHash, with a hash function for each place."""
    # Each of these places needs all runs of its text, so the work is cut into portions of
    # FILLED_TOGETHER hashes.
    counts = np.bincount(owner, minlength=len(table) // PLACES)
    begins = np.cumsum(counts) - counts
    empty = np.flatnonzero(table == EMPTY)
    costs = np.cumsum(counts[empty // PLACES])
    start = 0
    while start < len(empty):
        before = costs[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(costs, before + FILLED_TOGETHER)))
        places = empty[start:stop]
        lengths = counts[places // PLACES]
        firsts = np.cumsum(lengths) - lengths
        numbers = np.arange(int(lengths.sum()))
        wanted = np.repeat(begins[places // PLACES] - firsts, lengths) + numbers
        constants = np.repeat(ROUNDS + places % PLACES, lengths)
        hashed = runs[wanted] * MULTIPLIERS[constants] + OFFSETS[constants]
        table[places] = np.minimum.reduceat(_rank(hashed >> np.uint64(32)), firsts)
        start = stop


def _rank(bits: U64) -> npt.NDArray[np.uint32]:
    """32 bits as a number below EMPTY."""
    return np.minimum(bits.astype(np.uint32), EMPTY - np.uint32(1))
