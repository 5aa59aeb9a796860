"""Slices read ahead of time by several threads and handed on in their order.

Memory is bounded: READ_AHEAD_BYTES of lines may be read and not yet handed on. The order of rows
does not depend on the number of threads. Does not know what becomes of the rows.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from picochat.data.importing.slices import FilteredRows, Slice, SlicePlan, SliceReader

READ_AHEAD_BYTES = 16 << 20
# In flight: while the oldest slice is slow, the other connections go on with later ones.
SLICES_A_CONNECTION = 3


class Position(NamedTuple):
    """How far an import came: the key of a slice and how many of its rows were taken."""

    key: tuple[int, int]
    rows: int


class Part(NamedTuple):
    """Some rows of a slice, in order.

    stop: rows of the slice up to their end. exhausted: the slice's file has no more; rows is None.
    """

    slice: Slice
    stop: int
    rows: FilteredRows | None
    exhausted: bool = False


class _Stopped(Exception):
    """The import is ending; a reading thread gives up."""


@dataclass
class _InFlight:
    """A slice that a thread reads: its parts, then None for the end, or the error that ended it."""

    slice: Slice
    skip: int
    parts: queue.SimpleQueue[Part | BaseException | None] = field(default_factory=queue.SimpleQueue)
    read: bool = False


class _ByteBudget:
    """Holds threads back while READ_AHEAD_BYTES of lines wait to be handed on.

    One part of the slice whose turn it is always passes. Without this rule the import would stop
    for ever where later slices fill the budget and the caller waits for the oldest one.
    """

    def __init__(self) -> None:
        self._held_bytes = 0
        self._turn: _InFlight | None = None
        self._stopped = False
        self._changed = threading.Condition()

    def enter(self, flight: _InFlight, size: int) -> None:
        with self._changed:
            while not (self._stopped or self._fits(flight, size)):
                self._changed.wait()
            if self._stopped:
                raise _Stopped
            self._held_bytes += size

    def leave(self, size: int) -> None:
        with self._changed:
            self._held_bytes -= size
            self._changed.notify_all()

    def give_turn(self, flight: _InFlight) -> None:
        with self._changed:
            self._turn = flight
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _fits(self, flight: _InFlight, size: int) -> bool:
        its_turn = flight is self._turn and flight.parts.empty()
        return self._held_bytes + size <= READ_AHEAD_BYTES or its_turn


@contextmanager
def read_in_order(
    reader: SliceReader,
    plan: SlicePlan,
    *,
    connections: int,
    after: Position | None,
    rows_wanted: int,
) -> Generator[Iterator[Part], None, None]:
    """The rows of the plan's slices after `after`, in order, read ahead by `connections` threads.

    rows_wanted: how many rows the caller still takes, so that no counted row is fetched in vain.
    """
    pool = ThreadPoolExecutor(max_workers=connections, thread_name_prefix="import")
    # Footers have threads of their own: the first slices need them before they can be planned, and
    # would otherwise queue behind slices that are being read.
    footer_pool = ThreadPoolExecutor(max_workers=connections, thread_name_prefix="footers")
    budget = _ByteBudget()
    try:
        reader.fetch_early(plan.files_surely_read(), footer_pool)
        yield _parts(_ReadAhead(reader, plan, pool, connections, after, rows_wanted, budget))
    finally:
        # The order matters: threads that wait for room or for the Hub must wake up before the pools
        # are joined, and streams are closed when no thread reads from them.
        budget.stop()
        reader.source.stop()
        for each in (footer_pool, pool):
            each.shutdown(wait=True, cancel_futures=True)
        reader.close()


class _ReadAhead:
    """The slices in flight, oldest first."""

    def __init__(
        self,
        reader: SliceReader,
        plan: SlicePlan,
        pool: ThreadPoolExecutor,
        connections: int,
        after: Position | None,
        rows_wanted: int,
        budget: _ByteBudget,
    ) -> None:
        self.plan, self.budget, self.in_flight = plan, budget, deque[_InFlight]()
        self.rows_wanted, self.rows_coming = rows_wanted, 0
        self._reader, self._pool, self._after = reader, pool, after
        self._most_slices = SLICES_A_CONNECTION * connections
        self._slices = plan.slices(reader.row_counts)
        self._waiting: Slice | None = None

    def fill(self) -> None:
        """Begin as many slices as there are connections for."""
        after = self._after
        while len(self.in_flight) < self._most_slices and self.rows_coming < self.rows_wanted:
            slice = self._waiting = self._waiting or next(self._slices, None)
            if slice is None:
                return
            taken_before = after is not None and slice.key < after.key
            if taken_before or slice.file in self.plan.exhausted:
                self._waiting = None
                continue
            # One row group is read by one thread at a time: the next slice goes on where the stream
            # of the one before ended, instead of reading the group from its start again.
            if any(
                not each.read and (each.slice.file, each.slice.group) == (slice.file, slice.group)
                for each in self.in_flight
            ):
                return
            skip = after.rows if after is not None and slice.key == after.key else 0
            flight = _InFlight(slice, skip)
            self.in_flight.append(flight)
            self.rows_coming += slice.rows - skip
            self._pool.submit(self._read, flight)
            self._waiting = None

    def _read(self, flight: _InFlight) -> None:
        stop = flight.skip
        parts = self._reader.read(flight.slice, flight.skip)
        try:
            while True:
                try:
                    rows = next(parts)
                except StopIteration as end:
                    flight.read = True
                    if end.value:
                        self.plan.exhausted.add(flight.slice.file)
                        flight.parts.put(Part(flight.slice, stop, None, exhausted=True))
                    flight.parts.put(None)
                    return
                stop += len(rows)
                self.budget.enter(flight, rows.line_bytes())
                flight.parts.put(Part(flight.slice, stop, rows))
        except BaseException as error:  # raised again by the caller, when it is this slice's turn
            parts.close()
            flight.parts.put(error)


def _parts(ahead: _ReadAhead) -> Iterator[Part]:
    ahead.fill()
    while ahead.in_flight:
        flight = ahead.in_flight[0]
        ahead.budget.give_turn(flight)
        missing = flight.slice.rows - flight.skip
        while (part := flight.parts.get()) is not None:
            if isinstance(part, BaseException):
                raise part
            if part.rows is not None:
                missing -= len(part.rows)
                ahead.budget.leave(part.rows.line_bytes())
            ahead.fill()
            yield part
        ahead.in_flight.popleft()
        # A slice may hold fewer rows than planned, at the end of a file without row counts.
        ahead.rows_coming -= missing
        ahead.fill()
