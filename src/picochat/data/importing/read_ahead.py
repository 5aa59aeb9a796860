"""Visits read ahead of time by several threads and handed on in their order, within a bound of
bytes.

The bound counts the lines that were read and not yet handed on. A visit whose turn it is may always
go on, so nothing waits for itself. Does not know what becomes of the rows.
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

from picochat.data.importing.judged import JudgedRows
from picochat.data.importing.origin_reader import OriginReader
from picochat.data.importing.visits import Plan, Visit

READ_AHEAD_BYTES = 16 << 20
VISITS_A_CONNECTION = (
    3  # in flight: while the oldest is slow, the connections go on with later ones
)


class Position(NamedTuple):
    """How far an import came: the key of a visit and how many of its rows were taken."""

    key: tuple[int, int]
    rows: int


class Part(NamedTuple):
    """Some rows of a visit, in order.

    `stop`: rows of the visit up to their end. `exhausted`: its file has no more; rows None.
    """

    visit: Visit
    stop: int
    rows: JudgedRows | None
    exhausted: bool = False


class _Stopped(Exception):
    """The import is ending; a reading thread gives up."""


@dataclass
class _Flight:
    """A visit that a thread reads: its parts, then None for the end or the error that ended it."""

    visit: Visit
    skip: int
    parts: queue.SimpleQueue[Part | BaseException | None] = field(default_factory=queue.SimpleQueue)
    read: bool = False


class _Room:
    """What may lie between the threads and the caller: READ_AHEAD_BYTES, and always one part of the
    visit whose turn it is.
    """

    def __init__(self) -> None:
        self._held_bytes = 0
        self._turn: _Flight | None = None
        self._stopped = False
        self._changed = threading.Condition()

    def enter(self, flight: _Flight, size: int) -> None:
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

    def give_turn(self, flight: _Flight) -> None:
        with self._changed:
            self._turn = flight
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _fits(self, flight: _Flight, size: int) -> bool:
        return self._held_bytes + size <= READ_AHEAD_BYTES or (
            flight is self._turn and flight.parts.empty()
        )


@contextmanager
def read_in_order(
    reader: OriginReader, plan: Plan, *, connections: int, after: Position | None, rows_wanted: int
) -> Generator[Iterator[Part], None, None]:
    """The rows of the plan's visits after `after`, in order, read ahead by `connections` threads.

    rows_wanted: how many rows the caller still takes, so that counted rows are not fetched in vain.
    """
    pool = ThreadPoolExecutor(max_workers=connections, thread_name_prefix="import")
    footer_pool = ThreadPoolExecutor(max_workers=connections, thread_name_prefix="footers")
    room = _Room()
    try:
        reader.fetch_early(plan.files_surely_visited(), footer_pool)
        yield _parts(_ReadAhead(reader, plan, pool, connections, after, rows_wanted, room))
    finally:
        room.stop()
        reader.origin.stop()
        for each in (footer_pool, pool):
            each.shutdown(wait=True, cancel_futures=True)
        reader.close()


class _ReadAhead:
    """The visits in flight, oldest first."""

    def __init__(
        self,
        reader: OriginReader,
        plan: Plan,
        pool: ThreadPoolExecutor,
        connections: int,
        after: Position | None,
        rows_wanted: int,
        room: _Room,
    ) -> None:
        self.plan, self.room, self.in_flight = plan, room, deque[_Flight]()
        self.rows_coming = 0
        self._reader, self._pool, self._most_visits, self._after = (
            reader,
            pool,
            VISITS_A_CONNECTION * connections,
            after,
        )
        self.rows_wanted = rows_wanted
        self._visits = plan.visits(reader.row_counts)
        self._waiting: Visit | None = None

    def fill(self) -> None:
        """Begin as many visits as there are connections for."""
        while len(self.in_flight) < self._most_visits and self.rows_coming < self.rows_wanted:
            visit = self._waiting = self._waiting or next(self._visits, None)
            if visit is None:
                return
            if (
                self._after is not None and visit.key < self._after.key
            ) or visit.file in self.plan.exhausted:
                self._waiting = None
                continue
            if any(
                not each.read and (each.visit.file, each.visit.group) == (visit.file, visit.group)
                for each in self.in_flight
            ):
                return  # its reader is in use: one row group is read by one thread at a time
            skip = (
                self._after.rows if self._after is not None and visit.key == self._after.key else 0
            )
            flight = _Flight(visit, skip)
            self.in_flight.append(flight)
            self.rows_coming += visit.rows - skip
            self._pool.submit(self._read, flight)
            self._waiting = None

    def _read(self, flight: _Flight) -> None:
        stop = flight.skip
        parts = self._reader.read(flight.visit, flight.skip)
        try:
            while True:
                try:
                    rows = next(parts)
                except StopIteration as end:
                    flight.read = True
                    if end.value:
                        self.plan.exhausted.add(flight.visit.file)
                        flight.parts.put(Part(flight.visit, stop, None, exhausted=True))
                    flight.parts.put(None)
                    return
                stop += len(rows)
                self.room.enter(flight, rows.line_bytes())
                flight.parts.put(Part(flight.visit, stop, rows))
        except BaseException as error:
            parts.close()
            flight.parts.put(error)


def _parts(ahead: _ReadAhead) -> Iterator[Part]:
    ahead.fill()
    while ahead.in_flight:
        flight = ahead.in_flight[0]
        ahead.room.give_turn(flight)
        missing = flight.visit.rows - flight.skip
        while (part := flight.parts.get()) is not None:
            if isinstance(part, BaseException):
                raise part
            if part.rows is not None:
                missing -= len(part.rows)
                ahead.room.leave(part.rows.line_bytes())
            ahead.fill()
            yield part
        ahead.in_flight.popleft()
        ahead.rows_coming -= missing
        ahead.fill()
