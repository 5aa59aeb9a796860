"""Which kernel computes attention here: each is checked against float32 math, and on a GPU `auto`
takes the fastest that passes.

A way to compute attention is a backend and whether its key and value heads are given as they are or
repeated, because some kernels read grouped heads slowly or not at all. Ways are judged by running
them, forward and backward, at the shapes of the scale: first their error, then their time. On a CPU
the clock decides nothing: a run elsewhere must end in the same digests, and the first that passes
is also the fastest there. A choice is kept beside the run and in the cache, so that a dry run, the
full run and a resumed one compute alike; its numbers are checked again each time. Does not know
what a whole step takes.
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

# In the order in which equally fast ones are preferred.
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
"""Rows of SFT can be as short as this: a kernel must run there too."""
TIMED_TOKENS = {"cuda": 65_536, "cpu": 512}
"""Tokens of a timed pass: a GPU's micro-batch, and on a CPU no more than a start can wait for."""
TIMED_PASSES = {"cuda": 10, "cpu": 1}
TIMED_ROUNDS = 4
TIE_SHARE = 0.02
"""Times closer than this count as equal, so that noise decides nothing."""


@dataclass(frozen=True)
class Way:
    """One way to compute attention: a key of BACKENDS, and whether key and value heads are repeated
    for it.
    """

    backend: str
    repeat_heads: bool


class Tried(Record):
    """A way as it did here.

    `problem`: why it cannot be used. `error`: see `largest_error`. `seconds`: forward and backward.
    """

    backend: str
    repeat_heads: bool
    problem: str | None
    error: float | None
    seconds: float | None = None

    @property
    def way(self) -> Way:
        return Way(self.backend, self.repeat_heads)

    def line(self) -> str:
        """`flash, heads repeated: 1.2 ms, error 3e-03`, for people."""
        name = self.backend + (", heads repeated" if self.repeat_heads else "")
        if self.problem is not None:
            return f"{name}: {self.problem}"
        taken = "" if self.seconds is None else f"{1000 * self.seconds:.3g} ms, "
        return f"{name}: {taken}error {self.error:.1e}"


class Choice(Record):
    """What `chosen` was taken for and among what.

    A choice for another request (`asked`, `where`) is none.
    """

    asked: str
    where: str
    chosen: Tried
    tried: list[Tried]


@dataclass(frozen=True)
class Setting:
    """Where attention runs: device, dtype, and the shapes of `model`."""

    device: torch.device
    dtype: torch.dtype
    model: ModelConfig

    def described(self) -> str:
        """Everything that can change which way is fastest, in words."""
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


def choose(asked: str, setting: Setting, places: Sequence[Path]) -> Choice:
    """The way to use for `asked` (`auto` or a backend): the one kept at the first of `places` that
    has one, else the best here.

    Writes the choice to each place. Raises HostProblem, with every reason, where no way passes.
    """
    kept = _kept(asked, setting, places)
    choice = kept or _chosen(asked, setting)
    for place in places:
        if not place.exists() or not kept:
            _keep(choice, place)
    select_kernel(choice.chosen.backend)
    return choice


def place_of_choice(folder: Path, asked: str, setting: Setting) -> Path:
    """The file in `folder` that keeps the choice for this request and no other."""
    return folder / f"{digest_json([asked, setting.described()])[:32]}.json"


def ways(asked: str, setting: Setting) -> list[Way]:
    """What may be tried for `asked`, the preferred first.

    On a CPU heads are given as they are: repeating them gains nothing.
    """
    backends = list(BACKENDS) if asked == "auto" else [asked]
    repeats = (
        (False, True)
        if setting.device.type == "cuda" and setting.model.heads != setting.model.kv_heads
        else (False,)
    )
    return [Way(backend, repeat) for backend in backends for repeat in repeats]


def fastest(tried: Sequence[Tried], tie_share: float) -> Tried | None:
    """The first of those that are not slower than the fastest by more than `tie_share`; None where
    none has a time.
    """
    timed = [one for one in tried if one.problem is None and one.seconds is not None]
    best = min((one.seconds for one in timed if one.seconds is not None), default=0.0)
    return next(
        (one for one in timed if one.seconds is not None and one.seconds <= best * (1 + tie_share)),
        None,
    )


def _chosen(asked: str, setting: Setting) -> Choice:
    if setting.device.type == "cuda":
        tried = try_ways(ways(asked, setting), setting)
        chosen = fastest(tried, TIE_SHARE)
    else:
        tried = check_ways(ways(asked, setting), setting)
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
    return Choice(asked=asked, where=setting.described(), chosen=chosen, tried=tried)


def _kept(asked: str, setting: Setting, places: Sequence[Path]) -> Choice | None:
    """The kept choice for this very request, where its numbers still hold."""
    for place in places:
        if not place.exists():
            continue
        try:
            choice = read_record(Choice, place, "attention choice")
        except BadInput as error:
            say(f"{error.what}; choosing again")
            continue
        if (choice.asked, choice.where) != (asked, setting.described()):
            continue
        now = check_ways([choice.chosen.way], setting)[0]
        if now.problem is None:
            return choice
        say(
            f"attention was {choice.chosen.backend}, which fails here now ({now.problem}); choosing"
            " again"
        )
    return None


def _keep(choice: Choice, place: Path) -> None:
    try:
        write_json(place, choice)
    except OSError as error:
        say(
            f"the choice of attention cannot be kept at {place} ({error}); the next start measures"
            " again"
        )


# ---- error ---------------------------------------------------------------------------------------


def check_ways(candidates: Sequence[Way], setting: Setting) -> list[Tried]:
    """Each way's error against float32 math, at the scale's context and at short rows."""
    lengths = sorted({min(SHORT_LENGTH, setting.model.context), setting.model.context})
    inputs = [_random_heads(setting.model, CHECKED_ROWS, length) for length in lengths]
    exact = Setting(torch.device("cpu"), torch.float32, setting.model)
    wanted = [_pass(Way("math", False), exact, each) for each in inputs]
    return [_checked(way, setting, inputs, wanted) for way in candidates]


def _checked(
    way: Way, setting: Setting, inputs: list[list[Tensor]], wanted: list[list[Tensor]]
) -> Tried:
    def tried(problem: str | None, error: float | None) -> Tried:
        return Tried(
            backend=way.backend, repeat_heads=way.repeat_heads, problem=problem, error=error
        )

    try:
        select_kernel(way.backend)
        found = [_pass(way, setting, each) for each in inputs]
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
    """Largest ||got - want|| / ||want|| over the output and the three gradients."""
    errors = [
        float((g.float().cpu() - w).norm() / w.norm()) for g, w in zip(got, want, strict=True)
    ]
    return next((error for error in errors if error != error), max(errors))


def _random_heads(model: ModelConfig, rows: int, length: int) -> list[Tensor]:
    """Queries, keys, values and the gradient of the output, in the memory order in which the model
    makes them.
    """
    generator = torch.Generator().manual_seed(0)
    counts = (model.heads, model.kv_heads, model.kv_heads, model.heads)
    return [
        torch.randn(rows, length, n, model.head_width, generator=generator).transpose(1, 2)
        for n in counts
    ]


def _pass(way: Way, setting: Setting, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Output and gradients of one forward and backward pass."""
    # The reference sees the inputs as the backend does, rounded to its dtype, so that only
    # arithmetic is compared.
    query, key, value, grad = (
        x.to(torch.bfloat16).to(setting.device, setting.dtype) for x in tensors
    )
    inputs = [x.requires_grad_() for x in (query, key, value)]
    out = _attend(way, inputs)
    out.backward(grad)
    return [out.detach(), *(x.grad for x in inputs if x.grad is not None)]


def _attend(way: Way, inputs: Sequence[Tensor]) -> Tensor:
    with sdpa_kernel([BACKENDS[way.backend]]):
        return attend(inputs[0], inputs[1], inputs[2], None, repeat_heads=way.repeat_heads)


def _reason(problem: Exception) -> str:
    return str(problem).splitlines()[0] if str(problem) else type(problem).__name__


# ---- time ----------------------------------------------------------------------------------------


def try_ways(candidates: Sequence[Way], setting: Setting) -> list[Tried]:
    """Each way checked, and those that pass timed in turns: the least of several rounds, since
    disturbances only add.
    """
    tried = check_ways(candidates, setting)
    tensors = [
        x.to(setting.device, setting.dtype)
        for x in _random_heads(setting.model, _timed_rows(setting), setting.model.context)
    ]
    seconds: dict[int, list[float]] = {
        number: [] for number, one in enumerate(tried) if one.problem is None
    }
    for timed in range(TIMED_ROUNDS + 1) if len(seconds) > 1 else (0, 1):
        for number in list(seconds):
            try:
                taken = _seconds(tried[number].way, setting, tensors)
            except RuntimeError as problem:  # such as a kernel that needs more memory than there is
                del seconds[number]
                tried[number] = tried[number].model_copy(update={"problem": _reason(problem)})
                continue
            seconds[number] += [taken] if timed else []
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()
    return [
        one.model_copy(update={"seconds": min(seconds[number])}) if seconds.get(number) else one
        for number, one in enumerate(tried)
    ]


def _timed_rows(setting: Setting) -> int:
    return max(1, TIMED_TOKENS[setting.device.type] // setting.model.context)


def _seconds(way: Way, setting: Setting, tensors: Sequence[Tensor]) -> float:
    """Time of one forward and backward pass, the mean of a few that follow each other."""
    select_kernel(way.backend)
    inputs = [x.detach().requires_grad_() for x in tensors[:3]]
    passes, cuda = TIMED_PASSES[setting.device.type], setting.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(passes):
        torch.autograd.grad(_attend(way, inputs), inputs, tensors[3])
    if cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / passes


# ---- flash-attention 3 ---------------------------------------------------------------------------


def select_kernel(backend: str) -> None:
    """Let torch's flash kernel be FA3 for `fa3`, and its own for every other backend. Process-wide,
    as torch has it.

    Raises ImportError, RuntimeError or ValueError where FA3 cannot be had.
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
