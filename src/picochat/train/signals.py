"""SIGINT, SIGTERM and SIGHUP while training: the step ends and is saved, then the run stops."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DeferredSignals:
    """Inside, the first signal is kept in `number` and `on_signal` is called; a second one acts.

    on_signal: runs in the handler, in the middle of whatever the process does, so it must not write
    to a stream.
    """

    def __init__(self, on_signal: Callable[[], None]) -> None:
        self.number: int | None = None
        self._on_signal = on_signal
        self._former: dict[int, object] = {}

    def __enter__(self) -> DeferredSignals:
        for number in STOP_SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup: training goes on when the terminal closes
            try:
                self._former[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: whoever runs us there handles signals
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self.__exit__()  # before anything else: a second signal may come during `on_signal`
        self._on_signal()


@contextmanager
def signals_ignored() -> Generator[None, None, None]:
    """Inside, these signals do nothing: a worker ends with the main process, after it has saved."""
    former = {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
