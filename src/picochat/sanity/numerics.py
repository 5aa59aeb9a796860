"""Sanity tests of arithmetic: kernels, precision, cache and compiler give the same function."""

from __future__ import annotations

import math
import pydoc_data.topics
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from picochat.config import TrainConfig
from picochat.export.model_folder import TokenizerFiles, read_tokenizer
from picochat.model.attention import (
    LARGEST_ATTENTION_ERROR,
    AttentionSetting,
    candidate_kernels,
    measure_kernels,
    select_kernel,
)
from picochat.model.gpt import GPT, Cache
from picochat.model.weights import CheckpointInfo
from picochat.sanity.context import (
    ROWS,
    SMALL,
    VOCAB,
    Context,
    SanityResult,
    at_most,
    largest,
    random_rows,
    skipped,
)
from picochat.tokens.tokenizer import chat_template
from picochat.tokens.tokenizer import train as train_tokenizer_on

NO_COMPILE = "not asked for; --include-compile runs it"


def attention_backend(context: Context) -> SanityResult:
    """The error of the chosen backend; the message lists every one that this machine has."""
    compute, choice = context.compute, context.compute.choice
    tried = choice.tried if choice and choice.asked == "auto" else []
    if not any(one.seconds for one in tried):
        setting = AttentionSetting(compute.device, compute.dtype, context.shape)
        tried = measure_kernels(candidate_kernels("auto", setting), setting)
        select_kernel(compute.backend)
    error = compute.attention_error
    return at_most(
        "attention_backend",
        math.nan if error is None else error,
        LARGEST_ATTENTION_ERROR,
        f"{compute.backend}{' with repeated heads' if compute.repeat_heads else ''} in"
        f" {context.runtime.precision} against float32 math, forward and backward. Tried:"
        f" {'; '.join(one.line() for one in tried)}",
    )


def initial_loss(context: Context) -> SanityResult:
    """The loss of an untrained model, which knows nothing, against ln V."""
    model = context.small_model(0)
    block = random_rows(ROWS, 1).to(context.compute.device)
    loss = model.loss_sum(block[:, :-1], block[:, 1:], context.compute.dtype).item() / (
        ROWS * SMALL.context
    )
    return at_most(
        "initial_loss",
        abs(loss - math.log(VOCAB)),
        0.5,
        f"|loss - ln V| of an untrained model; loss {loss:.3f}",
    )


def precision_backward(context: Context) -> SanityResult:
    """Gradients in the chosen precision against float64 on the CPU."""
    compute = context.compute
    chosen = _gradient(context.small_model(0), compute.dtype, compute.device)
    exact = _gradient(context.parts.model(0).double(), torch.float64, torch.device("cpu"))
    error = float((chosen.double() - exact).norm() / exact.norm())
    # TF32 rounds the factors of a product to 10 bits, bf16 to 7.
    exact_products = compute.device.type == "cpu" or context.runtime.matmul_precision == "highest"
    bound = 1e-4 if compute.dtype == torch.float32 and exact_products else 3e-2
    return at_most(
        "precision_backward",
        error,
        bound,
        f"relative error of all gradients in {context.runtime.precision} against float64",
    )


def _gradient(model: GPT, dtype: torch.dtype, device: torch.device) -> Tensor:
    block = random_rows(4, 2).to(device)
    logits = model(block[:, :-1], dtype)
    wide = logits.double() if dtype == torch.float64 else logits.float()
    torch.nn.functional.cross_entropy(wide.flatten(0, 1), block[:, 1:].flatten()).backward()
    return _gradients(model).cpu()


def _gradients(model: GPT) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def kv_cache_equivalence(context: Context) -> SanityResult:
    """Logits token by token through the cache, with a padded row, against one full forward."""
    model = context.small_model(0)
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
        error = largest(
            _relative(cached[row, o:], model(ids[row : row + 1, : 24 - o])[0])
            for row, o in enumerate((0, 5))
        )
    bound = (
        1e-4 if context.runtime.matmul_precision == "highest" or ids.device.type == "cpu" else 1e-2
    )
    return at_most(
        "kv_cache_equivalence",
        error,
        bound,
        "logits through the cache, one row padded, against a full forward",
    )


def _relative(got: Tensor, want: Tensor) -> Tensor:
    return (got - want).abs().max() / want.abs().max()


def torch_compile(context: Context) -> SanityResult:
    """Compiled forward and backward against eager, in the chosen precision."""
    if not context.include_compile:
        return skipped("torch_compile", NO_COMPILE)
    dtype = context.compute.dtype
    block = random_rows(ROWS, 10).to(context.compute.device)
    eager, compiled = context.small_model(0), context.small_model(0)
    results: list[Tensor] = []
    for model, loss_sum in (
        (eager, eager.loss_sum),
        (compiled, torch.compile(compiled.loss_sum, dynamic=False, fullgraph=True)),
    ):
        model.repeat_heads = context.compute.repeat_heads
        with context.compute.attention():
            loss = loss_sum(block[:, :-1], block[:, 1:], dtype)
        loss.backward()
        results.append(torch.cat([loss.detach().float().reshape(1), _gradients(model)]))
    bound = 1e-4 if dtype == torch.float32 else 3e-2
    error = float((results[0] - results[1]).norm() / results[0].norm())
    return at_most(
        "torch_compile",
        error,
        bound,
        "relative difference of compiled and eager loss and gradients",
    )


def compiled_optimizer(context: Context) -> SanityResult:
    """Two compiled optimizer steps against two eager ones, as a fraction of what they change."""
    if not context.include_compile:
        return skipped("compiled_optimizer", NO_COMPILE)
    before = torch.cat([p.detach().flatten() for p in context.small_model(0).parameters()])
    eager, compiled = (_stepped(context, compiled) for compiled in (False, True))
    error = float((compiled - eager).norm() / (eager - before).norm())
    # On a GPU the iterations run in bfloat16, and the compiler rounds less often.
    bound = 5e-2 if context.compute.device.type == "cuda" else 1e-3
    return at_most(
        "compiled_optimizer",
        error,
        bound,
        "difference of compiled and eager steps, as a fraction of the steps",
    )


def _stepped(context: Context, compiled: bool) -> Tensor:
    model = context.small_model(0)
    optimizer = context.parts.optimizer(model, TrainConfig(steps=2), compiled=compiled)
    for step in range(2):
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.device)
        optimizer.step(1.0)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def export_parity(context: Context) -> SanityResult:
    """An exported small model and its tokenizer give the same logits and ids in transformers."""
    from picochat.export.parity import BOUNDS, compare_export, reader_installed

    if not reader_installed():
        return skipped("export_parity", "transformers is not installed; pip install 'picochat[hf]'")
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = _small_tokenizer(Path(folder))
        info = CheckpointInfo(
            model=SMALL, vocab_size=VOCAB, tokenizer_digest=tokenizer.digest, stage="sft", step=0
        )
        report = compare_export(context.parts.model(0), info, tokenizer, None)
    error = (
        report.largest_relative_difference if report.texts_equal and report.chat_equal else math.inf
    )
    return at_most(
        "export_parity",
        error,
        BOUNDS["float32"],
        f"largest relative logit difference, read back by {report.reader}",
    )


def _small_tokenizer(folder: Path) -> TokenizerFiles:
    """A tokenizer of VOCAB entries, trained on help texts that Python ships."""
    (folder / "tokenizer.json").write_bytes(
        train_tokenizer_on(list(pydoc_data.topics.topics.values())[:20], VOCAB)
    )
    (folder / "chat_template.jinja").write_text(chat_template(), encoding="utf-8")
    return read_tokenizer(folder / "tokenizer.json")
