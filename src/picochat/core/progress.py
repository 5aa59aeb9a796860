"""Progress of long work: how much is done, at which rate, and the time left.

On a terminal one line is rewritten in place. Elsewhere, such as in a pipe into `tee`, a plain line
appears every few seconds. Everything goes to stderr, because stdout is for data.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TextIO, TypeVar

from picochat.present.values import duration, quantity

T = TypeVar("T")
PLAIN_LINE_EVERY_S = 5.0
REDRAW_EVERY_S = 0.2
CLEAR_LINE = "\r\x1b[K"
STDERR = 2


def say(message: str) -> None:
    """Print a line to stderr. It replaces a progress line that is shown there."""
    print(f"{CLEAR_LINE if animated(sys.stderr) else ''}{message}", file=sys.stderr, flush=True)


def say_in_handler(message: str) -> None:
    """As `say`, for a signal handler.

    It writes to the file descriptor: the stream may be in the middle of a write, and a second
    write then raises RuntimeError.
    """
    with suppress(OSError):  # the reader of stderr is gone
        os.write(STDERR, f"{CLEAR_LINE if animated(sys.stderr) else ''}{message}\n".encode())


def animated(stream: TextIO) -> bool:
    """Whether a line may be rewritten in place: on a terminal that is not dumb, outside CI."""
    return stream.isatty() and os.environ.get("TERM") != "dumb" and "CI" not in os.environ


class Progress:
    """Counts units of work against an optional total.

    Use it as a context manager and call `advance`. own_pace: show the mean rate and the time left;
    False if the note has both.
    """

    def __init__(
        self,
        label: str,
        total: float | None,
        unit: str,
        *,
        stream: TextIO | None = None,
        quiet: bool = False,
        own_pace: bool = True,
    ) -> None:
        self.label, self.total, self.unit, self.own_pace = label, total, unit, own_pace
        self.done = 0.0
        self.note = ""
        self._stream = stream or sys.stderr
        self._animated = animated(self._stream)
        self._started = time.monotonic()
        self._counted_from = 0.0
        self._last_line = -1e9
        self._width = 0
        self._quiet = quiet

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._show(final=True)
        elif self._animated:
            self._stream.write("\n")

    def start_at(self, done: float) -> None:
        """Show work of an earlier process as done, without counting it in the rate."""
        self.done = self._counted_from = done

    def advance(self, units: float = 1, note: str | None = None) -> None:
        self.done += units
        if note is not None:
            self.note = note
        pause = REDRAW_EVERY_S if self._animated else PLAIN_LINE_EVERY_S
        if time.monotonic() - self._last_line >= pause:
            self._show(final=False)

    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def _show(self, *, final: bool) -> None:
        if self._quiet:
            return
        self._last_line = time.monotonic()
        line = self._line(final)
        if self._animated:
            # "\r" returns to the start of the last screen line only, so the line must not wrap.
            line = line[: shutil.get_terminal_size().columns - 1]
            self._stream.write("\r" + line.ljust(self._width) + ("\n" if final else ""))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def _line(self, final: bool) -> str:
        elapsed = self.elapsed_s()
        rate = (self.done - self._counted_from) / elapsed if elapsed > 0.05 else 0.0
        done = f"{self.label}: {quantity(self.done)}"
        # A total may be an estimate. Once it is passed, a percentage and a time left mean nothing.
        passed = self.total is not None and self.done > 1.005 * self.total  # more than 100%
        if self.total and not passed:
            done += f"/{quantity(self.total)} {self.unit} {100 * self.done / self.total:.0f}%"
        else:
            done += f" {self.unit}" + (f", {quantity(self.total)} expected" if self.total else "")
        parts = [done]
        if rate and self.own_pace:
            parts.append(f"{quantity(rate)} {self.unit}/s")
        if final:
            parts.append(f"took {duration(elapsed)}")
        elif self.total and not passed and rate and self.own_pace:
            parts.append(f"{duration((self.total - self.done) / rate)} left")
        if self.note:
            parts.append(self.note)
        return " | ".join(parts)


def track(
    items: Iterable[T],
    label: str,
    total: float | None,
    unit: str,
    size: Callable[[T], float] | None = None,
) -> Iterator[T]:
    """Yield the items and show progress. Each item counts `size(item)` units, by default 1."""
    with Progress(label, total, unit) as progress:
        for item in items:
            yield item
            progress.advance(size(item) if size else 1)
