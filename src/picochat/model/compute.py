"""Where and how numbers are computed: device, dtype, threads, attention, compiler. Resolved once,
then passed along.

What torch can only set for the whole process is set here and nowhere else. Which attention is right
and fast is judged by model/backends.py. Does not compile: train/engine.py and model/optim.py do.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch.nn.attention import sdpa_kernel

from picochat.config import ModelConfig, RuntimeConfig
from picochat.core.errors import WrongUsage
from picochat.core.machine import cache_folder, usable_cores
from picochat.core.progress import say
from picochat.model.backends import BACKENDS, Choice, Setting, choose, place_of_choice
from picochat.model.crew import NO_CREW, Crew

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}

# Dense bf16 peaks of the vendors' datasheets, without sparsity: what MFU is a share of.
PEAK_BF16_FLOPS = (
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("H200", 989e12),
    ("GH200", 989e12),
    ("A100", 312e12),
)


@dataclass(frozen=True)
class Compute:
    """A resolved runtime. `backend` and `repeat_heads`: how attention is computed
    (model/backends.py); `attention_error`: what its check gave; `choice`: what it was chosen among,
    where it was chosen here. `crew` is of one on a GPU.
    """

    device: torch.device
    dtype: torch.dtype
    backend: str
    attention_error: float | None
    compiled: bool
    crew: Crew = NO_CREW
    repeat_heads: bool = False
    choice: Choice | None = None

    @contextmanager
    def attention(self) -> Generator[None, None, None]:
        """Inside, causal attention without a mask uses the chosen backend and no other."""
        with sdpa_kernel([BACKENDS[self.backend]]):
            yield


def open_compute(
    runtime: RuntimeConfig, model: ModelConfig, workspace: Path | None = None
) -> Compute:
    """Apply the runtime's settings to this process, choose how attention is computed at this
    model's shapes, and return both.

    workspace: resumable work that must go on with the attention that it began with. Raises
    WrongUsage where the device or the precision cannot be had here, HostProblem where no backend
    passes.
    """
    device = find_device(runtime)
    apply_settings(runtime)
    setting = Setting(device, DTYPES[runtime.precision], model)
    places = [place_of_choice(cache_folder() / "attention", runtime.attention_backend, setting)]
    if workspace is not None:
        places.insert(0, workspace / "attention.json")
    choice = choose(runtime.attention_backend, setting, places)
    chosen = choice.chosen
    crew = Crew(runtime.threads or usable_cores()) if device.type == "cpu" else NO_CREW
    return Compute(
        device,
        setting.dtype,
        chosen.backend,
        chosen.error,
        runtime.compile,
        crew,
        chosen.repeat_heads,
        choice,
    )


def apply_settings(runtime: RuntimeConfig) -> None:
    """What a runtime asks of the whole process: precision of products, threads, determinism, the
    compiler and its cache.
    """
    torch.set_float32_matmul_precision(runtime.matmul_precision)
    if runtime.device == "cpu":
        torch.set_num_threads(runtime.threads or usable_cores())
    else:
        # What deterministic products need, read when the first one runs. As large as what torch
        # takes on Hopper anyway.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The same bits each time are part of the promise on a CPU; on a GPU they cost speed and are
    # asked for. By this name, because `use_deterministic_algorithms` imports the compiler, which
    # takes seconds also where none is used.
    torch.set_deterministic_debug_mode(
        "error" if runtime.device == "cpu" or runtime.deterministic else "default"
    )
    # A debugging aid that writes every new buffer once more; its module is not in torch's type
    # stubs.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010
    if runtime.compile:
        _set_compiler(runtime)


def _set_compiler(runtime: RuntimeConfig) -> None:
    """Kernels and graphs are kept in the cache, so that a second start compiles nothing; a place
    the user set is left alone.
    """
    import torch._functorch.config as autograd
    import torch._inductor.config as inductor

    place = cache_folder() / "compiled"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(place / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(place / "triton"))
    settings = {
        "fx_graph_cache": True,
        "max_autotune": runtime.max_autotune,
        "coordinate_descent_tuning": runtime.max_autotune,
        # Without it the compiler times some kernels at each start, and may sum in another order
        # than the last time.
        "deterministic": (
            runtime.deterministic or (runtime.device == "cpu" and not runtime.max_autotune)
        ),
    }
    for name, value in settings.items():
        if hasattr(inductor, name):
            setattr(inductor, name, value)
    setattr(autograd, "enable_autograd_cache", True)  # noqa: B010


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


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 peak of the device in FLOP/s, None where it is not in the table."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_BF16_FLOPS if part in name), None)
