"""What is compiled: one graph, few products, nothing that waits, and the same function.

A layer takes two products forward and four backward.
"""

import dataclasses

import pytest
import torch
from bench.harness.graphs import inspect
from torch import Tensor

from picochat.config import ModelConfig, RuntimeConfig, TrainConfig
from picochat.model.centred import centre_, largest_centre_error
from picochat.model.gpt import GPT, Block, Shares, initialise
from picochat.model.optim import Optimizer
from picochat.model.runtime import open_runtime
from picochat.sanity.syncs import host_syncs
from picochat.train.loader import Batch
from picochat.train.step import Engine

CONFIG = ModelConfig(
    context=16, layers=2, width=32, heads=4, kv_heads=2, head_width=8, mlp_width=48
)
VOCAB = 61


def make_model(seed: int = 0) -> GPT:
    model = GPT(CONFIG, VOCAB)
    initialise(model, seed)
    centre_(model)
    return model


def rows(seed: int = 0) -> tuple[Tensor, Tensor]:
    block = torch.randint(
        0, VOCAB, (4, CONFIG.context + 1), generator=torch.Generator().manual_seed(seed)
    )
    return block[:, :-1], block[:, 1:]


def flat_gradients(model: GPT) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_joined_step_is_one_graph_with_two_products_a_layer() -> None:
    found = inspect(make_model(), *rows(), torch.bfloat16)
    assert found.graphs == 1 and found.breaks == 0
    # Beside the layers stands the head: one product forward, two backward.
    assert found.forward_products == 2 * CONFIG.layers + 1
    assert found.backward_products == 4 * CONFIG.layers + 2
    assert found.waiting == []


def test_float32_step_is_one_graph_of_separate_products() -> None:
    found = inspect(make_model(), *rows(), torch.float32)
    assert found.graphs == 1 and found.breaks == 0
    assert found.forward_products == 7 * CONFIG.layers + 1
    assert found.backward_products == 14 * CONFIG.layers + 2


def test_a_step_that_reads_a_value_is_found() -> None:
    class Reading(GPT):
        def loss_sum(
            self,
            ids_BT: Tensor,
            targets_BT: Tensor,
            dtype: torch.dtype = torch.float32,
            shares: Shares | None = None,
        ) -> Tensor:
            assert ids_BT.max().item() < VOCAB
            return super().loss_sum(ids_BT, targets_BT, dtype, shares)

    ids, targets = rows()
    found = inspect(Reading(CONFIG, VOCAB), ids, targets, torch.float32)
    assert found.breaks > 0
    assert host_syncs(
        lambda: Reading(CONFIG, VOCAB).loss_sum(ids, targets), torch.device("cpu")
    ) == ["aten::_local_scalar_dense"]


def test_joined_products_equal_separate_ones_within_rounding() -> None:
    """In bfloat16, compared with separate products of the same weights rounded first."""
    joined = make_model()
    separate = make_model().bfloat16()
    for model in (joined, separate):
        model.loss_sum(*rows(), torch.bfloat16).backward()
    exact = make_model()
    exact.loss_sum(*rows()).backward()
    got, other, want = (flat_gradients(model).float() for model in (joined, separate, exact))
    assert float((got - other).norm() / other.norm()) < 2e-2
    assert float((got - want).norm() / want.norm()) < 2e-2


def test_joined_block_equals_separate_products_exactly_in_float64() -> None:
    """Weights in float64, activations cast to it from float32 masters: joining changes no value."""
    config = CONFIG.model_copy(update={"layers": 1})
    masters = Block(config, 0)
    exact = Block(config, 0).double()
    exact.load_state_dict(masters.state_dict())
    model = GPT(config, VOCAB)
    at = model._positions(CONFIG.context, None)
    x = torch.randn(
        2,
        CONFIG.context,
        CONFIG.width,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(1),
    )
    assert float((masters(x, at) - exact(x, at)).detach().abs().max()) < 1e-12


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_compiled_optimizer_equals_eager(name: str, light_compiler: None) -> None:
    settings = TrainConfig.model_validate(
        {"steps": 4, "matrix_optimizer": name, "weight_decay": 0.1}
    )
    models = [make_model(), make_model()]
    optimizers = [
        Optimizer(model, settings, compiled=compiled)
        for model, compiled in zip(models, (False, True), strict=True)
    ]
    for step in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            (model.loss_sum(*rows(step)) / 64).backward()
            optimizer.step(1.0 - 0.2 * step)
    eager, compiled = (
        torch.cat([p.detach().flatten() for p in model.parameters()]) for model in models
    )
    assert float((eager - compiled).abs().max()) < 1e-6
    assert largest_centre_error(models[1]) < 1e-7


def test_shared_targets_are_one_graph_and_equal_eager(light_compiler: None) -> None:
    ids, targets = rows()
    shares = Shares(targets[..., None].repeat(1, 1, 3) // 2, torch.full((*targets.shape, 3), 0.2))
    models = [make_model(), make_model()]
    compiled_loss = torch.compile(models[1].loss_sum, dynamic=False, fullgraph=True)
    for loss_sum in (models[0].loss_sum, compiled_loss):
        loss_sum(ids, targets, torch.float32, shares).backward()
    eager, compiled = (flat_gradients(model) for model in models)
    assert float((eager - compiled).abs().max()) < 1e-5 * float(eager.abs().max())


def test_nothing_is_compiled_again_between_base_and_sft(light_compiler: None) -> None:
    """SFT has another model object, other rates and rows; the optimizer's graph serves both."""
    from torch._dynamo.utils import counters

    compute = dataclasses.replace(open_runtime(RuntimeConfig(threads=1), CONFIG), compiled=True)
    base = TrainConfig(steps=4, sequences_per_step=4)
    sft = TrainConfig(steps=2, sequences_per_step=4, muon_lr=0.005, adamw_lr=0.001)
    batch = Batch(*rows(), target_count=64)
    engine = Engine(make_model(), base, compute, fixed_shape=True)
    for fraction in (0.5, 1.0, 0.5):
        engine.step(batch, fraction)
    graphs = counters["stats"]["unique_graphs"]
    tuned = Engine(make_model(1), sft, compute, fixed_shape=False)
    for length in (16, 8):
        tuned.step(
            Batch(batch.ids_BT[:, :length], batch.targets_BT[:, :length], target_count=4 * length),
            1.0,
        )
    assert counters["stats"]["unique_graphs"] == graphs


def test_a_step_waits_for_nothing() -> None:
    engine = Engine(
        make_model(),
        TrainConfig(steps=4),
        open_runtime(RuntimeConfig(threads=1), CONFIG),
        fixed_shape=True,
    )
    batch = Batch(*rows(), target_count=64)
    engine.step(batch, 1.0)
    assert host_syncs(lambda: engine.step(batch, 1.0), torch.device("cpu")) == []
