"""The only training loop. Base and SFT differ in their batches and in what is evaluated, not in how they are trained.

Promises: a resumed run equals an uninterrupted one bit for bit on the same CPU machine; the training state is saved before
every evaluation, every few minutes and on SIGINT or SIGTERM; losses stay on the device between reports, so that a step
waits for nothing. A loss that is not finite stops the run, and the state before it is kept. Does not choose what is trained
on (train/pretrain.py, train/finetune.py) nor the rate (train/schedule.py).
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from picochat.config import HostConfig, TrainConfig, flops_per_token
from picochat.core.errors import HonestNo, Interrupted
from picochat.core.journal import Journal, read_journal
from picochat.core.progress import Progress, quantity, say
from picochat.core.records import finite_or_none
from picochat.model.compute import Compute, peak_flops
from picochat.model.gpt import GPT, IGNORED_TARGET
from picochat.model.optim import Optimizer
from picochat.train.checkpoint import StateRecord, load_latest_state, save_state
from picochat.train.schedule import lr_share
from picochat.train.spikes import SpikeWatch

REPORT_EVERY_STEPS = 10


@dataclass(frozen=True)
class Batch:
    """One step's rows: ids (B, T) and targets (B, T), IGNORED_TARGET where nothing is learned."""

    ids_BT: np.ndarray
    targets_BT: np.ndarray


@dataclass(frozen=True)
class HeldOut:
    """The loss on a stage's whole held-out set: nats per target, and bits per byte of raw text where bytes are counted."""

    loss: float
    bits_per_byte: float | None


@dataclass(frozen=True)
class Job:
    """What is trained, on what: a stage's name, its settings, the batch of each step, and its held-out evaluation."""

    stage: Literal["base", "sft"]
    config: TrainConfig
    batch_of: Callable[[int], Batch]
    evaluate: Callable[[GPT], HeldOut]


@dataclass
class Progressed:
    """What the loop knows at a step; the part that decides later steps is saved with the state."""

    step: int = 0
    first_loss: float | None = None
    last_loss: float | None = None
    watch: SpikeWatch = field(default_factory=lambda: SpikeWatch(2.0))

    def record(self) -> StateRecord:
        return StateRecord(
            step=self.step,
            spike_mean=self.watch.mean,
            spike_seen=self.watch.seen,
            spikes=self.watch.spikes,
            first_loss=self.first_loss,
            last_loss=self.last_loss,
        )


@dataclass(frozen=True)
class Outcome:
    """A finished stage: its counters, the last held-out evaluation, and the two journals it left in the workspace."""

    state: StateRecord
    held_out: HeldOut
    curve: Path
    metrics: Path


class Trainer:
    """One stage of training in a workspace that outlives kills. Use `train`."""

    def __init__(self, model: GPT, job: Job, compute: Compute, host: HostConfig, workspace: Path) -> None:
        self.model, self.job, self.compute, self.host, self.workspace = model, job, compute, host, workspace
        self.optimizer = Optimizer(model, job.config, compiled=compute.compiled)
        self.loss_sum = torch.compile(model.loss_sum, dynamic=False) if compute.compiled else model.loss_sum
        self.curve = Journal(workspace / "curve.jsonl")
        self.metrics = Journal(workspace / "metrics.jsonl")
        self.at = Progressed(watch=SpikeWatch(job.config.spike_factor))
        self._pending: list[tuple[Tensor, Tensor, float, int]] = []
        self._report_started = time.monotonic()
        self._wait_s = 0.0
        self._signal: int | None = None
        self._tokens_seen = 0
        self.quiet = False

    def train(self) -> Outcome:
        """Resume where the workspace stands, train to the last step, evaluate, and leave the model in place."""
        self._resume()
        held_out: HeldOut | None = None
        last_saved = time.monotonic()
        with Progress(self.job.stage, self.job.config.steps, "steps", quiet=self.quiet) as progress, self._signals():
            progress.start_at(self.at.step)
            while self.at.step < self.job.config.steps:
                self._step()
                progress.advance(1)
                evaluate = self._evaluates_now()
                due = time.monotonic() - last_saved > 60 * self.host.checkpoint_minutes
                if evaluate or due or self._signal is not None or self.at.step % REPORT_EVERY_STEPS == 0:
                    self._report(progress)
                if evaluate or due or self._signal is not None:
                    self._save()
                    last_saved = time.monotonic()
                self._stop_if_signalled()
                if evaluate:
                    held_out = self._evaluate()
            if held_out is None:
                held_out = self._evaluate()
        return Outcome(self.at.record(), held_out, self.curve.path, self.metrics.path)

    def _step(self) -> None:
        started = time.monotonic()
        batch = self.job.batch_of(self.at.step)
        ids_BT = torch.from_numpy(batch.ids_BT).to(self.compute.device, non_blocking=True)
        targets_BT = torch.from_numpy(batch.targets_BT).to(self.compute.device, non_blocking=True)
        targets = max(1, int((batch.targets_BT != IGNORED_TARGET).sum()))
        self._wait_s += time.monotonic() - started
        loss = torch.zeros((), device=self.compute.device)
        rows = self.job.config.micro_batch or len(ids_BT)
        for start in range(0, len(ids_BT), rows):
            part = slice(start, start + rows)
            with self.compute.attention():
                share = self.loss_sum(ids_BT[part], targets_BT[part], self.compute.dtype) / targets
            share.backward()
            loss += share.detach()
        rate = lr_share(self.at.step, self.job.config)
        norm = self.optimizer.step(rate)
        self.at.step += 1
        self._pending.append((loss, norm, rate, ids_BT.numel()))

    def _report(self, progress: Progress) -> None:
        """Fetch the losses since the last report in one transfer; write curve and metrics; check them."""
        if not self._pending:
            return
        values = torch.stack([torch.stack((loss, norm.to(loss))) for loss, norm, _, _ in self._pending]).tolist()
        first_step = self.at.step - len(self._pending)
        seconds = time.monotonic() - self._report_started
        tokens = sum(count for *_, count in self._pending)
        for offset, ((loss, norm), (_, _, rate, count)) in enumerate(zip(values, self._pending, strict=True)):
            self._tokens_seen += count
            self._record_step(first_step + offset + 1, loss, norm, rate)
        self._record_speed(tokens, seconds, progress)
        self._pending.clear()
        self._wait_s = 0.0
        self._report_started = time.monotonic()

    def _record_step(self, step: int, loss: float, norm: float, rate: float) -> None:
        if not math.isfinite(loss):
            raise HonestNo(
                f"{self.job.stage}: the loss at step {step} is not finite",
                fix=f"a smaller --set {self.job.stage}.muon_lr=... or {self.job.stage}.adamw_lr=...; the state before it is kept",
            )
        if self.at.watch.is_spike(loss):
            say(
                f"{self.job.stage}: loss spike at step {step}: {loss:.3f} is over {self.at.watch.factor:g} times its running mean"
            )
        self.at.first_loss = loss if self.at.first_loss is None else self.at.first_loss
        self.at.last_loss = loss
        row = {"step": step, "tokens": self._tokens_seen, "loss": loss, "lr_share": rate, "grad_norm": finite_or_none(norm)}
        self.curve.append({**row, "held_out_loss": None, "held_out_bits_per_byte": None})

    def _record_speed(self, tokens: int, seconds: float, progress: Progress) -> None:
        tokens_per_second = tokens / seconds if seconds else 0.0
        peak = peak_flops(self.compute.device)
        mfu = tokens_per_second * flops_per_token(self.model.config, self.model.vocab_size) / peak if peak else None
        cuda = self.compute.device.type == "cuda"
        self.metrics.append(
            {
                "step": self.at.step,
                "tokens": self._tokens_seen,
                "loss": self.at.last_loss,
                "tokens_per_second": tokens_per_second,
                "mfu": mfu,
                "peak_memory_bytes": torch.cuda.max_memory_allocated() if cuda else None,
                "data_wait_share": self._wait_s / seconds if seconds else 0.0,
                "time": time.time(),
            }
        )
        share = f", MFU {mfu:.1%}" if mfu is not None else ""
        progress.note = f"loss {self.at.last_loss:.3f}, {quantity(tokens_per_second)} tokens/s{share}"

    def _evaluates_now(self) -> bool:
        every = self.job.config.eval_every
        return self.at.step == self.job.config.steps or (every is not None and self.at.step % every == 0)

    def _evaluate(self) -> HeldOut:
        self.model.eval()
        with torch.no_grad():
            held_out = self.job.evaluate(self.model)
        self.model.train()
        self.curve.append(
            {
                "step": self.at.step,
                "tokens": self._tokens_seen,
                "loss": None,
                "lr_share": None,
                "grad_norm": None,
                "held_out_loss": held_out.loss,
                "held_out_bits_per_byte": held_out.bits_per_byte,
            }
        )
        if self.quiet:
            return held_out
        bits = f", {held_out.bits_per_byte:.4f} bits per byte" if held_out.bits_per_byte is not None else ""
        say(f"{self.job.stage}: step {self.at.step}: held-out loss {held_out.loss:.4f}{bits}")
        self._report_started = time.monotonic()
        return held_out

    def _save(self) -> None:
        save_state(self.workspace, self.at.record(), dict(self.model.state_dict()), self.optimizer.state())

    def _resume(self) -> None:
        """Load the newest state and cut the journals back to it. Evaluations at that step are taken again."""
        state = load_latest_state(self.workspace)
        step = state.record.step if state else 0
        self.curve.truncate_after(step)
        self.metrics.truncate_after(step)
        rows = [row for row in read_journal(self.curve.path) if row["loss"] is not None or row["step"] < step]
        self.curve.replace(rows)
        if state is None:
            return
        self.model.load_state_dict(state.weights)
        self.optimizer.load_state(state.optimizer)
        record = state.record
        watch = SpikeWatch(self.job.config.spike_factor, record.spike_mean, record.spike_seen, record.spikes)
        self.at = Progressed(record.step, record.first_loss, record.last_loss, watch)
        self._tokens_seen = rows[-1]["tokens"] if rows else 0
        if not self.quiet:
            say(f"{self.job.stage}: resumed after step {step} of {self.job.config.steps}")
        if self._evaluates_now() and step < self.job.config.steps:
            self._evaluate()

    def _signals(self) -> _SignalGuard:
        return _SignalGuard(self)

    def note_signal(self, number: int) -> None:
        self._signal = number

    def _stop_if_signalled(self) -> None:
        if self._signal is not None:
            raise Interrupted(
                self._signal,
                f"{self.job.stage}: stopped and saved after step {self.at.step} of {self.job.config.steps}",
                fix="the same command goes on from here",
            )


class _SignalGuard:
    """While inside, SIGINT and SIGTERM let the step finish and be saved; a second one acts at once."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.previous: dict[int, object] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self.previous[number] = signal.signal(number, self._handle)
            except ValueError:  # not the main thread: whoever runs us there handles signals
                return

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        say("stopping after this step; once more stops at once")
        self.trainer.note_signal(number)
        self.__exit__()
