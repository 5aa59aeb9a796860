"""A pool of CPU threads, of which each computes some rows, or some matrices, alone.

Threads inside one operation meet at its end, hundreds of times a step. On a machine that others use
too, all of them wait each time for the one that was held up. The pool's threads meet once a step.
Results do not depend on which thread was faster: work is cut, and results are joined, in order.
docs/decisions/0023 has the figures. Does not help a GPU.
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
    """`size` threads. Outside `map`, torch's operations use all of them as usual."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._threads = ThreadPoolExecutor(max_workers=size, thread_name_prefix="pool")

    def map(self, work: Callable[[P], R], parts: Sequence[P]) -> list[R]:
        """`work` of each part, in the order of the parts.

        A single part is computed by the caller, with all threads inside its operations.
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
"""No pool: every part is computed where `map` is called."""


def _single_threaded(work: Callable[[P], R], part: P) -> R:
    # Set for each part, not once for each thread: a part of this setting belongs to the process,
    # and `map` has set that one for all threads since the last call.
    torch.set_num_threads(1)
    return work(part)
