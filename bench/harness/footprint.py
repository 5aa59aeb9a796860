"""What a command costs: wall time, processor time and memory of all its processes. Linux only.

The command runs below a keeper (this file, run as a script) that the kernel hands every orphan to,
so that the processor time of helpers which outlive their parent (a fork server, a pool) is counted
as well. Memory is sampled from /proc several times a second: the sum of PSS over the tree counts a
page that two processes share once; the sum of RSS counts it twice. A peak between two samples is
missed; `largest_process_mb` is the kernel's own mark of the largest single process, which misses
nothing.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

SAMPLE_EVERY_S = 0.1
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Footprint:
    """cpu_s: user and system time of all processes. Memory in MB of 10^6 bytes."""

    wall_s: float
    cpu_s: float
    peak_pss_mb: float
    peak_rss_mb: float
    largest_process_mb: float
    returncode: int


def measure(command: list[str], env: dict[str, str] | None = None, *, log: Path) -> Footprint:
    """Runs the command and says what it cost. Its output goes to `log`."""
    with log.open("wb") as stream, tempfile.NamedTemporaryFile("r") as answer:
        keeper = [sys.executable, __file__, answer.name, *command]
        process = subprocess.Popen(
            keeper, env={**os.environ, **(env or {})}, stdout=stream, stderr=stream
        )
        sampler = _Sampler(process.pid)
        sampler.start()
        process.wait()
        sampler.stop()
        kept = json.load(answer)
    return Footprint(peak_pss_mb=sampler.peak_pss_mb, peak_rss_mb=sampler.peak_rss_mb, **kept)


class _Sampler(threading.Thread):
    """The largest sums of memory over the descendants of a process, itself left out."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak_pss_mb = self.peak_rss_mb = 0.0
        self._pid, self._ended = pid, threading.Event()

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            found = [memory_mb(pid) for pid in process_tree(self._pid)[1:]]
            self.peak_pss_mb = max(self.peak_pss_mb, sum(pss for pss, _ in found))
            self.peak_rss_mb = max(self.peak_rss_mb, sum(rss for _, rss in found))

    def stop(self) -> None:
        self._ended.set()
        self.join()


def process_tree(pid: int) -> list[int]:
    """The process and all its descendants that live now."""
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        try:
            for task in Path(f"/proc/{current}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
    return found


def memory_mb(pid: int) -> tuple[float, float]:
    """(PSS, RSS) of one process; zeros where it has ended."""
    kilobytes = {"Pss": 0, "Rss": 0}
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in kilobytes:
                kilobytes[name] = int(rest.split()[0])
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0.0, 0.0
    return kilobytes["Pss"] * 1024 / 1e6, kilobytes["Rss"] * 1024 / 1e6


def keep(answer: Path, command: list[str]) -> None:
    """Run the command, wait for it and for every orphan that it leaves, and write their cost."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    started = time.monotonic()
    returncode = subprocess.run(command, check=False).returncode
    wall_s = time.monotonic() - started
    try:
        while True:
            os.wait()
    except ChildProcessError:
        pass  # nobody is left
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = {"wall_s": wall_s, "cpu_s": usage.ru_utime + usage.ru_stime, "returncode": returncode}
    answer.write_text(json.dumps({**cost, "largest_process_mb": usage.ru_maxrss * 1024 / 1e6}))


if __name__ == "__main__":
    keep(Path(sys.argv[1]), sys.argv[2:])
