"""Hash partitions on disk: records divided by their key, so that equal keys meet in memory.

Sorting and grouping stay in bounded memory however many records there are (docs/decisions/0015).
The files are scratch: they need no sync, and a job that was killed makes them again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

RECORDS_TOGETHER = 250_000  # about what one file holds, and memory with it
MOST_FILES = 256  # all are open at the same time

Records = npt.NDArray[np.void]


class HashPartitions:
    """Add records of one structured type with a uint64 field `key`, then read them file by file.

    A context manager. Keys must be well mixed (hashes): their leading bits name the file. folder:
    made on entering, removed on leaving. expected: about how many records will come.
    """

    def __init__(self, folder: Path, dtype: np.dtype[np.void], expected: int) -> None:
        self._folder, self._dtype = folder, dtype
        self._bits = min(MOST_FILES - 1, expected // RECORDS_TOGETHER).bit_length()

    def __enter__(self) -> HashPartitions:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._files = [
            (self._folder / f"{number:03d}").open("wb") for number in range(1 << self._bits)
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files:
            file.close()
        shutil.rmtree(self._folder)

    def add(self, records: Records) -> None:
        """Append the records to the files of their keys."""
        if not self._bits:
            self._files[0].write(records.tobytes())
            return
        # One write for each file: the records are grouped first, by a stable sort, so that records
        # of one key stay in the order in which they were added.
        number = (records["key"] >> np.uint64(64 - self._bits)).astype(np.int64)
        ordered = records[np.argsort(number, kind="stable")]
        ends = np.cumsum(np.bincount(number, minlength=len(self._files))).tolist()
        for file, start, end in zip(self._files, [0, *ends[:-1]], ends, strict=True):
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
