"""Where and how numbers are computed: device, dtype, threads, attention backend. Resolved once, then passed along.

A backend is not judged by flags: `attention_error` runs it, forward and backward, at the shapes of the scale, against
float32 math. `auto` takes the first of `AUTO_ORDER` that passes. Does not measure which backend is fastest.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from picochat.config import ModelConfig, RuntimeConfig
from picochat.core.errors import HostProblem, WrongUsage
from picochat.core.machine import usable_cores
from picochat.core.progress import say
from picochat.model.crew import NO_CREW, Crew

BACKENDS: dict[str, SDPBackend] = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
    "fa3": SDPBackend.FLASH_ATTENTION,
}
AUTO_ORDER = ("flash", "cudnn", "efficient", "math")
LARGEST_ATTENTION_ERROR = 2e-2
"""Relative error against float32 math that a backend may show in bfloat16."""
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}

# Dense bf16 peaks of the vendors' datasheets, without sparsity: what MFU is a share of.
PEAK_BF16_FLOPS = (("H100 PCIe", 756e12), ("H100", 989e12), ("H200", 989e12), ("GH200", 989e12), ("A100", 312e12))


@dataclass(frozen=True)
class Compute:
    """A resolved runtime. `backend` is a key of BACKENDS; `attention_error` is what its check gave; `crew` is of one on a GPU."""

    device: torch.device
    dtype: torch.dtype
    backend: str
    attention_error: float | None
    compiled: bool
    crew: Crew = NO_CREW

    @contextmanager
    def attention(self) -> Generator[None, None, None]:
        """Inside, causal attention without a mask uses the chosen backend and no other."""
        with sdpa_kernel([BACKENDS[self.backend]]):
            yield


def open_compute(runtime: RuntimeConfig, model: ModelConfig) -> Compute:
    """Set threads and matmul precision, check the attention backend at this model's shapes, and return what was resolved.

    Raises WrongUsage where the device or the precision cannot be had here, HostProblem where no backend passes.
    """
    device = find_device(runtime)
    torch.set_float32_matmul_precision(runtime.matmul_precision)
    threads = runtime.threads or usable_cores()
    if device.type == "cpu":
        torch.set_num_threads(threads)
        # The same bits each time are part of the promise; on a GPU they cost speed and are asked for in checks only.
        torch.use_deterministic_algorithms(True)
        # A debugging aid that writes every new buffer once more; its module is not in torch's type stubs.
        setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010
    dtype = DTYPES[runtime.precision]
    candidates = AUTO_ORDER if runtime.attention_backend == "auto" else (runtime.attention_backend,)
    problems: list[str] = []
    for backend in candidates:
        problem, error = check_attention(backend, device, dtype, model)
        if problem is None:
            crew = Crew(threads) if device.type == "cpu" else NO_CREW
            return Compute(device, dtype, backend, error, runtime.compile, crew)
        problems.append(f"{backend}: {problem}")
    raise HostProblem(
        "no attention backend works here: " + "; ".join(problems),
        fix="--attn-backend math runs everywhere; --attn-backend auto takes the first that passes",
    )


def detected_device() -> Literal["cpu", "cuda"]:
    """What this machine has, said aloud where nobody chose."""
    device: Literal["cpu", "cuda"] = "cuda" if torch.cuda.is_available() else "cpu"
    say(f"no --device was given: {device}")
    return device


def find_device(runtime: RuntimeConfig) -> torch.device:
    """The device that was asked for, or WrongUsage where it is not here."""
    if runtime.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise WrongUsage(
            "--device cuda was asked for, but torch sees no CUDA device here",
            fix="--device cpu, or install a CUDA build of torch and check nvidia-smi",
        )
    if runtime.precision == "bf16" and not torch.cuda.is_bf16_supported():
        raise WrongUsage("this GPU has no bf16", fix="--precision float32")
    return torch.device("cuda")


def check_attention(
    backend: str, device: torch.device, dtype: torch.dtype, model: ModelConfig
) -> tuple[str | None, float | None]:
    """(what is wrong or None, relative error or None) of one backend at the model's shapes."""
    if backend == "fa3" and not _activate_fa3():
        return "flash-attention 3 is not installed, or this torch cannot switch to it", None
    try:
        error = attention_error(backend, device, dtype, model)
    except RuntimeError as problem:
        return str(problem).splitlines()[0], None
    if not error <= LARGEST_ATTENTION_ERROR:
        return f"relative error {error:.1e} against float32 math, at most {LARGEST_ATTENTION_ERROR:.0e} is allowed", error
    return None, error


def attention_error(backend: str, device: torch.device, dtype: torch.dtype, model: ModelConfig, rows: int = 2) -> float:
    """Largest ||got - want|| / ||want|| over the output and the three gradients, on random inputs."""
    generator = torch.Generator().manual_seed(0)

    def random(heads: int) -> Tensor:
        return torch.randn(rows, heads, model.context, model.head_width, generator=generator)

    inputs = [random(model.heads), random(model.kv_heads), random(model.kv_heads)]
    grad = random(model.heads)
    want = _attend(inputs, grad, torch.device("cpu"), torch.float32, "math")
    got = _attend(inputs, grad, device, dtype, backend)
    return max(float((g.float().cpu() - w).norm() / w.norm()) for g, w in zip(got, want, strict=True))


def _attend(inputs: list[Tensor], grad: Tensor, device: torch.device, dtype: torch.dtype, backend: str) -> list[Tensor]:
    # The reference sees the inputs as the backend does, rounded to its dtype, so that only arithmetic is compared.
    rounded = [x.to(torch.bfloat16).to(device, dtype).requires_grad_() for x in inputs]
    with sdpa_kernel([BACKENDS[backend]]):
        out = F.scaled_dot_product_attention(rounded[0], rounded[1], rounded[2], is_causal=True, enable_gqa=True)
    out.backward(grad.to(torch.bfloat16).to(device, dtype))
    return [out.detach(), *(x.grad for x in rounded if x.grad is not None)]


def _activate_fa3() -> bool:
    activate = getattr(torch.nn.attention, "activate_flash_attention_impl", None)
    if activate is None:
        return False
    try:
        activate("FA3")
    except (ImportError, RuntimeError, ValueError):
        return False
    return True


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 peak of the device in FLOP/s, None where it is not in the table."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_BF16_FLOPS if part in name), None)
