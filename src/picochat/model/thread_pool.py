"""A pool of CPU threads, each of which computes some rows, or some matrices, by itself.

torch's own threads synchronize at the end of every operation, about a hundred times a step. On a
shared machine they wait each time for the slowest. The threads of this pool synchronize once a
step: with eight other processes at work, a step of scale `tiny` took 1.2 s instead of 5.4 s
(docs/decisions/0023). Work is divided and results are joined in order, so results do not depend on
timing. Does not help a GPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

P = TypeVar("P")
R = TypeVar("R")


class ThreadPool:
    """`size` threads. Outside `map`, torch uses `size` threads inside each operation, as usual."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._threads = ThreadPoolExecutor(max_workers=size, thread_name_prefix="pool")

    def map(self, work: Callable[[P], R], parts: Sequence[P]) -> list[R]:
        """`work` of each part, in the order of the parts.

        A single part runs in the calling thread, with all of torch's threads.
        """
        if len(parts) < 2 or self.size < 2:
            return [work(part) for part in parts]
        try:
            return list(self._threads.map(lambda part: _single_threaded(work, part), parts))
        finally:
            torch.set_num_threads(self.size)

    def slices(self, count: int) -> list[slice]:
        """`range(count)` cut into at most `size` slices whose lengths differ by at most one."""
        pieces = min(self.size, count)
        cuts = [count * number // pieces for number in range(pieces + 1)] if pieces else []
        return [slice(start, stop) for start, stop in itertools.pairwise(cuts)]


ONE_THREAD = ThreadPool(1)
"""No pool: the calling thread computes every part."""


def _single_threaded(work: Callable[[P], R], part: P) -> R:
    # Set for each part, not once for each thread: some of this setting belongs to the process, and
    # the end of the last `map` has set it back.
    torch.set_num_threads(1)
    return work(part)
