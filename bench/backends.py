"""Each attention backend's error against float32 math, and its time, at the shapes of a scale. One JSON line a backend.

    python bench/backends.py --device cuda --precision bf16 --scale h100-100m [--quick]

A backend that does not run here is listed with its reason. Times are medians of whole forward-backward passes.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import sdpa_kernel

from picochat.model.compute import BACKENDS, DTYPES, check_attention
from picochat.scales import find_scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--scale", default="tiny")
    parser.add_argument("--quick", action="store_true")
    flags = parser.parse_args()
    device, dtype = torch.device(flags.device), DTYPES[flags.precision]
    config = find_scale(flags.scale).config
    rows = 2 if flags.quick or flags.device == "cpu" else config.base.sequences_per_step
    for backend in BACKENDS:
        problem, error = check_attention(backend, device, dtype, config.model)
        seconds = None if problem else median_seconds(backend, device, dtype, config.model, rows, 5 if flags.quick else 20)
        row = {
            "figure": "attention",
            "backend": backend,
            "relative_error": error,
            "problem": problem,
            "rows": rows,
            "seconds": seconds,
        }
        print(json.dumps({**row, "device": flags.device, "precision": flags.precision, "torch": torch.__version__}))


def median_seconds(backend: str, device: torch.device, dtype: torch.dtype, model, rows: int, repeats: int) -> float:
    shape = (rows, model.heads, model.context, model.head_width)
    kv_shape = (rows, model.kv_heads, model.context, model.head_width)
    q, k, v = (torch.randn(s, device=device, dtype=dtype, requires_grad=True) for s in (shape, kv_shape, kv_shape))
    grad = torch.randn(shape, device=device, dtype=dtype)
    times: list[float] = []
    for _ in range(repeats + 3):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        with sdpa_kernel([BACKENDS[backend]]):
            F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).backward(grad)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return sorted(times[3:])[repeats // 2]


if __name__ == "__main__":
    main()
