"""How fast a stage trains, how long it will still take, what that costs: figures in, the words of
the progress line out.

The time left follows from the rate of the latest reports: the first two steps, which compile and
warm up, do not count, and the evaluations that are still to come do. Without torch, so that `run
status` says from a journal what the progress line says.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from picochat.config import TrainConfig
from picochat.core.machine import process_age_s
from picochat.present.values import duration, quantity

RECENT_REPORTS = 20
WARM_UP_STEPS = 2


class StartClock:
    """Where the time goes between the start of the process and the end of the second step, in
    seconds a part.

    `before_stage`: interpreter, imports, and the stages before this one; absent where the system
    does not tell it.
    """

    def __init__(self) -> None:
        self.began = self._last = time.monotonic()
        age_s = process_age_s()
        self.parts: dict[str, float] = {} if age_s is None else {"before_stage": age_s}

    def mark(self, part: str) -> None:
        """All since the mark before was spent on `part`."""
        now = time.monotonic()
        self.parts[part] = self.parts.get(part, 0.0) + now - self._last
        self._last = now


@dataclass
class Pace:
    """The rate of the latest steps, and what follows from it.

    `seconds_before`: spent on the stage by earlier processes.
    """

    config: TrainConfig
    usd_per_hour: float | None
    began: float
    seconds_before: float = 0.0
    _reports: deque[tuple[int, float]] = field(
        default_factory=lambda: deque[tuple[int, float]](maxlen=RECENT_REPORTS)
    )
    _evaluation_s: float | None = None

    def steps_took(self, steps: int, seconds: float) -> None:
        """A report over steady steps. Not for the first two of a process."""
        self._reports.append((steps, seconds))

    def evaluation_took(self, seconds: float) -> None:
        self._evaluation_s = seconds

    def stage_seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.began

    def seconds_left(self, step: int) -> float | None:
        """After `step` finished steps; None before the rate is known.

        An evaluation counts as long as the latest one took.
        """
        steps, seconds = sum(s for s, _ in self._reports), sum(s for _, s in self._reports)
        if not steps:
            return 0.0 if step >= self.config.steps else None
        training = (self.config.steps - step) * seconds / steps
        return training + evaluations_left(step, self.config) * (self._evaluation_s or 0.0)

    def usd(self, seconds: float | None) -> float | None:
        """What `seconds` cost; None without a price."""
        return (
            None
            if seconds is None or self.usd_per_hour is None
            else seconds * self.usd_per_hour / 3600
        )


def evaluations_left(step: int, config: TrainConfig) -> int:
    """Held-out evaluations that are due after `step` finished steps, the last one included."""
    if step >= config.steps:
        return 0
    every = config.eval_every
    return 1 if every is None else -(-config.steps // every) - step // every


def standing_parts(latest: Mapping[str, Any]) -> list[str]:
    """The figures that are known, each with its unit, none longer than people compare: at most 100
    columns in all.
    """
    found = {name: value for name, value in latest.items() if value is not None}
    parts: list[str] = []
    if "loss" in found:
        parts.append(f"loss {found['loss']:.3f}")
    if "held_out_bits_per_byte" in found:
        parts.append(f"held-out {found['held_out_bits_per_byte']:.3f} bpb")
    elif "held_out_loss" in found:
        parts.append(f"held-out {found['held_out_loss']:.3f}")
    if "tokens_per_second" in found:
        parts.append(f"{quantity(found['tokens_per_second'])} tok/s")
    if "mfu" in found:
        parts.append(f"MFU {found['mfu']:.1%}")
    if "seconds_left" in found:
        parts.append(f"{duration(found['seconds_left'])} left")
    if "usd_spent" in found and "usd_left" in found:
        parts.append(f"${found['usd_spent']:.2f} of ${found['usd_spent'] + found['usd_left']:.2f}")
    return parts


def standing_words(rows: Sequence[Mapping[str, Any]], now: float) -> str:
    """Where a stage stands by its metrics, and how old that news is (`now`: seconds since 1970).

    Empty without rows.
    """
    if not rows:
        return ""
    latest: dict[str, Any] = {}
    for row in rows:
        latest.update({name: value for name, value in row.items() if value is not None})
    step = max(int(row.get("step", 0)) for row in rows if row.get("event") != "spike")
    planned = latest.get("planned_steps")
    where = f"step {step}" + (f"/{planned} {100 * step / planned:.0f}%" if planned else "")
    age = [f"said {duration(now - latest['time'])} ago"] if "time" in latest else []
    return " | ".join([where, *standing_parts(latest), *age])
