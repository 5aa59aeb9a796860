"""SIGINT, SIGTERM and SIGHUP while training: the step ends and is saved first.

A second one acts at once.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType


class LateSignals:
    """While inside, the first signal is noted in `number` and `said` is called; after it the former
    handlers stand again.

    `said` runs in the handler, in the middle of whatever the process does: it must not write to a
    stream.
    """

    def __init__(self, said: Callable[[], None]) -> None:
        self.number: int | None = None
        self._said = said
        self._former: dict[int, object] = {}

    def __enter__(self) -> LateSignals:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup: a terminal that closes is none of our business
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
        self.__exit__()  # first of all: a second signal may come while we speak
        self._said()
