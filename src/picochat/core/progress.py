"""Progress for long work: what is done, at which rate, how long it will still take.

On a terminal one line is rewritten in place; elsewhere (a pipe into `tee`) plain lines appear, the
first within a second and then every few seconds. Everything goes to stderr: stdout is for data.
Knows nothing about what is being done.
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
    """One line to stderr, in the place of a progress line that is being rewritten there."""
    print(f"{CLEAR_LINE if animated(sys.stderr) else ''}{message}", file=sys.stderr, flush=True)


def say_in_handler(message: str) -> None:
    """The same from a signal handler, written to the file descriptor.

    The stream may be in the middle of a write, and would refuse a second one.
    """
    with suppress(OSError):  # nobody reads any more
        os.write(STDERR, f"{CLEAR_LINE if animated(sys.stderr) else ''}{message}\n".encode())


def animated(stream: TextIO) -> bool:
    """Whether a line may be rewritten in place.

    It may on a real terminal where the environment does not ask for plain output.
    """
    unanimated = os.environ.get("TERM") == "dumb" or "CI" in os.environ
    return stream.isatty() and not unanimated


class Progress:
    """Counts units of work against an optional total.

    Use as a context manager; call `advance`. own_pace: show the mean rate and the time left by it;
    False where the note says both.
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
        """Work that an earlier process did: shown as done, not counted in the rate."""
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
            # A line that wraps could not be rewritten in place.
            line = line[: shutil.get_terminal_size().columns - 1]
            self._stream.write("\r" + line.ljust(self._width) + ("\n" if final else ""))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def _line(self, final: bool) -> str:
        elapsed = self.elapsed_s()
        rate = (self.done - self._counted_from) / elapsed if elapsed > 0.05 else 0.0
        parts = [f"{self.label}: {quantity(self.done)}"]
        if self.total:
            parts[0] += f"/{quantity(self.total)} {self.unit} {100 * self.done / self.total:.0f}%"
        else:
            parts[0] += f" {self.unit}"
        if rate and self.own_pace:
            parts.append(f"{quantity(rate)} {self.unit}/s")
        if final:
            parts.append(f"took {duration(elapsed)}")
        elif self.total and rate and self.own_pace:
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
    """The items, with progress: each counts 1, or what `size` says."""
    with Progress(label, total, unit) as progress:
        for item in items:
            yield item
            progress.advance(size(item) if size else 1)
