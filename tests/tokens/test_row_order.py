from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picochat.tokens.row_order import Permutation, rows_of_step

SEEDS = st.integers(0, 1 << 80)


@given(size=st.integers(1, 3_000), seed=SEEDS, epoch=st.integers(0, 1_000))
def test_every_row_stands_once_in_an_epoch(size: int, seed: int, epoch: int) -> None:
    rows = Permutation(size, seed, epoch)(np.arange(size))
    assert sorted(rows.tolist()) == list(range(size))


@given(size=st.integers(1, 1 << 61), seed=SEEDS, data=st.data())
def test_rows_of_any_size_are_inside_and_distinct(
    size: int, seed: int, data: st.DataObject
) -> None:
    positions = data.draw(st.lists(st.integers(0, size - 1), max_size=50, unique=True))
    rows = Permutation(size, seed, 0)(positions).tolist()
    assert len(set(rows)) == len(positions)
    assert all(0 <= row < size for row in rows)


@given(size=st.integers(1, 10_000), data=st.data())
def test_a_position_gives_the_same_row_alone_as_among_others(
    size: int, data: st.DataObject
) -> None:
    position = data.draw(st.integers(0, size - 1))
    permutation = Permutation(size, 42, 3)
    assert permutation(position) == permutation(np.arange(size))[position]


def test_every_token_is_a_target_once_per_epoch() -> None:
    context, length = 8, 8 * 133 + 5
    row_count = (length - 1) // context
    targets = np.zeros(length, dtype=np.int64)
    for row in Permutation(row_count, 42, 0)(np.arange(row_count)):
        targets[row * context + 1 : row * context + context + 1] += 1
    # the first token has nothing before it; the tail is shorter than a row
    assert targets[0] == 0
    assert (targets[1 : 1 + row_count * context] == 1).all()
    assert 0 < length - 1 - row_count * context < context
    assert (targets[1 + row_count * context :] == 0).all()


@given(row_count=st.integers(1, 60), rows_per_step=st.integers(1, 100))
def test_steps_see_every_row_once_per_epoch_across_its_ends(
    row_count: int, rows_per_step: int
) -> None:
    epochs = 4
    steps = -(-epochs * row_count // rows_per_step)
    seen = np.concatenate(
        [rows_of_step(step, rows_per_step, row_count, 42) for step in range(steps)]
    )
    assert len(seen) == steps * rows_per_step
    for epoch in range(epochs):
        assert sorted(seen[epoch * row_count : (epoch + 1) * row_count].tolist()) == list(
            range(row_count)
        )


def test_the_step_number_alone_resumes_the_order() -> None:
    run = [rows_of_step(step, 48, 1_000, 7).tolist() for step in range(50)]
    assert [rows_of_step(step, 48, 1_000, 7).tolist() for step in range(30, 50)] == run[30:]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [
        Permutation(1_000, seed, epoch)(np.arange(1_000))
        for seed, epoch in ((1, 0), (1, 1), (2, 0), (11, 0), (1, 10))
    ]
    for number, order in enumerate(orders):
        for other in orders[:number]:
            assert np.count_nonzero(order == other) < 12  # one in a thousand is expected by chance


def test_the_order_is_the_recorded_one() -> None:
    """A change of the order breaks every resume: raise ORDER_VERSION and this with it."""
    assert Permutation(1_000_003, 42, 1)([0, 1, 2, 1_000_002]).tolist() == [
        872402,
        573778,
        218793,
        523961,
    ]


@pytest.mark.parametrize("size", [1_000, 4_096, 99_991])
def test_the_order_looks_random(size: int) -> None:
    rows = Permutation(size, 42, 0)(np.arange(size))
    assert abs(np.corrcoef(np.arange(size), rows)[0, 1]) < 5 / np.sqrt(size)
    assert abs(np.corrcoef(rows[:-1], rows[1:])[0, 1]) < 5 / np.sqrt(size)
    assert np.count_nonzero(np.diff(rows) == 1) < 10
    # where each tenth of the rows falls: chi-square of 100 cells has 81 degrees of freedom, 99.9%
    # lie below 127
    cells = np.histogram2d(np.arange(size), rows, bins=10)[0]
    assert ((cells - size / 100) ** 2 / (size / 100)).sum() < 127


def test_small_orders_are_equally_likely() -> None:
    """All 24 orders of four rows over 4,800 epochs: 200 each, chi-square with 23 degrees of
    freedom.
    """
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(4_800):
        order = tuple(Permutation(4, 42, epoch)(np.arange(4)).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 50


def test_positions_outside_the_epoch_are_a_mistake() -> None:
    for position in (-1, 10):
        with pytest.raises(AssertionError):
            Permutation(10, 42, 0)([position])
