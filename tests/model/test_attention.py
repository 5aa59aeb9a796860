"""Attention: wrong kernels are refused, the fastest right one is taken, also after a restart."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.nn import attention as torch_attention

from picochat.config import ModelConfig, RuntimeConfig
from picochat.core.errors import HostProblem
from picochat.core.machine import cache_folder
from picochat.core.records import read_record, write_json
from picochat.model.attention import (
    BACKENDS,
    AttentionKernel,
    AttentionSetting,
    KernelChoice,
    KernelResult,
    candidate_kernels,
    check_kernels,
    choice_file,
    choose_kernel,
    fastest,
    largest_error,
    measure_kernels,
    select_kernel,
)
from picochat.model.gpt import GPT, initialise
from picochat.model.runtime import open_runtime

CONFIG = ModelConfig(
    context=32, layers=2, width=48, heads=4, kv_heads=2, head_width=12, mlp_width=64
)
CPU = torch.device("cpu")


def setting(dtype: torch.dtype = torch.float32) -> AttentionSetting:
    return AttentionSetting(CPU, dtype, CONFIG)


def tried(
    backend: str, seconds: float | None, problem: str | None = None, *, repeat: bool = False
) -> KernelResult:
    return KernelResult(
        backend=backend, repeat_heads=repeat, problem=problem, error=1e-3, seconds=seconds
    )


def test_right_kernels_pass_with_heads_as_they_are_and_repeated() -> None:
    both = [
        AttentionKernel(backend, repeat)
        for backend in ("flash", "math")
        for repeat in (False, True)
    ]
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        for found in check_kernels(both, setting(dtype)):
            assert found.problem is None and found.error is not None and found.error < bound, found


def test_absent_kernels_are_named_with_their_reason() -> None:
    found = check_kernels(
        [AttentionKernel("cudnn", False), AttentionKernel("fa3", False)], setting()
    )
    assert all(one.problem for one in found) and "flash_attn_interface" in (found[1].problem or "")
    with pytest.raises(HostProblem, match="no attention backend works here: cudnn") as error:
        open_runtime(RuntimeConfig(attention_backend="cudnn"), CONFIG)
    assert "--attn-backend auto" in (error.value.fix or "")


def test_an_error_that_is_not_a_number_is_never_the_least() -> None:
    good, bad = torch.ones(3), torch.full((3,), float("nan"))
    assert largest_error([good, good], [good, 2 * good]) == 0.5
    assert not largest_error([good, bad, good], [good, good, good]) <= 1e9


def test_auto_tries_every_backend_and_an_asked_one_alone() -> None:
    assert [kernel.backend for kernel in candidate_kernels("auto", setting())] == list(BACKENDS)
    assert candidate_kernels("math", setting()) == [AttentionKernel("math", False)]
    on_gpu = AttentionSetting(torch.device("cuda"), torch.bfloat16, CONFIG)
    assert candidate_kernels("flash", on_gpu) == [
        AttentionKernel("flash", False),
        AttentionKernel("flash", True),
    ]
    alike = AttentionSetting(
        torch.device("cuda"), torch.bfloat16, CONFIG.model_copy(update={"kv_heads": 4})
    )
    assert candidate_kernels("flash", alike) == [AttentionKernel("flash", False)]


def test_the_fastest_is_taken_and_of_equals_the_earlier() -> None:
    slow, quick, quicker = tried("flash", 1.0), tried("cudnn", 0.505), tried("efficient", 0.5)
    assert fastest([slow, quick, quicker], 0.02) == quick
    assert fastest([slow, quick, quicker], 0.001) == quicker
    assert fastest([slow, tried("cudnn", 0.1, "wrong"), tried("math", None)], 0.02) == slow
    assert fastest([tried("math", None)], 0.02) is None


def test_kernels_that_pass_are_timed() -> None:
    found = {
        one.backend: one for one in measure_kernels(candidate_kernels("auto", setting()), setting())
    }
    assert found["flash"].seconds and found["math"].seconds and found["cudnn"].seconds is None
    assert (
        "ms, error" in found["flash"].line()
        and "heads repeated" in tried("math", 1.0, repeat=True).line()
    )


def other_than(choice: KernelChoice) -> str:
    """The backend of this CPU that was not chosen."""
    return "math" if choice.chosen.backend == "flash" else "flash"


def test_on_a_cpu_the_order_decides_and_not_the_clock() -> None:
    choice = choose_kernel("auto", setting(), [])
    assert choice.chosen.backend == "flash" and all(one.seconds is None for one in choice.tried)


def test_a_kept_choice_is_taken_again_whatever_is_fastest(tmp_path: Path) -> None:
    place, second = tmp_path / "attention.json", tmp_path / "cache" / "attention.json"
    first = choose_kernel("auto", setting(), [place])
    assert read_record(KernelChoice, place) == first and first.where == setting().described()
    write_json(place, first.model_copy(update={"chosen": tried(other_than(first), 9.0)}))
    again = choose_kernel("auto", setting(), [place, second])
    assert again.chosen.backend == other_than(first) and read_record(KernelChoice, second) == again
    # For another dtype, and for another request, it is no choice.
    assert (
        choose_kernel("auto", setting(torch.bfloat16), [place]).where
        == setting(torch.bfloat16).described()
    )
    assert (
        choose_kernel(first.chosen.backend, setting(), [second]).chosen.backend
        == first.chosen.backend
    )


def test_a_kept_choice_that_fails_now_or_cannot_be_read_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "attention.json"
    first = choose_kernel("auto", setting(), [place])
    write_json(place, first.model_copy(update={"chosen": tried("cudnn", 0.1)}))
    assert choose_kernel("auto", setting(), [place]).chosen.backend in ("flash", "math")
    assert "fails here now" in capsys.readouterr().err
    place.write_text("{torn")
    assert choose_kernel("auto", setting(), [place]).chosen.problem is None
    assert "choosing again" in capsys.readouterr().err


def test_a_stage_that_resumes_goes_on_with_its_own_attention(tmp_path: Path) -> None:
    """Whatever the cache says by then."""
    runtime = RuntimeConfig(threads=1)
    begun = open_runtime(runtime, CONFIG, tmp_path)
    assert begun.choice is not None
    other = other_than(begun.choice)
    shared = choice_file(cache_folder() / "attention", "auto", setting())
    write_json(shared, begun.choice.model_copy(update={"chosen": tried(other, 1e-6)}))
    assert open_runtime(runtime, CONFIG, tmp_path).backend == begun.backend
    assert open_runtime(runtime, CONFIG).backend == other


def test_repeated_heads_change_nothing_beyond_rounding() -> None:
    ids = torch.randint(0, 97, (2, 33), generator=torch.Generator().manual_seed(0))
    gradients: list[torch.Tensor] = []
    for repeat in (False, True):
        model = GPT(CONFIG, 97)
        initialise(model, 0)
        model.repeat_heads = repeat
        model.loss_sum(ids[:, :-1], ids[:, 1:]).backward()
        gradients.append(
            torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        )
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 1e-5


@pytest.fixture
def pretended_fa3() -> Iterator[list[str]]:
    """An implementation of the name FA3 that only notes when it is switched on and off."""
    registry = (
        torch_attention._registry._FLASH_ATTENTION_IMPLS
    )  # torch offers no way to take a registration back
    real, events = registry["FA3"], list[str]()

    class Handle:
        def remove(self) -> None:
            events.append("off")

    def switch_on() -> Handle:
        events.append("on")
        return Handle()

    torch_attention.register_flash_attention_impl("FA3", register_fn=switch_on)
    yield events
    select_kernel("flash")
    registry["FA3"] = real


def test_flash_after_fa3_is_torchs_own_kernel_again(pretended_fa3: list[str]) -> None:
    select_kernel("fa3")
    select_kernel("fa3")
    assert torch_attention.current_flash_attention_impl() == "FA3" and pretended_fa3 == ["on"]
    select_kernel("flash")
    assert torch_attention.current_flash_attention_impl() is None and pretended_fa3 == ["on", "off"]
    # Trying all kernels switches it on, and what is chosen decides what stays on.
    chosen = choose_kernel("flash", setting(), []).chosen
    measure_kernels(candidate_kernels("auto", setting()), setting())
    select_kernel(chosen.backend)
    assert torch_attention.current_flash_attention_impl() is None
