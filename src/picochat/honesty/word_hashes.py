"""The words of many texts as 64-bit hashes, at the speed of numpy.

The words are those of `normalize.words_of`, in the same order. Equal words have equal hashes.
Unequal words may share one: of a word over 72 bytes, only the first 64, the last 8 and the length
enter its hash. So a caller that finds equal hashes must compare the words.

Normalizing takes most of the time of a scan. There are four ways, the fastest first:

- ASCII text: `bytes.translate`.
- Other text whose characters all keep their number of UTF-8 bytes: replaced in these bytes.
- Text with a character that changes its number of bytes (full width, sharp s, a Greek letter that
  looks like a Latin one) or that is a word of its own (Han): a table of code points.
- Text with characters that combine with their neighbours (separate accents, jamo): `words_of`.

Tests compare each way with `words_of`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from picochat.honesty.normalize import (
    SPACELESS_CHARACTER,
    normal_characters,
    read_entities,
    without_shapeless,
    words_of,
)

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint32]
Octets = npt.NDArray[np.uint8]

SPACE, BREAK = 32, 10  # in a form, SPACE separates words and BREAK ends a text
CODES = 0x20000  # code points in the table; rare Han characters lie beyond
# Entries of the table that are no code points: the character becomes several others, or may
# combine with its neighbours.
EXPANDS, COMBINES = 0x110000, 0x110001
FORM = bytes(
    code if code > 127 else ord(chr(code).lower()) if chr(code).isalnum() else SPACE
    for code in range(256)
)
"""For `bytes.translate`: ASCII letters to lower case, ASCII marks to SPACE, all else kept."""
FIRST_SPACELESS = 0xE00
FIRST_OF_THREE, FIRST_OF_FOUR = 0x800, 0x10000  # first code points of 3 and of 4 bytes in UTF-8
LOAD = 8  # bytes that are read at once
# Each 8 bytes cost one more pass over the words that are long enough; few are longer than 64.
HASHED_BYTES = 64
KEPT_BITS = np.array([(1 << (8 * count)) - 1 for count in range(LOAD + 1)], dtype=np.uint64)
# Factors are odd, because multiplying by an odd number modulo 2^64 can be inverted. They are the
# first bytes of sha256("picochat 0") and so on.
FACTORS = np.array(
    [
        0x1EADCAD1FC7D23F3,
        0xD1E5A63668EC142B,
        0xF8626F8CF1D75C39,
        0xAE3110FC1985142F,
        0x697712ECF7DC6D53,
        0xF916D717D7674B61,
        0xC8EF583D5BE9D5E1,
        0xECB60E4AAB8D4589,
    ],
    dtype=np.uint64,
)
LAST_FACTOR, LENGTH_FACTOR = np.uint64(0x0969FE113D0D7FDD), np.uint64(0x9567A23BDF4F9043)
MIX_FACTOR = np.uint64(0x93A1126320B6B647)
WINDOW_FACTOR = 0xEE76755E2ECA1AD7
INVERSE_FACTOR = pow(WINDOW_FACTOR, -1, 1 << 64)
SHIFT = np.uint64(32)


class HashedWords(NamedTuple):
    """The hashes of the words, text after text.

    texts: the numbers of the texts, in the order of their hashes. ends: for each of these texts,
    the end of its words in `hashes`.
    """

    hashes: Hashes
    texts: Places
    ends: Places


def hash_texts(texts: Sequence[str]) -> HashedWords:
    """The hashed words of all texts.

    Uses about twenty times the memory of the texts, so pass about half a megabyte at a time.
    """
    no_places = np.empty(0, dtype=np.int64)
    parts = [HashedWords(np.empty(0, dtype=np.uint64), no_places, no_places)]
    words = 0
    read = [without_shapeless(read_entities(text)) for text in texts]
    for numbers, form in _forms(dict(enumerate(read))):
        hashes, ends = _hash_form(form)
        parts.append(HashedWords(hashes, np.array(numbers, dtype=np.int64), ends + words))
        words += len(hashes)
    return HashedWords._make(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def hash_words(lists: Sequence[Sequence[str]]) -> HashedWords:
    """`hash_texts` of lists of words that are already normalized."""
    hashes, ends = _hash_form(_joined(" ".join(words).encode() for words in lists))
    return HashedWords(hashes, np.arange(len(lists)), ends)


# ---- forms: the normalized words in UTF-8, with SPACE between words and BREAK after each text ----


def _forms(texts: Mapping[int, str]) -> Iterator[tuple[list[int], bytes]]:
    """(numbers of texts, their form) for each of the four ways."""
    ascii_texts = {n: text for n, text in texts.items() if text.isascii()}
    if ascii_texts:
        yield (
            list(ascii_texts),
            _joined(text.encode().translate(FORM) for text in ascii_texts.values()),
        )
    others = {n: text for n, text in texts.items() if n not in ascii_texts}
    if not others:
        return
    form, odd = _in_place(others)
    yield [n for n in others if n not in odd], form
    others = {n: others[n] for n in others if n in odd}
    if not others:
        return
    mapped, strange = _mapped(others)
    plain = [n for n in others if n not in strange]
    if plain:
        codes = _spaced(np.concatenate([mapped[n] for n in plain]))
        yield plain, codes.tobytes().decode("utf-32-le").encode()
    combining = {
        n
        for n, characters in strange.items()
        if any(_table_entry(each) == COMBINES for each in characters)
    }
    if combining:
        yield list(combining), _joined(" ".join(words_of(others[n])).encode() for n in combining)
    expanding = [n for n in strange if n not in combining]
    if expanding:
        yield from _forms({n: _expanded(others[n], strange[n]) for n in expanding})


def _in_place(texts: Mapping[int, str]) -> tuple[bytes, set[int]]:
    """(the form of the texts that are not odd, the numbers of the odd ones).

    A text is odd if a character's normal form does not fit into the bytes of the character.
    """
    # Half of a surrogate pair is no valid UTF-8, but JSON can spell one.
    encoded = [text.encode(errors="surrogatepass") for text in texts.values()]
    octets = np.frombuffer(bytearray(b"\n".join((*encoded, b"")).translate(FORM)), dtype=np.uint8)
    ends = np.cumsum([len(each) + 1 for each in encoded], dtype=np.int64)
    octets[ends - 1] = BREAK
    high = np.flatnonzero(octets > 127)
    form, sizes, odd_characters = _characters_in_place(octets[high].tobytes())
    octets[high] = form
    first_bytes = high[np.cumsum(sizes) - sizes]
    odd_texts = np.unique(np.searchsorted(ends, first_bytes[odd_characters], side="right")).tolist()
    kept = np.ones(len(octets), dtype=np.bool_)
    for n in odd_texts:
        kept[ends[n] - len(encoded[n]) - 1 : ends[n]] = False
    numbers = list(texts)
    return (octets[kept] if odd_texts else octets).tobytes(), {numbers[n] for n in odd_texts}


def _characters_in_place(encoded: bytes) -> tuple[Octets, Places, npt.NDArray[np.bool_]]:
    """(the bytes that replace `encoded`, bytes of each character, which characters do not fit).

    encoded: UTF-8 without ASCII.
    """
    codes = np.frombuffer(
        encoded.decode(errors="surrogatepass").encode("utf-32-le", "surrogatepass"), dtype="<u4"
    )
    mapped = _table().take(codes, mode="clip")
    separates = mapped == SPACE
    odd = (mapped >= EXPANDS) | (~separates & (_utf8_size(mapped) != _utf8_size(codes)))
    if mapped.max() >= FIRST_SPACELESS:
        odd |= _spaceless()[np.minimum(mapped, CODES)]
    unchanged = separates | odd
    text = np.where(unchanged, codes, mapped).tobytes().decode("utf-32-le", "surrogatepass")
    form = np.frombuffer(bytearray(text.encode(errors="surrogatepass")), dtype=np.uint8)
    sizes = _utf8_size(codes)
    form[np.repeat(separates, sizes)] = SPACE
    return form, sizes, odd


def _utf8_size(codes: Codes) -> Places:
    """Bytes of each character beyond ASCII; 1 for ASCII."""
    return 1 + (codes > 127).astype(np.int64) + (codes >= FIRST_OF_THREE) + (codes >= FIRST_OF_FOUR)


def _joined(forms: Iterable[bytes]) -> bytes:
    return b"".join(form + b"\n" for form in forms)


def _mapped(texts: Mapping[int, str]) -> tuple[dict[int, Codes], dict[int, set[str]]]:
    """(the mapped code points of each text and BREAK, the characters that the table cannot map)."""
    codes = np.frombuffer(
        "\n".join((*texts.values(), "")).encode("utf-32-le", "surrogatepass"), dtype="<u4"
    )
    mapped = _table().take(codes, mode="clip")
    ends = np.cumsum([len(text) + 1 for text in texts.values()])
    mapped[ends - 1] = BREAK
    strange: dict[int, set[str]] = {}
    numbers = list(texts)
    for place in np.flatnonzero(mapped >= EXPANDS).tolist():
        strange.setdefault(numbers[int(np.searchsorted(ends, place, side="right"))], set()).add(
            chr(codes[place])
        )
    return dict(zip(numbers, np.split(mapped, ends[:-1]), strict=True)), strange


def _expanded(text: str, characters: Iterable[str]) -> str:
    """The text with each of these characters replaced by its normal form."""
    for character in characters:
        text = text.replace(character, normal_characters(character))
    return text


def _spaced(mapped: Codes) -> Codes:
    """A space on both sides of each character that is a word of its own."""
    if not len(mapped) or mapped.max() < FIRST_SPACELESS:
        return mapped
    alone = _spaceless()[np.minimum(mapped, CODES)]
    times = 1 + 2 * alone.astype(np.int64)
    spaced = np.repeat(mapped, times)
    first = (np.cumsum(times) - times)[alone]
    spaced[first] = spaced[first + 2] = SPACE
    return spaced


@lru_cache(maxsize=1)
def _table() -> Codes:
    """(CODES + 1,) what each code point becomes; the last entry is for all larger ones.

    Computing it takes a tenth of a second.
    """
    # One call normalizes all characters. Each has its own line, because nothing combines across the
    # end of a line.
    characters = [chr(code) for code in range(128, CODES)]
    normal = normal_characters("\n".join(characters)).split("\n")
    codes = [_code(*pair) for pair in zip(characters, normal, strict=True)]
    return np.array([*FORM[:128], *codes, COMBINES], dtype="<u4")


@lru_cache(maxsize=1)
def _spaceless() -> npt.NDArray[np.bool_]:
    found = np.zeros(CODES + 1, dtype=np.bool_)
    found[
        [ord(match[0]) for match in SPACELESS_CHARACTER.finditer("".join(map(chr, range(CODES))))]
    ] = True
    return found


def _table_entry(character: str) -> int:
    return int(_table()[min(ord(character), CODES)])


def _code(character: str, normal: str) -> int:
    """The table's entry: a code point, SPACE for a separator, EXPANDS or COMBINES."""
    unusual = _second_halves()
    if any(
        part in unusual or ord(part) >= CODES or unicodedata.combining(part)
        for part in character + normal
    ):
        return COMBINES
    if len(normal) == 1:
        return ord(normal) if normal.isalnum() else SPACE
    return EXPANDS if any(part.isalnum() for part in normal) else SPACE


@lru_cache(maxsize=1)
def _second_halves() -> frozenset[str]:
    """Characters that NFKC may join to the one before whatever their combining class."""
    jamo = {chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    pairs = (unicodedata.decomposition(chr(code)).split() for code in range(CODES))
    return frozenset(
        jamo
        | {
            chr(int(pair[1], 16))
            for pair in pairs
            if len(pair) == 2 and not pair[0].startswith("<")
        }
    )


# ---- forms to hashes -----------------------------------------------------------------------------


def _hash_form(form: bytes) -> tuple[Hashes, Places]:
    """(the hash of every word, the end of each text's words)."""
    # A word's hash is the sum of its 8-byte loads, each times one of FACTORS. One step handles one
    # load of all words. `loads` has a load from every byte on; the last of a word is masked.
    padded = b" " * LOAD + form + b" " * (HASHED_BYTES + LOAD)
    octets = np.frombuffer(padded, dtype=np.uint8)
    loads = np.ndarray((len(padded) - LOAD + 1,), dtype="<u8", buffer=padded, strides=(1,))
    inside = octets > SPACE
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    starts, stops = edges[0::2], edges[1::2]
    lengths = stops - starts
    hashes = loads[starts] & KEPT_BITS[np.minimum(lengths, LOAD)]
    hashes *= FACTORS[0]
    longer = np.flatnonzero(lengths > LOAD)
    for number in range(1, HASHED_BYTES // LOAD):
        kept = KEPT_BITS[np.minimum(lengths[longer] - LOAD * number, LOAD)]
        hashes[longer] += (loads[starts[longer] + LOAD * number] & kept) * FACTORS[number]
        longer = longer[lengths[longer] > LOAD * (number + 1)]
    hashes[longer] += loads[stops[longer] - LOAD] * LAST_FACTOR
    hashes += lengths.astype(np.uint64) * LENGTH_FACTOR
    # The bits are mixed, because hashes of windows are sums of these hashes, and the low bits of a
    # product depend only on the low bits of its factors.
    hashes ^= hashes >> SHIFT
    hashes *= MIX_FACTOR
    hashes ^= hashes >> SHIFT
    return hashes, np.searchsorted(starts, np.flatnonzero(octets == BREAK))


# ---- hashes of windows ---------------------------------------------------------------------------


class WindowSums:
    """The hashes of windows of consecutive words, from running sums.

    A window's hash is the sum of h_i W^i over its words, i from 0, modulo 2^64.
    """

    # With S[n] the sum over the first n words, a window from s on is W^-s (S[s + size] - S[s]): one
    # subtraction and one product for any size. W is odd, so it has an inverse modulo 2^64.

    def __init__(self, hashes: Hashes) -> None:
        self.words = len(hashes)
        self._sums = np.zeros(self.words + 1, dtype=np.uint64)
        np.cumsum(hashes * _powers(WINDOW_FACTOR, self.words), out=self._sums[1:])

    def all(self, size: int) -> Hashes:
        """(windows,) the hash of every window of `size` words, in order."""
        count = max(0, self.words - size + 1)
        return (self._sums[size:] - self._sums[:count]) * _powers(INVERSE_FACTOR, count)

    def at(self, starts: Places, size: int) -> Hashes:
        """The hashes of the windows that begin at these words; all must lie inside."""
        powers = _powers(INVERSE_FACTOR, self.words)
        return (self._sums[starts + size] - self._sums[starts]) * powers[starts]


def _powers(factor: int, count: int) -> Hashes:
    """(count,) factor^0, factor^1 and so on, modulo 2^64."""
    # Computed for a power of two and cut, so that calls of many sizes share few cached arrays.
    return _cached_powers(factor, 1 << max(10, count.bit_length()))[:count]


@lru_cache(maxsize=8)
def _cached_powers(factor: int, count: int) -> Hashes:
    return np.cumprod(
        np.concatenate([np.ones(1, dtype=np.uint64), np.full(count, factor, dtype=np.uint64)])
    )
