"""Attention, precision and compiling: what is right passes, what is wrong or unchecked does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from picochat.model.gpt import GPT, Cache, Shares
from picochat.model.optim import Optimizer
from picochat.model.runtime import Runtime
from picochat.sanity import numerics
from picochat.sanity.context import ROWS, SMALL, VOCAB, Parts, random_rows, small_model
from tests.sanity.builders import make_context, result_of, wrong


def of_class(model_class: type[GPT]) -> Callable[[int], GPT]:
    """The small model's weights in another class."""

    def make(seed: int) -> GPT:
        model = model_class(SMALL, VOCAB)
        model.load_state_dict(small_model(seed).state_dict())
        return model

    return make


@pytest.mark.parametrize("error", [0.5, None, float("nan")])
def test_attention_that_was_not_checked_or_is_wrong_fails(error: float | None) -> None:
    context = make_context()
    wrong_compute = Runtime(context.compute.device, context.compute.dtype, "math", error, False)
    result = result_of("attention_backend", replace(context, compute=wrong_compute))
    assert result.status == "fail"
    assert result.measured == (error if error == 0.5 else None)


def test_attention_lists_every_way_that_was_tried() -> None:
    message = result_of("attention_backend", make_context()).message
    assert all(
        f"{backend}: " in message for backend in ("flash", "cudnn", "fa3", "efficient", "math")
    ), message


def test_attention_says_which_backend_and_precision_were_judged() -> None:
    context = make_context()
    repeated = replace(context.compute, repeat_heads=True)
    message = result_of("attention_backend", replace(context, compute=repeated)).message
    assert message.startswith(f"{context.compute.backend} with repeated heads in float32 against")


def test_the_loss_of_an_untrained_model_is_near_that_of_a_guess() -> None:
    result = result_of("initial_loss", make_context())
    assert result.status == "pass" and result.measured is not None
    stated = float(result.message.split()[-1])
    assert abs(abs(stated - math.log(VOCAB)) - result.measured) < 1e-3


def test_the_bound_of_a_gradient_follows_the_precision() -> None:
    float32, bf16 = (
        result_of("precision_backward", make_context(precision=precision))
        for precision in ("float32", "bf16")
    )
    assert (float32.bound, bf16.bound) == ("<= 0.0001", "<= 0.03")
    assert float32.status == bf16.status == "pass"
    # bf16 is really tried: its gradients are further off than float32 would allow
    assert bf16.measured is not None and bf16.measured > 1e-3


def test_gradients_that_are_too_wrong_for_bf16_fail_it() -> None:
    context = make_context(precision="bf16", parts=wrong("wrong gradient"))
    assert result_of("precision_backward", context).status == "fail"


class SeesPadding(GPT):
    """Attends to the padding before a row as if it were text."""

    def forward(
        self, ids_BT: Tensor, dtype: torch.dtype = torch.float32, cache: Cache | None = None
    ) -> Tensor:
        if cache is not None:
            cache.valid_BS = torch.ones_like(cache.valid_BS)
        return super().forward(ids_BT, dtype, cache)


def test_a_cache_that_sees_the_padding_of_a_row_fails() -> None:
    assert result_of("kv_cache_equivalence", make_context()).status == "pass"
    context = make_context(parts=Parts(model=of_class(SeesPadding)))
    assert result_of("kv_cache_equivalence", context).status == "fail"


class ForgetsToCentreWhenCompiled(Optimizer):
    def _muon_and_centre(self) -> None:
        if not torch.compiler.is_compiling():
            super()._muon_and_centre()


def test_compiled_steps_are_compared_with_eager_ones(light_compiler: None) -> None:
    """One test for both rows and their faults: compiling takes most of the time of this file."""
    right = make_context(include_compile=True)
    assert result_of("torch_compile", right).status == "pass"
    assert result_of("compiled_optimizer", right).status == "pass"
    broken = replace(right, parts=Parts(optimizer=ForgetsToCentreWhenCompiled))
    assert result_of("compiled_optimizer", broken).status == "fail"


class OtherWhenCompiled(GPT):
    def loss_sum(
        self,
        ids_BT: Tensor,
        targets_BT: Tensor,
        dtype: torch.dtype = torch.float32,
        shares: Shares | None = None,
    ) -> Tensor:
        loss = super().loss_sum(ids_BT, targets_BT, dtype, shares)
        return loss * 1.01 if torch.compiler.is_compiling() else loss


def test_a_compiled_loss_that_is_another_one_fails(light_compiler: None) -> None:
    context = make_context(include_compile=True, parts=Parts(model=of_class(OtherWhenCompiled)))
    result = result_of("torch_compile", context)
    assert result.status == "fail" and result.measured == pytest.approx(0.01, rel=0.2)


def test_compile_rows_are_skipped_unless_asked_for() -> None:
    context = make_context()
    for test in (numerics.torch_compile, numerics.compiled_optimizer):
        result = test(context)
        assert result.status == "skipped" and "--include-compile" in result.message


def test_export_parity_is_skipped_with_its_remedy_where_no_reader_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("picochat.export.parity.reader_installed", lambda: False)
    result = result_of("export_parity", make_context())
    assert result.status == "skipped" and "pip install" in result.message


@pytest.mark.parametrize("field", ["texts_equal", "chat_equal"])
def test_an_export_with_other_ids_fails_whatever_its_logits(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from picochat.export import parity

    equal = parity.ParityReport.model_construct(
        reader="some reader", largest_relative_difference=0.0, texts_equal=True, chat_equal=True
    )
    found = equal.model_copy(update={field: False})
    monkeypatch.setattr(parity, "reader_installed", lambda: True)
    monkeypatch.setattr(parity, "compare_export", lambda *given: found)
    result = result_of("export_parity", make_context())
    assert (result.status, result.measured) == ("fail", None)
    monkeypatch.setattr(parity, "compare_export", lambda *given: equal)
    assert result_of("export_parity", make_context()).status == "pass"


def test_random_rows_are_the_same_ones_each_time() -> None:
    first, again, other = random_rows(ROWS, 1), random_rows(ROWS, 1), random_rows(ROWS, 2)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (ROWS, SMALL.context + 1)
    assert int(first.min()) >= 0 and int(first.max()) < VOCAB
