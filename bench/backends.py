"""Error and time of each attention kernel at the shapes of a scale. One JSON line a kernel.

    python bench/backends.py --device cuda --precision bf16 --scale h100-100m [--quick]

By the functions with which `auto` chooses (model/attention.py): errors against float32 math at the
scale's context and at short rows, times of forward and backward passes, the least of several rounds
in turns. A kernel that does not run here is listed with its reason. `ours`: seconds; `peer`: those
of torch's own flash kernel with heads as they are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from harness.figures import figure

from picochat.config import RuntimeConfig
from picochat.model.attention import AttentionSetting, candidate_kernels, fastest, measure_kernels
from picochat.model.runtime import DTYPES, apply_settings
from picochat.scales import find_scale


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--scale", default="tiny")
    parser.add_argument("--quick", action="store_true", help="the scale tiny")
    flags = parser.parse_args()
    apply_settings(
        RuntimeConfig.model_validate({"device": flags.device, "precision": flags.precision})
    )
    scale = "tiny" if flags.quick else flags.scale
    setting = AttentionSetting(
        torch.device(flags.device), DTYPES[flags.precision], find_scale(scale).config.model
    )
    tried = measure_kernels(candidate_kernels("auto", setting), setting)
    best = fastest(tried, 0.0)
    for one in tried:
        more = {
            "way": one.backend + (" repeated" if one.repeat_heads else ""),
            "problem": one.problem,
            "error": one.error,
        }
        figure(
            "attention",
            one.seconds,
            tried[0].seconds,
            "s",
            None,
            **more,
            fastest=one == best,
            where=setting.described(),
        )


if __name__ == "__main__":
    main()
