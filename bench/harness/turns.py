"""Programs that are timed step by step and take turns on the same cores: A B C, A B C.

Each program is a process of its own that says when each of its steps begins. While one runs, all
others are stopped by signal, so that a machine which is slow for a minute is slow for all of them.
A step counts where it began and ended within one turn; what lies across a turn's edge is left out.
Promises nothing about caches: the first step after a stop is slower, which is why turns have
several steps and medians are read. POSIX only; times are CLOCK_MONOTONIC, one clock for all.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

LONGEST_SILENCE_S = 900.0


class StepReporter:
    """The program's end of the pipe: one JSON object a line."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def step_begins(self) -> None:
        self.say(at_s=time.monotonic())

    def say(self, **facts: object) -> None:
        if self._descriptor is not None:
            os.write(self._descriptor, json.dumps(facts).encode() + b"\n")


class Runner:
    """The parent's end: a program with a session of its own, stopped until it is its turn.

    `facts`: all it said but steps.
    """

    def __init__(self, name: str, command: list[str], env: dict[str, str], log: Path) -> None:
        self.name, self.log = name, log
        self.facts: dict[str, Any] = {}
        self._unread = b""
        self._reading, writing = os.pipe()
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [*command, str(writing)],
                env={**os.environ, **env},
                stdout=stream,
                stderr=stream,
                pass_fds=(writing,),
                start_new_session=True,
            )
        os.close(writing)

    def turn(self, steps: int) -> list[float]:
        """Seconds of `steps` whole steps.

        The program is stopped before this returns. Ends the benchmark where it dies.
        """
        started = time.monotonic()
        self._signal(signal.SIGCONT)
        stamps: list[float] = []
        while len(stamps) < steps + 1:
            stamps += [at for at in self._next_stamps() if at >= started]
        self._signal(signal.SIGSTOP)
        stamps = stamps[: steps + 1]
        return [end - begin for begin, end in itertools.pairwise(stamps)]

    def finish(self) -> dict[str, Any]:
        """Let it run to its own end, and return what it said."""
        self._signal(signal.SIGCONT)
        while self._next_stamps(may_end=True):
            pass
        if self._process.wait():
            raise SystemExit(self._failure())
        return self.facts

    def peak_rss_mb(self) -> float:
        """The kernel's mark of the process, helpers (compilers) left out, in MB of 10^6 bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        kilobytes = next(
            line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")
        )
        return int(kilobytes) * 1024 / 1e6

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()
        os.close(self._reading)

    def _next_stamps(self, *, may_end: bool = False) -> list[float]:
        """Blocks until the program speaks; [] where it ended and may."""
        while True:
            ready, _, _ = select.select([self._reading], [], [], LONGEST_SILENCE_S)
            if not ready:
                raise SystemExit(
                    f"{self.name} has been silent for {LONGEST_SILENCE_S:.0f} s: {self.log}"
                )
            data = os.read(self._reading, 65_536)
            if not data and may_end:
                return []
            if not data:
                self._process.wait()
                raise SystemExit(self._failure())
            *lines, self._unread = (self._unread + data).split(b"\n")
            said = [json.loads(line) for line in lines]
            for facts in said:
                self.facts |= {key: value for key, value in facts.items() if key != "at_s"}
            if stamps := [facts["at_s"] for facts in said if "at_s" in facts]:
                return stamps

    def _failure(self) -> str:
        tail = self.log.read_text(errors="replace").splitlines()[-15:]
        return "\n".join([f"{self.name} ended too early (exit {self._process.returncode}):", *tail])

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return  # it has ended, which the pipe tells
