"""What saving the train state costs: stretches of steps with a save and without, in turns.

    python bench/checkpoint.py [--scale h100-100m] [--rounds 12] [--stretch-s 20] \\
        [--folder DIR] [--device cpu] [--quick]

The real engine, the real writer, a state of the scale's size. On a CPU a step is small (few tokens,
AdamW, whose state is larger than Muon's), since the cost of a save hardly depends on what it
interrupts: copying the tensors, then a thread that writes, digests and syncs while steps go on. The
cost of a save is the mean difference between the two stretches of a round, the waiting and all that
slows the steps after it included; the figure is that over five minutes. Write to the disk that runs
are kept on.

Ends with one JSON line: the fraction of the time that is lost at a save every five minutes, its
standard error, the seconds behind it, how long training stands still for the copies, how long the
writing takes, and the longest time in which it kept another thread from running.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import safetensors
import torch
from harness.figures import figure, say, table

from picochat.config import ModelConfig, RuntimeConfig, TrainConfig
from picochat.model.gpt import GPT, initialise
from picochat.model.runtime import open_runtime
from picochat.scales import find_scale
from picochat.train.checkpoint import StateWriter, TrainState, saved_steps
from picochat.train.loader import Batch
from picochat.train.step import Engine

SAVE_EVERY_S = 300.0
CPU_ROWS, CPU_POSITIONS = 1, 32


class Steps:
    """Training steps of a scale on random tokens, timed in stretches."""

    def __init__(
        self, model: ModelConfig, vocab_size: int, base: TrainConfig, runtime: RuntimeConfig
    ) -> None:
        self.compute = open_runtime(runtime, model)
        self.model = GPT(model, vocab_size)
        initialise(self.model, 0)
        self.model.to(self.compute.device)
        cuda = self.compute.device.type == "cuda"
        config = base if cuda else base.model_copy(update={"matrix_optimizer": "adamw"})
        self.engine = Engine(self.model, config, self.compute, fixed_shape=True)
        rows, positions = (
            (base.sequences_per_step, model.context) if cuda else (CPU_ROWS, CPU_POSITIONS)
        )
        ids = torch.randint(vocab_size, (rows, positions + 1)).to(self.compute.device)
        self.batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), rows * positions)

    def run(self, count: int) -> None:
        for _ in range(count):
            self.engine.step(self.batch, 0.01)
        if self.compute.device.type == "cuda":
            torch.cuda.synchronize()

    def stretch_of(self, seconds: float) -> int:
        """How many steps take about so long."""
        self.run(3)
        begun = time.monotonic()
        self.run(3)
        return max(3, round(3 * seconds / (time.monotonic() - begun)))


def make_state(step: int) -> TrainState:
    return TrainState(
        step=step, spike_mean=None, spike_seen=0, spike_steps=[], first_loss=None, last_loss=None
    )


def stretch_with_save(
    steps: Steps, states: StateWriter, number: int, count: int
) -> tuple[float, float]:
    """(seconds of a save and `count` steps, seconds of them in which training stood still)."""
    begun = time.monotonic()
    states.save(make_state(number), steps.model.state_dict(), steps.engine.optimizer.state())
    held = time.monotonic() - begun
    steps.run(count)
    taken = time.monotonic() - begun
    states.finish()
    if (written := time.monotonic() - begun) > taken + 0.5:
        say(
            f"the write took {written:.1f} s and outlasted the stretch: a longer --stretch-s shows"
            " all of its cost"
        )
    return taken, held


def write_alone(steps: Steps, states: StateWriter) -> tuple[float, float]:
    """(seconds until a state is on disk, longest time in which another thread could not run)."""
    stretch_with_save(steps, states, 0, 0)  # makes the buffers
    begun = time.monotonic()
    states.save(make_state(0), steps.model.state_dict(), steps.engine.optimizer.state())
    longest, last = 0.0, time.monotonic()
    while states.writing:
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    states.finish()
    return time.monotonic() - begun, longest


def stretch_without(steps: Steps, count: int) -> float:
    begun = time.monotonic()
    steps.run(count)
    return time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", default="h100-100m")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--stretch-s", type=float, default=20.0)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true")
    flags = parser.parse_args()
    rounds, stretch_s = (2, 6.0) if flags.quick else (flags.rounds, flags.stretch_s)
    config = find_scale(flags.scale).config
    cuda = flags.device == "cuda"
    runtime = RuntimeConfig(
        device=flags.device, precision="bf16" if cuda else "float32", compile=cuda, threads=1
    )
    steps = Steps(config.model, config.tokenizer.vocab_size, config.base, runtime)
    with tempfile.TemporaryDirectory(dir=flags.folder) as temporary:
        states = StateWriter(Path(temporary), lambda _: ())
        count = steps.stretch_of(stretch_s)
        write_s, stall_s = write_alone(steps, states)
        size = sum(path.stat().st_size for path in saved_steps(Path(temporary))[-1].iterdir())
        say(
            f"state of {size / 1e6:.0f} MB, written alone in {write_s:.1f} s; stretches of {count}"
            " steps"
        )
        measured: list[tuple[float, float, float]] = []
        for number in range(1, rounds + 1):
            plain = stretch_without(steps, count) if number % 2 else None
            saving, held = stretch_with_save(steps, states, number, count)
            plain = stretch_without(steps, count) if plain is None else plain
            measured.append((saving, plain, held))
        states.close()
    report(measured, write_s, stall_s, size, flags.device, count)


def report(
    measured: list[tuple[float, float, float]],
    write_s: float,
    stall_s: float,
    size: int,
    device: str,
    count: int,
) -> None:
    table(
        "a stretch of steps, seconds",
        ("round", "with a save", "without", "held up"),
        [(f"{number}", *row) for number, row in enumerate(measured, start=1)],
    )
    costs = [saving - plain for saving, plain, _ in measured]
    error = statistics.stdev(costs) / len(costs) ** 0.5 if len(costs) > 1 else None
    figure(
        "checkpoint_time_share_at_5_minutes",
        statistics.mean(costs) / SAVE_EVERY_S,
        None,
        "fraction",
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        standard_error=error / SAVE_EVERY_S if error is not None else None,
        save_cost_s=statistics.mean(costs),
        held_up_s=statistics.median(held for _, _, held in measured),
        write_alone_s=write_s,
        longest_stall_ms=1e3 * stall_s,
        safetensors=safetensors.__version__,
        state_mb=size / 1e6,
        rounds=len(measured),
        stretch_steps=count,
        stretch_s=statistics.median(plain for _, plain, _ in measured),
        device=torch.cuda.get_device_name() if device == "cuda" else "cpu",
    )


if __name__ == "__main__":
    sys.exit(main())
