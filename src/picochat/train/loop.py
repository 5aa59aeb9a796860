"""The only training loop.

Base and SFT differ in their rows and their evaluation, not in training. A resumed run equals an
uninterrupted one bit for bit on the same CPU machine. The train state is saved before every
evaluation, every few minutes and on SIGINT or SIGTERM, and written while training goes on. A loss
that is not finite stops the run, and the state before it is kept. Does not choose rows
(train/base.py, train/sft.py), compute a step (train/step.py), know what a state is on disk
(train/checkpoint.py), nor set rates (train/schedule.py).
"""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from picochat.config import HostConfig, TrainConfig, flops_per_token
from picochat.core.errors import CheckFailed, Interrupted
from picochat.core.progress import Progress, say, say_in_handler
from picochat.facts import STATES
from picochat.model.gpt import GPT
from picochat.model.runtime import Runtime, peak_flops, peak_memory_bytes
from picochat.train.checkpoint import (
    BestSoFar,
    SavedState,
    StateWriter,
    TrainState,
    blank_state,
    drop_states_after,
    kept_steps,
    load_state,
    newest_state,
    require_whole,
    state_folder,
    sweep_half_written,
)
from picochat.train.distributed import ONE_PROCESS, ProcessGroup
from picochat.train.held_out import HeldOut
from picochat.train.loader import Loader
from picochat.train.metrics import MetricsLogger, StartupTimer
from picochat.train.schedule import (
    evaluates_after,
    evaluation_before,
    half_the_rates,
    is_spike,
    lr_fraction,
    replay_step,
    running_mean,
)
from picochat.train.signals import DeferredSignals
from picochat.train.step import Engine, LossQueue, StepResult
from picochat.train.trackers import Trackers

if TYPE_CHECKING:
    from picochat.train.sharded_checkpoint import ShardedStateWriter

REPORT_EVERY_STEPS, REPORT_EVERY_SECONDS = 10, 5.0


@dataclass(frozen=True)
class Job:
    """What is trained: a stage's name, its settings, the rows of each step, and its evaluation.

    `gpu_hour_usd`: price of one device, for the progress line. `track`: the folder of trackers;
    None: no tracker. `timer`: runs since the stage began.
    """

    stage: Literal["base", "sft"]
    config: TrainConfig
    loader: Loader
    evaluate: Callable[[GPT], HeldOut]
    gpu_hour_usd: float | None = None
    track: Path | None = None
    timer: StartupTimer = field(default_factory=StartupTimer)


@dataclass(frozen=True)
class Outcome:
    """A finished stage: its counters, its journals, and the state to replay from.

    `scored_step`: whose weights the model holds, the last or the best; `held_out`: their loss.
    `states`: the journal of saved states.
    """

    state: TrainState
    scored_step: int
    held_out: HeldOut
    curve: Path
    metrics: Path
    states: Path
    replay: Path | None


class _Rollback(Exception):
    """A spike after which the loop returns to the evaluation before it."""

    def __init__(self, spike_step: int) -> None:
        super().__init__()
        self.spike_step = spike_step


class Trainer:
    """One stage of training, in a workspace that outlives kills.

    With several processes each has a Trainer of the same job and workspace. Losses, and what is
    decided from them, are the same everywhere; signals and minutes are agreed on after each step.
    The main process reports and saves; sharded, all save.
    """

    def __init__(
        self,
        model: GPT,
        job: Job,
        runtime: Runtime,
        host: HostConfig,
        workspace: Path,
        *,
        quiet: bool = False,
        group: ProcessGroup = ONE_PROCESS,
    ) -> None:
        self.model, self.job, self.config = model, job, job.config
        self.host, self.workspace, self.group = host, workspace, group
        self.quiet = quiet or not group.is_main
        self.engine = Engine(
            model, job.config, runtime, fixed_shape=job.loader.fixed_shape, group=group
        )
        # A worker would report the same as the main process: its journals go to a folder that is
        # deleted with it.
        self._own_folder = None if group.is_main else tempfile.TemporaryDirectory()
        peak = peak_flops(runtime.device)
        self.metrics = MetricsLogger(
            Path(self._own_folder.name) if self._own_folder else workspace,
            job.config,
            job.timer,
            Trackers(
                host.track if job.track and group.is_main else None,
                job.track or workspace,
                job.stage,
                workspace,
            ),
            flops_per_token=flops_per_token(model.config, model.vocab_size),
            peak_flops=peak * group.size if peak else None,
            usd_per_hour=None if job.gpu_hour_usd is None else job.gpu_hour_usd * group.size,
            peak_memory=lambda: peak_memory_bytes(runtime.device),
        )
        self.writer = self._open_writer()
        self.losses = LossQueue(group)
        self.state = blank_state()
        self.signals = DeferredSignals(self._say_that_it_stops)
        self._last_saved = time.monotonic()

    @property
    def keeps_states(self) -> bool:
        """Whether every state is kept; SFT is not replayed, so nobody needs its states."""
        return self.host.keep_states and self.job.stage == "base"

    def train(self) -> Outcome:
        """Resume where the workspace stands, train to the last step, and evaluate.

        Leaves the weights to publish in the model.
        """
        with self.group.watched():
            return self._train()

    def _train(self) -> Outcome:
        try:
            held_out = self._resume()
            # Freeze all objects that exist now: the collector would look through them again and
            # again, in the middle of a step.
            gc.collect()
            gc.freeze()
            self.job.timer.mark("state")
            if self.engine.runtime.compiled and not self.quiet:
                say(
                    f"{self.job.stage}: compiling the step (minutes the first time, then from the"
                    " cache)"
                )
            # The line's own rate is off: that of the note leaves compiling and evaluations out.
            with (
                Progress(
                    self.job.stage, self.config.steps, "steps", quiet=self.quiet, own_pace=False
                ) as progress,
                self.signals,
            ):
                progress.start_at(self.state.step)
                progress.advance(0)
                while self.state.step < self.config.steps:
                    try:
                        held_out = self._step_and_what_is_due(progress) or held_out
                    except _Rollback as rollback:
                        held_out = self._roll_back(rollback.spike_step, progress)
            self.writer.finish()
            assert held_out is not None, "the last step is evaluated"
            scored_step, held_out = self._load_weights_to_publish(held_out)
        finally:
            self.writer.close()
            self.metrics.close()
            self.job.loader.close()
            gc.unfreeze()
        at = replay_step(self.config) if self.job.stage == "base" else None
        return Outcome(
            state=self._snapshot(),
            scored_step=scored_step,
            held_out=held_out,
            curve=self.metrics.curve.path,
            metrics=self.metrics.metrics.path,
            states=self.workspace / STATES,
            replay=state_folder(self.workspace, at) if at is not None else None,
        )

    def _step_and_what_is_due(self, progress: Progress) -> HeldOut | None:
        """One step, then what is due: a report, a saved state, a stop, an evaluation, in order."""
        self._step()
        evaluate = evaluates_after(self.state.step, self.config)
        minutes_over = (time.monotonic() - self._last_saved) / 60 > self.host.checkpoint_minutes
        report = self.metrics.is_due(self.state.step, REPORT_EVERY_STEPS, REPORT_EVERY_SECONDS)
        # Clocks and signals differ between processes. All must decide alike, because they exchange
        # losses in a report and states in a save.
        number, minutes_over, report = self.group.all_max(
            self.signals.number or 0, minutes_over, report
        )
        # Saved before it is evaluated, so that an evaluation that fails costs no step.
        save = bool(evaluate or number or minutes_over)
        if save or report:
            self._report(wait=save or self.metrics.warming_up)
        progress.note = self.metrics.note()
        progress.advance(1)
        if save:
            self._save()
        if number:
            self._stop(number)
        held_out = self._evaluate() if evaluate else None
        progress.note = self.metrics.note()
        return held_out

    def _step(self) -> None:
        started = time.monotonic()
        # Rows that rollbacks passed over are never read again.
        batch = self.job.loader.batch(self.state.step + self.state.skipped)
        self.metrics.waited(time.monotonic() - started)
        fraction = lr_fraction(self.state.step, self.config)
        loss, norm = self.engine.step(batch, fraction)
        self.state.step += 1
        self.state.tokens += batch.ids_BT.numel() * self.group.size
        self.losses.add(self.state.step, loss, norm, fraction, self.state.tokens)

    # ---- losses ----------------------------------------------------------------------------------

    def _report(self, *, wait: bool) -> None:
        """Check and write the losses that have arrived; with `wait` all since the last report."""
        self.writer.check()
        for result in self.losses.fetch(wait=wait):
            self._check(result)
            if self.state.first_loss is None:
                self.state.first_loss = result.loss
            self.state.last_loss = result.loss
            self.metrics.step(result)
        self.metrics.report(self.state.step, self.state.tokens)

    def _check(self, result: StepResult) -> None:
        """Stop at a loss that is not finite; warn of a spike, and go back if that is asked for."""
        if not math.isfinite(result.loss):
            raise CheckFailed(
                f"{self.job.stage}: the loss at step {result.step} is not finite",
                fix=self._smaller_rate(),
            )
        state, mean = self.state, self.state.spike_mean
        spike = is_spike(result.loss, mean, state.spike_seen, self.config)
        state.spike_mean = running_mean(mean, result.loss)
        state.spike_seen += 1
        if not spike or mean is None:
            return
        state.spike_steps.append(result.step)
        self._warn(
            f"loss spike at step {result.step}: {result.loss:.3f} is over"
            f" {self.config.spike_factor:g} times its running mean of {mean:.3f}"
        )
        self.metrics.spike(result.step, result.loss, mean, len(state.spike_steps))
        if state.rollbacks < self.config.spike_rollbacks:
            if evaluation_before(result.step, self.config) is not None:
                raise _Rollback(result.step)
            self._warn("there was no evaluation before it to go back to; training goes on")

    def _roll_back(self, spike_step: int, progress: Progress) -> HeldOut:
        """Go back to the evaluation before a spike, and on with the rows after those of the spike.

        Not to the newest state: which state is newest depends on the clock, and the weights must
        follow from data and seed.
        """
        self.writer.finish()
        self.losses.clear()  # they belong to steps that are trained again
        before = self.state
        target = evaluation_before(spike_step, self.config)
        assert target is not None, "see _check"
        if self.group.is_main:
            drop_states_after(self.workspace, target)
        self._restore(self._older_state(target))
        # The target's state knows nothing of what came after it. What this rollback passes over is
        # added to what earlier ones did, so that no skipped row comes back.
        self.state.skipped = before.skipped + spike_step - target
        self.state.rollbacks = before.rollbacks + 1
        self.state.spike_steps = before.spike_steps
        self.metrics.cut_back(
            target, self.state.tokens, len(self.state.spike_steps), self.state.rollbacks
        )
        self.metrics.rollback(target, spike_step, self.state.rollbacks)
        progress.start_at(target)
        self._warn(f"went back to step {target}, and on with the rows after the spike")
        return self._evaluate()

    # ---- evaluation ------------------------------------------------------------------------------

    def _evaluate(self) -> HeldOut:
        started = time.monotonic()
        self.model.eval()
        with torch.no_grad():
            held_out = self.job.evaluate(self.model)
        self.model.train()
        self.engine.strategy.after_evaluation()
        if held_out.loss is not None and not math.isfinite(held_out.loss):
            raise CheckFailed(
                f"{self.job.stage}: the held-out loss after step {self.state.step} is not finite",
                fix=self._smaller_rate(),
            )
        best = self.state.best
        if held_out.loss is not None and (best is None or held_out.loss < best.held_out_loss):
            self.state.best = BestSoFar(
                step=self.state.step,
                held_out_loss=held_out.loss,
                held_out_bits_per_byte=held_out.bits_per_byte,
            )
        self.metrics.evaluation(
            self.state.step, self.state.tokens, held_out, time.monotonic() - started
        )
        if held_out.loss is None:
            self._say(f"step {self.state.step}: nothing is held out, so no loss is measured")
            return held_out
        bits = (
            f", {held_out.bits_per_byte:.4f} bits per byte"
            if held_out.bits_per_byte is not None
            else ""
        )
        self._say(f"step {self.state.step}: held-out loss {held_out.loss:.4f}{bits}")
        return held_out

    def _load_weights_to_publish(self, last: HeldOut) -> tuple[int, HeldOut]:
        """(step, evaluation) of the weights to publish: the last or, if asked for, the best."""
        best = self.state.best
        if self.config.publish == "last" or best is None or best.step == self.state.step:
            return self.state.step, last
        self.model.load_state_dict(self._older_state(best.step).weights)
        self._say(
            f"the weights of step {best.step} are published, where the held-out loss was smallest"
        )
        return best.step, HeldOut(best.held_out_loss, best.held_out_bits_per_byte)

    # ---- states ----------------------------------------------------------------------------------

    def _open_writer(self) -> StateWriter | ShardedStateWriter:
        if self.group.is_main:
            sweep_half_written(self.workspace)

        def kept(state: TrainState) -> Collection[int]:
            if self.keeps_states:
                return range(state.step + 1)
            return kept_steps(state, self.job.stage, self.config)

        if not self.group.sharded:
            return StateWriter(self.workspace, kept)
        # torch.distributed.checkpoint takes as long to load as a small test.
        from picochat.train.sharded_checkpoint import ShardedStateWriter

        return ShardedStateWriter(self.workspace, kept, self.group)

    def _save(self) -> None:
        started = time.monotonic()
        if not self._is_finite():
            # A saved state must never be one that no training can go on from.
            raise CheckFailed(
                f"{self.job.stage}: weights or optimizer state are not finite after step"
                f" {self.state.step}; the state before it is kept",
                fix=self._smaller_rate(),
            )
        if self.group.is_main or self.group.sharded:
            self.writer.save(
                self._snapshot(), self.model.state_dict(), self.engine.optimizer.state()
            )
        self._last_saved = time.monotonic()
        self.metrics.saved(self.state.step, self._last_saved - started)

    def _snapshot(self) -> TrainState:
        """A copy of the state as it is now, which a thread may write while training goes on."""
        return self.state.model_copy(update={"micro_batch": self.engine.micro_batch}, deep=True)

    def _stop(self, signal_number: int) -> None:
        self.writer.finish()  # the message says that it is saved
        raise Interrupted(
            signal_number,
            f"{self.job.stage}: stopped and saved after step {self.state.step} of"
            f" {self.config.steps}",
            fix="the same command goes on from here",
        )

    def _resume(self) -> HeldOut | None:
        """Load the newest state and cut the journals back to it.

        An evaluation that is due at that step is taken again, and returned.
        """
        newest = newest_state(self.workspace) if self.group.is_main else None
        # The main process decides: others may not see a folder yet, or may see a damaged one whole.
        name = self.group.broadcast(newest.name if newest else None)
        if name is not None:
            self._restore(self._load(self.workspace / name))
        state = self.state
        if self.group.is_main:
            drop_states_after(self.workspace, state.step)
        self.metrics.resume(state.step, state.tokens, len(state.spike_steps), state.rollbacks)
        if name is None:
            return None
        self._say(f"resumed after step {state.step} of {self.config.steps}")
        return self._evaluate() if evaluates_after(state.step, self.config) else None

    def _older_state(self, step: int) -> SavedState:
        """The state of an earlier step. Raises BadInput where it is damaged or gone."""
        folder = state_folder(self.workspace, step)
        if self.group.is_main:
            require_whole(folder)
        self.group.barrier()
        return self._load(folder)

    def _load(self, folder: Path) -> SavedState:
        """A state, or this process's parts of it. All processes call it together."""
        sharding = self.engine.strategy.sharding
        if sharding is None:
            return load_state(folder)
        from picochat.train.sharded_checkpoint import load_sharded_state

        return load_sharded_state(folder, self.model, self.engine.optimizer, sharding)

    def _restore(self, saved: SavedState) -> None:
        self.model.load_state_dict(saved.weights)
        self.engine.optimizer.load_state(saved.optimizer)
        self.engine.micro_batch = saved.state.micro_batch
        self.state = saved.state

    def _is_finite(self) -> bool:
        """Whether all weights and all optimizer state are finite; the same in every process."""
        tensors = [*self.model.state_dict().values(), *self.engine.optimizer.state().values()]
        # Sharded tensors are looked at in parts, each by the process that holds it.
        local = [getattr(tensor, "to_local", lambda t=tensor: t)() for tensor in tensors]
        by_device: dict[torch.device, list[Tensor]] = {}
        for tensor in local:
            if tensor.is_floating_point() and tensor.numel():
                by_device.setdefault(tensor.device, []).append(torch.isfinite(tensor).all())
        # One question to a device, not one for each tensor: each makes the device wait.
        broken = any(not torch.stack(finite).all() for finite in by_device.values())
        return not self.group.all_max(broken)[0]

    def _smaller_rate(self) -> str:
        options = half_the_rates(self.job.stage, self.config)
        return f"a smaller rate trains again from the start: {options}"

    # ---- messages --------------------------------------------------------------------------------

    def _say(self, message: str) -> None:
        if not self.quiet:
            say(f"{self.job.stage}: {message}")

    def _warn(self, message: str) -> None:
        """Say it in the main process, even if quiet."""
        if self.group.is_main:
            say(f"{self.job.stage}: {message}")

    def _say_that_it_stops(self) -> None:
        if not self.quiet:
            say_in_handler("stopping after this step; once more stops at once")
