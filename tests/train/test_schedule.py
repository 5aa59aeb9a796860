"""Rates and spikes, which follow from steps and losses alone."""

import math

import pytest

from picochat.config import TrainConfig
from picochat.train.schedule import lr_fraction, spike_steps

CONFIG = TrainConfig(steps=100, spike_factor=2.0, spike_nats=0.5)


def test_spikes_are_counted_against_the_running_mean() -> None:
    calm = [9.0, 30.0] + [4.0] * 60
    assert spike_steps(calm, CONFIG) == []
    assert spike_steps([*calm, 9.0, 4.0], CONFIG) == [63]


def test_batches_that_differ_where_rows_are_known_by_heart_are_no_spikes() -> None:
    losses = [0.3 if step % 10 == 0 else 0.01 for step in range(100)]
    assert spike_steps(losses, CONFIG) == []
    assert spike_steps([*losses, 0.8], CONFIG) == [101]


def test_rate_warms_up_holds_and_falls_to_the_final_fraction() -> None:
    config = TrainConfig(steps=100, warmup_steps=10, decay_fraction=0.5, final_lr_fraction=0.1)
    fractions = [lr_fraction(step, config) for step in range(100)]
    assert fractions[0] == pytest.approx(0.1) and fractions[9] == 1.0 and fractions[49] == 1.0
    assert fractions[10:] == sorted(fractions[10:], reverse=True)
    assert fractions[99] == pytest.approx(0.1 + 0.9 * (1 / 50))
    assert all(math.isfinite(fraction) and fraction > 0 for fraction in fractions)
