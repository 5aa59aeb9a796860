"""One pass over source files: ids, sizes, digests and near-duplicate signatures of their documents, file by file.

Files are scanned by several processes where there is enough to read; results come back in the order asked, so the number
of processes changes nothing but the time. Holds one file's results at a time, not its texts.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from picochat.core.machine import usable_cores
from picochat.core.records import digest_file
from picochat.data.documents import file_path, read_source_file
from picochat.data.duplicates import PERMUTATIONS, Signatures, signatures

PARALLEL_BYTES = 50_000_000  # below that, starting processes costs more than it saves
BATCH_TEXT_BYTES = 8_000_000
ScanTask = tuple[str, Path, str, int]


@dataclass(frozen=True)
class FileScan:
    """One file: parallel columns over its usable documents, and (id, reason) of the rows dropped."""

    ids: list[str]
    characters: list[int]
    text_bytes: list[int]
    digests: list[bytes]
    signatures: Signatures
    dropped: list[tuple[str, str]]
    sha256: str


def scan_files(tasks: Sequence[ScanTask], workers: int | None, total_bytes: int) -> Iterator[FileScan]:
    """The scan of each (label, source path, file name, min_chars), in order."""
    processes = min(workers or usable_cores(), len(tasks))
    if processes < 2 or total_bytes < PARALLEL_BYTES:
        yield from (scan_file(task) for task in tasks)
        return
    # Not fork: the caller may hold threads of torch or of the Hub's client.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: deque[Future[FileScan]] = deque()
        for task in tasks:
            waiting.append(pool.submit(scan_file, task))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def scan_file(task: ScanTask) -> FileScan:
    """One file, read once. Ids carry the label of the source."""
    label, source, name, min_chars = task
    scan = FileScan([], [], [], [], np.zeros((0, PERMUTATIONS), np.uint32), [], digest_file(file_path(source, name)))
    parts: list[Signatures] = []
    texts: list[str] = []
    waiting_bytes = 0
    for row in read_source_file(source, name):
        id = f"{label}:{row.id}"
        problem = row.problem or ("below_min_chars" if len(row.text) < min_chars else None)
        if problem is not None:
            scan.dropped.append((id, problem))
            continue
        data = row.text.encode()
        scan.ids.append(id)
        scan.characters.append(len(row.text))
        scan.text_bytes.append(len(data))
        scan.digests.append(xxhash.xxh3_128_digest(data))
        texts.append(row.text)
        waiting_bytes += len(data)
        if waiting_bytes > BATCH_TEXT_BYTES:
            parts.append(signatures(texts))
            texts, waiting_bytes = [], 0
    parts.append(signatures(texts))
    return FileScan(scan.ids, scan.characters, scan.text_bytes, scan.digests, np.concatenate(parts), scan.dropped, scan.sha256)
