"""Metrics: rows keep their schema, their figures are of one step, time left is by steady rate."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from picochat.config import HostConfig, RuntimeConfig, TrainConfig
from picochat.core.errors import Interrupted
from picochat.core.journal import read_journal
from picochat.core.progress import PLAIN_LINE_EVERY_S, Progress
from picochat.core.records import parse_record
from picochat.facts import MetricsRow
from picochat.model.runtime import open_runtime
from picochat.train.loader import Batch, HostLoader, host_batch
from picochat.train.loop import Job, Outcome, Trainer
from picochat.train.metrics import (
    MetricsLogger,
    StartupTimer,
    Throughput,
    standing_parts,
    standing_words,
)
from picochat.train.schedule import evaluations_left, lr_fraction
from picochat.train.step import StepResult
from picochat.train.trackers import Trackers
from tests.train.test_loop import CONFIG, batch_of, evaluate, make_model, stop_at

PRICE = 3.6
ONE_ROW = np.tile(np.arange(17), (8, 1))


def easy_but(at: int):
    """The same easy rows at every step; rows of noise at one."""

    def batches(step: int) -> Batch:
        return (
            batch_of(step)
            if step == at
            else host_batch(ONE_ROW[:, :-1].copy(), ONE_ROW[:, 1:].copy())
        )

    return batches


def train(workspace: Path, *, batches: Any = batch_of, **settings: object) -> Outcome:
    config = TrainConfig.model_validate(
        {"steps": 12, "sequences_per_step": 8, "eval_every": 4, "warmup_steps": 3, **settings}
    )
    compute = open_runtime(RuntimeConfig(threads=1), CONFIG)
    job = Job(
        "base",
        config,
        HostLoader(batches, compute.device, fixed_shape=True),
        evaluate,
        gpu_hour_usd=PRICE,
    )
    return Trainer(make_model(), job, compute, HostConfig(), workspace).train()


def rows_of(workspace: Path, event: str) -> list[dict[str, Any]]:
    return [row for row in read_journal(workspace / "metrics.jsonl") if row["event"] == event]


def make_logger(workspace: Path) -> MetricsLogger:
    config = TrainConfig(steps=40, sequences_per_step=8, muon_lr=0.02, adamw_lr=0.004)
    return MetricsLogger(
        workspace,
        config,
        StartupTimer(),
        Trackers(None, workspace, "base", workspace),
        flops_per_token=1.0,
        peak_flops=None,
        usd_per_hour=PRICE,
        peak_memory=lambda: 1,
    )


def test_each_row_keeps_the_schema_and_a_report_holds_the_figures_of_its_own_step(
    tmp_path: Path,
) -> None:
    outcome = train(tmp_path)
    for row in read_journal(outcome.metrics):
        parse_record(MetricsRow, row, "metrics row")
    curve = {row["step"]: row for row in read_journal(outcome.curve) if row["loss"] is not None}
    reports = rows_of(tmp_path, "report")
    assert [row["step"] for row in reports] == [1, 2, 4, 8, 10, 12]
    config = TrainConfig(steps=12, warmup_steps=3)
    for row in reports:
        assert (
            row["loss"] == curve[row["step"]]["loss"]
            and row["grad_norm"] == curve[row["step"]]["grad_norm"]
        )
        assert row["muon_lr"] == pytest.approx(
            config.muon_lr * lr_fraction(row["step"] - 1, config)
        )
        assert row["adamw_lr"] == pytest.approx(
            config.adamw_lr * lr_fraction(row["step"] - 1, config)
        )
        assert (
            row["tokens"] == 128 * row["step"]
            and row["tokens_per_second"] > 0
            and row["peak_memory_bytes"] > 1_000_000
        )
        assert 0 <= row["data_wait_fraction"] <= 1 and row["usd_spent"] == pytest.approx(
            row["stage_seconds"] * PRICE / 3600
        )
    assert reports[-1]["seconds_left"] == 0 and all(row["usd_left"] >= 0 for row in reports[2:])
    assert [row["step"] for row in rows_of(tmp_path, "evaluation")] == [4, 8, 12]
    assert [row["step"] for row in rows_of(tmp_path, "saved")] == [4, 8, 12]


def test_the_way_to_the_second_step_is_told_in_parts(tmp_path: Path) -> None:
    train(tmp_path)
    (started,) = rows_of(tmp_path, "started")
    names = {"before_stage", "state", "first_step", "first_report", "second_step"}
    assert (
        set(started["parts"]) in (names, names - {"before_stage"})
        and started["planned_steps"] == 12
    )
    assert (
        started["seconds"] == pytest.approx(sum(started["parts"].values()))
        and min(started["parts"].values()) >= 0
    )


def test_a_row_waits_for_the_loss_of_its_step(tmp_path: Path) -> None:
    """On a GPU losses come one report late; no row may have another step's loss, or none."""
    logger = make_logger(tmp_path)
    logger.resume(0, 0, 0, 0)
    logger.report(10, 1280)
    assert rows_of(tmp_path, "report") == [] and "loss" not in logger.note()
    for step in (9, 10, 11):
        logger.step(
            StepResult(step, loss=float(step), grad_norm=1.0, lr_fraction=0.5, tokens=128 * step)
        )
    logger.report(20, 2560)
    (row,) = rows_of(tmp_path, "report")
    assert (row["step"], row["loss"], row["tokens"], row["muon_lr"], row["adamw_lr"]) == (
        10,
        10.0,
        1280,
        0.01,
        0.002,
    )


def test_a_resumed_stage_says_so_and_doubles_no_row(tmp_path: Path) -> None:
    for step in (6, 9):
        with pytest.raises(Interrupted):
            train(tmp_path, batches=stop_at(step))
    train(tmp_path)
    steps = [row["step"] for row in rows_of(tmp_path, "report")]
    assert len(set(steps)) == len(steps) and steps == sorted(steps) and steps[-1] == 12
    assert [row["step"] for row in rows_of(tmp_path, "evaluation")] == [4, 8, 12]
    resumed = [row["step"] for row in rows_of(tmp_path, "resumed")]
    assert len(resumed) == 2 and [row["step"] for row in rows_of(tmp_path, "started")] == [
        0,
        *resumed,
    ]
    spent = [row["stage_seconds"] for row in rows_of(tmp_path, "report")]
    assert spent == sorted(spent), "time of the processes before counts"


def test_a_spike_is_warned_of_with_value_mean_and_bound_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = train(
        tmp_path,
        batches=easy_but(30),
        steps=40,
        eval_every=None,
        spike_factor=1.5,
        spike_nats=0.0,
        decay_fraction=0.0,
    )
    (spike,) = rows_of(tmp_path, "spike")
    assert spike["step"] == 31 and spike["spikes"] == 1 and spike["loss"] > 1.5 * spike["mean_loss"]
    words = (
        f"loss spike at step 31: {spike['loss']:.3f} is over 1.5 times its running mean of"
        f" {spike['mean_loss']:.3f}"
    )
    assert words in capsys.readouterr().err
    assert outcome.state.spike_steps == [31]


def test_a_rollback_is_recorded_and_its_spike_stays(tmp_path: Path) -> None:
    settings = {
        "steps": 40,
        "eval_every": 14,
        "spike_factor": 1.5,
        "spike_nats": 0.0,
        "spike_rollbacks": 1,
        "decay_fraction": 0.0,
    }
    outcome = train(tmp_path, batches=easy_but(30), **settings)
    (spike,), (rollback,) = rows_of(tmp_path, "spike"), rows_of(tmp_path, "rollback")
    assert (spike["step"], rollback["step"], rollback["from_step"], rollback["rollbacks"]) == (
        31,
        28,
        31,
        1,
    )
    assert (
        outcome.state.spike_steps == [31]
        and outcome.state.rollbacks == 1
        and outcome.state.step == 40
    )
    steps = [row["step"] for row in rows_of(tmp_path, "report")]
    assert steps == sorted(set(steps))


def test_spikes_and_rollbacks_of_a_later_state_go_with_it(tmp_path: Path) -> None:
    logger = make_logger(tmp_path)
    logger.resume(0, 0, 0, 0)
    for number, step in ((1, 5), (2, 25)):
        logger.spike(step, 9.0, 4.0, number)
        logger.rollback(step - 4, step, number)
    logger.cut_back(20, 2560, 1, 1)
    assert [row["step"] for row in rows_of(tmp_path, "spike")] == [5]
    assert [row["step"] for row in rows_of(tmp_path, "rollback")] == [1]


def test_time_left_is_that_of_the_latest_rate_and_of_the_evaluations_to_come() -> None:
    throughput = Throughput(TrainConfig(steps=1_000, eval_every=400), PRICE, began=0.0)
    assert (
        throughput.seconds_left(2) is None
        and throughput.usd(None) is None
        and throughput.seconds_left(1_000) == 0
    )
    for seconds in [50.0] * 5 + [1.0] * 20:
        throughput.steps_took(10, seconds)
    assert throughput.seconds_left(500) == pytest.approx(50.0)
    throughput.evaluation_took(7.0)
    assert throughput.seconds_left(500) == pytest.approx(50.0 + 2 * 7.0)
    assert (
        throughput.usd(3_600.0) == PRICE
        and Throughput(throughput.config, None, 0.0).usd(1.0) is None
    )
    config = TrainConfig(steps=10, eval_every=4)
    assert [evaluations_left(step, config) for step in (0, 3, 4, 9, 10)] == [3, 3, 2, 1, 0]
    assert evaluations_left(3, TrainConfig(steps=10)) == 1


def test_status_says_from_the_journal_alone_where_a_stage_stands() -> None:
    assert standing_words([], now=0.0) == ""
    started = {"event": "started", "step": 0, "time": 90.0, "planned_steps": 200}
    first = {
        "event": "report",
        "step": 40,
        "time": 95.0,
        "loss": None,
        "tokens_per_second": 1_200.0,
    }
    assert (
        standing_words([started, first], now=100.0) == "step 40/200 20% | 1.2k tok/s | said 5s ago"
    )
    more = {
        **first,
        "loss": 4.5,
        "seconds_left": 65.0,
        "usd_spent": 0.5,
        "usd_left": 0.25,
        "mfu": 0.4,
    }
    held_out = {
        "event": "evaluation",
        "step": 40,
        "time": 97.0,
        "held_out_loss": 3.0,
        "held_out_bits_per_byte": 1.25,
    }
    assert (
        standing_words([started, more, held_out], now=100.0)
        == "step 40/200 20% | loss 4.500 | held-out 1.250 bpb | 1.2k tok/s | MFU 40.0% | 1m 05s"
        " left | $0.50 of $0.75 | said 3s ago"
    )


def test_the_longest_progress_line_fits_120_columns(capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "loss": 10.123,
        "held_out_bits_per_byte": 1.032,
        "tokens_per_second": 758_123.0,
        "mfu": 0.551,
    }
    row |= {"seconds_left": 3_720.0, "usd_spent": 10.41, "usd_left": 11.6}
    with Progress("base", 33_000, "steps", own_pace=False) as progress:
        progress.note = " | ".join(standing_parts(row))
        progress.advance(12_300)
    first = capsys.readouterr().err.splitlines()[0]
    assert len(first) <= 120 and first.startswith(
        "base: 12.3k/33k steps 37% | loss 10.123 | held-out 1.032 bpb | 758k tok/s"
    )
    assert first.endswith("MFU 55.1% | 1h 02m left | $10.41 of $22.01") and PLAIN_LINE_EVERY_S <= 5


def test_the_first_line_comes_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def batches(step: int) -> Batch:
        if step == 0:
            assert "base: 0/2 steps" in capsys.readouterr().err
        return batch_of(step)

    train(tmp_path, batches=batches, steps=2, eval_every=None)
