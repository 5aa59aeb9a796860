"""What a training stage says while it runs: the curve, the metrics, the progress line.

Two journals: the curve holds what follows from seed and data (loss, rate, gradient norm,
evaluations), the metrics also what clock and host decide (tokens/s, MFU, memory, waiting for data)
and what happened (rundir.MetricsRow). Losses come from the device late (train/losses.py), so a row
of metrics is written once the loss of its step is here. Decides nothing.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from picochat.config import TrainConfig, flops_per_token
from picochat.core.journal import Journal, read_journal
from picochat.core.records import finite_or_none
from picochat.model.gpt import GPT
from picochat.model.runtime import Runtime, peak_flops
from picochat.rundir import MetricsEvent, MetricsRow
from picochat.train.held_out import HeldOut
from picochat.train.losses import StepResult
from picochat.train.pace import WARM_UP_STEPS, Pace, StartClock, standing_parts
from picochat.train.sinks import Sinks


class Reports:
    """Both journals of a stage, its trackers, its speed, and the note of its progress line.

    Speed and cost are of all devices.
    """

    def __init__(
        self,
        workspace: Path,
        model: GPT,
        compute: Runtime,
        config: TrainConfig,
        clock: StartClock,
        sinks: Sinks,
        usd_per_hour: float | None,
        devices: int = 1,
    ) -> None:
        self.curve = Journal(workspace / "curve.jsonl")
        self.metrics = Journal(workspace / "metrics.jsonl")
        self.device, self.config, self.clock, self.sinks = compute.device, config, clock, sinks
        self.flops_per_token = flops_per_token(model.config, model.vocab_size)
        peak = peak_flops(compute.device)
        self.peak_flops = peak * devices if peak else None
        self.pace = Pace(
            config, usd_per_hour * devices if usd_per_hour is not None else None, clock.began
        )
        self._latest: dict[str, Any] = {}
        self._result: StepResult | None = None
        self._late: dict[int, dict[str, Any]] = {}
        self._steps_here = self._step = self._tokens = self._from_step = 0
        self._since, self._waited_s = time.monotonic(), 0.0

    def take_up(self, step: int, tokens: int, spikes: int, rollbacks: int) -> None:
        """Begin, or go on from a state of an earlier process."""
        spent = [row.get("stage_seconds") or 0.0 for row in read_journal(self.metrics.path)]
        self.pace.seconds_before = max(spent, default=0.0)
        self.cut_back(step, tokens, spikes, rollbacks)
        held_out = [
            row for row in read_journal(self.metrics.path) if row.get("event") == "evaluation"
        ]
        self._latest = {
            k: v for row in held_out[-1:] for k, v in row.items() if k.startswith("held_out")
        }
        self._from_step = step
        if step:
            self._append("resumed", step, tokens=tokens)

    def cut_back(self, step: int, tokens: int, spikes: int, rollbacks: int) -> None:
        """Go on from `step`: drop what was written after it, and the evaluation at it, which is
        taken again.

        Of the stage's spikes and rollbacks those stay that the state knows of, whatever their
        steps.
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
                stays = row[f"{event}s"] <= known[event]
            else:
                stays = row["step"] < step or (row["step"] == step and event != "evaluation")
            kept += [row] if stays else []
        self.metrics.replace(kept)
        self._late.clear()
        self._since, self._waited_s, self._step, self._tokens = time.monotonic(), 0.0, step, tokens

    def waited(self, seconds: float) -> None:
        """Time in which a step waited for its rows."""
        self._waited_s += seconds

    def step(self, result: StepResult) -> None:
        """A finished step whose loss is here: a point of the curve, and the row of metrics that
        waited for it.
        """
        self._result = result
        self.curve.append(
            {
                "step": result.step,
                "tokens": result.tokens,
                "loss": result.loss,
                "lr_share": result.lr_share,
                "grad_norm": finite_or_none(result.grad_norm),
                "held_out_loss": None,
                "held_out_bits_per_byte": None,
            }
        )
        if late := self._late.pop(result.step, None):
            self._write_report(late, result)

    def evaluation(self, step: int, tokens: int, held_out: HeldOut, seconds: float) -> None:
        """The held-out set after `step`; the time that it took is no training time."""
        self._since += seconds
        self.pace.evaluation_took(seconds)
        values = {"held_out_loss": held_out.loss, "held_out_bits_per_byte": held_out.bits_per_byte}
        self.curve.append(
            {
                "step": step,
                "tokens": tokens,
                "loss": None,
                "lr_share": None,
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
        """A state is being written; training waited `seconds` for the copy, and for the state
        before to be written.
        """
        self._append("saved", step, seconds=seconds)

    def is_due(self, step: int, every_steps: int, every_seconds: float) -> bool:
        """Whether steps or seconds have passed since the last report.

        The first two steps of a process are always said.
        """
        return (
            self.warming_up
            or step % every_steps == 0
            or time.monotonic() - self._since > every_seconds
        )

    @property
    def warming_up(self) -> bool:
        """Whether the steps since the last report are among the first of this process, which
        compile and warm up.
        """
        return self._steps_here < WARM_UP_STEPS

    def speed(self, step: int, tokens: int) -> None:
        """One row of metrics, over the steps since the row before."""
        now = time.monotonic()
        steps, seconds = step - self._step, max(now - self._since, 1e-9)
        if not steps:
            return
        if not self.warming_up:
            self.pace.steps_took(steps, seconds)
        first = self._steps_here == 0
        self._started(step)
        spent, left = self.pace.stage_seconds(), self.pace.seconds_left(step)
        row: dict[str, Any] = {
            "step": step,
            "tokens": tokens,
            "tokens_per_second": (tokens - self._tokens) / seconds,
            "mfu": self._mfu((tokens - self._tokens) / seconds),
            "peak_memory_bytes": peak_memory_bytes(self.device),
            "data_wait_share": min(1.0, self._waited_s / seconds),
            "stage_seconds": spent,
            "seconds_left": left,
            "usd_spent": self.pace.usd(spent),
            "usd_left": self.pace.usd(left),
            "time": time.time(),
        }
        self._latest.update(row)
        self._since, self._waited_s, self._step, self._tokens = now, 0.0, step, tokens
        if self._result is not None and self._result.step == step:
            self._write_report(row, self._result)
        else:
            self._late[step] = row
        if first:
            self.clock.mark("first_report")

    def note(self) -> str:
        """Loss, held-out bits per byte, speed, and how long and how dear the rest is: for the
        progress line.
        """
        return " | ".join(standing_parts(self._latest))

    def close(self) -> None:
        self.sinks.close()

    def _started(self, step: int) -> None:
        """Say where the time up to the second step went, once, when it is known."""
        if not self.warming_up:
            return
        self._steps_here += 1
        self.clock.mark(("first_step", "second_step")[self._steps_here - 1])
        if not self.warming_up or step == self.config.steps:
            parts, planned = self.clock.parts, self.config.steps
            self._append(
                "started",
                self._from_step,
                parts=parts,
                seconds=sum(parts.values()),
                planned_steps=planned,
            )

    def _write_report(self, row: dict[str, Any], result: StepResult) -> None:
        muon = (
            self.config.muon_lr * result.lr_share
            if self.config.matrix_optimizer == "muon"
            else None
        )
        rates = {"muon_lr": muon, "adamw_lr": self.config.adamw_lr * result.lr_share}
        self._append(
            "report", loss=result.loss, grad_norm=finite_or_none(result.grad_norm), **rates, **row
        )

    def _append(self, event: MetricsEvent, step: int, **values: Any) -> None:
        row = MetricsRow(event=event, step=step, **{"time": time.time(), **values}).model_dump(
            exclude_none=True
        )
        self.metrics.append(row)
        self._latest.update(
            {name: row[name] for name in row if name == "loss" or name.startswith("held_out")}
        )
        self.sinks.send(row)

    def _mfu(self, tokens_per_second: float) -> float | None:
        """Model FLOPs over the peak of all devices, non-causal convention; None where the peak is
        not known.
        """
        return (
            tokens_per_second * self.flops_per_token / self.peak_flops if self.peak_flops else None
        )


def peak_memory_bytes(device: torch.device) -> int:
    """The most so far: allocated on the GPU, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
