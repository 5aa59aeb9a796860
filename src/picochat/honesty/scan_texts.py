"""Search a stream of texts for the items of an index, and record where each one occurs.

A row is contaminated if one text holds one of its 13-word runs, or its whole prompt (if it has no
such run of its own), or at least 70% of its 8-word runs (if it has four or more).

Texts are streamed, and much text is scanned on all cores. Memory grows neither with the corpus nor
with the length of a document.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import NamedTuple, TypeVar

from picochat.core.progress import Progress
from picochat.core.records import Record
from picochat.core.workers import in_order
from picochat.honesty.index import Index, coverage_of, find_candidates, is_confirmed
from picochat.honesty.items import Match
from picochat.honesty.normalize import words_of, words_with_offsets
from picochat.honesty.word_hashes import hash_texts

CONTAMINATED_COVERAGE = 0.7
FEWEST_RUNS_FOR_COVERAGE = 4  # many texts hold one or two 8-word runs of a short prompt
HITS_KEPT_PER_ROW = 20  # with their places; all documents are counted
HITS_KEPT_PER_BENCHMARK_ROW = 3  # a benchmark may have ten thousand rows
MOST_IDS_KEPT = 10_000  # documents to leave out; whoever has more needs another source
BATCH_CHARACTERS = 2_000_000
# In one call of numpy. The scan is twice as fast if the arrays fit into the processor's cache.
TOGETHER_CHARACTERS = 500_000
ALONE_CHARACTERS = 8_000_000  # one process scans this much before another one has started

Text = tuple[str, str]  # document id, text


class Piece(NamedTuple):
    """Part of a text. `number`: of the text in its batch. `offset`: of the part in the text."""

    number: int
    offset: int
    text: str


AnyText = TypeVar("AnyText", Text, Piece)  # their last field is the text


class Hit(Record):
    """One place at which a row was found.

    benchmark: None for our own eval rows. where: `corpus` or `sft`. offset: in characters from the
    start of the document. words: normalized.
    """

    row: str
    skill: str
    benchmark: str | None
    where: str
    document: str
    offset: int
    rule: str
    words: str


def most_hits(benchmark: str | None) -> int:
    """How many hits of a row are kept. benchmark: None for our own eval rows."""
    return HITS_KEPT_PER_ROW if benchmark is None else HITS_KEPT_PER_BENCHMARK_ROW


@dataclass
class Tally:
    """What a scan of some texts found.

    texts_holding: item number -> how many texts hold it. largest_coverage: of our own eval rows.
    kept: item number -> hits that are kept. kept_as: the item number of each of `hits`.
    to_leave_out: ids of texts that hold any item.
    """

    documents: int = 0
    text_bytes: int = 0
    texts_holding: Counter[int] = field(default_factory=Counter[int])
    largest_coverage: float = 0.0
    hits: list[Hit] = field(default_factory=list[Hit])
    kept: Counter[int] = field(default_factory=Counter[int])
    kept_as: list[int] = field(default_factory=list[int])
    to_leave_out: list[str] = field(default_factory=list[str])

    def add(self, other: Tally) -> None:
        """Add what a later batch found; the first hits of each item are kept."""
        self.documents += other.documents
        self.text_bytes += other.text_bytes
        self.texts_holding.update(other.texts_holding)
        self.largest_coverage = max(self.largest_coverage, other.largest_coverage)
        for item, hit in zip(other.kept_as, other.hits, strict=True):
            self.keep(item, hit)
        self.to_leave_out += other.to_leave_out[: MOST_IDS_KEPT - len(self.to_leave_out)]

    def keep(self, item: int, hit: Hit) -> None:
        """Keep a hit of this item, unless enough of them are kept."""
        if self.kept[item] < most_hits(hit.benchmark):
            self.kept[item] += 1
            self.kept_as.append(item)
            self.hits.append(hit)


def scan_texts(
    index: Index,
    documents: Iterable[Text],
    *,
    workers: int = 1,
    total_bytes: int | None = None,
    where: str = "corpus",
    alone_characters: int = ALONE_CHARACTERS,
) -> Tally:
    """Which items the documents hold; the result does not depend on `workers`.

    alone_characters: more text than this is scanned by `workers` processes.
    """
    batches = _batched(documents, BATCH_CHARACTERS)
    first: list[list[Text]] = []
    size = 0
    while size < alone_characters and (batch := next(batches, None)) is not None:
        first.append(batch)
        size += sum(len(text) for _, text in batch)
    # One batch more shows whether there is enough text for several processes.
    beyond = next(batches, None)
    all_batches = chain(first, [beyond] if beyond else [], batches)
    tally = Tally()
    with (
        Progress(f"contamination scan of {where}", total_bytes, "bytes") as progress,
        closing(
            in_order(partial(_scanner, index, where), all_batches, workers if beyond else 1)
        ) as parts,
    ):
        # Parts come in the order of the documents, so which hits are kept does not depend on the
        # processes.
        for part in parts:
            tally.add(part)
            progress.advance(part.text_bytes, note=f"{len(tally.texts_holding)} contaminated rows")
    return tally


def _batched(texts: Iterable[AnyText], characters: int) -> Iterator[list[AnyText]]:
    """Lists of texts with about this many characters in all."""
    batch: list[AnyText] = []
    size = 0
    for each in texts:
        batch.append(each)
        size += len(each[-1])
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _scanner(index: Index, where: str) -> Callable[[Sequence[Text]], Tally]:
    return partial(scan_batch, index, where)


# ---- one batch -----------------------------------------------------------------------------------


class Found(NamedTuple):
    """A confirmed match, its offset in the text, and its words."""

    match: Match
    offset: int
    words: str


Candidates = list[tuple[Piece, list[Match]]]


def scan_batch(index: Index, where: str, batch: Sequence[Text]) -> Tally:
    """Which items the documents of a batch hold."""
    tally = Tally()
    candidates: dict[int, Candidates] = defaultdict(list)
    for pieces in _together(index, batch):
        hashed = hash_texts([piece.text for piece in pieces])
        for n, matches in find_candidates(index, hashed).items():
            candidates[pieces[n].number].append((pieces[n], matches))
    for number, (document, text) in enumerate(batch):
        tally.documents += 1
        tally.text_bytes += (
            len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
        )
        if number in candidates:
            _judge(index, candidates[number], document, where, tally)
    return tally


def _together(index: Index, batch: Sequence[Text]) -> Iterator[list[Piece]]:
    """The pieces of all texts, in lists of about TOGETHER_CHARACTERS."""
    reach_words = index.reach_words
    pieces = (
        Piece(number, offset, part)
        for number, (_, text) in enumerate(batch)
        for offset, part in pieces_of(text, reach_words)
    )
    return _batched(pieces, TOGETHER_CHARACTERS)


def _judge(index: Index, candidates: Candidates, document: str, where: str, tally: Tally) -> None:
    """Add what one text holds to the tally."""
    touches = [match for _, matches in candidates for match in matches]
    coverage = coverage_of(index, touches)
    own = [covered for item, covered in coverage.items() if index.items[item].benchmark is None]
    tally.largest_coverage = max([tally.largest_coverage, *own])
    # Splitting a text into words with offsets costs far more than hashing it. So words are compared
    # only in the few texts whose hashes would make a row contaminated.
    suspects = {touches[n].item for n in _contaminating(index, touches, coverage)}
    found: list[Found] = []
    for piece, matches in candidates:
        suspected = [match for match in matches if match.item in suspects]
        found += _confirmed_in(index, piece, suspected) if suspected else []
    matches = [match for match, _, _ in found]
    chosen = _contaminating(index, matches, coverage_of(index, matches))
    for n in chosen:
        tally.keep(matches[n].item, _hit(index, document, where, found[n]))
    if chosen:
        tally.texts_holding.update({matches[n].item for n in chosen})
        tally.to_leave_out.append(document)


def _confirmed_in(index: Index, piece: Piece, matches: Sequence[Match]) -> Iterator[Found]:
    """The matches in one piece whose words are those of the item.

    Of each item and rule one match is enough, but for coverage, which counts them.
    """
    placed = list(words_with_offsets(piece.text))
    words = [word for word, _ in placed]
    sure: set[tuple[int, str]] = set()
    for match in matches:
        # In a text that repeats itself ("a a a ..."), a long prompt of the same kind begins at
        # nearly every word. Comparing it at each would take time in proportion to the product.
        if (match.item, match.rule) in sure or not is_confirmed(index, words, match):
            continue
        if match.rule != "coverage":
            sure.add((match.item, match.rule))
        offset = piece.offset + placed[match.start][1]
        yield Found(match, offset, " ".join(words[match.start : match.start + match.size]))


def _hit(index: Index, document: str, where: str, found: Found) -> Hit:
    item = index.items[found.match.item]
    return Hit(
        row=item.id,
        skill=item.skill,
        benchmark=item.benchmark,
        where=where,
        document=document,
        offset=found.offset,
        rule=f"{found.match.rule} of {found.match.size} words",
        words=found.words,
    )


def _contaminating(
    index: Index, matches: Sequence[Match], coverage: Mapping[int, float]
) -> list[int]:
    """The numbers of the matches that contaminate their item: its first match of each rule."""
    first: dict[tuple[int, str], int] = {}
    for n, match in enumerate(matches):
        covered = coverage.get(match.item, 0.0) >= CONTAMINATED_COVERAGE
        enough = index.own_runs[match.item, match.spelling] >= FEWEST_RUNS_FOR_COVERAGE
        if match.rule != "coverage" or (covered and enough):
            first.setdefault((match.item, match.rule), n)
    return list(first.values())


# ---- long texts in pieces ------------------------------------------------------------------------

PIECE_CHARACTERS = 16_384
CUT_WITHIN = 4_096
# A text may be cut at these characters, because no word and no HTML entity contains them.
CUTS = (re.compile(r"\s"), re.compile("[,.!?:\u3001\u3002\uff0c\uff01\uff1f]"))
LOOK_PER_WORD = 8  # characters; with fewer, a second and longer look would often be needed
END_OF_WORD = re.compile(r"[0-9A-Za-z]\s")  # a text has at least as many words as matches of this


def pieces_of(
    text: str, reach_words: int, piece_characters: int = PIECE_CHARACTERS
) -> Iterator[tuple[int, str]]:
    """(offset, piece) of overlapping pieces; at least one contains each run of `reach_words` words.

    A cut is at white space, or else at a mark; 4,096 characters without either may be cut anywhere.
    A piece overlaps the next one by `reach_words` words, but by 16,384 characters at most: words
    that are farther apart are not taken for neighbours.
    """
    if len(text) <= piece_characters:
        yield from [(0, text)] if text else []
        return
    start = 0
    while start < len(text):
        end = _cut(text, start + piece_characters)
        yield start, text[start : _read_on(text, end, reach_words, piece_characters)]
        start = end


def _cut(text: str, place: int) -> int:
    if place >= len(text):
        return len(text)
    found = (pattern.search(text, place, place + CUT_WITHIN) for pattern in CUTS)
    return next((match.start() for match in found if match), place)


def _read_on(text: str, end: int, words: int, most: int) -> int:
    """The end of a part of the text that begins at `end` and holds this many words."""
    look = min(LOOK_PER_WORD * words, most)
    while end < len(text):
        further = _cut(text, end + look)
        if look == most or further >= len(text) or _holds(text[end:further], words):
            return further
        look = min(2 * look, most)
    return end


def _holds(text: str, words: int) -> bool:
    """Whether the text has at least this many words."""
    if "&" not in text and len(END_OF_WORD.findall(text)) >= words:
        return True
    return len(words_of(text)) >= words
