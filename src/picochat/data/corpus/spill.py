"""Records on disk, divided by their key, so that equal keys meet in a part small enough for memory.

How sorting and grouping stay in bounded memory, however many documents there are: a record goes to
the file that the leading bits of its 64-bit key name, and each file is then read by itself. Keys
must be well mixed (hashes). The files are scratch: they need no sync, and a job that was killed
makes them again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

RECORDS_TOGETHER = 250_000  # what one file holds about, and memory with it
MOST_FILES = 256

Records = npt.NDArray[np.void]


class Buckets:
    """Add records of one structured type with a uint64 field `key`, then read them file by file.

    folder: made, and removed with what is in it on leaving the context. expected: records that will
    come, about.
    """

    def __init__(self, folder: Path, dtype: np.dtype[np.void], expected: int) -> None:
        self._folder, self._dtype = folder, dtype
        self._bits = min(MOST_FILES - 1, expected // RECORDS_TOGETHER).bit_length()

    def __enter__(self) -> Buckets:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._files = [
            (self._folder / f"{number:03d}").open("wb") for number in range(1 << self._bits)
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files:
            file.close()
        shutil.rmtree(self._folder)

    def add(self, records: Records) -> None:
        if not self._bits:
            self._files[0].write(records.tobytes())
            return
        bucket = (records["key"] >> np.uint64(64 - self._bits)).astype(np.int64)
        order = np.argsort(bucket, kind="stable")
        ends = np.cumsum(np.bincount(bucket, minlength=len(self._files)))
        ordered = records[order]
        for file, start, end in zip(
            self._files, [0, *ends[:-1].tolist()], ends.tolist(), strict=True
        ):
            if end > start:
                file.write(ordered[start:end].tobytes())

    def read(self) -> Iterator[Records]:
        """The records of one file after another, each in the order in which they were added."""
        for file in self._files:
            file.close()
        for file in self._files:
            records = np.fromfile(file.name, dtype=self._dtype)
            if len(records):
                yield records
