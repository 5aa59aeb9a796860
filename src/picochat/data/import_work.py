"""An import in progress: complete shards, the documents that are not in one yet, and a journal that says what counts.

Rows are committed in groups: first shards and pending documents reach the disk, then one journal row states them. After a
kill the last whole journal row is the truth; whatever it does not name is thrown away and made again, byte for byte the
same. Memory holds one 16-byte digest for each document (about 100 MB for a million), to drop repeated texts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from picochat.core.journal import Journal, read_journal
from picochat.core.records import Record, parse_record, write_atomic
from picochat.data.documents import DocumentShard, ShardWriter, document_line, read_source_file
from picochat.data.rows import Row, text_problem
from picochat.data.visits import Visited

COMMIT_ROWS = 1000
PREVIEWS = 200
PREVIEW_CHARACTERS = 160


class RowPreview(Record):
    """One of the first rows inspected, and what became of it."""

    index: int
    id: str
    included: bool
    reason: str | None
    num_characters: int
    preview: str


class Commit(Record):
    """What one journal row adds: rows taken from which files, documents kept, rows skipped and why, shards completed."""

    step: int
    last_key: tuple[int, int]
    ranges: list[tuple[int, int, int]]
    skipped: dict[str, int]
    previews: list[RowPreview]
    exhausted: list[int]
    shards: list[DocumentShard]
    pending: list[str]


@dataclass
class ImportState:
    """The sum of all commits."""

    steps: int = 0
    last_key: tuple[int, int] | None = None
    ranges: list[tuple[int, int, int]] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    previews: list[RowPreview] = field(default_factory=list)
    exhausted: set[int] = field(default_factory=set)
    shards: list[DocumentShard] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)

    @property
    def rows_seen(self) -> int:
        return sum(stop - start for _, start, stop in self.ranges)

    def add(self, commit: Commit) -> None:
        self.steps = commit.step
        self.last_key = commit.last_key
        self.ranges = merged_ranges(self.ranges, commit.ranges)
        for reason, count in commit.skipped.items():
            self.skipped[reason] = self.skipped.get(reason, 0) + count
        self.previews += commit.previews
        self.exhausted |= set(commit.exhausted)
        self.shards += commit.shards
        self.pending = commit.pending


class ImportWork:
    """Takes visited rows in order and keeps their documents. `state` is what was committed; `finish` commits the rest."""

    def __init__(self, folder: Path, min_chars: int, shard_documents: int, names: tuple[str, ...]) -> None:
        self.folder, self.min_chars, self.names = folder, min_chars, names
        self.documents = folder / "documents"
        self.state = ImportState()
        self._journal = Journal(folder / "journal.jsonl")
        for row in read_journal(self._journal.path):
            self.state.add(parse_record(Commit, row, str(self._journal.path)))
        self._journal.truncate_after(self.state.steps)
        self._seen: set[bytes] = set()
        self._drop_uncommitted()
        self._writer = ShardWriter(self.documents, shard_documents, first_shard=len(self.state.shards))
        self.rows_seen = self.state.rows_seen
        self.text_bytes = sum(shard.text_bytes for shard in self.state.shards)
        self._restore()
        self._clear_increment()

    def take(self, visited: Visited, rows: list[Row]) -> None:
        """Keep the documents among `rows`, the first rows of the visit."""
        if rows:
            self._ranges.append((visited.visit.file, rows[0].number, rows[-1].number + 1))
        for row in rows:
            self._take_row(f"{self.names[visited.visit.file]}#{row.number}", row.text)
        if visited.exhausted:
            self._exhausted.append(visited.visit.file)
        self._last_key = visited.visit.key
        if self._uncommitted >= COMMIT_ROWS:
            self._commit()

    def finish(self) -> None:
        """Complete the last shard and commit everything."""
        self._writer.close()
        self._tail.clear()
        self._commit()

    def _take_row(self, id: str, text: object) -> None:
        reason = text_problem(text)
        if reason is None:
            assert isinstance(text, str)
            reason = self._keep(id, text)
        if reason is not None:
            self._skipped[reason] = self._skipped.get(reason, 0) + 1
        if self.rows_seen < PREVIEWS:
            self._previews.append(_preview(self.rows_seen, id, text, reason))
        self.rows_seen += 1
        self._uncommitted += 1

    def _keep(self, id: str, text: str) -> str | None:
        """None where the text became a document, else why it did not."""
        if len(text) < self.min_chars:
            return "below_min_chars"
        data = text.encode()
        digest = xxhash.xxh3_128_digest(data)
        if digest in self._seen:
            return "duplicate_text"
        self._seen.add(digest)
        self._writer.add(id, text)
        self.text_bytes += len(data)
        if self._writer.pending:
            self._tail.append((id, text))
        else:
            self._tail.clear()
        return None

    def _commit(self) -> None:
        """Documents first, then the journal row that makes them count, then the removal of what no longer does."""
        step = self.state.steps + 1
        completed = self._writer.shards[self._shards_committed :]
        pending = [] if completed else list(self.state.pending)
        if self._tail:
            pending.append(f"pending-{step:08d}.jsonl")
            write_atomic(self.folder / pending[-1], b"".join(document_line(id, text) for id, text in self._tail))
        commit = Commit(
            step=step,
            last_key=self._last_key or self.state.last_key or (0, 0),
            ranges=merged_ranges([], self._ranges),
            skipped=self._skipped,
            previews=self._previews,
            exhausted=self._exhausted,
            shards=completed,
            pending=pending,
        )
        self._journal.append(commit.model_dump(mode="json"))
        for name in set(self.state.pending) - set(pending):
            (self.folder / name).unlink()
        self.state.add(commit)
        self._clear_increment()

    def _clear_increment(self) -> None:
        self._shards_committed = len(self._writer.shards)
        self._tail: list[tuple[str, str]] = []
        self._ranges: list[tuple[int, int, int]] = []
        self._skipped: dict[str, int] = {}
        self._previews: list[RowPreview] = []
        self._exhausted: list[int] = []
        self._last_key: tuple[int, int] | None = None
        self._uncommitted = 0

    def _drop_uncommitted(self) -> None:
        """Remove shards and pending files that no journal row names."""
        known = {shard.name for shard in self.state.shards} | set(self.state.pending)
        documents = self.documents.iterdir() if self.documents.exists() else ()
        for path in (*documents, *self.folder.glob("pending-*")):
            if path.name not in known:
                path.unlink()

    def _restore(self) -> None:
        """Read the committed documents again: their digests, and the texts of the shard that was not complete."""
        for shard in self.state.shards:
            for row in read_source_file(self.documents, shard.name):
                self._seen.add(xxhash.xxh3_128_digest(row.text.encode()))
        for name in self.state.pending:
            for line in (self.folder / name).read_bytes().splitlines():
                document = json.loads(line)
                data = document["text"].encode()
                self._seen.add(xxhash.xxh3_128_digest(data))
                self._writer.add(document["id"], document["text"])
                self.text_bytes += len(data)


def merged_ranges(ranges: list[tuple[int, int, int]], more: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """(file, first row, row after the last), sorted, with ranges that touch joined."""
    joined: list[tuple[int, int, int]] = []
    for file, start, stop in sorted([*ranges, *more]):
        if joined and joined[-1][0] == file and joined[-1][2] == start:
            joined[-1] = (file, joined[-1][1], stop)
        else:
            joined.append((file, start, stop))
    return joined


def _preview(index: int, id: str, text: object, reason: str | None) -> RowPreview:
    usable = text if isinstance(text, str) else ""
    shown = " ".join(usable[: 2 * PREVIEW_CHARACTERS].split())[:PREVIEW_CHARACTERS]
    shown = shown.encode("utf-8", errors="replace").decode()
    return RowPreview(index=index, id=id, included=reason is None, reason=reason, num_characters=len(usable), preview=shown)
