"""An import in progress: complete shards, and a journal that says what counts.

A shard and the journal row that states it are one step: which rows went into it, which were skipped
and why, and where the import stood after its last document. After a kill the journal is the truth;
a shard that it does not name is made again, byte for byte the same. Memory does not grow with the
rows: the digests that tell repeated texts lie on disk.
"""

from __future__ import annotations

import json
import os
from bisect import bisect
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol

from picochat.core.errors import BadInput
from picochat.core.journal import Journal, read_journal
from picochat.core.records import Record, parse_record
from picochat.data.importing.judged import JudgedRows, shown
from picochat.data.importing.read_ahead import Part, Position
from picochat.data.importing.seen_texts import DIGEST_BYTES, SeenTexts
from picochat.data.shard_writer import DocumentShard, ShardWriter

PREVIEWS = 200
RESTORE_DIGESTS = 1 << 16


class RowPreview(Record):
    """One of the first rows inspected, and what became of it."""

    index: int
    id: str
    included: bool
    reason: str | None
    num_characters: int
    preview: str


class Commit(Record):
    """What one journal row adds: the rows taken up to the end of a shard, or up to the end of the
    import (shard None).
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

    `ranges`: file -> [first row, row after the last], sorted, joined where they touch.
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


@dataclass
class _Increment:
    """What was taken since the last commit was cut."""

    ranges: list[tuple[int, int, int]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    previews: list[RowPreview] = field(default_factory=list)
    exhausted: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    position: Position = field(default_factory=lambda: Position((0, 0), 0))


class LineWriter(Protocol):
    """What an import hands its documents to: `ShardWriter`, or one who only notes which they are."""

    def add_line(
        self, line: bytes, characters: int, text_bytes: int
    ) -> Future[DocumentShard] | None: ...

    def complete(self) -> Future[DocumentShard] | None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class ImportWork:
    """Takes rows in order and keeps their documents. `state` is what was committed; `finish`
    commits the rest.

    Use as a context manager. `rows_seen` and `text_bytes` count what was taken, committed or not.
    `writer`: takes the lines of kept documents; None: a ShardWriter.
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
        self.state = ImportState()
        self._journal = Journal(folder / "journal.jsonl")
        for row in read_journal(self._journal.path):
            self.state.add(
                parse_record(Commit, row, str(self._journal.path), fix="--force begins again")
            )
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.__exit__(kind, error, trace)
        self._digests.close()
        self._seen.close()

    def take(self, part: Part, most_rows: int) -> int:
        """Keep the documents among the part's first `most_rows` rows; returns how many rows that
        were.
        """
        if part.exhausted:
            self._since.exhausted.append(part.visit.file)
        if part.rows is None:
            return 0
        first = part.stop - len(part.rows)
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
                    self._note(rows, problems, begin, position + 1, part.visit.key, first)
                    self._cut(shard)
                    begin = position + 1
        self._note(rows, problems, begin, len(rows), part.visit.key, first)
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

    def _problems(self, rows: JudgedRows) -> list[str | None]:
        """Why each row becomes no document, repeated texts included."""
        good = [position for position, problem in enumerate(rows.problems) if problem is None]
        fresh = self._seen.add([rows.digests[position] for position in good])
        problems = list(rows.problems)
        for position, new in zip(good, fresh, strict=True):
            if not new:
                problems[position] = "duplicate_text"
        return problems

    def _note(
        self,
        rows: JudgedRows,
        problems: list[str | None],
        start: int,
        stop: int,
        key: tuple[int, int],
        first: int,
    ) -> None:
        """Account for the rows at positions start to stop."""
        if start == stop:
            return
        since = self._since
        since.ranges.append((rows.file, rows.first + start, rows.first + stop))
        since.skipped.update(problem for problem in problems[start:stop] if problem is not None)
        for position in range(start, min(stop, start + PREVIEWS - self.rows_seen)):
            since.previews.append(
                self._preview(rows, position, problems[position], self.rows_seen + position - start)
            )
        since.position = Position(key, first + stop)
        self.rows_seen += stop - start

    def _preview(
        self, rows: JudgedRows, position: int, problem: str | None, index: int
    ) -> RowPreview:
        characters, text = rows.heads.get(position) or (rows.characters[position], "")
        if not text and rows.lines[position]:
            text = shown(json.loads(rows.lines[position])["text"])
        return RowPreview(
            index=index,
            id=f"{self.names[rows.file]}#{rows.first + position}",
            included=problem is None,
            reason=problem,
            num_characters=characters,
            preview=text,
        )

    def _cut(self, shard: Future[DocumentShard]) -> None:
        """A shard is full: what was taken so far is committed as soon as it stands."""
        self._coming.append((self._since, shard))
        self._since = _Increment()

    def _settle(self, *, wait: bool) -> None:
        while self._coming and (wait or self._coming[0][1].done()):
            increment, shard = self._coming.popleft()
            self._commit(increment, shard.result())

    def _commit(self, increment: _Increment, shard: DocumentShard | None) -> None:
        """The shard stands and its digests are written: the journal row makes them count."""
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
        """Remove shards that no journal row names."""
        known = {shard.name for shard in self.state.shards}
        for path in self.documents.iterdir() if self.documents.exists() else ():
            if path.name not in known:
                path.unlink()

    def _restore_digests(self) -> None:
        """Learn the digests of the committed documents again; what lies behind them in the file is
        cut off.
        """
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
                self._seen.add(
                    [block[at : at + DIGEST_BYTES] for at in range(0, len(block), DIGEST_BYTES)]
                )


def add_range(ranges: list[tuple[int, int]], start: int, stop: int) -> None:
    """Put rows start to stop into sorted ranges, joined with those that they touch."""
    at = bisect(ranges, (start, stop))
    ranges.insert(at, (start, stop))
    if at + 1 < len(ranges) and ranges[at + 1][0] == stop:
        stop = ranges.pop(at + 1)[1]
    if at > 0 and ranges[at - 1][1] == start:
        start = ranges.pop(at - 1)[0]
        at -= 1
    ranges[at] = (start, stop)
