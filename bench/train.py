"""The training step at a scale on real tokens, beside a plain compiled step of the same shape.

    python bench/train.py --scale h100-100m --device cuda --precision bf16 --steps 200 --baseline \\
        --source demo/out/source
    python bench/train.py ... --lever joined=off --lever loader=host    each alone, beside all
    python bench/train.py --quick

All contenders train in one process, a block of steps in turns (A B A B), on the same rows; the
first block, which compiles and allocates, is not timed. A step counts whole: rows, transfer,
forward, backward, optimizer, centring. On a GPU the device measures the time, and the host does not
wait for it inside a block. Reported are tokens/s, the median step with its 10th and 90th
percentile, the ratio of the medians, MFU (non-causal convention, dense bf16 peak of the card), peak
memory, the mean loss of the last block (the plain step uses AdamW at one usual rate), and whether a
step makes the host wait. Does not include evaluation, checkpoints and journals; --loop runs the
whole loop for as many steps and reports its rate. One JSON line a contender.
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

sys.path.insert(0, str(Path(__file__).parent))

from harness.figures import rounded, say, table
from harness.steps import LEVERS, Contender, picochat_step, plain_step

from picochat.config import (
    HostConfig,
    RunConfig,
    RuntimeConfig,
    TokenizerConfig,
    TrainConfig,
    flops_per_token,
)
from picochat.core.journal import read_journal
from picochat.model.centred import centre_
from picochat.model.gpt import GPT, initialise
from picochat.model.runtime import Runtime, open_runtime, peak_flops
from picochat.sanity.host import Stopwatch
from picochat.sanity.syncs import host_syncs
from picochat.scales import find_scale
from picochat.tokens.shards import TokenStream
from picochat.tokens.tokenizer import Tokenizer, train
from picochat.train.held_out import HeldOut
from picochat.train.loader import stream_loader
from picochat.train.loop import Job, Trainer

BLOCK_STEPS = 20
QUICK_STEPS, QUICK_BLOCK = 9, 3


def main() -> None:
    flags = parsed()
    torch._dynamo.config.recompile_limit = (
        64  # the contenders share their code, and some are other graphs of it
    )
    config = find_scale(flags.scale).config
    runtime = RuntimeConfig.model_validate(
        {
            "device": flags.device,
            "precision": flags.precision,
            "attention_backend": flags.attn_backend,
            "compile": flags.compile if flags.compile is not None else flags.device == "cuda",
            "max_autotune": flags.max_autotune,
            "threads": flags.threads,
        }
    )
    compute = open_runtime(runtime, config.model)
    for tried in compute.choice.tried if compute.choice else []:
        say(f"attention: {tried.line()}")
    steps, block = (
        (QUICK_STEPS, QUICK_BLOCK) if flags.quick else (flags.steps, min(flags.steps, BLOCK_STEPS))
    )
    rows = flags.sequences or config.base.sequences_per_step
    base = config.base.model_copy(
        update={
            "steps": steps,
            "eval_every": None,
            "micro_batch": flags.micro_batch,
            "sequences_per_step": rows,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        stream, vocab_size = real_tokens(flags.source, config.tokenizer, Path(folder))
        contenders = contenders_of(flags, config, stream, vocab_size, base, compute)
        report(
            contenders,
            run_in_turns(contenders, steps, block, compute),
            config,
            vocab_size,
            base,
            compute,
            flags,
        )
        if flags.loop:
            whole_loop(config, stream, vocab_size, base, compute, Path(folder) / "work")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--attn-backend", default="auto")
    parser.add_argument("--max-autotune", action="store_true")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--steps", type=int, default=200, help="timed steps of each contender")
    parser.add_argument("--sequences", type=int, help="of a step; default: the scale's")
    parser.add_argument("--micro-batch", type=int)
    parser.add_argument(
        "--optimizer",
        choices=["muon", "adamw"],
        action="append",
        help="default: muon; several: each",
    )
    parser.add_argument(
        "--baseline", action="store_true", help="also the plain step; ratios are to it"
    )
    parser.add_argument(
        "--lever",
        action="append",
        default=[],
        help=f"one of {', '.join(LEVERS)}, as joined=off: a contender more",
    )
    parser.add_argument("--loop", action="store_true")
    parser.add_argument("--source", type=Path, default=Path("demo/out/source"))
    parser.add_argument("--quick", action="store_true")
    flags = parser.parse_args()
    unknown = [
        lever for lever in flags.lever if lever.partition("=")[0] not in LEVERS or "=" not in lever
    ]
    if unknown:
        parser.error(
            f"--lever {unknown[0]}: one of {', '.join(LEVERS)} and a value, such as joined=off"
        )
    if flags.quick:
        flags.baseline = True
    return flags


def contenders_of(
    flags: argparse.Namespace,
    config: RunConfig,
    stream: TokenStream,
    vocab_size: int,
    base: TrainConfig,
    compute: Runtime,
) -> list[Contender]:
    """The plain step first, where it runs: ratios are to the first."""
    found = (
        [plain_step(stream, config.model, vocab_size, base, compute, flags.micro_batch)]
        if flags.baseline
        else []
    )
    for optimizer in flags.optimizer or ["muon"]:
        ours = base.model_copy(update={"matrix_optimizer": optimizer})
        found.append(picochat_step(stream, config.model, vocab_size, ours, compute, {}))
    for lever in flags.lever:
        key, _, value = lever.partition("=")
        ours = base.model_copy(update={"matrix_optimizer": (flags.optimizer or ["muon"])[0]})
        found.append(picochat_step(stream, config.model, vocab_size, ours, compute, {key: value}))
    return found


def run_in_turns(
    contenders: list[Contender], steps: int, block: int, compute: Runtime
) -> dict[str, tuple[list[float], float, int | None, list[str]]]:
    """By name: seconds of each timed step, mean loss of the last block, peak memory, host waits."""
    seconds: dict[str, list[float]] = {one.name: [] for one in contenders}
    peaks: dict[str, int | None] = dict.fromkeys(seconds)
    losses: dict[str, float] = {}
    for turn in range(1 + -(-steps // block)):
        for one in contenders:
            if compute.device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            one.step(
                turn * (block + 1)
            )  # after another's turn caches are cold and the allocator is empty
            watch, taken = Stopwatch(compute.device), list[torch.Tensor]()
            watch.mark()
            for number in range(turn * (block + 1) + 1, (turn + 1) * (block + 1)):
                taken.append(one.step(number))
                watch.mark()
            seconds[one.name] += watch.seconds() if turn else []
            losses[one.name] = float(torch.stack(taken).mean())
            if compute.device.type == "cuda" and turn:
                peaks[one.name] = max(peaks[one.name] or 0, torch.cuda.max_memory_allocated())
        say(f"turn {turn}: " + ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items()))
    waits = {one.name: waiting(one, 10_000, compute) for one in contenders}
    for one in contenders:
        one.close()
    return {name: (seconds[name], losses[name], peaks[name], waits[name]) for name in seconds}


def waiting(one: Contender, number: int, compute: Runtime) -> list[str]:
    """What one more step makes the host wait for, where this can be seen."""
    if compute.device.type == "cpu" and (compute.compiled or compute.pool.size > 1):
        return ["not looked at: on a CPU neither compiled graphs nor threads show their calls"]
    one.step(number)
    return host_syncs(lambda: one.step(number + 1), compute.device)


def report(
    contenders: list[Contender],
    found: dict[str, tuple[list[float], float, int | None, list[str]]],
    config: RunConfig,
    vocab_size: int,
    base: TrainConfig,
    compute: Runtime,
    flags: argparse.Namespace,
) -> None:
    tokens = base.sequences_per_step * config.model.context
    peak, flops = peak_flops(compute.device), flops_per_token(config.model, vocab_size)
    first = statistics.median(found[contenders[0].name][0])
    name = torch.cuda.get_device_name() if compute.device.type == "cuda" else "cpu"
    lines: list[list[object]] = []
    for one in contenders:
        seconds, loss, memory, waits = found[one.name]
        median, fast, slow = (float(np.percentile(seconds, percent)) for percent in (50, 10, 90))
        mfu = tokens / median * flops / peak if peak else None
        row = {
            "figure": "train_step",
            "contender": one.name,
            "ours": rounded(tokens / median),
            "peer": rounded(tokens / first) if flags.baseline else None,
            "ratio": rounded(first / median) if flags.baseline else None,
            "unit": "tokens/s",
            "step_ms": [rounded(1000 * value) for value in (fast, median, slow)],
            "mfu": rounded(mfu),
            "peak_memory_bytes": memory,
            "peak_rss_mb": None,
            "loss": rounded(loss),
            "steps": len(seconds),
            "step_tokens": tokens,
            "micro_batch": one.micro_batch(),
            "host_waits": waits,
            "backend": compute.backend + (" repeated" if compute.repeat_heads else ""),
            "compiled": compute.compiled,
            "max_autotune": flags.max_autotune,
            "device": name,
            "torch": torch.__version__,
            "command": " ".join(["python", *sys.argv]),
        }
        print(json.dumps(row), flush=True)
        lines.append(
            [
                one.name,
                tokens / median,
                1000 * median,
                1000 * fast,
                1000 * slow,
                first / median,
                mfu,
                loss,
            ]
        )
    table(
        f"{config.scale}, {tokens} tokens a step, {name}",
        ["contender", "tokens/s", "ms", "10%", "90%", "to first", "MFU", "loss"],
        lines,
    )


def whole_loop(
    config: RunConfig,
    stream: TokenStream,
    vocab_size: int,
    base: TrainConfig,
    compute: Runtime,
    work: Path,
) -> None:
    """Print the rate of the whole loop over as many steps, as its own journal states it."""
    model = GPT(config.model, vocab_size)
    initialise(model, 0)
    centre_(model)
    model.to(compute.device)
    loader = stream_loader(stream, config.model.context, base.sequences_per_step, 0, compute.device)
    job = Job("base", base, loader, lambda _: HeldOut(0.0, None))
    outcome = Trainer(
        model, job, compute, HostConfig(checkpoint_minutes=1e6), work, quiet=True
    ).train()
    reports = [row for row in read_journal(outcome.metrics) if row["event"] == "report"]
    timed = reports[2:] or reports  # the first two hold compiling and warming up
    row = {
        "figure": "train_loop",
        "ours": rounded(statistics.median(row["tokens_per_second"] for row in timed)),
        "unit": "tokens/s",
        "data_wait_fraction": rounded(
            statistics.median(row["data_wait_fraction"] for row in timed)
        ),
        "loss": rounded(reports[-1]["loss"]),
        "steps": base.steps,
        "command": " ".join(["python", *sys.argv]),
    }
    print(json.dumps(row), flush=True)


def real_tokens(source: Path, config: TokenizerConfig, folder: Path) -> tuple[TokenStream, int]:
    """All text of the parquet files below `source` as one stream, and the vocabulary's size.

    The tokenizer is trained on the same text.
    """
    files = sorted(source.rglob("*.parquet"))
    if not files:
        sys.exit(f"no parquet files below {source}: python demo/fetch_corpus.py {source}")
    texts = [
        text for file in files for text in pq.read_table(file, columns=["text"])["text"].to_pylist()
    ]
    path = folder / "tokenizer.json"
    path.write_bytes(train(texts, config.vocab_size))
    tokenizer = Tokenizer.load(path)
    parts = tuple(
        np.array([tokenizer.bos, *ids], dtype=np.uint16) for ids in tokenizer.encode_many(texts)
    )
    joined = np.concatenate(parts)
    return TokenStream(parts=(joined,), bounds=(0, len(joined)), text_bytes=0), tokenizer.vocab_size


if __name__ == "__main__":
    main()
