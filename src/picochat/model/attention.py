"""Chooses the attention kernel for this machine: on a GPU the fastest correct one, else the first.

A kernel is a torch backend, with key and value heads passed as they are or repeated: some backends
read grouped heads slowly or not at all. Each kernel runs forward and backward at the shapes of the
scale. Its error against float32 math is checked first; on a GPU its time is measured next. The
choice is stored beside the run and in the cache, so that a dry run, the full run and a resumed run
use the same kernel (docs/decisions/0022). Does not time a whole step.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import attention as torch_attention
from torch.nn.attention import SDPBackend, sdpa_kernel

from picochat.config import ModelConfig
from picochat.core.errors import BadInput, HostProblem
from picochat.core.progress import say
from picochat.core.records import Record, digest_json, finite_or_none, read_record, write_json
from picochat.model.gpt import attend

# The order is the preference among kernels of equal speed. On a CPU the order alone decides.
BACKENDS: dict[str, SDPBackend] = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "fa3": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
LARGEST_ATTENTION_ERROR = 2e-2
"""Largest relative error against float32 math that a kernel may have, in any dtype."""
CHECKED_ROWS = 2
SHORT_LENGTH = 32
"""SFT rows can be this short, so a kernel must also run at this length."""
TIMED_TOKENS = {"cuda": 65_536, "cpu": 512}
"""Tokens of a timed pass: on a GPU those of a micro-batch, on a CPU few to keep the test short."""
TIMED_PASSES = {"cuda": 10, "cpu": 1}
TIMED_ROUNDS = 4
TIE_FRACTION = 0.02
"""Times that differ by at most this fraction count as equal, so that noise does not decide."""


@dataclass(frozen=True)
class AttentionKernel:
    """A key of BACKENDS, and whether key and value heads are repeated before the call."""

    backend: str
    repeat_heads: bool


class KernelResult(Record):
    """The check of one kernel on this machine, and its time where it was measured.

    `problem`: why it cannot be used. `error`: see `largest_error`. `seconds`: time of one forward
    and backward pass.
    """

    backend: str
    repeat_heads: bool
    problem: str | None
    error: float | None
    seconds: float | None = None

    @property
    def kernel(self) -> AttentionKernel:
        return AttentionKernel(self.backend, self.repeat_heads)

    def line(self) -> str:
        """The result in words, such as `flash, heads repeated: 1.2 ms, error 3.0e-03`."""
        name = self.backend + (", heads repeated" if self.repeat_heads else "")
        if self.problem is not None:
            return f"{name}: {self.problem}"
        time_ms = "" if self.seconds is None else f"{1000 * self.seconds:.3g} ms, "
        return f"{name}: {time_ms}error {self.error:.1e}"


class KernelChoice(Record):
    """The chosen kernel, and all that were tried.

    `asked`: the setting `attention_backend`. `where`: `AttentionSetting.described()`. A stored
    choice is used again only where both are the same.
    """

    asked: str
    where: str
    chosen: KernelResult
    tried: list[KernelResult]


@dataclass(frozen=True)
class AttentionSetting:
    """What attention runs on: the device, the dtype and the shapes of `model`."""

    device: torch.device
    dtype: torch.dtype
    model: ModelConfig

    def described(self) -> str:
        """Everything that can change which kernel is the fastest, in words."""
        name = (
            torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else torch.backends.cpu.get_cpu_capability()
        )
        fa3 = " and flash-attention 3" if importlib.util.find_spec("flash_attn_interface") else ""
        deterministic = torch.are_deterministic_algorithms_enabled()
        model = self.model
        return (
            f"{name}, torch {torch.__version__}{fa3}, {self.dtype}, {model.heads}/{model.kv_heads}"
            f" heads of {model.head_width}, context {model.context}"
            f"{', deterministic' if deterministic else ''}"
        )


def choose_kernel(asked: str, setting: AttentionSetting, places: Sequence[Path]) -> KernelChoice:
    """The stored kernel for `asked` (`auto` or a backend), else the best one here; selects it.

    places: files that store a choice. The first valid one decides. A new choice is written to all
    of them. Raises HostProblem that lists every reason where no kernel passes its check.
    """
    # A stored choice wins even where another kernel is faster now: noise must not change the kernel
    # between the dry run, the full run and a resumed run.
    stored = _stored_choice(asked, setting, places)
    choice = stored or _new_choice(asked, setting)
    for place in places:
        if not (stored and place.exists()):
            _store(choice, place)
    select_kernel(choice.chosen.backend)
    return choice


def choice_file(folder: Path, asked: str, setting: AttentionSetting) -> Path:
    """The file in `folder` that stores the choice for this request and no other."""
    return folder / f"{digest_json([asked, setting.described()])[:32]}.json"


def candidate_kernels(asked: str, setting: AttentionSetting) -> list[AttentionKernel]:
    """The kernels to try for `asked`, in order of preference."""
    backends = list(BACKENDS) if asked == "auto" else [asked]
    # Repeating heads gains nothing on a CPU, or where each query head has its own key head.
    grouped = setting.model.heads != setting.model.kv_heads
    repeats = (False, True) if setting.device.type == "cuda" and grouped else (False,)
    return [AttentionKernel(backend, repeat) for backend in backends for repeat in repeats]


def fastest(tried: Sequence[KernelResult], tie_fraction: float) -> KernelResult | None:
    """The first whose time is within `tie_fraction` of the least; None where none has a time."""
    timed = [(one.seconds, one) for one in tried if one.problem is None and one.seconds is not None]
    limit = min((seconds for seconds, _ in timed), default=0.0) * (1 + tie_fraction)
    return next((one for seconds, one in timed if seconds <= limit), None)


def _new_choice(asked: str, setting: AttentionSetting) -> KernelChoice:
    if setting.device.type == "cuda":
        tried = measure_kernels(candidate_kernels(asked, setting), setting)
        chosen = fastest(tried, TIE_FRACTION)
    else:
        # On a CPU nothing is timed: timing on a busy machine once changed the kernel between two
        # equal runs, whose digests then differed.
        tried = check_kernels(candidate_kernels(asked, setting), setting)
        chosen = next((one for one in tried if one.problem is None), None)
    if chosen is None:
        raise HostProblem(
            "no attention backend works here: "
            + "; ".join(f"{one.backend}: {one.problem}" for one in tried),
            fix="--attn-backend math, which runs everywhere, or --attn-backend auto",
        )
    return KernelChoice(asked=asked, where=setting.described(), chosen=chosen, tried=tried)


def _stored_choice(
    asked: str, setting: AttentionSetting, places: Sequence[Path]
) -> KernelChoice | None:
    """The first stored choice for the same request whose kernel still passes its check."""
    for place in places:
        if not place.exists():
            continue
        try:
            choice = read_record(KernelChoice, place, "attention choice")
        except BadInput as error:
            say(f"{error.what}; choosing again")
            continue
        if (choice.asked, choice.where) != (asked, setting.described()):
            continue
        # The kernel is checked again, because a new driver may have broken it, but not timed again.
        now = check_kernels([choice.chosen.kernel], setting)[0]
        if now.problem is None:
            return choice
        say(f"attention {choice.chosen.backend} fails here now ({now.problem}); choosing again")
    return None


def _store(choice: KernelChoice, place: Path) -> None:
    try:
        write_json(place, choice)
    except OSError as error:  # a read-only cache only costs time at the next start
        say(f"cannot store the attention choice at {place} ({error}); the next start chooses again")


# ---- error ---------------------------------------------------------------------------------------


def check_kernels(
    candidates: Sequence[AttentionKernel], setting: AttentionSetting
) -> list[KernelResult]:
    """Each kernel's error against float32 math, at the scale's context and at short rows."""
    lengths = sorted({min(SHORT_LENGTH, setting.model.context), setting.model.context})
    inputs = [_random_heads(setting.model, CHECKED_ROWS, length) for length in lengths]
    # The reference runs on the CPU, so that a faulty GPU kernel cannot be its own reference.
    exact = AttentionSetting(torch.device("cpu"), torch.float32, setting.model)
    expected = [_forward_backward(AttentionKernel("math", False), exact, each) for each in inputs]
    return [_check(kernel, setting, inputs, expected) for kernel in candidates]


def _check(
    kernel: AttentionKernel,
    setting: AttentionSetting,
    inputs: list[list[Tensor]],
    expected: list[list[Tensor]],
) -> KernelResult:
    problem = error = None
    try:
        select_kernel(kernel.backend)
        found = [_forward_backward(kernel, setting, each) for each in inputs]
    except (ImportError, RuntimeError, ValueError) as failure:
        problem = _reason(failure)
    else:
        error = max(largest_error(got, want) for got, want in zip(found, expected, strict=True))
        if not error <= LARGEST_ATTENTION_ERROR:  # true for NaN as well
            problem = (
                f"relative error {error:.1e} against float32 math, at most"
                f" {LARGEST_ATTENTION_ERROR:.0e} is allowed"
            )
    return KernelResult(
        backend=kernel.backend,
        repeat_heads=kernel.repeat_heads,
        problem=problem,
        error=finite_or_none(error),
    )


def largest_error(got: Sequence[Tensor], want: Sequence[Tensor]) -> float:
    """Largest ||got - want|| / ||want|| over the output and the gradients; NaN if one is NaN."""
    errors = [
        float((g.float().cpu() - w).norm() / w.norm()) for g, w in zip(got, want, strict=True)
    ]
    # `max` alone may skip a NaN, and a kernel that returns NaN would pass.
    return next((error for error in errors if error != error), max(errors))


def _random_heads(model: ModelConfig, rows: int, length: int) -> list[Tensor]:
    """Queries, keys, values and the gradient of the output, each (B, heads, T, D).

    They are views of (B, T, heads, D), the memory layout that the model passes to the kernel.
    """
    generator = torch.Generator().manual_seed(0)
    counts = (model.heads, model.kv_heads, model.kv_heads, model.heads)
    return [
        torch.randn(rows, length, n, model.head_width, generator=generator).transpose(1, 2)
        for n in counts
    ]


def _forward_backward(
    kernel: AttentionKernel, setting: AttentionSetting, tensors: Sequence[Tensor]
) -> list[Tensor]:
    """The output, and the gradients of queries, keys and values."""
    # Rounded to bfloat16 for the reference too: only the arithmetic is compared, not the inputs.
    query, key, value, grad = (
        x.to(torch.bfloat16).to(setting.device, setting.dtype) for x in tensors
    )
    inputs = [x.requires_grad_() for x in (query, key, value)]
    out = _attend(kernel, inputs)
    out.backward(grad)
    return [out.detach(), *(x.grad for x in inputs if x.grad is not None)]


def _attend(kernel: AttentionKernel, inputs: Sequence[Tensor]) -> Tensor:
    with sdpa_kernel([BACKENDS[kernel.backend]]):
        return attend(inputs[0], inputs[1], inputs[2], None, repeat_heads=kernel.repeat_heads)


def _reason(problem: Exception) -> str:
    return str(problem).splitlines()[0] if str(problem) else type(problem).__name__


# ---- time ----------------------------------------------------------------------------------------


def measure_kernels(
    candidates: Sequence[AttentionKernel], setting: AttentionSetting
) -> list[KernelResult]:
    """Check each kernel, and time those that pass."""
    # The kernels take turns, and the least time of several rounds counts, because other work on
    # the machine can only add time.
    tried = check_kernels(candidates, setting)
    rows = max(1, TIMED_TOKENS[setting.device.type] // setting.model.context)
    tensors = [
        x.to(setting.device, setting.dtype)
        for x in _random_heads(setting.model, rows, setting.model.context)
    ]
    seconds = {number: math.inf for number, one in enumerate(tried) if one.problem is None}
    # Round 0 warms up and is not counted. A single kernel needs one round only, for its report.
    for timed in range(TIMED_ROUNDS + 1) if len(seconds) > 1 else (0, 1):
        for number in list(seconds):
            try:
                pass_seconds = _time_pass(tried[number].kernel, setting, tensors)
            except RuntimeError as problem:  # such as out of memory
                del seconds[number]
                tried[number] = tried[number].model_copy(update={"problem": _reason(problem)})
                continue
            if timed:
                seconds[number] = min(seconds[number], pass_seconds)
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()  # else training's memory would include what these kernels took
    return [
        one.model_copy(update={"seconds": seconds[number]}) if number in seconds else one
        for number, one in enumerate(tried)
    ]


def _time_pass(
    kernel: AttentionKernel, setting: AttentionSetting, tensors: Sequence[Tensor]
) -> float:
    """Mean seconds of a forward and backward pass, over a few consecutive ones."""
    select_kernel(kernel.backend)
    inputs = [x.detach().requires_grad_() for x in tensors[:3]]
    passes = TIMED_PASSES[setting.device.type]
    # CUDA calls return before the kernel ends, so both readings of the clock wait for the device.
    wait = torch.cuda.synchronize if setting.device.type == "cuda" else torch.cpu.synchronize
    wait()
    started = time.perf_counter()
    for _ in range(passes):
        torch.autograd.grad(_attend(kernel, inputs), inputs, tensors[3])
    wait()
    return (time.perf_counter() - started) / passes


# ---- flash-attention 3 ---------------------------------------------------------------------------


def select_kernel(backend: str) -> None:
    """Replace torch's flash kernel by FA3 for `fa3`, and restore it for every other backend.

    The replacement holds for the whole process. Raises ImportError, RuntimeError or ValueError
    where FA3 is not available.
    """
    activate = getattr(torch_attention, "activate_flash_attention_impl", None)
    restore = getattr(torch_attention, "restore_flash_attention_impl", None)
    current = getattr(torch_attention, "current_flash_attention_impl", None)
    active = current() if current else None
    if backend == "fa3":
        if not (activate and restore and current):
            raise RuntimeError("this torch cannot switch flash-attention 3 on and off again")
        if active != "FA3":
            activate("FA3")
    elif active is not None and restore:
        restore()
