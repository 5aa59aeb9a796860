"""The loop: a resumed run equals an uninterrupted one, and micro-batches do not matter."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from picochat.config import HostConfig, ModelConfig, RuntimeConfig, TrainConfig
from picochat.core.errors import CheckFailed, Interrupted
from picochat.core.journal import read_journal
from picochat.model.centred import centre_
from picochat.model.gpt import GPT, initialise
from picochat.model.runtime import Runtime, open_runtime
from picochat.train.checkpoint import saved_steps
from picochat.train.held_out import HeldOut
from picochat.train.loader import Batch, HostLoader, shifted_batch
from picochat.train.loop import Job, Outcome, Trainer

CONFIG = ModelConfig(
    context=16, layers=2, width=32, heads=2, kv_heads=1, head_width=16, mlp_width=48
)
ROWS = np.random.default_rng(0).integers(0, 61, (64, 17))


def make_model() -> GPT:
    model = GPT(CONFIG, 61)
    initialise(model, 0)
    centre_(model)
    return model


def batch_of(step: int) -> Batch:
    block = ROWS[(np.arange(8) + 8 * step) % 64]
    return shifted_batch(block)


def evaluate(model: GPT) -> HeldOut:
    ids = torch.from_numpy(ROWS[:4])
    return HeldOut(float(model.loss_sum(ids[:, :-1], ids[:, 1:])) / 64, 1.0)


def train(
    workspace: Path, *, batches=batch_of, host: HostConfig | None = None, **settings: object
) -> tuple[GPT, Outcome]:
    config = TrainConfig.model_validate(
        {"steps": 12, "sequences_per_step": 8, "eval_every": 4, "muon_lr": 0.01, **settings}
    )
    compute: Runtime = open_runtime(RuntimeConfig(threads=1), CONFIG)
    model = make_model()
    loader = HostLoader(batches, compute.device, fixed_shape=True)
    outcome = Trainer(
        model, Job("base", config, loader, evaluate), compute, host or HostConfig(), workspace
    ).train()
    return model, outcome


def stop_at(step: int, number: int = signal.SIGTERM):
    def batches(at: int) -> Batch:
        if at == step:
            os.kill(os.getpid(), number)
        return batch_of(at)

    return batches


def test_resumed_training_equals_uninterrupted(tmp_path: Path) -> None:
    straight, outcome = train(tmp_path / "a")
    for step, number in (
        (2, signal.SIGTERM),
        (3, signal.SIGINT),
        (7, signal.SIGTERM),
        (11, signal.SIGTERM),
    ):
        with pytest.raises(Interrupted) as stopped:
            train(tmp_path / "b", batches=stop_at(step, number))
        assert stopped.value.exit_code == 128 + number
    resumed, again = train(tmp_path / "b")
    assert all(
        torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True)
    )
    assert outcome.curve.read_bytes() == again.curve.read_bytes()
    assert outcome.state == again.state


def test_training_learns_and_its_curve_is_complete(tmp_path: Path) -> None:
    _, outcome = train(tmp_path, steps=40, eval_every=20)
    rows = read_journal(outcome.curve)
    losses = [row["loss"] for row in rows if row["loss"] is not None]
    assert len(losses) == 40 and losses[-1] < losses[0] - 0.3
    assert [row["step"] for row in rows if row["held_out_loss"] is not None] == [20, 40]
    assert [row["tokens"] for row in rows if row["loss"] is not None] == [
        128 * (n + 1) for n in range(40)
    ]
    metrics = [row for row in read_journal(outcome.metrics) if row["event"] == "report"]
    assert (
        metrics[-1]["step"] == 40
        and metrics[-1]["tokens_per_second"] > 0
        and 0 <= metrics[-1]["data_wait_fraction"] < 1
    )


def test_step_does_not_depend_on_the_micro_batch(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "a", steps=3)
    cut, _ = train(tmp_path / "b", steps=3, micro_batch=3)
    worst = max(
        float((a - b).detach().abs().max())
        for a, b in zip(whole.parameters(), cut.parameters(), strict=True)
    )
    assert 0 <= worst < 1e-4


def test_state_is_saved_before_each_evaluation(tmp_path: Path) -> None:
    def failing(model: GPT) -> HeldOut:
        raise RuntimeError("evaluation crashed")

    config = TrainConfig(steps=8, sequences_per_step=8, eval_every=4)
    compute = open_runtime(RuntimeConfig(), CONFIG)
    job = Job("base", config, HostLoader(batch_of, compute.device, fixed_shape=True), failing)
    trainer = Trainer(make_model(), job, compute, HostConfig(), tmp_path)
    with pytest.raises(RuntimeError, match="evaluation crashed"):
        trainer.train()
    assert [path.name for path in saved_steps(tmp_path)] == ["step-0000004"]


def test_loss_that_is_not_finite_stops_the_run_and_keeps_the_state_before(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="is not finite") as error:
        train(tmp_path, muon_lr=1e30, adamw_lr=1e30, steps=100)
    assert error.value.exit_code == 3 and "muon_lr" in (error.value.fix or "")


def poisoned(workspace: Path, what: str, at: int = 8) -> Trainer:
    """A trainer whose weights or optimizer state hold NaN after the step `at`, not in its loss."""
    config = TrainConfig(steps=12, sequences_per_step=8, eval_every=4, muon_lr=0.01)
    compute = open_runtime(RuntimeConfig(threads=1), CONFIG)
    loader = HostLoader(batch_of, compute.device, fixed_shape=True)
    trainer = Trainer(
        make_model(), Job("base", config, loader, evaluate), compute, HostConfig(), workspace
    )
    step = trainer.engine.step

    def and_then_poison(batch: Batch, fraction: float):
        result = step(batch, fraction)
        if trainer.state.step + 1 == at:
            tensors = (
                dict(trainer.model.named_parameters())
                if what == "weights"
                else trainer.engine.optimizer.state()
            )
            next(t for t in tensors.values() if t.dim() > 1).data[0, 0] = float("nan")
        return result

    trainer.engine.step = and_then_poison
    return trainer


@pytest.mark.parametrize("what", ["weights", "optimizer"])
def test_what_is_saved_is_finite_and_training_goes_on_from_it(what: str, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="not finite after step 8") as error:
        poisoned(tmp_path / "run", what).train()
    assert error.value.fix and "--set base.muon_lr=0.005" in error.value.fix
    assert [path.name for path in saved_steps(tmp_path / "run")] == ["step-0000004"]
    straight, _ = train(tmp_path / "straight")
    resumed, _ = train(tmp_path / "run")  # the fault is gone, say of a broken memory module
    assert all(
        torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True)
    )


def test_a_held_out_loss_that_is_not_finite_is_said_in_one_sentence(tmp_path: Path) -> None:
    config = TrainConfig(steps=8, sequences_per_step=8, eval_every=4)
    compute = open_runtime(RuntimeConfig(), CONFIG)
    loader = HostLoader(batch_of, compute.device, fixed_shape=True)
    job = Job("base", config, loader, lambda model: HeldOut(float("inf"), None))
    with pytest.raises(CheckFailed, match="the held-out loss after step 4 is not finite"):
        Trainer(make_model(), job, compute, HostConfig(), tmp_path).train()


@pytest.mark.parametrize("publish", ["last", "best"])
def test_without_held_out_rows_no_loss_is_stated(publish: str, tmp_path: Path) -> None:
    config = TrainConfig.model_validate(
        {"steps": 4, "sequences_per_step": 8, "eval_every": 2, "publish": publish}
    )
    compute = open_runtime(RuntimeConfig(), CONFIG)
    loader = HostLoader(batch_of, compute.device, fixed_shape=True)
    job = Job("base", config, loader, lambda model: HeldOut(None, None))
    outcome = Trainer(make_model(), job, compute, HostConfig(), tmp_path).train()
    assert (outcome.held_out.loss, outcome.scored_step) == (None, 4)
    assert all(row["held_out_loss"] is None for row in read_journal(outcome.curve))
