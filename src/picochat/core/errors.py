"""Every error that picochat raises on purpose, and the exit code that each one becomes.

    PicochatError            1   the base class; never raised itself
    |-- HostProblem          1   the machine refused: disk full, out of memory
    |-- WrongUsage           2   flags that contradict, a scale that does not exist, a folder in use
    |-- CheckFailed          3   preflight, gate, verification or export refused, with reasons
    |-- BadInput             4   a file, a pack or a checkpoint that cannot be used
    `-- HubProblem           5   the network or the Hub
    Interrupted        129...    SIGHUP 129, SIGINT 130, SIGTERM 143, after the work was saved

Library code raises; only `cli/` prints and exits. An error lists every problem that was found, not
only the first. Each problem can have a remedy: a command to paste or a sentence that says what to
do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """What is wrong, with the value that was found, and what fixes it."""

    what: str
    fix: str | None = None


class PicochatError(Exception):
    """An error that picochat foresaw. The command line exits with `exit_code`."""

    exit_code = 1

    def __init__(
        self, what: str, *, fix: str | None = None, problems: Iterable[Problem] = ()
    ) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.problems = tuple(problems)

    def lines(self) -> list[str]:
        """The message as it is printed: `what`, each problem, then the remedy."""
        lines = [f"{self.what} (exit {self.exit_code})"]
        for problem in self.problems:
            lines.append(f"    {problem.what}")
            if problem.fix:
                lines.append(f"        fix: {problem.fix}")
        return [*lines, *([f"fix: {self.fix}"] if self.fix else [])]

    def without_fix(self) -> str:
        """What is wrong, with every problem, in one line."""
        return "; ".join([self.what, *(problem.what for problem in self.problems)])

    def in_one_line(self) -> str:
        """The message without its exit code, for a place that has one line for it."""
        parts = [self.what]
        for problem in (*self.problems, Problem("", self.fix)):
            parts += [problem.what, f"fix: {problem.fix}" if problem.fix else ""]
        return "; ".join(part for part in parts if part)


class HostProblem(PicochatError):
    exit_code = 1


class WrongUsage(PicochatError):
    exit_code = 2


class CheckFailed(PicochatError):
    exit_code = 3


class BadInput(PicochatError):
    exit_code = 4


class HubProblem(PicochatError):
    exit_code = 5


class Interrupted(BaseException):
    """A signal stopped the work after it was saved. The exit code is 128 + the signal number.

    Neither a PicochatError nor an Exception, as KeyboardInterrupt is none: code that reports an
    error and goes on must not go on after a signal.
    """

    def __init__(self, signal_number: int, what: str, *, fix: str) -> None:
        super().__init__(what)
        self.exit_code = 128 + signal_number
        self.what, self.fix = what, fix

    def lines(self) -> list[str]:
        """The message as it is printed: `what`, then the remedy."""
        return [f"{self.what} (exit {self.exit_code})", f"fix: {self.fix}"]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`, did you mean X?` if a known word is similar, else an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean {close[0]}?" if close else ""
