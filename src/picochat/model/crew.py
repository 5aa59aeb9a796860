"""A processor's cores as a crew: each takes some rows, or some matrices, and computes them alone in
a thread of its own.

Threads inside one operation meet at its end, hundreds of times a step; on a machine that others use
too, all wait each time for the one that was held up. A crew meets once. Results do not depend on
who was faster: parts are cut and joined in order. Does not help a GPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

P = TypeVar("P")
R = TypeVar("R")


class Crew:
    """`size` threads. Outside `map`, operations use all of them as usual."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._threads = ThreadPoolExecutor(max_workers=size, thread_name_prefix="crew")

    def map(self, work: Callable[[P], R], parts: Sequence[P]) -> list[R]:
        """`work` of each part, in order.

        A single part is worked on here, with all threads inside its operations.
        """
        if len(parts) < 2 or self.size < 2:
            return [work(part) for part in parts]
        try:
            return list(self._threads.map(lambda part: _alone(work, part), parts))
        finally:
            torch.set_num_threads(self.size)

    def shares(self, count: int) -> list[slice]:
        """`count` things cut into at most `size` runs of neighbours, whose lengths differ by at
        most one.
        """
        shares = min(self.size, count)
        cuts = [count * number // shares for number in range(shares + 1)] if shares else []
        return [slice(start, stop) for start, stop in itertools.pairwise(cuts)]


NO_CREW = Crew(1)
"""No crew: every part is worked on where `map` is called."""


def _alone(work: Callable[[P], R], part: P) -> R:
    # Once per call and not per thread: a part of this setting belongs to the process, and was set
    # for all threads meanwhile.
    torch.set_num_threads(1)
    return work(part)
