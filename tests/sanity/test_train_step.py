"""Resuming, loading rows, centring and waiting: how much is wrong is counted, and named."""

from __future__ import annotations

import math

import torch

from picochat.sanity.context import SMALL, Parts, largest, random_stream
from picochat.tokens.row_order import Indices, rows_of_step
from tests.sanity.builders import make_context, result_of, wrong


def test_a_resumed_run_is_compared_to_the_last_bit() -> None:
    context = make_context()
    result = result_of("resume_determinism", context)
    assert (result.status, result.measured, result.bound) == ("pass", 0.0, "<= 0")
    assert result.message.endswith(f"in deterministic mode with {context.compute.backend}")


def test_a_loss_that_becomes_no_number_fails_with_its_step() -> None:
    result = result_of("resume_determinism", make_context(parts=wrong("no number later")))
    assert (result.status, result.measured) == ("fail", None)
    assert "the loss at step 3 is not finite" in result.message


def test_one_error_that_is_no_number_is_not_lost_among_the_others() -> None:
    errors = [0.5, float("nan"), 0.1]
    for order in (errors, errors[::-1], errors[1:]):
        assert math.isnan(largest(torch.tensor(error) for error in order))
    assert largest(torch.tensor(error) for error in (0.5, 2.0, 1.0)) == 2.0


def test_every_row_of_three_epochs_is_counted() -> None:
    assert result_of("loader_coverage", make_context()).measured == 0

    def without_row_seven(step: int, rows: int, size: int, seed: int) -> Indices:
        found = rows_of_step(step, rows, size, seed)
        return (found + (found == 7)) % size  # row 8 stands in its place

    parts = Parts(rows_of_step=without_row_seven)
    result = result_of("loader_coverage", make_context(parts=parts))
    # in each of three epochs row 7 is missing and row 8 is seen twice
    assert (result.status, result.measured) == ("fail", 6.0)


def test_a_step_of_weights_that_were_never_centred_is_measured() -> None:
    right = result_of("centred_step", make_context())
    assert right.status == "pass" and right.measured is not None and right.measured < 1e-7


def test_what_the_step_waits_for_is_named() -> None:
    assert result_of("no_host_sync", make_context()).measured == 0
    named = {
        "waits for a value": "aten::_local_scalar_dense",
        "waits for a shape": "aten::nonzero",
        "waits for a comparison": "aten::equal",
    }
    for fault, call in named.items():
        result = result_of("no_host_sync", make_context(parts=wrong(fault)))
        assert result.measured == 1 and result.message.endswith(f": {call}"), result


def test_a_random_stream_has_all_ids_and_few_frequent_ones() -> None:
    stream = random_stream(41 * SMALL.context + 3, 1 << 16)
    again = random_stream(41 * SMALL.context + 3, 1 << 16)
    ids = torch.from_numpy(stream.slice(0, len(stream)).astype("int64"))
    assert len(stream) == 41 * SMALL.context + 3
    assert ids.equal(torch.from_numpy(again.slice(0, len(again)).astype("int64")))
    assert int(ids.max()) > 0x7FFF  # so that ids of 16 signed bits would show
    assert ids.unique().numel() < len(stream) / 2
