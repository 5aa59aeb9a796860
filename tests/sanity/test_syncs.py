"""Calls that make the host wait are found by name on a CPU, and by torch's refusal on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from picochat.sanity.syncs import WAITING_CALLS, host_syncs
from tests.sanity.builders import CPU

NUMBERS = torch.arange(6.0)


@pytest.mark.parametrize(
    ("work", "calls"),
    [
        (lambda: NUMBERS.sum().item(), ["aten::_local_scalar_dense"]),
        (lambda: float(NUMBERS[0]), ["aten::_local_scalar_dense"]),
        (lambda: bool(NUMBERS[0] > 1), ["aten::_local_scalar_dense", "aten::is_nonzero"]),
        (lambda: NUMBERS.nonzero(), ["aten::nonzero"]),
        (lambda: torch.masked_select(NUMBERS, NUMBERS > 1), ["aten::masked_select"]),
        (lambda: torch.equal(NUMBERS, NUMBERS), ["aten::equal"]),
        (lambda: torch.bincount(NUMBERS.long()), ["aten::bincount"]),
        (lambda: NUMBERS.unique(), ["aten::_unique2"]),
        (lambda: (NUMBERS * 2 + 1).softmax(0).argmax(), []),
        (lambda: NUMBERS.shape[0] + len(NUMBERS), []),  # known without asking the device
    ],
)
def test_only_calls_whose_result_the_host_must_know_are_found(
    work: Callable[[], object], calls: list[str]
) -> None:
    found = host_syncs(work, CPU)
    # torch may decompose one of them into another; each that is found is a waiting one
    assert bool(found) == bool(calls) and set(found) <= WAITING_CALLS
    assert found == sorted(found)
    assert not calls or set(found) & set(calls), found


def test_the_backward_pass_is_looked_at_as_well() -> None:
    class Reads(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x * 1

        @staticmethod
        def backward(ctx: object, *grads: torch.Tensor) -> torch.Tensor:
            return grads[0] * (2 if grads[0].sum().item() > 1e9 else 1)

    weight = torch.ones(3, requires_grad=True)
    loss = Reads.apply(weight).sum()
    assert host_syncs(loss.backward, CPU) == ["aten::_local_scalar_dense"]


class FakeCuda:
    """torch's sync debug mode without a GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.modes: list[object] = ["default"]
        monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: self.modes[-1])
        monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", self.modes.append)


def raises(message: str) -> Callable[[], object]:
    def work() -> object:
        raise RuntimeError(message)

    return work


def test_on_a_gpu_the_first_refused_call_is_told_and_the_mode_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeCuda(monkeypatch)
    cuda = torch.device("cuda")
    assert host_syncs(lambda: None, cuda) == []
    assert host_syncs(raises("called a synchronizing CUDA operation\nat x"), cuda) == [
        "called a synchronizing CUDA operation"
    ]
    assert fake.modes == ["default", "error", "default", "error", "default"]


def test_another_error_on_a_gpu_is_not_taken_for_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCuda(monkeypatch)
    with pytest.raises(RuntimeError, match="out of range"):
        host_syncs(raises("index out of range"), torch.device("cuda"))
    assert fake.modes[-1] == "default"
