"""Hash partitions on disk: records with equal keys are in one file, which is small enough to sort.

So records are grouped in bounded memory, however many there are (docs/decisions/0015). The files
are temporary. They are not synced, and a job that was killed writes them again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

RECORDS_PER_FILE = 250_000  # about; one file at a time is in memory
MOST_FILES = 256  # all are open at the same time

Records = npt.NDArray[np.void]


class HashPartitions:
    """Add records of one structured type with a uint64 field `key`, then read them file by file.

    A context manager. Keys must be hashes, because their leading bits choose the file. folder:
    created on entering and removed on leaving. expected: an estimate of the number of records.
    """

    def __init__(self, folder: Path, dtype: np.dtype[np.void], expected: int) -> None:
        self._folder, self._dtype = folder, dtype
        self._bits = min(MOST_FILES - 1, expected // RECORDS_PER_FILE).bit_length()

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
        # Grouping the records first needs only one write for each file. The sort is stable, so that
        # records of one key keep their order.
        number = (records["key"] >> np.uint64(64 - self._bits)).astype(np.int64)
        ordered = records[np.argsort(number, kind="stable")]
        ends = np.cumsum(np.bincount(number, minlength=len(self._files))).tolist()
        for file, start, end in zip(self._files, [0, *ends[:-1]], ends, strict=True):
            if end > start:
                file.write(ordered[start:end].tobytes())

    def read(self) -> Iterator[Records]:
        """The records of each file, in the order in which they were added."""
        for file in self._files:
            file.close()
        for file in self._files:
            records = np.fromfile(file.name, dtype=self._dtype)
            if len(records):
                yield records
