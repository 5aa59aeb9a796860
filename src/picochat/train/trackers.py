"""Experiment trackers that also get the figures of training: TensorBoard files, trackio, wandb.

Off by default: nothing leaves the machine unless `--track` asks for it. A tracker gets what
metrics.jsonl holds and no more, each step once, also over kills and resumes. It is opened with the
first figures. One that fails is reported once and dropped, and training goes on. A missing package
is an error before any work starts. After a rollback, steps that are trained again are not sent
again; metrics.jsonl has them. Imports no torch. docs/decisions/0021 has the reasons.
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
from picochat.core.network import without_secrets
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
    "data_wait_fraction",
    "usd_spent",
    "held_out_loss",
    "held_out_bits_per_byte",
    "spikes",
)
"""Fields of facts.MetricsRow that a tracker is given, under these names."""


@dataclass(frozen=True)
class Series:
    """One training of one stage, as trackers see it.

    `folder`: where its local files go. `name`: the same after a resume.
    """

    folder: Path
    run: str
    name: str


class OpenTracker(Protocol):
    """An open tracker."""

    def write(self, step: int, values: Mapping[str, float], now: float) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class TrackerKind:
    """One row. `package`: what must be installed, named like the extra; None: nothing."""

    name: Tracker
    package: str | None
    open: Callable[[Series], OpenTracker]


def open_tensorboard(series: Series) -> OpenTracker:
    """Files for `tensorboard --logdir RUN/track/tensorboard`, one folder a series."""
    return EventFile(series.folder / series.name / "events.out.tfevents.picochat", time.time())


class _Trackio:
    def __init__(self, series: Series) -> None:
        # trackio reads this variable when it is imported. A user's own value stands.
        os.environ.setdefault("TRACKIO_DIR", str(series.folder.resolve()))
        with contextlib.redirect_stdout(sys.stderr):
            import trackio  # pyright: ignore[reportMissingImports]

            self._trackio: Any = trackio
            self._run: Any = trackio.init(
                project=PROJECT,
                name=f"{series.run}-{series.name}",
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def write(self, step: int, values: Mapping[str, float], now: float) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            # Not the run's own `finish`: the package would then finish it once more at exit.
            self._trackio.finish()


class _Wandb:
    def __init__(self, series: Series) -> None:
        mode = os.environ.get("WANDB_MODE", "offline")
        # Its own error reports would go out in any mode.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb  # pyright: ignore[reportMissingImports]

        series.folder.mkdir(parents=True, exist_ok=True)
        name = f"{series.run}-{series.name}"
        # Off is all that wandb would send by itself: code, commit, command line, host name,
        # packages, console output, the machine's load.
        private = wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            save_code=False,
            host="",
            program="",
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=name,
            id=_identifier(name),
            mode=mode,
            dir=series.folder,
            resume=None if mode == "offline" else "allow",
            settings=private,
        )

    def write(self, step: int, values: Mapping[str, float], now: float) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def _identifier(name: str) -> str:
    """The name in the characters that wandb allows."""
    return "".join(
        char if char.isascii() and (char.isalnum() or char in "-_.") else "-" for char in name
    )[-64:]


TRACKERS: tuple[TrackerKind, ...] = (
    TrackerKind("tensorboard", None, open_tensorboard),
    TrackerKind("trackio", "trackio", _Trackio),
    TrackerKind("wandb", "wandb", _Wandb),
)


def check_trackers(
    names: tuple[Tracker, ...] | None, kinds: tuple[TrackerKind, ...] = TRACKERS
) -> None:
    """Raises WrongUsage that names each package missing for `names`, and how to install it."""
    missing = [
        kind
        for kind in kinds
        if kind.name in (names or ())
        and kind.package
        and importlib.util.find_spec(kind.package) is None
    ]
    problems = [
        Problem(f"--track {kind.name}: the package {kind.package} is not installed")
        for kind in missing
    ]
    if problems:
        extras = ",".join(kind.name for kind in missing)
        raise WrongUsage(
            "figures cannot go where they should",
            problems=problems,
            fix=f"pip install 'picochat[{extras}]'",
        )


class Trackers:
    """The trackers of one stage.

    folder: RUN/track. workspace: of the stage, where a journal keeps what was sent.
    """

    def __init__(
        self,
        names: tuple[Tracker, ...] | None,
        folder: Path,
        stage: str,
        workspace: Path,
        kinds: tuple[TrackerKind, ...] = TRACKERS,
    ) -> None:
        self._kinds: dict[Tracker, TrackerKind] = {
            kind.name: kind for kind in kinds if kind.name in (names or ())
        }
        self._open: dict[Tracker, OpenTracker] = {}
        self._folder, self._stage = folder, stage
        self._sent = Journal(workspace / "sent.jsonl")
        self._series = ""
        self._steps: dict[str, int] = {}
        for row in read_journal(self._sent.path) if self._kinds else []:
            self._series = row.get("series", self._series)
            self._steps[row["event"]] = max(row["step"], self._steps.get(row["event"], -1))

    def send(self, row: Mapping[str, Any]) -> None:
        """Give a row of metrics to every tracker.

        A row is left out if one of its event with the same or a later step was sent before.
        """
        values = {name: float(row[name]) for name in TRACKED if row.get(name) is not None}
        event, step = str(row["event"]), int(row["step"])
        if not values or not self._kinds or step <= self._steps.get(event, -1):
            return
        self._series = (
            self._series or f"{self._stage}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
        )
        self._steps[event] = step
        # Noted first, so that a kill in between loses a row and does not send one twice.
        self._sent.append({"series": self._series, "event": event, "step": step})
        for name in list(self._kinds):
            self._guarded(name, lambda tracker: tracker.write(step, values, float(row["time"])))

    def close(self) -> None:
        for name in list(self._open):
            self._guarded(name, lambda tracker: tracker.close())

    def _guarded(self, name: Tracker, act: Callable[[OpenTracker], None]) -> None:
        """Do `act` with the tracker, which is opened first if necessary.

        One that fails is reported and dropped.
        """
        try:
            if name not in self._open:
                series = Series(
                    self._folder / name, self._folder.resolve().parent.name, self._series
                )
                self._open[name] = self._kinds[name].open(series)
            act(self._open[name])
        except Exception as error:  # a foreign package may raise anything; training must go on
            del self._kinds[name]
            self._open.pop(name, None)
            reason = without_secrets(" ".join(str(error).split()))[:200]
            say(
                f"{name} failed and gets no more figures ({type(error).__name__}: {reason});"
                " training goes on"
            )
