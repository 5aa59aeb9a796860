"""What a training stage reports while it runs: curve, metrics, progress line, speed and time left.

Two journals: `curve.jsonl` holds what follows from seed and data (loss, rate, gradient norm,
evaluations); `metrics.jsonl` also what clock and host decide (tokens/s, MFU, memory, waiting for
data) and what happened (facts.MetricsRow). Losses come late from the device (train/step.py), so a
row of metrics is written once the loss of its step is here. Imports no torch, because `run status`
reads a journal with the functions at the end. Decides nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from picochat.config import TrainConfig
from picochat.core.journal import Journal, read_journal
from picochat.core.machine import process_age_s
from picochat.core.records import finite_or_none
from picochat.facts import MetricsEvent, MetricsRow
from picochat.present.values import duration, quantity
from picochat.train.schedule import evaluations_left
from picochat.train.trackers import Trackers

if TYPE_CHECKING:
    from picochat.train.held_out import HeldOut
    from picochat.train.step import StepResult

RECENT_REPORTS = 20
WARM_UP_STEPS = 2
"""The first steps of a process compile and allocate; no rate is taken from them."""


class StartupTimer:
    """Seconds of each part between the start of the process and the end of its second step.

    The part `before_stage` is interpreter, imports and earlier stages. It is absent where the
    system does not tell the age of a process.
    """

    def __init__(self) -> None:
        self.began = self._last = time.monotonic()
        age_s = process_age_s()
        self.parts: dict[str, float] = {} if age_s is None else {"before_stage": age_s}

    def mark(self, part: str) -> None:
        """Count the time since the mark before as spent on `part`."""
        now = time.monotonic()
        self.parts[part] = self.parts.get(part, 0.0) + now - self._last
        self._last = now


@dataclass
class Throughput:
    """The rate of the latest steps, and the time and cost left that follow from it.

    `began`: when this process began the stage, by time.monotonic. `seconds_before`: what earlier
    processes spent on it.
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
        """Count steps at a steady rate, not the first ones of a process."""
        self._reports.append((steps, seconds))

    def evaluation_took(self, seconds: float) -> None:
        self._evaluation_s = seconds

    def stage_seconds(self) -> float:
        """Time spent on the stage by all processes up to now."""
        return self.seconds_before + time.monotonic() - self.began

    def seconds_left(self, step: int) -> float | None:
        """Time for the rest after `step` finished steps; None before the rate is known.

        Each evaluation to come counts as long as the latest one took.
        """
        steps, seconds = sum(s for s, _ in self._reports), sum(s for _, s in self._reports)
        if not steps:
            return 0.0 if step >= self.config.steps else None
        training = (self.config.steps - step) * seconds / steps
        return training + evaluations_left(step, self.config) * (self._evaluation_s or 0.0)

    def usd(self, seconds: float | None) -> float | None:
        """What `seconds` cost; None without a price."""
        if seconds is None or self.usd_per_hour is None:
            return None
        return seconds * self.usd_per_hour / 3600


class MetricsLogger:
    """Writes both journals of a stage, feeds its trackers, and makes the note of its progress line.

    folder: of the journals. peak_flops, usd_per_hour: of all devices together; None: not known.
    peak_memory: gives bytes.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        timer: StartupTimer,
        trackers: Trackers,
        *,
        flops_per_token: float,
        peak_flops: float | None,
        usd_per_hour: float | None,
        peak_memory: Callable[[], int],
    ) -> None:
        self.curve = Journal(folder / "curve.jsonl")
        self.metrics = Journal(folder / "metrics.jsonl")
        self.config, self.timer, self.trackers = config, timer, trackers
        self.flops_per_token, self.peak_flops = flops_per_token, peak_flops
        self.peak_memory = peak_memory
        self.throughput = Throughput(config, usd_per_hour, timer.began)
        self._latest: dict[str, Any] = {}
        self._result: StepResult | None = None
        self._waiting_rows: dict[int, dict[str, Any]] = {}
        self._steps_here = self._step = self._tokens = self._from_step = 0
        self._since, self._waited_s = time.monotonic(), 0.0

    def resume(self, step: int, tokens: int, spikes: int, rollbacks: int) -> None:
        """Begin at step 0, or go on from a state that an earlier process saved."""
        # The journal is the only place that knows how long earlier processes trained.
        spent = [row.get("stage_seconds") or 0.0 for row in read_journal(self.metrics.path)]
        self.throughput.seconds_before = max(spent, default=0.0)
        self.cut_back(step, tokens, spikes, rollbacks)
        evaluations = [
            row for row in read_journal(self.metrics.path) if row.get("event") == "evaluation"
        ]
        self._latest = {
            key: value
            for row in evaluations[-1:]
            for key, value in row.items()
            if key.startswith("held_out")
        }
        self._from_step = step
        if step:
            self._append("resumed", step, tokens=tokens)

    def cut_back(self, step: int, tokens: int, spikes: int, rollbacks: int) -> None:
        """Drop from the journals what came after `step`, and the evaluation at it.

        That evaluation is taken again. Of spikes and rollbacks, the first `spikes` and `rollbacks`
        stay whatever their steps: they are what the state knows of.
        """
        self.curve.truncate_after(step)
        self.curve.replace(
            [r for r in read_journal(self.curve.path) if r["loss"] is not None or r["step"] < step]
        )
        known = {"spike": spikes, "rollback": rollbacks}
        kept: list[dict[str, Any]] = []
        for row in read_journal(self.metrics.path):
            event = row.get("event")
            if event in known:
                # By count: a rollback that stays may have gone back to before `step`.
                stays = row[f"{event}s"] <= known[event]
            else:
                stays = row["step"] < step or (row["step"] == step and event != "evaluation")
            kept += [row] if stays else []
        self.metrics.replace(kept)
        self._waiting_rows.clear()
        self._since, self._waited_s, self._step, self._tokens = time.monotonic(), 0.0, step, tokens

    def waited(self, seconds: float) -> None:
        """Count time in which a step waited for its rows."""
        self._waited_s += seconds

    def step(self, result: StepResult) -> None:
        """Write a finished step to the curve, and the row of metrics that waited for its loss."""
        self._result = result
        self.curve.append(
            {
                "step": result.step,
                "tokens": result.tokens,
                "loss": result.loss,
                "lr_fraction": result.lr_fraction,
                "grad_norm": finite_or_none(result.grad_norm),
                "held_out_loss": None,
                "held_out_bits_per_byte": None,
            }
        )
        if row := self._waiting_rows.pop(result.step, None):
            self._write_report(row, result)

    def evaluation(self, step: int, tokens: int, held_out: HeldOut, seconds: float) -> None:
        """Write the evaluation after `step`. Its time does not count as training."""
        # As if the report before had come later, so that the evaluation slows no rate.
        self._since += seconds
        self.throughput.evaluation_took(seconds)
        values = {"held_out_loss": held_out.loss, "held_out_bits_per_byte": held_out.bits_per_byte}
        self.curve.append(
            {
                "step": step,
                "tokens": tokens,
                "loss": None,
                "lr_fraction": None,
                "grad_norm": None,
                **values,
            }
        )
        self._append("evaluation", step, **values, seconds=seconds)

    def spike(self, step: int, loss: float, mean_loss: float | None, spikes: int) -> None:
        self._append("spike", step, loss=loss, mean_loss=mean_loss, spikes=spikes)

    def rollback(self, step: int, from_step: int, rollbacks: int) -> None:
        self._append("rollback", step, from_step=from_step, rollbacks=rollbacks)

    def saved(self, step: int, seconds: float) -> None:
        """Write that a state is being saved, for which training stood still for `seconds`."""
        self._append("saved", step, seconds=seconds)

    def is_due(self, step: int, every_steps: int, every_seconds: float) -> bool:
        """Whether so many steps or seconds have passed since the last report.

        The first two steps of a process are always reported.
        """
        return (
            self.warming_up
            or step % every_steps == 0
            or time.monotonic() - self._since > every_seconds
        )

    @property
    def warming_up(self) -> bool:
        """Whether the steps since the last report are among the first of this process."""
        return self._steps_here < WARM_UP_STEPS

    def report(self, step: int, tokens: int) -> None:
        """Make one row of metrics over the steps since the row before."""
        now = time.monotonic()
        steps, seconds = step - self._step, max(now - self._since, 1e-9)
        if not steps:
            return
        if not self.warming_up:
            self.throughput.steps_took(steps, seconds)
        first = self._steps_here == 0  # opening the trackers, below, is timed once
        self._count_warm_up_step(step)
        rate = (tokens - self._tokens) / seconds
        spent, left = self.throughput.stage_seconds(), self.throughput.seconds_left(step)
        row: dict[str, Any] = {
            "step": step,
            "tokens": tokens,
            "tokens_per_second": rate,
            # Non-causal convention: attention counts whole, as in most published figures.
            "mfu": rate * self.flops_per_token / self.peak_flops if self.peak_flops else None,
            "peak_memory_bytes": self.peak_memory(),
            "data_wait_fraction": min(1.0, self._waited_s / seconds),
            "stage_seconds": spent,
            "seconds_left": left,
            "usd_spent": self.throughput.usd(spent),
            "usd_left": self.throughput.usd(left),
            "time": time.time(),
        }
        self._latest.update(row)
        self._since, self._waited_s, self._step, self._tokens = now, 0.0, step, tokens
        # On a GPU the loss of this step is still on its way: the row waits for it.
        if self._result is not None and self._result.step == step:
            self._write_report(row, self._result)
        else:
            self._waiting_rows[step] = row
        if first:
            self.timer.mark("first_report")

    def note(self) -> str:
        """Loss, held-out loss, speed, time left and cost, for the progress line."""
        return " | ".join(standing_parts(self._latest))

    def close(self) -> None:
        self.trackers.close()

    def _count_warm_up_step(self, step: int) -> None:
        """After the second step, write once where the time up to it went."""
        if not self.warming_up:
            return
        self._steps_here += 1
        self.timer.mark(("first_step", "second_step")[self._steps_here - 1])
        if not self.warming_up or step == self.config.steps:
            parts, planned = self.timer.parts, self.config.steps
            self._append(
                "started",
                self._from_step,
                parts=parts,
                seconds=sum(parts.values()),
                planned_steps=planned,
            )

    def _write_report(self, row: dict[str, Any], result: StepResult) -> None:
        muon_lr = (
            self.config.muon_lr * result.lr_fraction
            if self.config.matrix_optimizer == "muon"
            else None
        )
        self._append(
            "report",
            loss=result.loss,
            grad_norm=finite_or_none(result.grad_norm),
            muon_lr=muon_lr,
            adamw_lr=self.config.adamw_lr * result.lr_fraction,
            **row,
        )

    def _append(self, event: MetricsEvent, step: int, **values: Any) -> None:
        row = MetricsRow(event=event, step=step, **{"time": time.time(), **values}).model_dump(
            exclude_none=True
        )
        self.metrics.append(row)
        self._latest.update(
            {name: row[name] for name in row if name == "loss" or name.startswith("held_out")}
        )
        self.trackers.send(row)


# ---- words for the progress line and for `run status` --------------------------------------------


def standing_parts(latest: Mapping[str, Any]) -> list[str]:
    """The known figures of a stage, each with its unit, at most 100 columns in all."""
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
    """Where a stage stands by its metrics, and how old they are; empty without rows.

    now: seconds since 1970.
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
