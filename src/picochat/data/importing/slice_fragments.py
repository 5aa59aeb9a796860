"""Stores the filtered rows of a slice for later steps of a distributed import, in two files.

`NNNNNN.lines` has one zstd frame of lines for each batch of rows, `NNNNNN.npz` the columns. The
columns are written last and by rename, so their file means that the slice is complete. The decide
step reads only columns, about 60 bytes a row; the write step reads only the frames that it needs.
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

from picochat.data.importing.import_state import DIGEST_BYTES
from picochat.data.importing.slices import FilteredRows

ZSTD_LEVEL = 1  # the lines are read once and deleted with the work folder
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fragment:
    """The columns of one slice. The arrays have one entry a row, the last two one a frame.

    first: number of the first row in its file. problems: indices into `reasons`, 0 for a usable
    row. digests: (rows, 16). heads: position -> (characters, beginning of the text) of the rows
    that a report may show.
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

    def filtered_rows(self, file: int, slice: int) -> FilteredRows:
        """The rows for `ImportWork.take`, each line a reference for `line_reference`."""
        digests = self.digests.tobytes()
        starts = range(0, len(digests), DIGEST_BYTES)
        return FilteredRows(
            file=file,
            first=self.first,
            problems=[self.reasons[code] for code in self.problems.tolist()],
            lines=[
                b'{"text":"","at":[%d,%d]}' % (slice, position) for position in range(len(self))
            ],
            characters=self.characters.tolist(),
            text_bytes=self.text_bytes.tolist(),
            digests=[digests[at : at + DIGEST_BYTES] for at in starts],
            heads=self.heads,
        )


def line_reference(line: bytes) -> tuple[int, int]:
    """(slice, position) of the row that a line of `Fragment.filtered_rows` stands for."""
    slice, position = json.loads(line)["at"]
    return slice, position


def write_fragment(
    folder: Path, slice: int, batches: Iterator[FilteredRows], shown_rows: int
) -> int:
    """Write the batches of a slice; returns the number of rows.

    shown_rows: how many of the first rows keep their heads for the report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    columns = _Columns()
    with _appearing(lines_path(folder, slice)) as stream:
        for batch in batches:
            lines = [
                b"" if problem else line
                for problem, line in zip(batch.problems, batch.lines, strict=True)
            ]
            compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True)
            frame = compressor.compress(b"".join(lines))
            stream.write(frame)
            columns.take(batch, [len(line) for line in lines], len(frame), shown_rows)
    with _appearing(columns_path(folder, slice)) as stream:
        columns.save(stream)
    return len(columns.problems)


@dataclass
class _Columns:
    """The columns of a slice while it is written."""

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
        self, batch: FilteredRows, line_bytes: list[int], frame_bytes: int, shown_rows: int
    ) -> None:
        self.first = batch.first if self.first is None else self.first
        before = len(self.problems)
        for at in range(min(len(batch), shown_rows - before)):
            self.heads[str(before + at)] = batch.preview(at)
        self.reasons += [each for each in dict.fromkeys(batch.problems) if each not in self.reasons]
        self.problems += [self.reasons.index(problem) for problem in batch.problems]
        self.characters += batch.characters
        self.text_bytes += batch.text_bytes
        self.line_bytes += line_bytes
        self.digests += b"".join(batch.digests)
        self.frames.append((len(batch), frame_bytes))

    def save(self, stream: BinaryIO) -> None:
        # JSON in an array of bytes, because an npz file holds only arrays unless it is pickled.
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
    """A stream whose file gets its name when the block ends without an error."""
    # A random temporary name, because two people may start the same import at the same time.
    partial = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def lines_path(folder: Path, slice: int) -> Path:
    return folder / f"{slice:06d}.lines"


def columns_path(folder: Path, slice: int) -> Path:
    """The file whose existence means that the slice is complete."""
    return folder / f"{slice:06d}.npz"


def read_columns(folder: Path, slice: int) -> Fragment:
    with np.load(columns_path(folder, slice)) as stored:
        columns = {name: stored[name] for name in stored.files}
    about = json.loads(columns.pop("about").tobytes())
    heads = {
        int(position): (characters, text) for position, (characters, text) in about["heads"].items()
    }
    return Fragment(first=about["first"], reasons=about["reasons"], heads=heads, **columns)


def read_lines(
    folder: Path, slice: int, positions: npt.NDArray[np.integer]
) -> Iterator[tuple[bytes, int, int]]:
    """(line, characters, text bytes) of the rows at these ascending positions."""
    fragment = read_columns(folder, slice)
    frame_stops = np.cumsum(fragment.frame_rows)
    frame_offsets = np.concatenate(([0], np.cumsum(fragment.frame_bytes)))
    line_stops = np.cumsum(fragment.line_bytes)
    with lines_path(folder, slice).open("rb") as stream:
        held, text, text_start = -1, b"", 0
        for position in positions.tolist():
            frame = int(np.searchsorted(frame_stops, position, side="right"))
            if frame != held:
                stream.seek(int(frame_offsets[frame]))
                data = stream.read(int(fragment.frame_bytes[frame]))
                text = zstandard.ZstdDecompressor().decompress(data)
                first_row = int(frame_stops[frame] - fragment.frame_rows[frame])
                text_start = int(line_stops[first_row] - fragment.line_bytes[first_row])
                held = frame
            stop = int(line_stops[position]) - text_start
            line = text[stop - int(fragment.line_bytes[position]) : stop]
            yield line, int(fragment.characters[position]), int(fragment.text_bytes[position])
