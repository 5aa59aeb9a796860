"""Does this host train right, and how fast: one table of tests, each of which runs something that can fail.

The tests use a small model of the real block, so that they take seconds; `scale_capacity` alone runs the real scale.
A test that cannot run here is `skipped` with its reason and never counted as passed. Writes nothing: see report.py.
"""

from __future__ import annotations

import math
import pydoc_data.topics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from picochat.config import HostConfig, ModelConfig, RuntimeConfig, TrainConfig
from picochat.core.errors import PicochatError
from picochat.core.progress import quantity
from picochat.core.records import Record
from picochat.model.centred import centre_, largest_centre_error
from picochat.model.compute import LARGEST_ATTENTION_ERROR, Compute
from picochat.model.gpt import GPT, Cache, initialise
from picochat.model.weights import CheckpointInfo
from picochat.release.model_folder import TokenizerFiles, read_tokenizer
from picochat.sanity.capacity import measure_capacity
from picochat.scales import Scale
from picochat.tokens.batches import rows_of_step
from picochat.tokens.tokenizer import chat_template
from picochat.tokens.tokenizer import train as train_tokenizer_on
from picochat.train.feed import Batch, HostFeed
from picochat.train.live import HeldOut
from picochat.train.loop import Job, Trainer

SMALL = ModelConfig(context=64, layers=2, width=128, heads=4, kv_heads=2, head_width=32, mlp_width=256)
VOCAB = 512


class SanityResult(Record):
    """One row: what was measured, and the bound it had to meet. `seconds` is the time it took."""

    name: str
    status: Literal["pass", "fail", "skipped"]
    measured: float | None
    bound: str
    message: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Context:
    """What the tests run on. `scale`: whose real shape is measured, where one was asked for."""

    compute: Compute
    runtime: RuntimeConfig
    include_compile: bool
    scale: Scale | None
    capacity_sequences: int | None
    min_free_share: float


@dataclass(frozen=True)
class SanityTest:
    name: str
    run: Callable[[Context], SanityResult]
    because: str


def small_model(seed: int, device: torch.device) -> GPT:
    model = GPT(SMALL, VOCAB)
    initialise(model, seed)
    centre_(model)
    return model.to(device)


def random_rows(rows: int, seed: int) -> torch.Tensor:
    return torch.randint(0, VOCAB, (rows, SMALL.context + 1), generator=torch.Generator().manual_seed(seed))


def at_most(name: str, measured: float, bound: float, message: str) -> SanityResult:
    """Pass where `measured` is a number at most `bound`."""
    status: Literal["pass", "fail"] = "pass" if measured <= bound else "fail"
    finite = measured if math.isfinite(measured) else None
    return SanityResult(name=name, status=status, measured=finite, bound=f"<= {bound:g}", message=message)


def skipped(name: str, reason: str) -> SanityResult:
    return SanityResult(name=name, status="skipped", measured=None, bound="", message=reason)


def attention_backend(context: Context) -> SanityResult:
    error = context.compute.attention_error
    return at_most(
        "attention_backend",
        math.nan if error is None else error,
        LARGEST_ATTENTION_ERROR,
        f"{context.compute.backend} in {context.runtime.precision} against float32 math, forward and backward",
    )


def initial_loss(context: Context) -> SanityResult:
    model = small_model(0, context.compute.device)
    block = random_rows(8, 1).to(context.compute.device)
    loss = model.loss_sum(block[:, :-1], block[:, 1:], context.compute.dtype).item() / (8 * SMALL.context)
    return at_most("initial_loss", abs(loss - math.log(VOCAB)), 0.5, f"|loss - ln V| of an untrained model; loss {loss:.3f}")


def precision_backward(context: Context) -> SanityResult:
    """Gradients in the chosen precision against float64 on the CPU."""
    chosen = _gradient(small_model(0, context.compute.device), context.compute.dtype, context.compute.device)
    exact = _gradient(small_model(0, torch.device("cpu")).double(), torch.float64, torch.device("cpu"))
    error = float((chosen.double() - exact).norm() / exact.norm())
    bound = 1e-4 if context.compute.dtype == torch.float32 and context.runtime.matmul_precision == "highest" else 3e-2
    if context.compute.device.type == "cpu" and context.compute.dtype == torch.float32:
        bound = 1e-4
    return at_most(
        "precision_backward", error, bound, f"relative error of all gradients in {context.runtime.precision} against float64"
    )


def _gradient(model: GPT, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    block = random_rows(4, 2).to(device)
    model.zero_grad()
    logits = model(block[:, :-1], dtype)
    wide = logits.double() if dtype == torch.float64 else logits.float()
    loss = torch.nn.functional.cross_entropy(wide.flatten(0, 1), block[:, 1:].flatten())
    loss.backward()
    return torch.cat(
        [
            p.grad.flatten().float().cpu() if dtype != torch.float64 else p.grad.flatten()
            for p in model.parameters()
            if p.grad is not None
        ]
    )


def kv_cache_equivalence(context: Context) -> SanityResult:
    """Logits token by token through the cache, with a padded row, against one full forward."""
    model = small_model(0, context.compute.device)
    ids = random_rows(2, 3)[:, :24].to(context.compute.device)
    offset = torch.tensor([0, 5], device=ids.device)
    valid = torch.arange(24, device=ids.device)[None] >= offset[:, None]
    shifted = torch.stack([torch.roll(row, int(o)) for row, o in zip(ids, offset, strict=True)])
    with torch.no_grad():
        cache = Cache(valid[:, :10], offset)
        parts = [model(shifted[:, :10], torch.float32, cache)]
        for end in range(11, 25):
            cache.valid_BS = valid[:, :end]
            parts.append(model(shifted[:, end - 1 : end], torch.float32, cache))
        cached = torch.cat(parts, dim=1)
        error = max(_relative(cached[row, o:], model(ids[row : row + 1, : 24 - o])[0]) for row, o in enumerate((0, 5)))
    bound = 1e-4 if context.runtime.matmul_precision == "highest" or ids.device.type == "cpu" else 1e-2
    return at_most("kv_cache_equivalence", error, bound, "logits through the cache, one row padded, against a full forward")


def _relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


def resume_determinism(context: Context) -> SanityResult:
    """Four steps against two, a stop, and two more: the same weights."""
    with tempfile.TemporaryDirectory() as folder:
        straight = _train(context, Path(folder) / "straight", (4,))
        resumed = _train(context, Path(folder) / "resumed", (2, 4))
    error = max(float((a - b).abs().max()) for a, b in zip(straight, resumed, strict=True))
    bound = 0.0 if context.compute.device.type == "cpu" else 1e-3
    return at_most("resume_determinism", error, bound, "largest weight difference of 4 steps against 2 + 2")


def _train(context: Context, workspace: Path, stops: tuple[int, ...]) -> list[torch.Tensor]:
    rows = random_rows(64, 4).numpy()
    weights: list[torch.Tensor] = []
    for stop in stops:
        model = small_model(5, context.compute.device)
        job = _job(rows, stop, context.compute.device)
        Trainer(model, job, context.compute, HostConfig(), workspace, quiet=True).train()
        weights = [p.detach().cpu().clone() for p in model.parameters()]
    return weights


def _job(rows: np.ndarray, steps: int, device: torch.device) -> Job:
    config = TrainConfig(steps=steps, sequences_per_step=8, decay_share=0.0)

    def batch_of(step: int) -> Batch:
        block = rows[rows_of_step(step, 8, len(rows), seed=6)]
        return Batch(np.ascontiguousarray(block[:, :-1]), np.ascontiguousarray(block[:, 1:]))

    feed = HostFeed(batch_of, device, fixed_shape=True)
    return Job("base", config, feed, lambda model: HeldOut(loss=0.0, bits_per_byte=None))


def loader_coverage(context: Context) -> SanityResult:
    """Every row once per epoch, counted over three epochs of an odd size."""
    size, per_step = 1009, 16
    seen = np.concatenate([rows_of_step(step, per_step, size, seed=7) for step in range(3 * size // per_step + 1)])[: 3 * size]
    wrong = sum(int((np.bincount(seen[e * size : (e + 1) * size], minlength=size) != 1).sum()) for e in range(3))
    return at_most("loader_coverage", wrong, 0, "rows of three epochs not seen exactly once in each")


def centred_step(context: Context) -> SanityResult:
    """One optimizer step leaves the weights centred."""
    with tempfile.TemporaryDirectory() as folder:
        model = small_model(8, context.compute.device)
        job = _job(random_rows(64, 9).numpy(), 1, context.compute.device)
        Trainer(model, job, context.compute, HostConfig(), Path(folder), quiet=True).train()
    return at_most("centred_step", largest_centre_error(model), 1e-7, "largest |mean| over the projected groups after a step")


def torch_compile(context: Context) -> SanityResult:
    """Compiled forward and backward against eager, in the chosen precision."""
    if not context.include_compile:
        return skipped("torch_compile", "not asked for; --include-compile runs it")
    device, dtype = context.compute.device, context.compute.dtype
    block = random_rows(4, 10).to(device)
    eager, compiled = small_model(0, device), small_model(0, device)
    results: list[torch.Tensor] = []
    for model, loss_sum in ((eager, eager.loss_sum), (compiled, torch.compile(compiled.loss_sum, dynamic=False))):
        with context.compute.attention():
            loss = loss_sum(block[:, :-1], block[:, 1:], dtype)
        loss.backward()
        grads = [p.grad.flatten().float() for p in model.parameters() if p.grad is not None]
        results.append(torch.cat([loss.detach().float().reshape(1), *grads]))
    bound = 1e-4 if dtype == torch.float32 else 3e-2
    error = float((results[0] - results[1]).norm() / results[0].norm())
    return at_most("torch_compile", error, bound, "relative difference of compiled and eager loss and gradients")


def export_parity(context: Context) -> SanityResult:
    """The export of a small model and its tokenizer, read back by transformers, gives the same logits and ids."""
    from picochat.release.parity import BOUNDS, compare_export, reader_installed

    if not reader_installed():
        return skipped("export_parity", "transformers is not installed; pip install 'picochat[hf]'")
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = _small_tokenizer(Path(folder))
        info = CheckpointInfo(model=SMALL, vocab_size=VOCAB, tokenizer_digest=tokenizer.digest, stage="sft", step=0)
        report = compare_export(small_model(0, torch.device("cpu")), info, tokenizer, None)
    error = report.largest_relative_difference if report.texts_equal and report.chat_equal else math.inf
    return at_most(
        "export_parity", error, BOUNDS["float32"], f"largest relative logit difference, read back by {report.reader}"
    )


def _small_tokenizer(folder: Path) -> TokenizerFiles:
    """A tokenizer of VOCAB entries, trained on help texts that Python ships."""
    (folder / "tokenizer.json").write_bytes(train_tokenizer_on(list(pydoc_data.topics.topics.values())[:20], VOCAB))
    (folder / "chat_template.jinja").write_text(chat_template(), encoding="utf-8")
    return read_tokenizer(folder / "tokenizer.json")


def scale_capacity(context: Context) -> SanityResult:
    """Real steps of the real scale: they must fit with room to spare, and their speed is the forecast's basis."""
    if context.scale is None:
        return skipped("scale_capacity", "no scale was named; --capacity-scale NAME runs it")
    config = context.scale.config
    base = config.base
    if context.capacity_sequences is not None:
        base = base.model_copy(update={"micro_batch": context.capacity_sequences})
    vocab = config.tokenizer.vocab_size
    needed = (base.micro_batch or base.sequences_per_step) * config.model.context * 4
    tokens = np.random.default_rng(0).zipf(1.3, needed).clip(0, vocab - 1)
    found = measure_capacity(config.model, vocab, base, context.compute, tokens, steps=20)
    if found.tokens_per_second is None:
        return SanityResult(
            name="scale_capacity",
            status="fail",
            measured=0.0,
            bound=f">= {context.min_free_share:g}",
            message=f"{context.scale.name} ran out of memory",
        )
    hours = base.steps * base.sequences_per_step * config.model.context / found.tokens_per_second / 3600
    mfu = f", MFU {found.mfu:.1%} (non-causal convention)" if found.mfu is not None else ""
    memory = f", peak {found.peak_memory_bytes / 1e9:.1f} GB" if found.peak_memory_bytes else ""
    message = (
        f"{context.scale.name}: {quantity(found.tokens_per_second)} tokens/s{mfu}{memory}, {found.steps} steps of {found.sequences} "
        f"sequences, first step {found.compile_s:.0f}s longer; base stage {hours:.2f} h at this rate"
    )
    free = found.free_memory_share
    status: Literal["pass", "fail"] = "pass" if free is not None and free >= context.min_free_share else "fail"
    return SanityResult(
        name="scale_capacity", status=status, measured=free, bound=f">= {context.min_free_share:g}", message=message
    )


SANITY: tuple[SanityTest, ...] = (
    #          name                    test                  because
    SanityTest("attention_backend",    attention_backend,    "a fast kernel that is wrong trains a wrong model"),
    SanityTest("initial_loss",         initial_loss,         "a start far from ln V wastes the first thousand steps"),
    SanityTest("precision_backward",   precision_backward,   "gradients must survive the chosen precision"),
    SanityTest("kv_cache_equivalence", kv_cache_equivalence, "scores come from cached generation"),
    SanityTest("resume_determinism",   resume_determinism,   "a crash must cost minutes, not the run"),
    SanityTest("loader_coverage",      loader_coverage,      "every training token is a target once per epoch"),
    SanityTest("centred_step",         centred_step,         "only centred weights load in stock classes"),
    SanityTest("torch_compile",        torch_compile,        "the compiled step must be the eager step"),
    SanityTest("export_parity",        export_parity,        "what is published must be what was trained"),
    SanityTest("scale_capacity",       scale_capacity,       "memory and speed are measured before money is spent"),
)  # fmt: skip


def run_sanity(context: Context, say_result: Callable[[SanityResult], None]) -> list[SanityResult]:
    """Every test of the table, in order. A test that raises has failed, with what it said."""
    results: list[SanityResult] = []
    for test in SANITY:
        started = time.monotonic()
        try:
            result = test.run(context)
        except (RuntimeError, PicochatError) as error:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            result = SanityResult(name=test.name, status="fail", measured=None, bound="", message=text)
        results.append(result.model_copy(update={"seconds": time.monotonic() - started}))
        say_result(results[-1])
    return results
