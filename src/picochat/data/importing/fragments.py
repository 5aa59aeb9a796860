"""What reading one visit leaves for the ranks after it: its rows judged, as columns, and the lines
of the usable ones.

Two files a visit: `NNNNNN.lines`, a zstd frame of lines for each batch of rows, and `NNNNNN.npz`,
the columns. The columns are written last and by rename, so a visit without them was not read to its
end and is read again. Who decides reads columns alone (some 60 bytes a row); who writes a shard
reads the frames that hold its lines, and no other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import zstandard

from picochat.data.importing.judged import JudgedRows, shown
from picochat.data.importing.seen_texts import DIGEST_BYTES

ZSTD_LEVEL = 1  # read once, soon, and thrown away
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fragment:
    """The columns of one visit; each array but the last two has one entry a row.

    first: number in its file of the first row. problems: index into `reasons`, 0 for a usable row.
    digests: (rows, 16). heads: position -> (characters, first of them) of the rows that a report
    may show. frame_*: of each batch.
    """

    first: int
    reasons: list[str | None]
    heads: dict[int, tuple[int, str]]
    problems: npt.NDArray[np.uint8]
    characters: Ints
    text_bytes: Ints
    line_bytes: Ints
    digests: npt.NDArray[np.uint8]
    frame_rows: Ints
    frame_bytes: Ints

    def __len__(self) -> int:
        return len(self.problems)

    def judged(self, file: int, visit: int) -> JudgedRows:
        """The rows as an import takes them, each line a reference to itself (`line_reference`)
        instead of the text.
        """
        digests = self.digests.tobytes()
        return JudgedRows(
            file=file,
            first=self.first,
            problems=[self.reasons[code] for code in self.problems.tolist()],
            lines=[
                b'{"text":"","at":[%d,%d]}' % (visit, position) for position in range(len(self))
            ],
            characters=self.characters.tolist(),
            text_bytes=self.text_bytes.tolist(),
            digests=[
                digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)
            ],
            heads=self.heads,
        )


def line_reference(line: bytes) -> tuple[int, int]:
    """(visit, position in it) that a line of `Fragment.judged` stands for."""
    visit, position = json.loads(line)["at"]
    return visit, position


def write_fragment(folder: Path, visit: int, batches: Iterator[JudgedRows], shown_rows: int) -> int:
    """Writes a visit's batches; returns its rows. shown_rows: as many of the first keep what a
    report shows of a row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    columns = _Columns()
    with _appearing(lines_path(folder, visit)) as stream:
        for batch in batches:
            lines = [
                b"" if problem else line
                for problem, line in zip(batch.problems, batch.lines, strict=True)
            ]
            frame = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compress(
                b"".join(lines)
            )
            stream.write(frame)
            columns.take(batch, [len(line) for line in lines], len(frame), shown_rows)
    with _appearing(columns_path(folder, visit)) as stream:
        columns.save(stream)
    return len(columns.problems)


@dataclass
class _Columns:
    """The columns of a visit in the making."""

    first: int | None = None
    reasons: list[str | None] = field(default_factory=lambda: [None])
    heads: dict[str, tuple[int, str]] = field(default_factory=dict)
    problems: list[int] = field(default_factory=list)
    characters: list[int] = field(default_factory=list)
    text_bytes: list[int] = field(default_factory=list)
    line_bytes: list[int] = field(default_factory=list)
    digests: bytearray = field(default_factory=bytearray)
    frames: list[tuple[int, int]] = field(default_factory=list)

    def take(
        self, batch: JudgedRows, line_bytes: list[int], frame_bytes: int, shown_rows: int
    ) -> None:
        self.first = batch.first if self.first is None else self.first
        before = len(self.problems)
        self.heads |= {
            str(before + at): _head(batch, at) for at in range(min(len(batch), shown_rows - before))
        }
        self.reasons += [
            reason for reason in dict.fromkeys(batch.problems) if reason not in self.reasons
        ]
        self.problems += [self.reasons.index(problem) for problem in batch.problems]
        self.characters += batch.characters
        self.text_bytes += batch.text_bytes
        self.line_bytes += line_bytes
        self.digests += b"".join(batch.digests)
        self.frames.append((len(batch), frame_bytes))

    def save(self, stream: BinaryIO) -> None:
        about = json.dumps(
            {"first": self.first or 0, "reasons": self.reasons, "heads": self.heads}
        ).encode()
        frames = np.array(self.frames, dtype=np.int64).reshape(-1, 2)
        np.savez(
            stream,
            about=np.frombuffer(about, dtype=np.uint8),
            problems=np.array(self.problems, dtype=np.uint8),
            characters=np.array(self.characters, dtype=np.int64),
            text_bytes=np.array(self.text_bytes, dtype=np.int64),
            line_bytes=np.array(self.line_bytes, dtype=np.int64),
            digests=np.frombuffer(bytes(self.digests), dtype=np.uint8).reshape(-1, DIGEST_BYTES),
            frame_rows=frames[:, 0],
            frame_bytes=frames[:, 1],
        )


@contextmanager
def _appearing(path: Path) -> Generator[BinaryIO, None, None]:
    """A stream whose file appears whole, under its name, when the block ends without an error."""
    partial = path.with_name(f".{path.name}.{uuid4().hex}.part")
    with partial.open("wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)


def lines_path(folder: Path, visit: int) -> Path:
    return folder / f"{visit:06d}.lines"


def columns_path(folder: Path, visit: int) -> Path:
    """The file whose presence says that the visit was read to its end."""
    return folder / f"{visit:06d}.npz"


def read_columns(folder: Path, visit: int) -> Fragment:
    with np.load(columns_path(folder, visit)) as stored:
        columns = {name: stored[name] for name in stored.files}
    about = json.loads(columns.pop("about").tobytes())
    heads = {
        int(position): (characters, text) for position, (characters, text) in about["heads"].items()
    }
    return Fragment(first=about["first"], reasons=about["reasons"], heads=heads, **columns)


def read_lines(
    folder: Path, visit: int, positions: npt.NDArray[np.integer]
) -> Iterator[tuple[bytes, int, int]]:
    """(line, characters, text bytes) of the rows at these ascending positions.

    Decompresses only the frames they lie in.
    """
    fragment = read_columns(folder, visit)
    frame_stops = np.cumsum(fragment.frame_rows)
    frame_offsets = np.concatenate(([0], np.cumsum(fragment.frame_bytes)))
    line_stops = np.cumsum(fragment.line_bytes)
    with lines_path(folder, visit).open("rb") as stream:
        held, text, text_start = -1, b"", 0
        for position in positions.tolist():
            frame = int(np.searchsorted(frame_stops, position, side="right"))
            if frame != held:
                stream.seek(int(frame_offsets[frame]))
                text = zstandard.ZstdDecompressor().decompress(
                    stream.read(int(fragment.frame_bytes[frame]))
                )
                first_row = int(frame_stops[frame] - fragment.frame_rows[frame])
                held, text_start = (
                    frame,
                    int(line_stops[first_row] - fragment.line_bytes[first_row]),
                )
            stop = int(line_stops[position]) - text_start
            line = text[stop - int(fragment.line_bytes[position]) : stop]
            yield line, int(fragment.characters[position]), int(fragment.text_bytes[position])


def _head(batch: JudgedRows, position: int) -> tuple[int, str]:
    """What a report shows of a row: its characters and the first of them."""
    known = batch.heads.get(position)
    if known is not None:
        return known
    line = batch.lines[position]
    return batch.characters[position], shown(json.loads(line)["text"]) if line else ""
