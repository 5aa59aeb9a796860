"""The only training loop. Base and SFT differ in their rows and in what is evaluated, not in how they are trained.

Promises: a resumed run equals an uninterrupted one bit for bit on the same CPU machine; the training state is saved before
every evaluation, every few minutes and on SIGINT or SIGTERM, and written while training goes on. A loss that is not finite
stops the run, and the state before it is kept. What a rollback goes back to follows from the steps alone, never from the
clock. Does not choose what is trained on (train/pretrain.py, train/finetune.py), how
a step is computed (train/engine.py), nor the rate (train/schedule.py).
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from picochat.config import HostConfig, TrainConfig
from picochat.core.errors import HonestNo, Interrupted
from picochat.core.progress import Progress, say
from picochat.model.compute import Compute
from picochat.model.gpt import GPT
from picochat.train.checkpoint import (
    BestSoFar,
    SavedState,
    StateRecord,
    StateWriter,
    drop_states_after,
    load_latest_state,
    load_state,
    state_folder,
)
from picochat.train.engine import Engine
from picochat.train.feed import Feed
from picochat.train.live import HeldOut, LossQueue, Reports, StepResult
from picochat.train.schedule import lr_share
from picochat.train.signals import LateSignals
from picochat.train.spikes import SpikeWatch

REPORT_EVERY_STEPS = 10


@dataclass(frozen=True)
class Job:
    """What is trained, on what: a stage's name, its settings, the rows of each step, and its held-out evaluation.

    `gpu_hour_usd`: what an hour of one device costs, for the progress line.
    """

    stage: Literal["base", "sft"]
    config: TrainConfig
    feed: Feed
    evaluate: Callable[[GPT], HeldOut]
    gpu_hour_usd: float | None = None


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


def progressed(record: StateRecord, spike_factor: float) -> Progressed:
    """What the loop knew when `record` was saved."""
    watch = SpikeWatch(spike_factor, record.spike_mean, record.spike_seen, list(record.spike_steps))
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

    `scored_step`: the step whose weights the model holds, the last or the best; `held_out`: what they were worth.
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


def evaluates_after(step: int, config: TrainConfig) -> bool:
    """Whether the held-out set is evaluated after `step` finished steps."""
    return step == config.steps or (config.eval_every is not None and step % config.eval_every == 0)


def evaluation_before(step: int, config: TrainConfig) -> int | None:
    """The last step before `step` after which the held-out set is evaluated; None where there is none."""
    if config.eval_every is None or step <= config.eval_every:
        return None
    return (step - 1) // config.eval_every * config.eval_every


def replay_step(config: TrainConfig) -> int | None:
    """The state that a replay starts from: at the last evaluation before the end, so that it can reach the final weights."""
    return evaluation_before(config.steps, config)


def kept_steps(record: StateRecord, job: Job) -> set[int]:
    """Older states that are still needed after `record.step`: the best, the one to replay from, the one to go back to."""
    steps = {
        record.best.step if record.best else None,
        replay_step(job.config) if job.stage == "base" else None,
        evaluation_before(record.step + 1, job.config) if job.config.spike_rollbacks else None,
    }
    return {step for step in steps if step is not None}


class Trainer:
    """One stage of training in a workspace that outlives kills. Use `train`."""

    def __init__(
        self, model: GPT, job: Job, compute: Compute, host: HostConfig, workspace: Path, *, quiet: bool = False
    ) -> None:
        self.model, self.job, self.config, self.host, self.workspace = model, job, job.config, host, workspace
        self.quiet = quiet
        self.engine = Engine(model, job.config, compute, fixed_shape=job.feed.fixed_shape)
        self.reports = Reports(workspace, model, compute, job.gpu_hour_usd)
        self.states = StateWriter(workspace, lambda record: kept_steps(record, job))
        self.losses = LossQueue()
        self.at = Progressed(SpikeWatch(job.config.spike_factor))
        self.signals = LateSignals(lambda: say("stopping after this step; once more stops at once"))
        self._last_saved = time.monotonic()

    def train(self) -> Outcome:
        """Resume where the workspace stands, train to the last step, evaluate, and leave the model in place."""
        try:
            held_out = self._resume()
            # What stands now stays: the collector need not look through it again in the middle of a step.
            gc.collect()
            gc.freeze()
            with Progress(self.job.stage, self.config.steps, "steps", quiet=self.quiet) as progress, self.signals:
                progress.start_at(self.at.step)
                while self.at.step < self.config.steps:
                    try:
                        held_out = self._step_and_what_is_due(progress) or held_out
                    except _GoBack as back:
                        held_out = self._go_back(back.step, progress)
            self.states.finish()
            assert held_out is not None, "the last step is evaluated"
            scored_step, held_out = self._chosen_weights(held_out)
        finally:
            self.states.close()
            self.job.feed.close()
            gc.unfreeze()
        at = replay_step(self.config) if self.job.stage == "base" else None
        replay = state_folder(self.workspace, at) if at is not None else None
        journals = self.reports.curve.path, self.reports.metrics.path
        return Outcome(self._record(), scored_step, held_out, *journals, replay)

    def _step_and_what_is_due(self, progress: Progress) -> HeldOut | None:
        """One step; then what is due after it: a report, a saved state, a stop, an evaluation, in this order."""
        self._step()
        progress.advance(1)
        evaluate = evaluates_after(self.at.step, self.config)
        save = evaluate or self.signals.number is not None or self._minutes_since_save() > self.host.checkpoint_minutes
        if save or self.at.step % REPORT_EVERY_STEPS == 0:
            self._report(progress, wait=save)
        if save:
            self._save()
        if self.signals.number is not None:
            self._stop(self.signals.number)
        return self._evaluate() if evaluate else None

    def _step(self) -> None:
        started = time.monotonic()
        fed = self.job.feed.step(self.at.step + self.at.skipped)
        self.reports.waited(time.monotonic() - started)
        share = lr_share(self.at.step, self.config)
        loss, norm = self.engine.step(fed, share)
        self.at.step += 1
        self.at.tokens += fed.ids_BT.numel()
        self.losses.add(self.at.step, loss, norm, share, self.at.tokens)

    def _report(self, progress: Progress, *, wait: bool) -> None:
        """Write and check the losses that are here; all since the last report where `wait`."""
        self.states.check()
        for result in self.losses.fetch(wait=wait):
            self._check(result)
            self.at.first_loss = result.loss if self.at.first_loss is None else self.at.first_loss
            self.at.last_loss = result.loss
            self.reports.step(result)
        self.reports.speed(self.at.step, self.at.tokens)
        progress.note = self.reports.note(self.config.steps - self.at.step)

    def _check(self, result: StepResult) -> None:
        if not math.isfinite(result.loss):
            raise HonestNo(
                f"{self.job.stage}: the loss at step {result.step} is not finite",
                fix=f"a smaller --set {self.job.stage}.muon_lr=... or {self.job.stage}.adamw_lr=...; the state before it is kept",
            )
        if not self.at.watch.is_spike(result.step, result.loss):
            return
        factor = self.at.watch.factor
        say(f"{self.job.stage}: loss spike at step {result.step}: {result.loss:.3f} is over {factor:g} times its running mean")
        if self.at.rollbacks < self.config.spike_rollbacks:
            if evaluation_before(result.step, self.config) is not None:
                raise _GoBack(result.step)
            say(f"{self.job.stage}: there was no evaluation before it to go back to; training goes on")

    def _evaluate(self) -> HeldOut:
        started = time.monotonic()
        self.model.eval()
        with torch.no_grad():
            held_out = self.job.evaluate(self.model)
        self.model.train()
        if self.at.best is None or held_out.loss < self.at.best.held_out_loss:
            self.at.best = BestSoFar(
                step=self.at.step, held_out_loss=held_out.loss, held_out_bits_per_byte=held_out.bits_per_byte
            )
        self.reports.evaluation(self.at.step, self.at.tokens, held_out, time.monotonic() - started)
        if not self.quiet:
            bits = f", {held_out.bits_per_byte:.4f} bits per byte" if held_out.bits_per_byte is not None else ""
            say(f"{self.job.stage}: step {self.at.step}: held-out loss {held_out.loss:.4f}{bits}")
        return held_out

    def _save(self) -> None:
        self.states.save(self._record(), self.model.state_dict(), self.engine.optimizer.state())
        self._last_saved = time.monotonic()

    def _record(self) -> StateRecord:
        return self.at.record(self.engine.rows)

    def _minutes_since_save(self) -> float:
        return (time.monotonic() - self._last_saved) / 60

    def _stop(self, signal_number: int) -> None:
        self.states.finish()
        raise Interrupted(
            signal_number,
            f"{self.job.stage}: stopped and saved after step {self.at.step} of {self.config.steps}",
            fix="the same command goes on from here",
        )

    def _resume(self) -> HeldOut | None:
        """Load the newest state and cut the journals back to it. An evaluation that is due at that step is taken again."""
        state = load_latest_state(self.workspace)
        if state is not None:
            self._restore(state)
        self.reports.cut_back(self.at.step, self.at.tokens)
        if state is None:
            return None
        if not self.quiet:
            say(f"{self.job.stage}: resumed after step {self.at.step} of {self.config.steps}")
        return self._evaluate() if evaluates_after(self.at.step, self.config) else None

    def _restore(self, state: SavedState) -> None:
        self.model.load_state_dict(state.weights)
        self.engine.optimizer.load_state(state.optimizer)
        self.engine.rows = state.record.micro_batch
        self.at = progressed(state.record, self.config.spike_factor)

    def _go_back(self, spike_step: int, progress: Progress) -> HeldOut:
        """Return to the evaluation before a spike, and go on with the rows after those of the spike."""
        self.states.finish()
        self.losses.clear()
        before = self.at
        target = evaluation_before(spike_step, self.config)
        assert target is not None, "see _check"
        drop_states_after(self.workspace, target)
        self._restore(load_state(state_folder(self.workspace, target)))
        self.at.skipped = before.skipped + spike_step - target
        self.at.rollbacks = before.rollbacks + 1
        self.at.watch.steps = before.watch.steps
        self.reports.cut_back(target, self.at.tokens)
        progress.start_at(target)
        say(f"{self.job.stage}: went back to step {target}, and on with the rows after the spike")
        return self._evaluate()

    def _chosen_weights(self, last: HeldOut) -> tuple[int, HeldOut]:
        """(step, evaluation) of the weights to publish; loads those of the best evaluation where these are asked for."""
        best = self.at.best
        if self.config.publish == "last" or best is None or best.step == self.at.step:
            return self.at.step, last
        self.model.load_state_dict(load_state(state_folder(self.workspace, best.step)).weights)
        say(f"{self.job.stage}: the weights of step {best.step} are published, where the held-out loss was smallest")
        return best.step, HeldOut(best.held_out_loss, best.held_out_bits_per_byte)
