"""The step and its rows: each token a target once per epoch, the same step however its rows are
cut, wherever they lie.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from picochat.config import ModelConfig, RuntimeConfig, TrainConfig
from picochat.core.errors import HostProblem
from picochat.model.centred import centre_
from picochat.model.gpt import GPT, IGNORED_TARGET, initialise
from picochat.model.runtime import open_runtime
from picochat.tokens.batches import rows_of_step
from picochat.tokens.shards import TokenStream
from picochat.train.engine import Engine
from picochat.train.feed import DeviceFeed, Fed, Feed, HostFeed, feed_of_stream, next_token_batch

CONFIG = ModelConfig(
    context=16, layers=2, width=32, heads=2, kv_heads=1, head_width=16, mlp_width=48
)
CPU = torch.device("cpu")
VOCAB = 61


def stream_of(tokens: np.ndarray, shards: int) -> TokenStream:
    """`tokens` as a stream of `shards` pieces of uneven length."""
    cuts = np.linspace(0, len(tokens), shards + 1).astype(int)
    cuts[1:-1] += np.arange(shards - 1) * 3
    parts = tuple(tokens[a:b].astype(np.uint16) for a, b in itertools.pairwise(cuts))
    return TokenStream(parts, tuple(int(cut) for cut in cuts), text_bytes=len(tokens))


def feeds_of(stream: TokenStream, rows_per_step: int) -> list[Feed]:
    return [
        feed_of_stream(stream, CONFIG.context, rows_per_step, 3, CPU),
        DeviceFeed(stream, CONFIG.context, rows_per_step, 3, CPU),
    ]


@pytest.mark.parametrize("which", [0, 1])
def test_every_training_token_is_a_target_exactly_once_per_epoch(which: int) -> None:
    """Tokens that say where they stand: over each of two epochs, every one but the first (and the
    short tail) once.
    """
    stream = stream_of(np.arange(60_000), shards=5)
    rows = stream.row_count(CONFIG.context)
    rows_per_step = 23
    assert rows % rows_per_step == 0, "epochs end with a step here"
    feed = feeds_of(stream, rows_per_step)[which]
    for epoch in range(2):
        seen: Counter[int] = Counter()
        for step in range(epoch * rows // rows_per_step, (epoch + 1) * rows // rows_per_step):
            fed = feed.step(step)
            assert torch.equal(fed.targets_BT, fed.ids_BT + 1), (
                "the token after each input is its target"
            )
            assert fed.targets == fed.targets_BT.numel()
            seen.update(fed.targets_BT.flatten().tolist())
        assert set(seen.values()) == {1} and sorted(seen) == list(
            range(1, rows * CONFIG.context + 1)
        )
    feed.close()


def test_rows_cut_on_the_device_are_those_cut_on_the_host() -> None:
    """Ids of all 16 bits, steps that end one epoch and begin the next, rows that lie in two shards."""
    stream = stream_of(np.random.default_rng(0).integers(0, 65_536, 5_000), shards=7)
    host, device = feeds_of(stream, rows_per_step=13)
    for step in (0, 1, 2, 23, 24, 25, 1_000):
        a, b = host.step(step), device.step(step)
        assert (
            torch.equal(a.ids_BT, b.ids_BT)
            and torch.equal(a.targets_BT, b.targets_BT)
            and a.targets == b.targets
        )
        block = next_token_batch(
            stream, rows_of_step(step, 13, stream.row_count(CONFIG.context), 3), CONFIG.context
        )
        assert np.array_equal(block.ids_BT, a.ids_BT.numpy())
    host.close()


def test_rows_made_ahead_are_those_asked_for() -> None:
    asked: list[int] = []

    def batch_of(step: int):
        asked.append(step)
        return next_token_batch(stream_of(np.arange(100) + step, 1), np.arange(2), 16)

    feed = HostFeed(batch_of, CPU, fixed_shape=True)
    for step in (0, 1, 2, 7, 3):
        assert int(feed.step(step).ids_BT[0, 0]) == step
    feed.close()
    assert {0, 1, 2, 3, 7} <= set(asked)


def test_trouble_in_the_thread_that_makes_rows_is_raised_where_they_are_asked_for() -> None:
    def batch_of(step: int):
        raise OSError("the disk is gone")

    feed = HostFeed(batch_of, CPU, fixed_shape=True)
    with pytest.raises(OSError, match="the disk is gone"):
        feed.step(0)
    feed.close()


# ---- the step ------------------------------------------------------------------------------------


def make_engine(rows: int | None = None, *, threads: int = 1, **settings: object) -> Engine:
    model = GPT(CONFIG, VOCAB)
    initialise(model, 0)
    centre_(model)
    config = TrainConfig.model_validate({"steps": 10, "micro_batch": rows, **settings})
    return Engine(
        model, config, open_runtime(RuntimeConfig(threads=threads), CONFIG), fixed_shape=True
    )


def uneven_rows() -> Fed:
    """Eight rows in which one to sixteen targets count, as conversations have them."""
    generator = torch.Generator().manual_seed(1)
    block = torch.randint(0, VOCAB, (8, CONFIG.context + 1), generator=generator)
    targets = block[:, 1:].clone()
    for row in range(8):
        targets[row, 2 * row + 1 :] = IGNORED_TARGET
    return Fed(block[:, :-1].contiguous(), targets, int((targets != IGNORED_TARGET).sum()))


def exact_gradients(model: GPT, fed: Fed) -> dict[str, Tensor]:
    """Of the mean loss over all targets, at once, in float64."""
    wide = GPT(CONFIG, VOCAB).double()
    wide.load_state_dict({name: tensor.double() for name, tensor in model.state_dict().items()})
    logits = wide(fed.ids_BT, torch.float64)
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), fed.targets_BT.flatten(), ignore_index=IGNORED_TARGET
    )
    loss.backward()
    return {name: p.grad for name, p in wide.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [None, 1, 3, 8])
def test_gradients_are_those_of_the_mean_over_all_targets_however_the_rows_are_cut(
    rows: int | None, threads: int
) -> None:
    engine, fed = make_engine(rows, threads=threads), uneven_rows()
    want = exact_gradients(engine.model, fed)
    engine.gradients(fed)
    for name, parameter in engine.model.named_parameters():
        assert parameter.grad is not None
        error = float((parameter.grad.double() - want[name]).norm() / want[name].norm())
        assert error < 3e-6, f"{name}: {error:.1e}"


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_crew_takes_the_step_of_one_thread_and_takes_it_the_same_each_time(optimizer: str) -> None:
    def weights(threads: int) -> list[Tensor]:
        engine = make_engine(threads=threads, matrix_optimizer=optimizer, muon_lr=0.01)
        for _ in range(3):
            engine.step(uneven_rows(), 1.0)
        return [parameter.detach() for parameter in engine.model.parameters()]

    alone, crew, again = weights(1), weights(3), weights(3)
    assert all(torch.equal(a, b) for a, b in zip(crew, again, strict=True))
    worst = max(float((a - b).abs().max()) for a, b in zip(alone, crew, strict=True))
    assert 0 < worst < 2e-4, "other sums, the same step"


def limited(engine: Engine, most_rows: int) -> Callable[..., Tensor]:
    """A forward pass with memory for `most_rows` sequences; more of them leave gradients of a part
    behind, as a real one does.
    """
    real = engine.layout.loss_sum

    def loss_sum(ids_BT: Tensor, targets_BT: Tensor, dtype: torch.dtype) -> Tensor:
        if len(ids_BT) > most_rows:
            real(ids_BT[:1], targets_BT[:1], dtype).backward()
            raise torch.OutOfMemoryError("no memory left on the device")
        return real(ids_BT, targets_BT, dtype)

    return loss_sum


def test_step_that_does_not_fit_is_taken_again_in_smaller_parts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine, fed = make_engine(), uneven_rows()
    want = exact_gradients(engine.model, fed)
    engine.layout.loss_sum = limited(engine, most_rows=3)
    engine.gradients(fed)
    assert engine.micro_batch == 2 and "8 sequences at a time do not fit" in capsys.readouterr().err
    for name, parameter in engine.model.named_parameters():
        assert parameter.grad is not None
        assert float((parameter.grad.double() - want[name]).norm() / want[name].norm()) < 3e-6, name


def test_one_sequence_that_does_not_fit_is_an_error_with_the_remedy() -> None:
    engine = make_engine()
    engine.layout.loss_sum = limited(engine, most_rows=0)
    with pytest.raises(HostProblem, match="one sequence does not fit") as error:
        engine.step(uneven_rows(), 1.0)
    assert error.value.fix
