"""Where the figures of training also go, on request: TensorBoard's files, trackio, wandb. By
default nothing leaves the machine.

Promises: a tracker gets what metrics.jsonl holds and no more, each step once, also over kills and
resumes; it is opened with the first figures; one that fails is warned of once and dropped, and
training goes on. What is missing for one that was asked for is said before any work starts. After a
rollback, steps that are taken again are not sent again: metrics.jsonl has them. Does not import
torch.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from picochat.config import Tracker
from picochat.core.errors import Problem, WrongUsage
from picochat.core.journal import Journal, read_journal
from picochat.core.progress import say
from picochat.train.event_file import EventFile

PROJECT = "picochat"
TRACKED = (
    "loss",
    "grad_norm",
    "muon_lr",
    "adamw_lr",
    "tokens_per_second",
    "mfu",
    "peak_memory_bytes",
    "data_wait_share",
    "usd_spent",
    "held_out_loss",
    "held_out_bits_per_byte",
    "spikes",
)
"""Fields of rundir.MetricsRow that a tracker is given, under these names."""


@dataclass(frozen=True)
class Series:
    """One training of one stage, as trackers know it.

    `folder`: where its local files go. `name`: stays over resumes.
    """

    folder: Path
    run: str
    name: str


class Sink(Protocol):
    """An open tracker."""

    def write(self, step: int, values: Mapping[str, float], now: float) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class SinkKind:
    """One row. `package`: what has to be installed, named like the extra; None: nothing."""

    name: Tracker
    package: str | None
    open: Callable[[Series], Sink]


def open_tensorboard(series: Series) -> Sink:
    """Files for `tensorboard --logdir RUN/track/tensorboard`, one folder a series."""
    return EventFile(series.folder / series.name / "events.out.tfevents.picochat", time.time())


class _Trackio:
    def __init__(self, series: Series) -> None:
        # trackio reads the variable when it is imported; somebody who set it has said where.
        os.environ.setdefault("TRACKIO_DIR", str(series.folder.resolve()))
        with contextlib.redirect_stdout(sys.stderr):
            import trackio  # pyright: ignore[reportMissingImports]

            self._trackio: Any = trackio
            self._run: Any = trackio.init(
                project=PROJECT, name=f"{series.run}-{series.name}", resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False
            )  # fmt: skip

    def write(self, step: int, values: Mapping[str, float], now: float) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._trackio.finish()  # and not the run's own: the package would finish it once more at exit


class _Wandb:
    def __init__(self, series: Series) -> None:
        mode = os.environ.get("WANDB_MODE", "offline")
        # Its own error reports would go out in any mode.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb  # pyright: ignore[reportMissingImports]

        series.folder.mkdir(parents=True, exist_ok=True)
        name = f"{series.run}-{series.name}"
        # What wandb would send by itself: code, commit, command line, host, packages, the console,
        # the machine's load.
        private = wandb.Settings(
            console="off", silent=True, disable_git=True, disable_code=True, save_code=False, host="", program="",
            x_disable_meta=True, x_disable_stats=True, x_disable_machine_info=True, x_save_requirements=False,
        )  # fmt: skip
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), name=name, id=_identifier(name), mode=mode,
            dir=series.folder, resume=None if mode == "offline" else "allow", settings=private,
        )  # fmt: skip

    def write(self, step: int, values: Mapping[str, float], now: float) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def _identifier(name: str) -> str:
    """The name in the characters that wandb takes."""
    return "".join(
        char if char.isascii() and (char.isalnum() or char in "-_.") else "-" for char in name
    )[-64:]


SINKS: tuple[SinkKind, ...] = (
    SinkKind("tensorboard", None, open_tensorboard),
    SinkKind("trackio", "trackio", _Trackio),
    SinkKind("wandb", "wandb", _Wandb),
)


def check_trackers(names: tuple[Tracker, ...] | None, sinks: tuple[SinkKind, ...] = SINKS) -> None:
    """Raises WrongUsage that names every package which is missing for `names`, and how to install
    it.
    """
    missing = [
        s
        for s in sinks
        if s.name in (names or ()) and s.package and importlib.util.find_spec(s.package) is None
    ]
    problems = [
        Problem(f"--track {s.name}: the package {s.package} is not installed") for s in missing
    ]
    if problems:
        extras = ",".join(s.name for s in missing)
        raise WrongUsage(
            "figures cannot go where they should",
            problems=problems,
            fix=f"pip install 'picochat[{extras}]'",
        )


class Sinks:
    """The trackers of one stage.

    `folder`: RUN/track. What was sent is kept in the stage's workspace, beside its states.
    """

    def __init__(
        self,
        names: tuple[Tracker, ...] | None,
        folder: Path,
        stage: str,
        workspace: Path,
        sinks: tuple[SinkKind, ...] = SINKS,
    ) -> None:
        self._kinds: dict[Tracker, SinkKind] = {
            sink.name: sink for sink in sinks if sink.name in (names or ())
        }
        self._open: dict[Tracker, Sink] = {}
        self._folder, self._stage = folder, stage
        self._sent = Journal(workspace / "sent.jsonl")
        self._series = ""
        self._steps: dict[str, int] = {}
        for row in read_journal(self._sent.path) if self._kinds else []:
            self._series = row.get("series", self._series)
            self._steps[row["event"]] = max(row["step"], self._steps.get(row["event"], -1))

    def send(self, row: Mapping[str, Any]) -> None:
        """Give a row of metrics to every tracker, unless one of its kind with this or a later step
        was given before.
        """
        values = {name: float(row[name]) for name in TRACKED if row.get(name) is not None}
        event, step = str(row["event"]), int(row["step"])
        if not values or not self._kinds or step <= self._steps.get(event, -1):
            return
        self._series = (
            self._series or f"{self._stage}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
        )
        self._steps[event] = step
        # Noted first: a kill in between costs a row, it does not double one.
        self._sent.append({"series": self._series, "event": event, "step": step})
        for name in list(self._kinds):
            self._guarded(name, lambda sink: sink.write(step, values, float(row["time"])))

    def close(self) -> None:
        for name in list(self._open):
            self._guarded(name, lambda sink: sink.close())

    def _guarded(self, name: Tracker, act: Callable[[Sink], None]) -> None:
        """Do `act` with the tracker, opened now where it is not.

        One that fails is said once and not asked again.
        """
        try:
            if name not in self._open:
                series = Series(
                    self._folder / name, self._folder.resolve().parent.name, self._series
                )
                self._open[name] = self._kinds[name].open(series)
            act(self._open[name])
        except (
            Exception
        ) as error:  # a foreign package may raise anything, and none of it is worth a training run
            del self._kinds[name]
            self._open.pop(name, None)
            reason = " ".join(str(error).split())[:200]
            say(
                f"{name} failed and gets no more figures ({type(error).__name__}: {reason});"
                " training goes on"
            )
