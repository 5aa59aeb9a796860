"""The only training loop. Base and SFT differ in their rows and in what is evaluated, not in how
they are trained.

Promises: a resumed run equals an uninterrupted one bit for bit on the same CPU machine; the
training state is saved before every evaluation, every few minutes and on SIGINT or SIGTERM, and
written while training goes on. A loss that is not finite stops the run, and the state before it is
kept. Does not choose what is trained on (train/pretrain.py, train/finetune.py), how a step is
computed (train/engine.py), which states are kept (train/states.py), nor the rate
(train/schedule.py).
"""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from picochat.config import HostConfig, TrainConfig
from picochat.core.errors import HonestNo, Interrupted
from picochat.core.progress import Progress, say, say_in_handler
from picochat.model.gpt import GPT
from picochat.model.runtime import Runtime
from picochat.train.checkpoint import BestSoFar, SavedState, StateRecord, state_folder
from picochat.train.engine import Engine
from picochat.train.feed import Feed
from picochat.train.held_out import HeldOut
from picochat.train.live import Reports
from picochat.train.losses import LossQueue, StepResult
from picochat.train.pace import StartClock
from picochat.train.ranks import ALONE, Ranks
from picochat.train.schedule import lr_share
from picochat.train.signals import LateSignals
from picochat.train.sinks import Sinks
from picochat.train.spikes import SpikeWatch
from picochat.train.states import States, evaluates_after, evaluation_before, replay_step

REPORT_EVERY_STEPS, REPORT_EVERY_SECONDS = 10, 5.0


@dataclass(frozen=True)
class Job:
    """What is trained, on what: a stage's name, its settings, the rows of each step, and its
    held-out evaluation.

    `gpu_hour_usd`: what an hour of one device costs, for the progress line. `track`: the folder of
    trackers; None: no tracker. `clock`: runs since the stage began.
    """

    stage: Literal["base", "sft"]
    config: TrainConfig
    feed: Feed
    evaluate: Callable[[GPT], HeldOut]
    gpu_hour_usd: float | None = None
    track: Path | None = None
    clock: StartClock = field(default_factory=StartClock)


@dataclass
class Progressed:
    """What the loop knows at a step; all of it is saved with the state."""

    watch: SpikeWatch
    step: int = 0
    tokens: int = 0
    first_loss: float | None = None
    last_loss: float | None = None
    skipped: int = 0
    rollbacks: int = 0
    best: BestSoFar | None = None

    def record(self, micro_batch: int | None) -> StateRecord:
        return StateRecord(
            step=self.step,
            tokens=self.tokens,
            spike_mean=self.watch.mean,
            spike_seen=self.watch.seen,
            spike_steps=self.watch.steps,
            first_loss=self.first_loss,
            last_loss=self.last_loss,
            skipped=self.skipped,
            rollbacks=self.rollbacks,
            micro_batch=micro_batch,
            best=self.best,
        )


def progressed(record: StateRecord, config: TrainConfig) -> Progressed:
    """What the loop knew when `record` was saved."""
    watch = SpikeWatch(
        config.spike_factor,
        config.spike_nats,
        record.spike_mean,
        record.spike_seen,
        list(record.spike_steps),
    )
    return Progressed(
        watch=watch,
        step=record.step,
        tokens=record.tokens,
        first_loss=record.first_loss,
        last_loss=record.last_loss,
        skipped=record.skipped,
        rollbacks=record.rollbacks,
        best=record.best,
    )


@dataclass(frozen=True)
class Outcome:
    """A finished stage: its counters, the journals in the workspace, the state to replay from.

    `scored_step`: the step whose weights the model holds, the last or the best; `held_out`: what
    they were worth.
    """

    state: StateRecord
    scored_step: int
    held_out: HeldOut
    curve: Path
    metrics: Path
    replay: Path | None


class _GoBack(Exception):
    """A spike after which the loop returns to the evaluation before it."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step


class Trainer:
    """One stage of training in a workspace that outlives kills. Use `train`.

    With several processes each has a Trainer of the same job and workspace. Losses and what is
    decided from them are the same everywhere; signals and minutes are agreed on after each step.
    The first one speaks, reports and saves; sharded, all save.
    """

    def __init__(
        self,
        model: GPT,
        job: Job,
        compute: Runtime,
        host: HostConfig,
        workspace: Path,
        *,
        quiet: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model, self.job, self.config, self.host, self.workspace = (
            model,
            job,
            job.config,
            host,
            workspace,
        )
        self.ranks, self.quiet = ranks, quiet or not ranks.leads
        self.engine = Engine(
            model, job.config, compute, fixed_shape=job.feed.fixed_shape, ranks=ranks
        )
        # What a follower would report is what the first process reports: it goes to a folder that
        # ends with it.
        self._own = None if ranks.leads else tempfile.TemporaryDirectory()
        reports = Path(self._own.name) if self._own else workspace
        sinks = Sinks(
            host.track if job.track and ranks.leads else None,
            job.track or workspace,
            job.stage,
            workspace,
        )
        self.reports = Reports(
            reports,
            model,
            compute,
            job.config,
            job.clock,
            sinks,
            job.gpu_hour_usd,
            devices=ranks.count,
        )
        self.states = States(workspace, job.stage, job.config, self.engine, ranks)
        self.losses = LossQueue(ranks)
        self.at = Progressed(SpikeWatch(job.config.spike_factor, job.config.spike_nats))
        self.signals = LateSignals(self._say_that_it_stops)
        self._last_saved = time.monotonic()

    def train(self) -> Outcome:
        """Resume where the workspace stands, train to the last step, evaluate, and leave the model
        in place.
        """
        with self.ranks.together():
            return self._train()

    def _train(self) -> Outcome:
        try:
            held_out = self._resume()
            # What stands now stays: the collector need not look through it again in the middle of a
            # step.
            gc.collect()
            gc.freeze()
            self.job.clock.mark("state")
            if self.engine.compute.compiled and not self.quiet:
                say(
                    f"{self.job.stage}: compiling the step (minutes the first time, then from the"
                    " cache)"
                )
            with self._progress() as progress, self.signals:
                progress.start_at(self.at.step)
                progress.advance(0)
                while self.at.step < self.config.steps:
                    try:
                        held_out = self._step_and_what_is_due(progress) or held_out
                    except _GoBack as back:
                        held_out = self._go_back(back.step, progress)
            self.states.writer.finish()
            assert held_out is not None, "the last step is evaluated"
            scored_step, held_out = self._chosen_weights(held_out)
        finally:
            self.states.writer.close()
            self.reports.close()
            self.job.feed.close()
            gc.unfreeze()
        at = replay_step(self.config) if self.job.stage == "base" else None
        replay = state_folder(self.workspace, at) if at is not None else None
        journals = self.reports.curve.path, self.reports.metrics.path
        return Outcome(self._record(), scored_step, held_out, *journals, replay)

    def _progress(self) -> Progress:
        return Progress(
            self.job.stage, self.config.steps, "steps", quiet=self.quiet, own_pace=False
        )

    def _step_and_what_is_due(self, progress: Progress) -> HeldOut | None:
        """One step; then what is due after it: a report, a saved state, a stop, an evaluation, in
        this order.
        """
        self._step()
        evaluate = evaluates_after(self.at.step, self.config)
        minutes_over = self._minutes_since_save() > self.host.checkpoint_minutes
        report = self.reports.is_due(self.at.step, REPORT_EVERY_STEPS, REPORT_EVERY_SECONDS)
        # What clocks and signals decide, all processes decide together: they exchange losses and
        # states.
        number, over, report = self.ranks.agree(self.signals.number or 0, minutes_over, report)
        save = bool(evaluate or number or over)
        if save or report:
            self._report(wait=save or self.reports.warming_up)
        progress.note = self.reports.note()
        progress.advance(1)
        if save:
            self._save()
        if number:
            self._stop(number)
        held_out = self._evaluate() if evaluate else None
        progress.note = self.reports.note()
        return held_out

    def _step(self) -> None:
        started = time.monotonic()
        fed = self.job.feed.step(self.at.step + self.at.skipped)
        self.reports.waited(time.monotonic() - started)
        share = lr_share(self.at.step, self.config)
        loss, norm = self.engine.step(fed, share)
        self.at.step += 1
        self.at.tokens += fed.ids_BT.numel() * self.ranks.count
        self.losses.add(self.at.step, loss, norm, share, self.at.tokens)

    def _report(self, *, wait: bool) -> None:
        """Write and check the losses that are here; all since the last report where `wait`."""
        self.states.writer.check()
        for result in self.losses.fetch(wait=wait):
            self._check(result)
            self.at.first_loss = result.loss if self.at.first_loss is None else self.at.first_loss
            self.at.last_loss = result.loss
            self.reports.step(result)
        self.reports.speed(self.at.step, self.at.tokens)

    def _check(self, result: StepResult) -> None:
        if not math.isfinite(result.loss):
            raise HonestNo(
                f"{self.job.stage}: the loss at step {result.step} is not finite",
                fix=(
                    f"a smaller --set {self.job.stage}.muon_lr=... or"
                    f" {self.job.stage}.adamw_lr=...; the state before it is kept"
                ),
            )
        mean = self.at.watch.mean
        if not self.at.watch.is_spike(result.step, result.loss):
            return
        above = (
            f"{result.loss:.3f} is over {self.at.watch.factor:g} times its running mean of"
            f" {mean:.3f}"
        )
        self._warn(f"loss spike at step {result.step}: {above}")
        self.reports.spike(result.step, result.loss, mean, len(self.at.watch.steps))
        if self.at.rollbacks < self.config.spike_rollbacks:
            if evaluation_before(result.step, self.config) is not None:
                raise _GoBack(result.step)
            self._warn("there was no evaluation before it to go back to; training goes on")

    def _evaluate(self) -> HeldOut:
        started = time.monotonic()
        self.model.eval()
        with torch.no_grad():
            held_out = self.job.evaluate(self.model)
        self.model.train()
        self.engine.layout.settle()
        if self.at.best is None or held_out.loss < self.at.best.held_out_loss:
            self.at.best = BestSoFar(
                step=self.at.step,
                held_out_loss=held_out.loss,
                held_out_bits_per_byte=held_out.bits_per_byte,
            )
        self.reports.evaluation(self.at.step, self.at.tokens, held_out, time.monotonic() - started)
        bits = (
            f", {held_out.bits_per_byte:.4f} bits per byte"
            if held_out.bits_per_byte is not None
            else ""
        )
        self._say(f"step {self.at.step}: held-out loss {held_out.loss:.4f}{bits}")
        return held_out

    def _say(self, message: str) -> None:
        if not self.quiet:
            say(f"{self.job.stage}: {message}")

    def _say_that_it_stops(self) -> None:
        if not self.quiet:
            say_in_handler("stopping after this step; once more stops at once")

    def _warn(self, message: str) -> None:
        """Said by the first process, quiet or not."""
        if self.ranks.leads:
            say(f"{self.job.stage}: {message}")

    def _save(self) -> None:
        started = time.monotonic()
        if self.ranks.leads or self.ranks.sharded:
            self.states.writer.save(
                self._record(), self.model.state_dict(), self.engine.optimizer.state()
            )
        self._last_saved = time.monotonic()
        self.reports.saved(self.at.step, self._last_saved - started)

    def _record(self) -> StateRecord:
        return self.at.record(self.engine.micro_batch)

    def _minutes_since_save(self) -> float:
        return (time.monotonic() - self._last_saved) / 60

    def _stop(self, signal_number: int) -> None:
        self.states.writer.finish()
        raise Interrupted(
            signal_number,
            f"{self.job.stage}: stopped and saved after step {self.at.step} of {self.config.steps}",
            fix="the same command goes on from here",
        )

    def _resume(self) -> HeldOut | None:
        """Load the newest state and cut the journals back to it.

        An evaluation that is due at that step is taken again.
        """
        state = self.states.newest()
        if state is not None:
            self._restore(state)
        self.reports.take_up(
            self.at.step, self.at.tokens, len(self.at.watch.steps), self.at.rollbacks
        )
        if state is None:
            return None
        self._say(f"resumed after step {self.at.step} of {self.config.steps}")
        return self._evaluate() if evaluates_after(self.at.step, self.config) else None

    def _restore(self, state: SavedState) -> None:
        self.model.load_state_dict(state.weights)
        self.engine.optimizer.load_state(state.optimizer)
        self.engine.micro_batch = state.record.micro_batch
        self.at = progressed(state.record, self.config)

    def _go_back(self, spike_step: int, progress: Progress) -> HeldOut:
        """Return to the evaluation before a spike, and go on with the rows after those of the
        spike.
        """
        self.states.writer.finish()
        self.losses.clear()
        before = self.at
        target = evaluation_before(spike_step, self.config)
        assert target is not None, "see _check"
        self.states.drop_after(target)
        self._restore(self.states.older(target))
        self.at.skipped = before.skipped + spike_step - target
        self.at.rollbacks = before.rollbacks + 1
        self.at.watch.steps = before.watch.steps
        self.reports.cut_back(target, self.at.tokens, len(self.at.watch.steps), self.at.rollbacks)
        self.reports.rollback(target, spike_step, self.at.rollbacks)
        progress.start_at(target)
        self._warn(f"went back to step {target}, and on with the rows after the spike")
        return self._evaluate()

    def _chosen_weights(self, last: HeldOut) -> tuple[int, HeldOut]:
        """(step, evaluation) of the weights to publish; loads those of the best evaluation where
        these are asked for.
        """
        best = self.at.best
        if self.config.publish == "last" or best is None or best.step == self.at.step:
            return self.at.step, last
        self.model.load_state_dict(self.states.older(best.step).weights)
        self._say(
            f"the weights of step {best.step} are published, where the held-out loss was smallest"
        )
        return best.step, HeldOut(best.held_out_loss, best.held_out_bits_per_byte)
