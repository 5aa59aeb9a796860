"""What reading one visit leaves for the ranks after it: its rows judged, as columns, and the lines of the usable ones.

Two files a visit: `NNNNNN.lines`, a zstd frame of lines for each batch of rows, and `NNNNNN.npz`, the columns. The columns are
written last and by rename, so a visit without them was not read to its end and is read again. Who decides reads columns
alone (some 60 bytes a row); who writes a shard reads the frames that hold its lines, and no other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zstandard

from picochat.data.judged import JudgedRows, shown
from picochat.data.seen_texts import DIGEST_BYTES

ZSTD_LEVEL = 1  # read once, soon, and thrown away
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fragment:
    """The columns of one visit; each array but the last two has one entry a row.

    first: number in its file of the first row. problems: index into `reasons`, 0 for a usable row. digests: (rows, 16).
    heads: position -> (characters, first of them) of the rows that a report may show. frame_*: of each batch.
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
        """The rows as an import takes them, each line a reference to itself (`line_reference`) instead of the text."""
        digests = self.digests.tobytes()
        return JudgedRows(
            file=file,
            first=self.first,
            problems=[self.reasons[code] for code in self.problems.tolist()],
            lines=[b'{"text":"","at":[%d,%d]}' % (visit, position) for position in range(len(self))],
            characters=self.characters.tolist(),
            text_bytes=self.text_bytes.tolist(),
            digests=[digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)],
            heads=self.heads,
        )


def line_reference(line: bytes) -> tuple[int, int]:
    """(visit, position in it) that a line of `Fragment.judged` stands for."""
    visit, position = json.loads(line)["at"]
    return visit, position


def write_fragment(folder: Path, visit: int, batches: Iterator[JudgedRows], shown_rows: int) -> int:
    """Writes a visit's batches; returns its rows. shown_rows: as many of the first keep what a report shows of a row."""
    problems: list[int] = []
    characters: list[int] = []
    text_bytes: list[int] = []
    line_bytes: list[int] = []
    digests = bytearray()
    reasons: list[str | None] = [None]
    heads: dict[str, tuple[int, str]] = {}
    first: int | None = None
    frames: list[tuple[int, int]] = []
    rows = 0
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{visit:06d}.{os.getpid()}.part"
    with partial.open("wb") as stream:
        for batch in batches:
            first = batch.first if first is None else first
            heads |= {str(rows + at): _head(batch, at) for at in range(min(len(batch), shown_rows - rows))}
            reasons += [reason for reason in dict.fromkeys(batch.problems) if reason not in reasons]
            lines = [b"" if problem else line for problem, line in zip(batch.problems, batch.lines, strict=True)]
            problems += [reasons.index(problem) for problem in batch.problems]
            characters += batch.characters
            text_bytes += batch.text_bytes
            line_bytes += map(len, lines)
            digests += b"".join(batch.digests)
            frame = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compress(b"".join(lines))
            stream.write(frame)
            frames.append((len(batch), len(frame)))
            rows += len(batch)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, folder / f"{visit:06d}.lines")
    about = json.dumps({"first": first or 0, "reasons": reasons, "heads": heads}).encode()
    sizes = np.array(frames, dtype=np.int64).reshape(-1, 2)
    with partial.open("wb") as stream:
        np.savez(
            stream,
            about=np.frombuffer(about, dtype=np.uint8),
            problems=np.array(problems, dtype=np.uint8),
            characters=np.array(characters, dtype=np.int64),
            text_bytes=np.array(text_bytes, dtype=np.int64),
            line_bytes=np.array(line_bytes, dtype=np.int64),
            digests=np.frombuffer(bytes(digests), dtype=np.uint8).reshape(-1, DIGEST_BYTES),
            frame_rows=sizes[:, 0],
            frame_bytes=sizes[:, 1],
        )
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, columns_path(folder, visit))
    return rows


def columns_path(folder: Path, visit: int) -> Path:
    """The file whose presence says that the visit was read to its end."""
    return folder / f"{visit:06d}.npz"


def read_columns(folder: Path, visit: int) -> Fragment:
    with np.load(columns_path(folder, visit)) as stored:
        columns = {name: stored[name] for name in stored.files}
    about = json.loads(columns.pop("about").tobytes())
    heads = {int(position): (characters, text) for position, (characters, text) in about["heads"].items()}
    return Fragment(first=about["first"], reasons=about["reasons"], heads=heads, **columns)


def read_lines(folder: Path, visit: int, positions: npt.NDArray[np.integer]) -> Iterator[tuple[bytes, int, int]]:
    """(line, characters, text bytes) of the rows at these ascending positions. Decompresses only the frames they lie in."""
    fragment = read_columns(folder, visit)
    frame_stops = np.cumsum(fragment.frame_rows)
    frame_offsets = np.concatenate(([0], np.cumsum(fragment.frame_bytes)))
    line_stops = np.cumsum(fragment.line_bytes)
    with (folder / f"{visit:06d}.lines").open("rb") as stream:
        held, text, text_start = -1, b"", 0
        for position in positions.tolist():
            frame = int(np.searchsorted(frame_stops, position, side="right"))
            if frame != held:
                stream.seek(int(frame_offsets[frame]))
                text = zstandard.ZstdDecompressor().decompress(stream.read(int(fragment.frame_bytes[frame])))
                first_row = int(frame_stops[frame] - fragment.frame_rows[frame])
                held, text_start = frame, int(line_stops[first_row] - fragment.line_bytes[first_row])
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
