"""Texts against items: which rows does a stream of documents hold, and where? Hits carry document,
offset and words.

An item is dirty where one text holds one of its 13-word runs, or its whole prompt (where it has no
such run of its own), or at least 70% of its 8-word runs (of four or more). Texts are streamed, over
all cores where there is much of them; memory does not grow with the corpus, nor with the length of
a document beyond the document itself. Hashes find the places, the words decide.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import NamedTuple

from picochat.core.progress import Progress
from picochat.core.records import Record
from picochat.core.workers import in_order
from picochat.honesty.index import Index, confirmed, coverage_of, find_touches
from picochat.honesty.items import Match
from picochat.honesty.normalize import words_with_offsets
from picochat.honesty.pieces import pieces_of
from picochat.honesty.word_hashes import hash_texts

DIRTY_COVERAGE = 0.7
FEWEST_RUNS_FOR_COVERAGE = 4  # one or two 8-word runs of a short prompt say too little
HITS_KEPT_PER_ROW = 20  # all documents are counted, so many hits are kept with coordinates
HITS_KEPT_PER_BENCHMARK_ROW = 3  # a benchmark has ten thousand rows
MOST_IDS_KEPT = (
    10_000  # of documents that hold any row: who has more needs another source, not a list
)
BATCH_CHARACTERS = 2_000_000
TOGETHER_CHARACTERS = (
    500_000  # of one call of numpy: what fits the processor's cache is twice as fast
)
ALONE_CHARACTERS = 8_000_000  # a smaller corpus is scanned before another process has started
Text = tuple[str, str]  # document id, text


class Hit(Record):
    """One place where a row was found. `offset`: characters into the document. `words`: as
    normalized.

    benchmark: whose row it is; None for our own eval rows. where: `corpus`, `sft` or the name of
    another stream of texts.
    """

    row: str
    skill: str
    benchmark: str | None
    where: str
    document: str
    offset: int
    rule: str
    words: str


@dataclass
class Tally:
    """What a scan of some texts found.

    `dirty_documents`: item number -> texts that hold it. `to_leave_out`: ids of such texts.
    """

    documents: int = 0
    text_bytes: int = 0
    dirty_documents: Counter[int] = field(default_factory=Counter[int])
    largest_coverage: float = 0.0
    hits: list[Hit] = field(default_factory=list[Hit])
    kept: Counter[int] = field(default_factory=Counter[int])
    kept_as: list[int] = field(default_factory=list[int])
    to_leave_out: list[str] = field(default_factory=list[str])

    def add(self, other: Tally) -> None:
        """Take in what a later batch found; keeps the first hits of each item."""
        self.documents += other.documents
        self.text_bytes += other.text_bytes
        self.dirty_documents.update(other.dirty_documents)
        self.largest_coverage = max(self.largest_coverage, other.largest_coverage)
        for item, hit in zip(other.kept_as, other.hits, strict=True):
            self.keep(item, hit)
        self.to_leave_out += other.to_leave_out[: MOST_IDS_KEPT - len(self.to_leave_out)]

    def keep(self, item: int, hit: Hit) -> None:
        if self.kept[item] < (
            HITS_KEPT_PER_ROW if hit.benchmark is None else HITS_KEPT_PER_BENCHMARK_ROW
        ):
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
    """What the documents hold of the items.

    The result does not depend on `workers`, who wait for so much text.
    """
    batches = _batches(documents)
    first: list[list[Text]] = []
    size = 0
    while size < alone_characters and (batch := next(batches, None)) is not None:
        first.append(batch)
        size += sum(len(text) for _, text in batch)
    beyond = next(batches, None)
    all_batches = chain(first, [beyond] if beyond else [], batches)
    tally = Tally()
    with (
        Progress(f"honesty scan of {where}", total_bytes, "bytes") as progress,
        closing(
            in_order(partial(_scanner, index, where), all_batches, workers if beyond else 1)
        ) as parts,
    ):
        for part in parts:
            tally.add(part)
            progress.advance(part.text_bytes, note=f"{len(tally.dirty_documents)} dirty rows")
    return tally


def _batches(stream: Iterable[Text]) -> Iterator[list[Text]]:
    """Lists of documents of about BATCH_CHARACTERS."""
    batch: list[Text] = []
    size = 0
    for document in stream:
        batch.append(document)
        size += len(document[1])
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _scanner(index: Index, where: str) -> Callable[[Sequence[Text]], Tally]:
    return partial(scan_batch, index, where)


# ---- one batch -----------------------------------------------------------------------------------


class Piece(NamedTuple):
    """Part of a text: the number of the text in its batch, the offset of the part, and its own
    text.
    """

    number: int
    offset: int
    text: str


class Found(NamedTuple):
    """A match whose words are equal, its offset in the text, and the words."""

    match: Match
    offset: int
    words: str


Touched = list[tuple[Piece, list[Match]]]


def scan_batch(index: Index, where: str, batch: Sequence[Text]) -> Tally:
    """What some documents hold of the items."""
    tally = Tally()
    touched: dict[int, Touched] = defaultdict(list)
    for pieces in _together(index, batch):
        for n, matches in find_touches(index, hash_texts([piece.text for piece in pieces])).items():
            touched[pieces[n].number].append((pieces[n], matches))
    for number, (document, text) in enumerate(batch):
        tally.documents += 1
        tally.text_bytes += (
            len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
        )
        if number in touched:
            _judge(index, touched[number], document, where, tally)
    return tally


def _together(index: Index, batch: Sequence[Text]) -> Iterator[list[Piece]]:
    """The pieces of all texts, as many at a time as are looked at together."""
    pieces: list[Piece] = []
    size, reach_words = 0, index.reach_words
    for number, (_, text) in enumerate(batch):
        for offset, part in pieces_of(text, reach_words):
            pieces.append(Piece(number, offset, part))
            size += len(part)
            if size >= TOGETHER_CHARACTERS:
                yield pieces
                pieces, size = [], 0
    if pieces:
        yield pieces


def _judge(index: Index, touched: Touched, document: str, where: str, tally: Tally) -> None:
    """Add what one text holds to the tally.

    Words are compared only where the hashes say that a row is dirty.
    """
    touches = [match for _, matches in touched for match in matches]
    coverage = coverage_of(index, touches)
    own = [share for item, share in coverage.items() if index.items[item].benchmark is None]
    tally.largest_coverage = max([tally.largest_coverage, *own])
    suspects = {touches[n].item for n in _dirty(index, touches, coverage)}
    found: list[Found] = []
    for piece, matches in touched:
        suspected = [match for match in matches if match.item in suspects]
        found += _confirmed_in(index, piece, suspected) if suspected else []
    matches = [match for match, _, _ in found]
    dirty = _dirty(index, matches, coverage_of(index, matches))
    for n in dirty:
        tally.keep(matches[n].item, _hit(index, document, where, found[n]))
    if dirty:
        tally.dirty_documents.update({matches[n].item for n in dirty})
        tally.to_leave_out.append(document)


def _confirmed_in(index: Index, piece: Piece, matches: Sequence[Match]) -> Iterator[Found]:
    placed = list(words_with_offsets(piece.text))
    words = [word for word, _ in placed]
    for match in confirmed(index, words, matches):
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


def _dirty(index: Index, matches: Sequence[Match], coverage: Mapping[int, float]) -> list[int]:
    """The places of the matches that make their item dirty; of one item in one text, the first of
    each rule.
    """
    first: dict[tuple[int, str], int] = {}
    for n, match in enumerate(matches):
        covered = coverage.get(match.item, 0.0) >= DIRTY_COVERAGE
        enough = index.own_runs[match.item, match.spelling] >= FEWEST_RUNS_FOR_COVERAGE
        if match.rule != "coverage" or (covered and enough):
            first.setdefault((match.item, match.rule), n)
    return list(first.values())
