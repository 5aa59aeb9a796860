"""The step: equal gradients however its rows are cut, smaller parts where memory is short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from picochat.config import ModelConfig, RuntimeConfig, TrainConfig
from picochat.core.errors import HostProblem
from picochat.model.centred import centre_
from picochat.model.gpt import GPT, IGNORED_TARGET, Shares, initialise
from picochat.model.runtime import open_runtime
from picochat.train.loader import Batch
from picochat.train.step import Engine

CONFIG = ModelConfig(
    context=16, layers=2, width=32, heads=2, kv_heads=1, head_width=16, mlp_width=48
)
VOCAB = 61


def make_engine(rows: int | None = None, *, threads: int = 1, **settings: object) -> Engine:
    model = GPT(CONFIG, VOCAB)
    initialise(model, 0)
    centre_(model)
    config = TrainConfig.model_validate({"steps": 10, "micro_batch": rows, **settings})
    return Engine(
        model, config, open_runtime(RuntimeConfig(threads=threads), CONFIG), fixed_shape=True
    )


def uneven_rows() -> Batch:
    """Eight rows in which one to sixteen targets count, as conversations have them."""
    generator = torch.Generator().manual_seed(1)
    block = torch.randint(0, VOCAB, (8, CONFIG.context + 1), generator=generator)
    targets = block[:, 1:].clone()
    for row in range(8):
        targets[row, 2 * row + 1 :] = IGNORED_TARGET
    return Batch(block[:, :-1].contiguous(), targets, int((targets != IGNORED_TARGET).sum()))


def with_shares(batch: Batch) -> Batch:
    """A quarter of each target belongs to each of two other tokens."""
    generator = torch.Generator().manual_seed(2)
    shape = (*batch.targets_BT.shape, 2)
    counts = (batch.targets_BT != IGNORED_TARGET)[..., None]
    shares = Shares(
        torch.randint(0, VOCAB, shape, generator=generator), 0.25 * counts.expand(shape)
    )
    return replace(batch, shares=shares)


def exact_gradients(model: GPT, batch: Batch) -> dict[str, Tensor]:
    """Of the mean loss over all targets, at once, in float64."""
    wide = GPT(CONFIG, VOCAB).double()
    wide.load_state_dict({name: tensor.double() for name, tensor in model.state_dict().items()})
    logits = wide(batch.ids_BT, torch.float64)
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch.targets_BT.flatten(), ignore_index=IGNORED_TARGET
    )
    loss.backward()
    return {name: p.grad for name, p in wide.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [None, 1, 3, 8])
def test_gradients_are_those_of_the_mean_over_all_targets_however_the_rows_are_cut(
    rows: int | None, threads: int
) -> None:
    engine, batch = make_engine(rows, threads=threads), uneven_rows()
    want = exact_gradients(engine.model, batch)
    engine.gradients(batch)
    for name, parameter in engine.model.named_parameters():
        assert parameter.grad is not None
        error = float((parameter.grad.double() - want[name]).norm() / want[name].norm())
        assert error < 3e-6, f"{name}: {error:.1e}"


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_thread_pool_takes_the_step_of_one_thread_and_the_same_each_time(optimizer: str) -> None:
    def weights(threads: int) -> list[Tensor]:
        engine = make_engine(threads=threads, matrix_optimizer=optimizer, muon_lr=0.01)
        for _ in range(3):
            engine.step(uneven_rows(), 1.0)
        return [parameter.detach() for parameter in engine.model.parameters()]

    alone, pooled, again = weights(1), weights(3), weights(3)
    assert all(torch.equal(a, b) for a, b in zip(pooled, again, strict=True))
    worst = max(float((a - b).abs().max()) for a, b in zip(alone, pooled, strict=True))
    assert 0 < worst < 2e-4, "other sums, the same step"


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [None, 3])
def test_targets_that_are_shared_are_the_same_however_the_rows_are_cut(
    rows: int | None, threads: int
) -> None:
    batch = with_shares(uneven_rows())
    whole, cut = make_engine(), make_engine(rows, threads=threads)
    losses = [engine.gradients(batch) for engine in (whole, cut)]
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-5)
    plain = make_engine().gradients(uneven_rows())
    assert float(losses[0]) == pytest.approx(float(plain), rel=1e-5)
    for one, other in zip(whole.model.parameters(), cut.model.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert float((one.grad - other.grad).norm() / one.grad.norm()) < 1e-5


def limited(engine: Engine, most_rows: int) -> Callable[..., Tensor]:
    """A forward pass with memory for `most_rows` sequences.

    With more it leaves gradients of a part behind, as a real one does.
    """
    real = engine.strategy.loss_sum

    def loss_sum(ids_BT: Tensor, targets_BT: Tensor, dtype: torch.dtype, shares: None) -> Tensor:
        if len(ids_BT) > most_rows:
            real(ids_BT[:1], targets_BT[:1], dtype, shares).backward()
            raise torch.OutOfMemoryError("no memory left on the device")
        return real(ids_BT, targets_BT, dtype, shares)

    return loss_sum


def test_step_that_does_not_fit_is_taken_again_in_smaller_parts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine, batch = make_engine(), uneven_rows()
    want = exact_gradients(engine.model, batch)
    engine.strategy.loss_sum = limited(engine, most_rows=3)
    engine.gradients(batch)
    assert engine.micro_batch == 2 and "8 sequences at a time do not fit" in capsys.readouterr().err
    for name, parameter in engine.model.named_parameters():
        assert parameter.grad is not None
        assert float((parameter.grad.double() - want[name]).norm() / want[name].norm()) < 3e-6, name


def test_one_sequence_that_does_not_fit_is_an_error_with_the_remedy() -> None:
    engine = make_engine()
    engine.strategy.loss_sum = limited(engine, most_rows=0)
    with pytest.raises(HostProblem, match="one sequence does not fit") as error:
        engine.step(uneven_rows(), 1.0)
    assert error.value.fix
