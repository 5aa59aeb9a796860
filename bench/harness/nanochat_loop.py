"""nanochat's pretraining as a contender of bench/peers.py: its model, optimizer and schedules.

Its script reads its own shards with its own tokenizer, so the loop is written here again, after
`scripts/base_train.py` of commit 92d63d4: rates scaled by the root of the batch, momentum from 0.85
to 0.97 over 400 steps and to 0.90 in the decay, cautious weight decay along a cosine, linear decay
over the last 65% to a twentieth. Model and optimizer are imported from a checkout of its tree,
which is not part of this project. `stripped` takes out what no stock class of other libraries
loads: smear, value embeddings, the scalars of the residual stream and the backout. The untied head,
ReLU squared, the soft cap of the logits and the norm of the embedding stay.

Rows are those of every contender. nanochat begins its rows at documents: `Task.rows` may be such
rows.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

CHECKOUT = "NANOCHAT"
"""The environment variable that names the folder of the checkout."""
REFERENCE_TOKENS = 2**19  # of a step, for which its rates are given
REFERENCE_DEPTH = 12
TOKENS_PER_PARAMETER = 12
HEAD_WIDTH = 64
WARMUP_STEPS = 40
DECAY_FRACTION = 0.65
FINAL_FRACTION = 0.05
WEIGHT_DECAY = 0.28
RATES = {"matrix_lr": 0.02, "embedding_lr": 0.3, "unembedding_lr": 0.008, "scalar_lr": 0.5}


def available() -> bool:
    return (Path(os.environ.get(CHECKOUT, "")) / "nanochat" / "gpt.py").is_file()


def train(
    rows: DataLoader[Tensor],
    *,
    vocab_size: int,
    context: int,
    layers: int,
    width: int,
    steps: int,
    step_tokens: int,
    matrix_times: float,
    others_times: float,
    stripped: bool,
    seed: int,
    device: str,
    say: Callable[..., None],
) -> Callable[[Tensor], Tensor]:
    """Logits of the trained model. matrix_times, others_times: factors of its own rates.

    rows: batches (rows, context + 1) of one step each.
    """
    sys.path.insert(0, os.environ[CHECKOUT])
    gpt = importlib.import_module("nanochat.gpt")

    def built(depth: int) -> Any:
        shape = gpt.GPTConfig(
            sequence_len=context,
            vocab_size=vocab_size,
            n_layer=depth,
            n_head=width * depth // layers // HEAD_WIDTH,
            n_kv_head=width * depth // layers // HEAD_WIDTH,
            n_embd=width * depth // layers,
            window_pattern="L",
        )
        with torch.device("meta"):
            return gpt.GPT(shape)

    model, reference = built(layers), built(REFERENCE_DEPTH)
    model.to_empty(device=device)
    torch.manual_seed(seed)
    model.init_weights()
    if stripped:
        strip_(model)
    say(parameters=sum(p.numel() for p in model.parameters()))
    scale = math.sqrt(step_tokens / REFERENCE_TOKENS)
    horizon = scaling_parameters(model) / scaling_parameters(reference)
    weight_decay = WEIGHT_DECAY * scale / horizon
    rates = {
        name: rate * scale * (matrix_times if name == "matrix_lr" else others_times)
        for name, rate in RATES.items()
    }
    optimizer = model.setup_optimizer(**rates, weight_decay=weight_decay)
    held = [model.resid_lambdas, model.x0_lambdas, model.backout_lambda, model.smear_lambda]
    for group in optimizer.param_groups:
        # A rate of 0 keeps the scalars of a stripped model as `strip_` left them.
        keeps = stripped and any(one is p for one in held for p in group["params"])
        group["initial_lr"] = 0.0 if keeps else group["lr"]
    compiled = torch.compile(model, dynamic=False)
    for step, block in zip(range(steps), rows, strict=False):
        block = block.to(device)
        loss = compiled(block[:, :-1].contiguous(), block[:, 1:].contiguous())
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate_fraction(step, steps)
            if group["kind"] == "muon":
                group["momentum"] = momentum(step, steps)
                group["weight_decay"] = weight_decay * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.step()
        model.zero_grad(set_to_none=True)
        loss.item()  # it logs each step's loss
    return model.eval()


def strip_(model: Any) -> None:
    """Take out what no stock class loads, in place."""
    model.value_embeds = torch.nn.ModuleDict()
    for block in model.transformer.h:
        block.attn.ve_gate = None
    with torch.no_grad():
        model.resid_lambdas.fill_(1.0)
        for added in (model.x0_lambdas, model.backout_lambda, model.smear_lambda):
            added.zero_()


def scaling_parameters(model: Any) -> int:
    counts = model.num_scaling_params()
    return counts["transformer_matrices"] + counts["lm_head"]


def rate_fraction(step: int, steps: int) -> float:
    decay_steps = round(DECAY_FRACTION * steps)
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    if step <= steps - decay_steps:
        return 1.0
    left = (steps - step) / decay_steps
    return left + (1 - left) * FINAL_FRACTION


def momentum(step: int, steps: int) -> float:
    decay_steps = round(DECAY_FRACTION * steps)
    if step < 400:
        return 0.85 + (0.97 - 0.85) * step / 400
    if step >= steps - decay_steps:
        done = (step - (steps - decay_steps)) / decay_steps
        return 0.97 * (1 - done) + 0.90 * done
    return 0.97
