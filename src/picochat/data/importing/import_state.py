"""An unfinished import: its complete shards, the journal of commits, and the texts seen.

Each complete shard is committed by one journal row, which also has the counts of skipped rows and
the position to resume from. After a kill, shards without a journal row are made again with the same
bytes. Memory does not grow with the number of rows (docs/decisions/0014).
"""

from __future__ import annotations

import os
import sqlite3
from bisect import bisect
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from picochat.core.errors import BadInput, HostProblem
from picochat.core.journal import Journal, read_journal
from picochat.core.records import Record, parse_record
from picochat.data.document_shards import DocumentShard, ShardWriter
from picochat.data.importing.read_ahead import Part, Position
from picochat.data.importing.slices import FilteredRows

PREVIEWS = 200
DIGEST_BYTES = 16
RESTORE_DIGESTS = 1 << 16
# 16 MB. After ten million texts, one new text in a hundred is looked up in the table needlessly.
FILTER_WORDS = 1 << 21
BITS_PER_TEXT = 4
UNSORTED_DIGESTS = 1 << 16
TABLE_CACHE_KB = 4_000


class RowPreview(Record):
    """One of the first PREVIEWS rows inspected, and whether it became a document."""

    index: int
    id: str
    included: bool
    reason: str | None
    num_characters: int
    preview: str


class Commit(Record):
    """One journal row: the rows since the last one, up to the end of a shard.

    shard: None for rows after the last shard.
    """

    step: int
    position: Position
    ranges: list[tuple[int, int, int]]
    skipped: dict[str, int]
    previews: list[RowPreview]
    exhausted: list[int]
    shard: DocumentShard | None


@dataclass
class ImportState:
    """The sum of all commits.

    steps: number of commits. ranges: file -> [first row, row after the last], sorted, and joined
    where they touch.
    """

    steps: int = 0
    position: Position | None = None
    rows_seen: int = 0
    text_bytes: int = 0
    ranges: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    previews: list[RowPreview] = field(default_factory=list)
    exhausted: set[int] = field(default_factory=set)
    shards: list[DocumentShard] = field(default_factory=list)

    @property
    def documents(self) -> int:
        return sum(shard.documents for shard in self.shards)

    def add(self, commit: Commit) -> None:
        self.steps = commit.step
        self.position = commit.position
        for file, start, stop in commit.ranges:
            self.rows_seen += stop - start
            add_range(self.ranges.setdefault(file, []), start, stop)
        for reason, count in commit.skipped.items():
            self.skipped[reason] = self.skipped.get(reason, 0) + count
        self.previews += commit.previews
        self.exhausted |= set(commit.exhausted)
        if commit.shard is not None:
            self.shards.append(commit.shard)
            self.text_bytes += commit.shard.text_bytes


def add_range(ranges: list[tuple[int, int]], start: int, stop: int) -> None:
    """Insert rows start to stop into sorted ranges, and join ranges that touch."""
    at = bisect(ranges, (start, stop))
    ranges.insert(at, (start, stop))
    if at + 1 < len(ranges) and ranges[at + 1][0] == stop:
        stop = ranges.pop(at + 1)[1]
    if at > 0 and ranges[at - 1][1] == start:
        start = ranges.pop(at - 1)[0]
        at -= 1
    ranges[at] = (start, stop)


def read_import_state(journal: Path) -> ImportState:
    """The sum of the commits in a journal; an incomplete last line is ignored."""
    state = ImportState()
    for row in read_journal(journal):
        state.add(parse_record(Commit, row, str(journal), fix="--force begins again"))
    return state


@dataclass
class _Increment:
    """What was taken since the last shard was complete."""

    ranges: list[tuple[int, int, int]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    previews: list[RowPreview] = field(default_factory=list)
    exhausted: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    position: Position = field(default_factory=lambda: Position((0, 0), 0))


class LineWriter(Protocol):
    """What an import writes documents to: `ShardWriter`, or `distributed_import.KeptRows`."""

    def add_line(
        self, line: bytes, characters: int, text_bytes: int
    ) -> Future[DocumentShard] | None: ...

    def complete(self) -> Future[DocumentShard] | None: ...

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None: ...


class ImportWork:
    """Takes filtered rows in order and writes their documents; a context manager.

    `state` is what was committed; `finish` commits the rest. `rows_seen` and `text_bytes` count all
    rows taken. names: the source's files. writer: a ShardWriter by default.
    """

    def __init__(
        self,
        folder: Path,
        shard_documents: int,
        names: tuple[str, ...],
        writer: LineWriter | None = None,
    ) -> None:
        self.folder, self.names = folder, names
        self.documents = folder / "documents"
        self._journal = Journal(folder / "journal.jsonl")
        self.state = read_import_state(self._journal.path)
        self._journal.truncate_after(self.state.steps)
        self.rows_seen, self.text_bytes = self.state.rows_seen, self.state.text_bytes
        self._drop_uncommitted()
        self._seen = SeenTexts(folder)
        self._restore_digests()
        self._digests = (folder / "digests.bin").open("ab")
        self._writer = writer or ShardWriter(
            self.documents, shard_documents, first_shard=len(self.state.shards)
        )
        self._since = _Increment()
        self._coming: deque[tuple[_Increment, Future[DocumentShard]]] = deque()

    def __enter__(self) -> ImportWork:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._writer.__exit__(kind, *error)
        self._digests.close()
        self._seen.close()

    def take(self, part: Part, most_rows: int) -> int:
        """Write the documents among the part's first `most_rows` rows; returns the rows taken."""
        if part.exhausted:
            self._since.exhausted.append(part.slice.file)
        if part.rows is None:
            return 0
        first = part.stop - len(part.rows)  # position in the slice
        rows = part.rows.head(most_rows)
        problems = self._problems(rows)
        begin = 0
        for position, problem in enumerate(problems):
            if problem is None:
                self._since.digests.append(rows.digests[position])
                shard = self._writer.add_line(
                    rows.lines[position], rows.characters[position], rows.text_bytes[position]
                )
                self.text_bytes += rows.text_bytes[position]
                if shard is not None:
                    # Rows up to this one are committed with the shard.
                    stop = position + 1
                    self._note(rows, problems, begin, stop, Position(part.slice.key, first + stop))
                    self._cut(shard)
                    begin = stop
        end = Position(part.slice.key, first + len(rows))
        self._note(rows, problems, begin, len(rows), end)
        self._settle(wait=False)
        return len(rows)

    def finish(self) -> None:
        """Complete the last shard and commit everything."""
        shard = self._writer.complete()
        if shard is not None:
            self._cut(shard)
        self._settle(wait=True)
        if self._since.ranges or self._since.exhausted:
            self._commit(self._since, None)

    def _problems(self, rows: FilteredRows) -> list[str | None]:
        """The problem of each row, with `duplicate_text` added for repeated texts."""
        good = [position for position, problem in enumerate(rows.problems) if problem is None]
        fresh = self._seen.add([rows.digests[position] for position in good])
        problems = list(rows.problems)
        for position, new in zip(good, fresh, strict=True):
            if not new:
                problems[position] = "duplicate_text"
        return problems

    def _note(
        self, rows: FilteredRows, problems: list[str | None], start: int, stop: int, end: Position
    ) -> None:
        """Count the rows at positions start to stop of a batch; the import is at `end` then."""
        if start == stop:
            return
        since = self._since
        since.ranges.append((rows.file, rows.first + start, rows.first + stop))
        since.skipped.update(problem for problem in problems[start:stop] if problem is not None)
        for position in range(start, min(stop, start + PREVIEWS - self.rows_seen)):
            index = self.rows_seen + position - start
            since.previews.append(self._preview(rows, position, problems[position], index))
        since.position = end
        self.rows_seen += stop - start

    def _preview(
        self, rows: FilteredRows, position: int, problem: str | None, index: int
    ) -> RowPreview:
        characters, text = rows.preview(position)
        return RowPreview(
            index=index,
            id=f"{self.names[rows.file]}#{rows.first + position}",
            included=problem is None,
            reason=problem,
            num_characters=characters,
            preview=text,
        )

    # ---- committing ------------------------------------------------------------------------------

    def _cut(self, shard: Future[DocumentShard]) -> None:
        """End the increment: it is committed when its shard is written."""
        self._coming.append((self._since, shard))
        self._since = _Increment()

    def _settle(self, *, wait: bool) -> None:
        # In order only, because a resumed import continues at one position. A later shard that is
        # ready earlier waits.
        while self._coming and (wait or self._coming[0][1].done()):
            increment, shard = self._coming.popleft()
            self._commit(increment, shard.result())

    def _commit(self, increment: _Increment, shard: DocumentShard | None) -> None:
        # This order makes a kill harmless: the journal row comes after the shard and its digests.
        # On resume, shards and digests without a journal row are removed.
        self._digests.write(b"".join(increment.digests))
        self._digests.flush()
        commit = Commit(
            step=self.state.steps + 1,
            position=increment.position,
            ranges=increment.ranges,
            skipped=dict(increment.skipped),
            previews=increment.previews,
            exhausted=increment.exhausted,
            shard=shard,
        )
        self._journal.append(commit.model_dump(mode="json"))
        self.state.add(commit)

    def _drop_uncommitted(self) -> None:
        known = {shard.name for shard in self.state.shards}
        for path in self.documents.iterdir() if self.documents.exists() else ():
            if path.name not in known:
                path.unlink()

    def _restore_digests(self) -> None:
        """Add the digests of committed documents to the texts seen, and truncate the file there."""
        path = self.folder / "digests.bin"
        path.touch()
        wanted = self.state.documents * DIGEST_BYTES
        if path.stat().st_size < wanted:
            raise BadInput(
                f"{self.folder} holds a damaged unfinished import", fix="--force begins again"
            )
        os.truncate(path, wanted)
        with path.open("rb") as stream:
            while block := stream.read(RESTORE_DIGESTS * DIGEST_BYTES):
                starts = range(0, len(block), DIGEST_BYTES)
                self._seen.add([block[at : at + DIGEST_BYTES] for at in starts])


# ---- repeated texts ------------------------------------------------------------------------------


class SeenTexts:
    """An exact set of 16-byte digests in constant memory.

    Two texts with the same digest count as one. The set's file in `folder` is temporary: a resumed
    import builds it again from digests.bin.
    """

    def __init__(self, folder: Path) -> None:
        # A Bloom filter recognises nearly every new text as new; only the others are looked up in a
        # table on disk. At two million texts this takes 3.1 microseconds a text, the table alone
        # 7.5. A memory-mapped file took 2.4 to 10, and its pages count as memory.
        self._filter = np.full(FILTER_WORDS, 0, dtype=np.uint64)
        # New digests are inserted in sorted batches, at a fraction of the cost of single rows.
        self._unsorted: set[bytes] = set()
        self._path = folder / "seen.sqlite"
        self._path.unlink(missing_ok=True)
        self._table = sqlite3.connect(self._path, isolation_level=None)
        for pragma in (
            "journal_mode = off",  # the table need not survive a kill
            "synchronous = off",
            "locking_mode = exclusive",
            f"cache_size = -{TABLE_CACHE_KB}",
        ):
            self._table.execute(f"PRAGMA {pragma}")
        self._table.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")
        self._table.execute("BEGIN")

    def add(self, digests: Sequence[bytes]) -> list[bool]:
        """Add the digests; returns for each whether it was new, also within `digests`."""
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
        """Add the digests to the filter; returns for each whether it may have been there."""
        # All bits of a digest are in one 64-bit word, so each costs one memory access. Digests are
        # hashes, so their own bits choose the word and the four bits in it.
        halves = np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)
        words = (halves[:, 0] & np.uint64(FILTER_WORDS - 1)).astype(np.int64)
        bits = np.zeros(len(halves), dtype=np.uint64)
        for number in range(BITS_PER_TEXT):
            bits |= np.uint64(1) << ((halves[:, 1] >> np.uint64(6 * number)) & np.uint64(63))
        held = (self._filter[words] & bits) == bits
        np.bitwise_or.at(self._filter, words, bits)
        return held.tolist()

    def _in_table(self, digest: bytes) -> bool:
        found = self._table.execute("SELECT 1 FROM seen WHERE digest = ?", (digest,))
        return found.fetchone() is not None

    def _move_to_table(self) -> None:
        ordered = b"".join(sorted(self._unsorted))
        try:
            # One statement for the whole batch. It runs without the interpreter lock, so other
            # threads continue.
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
