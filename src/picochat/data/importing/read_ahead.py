"""Reads slices ahead with several threads and yields their rows in the order of the plan.

Memory is bounded: at most about READ_AHEAD_BYTES of lines wait for the caller. The order of rows
does not depend on the number of threads.
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
# Slices in flight. More than one, so that connections are not idle while the oldest slice is slow.
SLICES_A_CONNECTION = 3


class Position(NamedTuple):
    """How far an import is: the key of a slice, and how many of its rows were taken."""

    key: tuple[int, int]
    rows: int


class Part(NamedTuple):
    """Consecutive rows of a slice, or the message that its file is exhausted (rows is None).

    stop: the position in the slice after these rows.
    """

    slice: Slice
    stop: int
    rows: FilteredRows | None
    exhausted: bool = False


class _Stopped(Exception):
    """Ends a reading thread when the import ends."""


@dataclass
class _InFlight:
    """A slice that a thread reads.

    skip: rows of it that an earlier process took. parts: its parts, then None, or the error that
    ended it. read: whether the thread is done with the row group.
    """

    slice: Slice
    skip: int
    parts: queue.SimpleQueue[Part | BaseException | None] = field(default_factory=queue.SimpleQueue)
    read: bool = False


class _ByteBudget:
    """Blocks reading threads while READ_AHEAD_BYTES of lines wait for the caller.

    One part of the slice that the caller waits for always passes. Otherwise later slices could fill
    the budget, and the import would wait for ever.
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
    """The parts of the plan's slices after `after`, in order, read ahead by `connections` threads.

    rows_wanted: rows that the caller will take; no further slices are started beyond them. Raises
    the error of a slice when its turn comes.
    """
    pool = ThreadPoolExecutor(max_workers=connections, thread_name_prefix="import")
    # Footers have their own threads. Planning needs them early, and in the other pool they would
    # wait behind slices that are being read.
    footer_pool = ThreadPoolExecutor(max_workers=connections, thread_name_prefix="footers")
    ahead = _ReadAhead(reader, plan, pool, connections, after, rows_wanted)
    try:
        reader.fetch_early(plan.files_surely_read(), footer_pool)
        yield ahead.parts()
    finally:
        # The order matters: threads that wait for the budget or the Hub must wake up before the
        # pools are joined, and streams may be closed only when no thread reads from them.
        ahead.budget.stop()
        reader.source.stop()
        for each in (footer_pool, pool):
            each.shutdown(wait=True, cancel_futures=True)
        reader.close()


class _ReadAhead:
    """Starts slices in order and hands on their parts, oldest slice first."""

    def __init__(
        self,
        reader: SliceReader,
        plan: SlicePlan,
        pool: ThreadPoolExecutor,
        connections: int,
        after: Position | None,
        rows_wanted: int,
    ) -> None:
        self.budget = _ByteBudget()
        self._in_flight = deque[_InFlight]()
        self._rows_wanted, self._rows_coming = rows_wanted, 0
        self._reader, self._plan, self._pool = reader, plan, pool
        self._after = after or Position((-1, -1), 0)
        self._most_slices = SLICES_A_CONNECTION * connections
        self._slices = plan.slices(reader.row_counts)
        self._waiting: Slice | None = None

    def parts(self) -> Iterator[Part]:
        self._fill()
        while self._in_flight:
            flight = self._in_flight[0]
            self.budget.give_turn(flight)
            missing = flight.slice.rows - flight.skip
            while (part := flight.parts.get()) is not None:
                if isinstance(part, BaseException):
                    raise part
                if part.rows is not None:
                    missing -= len(part.rows)
                    self.budget.leave(part.rows.line_bytes())
                self._fill()
                yield part
            self._in_flight.popleft()
            # The last slice of a file without row counts may hold fewer rows than planned.
            self._rows_coming -= missing
            self._fill()

    def _fill(self) -> None:
        """Start slices until enough are in flight."""
        while len(self._in_flight) < self._most_slices and self._rows_coming < self._rows_wanted:
            slice = self._waiting = self._waiting or next(self._slices, None)
            if slice is None:
                return
            if slice.key < self._after.key or slice.file in self._plan.exhausted:
                self._waiting = None
                continue
            # One thread reads a row group at a time. The next slice then continues on the open
            # stream, instead of reading the group from its start again.
            if any(
                not each.read and (each.slice.file, each.slice.group) == (slice.file, slice.group)
                for each in self._in_flight
            ):
                return
            flight = _InFlight(slice, self._after.rows if slice.key == self._after.key else 0)
            self._in_flight.append(flight)
            self._rows_coming += slice.rows - flight.skip
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
                        self._plan.exhausted.add(flight.slice.file)
                        flight.parts.put(Part(flight.slice, stop, None, exhausted=True))
                    flight.parts.put(None)
                    return
                stop += len(rows)
                self.budget.enter(flight, rows.line_bytes())
                flight.parts.put(Part(flight.slice, stop, rows))
        except BaseException as error:  # `parts` raises it when this slice's turn comes
            parts.close()
            flight.parts.put(error)
