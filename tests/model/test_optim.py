"""The optimizer step against plain formulas, centred weights, and a round trip of its state."""

import pytest
import torch

from picochat.config import ModelConfig, RuntimeConfig, TrainConfig
from picochat.core.errors import BadInput, WrongUsage
from picochat.model.centred import centre_, largest_centre_error
from picochat.model.gpt import GPT, initialise
from picochat.model.optim import Optimizer
from picochat.model.orthogonalize import orthogonalize
from picochat.model.runtime import open_runtime

CONFIG = ModelConfig(
    context=32, layers=2, width=48, heads=4, kv_heads=2, head_width=12, mlp_width=64
)


def make(config: TrainConfig, *, centred: bool = True) -> tuple[GPT, Optimizer]:
    model = GPT(CONFIG.model_copy(update={"centred": centred}), 97)
    initialise(model, 0)
    if centred:
        centre_(model)
    return model, Optimizer(model, config)


def step(model: GPT, optimizer: Optimizer, seed: int, lr_fraction: float = 1.0) -> float:
    ids = torch.randint(0, 97, (4, 33), generator=torch.Generator().manual_seed(seed))
    (model.loss_sum(ids[:, :-1], ids[:, 1:]) / 128).backward()
    return float(optimizer.step(lr_fraction))


def test_muon_step_equals_one_matrix_at_a_time() -> None:
    config = TrainConfig(steps=10, muon_lr=0.05, muon_momentum=0.9, weight_decay=0.1)
    model, optimizer = make(config, centred=False)
    name = "blocks.1.mlp.down.weight"
    weight = dict(model.named_parameters())[name]
    momentum = torch.zeros_like(weight)
    for seed in range(3):
        ids = torch.randint(0, 97, (4, 33), generator=torch.Generator().manual_seed(seed))
        (model.loss_sum(ids[:, :-1], ids[:, 1:]) / 128).backward()
        assert weight.grad is not None
        momentum = 0.9 * momentum + 0.1 * weight.grad
        update = (
            orthogonalize((0.1 * weight.grad + 0.9 * momentum)[None], torch.float32)[0]
            * max(1, 48 / 64) ** 0.5
        )
        want = weight.detach() * (1 - 0.05 * 0.5 * 0.1) - 0.05 * 0.5 * update
        optimizer.step(0.5)
        assert float((weight.detach() - want).abs().max()) < 1e-5


def test_weights_stay_centred_after_every_step() -> None:
    for optimizer_name in ("muon", "adamw"):
        model, optimizer = make(
            TrainConfig(steps=10, matrix_optimizer=optimizer_name, weight_decay=0.1)
        )  # type: ignore[arg-type]
        for seed in range(3):
            step(model, optimizer, seed)
            assert largest_centre_error(model) < 1e-7


def test_clipping_bounds_the_step_and_reports_the_norm_before_it() -> None:
    _, free = make(TrainConfig(steps=10))
    model, clipped = make(TrainConfig(steps=10, grad_clip=1e-3))
    assert step(model, clipped, 0) == pytest.approx(step(free.model, free, 0), rel=1e-6)


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_state_round_trip_continues_bit_for_bit(name: str) -> None:
    config = TrainConfig(steps=10, matrix_optimizer=name)  # type: ignore[arg-type]
    model, optimizer = make(config)
    for seed in range(2):
        step(model, optimizer, seed)
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state = {key: tensor.clone() for key, tensor in optimizer.state().items()}
    step(model, optimizer, 2)
    other, resumed = make(config)
    other.load_state_dict(weights)
    resumed.load_state(state)
    step(other, resumed, 2)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )


def test_state_of_another_optimizer_is_refused() -> None:
    _, muon = make(TrainConfig(steps=10))
    model, adamw = make(TrainConfig(steps=10, matrix_optimizer="adamw"))
    step(model, adamw, 0)
    with pytest.raises(BadInput, match="belongs to another configuration"):
        muon.load_state(adamw.state())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_absent_cuda_is_refused_with_the_remedy() -> None:
    with pytest.raises(WrongUsage, match="no CUDA device") as error:
        open_runtime(RuntimeConfig(device="cuda"), CONFIG)
    assert error.value.exit_code == 2 and "--device cpu" in (error.value.fix or "")
