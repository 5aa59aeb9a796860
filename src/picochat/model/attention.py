"""Which kernel computes attention on this machine: the first that is right, on a GPU the fastest.

A kernel here is a backend of torch's, and whether it is given key and value heads as they are or
repeated: some backends read grouped heads slowly or not at all. Kernels are judged by running them,
forward and backward, at the shapes of the scale: first by their error against float32 math, then by
the clock. The choice is kept beside the run and in the cache, so that a dry run, the full run and a
resumed one use the same kernel. docs/decisions/0022 has the reasons. Does not time a whole step.
"""

from __future__ import annotations

import importlib.util
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
from picochat.core.records import Record, digest_json, read_record, write_json
from picochat.model.gpt import attend

# Of equally fast kernels the earlier one in this table is taken.
BACKENDS: dict[str, SDPBackend] = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "fa3": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
LARGEST_ATTENTION_ERROR = 2e-2
"""Relative error against float32 math that a backend may show in bfloat16."""
CHECKED_ROWS = 2
SHORT_LENGTH = 32
"""Rows of SFT can be as short as this. A kernel must run there too."""
TIMED_TOKENS = {"cuda": 65_536, "cpu": 512}
"""Tokens of a timed pass: a micro-batch on a GPU; on a CPU few, because each start waits for it."""
TIMED_PASSES = {"cuda": 10, "cpu": 1}
TIMED_ROUNDS = 4
TIE_FRACTION = 0.02
"""Times that differ by less than this fraction count as equal, so that noise does not decide."""


@dataclass(frozen=True)
class AttentionKernel:
    """A key of BACKENDS, and whether key and value heads are repeated for it."""

    backend: str
    repeat_heads: bool


class KernelResult(Record):
    """How a kernel did on this machine.

    `problem`: why it cannot be used. `error`: see `largest_error`. `seconds`: of one forward and
    one backward pass.
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
        """The result in words, such as `flash, heads repeated: 1.2 ms, error 3e-03`."""
        name = self.backend + (", heads repeated" if self.repeat_heads else "")
        if self.problem is not None:
            return f"{name}: {self.problem}"
        taken = "" if self.seconds is None else f"{1000 * self.seconds:.3g} ms, "
        return f"{name}: {taken}error {self.error:.1e}"


class KernelChoice(Record):
    """The chosen kernel, and all that were tried.

    Valid only for the same `asked` and `where`. `asked`: the setting `attention_backend`. `where`:
    `AttentionSetting.described()`.
    """

    asked: str
    where: str
    chosen: KernelResult
    tried: list[KernelResult]


@dataclass(frozen=True)
class AttentionSetting:
    """Where attention runs: device, dtype, and the shapes of `model`."""

    device: torch.device
    dtype: torch.dtype
    model: ModelConfig

    def described(self) -> str:
        """Everything that can change which kernel is fastest, in words."""
        name = (
            torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else torch.backends.cpu.get_cpu_capability()
        )
        model, fa3 = self.model, importlib.util.find_spec("flash_attn_interface") is not None
        return (
            f"{name}, torch {torch.__version__}{' and flash-attention 3' if fa3 else ''},"
            f" {self.dtype}, {model.heads}/{model.kv_heads} heads of {model.head_width}, context"
            f" {model.context}"
            + (", deterministic" if torch.are_deterministic_algorithms_enabled() else "")
        )


def choose_kernel(asked: str, setting: AttentionSetting, places: Sequence[Path]) -> KernelChoice:
    """The kernel for `asked` (`auto` or a backend): a kept choice, else the best one here.

    places: files that keep a choice. The first that has one decides; a new choice is written to
    each of them. Raises HostProblem with all reasons where no kernel passes its check.
    """
    # A kept choice wins even where another kernel is faster now: noise must not change the kernel
    # between the dry run, the full run and a resumed one.
    kept = _kept_choice(asked, setting, places)
    choice = kept or _new_choice(asked, setting)
    for place in places:
        if not place.exists() or not kept:
            _keep(choice, place)
    select_kernel(choice.chosen.backend)
    return choice


def choice_file(folder: Path, asked: str, setting: AttentionSetting) -> Path:
    """The file in `folder` that keeps the choice for this request and no other."""
    return folder / f"{digest_json([asked, setting.described()])[:32]}.json"


def candidate_kernels(asked: str, setting: AttentionSetting) -> list[AttentionKernel]:
    """The kernels to try for `asked`, the preferred ones first.

    On a CPU heads are never repeated: it gains nothing there.
    """
    backends = list(BACKENDS) if asked == "auto" else [asked]
    repeats = (
        (False, True)  # with as many key as query heads there is nothing to repeat
        if setting.device.type == "cuda" and setting.model.heads != setting.model.kv_heads
        else (False,)
    )
    return [AttentionKernel(backend, repeat) for backend in backends for repeat in repeats]


def fastest(tried: Sequence[KernelResult], tie_fraction: float) -> KernelResult | None:
    """The first whose time is within `tie_fraction` of the least; None where none has a time."""
    timed = [one for one in tried if one.problem is None and one.seconds is not None]
    best = min((one.seconds for one in timed if one.seconds is not None), default=0.0)
    return next(
        (
            one
            for one in timed
            if one.seconds is not None and one.seconds <= best * (1 + tie_fraction)
        ),
        None,
    )


def _new_choice(asked: str, setting: AttentionSetting) -> KernelChoice:
    if setting.device.type == "cuda":
        tried = measure_kernels(candidate_kernels(asked, setting), setting)
        chosen = fastest(tried, TIE_FRACTION)
    else:
        # On a CPU the order decides and not the clock. A clock on a busy machine once flipped the
        # kernel between two equal runs, whose digests then differed.
        tried = check_kernels(candidate_kernels(asked, setting), setting)
        chosen = next((one for one in tried if one.problem is None), None)
    if chosen is None:
        raise HostProblem(
            "no attention backend works here: "
            + "; ".join(f"{one.backend}: {one.problem}" for one in tried),
            fix=(
                "--attn-backend math runs everywhere; --attn-backend auto takes the fastest that"
                " passes"
            ),
        )
    return KernelChoice(asked=asked, where=setting.described(), chosen=chosen, tried=tried)


def _kept_choice(
    asked: str, setting: AttentionSetting, places: Sequence[Path]
) -> KernelChoice | None:
    """The first kept choice for the same request whose kernel still passes; None without one."""
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
        # Its time is kept, its error is not: a new driver may have broken the kernel.
        now = check_kernels([choice.chosen.kernel], setting)[0]
        if now.problem is None:
            return choice
        say(
            f"attention was {choice.chosen.backend}, which fails here now ({now.problem}); choosing"
            " again"
        )
    return None


def _keep(choice: KernelChoice, place: Path) -> None:
    try:
        write_json(place, choice)
    except OSError as error:  # a read-only cache costs time at the next start, and no more
        say(
            f"the choice of attention cannot be kept at {place} ({error}); the next start measures"
            " again"
        )


# ---- error ---------------------------------------------------------------------------------------


def check_kernels(
    candidates: Sequence[AttentionKernel], setting: AttentionSetting
) -> list[KernelResult]:
    """Each kernel's error against float32 math, at the scale's context and at short rows."""
    lengths = sorted({min(SHORT_LENGTH, setting.model.context), setting.model.context})
    inputs = [_random_heads(setting.model, CHECKED_ROWS, length) for length in lengths]
    # The reference runs on the CPU, where no kernel under test can be at fault.
    exact = AttentionSetting(torch.device("cpu"), torch.float32, setting.model)
    wanted = [_pass(AttentionKernel("math", False), exact, each) for each in inputs]
    return [_checked(kernel, setting, inputs, wanted) for kernel in candidates]


def _checked(
    kernel: AttentionKernel,
    setting: AttentionSetting,
    inputs: list[list[Tensor]],
    wanted: list[list[Tensor]],
) -> KernelResult:
    def tried(problem: str | None, error: float | None) -> KernelResult:
        return KernelResult(
            backend=kernel.backend, repeat_heads=kernel.repeat_heads, problem=problem, error=error
        )

    try:
        select_kernel(kernel.backend)
        found = [_pass(kernel, setting, each) for each in inputs]
    except (ImportError, RuntimeError, ValueError) as problem:
        return tried(_reason(problem), None)
    error = max(largest_error(got, want) for got, want in zip(found, wanted, strict=True))
    if not error <= LARGEST_ATTENTION_ERROR:
        allowed = f"at most {LARGEST_ATTENTION_ERROR:.0e} is allowed"
        return tried(
            f"relative error {error:.1e} against float32 math, {allowed}",
            error if error == error else None,
        )
    return tried(None, error)


def largest_error(got: Sequence[Tensor], want: Sequence[Tensor]) -> float:
    """Largest ||got - want|| / ||want|| over the output and the gradients; NaN if one is NaN."""
    errors = [
        float((g.float().cpu() - w).norm() / w.norm()) for g, w in zip(got, want, strict=True)
    ]
    # `max` alone may skip a NaN, and a kernel that returns NaN would pass.
    return next((error for error in errors if error != error), max(errors))


def _random_heads(model: ModelConfig, rows: int, length: int) -> list[Tensor]:
    """Queries, keys, values and the gradient of the output, in the model's own memory layout.

    That is (B, T, heads, D), viewed as (B, heads, T, D).
    """
    generator = torch.Generator().manual_seed(0)
    counts = (model.heads, model.kv_heads, model.kv_heads, model.heads)
    return [
        torch.randn(rows, length, n, model.head_width, generator=generator).transpose(1, 2)
        for n in counts
    ]


def _pass(
    kernel: AttentionKernel, setting: AttentionSetting, tensors: Sequence[Tensor]
) -> list[Tensor]:
    """Output and gradients of one forward and backward pass."""
    # The reference sees the same rounded inputs as the kernel, so that only arithmetic is compared.
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
    """Each kernel checked, and those that pass timed in turns.

    The least time of several rounds counts: other work on the machine can only add to it.
    """
    tried = check_kernels(candidates, setting)
    rows = max(1, TIMED_TOKENS[setting.device.type] // setting.model.context)
    tensors = [
        x.to(setting.device, setting.dtype)
        for x in _random_heads(setting.model, rows, setting.model.context)
    ]
    seconds: dict[int, list[float]] = {
        number: [] for number, one in enumerate(tried) if one.problem is None
    }
    # Round 0 warms up and is not counted. A single kernel has nothing to be compared with.
    for timed in range(TIMED_ROUNDS + 1) if len(seconds) > 1 else (0, 1):
        for number in list(seconds):
            try:
                taken = _seconds(tried[number].kernel, setting, tensors)
            except RuntimeError as problem:  # such as a kernel that needs too much memory
                del seconds[number]
                tried[number] = tried[number].model_copy(update={"problem": _reason(problem)})
                continue
            seconds[number] += [taken] if timed else []
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()  # what a slow kernel allocated must not count as training's memory
    return [
        one.model_copy(update={"seconds": min(seconds[number])}) if seconds.get(number) else one
        for number, one in enumerate(tried)
    ]


def _seconds(
    kernel: AttentionKernel, setting: AttentionSetting, tensors: Sequence[Tensor]
) -> float:
    """Time of one forward and backward pass, the mean of a few that follow each other."""
    select_kernel(kernel.backend)
    inputs = [x.detach().requires_grad_() for x in tensors[:3]]
    passes, cuda = TIMED_PASSES[setting.device.type], setting.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(passes):
        torch.autograd.grad(_attend(kernel, inputs), inputs, tensors[3])
    if cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / passes


# ---- flash-attention 3 ---------------------------------------------------------------------------


def select_kernel(backend: str) -> None:
    """Make torch's flash kernel FA3 for `fa3`, and torch's own for every other backend.

    Torch keeps this for the whole process, so FA3 is switched off again unless it was chosen.
    Raises ImportError, RuntimeError or ValueError where FA3 is not available.
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
