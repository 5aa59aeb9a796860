"""How far a replay drifts from its run where numbers round differently.

The bounds of release/replay.py rest on these figures.

    python bench/replay.py [--steps 60] [--quick]

Trains a small base stage on the CPU in float32, then its last half again from the kept state: as it
was, with another attention kernel, in bfloat16, and on a GPU where there is one. A table: largest
difference of a loss in nats, and how far apart the final weights are as a fraction of the way that
they moved. Ends with one JSON line a row.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from harness.figures import figure, table
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.train.builders import begin_run, small_config, train_base

from picochat.config import ModelConfig
from picochat.model.runtime import open_runtime
from picochat.release.replay import Parts, find_parts, relative_distance, trained_again

MODEL = ModelConfig(
    context=128, layers=3, width=96, heads=3, kv_heads=1, head_width=32, mlp_width=256
)

ROUNDINGS: tuple[tuple[str, dict[str, object]], ...] = (
    # name, what is changed in the runtime
    ("as it was", {}),
    ("math attention", {"attention_backend": "math"}),
    ("bfloat16", {"precision": "bf16"}),
    ("GPU, float32", {"device": "cuda"}),
    ("GPU, bfloat16", {"device": "cuda", "precision": "bf16", "compile": True}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--quick", action="store_true")
    flags = parser.parse_args()
    steps = 20 if flags.quick else flags.steps
    config = small_config(
        steps=steps, eval_every=steps // 2, sequences_per_step=8, muon_lr=0.02, adamw_lr=0.01
    )
    config = config.model_copy(update={"model": MODEL})
    with tempfile.TemporaryDirectory() as folder:
        run = begin_run(Path(folder) / "run", config)
        train_base(run, config)
        parts = find_parts(run, run.root, [run])
        rows = [
            (name, *drift(parts, changes))
            for name, changes in ROUNDINGS
            if changes.get("device") != "cuda" or torch.cuda.is_available()
        ]
    shown = [
        (name, f"{first:.2g}", f"{worst:.2g}", f"{apart:.2%}") for name, first, worst, apart in rows
    ]
    table(
        f"the last {steps // 2} steps again",
        ("rounding", "first loss, nats", "worst loss", "weights apart"),
        shown,
    )
    for name, _, worst, apart in rows:
        figure(
            "replay_largest_loss_difference",
            worst,
            None,
            "nats",
            None,
            rounding=name,
            weights_apart=apart,
        )


def drift(parts: Parts, changes: dict[str, object]) -> tuple[float, float, float]:
    """(difference of the first loss, largest difference, weights apart) in another runtime."""
    runtime = parts.config.runtime.model_copy(update=changes)
    there = replace(parts, config=parts.config.model_copy(update={"runtime": runtime}))
    differences, weights = list[float](), dict[str, torch.Tensor]()
    for step, loss, engine in trained_again(there, open_runtime(runtime, MODEL)):
        differences.append(abs(loss - parts.losses[step]))
        weights = engine.model.state_dict()
    assert parts.published is not None, "the run folder has its weights"
    distance = relative_distance(
        {name: tensor.cpu() for name, tensor in weights.items()},
        load_file(parts.published),
        parts.saved.weights,
    )
    return differences[0], max(differences), distance


if __name__ == "__main__":
    main()
