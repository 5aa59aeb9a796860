"""A training step beside its peers, on the CPU: same shape, same token ids, same threads, taking
turns. And the loss at equal tokens or equal time, beside nanochat on a GPU too.

    python bench/peers.py --scale small --threads 2 --rounds 6 --source FOLDER
    python bench/peers.py --loss --scale tiny --loss-tokens 200000 --seeds 2 --source FOLDER

Peers: pip install --no-deps -r bench/peers-requirements.txt, into an environment that has picochat
and transformers. nanochat is left out unless NANOCHAT names a checkout of it.

Contenders: picochat's loop; Hugging Face `Trainer` on Qwen3ForCausalLM of the same shape
(sequential residual, the nearest stock class); litgpt's pretraining loop on its own model class
with picochat's block (parallel residual, one shared norm, QK-norm, tied); nanochat's model and
optimizer, whole, and stripped of what no stock class loads (harness/nanochat_loop.py; layers and
width of the scale, heads of 64). float32; AdamW but for nanochat; each loop clips, logs and
compiles as its own defaults say, without evaluation or checkpoints inside the timed part. Each of
our settings and each of theirs is a contender; the fastest of each side is compared. Each is a
process of its own. After its first steps (compiling), they take turns of `--steps` steps, all
others stopped. A step is what lies between taking the first row of one batch and of the next. The
figure is the median step of all turns; `ratio_by_round` shows what single rounds gave.

`--loss`: after `--loss-tokens` training tokens, nats per held-out target, the same held-out rows
and the same sum for all: picochat with the recipe of its scale (its schedule fitted to the tokens)
against the best of a grid of recipes for each peer (`--peak-rates`, `--schedules`,
`--nanochat-times`). Training rows are the same too, but for nanochat, whose loader begins rows at
documents and drops what does not fit: where documents are longer than the context it sees their
beginnings alone, and `--nanochat-rows stream` gives it the rows of the others. picochat also counts
the text, of which all have the same. The grid is searched with the first seed; picochat and each
peer's winner are then trained with all seeds, and means compared. `--loss-seconds`: so much
training time for each in place of the tokens, counting included; its steps follow from its own
speed, measured first, alone and without the compiling.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from harness import nanochat_loop
from harness.contenders import CONTENDERS, Recipe, Task, write_task
from harness.figures import figure, installed, say, table
from harness.text import find_documents, take_bytes
from harness.token_rows import all_rows, document_rows, rows_at, stream_of, tokenizer_of
from harness.turns import Runner

from picochat.scales import find_scale
from picochat.tokens.row_order import rows_of_step

BENCH = Path(__file__).resolve().parent
HELD_OUT_IN_256 = 5  # documents by the first byte of their sha256: one in fifty
STEPS_TO_TIME = {"cpu": 15, "cuda": 100}  # a GPU's host runs some steps ahead
WARM_STEPS = 6  # the first compiles; dynamic shapes or a second graph may compile once more
STEPS_AHEAD = 10_000  # a schedule longer than any benchmark; the processes are ended by us
ADAMW_OURS = ("picochat", "picochat-compiled")
MUON_OURS = ("picochat-muon", "picochat-muon-compiled")
PEERS = ("trainer", "trainer-compiled", "litgpt", "litgpt-micro-4")
NANOCHAT = ("nanochat", "nanochat-stripped")
LOSS_PEERS = ("trainer", "litgpt", *NANOCHAT)
QUICK = ("picochat", "trainer", "litgpt")
PEAK_RATES = "0.001,0.003,0.01,0.02"  # from below each peer's best to above it, at tiny
SCHEDULES = {  # what its own loop offers
    "trainer": ("linear to 0", "cosine to 10%"),
    "litgpt": ("cosine to 0", "cosine to 10%"),
}
NANOCHAT_TIMES = "16x8,16x16,16x32,32x8,32x16,32x32,64x8,64x16,64x32,128x8,128x16,128x32"


def main() -> None:
    flags = parsed()
    names = contenders(flags)
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit("terminated")
    )  # so that no contender outlives us
    with tempfile.TemporaryDirectory() as folder:
        task = prepared(flags, Path(folder))
        if flags.loss:
            compare_loss(task, names, flags, Path(folder))
        else:
            compare_speed(task, names, flags, Path(folder))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", default="tiny")
    parser.add_argument("--source", type=Path)
    parser.add_argument("--column", default="text")
    parser.add_argument(
        "--megabytes", type=float, default=20, help="of text, for tokenizer and rows"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--sequences", type=int, help="of one step; default: the scale's")
    parser.add_argument("--steps", type=int, default=5, help="of one turn")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--only", help="contenders, with commas between")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--loss", action="store_true")
    parser.add_argument("--loss-tokens", type=int, default=200_000)
    parser.add_argument("--loss-seconds", type=float, help="of training, in place of the tokens")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument(
        "--peak-rates", default=PEAK_RATES, help="of litgpt and Trainer; each with its schedules"
    )
    parser.add_argument(
        "--schedules",
        help="of litgpt and Trainer, with commas between; all of a peer that has none of these",
    )
    parser.add_argument(
        "--nanochat-times",
        default=NANOCHAT_TIMES,
        help="factors of nanochat's matrix rate and of its other rates, such as 64x8,32x8",
    )
    parser.add_argument(
        "--nanochat-rows",
        choices=("documents", "stream"),
        default="documents",
        help="rows that begin at documents, as its loader makes them, or those of all others",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="tiny, few steps, one setting of each; with --loss one rate",
    )
    flags = parser.parse_args()
    offered = {one for of_peer in SCHEDULES.values() for one in of_peer}
    if unknown := set((flags.schedules or "").split(",")) - offered - {""}:
        parser.error(f"no schedule {', '.join(unknown)}; there are: {', '.join(sorted(offered))}")
    if flags.quick:
        flags.scale, flags.megabytes, flags.rounds, flags.steps = "tiny", 2.0, 2, 5
        flags.loss_tokens, flags.seeds, flags.only = 20_000, 1, flags.only or ",".join(QUICK)
        flags.sequences = flags.sequences or 4
        flags.peak_rates, flags.nanochat_times = "0.003", "16x8,16x16"
    return flags


def contenders(flags: argparse.Namespace) -> list[str]:
    """Those asked for that are installed here."""
    names = flags.only.split(",") if flags.only else list(CONTENDERS)
    if flags.device == "cuda":
        if not flags.loss:
            sys.exit("--device cuda compares losses: add --loss; bench/train.py times a GPU's step")
        say("on a GPU nanochat alone is compared")
        names = [name for name in names if name in NANOCHAT]
    if not nanochat_loop.available():
        say(f"{nanochat_loop.CHECKOUT} names no checkout of nanochat: it is left out")
        names = [name for name in names if name not in NANOCHAT]
    if unknown := [name for name in names if name not in CONTENDERS]:
        sys.exit(f"no contender {', '.join(unknown)}; there are: {', '.join(CONTENDERS)}")
    how = "pip install --no-deps -r bench/peers-requirements.txt"
    missing = [
        module for module in ("transformers", "accelerate", "litgpt") if not installed(module, how)
    ]
    without = ("trainer",) * bool({"transformers", "accelerate"} & set(missing)) + ("litgpt",) * (
        "litgpt" in missing
    )
    return [name for name in names if not name.startswith(without or ("-",))]


# ---- tokens --------------------------------------------------------------------------------------


def prepared(flags: argparse.Namespace, folder: Path) -> Task:
    """Rows in the order of training and held-out rows in two files, from real text, in ids of a
    tokenizer of the scale.
    """
    config = find_scale(flags.scale).config
    source, documents = find_documents(flags.source, flags.column)
    texts = [text for _, text in take_bytes(documents, round(flags.megabytes * 1e6))]
    held = [text for text in texts if hashlib.sha256(text.encode()).digest()[0] < HELD_OUT_IN_256]
    trained = [
        text for text in texts if hashlib.sha256(text.encode()).digest()[0] >= HELD_OUT_IN_256
    ]
    tokenizer = tokenizer_of(trained, config.tokenizer.vocab_size)
    context = config.model.context
    sequences = flags.sequences or config.base.sequences_per_step
    by_tokens = flags.loss and flags.loss_seconds is None
    steps = max(10, flags.loss_tokens // (sequences * context)) if by_tokens else STEPS_AHEAD
    stream = stream_of(trained, tokenizer)
    count = (len(stream) - 1) // context
    order = np.concatenate(
        [
            rows_of_step(step, sequences, count, flags.seed)
            for step in range(min(steps, -(-count // sequences)))
        ]
    )
    np.save(folder / "stream.npy", stream.astype(np.uint16))
    np.save(folder / "rows.npy", rows_at(stream, order, context))
    if flags.loss:
        np.save(
            folder / "document_rows.npy",
            document_rows(stream, tokenizer.bos, context + 1, flags.seed),
        )
    held_stream = stream_of(held, tokenizer)
    np.save(folder / "held.npy", all_rows(held_stream, context))
    say(
        f"{source}: {len(trained):,} documents, {len(stream):,} tokens to train on,"
        f" {len(held_stream):,} held out"
    )
    return Task(
        contender="",
        scale=flags.scale,
        threads=flags.threads,
        sequences=sequences,
        steps=steps,
        vocab_size=tokenizer.vocab_size,
        bos=tokenizer.bos,
        rows=str(folder / "rows.npy"),
        stream=str(folder / "stream.npy"),
        held=None,
        recipe=None,
        seed=flags.seed,
        device=flags.device,
    )


def started(task: Task, folder: Path, name: str) -> Runner:
    write_task(task, folder / f"{name}.json")
    threads = {"OMP_NUM_THREADS": str(task.threads), "MKL_NUM_THREADS": str(task.threads)}
    env = {
        **threads,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(BENCH), os.environ.get("PYTHONPATH")))),
    }
    command = [sys.executable, "-m", "harness.contenders", str(folder / f"{name}.json")]
    return Runner(name, command, env, folder / f"{name}.log")


# ---- speed ---------------------------------------------------------------------------------------


def compare_speed(task: Task, names: list[str], flags: argparse.Namespace, folder: Path) -> None:
    runners: list[Runner] = []
    seconds: dict[str, list[list[float]]] = {name: [] for name in names}
    try:
        for name in names:  # one after the other, so that nobody compiles while another does
            runners.append(started(replace(task, contender=name), folder, name))
            runners[-1].turn(WARM_STEPS)
            say(f"{name} is warm")
        for _ in range(flags.rounds):
            for runner in runners:
                seconds[runner.name].append(runner.turn(flags.steps))
        memory = {runner.name: runner.peak_rss_mb() for runner in runners}
        parameters = {runner.name: runner.facts["parameters"] for runner in runners}
    finally:
        for runner in runners:
            runner.kill()
    step_tokens = task.sequences * find_scale(task.scale).config.model.context
    rates = {name: step_tokens / median_step(rounds) for name, rounds in seconds.items()}
    table(
        f"{task.scale}: {step_tokens} tokens a step, {task.threads} threads, {flags.rounds} rounds"
        f" of {flags.steps} steps, float32",
        ("contender", "parameters", "ms/step", "p10", "p90", "tokens/s", "RSS MB"),
        [
            (
                name,
                parameters[name],
                *(1e3 * s for s in spread_of(rounds)),
                round(rates[name]),
                memory[name],
            )
            for name, rounds in seconds.items()
        ],
    )
    about = {
        "scale": task.scale,
        "threads": task.threads,
        "sequences": task.sequences,
        "step_tokens": step_tokens,
        "timed_steps": flags.rounds * flags.steps,
        "tokens_per_second": {name: round(rate) for name, rate in rates.items()},
        "rss_mb": {name: round(mb) for name, mb in memory.items()},
    }
    for title, ours, peers in (
        ("train_tokens_per_second_beside_peers", ADAMW_OURS, PEERS),
        ("train_tokens_per_second_beside_trainer", ADAMW_OURS, PEERS[:2]),
        ("train_tokens_per_second_beside_litgpt", ADAMW_OURS, PEERS[2:]),
        ("train_tokens_per_second_with_muon_beside_peers", MUON_OURS, PEERS),
    ):
        state_speed(
            title, fastest(ours, rates), fastest(peers, rates), rates, memory, seconds, about
        )


def state_speed(
    title: str,
    ours: str | None,
    peer: str | None,
    rates: dict[str, float],
    memory: dict[str, float],
    seconds: dict[str, list[list[float]]],
    about: dict[str, Any],
) -> None:
    if ours is None:
        return
    by_round = [
        round(statistics.median(theirs) / statistics.median(own), 3)
        for own, theirs in zip(seconds[ours], seconds[peer] if peer else [], strict=False)
    ]
    more = {"setting": ours, "peer_setting": peer, "ratio_by_round": by_round, **about}
    figure(title, rates[ours], rates[peer] if peer else None, "tokens/s", memory[ours], **more)


def fastest(names: Sequence[str], rates: dict[str, float]) -> str | None:
    return max(
        (name for name in names if name in rates), key=lambda name: rates[name], default=None
    )


def median_step(rounds: list[list[float]]) -> float:
    return statistics.median(step for steps in rounds for step in steps)


def spread_of(rounds: list[list[float]]) -> tuple[float, float, float]:
    """Median, 10th and 90th percentile, in seconds."""
    steps = [step for steps in rounds for step in steps]
    low, middle, high = np.percentile(steps, (10, 50, 90))
    return float(middle), float(low), float(high)


# ---- loss at equal tokens ------------------------------------------------------------------------


def compare_loss(task: Task, names: list[str], flags: argparse.Namespace, folder: Path) -> None:
    task = replace(task, held=str(folder / "held.npy"))
    seeds = [flags.seed + number for number in range(flags.seeds)]

    def contender(name: str) -> Task:
        own_rows = name in NANOCHAT and flags.nanochat_rows == "documents"
        rows = folder / ("document_rows.npy" if own_rows else "rows.npy")
        mine = replace(task, contender=name, rows=str(rows))
        found = within(flags.loss_seconds, mine, folder) if flags.loss_seconds else mine
        epochs = found.steps * found.sequences / len(np.load(rows, mmap_mode="r"))
        say(f"{name}: {found.steps} steps, {epochs:.2f} epochs of its rows")
        return found

    ours = contender("picochat-muon" if flags.device == "cpu" else "picochat-muon-compiled")
    losses = {"picochat, its recipe": [trained_loss(replace(ours, seed=s), folder) for s in seeds]}
    tokens = {"picochat, its recipe": tokens_of(ours)}
    best: dict[str, str] = {}
    for peer in (name for name in LOSS_PEERS if name in names):
        theirs = contender(peer)
        found = {
            recipe: trained_loss(replace(theirs, recipe=recipe), folder)
            for recipe in grid_of(peer, flags)
        }
        losses |= {f"{peer}, {recipe.name}": [loss] for recipe, loss in found.items()}
        winner = min(found, key=lambda recipe: found[recipe])
        best[peer] = f"{peer}, {winner.name}"
        tokens[best[peer]] = tokens_of(theirs)
        losses[best[peer]] += [
            trained_loss(replace(theirs, recipe=winner, seed=seed), folder) for seed in seeds[1:]
        ]
    length = (
        f"{flags.loss_seconds:g} s of training" if flags.loss_seconds
        else f"{tokens_of(task):,} tokens"
    )  # fmt: skip
    table(
        f"{task.scale}: held-out nats per target after {length}",
        ("contender", "tokens", "mean", *(f"seed {seed}" for seed in seeds)),
        [
            (
                name,
                tokens.get(name, "-"),
                f"{statistics.mean(row):.4f}",
                *(f"{x:.4f}" for x in row),
                *("-" for _ in seeds[len(row) :]),
            )
            for name, row in losses.items()
        ],
    )
    own = losses["picochat, its recipe"]
    for peer, name in best.items():
        figure(
            f"held_out_loss_beside_{peer}",
            statistics.mean(own),
            statistics.mean(losses[name]),
            "nats per token",
            None,
            scale=task.scale,
            tokens=tokens["picochat, its recipe"],
            peer_tokens=tokens[name],
            seconds=flags.loss_seconds,
            seeds=seeds,
            recipe=name,
            ours_by_seed=own,
            peer_by_seed=losses[name],
        )


def grid_of(peer: str, flags: argparse.Namespace) -> list[Recipe]:
    """The recipes of a peer that are tried."""
    if peer in NANOCHAT:
        pairs = [map(float, pair.split("x")) for pair in flags.nanochat_times.split(",")]
        return [Recipe(matrix, "its own", others=others) for matrix, others in pairs]
    rates = map(float, flags.peak_rates.split(","))
    asked = (flags.schedules or "").split(",")
    schedules = [one for one in SCHEDULES[peer] if one in asked] or SCHEDULES[peer]
    return [Recipe(rate, schedule) for rate in rates for schedule in schedules]


def tokens_of(task: Task) -> int:
    return task.steps * task.sequences * find_scale(task.scale).config.model.context


def within(seconds: float, task: Task, folder: Path) -> Task:
    """The task with as many steps as its contender takes in so many seconds.

    Compiling is left out, and what picochat takes to count the text is not.
    """
    runner = started(replace(task, held=None, steps=STEPS_AHEAD), folder, f"{task.contender}-speed")
    try:
        runner.turn(WARM_STEPS)
        timed = runner.turn(STEPS_TO_TIME[task.device])
        step_seconds = statistics.median(timed) if task.device == "cpu" else statistics.mean(timed)
        left = seconds - float(runner.facts.get("counting_s", 0))
    finally:
        runner.kill()
    return replace(task, steps=max(10, round(left / step_seconds)))


def trained_loss(task: Task, folder: Path) -> float:
    runner = started(task, folder, f"{task.contender}-{task.seed}")
    try:
        facts = runner.finish()
    finally:
        runner.kill()
    say(
        f"{task.contender} {task.recipe.name if task.recipe else ''} seed {task.seed},"
        f" {task.steps} steps: {facts['held_out_loss']:.4f},"
        f" {facts['train_s']:.0f} s"
    )
    return facts["held_out_loss"]


if __name__ == "__main__":
    main()
