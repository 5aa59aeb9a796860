"""The training loop at a scale on real tokens: tokens/s, MFU, peak memory, loss. One JSON line.

    python bench/train.py --scale h100-100m --device cuda --precision bf16 --steps 200 --source demo/out/source [--quick]

Counts everything that a step does: batch, transfer, forward, backward, optimizer, centring, journal. The rate is the median
over reports of ten steps each, after the first two reports (compiling, allocating). Evaluation and checkpoints are left out.
MFU: non-causal convention, dense bf16 peak of the card.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from picochat.config import HostConfig, RuntimeConfig, TokenizerConfig
from picochat.core.journal import read_journal
from picochat.model.centred import centre_
from picochat.model.compute import open_compute
from picochat.model.gpt import GPT, initialise
from picochat.scales import find_scale
from picochat.tokens.batches import rows_of_step
from picochat.tokens.tokenizer import Tokenizer, train
from picochat.train.feed import Batch, HostFeed
from picochat.train.live import HeldOut
from picochat.train.loop import Job, Trainer

UNTIMED_REPORTS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--attn-backend", default="auto")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--optimizer", choices=["muon", "adamw"], default="muon")
    parser.add_argument("--source", type=Path, default=Path("demo/out/source"))
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--quick", action="store_true")
    flags = parser.parse_args()
    config = find_scale(flags.scale).config
    steps = 30 if flags.quick else flags.steps
    compiled = flags.compile if flags.compile is not None else flags.device == "cuda"
    runtime = RuntimeConfig.model_validate(
        {"device": flags.device, "precision": flags.precision, "attention_backend": flags.attn_backend, "compile": compiled}
    )
    compute = open_compute(runtime, config.model)
    with tempfile.TemporaryDirectory() as folder:
        tokens, vocab_size = real_tokens(flags.source, config.tokenizer, Path(folder))
        base = config.base.model_copy(update={"steps": steps, "eval_every": None, "matrix_optimizer": flags.optimizer})
        rows = (len(tokens) - 1) // config.model.context
        model = GPT(config.model, vocab_size)
        initialise(model, 0)
        centre_(model)
        model.to(compute.device)

        def batch_of(step: int) -> Batch:
            starts = rows_of_step(step, base.sequences_per_step, rows, 0)[:, None] * config.model.context
            block = tokens[starts + np.arange(config.model.context + 1)].astype(np.int64)
            return Batch(np.ascontiguousarray(block[:, :-1]), np.ascontiguousarray(block[:, 1:]))

        feed = HostFeed(batch_of, compute.device, fixed_shape=True)
        job = Job("base", base, feed, lambda _: HeldOut(0.0, None))
        outcome = Trainer(model, job, compute, HostConfig(checkpoint_minutes=1e6), Path(folder) / "work").train()
        metrics = read_journal(outcome.metrics)
    timed = metrics[UNTIMED_REPORTS:] or metrics
    name = torch.cuda.get_device_name() if flags.device == "cuda" else "cpu"
    print(
        json.dumps(
            {
                "figure": "train_tokens_per_second",
                "ours": statistics.median(row["tokens_per_second"] for row in timed),
                "unit": "tokens/s",
                "mfu": statistics.median(row["mfu"] for row in timed) if timed[-1]["mfu"] is not None else None,
                "peak_memory_bytes": timed[-1]["peak_memory_bytes"],
                "data_wait_share": statistics.median(row["data_wait_share"] for row in timed),
                "final_loss": metrics[-1]["loss"],
                "steps": steps,
                "step_tokens": base.sequences_per_step * config.model.context,
                "backend": compute.backend,
                "compiled": compiled,
                "device": name,
                "torch": torch.__version__,
                "command": " ".join(["python", *sys.argv]),
            }
        )
    )


def real_tokens(source: Path, config: TokenizerConfig, folder: Path) -> tuple[np.ndarray, int]:
    """All text of the parquet files below `source` as one stream, encoded by a tokenizer trained on it."""
    files = sorted(source.rglob("*.parquet"))
    if not files:
        sys.exit(f"no parquet files below {source}: python demo/fetch_corpus.py {source}")
    texts = [text for file in files for text in pq.read_table(file, columns=["text"])["text"].to_pylist()]
    path = folder / "tokenizer.json"
    path.write_bytes(train(texts, config.vocab_size))
    tokenizer = Tokenizer.load(path)
    stream = [np.array([tokenizer.bos, *ids], dtype=np.uint16) for ids in tokenizer.encode_many(texts)]
    return np.concatenate(stream), tokenizer.vocab_size


if __name__ == "__main__":
    main()
