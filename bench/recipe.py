"""One recipe's held-out bits per byte after a fixed number of training tokens, as a JSON line.

    python bench/recipe.py --scale tiny --tokens 300000 --source demo/out/source \\
        --set base.muon_lr=0.04 [--seed 1] [--quick]

Run it once for each candidate.

The whole schedule, its decay included, is fitted to the tokens, so that short runs choose recipes
fairly: the warm-up is a twentieth of the steps, unless --set base.warmup_steps=N names it.
Documents are held out by a hash of their text, one in fifty; the tokenizer never sees them. The
time is that of the training alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from harness.token_rows import documents_of, stream_of, tokenizer_of

from picochat.config import HostConfig, resolve
from picochat.model.counted_start import new_model
from picochat.model.gpt import GPT, IGNORED_TARGET
from picochat.model.runtime import open_runtime
from picochat.run.request import parse_settings
from picochat.scales import find_scale
from picochat.tokens.row_order import rows_of_step
from picochat.train.count_teacher import teaching
from picochat.train.held_out import HeldOut, summed_loss
from picochat.train.loader import Batch, HostLoader, host_batch
from picochat.train.loop import Job, Trainer

QUICK_TOKENS = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", default="tiny")
    parser.add_argument("--tokens", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--source", type=Path, default=Path("demo/out/source"))
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--device", help="default: the scale's")
    parser.add_argument("--precision", help="default: the scale's")
    parser.add_argument("--quick", action="store_true")
    flags = parser.parse_args()
    given = {
        "training_seed": flags.seed,
        "runtime.device": flags.device,
        "runtime.precision": flags.precision,
    }
    config = resolve(find_scale(flags.scale).config, given, parse_settings(flags.settings)).config
    step_tokens = config.base.sequences_per_step * config.model.context
    steps = max(10, (QUICK_TOKENS if flags.quick else flags.tokens) // step_tokens)
    named = any(setting.startswith("base.warmup_steps=") for setting in flags.settings)
    warmup_steps = config.base.warmup_steps if named else max(5, steps // 20)
    base = config.base.model_copy(
        update={"steps": steps, "warmup_steps": warmup_steps, "eval_every": None}
    )
    documents = documents_of(flags.source)
    held = [text for text in documents if hashlib.sha256(text.encode()).digest()[0] < 5]
    trained = [text for text in documents if hashlib.sha256(text.encode()).digest()[0] >= 5]
    tokenizer = tokenizer_of(trained, config.tokenizer.vocab_size)
    tokens, held_tokens = stream_of(trained, tokenizer), stream_of(held, tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        compute = open_runtime(config.runtime, config.model)
        counted = tokens.astype(np.uint16)
        model = new_model(
            config.model,
            tokenizer.vocab_size,
            config.training_seed,
            (lambda: counted) if config.counts.start else None,
        )
        teach = teaching(lambda: counted, tokenizer.vocab_size, steps, config.counts)
        context, row_count = config.model.context, (len(tokens) - 1) // config.model.context

        def batch_of(step: int) -> Batch:
            rows = rows_of_step(step, base.sequences_per_step, row_count, config.training_seed)
            batch = batch_at(tokens, rows[:, None] * context, context)
            return teach(step, rows, batch) if teach else batch

        def evaluate(gpt: GPT) -> HeldOut:
            starts = np.arange((len(held_tokens) - 1) // context)[:, None] * context
            batches = (
                batch_at(held_tokens, starts[i : i + 32], context, tokenizer.bos)
                for i in range(0, len(starts), 32)
            )
            nats, targets = summed_loss(gpt, batches, compute)
            text_bytes = (
                sum(len(text.encode()) for text in held) * starts.size * context / len(held_tokens)
            )
            return HeldOut(nats / targets, nats / np.log(2) / text_bytes)

        started = time.monotonic()
        job = Job("base", base, HostLoader(batch_of, compute.device, fixed_shape=True), evaluate)
        trainer = Trainer(
            model, job, compute, HostConfig(checkpoint_minutes=1e6), Path(folder) / "work"
        )
        outcome = trainer.train()
        seconds = time.monotonic() - started
    row = {
        "figure": "recipe",
        "scale": flags.scale,
        "set": flags.settings,
        "seed": flags.seed,
        "tokens": steps * step_tokens,
    }
    row |= {
        "steps": steps,
        "held_out_bits_per_byte": round(outcome.held_out.bits_per_byte or 0, 4),
        "seconds": round(seconds, 1),
    }
    print(json.dumps({**row, "command": " ".join(["python", *sys.argv])}))


def batch_at(
    tokens: np.ndarray, starts: np.ndarray, context: int, ignored: int | None = None
) -> Batch:
    block = tokens[starts + np.arange(context + 1)]
    targets = (
        block[:, 1:]
        if ignored is None
        else np.where(block[:, 1:] == ignored, IGNORED_TARGET, block[:, 1:])
    )
    return host_batch(np.ascontiguousarray(block[:, :-1]), np.ascontiguousarray(targets))


if __name__ == "__main__":
    main()
