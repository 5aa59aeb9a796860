"""One training with one thing changed: bits per byte of held-out documents, as a JSON line.

    python bench/ablations.py --source FOLDER --tokens 300000 --seed 42 [NAME=VALUE ...]
    python bench/ablations.py --source FOLDER --nanochat residual_scalars=0

NAME is a field of `Block` (harness/ablation_model.py) or of `Recipe` below, VALUE a number, or a
word for `rows`. The defaults are picochat's block and the recipe of the scale `tiny`; --nanochat
starts from nanochat's of commit 92d63d4, with its rates tuned for steps of 2,048 tokens. So the
distance between the two can be walked from either end, one thing at a time.

Held out are 500 documents, in one stream cut into rows, a BOS before each document; targets are all
tokens but BOS. One thread by default: two runs side by side are faster than one with two threads.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness.ablation_model import Block, Decoder, centre, start
from harness.token_rows import (
    all_rows,
    document_rows,
    documents_of,
    rows_at,
    stream_of,
    summed_nats,
    tokenizer_of,
)
from torch import Tensor, nn

from picochat.config import CountsConfig, TrainConfig
from picochat.model.gpt import cross_entropy_sum
from picochat.model.optim import stacks_of
from picochat.model.orthogonalize import orthogonalize
from picochat.train.count_teacher import teaching
from picochat.train.loader import shifted_batch
from picochat.train.schedule import lr_fraction

HELD_OUT_DOCUMENTS = 500
VOCAB_SIZE = 2048
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
"""Coefficients of five iterations, Amsel et al. 2025 (arXiv 2505.16932)."""


@dataclass(frozen=True)
class Recipe:
    """Rates are peaks. Momentum goes from start to end over `momentum_rise` of the steps."""

    sequences: int = 8
    rows: str = "stream"  # or "documents": each row begins at one, cut ends are dropped
    matrix_lr: float = 0.02
    embedding_lr: float = 0.004
    value_embedding_lr: float = 0.002
    head_lr: float = 0.004
    gain_lr: float = 0.004
    beta1: float = 0.9
    beta2: float = 0.95
    momentum_start: float = 0.8
    momentum: float = 0.8
    momentum_rise: float = 1.0
    warmup: float = 0.05
    decay: float = 0.8
    final: float = 0.0
    clip: float = 1.0
    weight_decay: float = 0.0  # along a cosine to 0, only where it and the update agree
    polar_express: bool = False
    even_rows: bool = False  # rows of the momentum brought to one length before the iterations
    even_neurons: bool = False  # NorMuon, Li et al. 2025 (arXiv 2510.05491)
    tail: float = 0.0  # last part of the steps, whose weights are averaged at the end
    teacher: float = 0.0  # part of the targets that counts are, falling to 0
    teacher_until: float = 1.0  # of the steps


NANOCHAT_BLOCK = Block(
    parallel=False,
    swiglu=False,
    mlp_width=768,
    tied=False,
    centred=False,
    gains=False,
    qk_scale=1.2,
    embedding_norm=True,
    soft_cap=15.0,
    rope_theta=100_000.0,
    smear=True,
    value_embeddings=True,
    residual_scalars=True,
    backout=True,
    init_std=0.06,
    embedding_std=0.8,
    zero_outputs=True,
)
NANOCHAT_RECIPE = Recipe(
    rows="documents",
    matrix_lr=0.08,
    embedding_lr=0.6,
    value_embedding_lr=0.3,
    head_lr=0.016,
    gain_lr=0.2,
    beta1=0.8,
    beta2=0.98,
    momentum_start=0.85,
    momentum=0.97,
    warmup=0.1,
    decay=0.65,
    final=0.05,
    clip=0.0,
    weight_decay=0.4,
    polar_express=True,
    even_rows=True,
    even_neurons=True,
)
SCALAR_RATES = {"stream_scale": 0.005, "embedding_scale": 0.5}
"""nanochat's, times 16. Its other scalars have `gain_lr`."""


def main() -> None:
    flags = parsed()
    block = NANOCHAT_BLOCK if flags.nanochat else Block()
    recipe = NANOCHAT_RECIPE if flags.nanochat else Recipe()
    block, recipe = changed(block, flags.changes), changed(recipe, flags.changes)
    known = {field.name for each in (Block, Recipe) for field in dataclasses.fields(each)}
    if unknown := [change for change in flags.changes if change.split("=")[0] not in known]:
        sys.exit(f"no switch {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    torch.set_num_threads(flags.threads)
    text = Text.read(flags.source)
    steps = max(10, flags.tokens // (recipe.sequences * block.context))
    model = Decoder(block, text.vocab_size)
    start(model, text.trained, flags.seed)
    begun = time.monotonic(), time.process_time()
    train_model(model, recipe, text, steps, flags.seed)
    seconds, cpu_seconds = time.monotonic() - begun[0], time.process_time() - begun[1]
    figure: dict[str, Any] = {
        "figure": "ablation",
        "from": "nanochat" if flags.nanochat else "picochat",
        "changed": flags.changes,
        "seed": flags.seed,
        "steps": steps,
        "tokens": steps * recipe.sequences * block.context,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "bits_per_byte": round(bits_per_byte(model, text), 4),
        "seconds": round(seconds),
        "cpu_seconds": round(cpu_seconds),
    }
    print(json.dumps(figure))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("changes", nargs="*", metavar="NAME=VALUE")
    parser.add_argument("--source", type=Path, default=Path("demo/out/source"))
    parser.add_argument("--tokens", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--nanochat", action="store_true")
    parser.add_argument("--quick", action="store_true", help="ten steps")
    flags = parser.parse_args()
    flags.tokens = 0 if flags.quick else flags.tokens
    return flags


def changed(defaults: Any, changes: list[str]) -> Any:
    """The settings with those changes that name one of its fields, each with its field's type."""
    given = dict(change.split("=", 1) for change in changes)
    fields = {field.name: getattr(defaults, field.name) for field in dataclasses.fields(defaults)}
    return replace(
        defaults,
        **{
            name: value if isinstance(old, str) else type(old)(float(given[name]))
            for name, old in fields.items()
            if (value := given.get(name)) is not None
        },
    )


# ---- text ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """Token ids of both sides, a BOS before each document."""

    trained: np.ndarray
    held_out: np.ndarray
    held_out_bytes: int
    vocab_size: int
    bos: int

    @staticmethod
    def read(source: Path) -> Text:
        documents = documents_of(source)
        if len(documents) <= HELD_OUT_DOCUMENTS:
            sys.exit(f"too little text below {source}: python demo/fetch_corpus.py {source}")
        random.Random(1).shuffle(documents)
        held_out, trained = documents[:HELD_OUT_DOCUMENTS], documents[HELD_OUT_DOCUMENTS:]
        tokenizer = tokenizer_of(trained, VOCAB_SIZE)
        return Text(
            stream_of(trained, tokenizer),
            stream_of(held_out, tokenizer),
            sum(len(text.encode()) for text in held_out),
            tokenizer.vocab_size,
            tokenizer.bos,
        )

    def rows(self, kind: str, context: int, seed: int) -> np.ndarray:
        """(rows, context + 1) in the order of training."""
        if kind == "documents":
            return document_rows(self.trained, self.bos, context + 1, seed)
        order = np.random.default_rng(seed).permutation((len(self.trained) - 1) // context)
        return rows_at(self.trained, order, context)


def bits_per_byte(model: Decoder, text: Text) -> float:
    context = model.block.context
    rows = all_rows(text.held_out, context)
    nats, _ = summed_nats(model, torch.from_numpy(rows), text.bos)
    seen_bytes = text.held_out_bytes * len(rows) * context / len(text.held_out)
    return nats / math.log(2) / seen_bytes


# ---- training ------------------------------------------------------------------------------------


class Muon:
    def __init__(self, matrices: list[nn.Parameter], recipe: Recipe) -> None:
        self.recipe = recipe
        self.stacks = stacks_of(matrices)
        self.squares: list[Tensor | None] = [None] * len(self.stacks)
        self.steps = 0

    @torch.no_grad()
    def step(self, lr: float, momentum: float, weight_decay: float) -> None:
        self.steps += 1
        for number, stack in enumerate(self.stacks):
            grad = torch.stack([one.grad for one in stack.parameters if one.grad is not None])
            stack.momentum_NOI.lerp_(grad, 1 - momentum)
            update = torch.lerp(grad, stack.momentum_NOI, momentum)
            if self.recipe.even_rows:
                mean = update.norm(dim=(-2, -1), keepdim=True) / math.sqrt(update.shape[-2])
                update = update * (mean / update.norm(dim=-1, keepdim=True).clamp_min(1e-9))
            made_by = polar_express if self.recipe.polar_express else in_float32
            update = made_by(update)
            if self.recipe.even_neurons:
                update = self._evened(update, number)
            rows, columns = update.shape[-2:]
            changes = update * (lr * max(1.0, rows / columns) ** 0.5)
            for matrix, change in zip(stack.parameters, changes, strict=True):
                if weight_decay:
                    matrix.sub_(lr * weight_decay * matrix * (change * matrix >= 0))
                matrix.sub_(change)

    def _evened(self, update: Tensor, number: int) -> Tensor:
        along = -1 if update.shape[-2] >= update.shape[-1] else -2
        now = update.square().mean(along, keepdim=True)
        mean = self.squares[number]
        mean = torch.zeros_like(now) if mean is None else mean
        self.squares[number] = mean = mean.lerp(now, 0.1)
        evened = update * (mean / (1 - 0.9**self.steps)).clamp_min(1e-10).rsqrt()
        length = evened.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-10)
        return evened * (update.norm(dim=(-2, -1), keepdim=True) / length)


def in_float32(update: Tensor) -> Tensor:
    return orthogonalize(update, torch.float32)


def polar_express(update: Tensor) -> Tensor:
    tall = update.shape[-2] > update.shape[-1]
    x = update.mT if tall else update
    x = x / (1.01 * x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def adamw_of(model: Decoder, recipe: Recipe) -> tuple[torch.optim.AdamW, list[nn.Parameter]]:
    """AdamW over all but the matrices of the layers, and those."""
    groups: list[dict[str, Any]] = []
    matrices: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if name == "embedding.weight":
            lr = recipe.embedding_lr
        elif name.endswith("value_embedding.weight"):
            lr = recipe.value_embedding_lr
        elif name == "head.weight":
            lr = recipe.head_lr
        elif parameter.dim() == 2 and not name.endswith("value_gate"):
            matrices.append(parameter)
            continue
        else:
            lr = SCALAR_RATES.get(name, recipe.gain_lr)
        groups.append({"params": [parameter], "lr": lr, "peak": lr})
    betas = (recipe.beta1, recipe.beta2)
    return torch.optim.AdamW(groups, betas=betas, eps=1e-10, weight_decay=0.0), matrices


def train_model(model: Decoder, recipe: Recipe, text: Text, steps: int, seed: int) -> None:
    rows = text.rows(recipe.rows, model.block.context, seed)
    adamw, matrices = adamw_of(model, recipe)
    muon = Muon(matrices, recipe)
    counts = CountsConfig(teacher=recipe.teacher, teacher_until=recipe.teacher_until)
    teach = teaching(lambda: text.trained.astype(np.uint16), text.vocab_size, steps, counts)
    schedule = TrainConfig(
        steps=steps,
        sequences_per_step=recipe.sequences,
        warmup_steps=max(1, round(recipe.warmup * steps)),
        decay_fraction=recipe.decay,
        final_lr_fraction=recipe.final,
    )
    averaged_steps = max(1, round(recipe.tail * steps))
    sums = [torch.zeros_like(one) for one in model.parameters()] if recipe.tail else []
    for step in range(steps):
        taken = np.arange(step * recipe.sequences, (step + 1) * recipe.sequences) % len(rows)
        batch = shifted_batch(rows[taken])
        batch = teach(step, taken, batch) if teach else batch
        logits = model(batch.ids_BT)
        loss = cross_entropy_sum(logits, batch.targets_BT, batch.shares) / batch.target_count
        loss.backward()
        if recipe.clip:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        fraction = lr_fraction(step, schedule)
        for group in adamw.param_groups:
            group["lr"] = group["peak"] * fraction
        adamw.step()
        risen = min(1.0, step / (recipe.momentum_rise * steps))
        momentum = recipe.momentum_start + (recipe.momentum - recipe.momentum_start) * risen
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        muon.step(recipe.matrix_lr * fraction, momentum, recipe.weight_decay * cosine)
        centre(model)
        model.zero_grad(set_to_none=True)
        if sums and step >= steps - averaged_steps:
            torch._foreach_add_(sums, [one.detach() for one in model.parameters()])
    for parameter, total in zip(model.parameters(), sums, strict=False):
        parameter.data.copy_(total / averaged_steps)


if __name__ == "__main__":
    main()
