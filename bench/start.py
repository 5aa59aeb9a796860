"""Seconds from the start of a process to its first compiled step, with an empty and a warm cache.

    python bench/start.py [--scale h100-100m] [--sequences 2] [--device cpu] \\
        [--precision float32] [--quick]

Each start is a process of its own: interpreter, imports, model, choice of attention, compiling or
reading the cache, one step of the real engine. Preparing data is left out. One JSON line: seconds
until the first step with the warm cache (`ours`: to the end of the first step, less what the second
one takes, which on a CPU can be most of it), and the parts with both caches. The CPU time beside
each shows how far other work on the machine stretched it. The bound for a warm start is 20 s.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from harness.figures import figure, say

WARM_BOUND_S = 20.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", default="h100-100m")
    parser.add_argument("--sequences", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--quick", action="store_true", help="the scale tiny, eager: the parts without the compiler"
    )
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child is not None:
        first_step(flags)
        return
    with tempfile.TemporaryDirectory() as home:
        cold, warm = started(home), started(home)
    name = "start_to_first_step" + ("_eager" if flags.quick else "")
    figure(
        name,
        warm["before_step_s"],
        None,
        "s",
        warm["peak_rss_mb"],
        bound=WARM_BOUND_S,
        cold=cold,
        warm=warm,
    )


def started(home: str) -> dict[str, float]:
    """A child process whose cache is `home`.

    Leaves the compiler's own variables out, which would name another cache.
    """
    ours = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    environment = {key: value for key, value in os.environ.items() if key not in ours} | {
        "PICOCHAT_HOME": home
    }
    command = [sys.executable, __file__, *sys.argv[1:], "--child", repr(time.time())]
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    row = json.loads(result.stdout.splitlines()[-1])
    say(str(row))
    return row


def first_step(flags: argparse.Namespace) -> None:
    """Run in the child: print the time of each part since the parent started the process."""
    began, parts = flags.child, dict[str, float]()

    def done(part: str) -> None:
        parts[part] = round(time.time() - began - sum(parts.values()), 2)

    import torch

    from picochat.config import RuntimeConfig
    from picochat.model.gpt import GPT, initialise
    from picochat.model.runtime import open_runtime
    from picochat.scales import find_scale
    from picochat.train.loader import Batch
    from picochat.train.step import Engine

    done("import_s")
    config = find_scale("tiny" if flags.quick else flags.scale).config
    runtime = {
        "device": flags.device,
        "precision": flags.precision,
        "compile": not flags.quick,
        "threads": flags.threads,
    }
    compute = open_runtime(RuntimeConfig.model_validate(runtime), config.model)
    done("attention_s")
    model = GPT(config.model, config.tokenizer.vocab_size)
    initialise(model, 0)
    model.to(compute.device)
    done("model_s")
    block = torch.randint(
        0,
        config.tokenizer.vocab_size,
        (flags.sequences, config.model.context + 1),
        device=compute.device,
    )
    engine = Engine(model, config.base, compute, fixed_shape=True)
    for part in ("first_step_s", "second_step_s"):
        loss, _ = engine.step(Batch(block[:, :-1], block[:, 1:], block[:, 1:].numel()), 0.1)
        float(loss)
        done(part)
    wall_s = sum(parts.values()) - parts["second_step_s"]
    parts |= {
        "wall_s": round(wall_s, 2),
        "before_step_s": round(wall_s - parts["second_step_s"], 2),
    }
    print(
        json.dumps({**parts, "processor_s": round(processor_s(), 2), "peak_rss_mb": peak_rss_mb()})
    )


def processor_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def peak_rss_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
