"""Where and how numbers are computed: device, dtype, threads, attention, compiler.

`open_runtime` resolves the settings once, and callers pass the result along. Everything that torch
can only set for the whole process is set here, except the attention kernel (model/attention.py).
Does not compile: train/step.py and model/optim.py do.
"""

from __future__ import annotations

import os
import resource
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn.attention import sdpa_kernel

from picochat.config import ModelConfig, RuntimeConfig
from picochat.core.errors import WrongUsage
from picochat.core.machine import cache_folder, usable_cores
from picochat.core.progress import say
from picochat.model.attention import (
    BACKENDS,
    AttentionSetting,
    KernelChoice,
    choice_file,
    choose_kernel,
)
from picochat.model.thread_pool import ONE_THREAD, ThreadPool

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}

# Dense bf16 peaks from NVIDIA's datasheets of the H100, H200 and A100, which state twice as much
# with sparsity (1,671 TFLOP/s for both NVL cards); MFU is a fraction of them. The first name that
# is part of the device's name decides: "H200" also finds the GH200, and the slower cards must stand
# before "H100" and "H200".
PEAK_BF16_FLOPS = (
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("H200 NVL", 835e12),
    ("H200", 989e12),
    ("A100", 312e12),
)


@dataclass(frozen=True)
class Runtime:
    """A resolved RuntimeConfig.

    `backend`, `repeat_heads`: the attention kernel (model/attention.py). `attention_error`: its
    relative error against float32 math. `pool`: has one thread on a GPU. `choice`: all kernels that
    were tried.
    """

    device: torch.device
    dtype: torch.dtype
    backend: str
    attention_error: float | None
    compiled: bool
    pool: ThreadPool = ONE_THREAD
    repeat_heads: bool = False
    choice: KernelChoice | None = None

    def attention(self) -> AbstractContextManager[Any]:
        """A context in which causal attention without a mask uses only the chosen backend."""
        return sdpa_kernel([BACKENDS[self.backend]])


def open_runtime(
    config: RuntimeConfig, model: ModelConfig, workspace: Path | None = None
) -> Runtime:
    """Apply the settings to this process, choose the attention kernel, and return the result.

    model: gives the shapes of attention. workspace: the folder of resumable work, which must
    continue with the kernel that it started with. Raises WrongUsage where the device or the
    precision is not available, HostProblem where no attention kernel passes its check.
    """
    device = find_device(config)
    apply_settings(config)
    setting = AttentionSetting(device, DTYPES[config.precision], model)
    places = [choice_file(cache_folder() / "attention", config.attention_backend, setting)]
    if workspace is not None:
        places.insert(0, workspace / "attention.json")
    choice = choose_kernel(config.attention_backend, setting, places)
    return Runtime(
        device=device,
        dtype=setting.dtype,
        backend=choice.chosen.backend,
        attention_error=choice.chosen.error,
        compiled=config.compile,
        pool=ThreadPool(config.threads or usable_cores()) if device.type == "cpu" else ONE_THREAD,
        repeat_heads=choice.chosen.repeat_heads,
        choice=choice,
    )


def apply_settings(config: RuntimeConfig) -> None:
    """Set matmul precision, threads, determinism, the compiler and its cache for the process."""
    torch.set_float32_matmul_precision(config.matmul_precision)
    if config.device == "cpu":
        torch.set_num_threads(config.threads or usable_cores())
    else:
        # Deterministic products need this workspace. cuBLAS reads the variable at the first one. On
        # Hopper torch takes as much anyway.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # A CPU must give the same bits each time. On a GPU this costs speed, so it is off by default.
    # `use_deterministic_algorithms` would do the same, but it imports the compiler, which takes
    # seconds even where nothing is compiled.
    torch.set_deterministic_debug_mode(
        "error" if config.device == "cpu" or config.deterministic else "default"
    )
    # Deterministic mode also fills every new buffer with NaN, a debugging aid that costs an extra
    # write. Set by setattr because torch's type stubs lack the module.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010
    if config.compile:
        _set_compiler(config)


def _set_compiler(config: RuntimeConfig) -> None:
    """Keep kernels and graphs in the cache folder, so that a second start compiles nothing.

    Environment variables that the user has set take precedence.
    """
    import torch._functorch.config as autograd
    import torch._inductor.config as inductor

    place = cache_folder() / "compiled"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(place / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(place / "triton"))
    settings = {
        "fx_graph_cache": True,
        "max_autotune": config.max_autotune,
        "coordinate_descent_tuning": config.max_autotune,
        # Without it the compiler times some kernels at each start, and another winner may sum in
        # another order.
        "deterministic": config.deterministic
        or (config.device == "cpu" and not config.max_autotune),
    }
    for name, value in settings.items():
        if hasattr(inductor, name):
            setattr(inductor, name, value)
    setattr(autograd, "enable_autograd_cache", True)  # noqa: B010


def detected_device() -> Literal["cpu", "cuda"]:
    """`cuda` where torch sees a GPU, else `cpu`. Prints the result, because the user chose none."""
    device: Literal["cpu", "cuda"] = "cuda" if torch.cuda.is_available() else "cpu"
    say(f"no --device was given: {device}")
    return device


def find_device(config: RuntimeConfig) -> torch.device:
    """The device of the settings. Raises WrongUsage where it or the precision is not available."""
    if config.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise WrongUsage(
            "--device cuda was asked for, but torch sees no CUDA device here",
            fix="--device cpu, or install a CUDA build of torch and check nvidia-smi",
        )
    if config.precision == "bf16" and not torch.cuda.is_bf16_supported():
        raise WrongUsage("this GPU has no bf16", fix="--precision float32")
    return torch.device("cuda")


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 peak of the device in FLOP/s; None where the table has no such device."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_BF16_FLOPS if part in name), None)


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory so far: allocated by torch on the GPU, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, Linux kilobytes
