"""The compiled step of a scale, inspected without a GPU: graphs, products, kernels, buffers.

    python bench/graph.py --scale h100-100m [--layers 2] [--sequences 2] [--precision bf16] \\
        [--device cpu] [--quick]

Graphs are the same for every device; kernels and buffers are what the compiler's CPU (or, with
--device cuda, GPU) backend makes of them, and its decisions to fuse are largely the same.
Fewer layers are compiled than the scale has, because each is compiled like the others; products are
stated per layer. Says nothing about speed. Ends with one JSON line.

Expected in bf16: one graph, no break, two products a layer forward and four backward, no operator
that the host waits for, no float32 buffer as large as the logits, and no kernel of its own for
norm, RoPE, SwiGLU or the residual.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from harness.figures import say
from harness.graphs import inspect

from picochat.config import RuntimeConfig
from picochat.model.centred import centre_
from picochat.model.gpt import GPT, initialise
from picochat.model.runtime import DTYPES, open_runtime
from picochat.scales import find_scale

KERNEL = re.compile(
    r"^\s*(?:kernel_)?((?:cpp|triton)_\w*fused_\w+?)(?:_\d+)?(?:\.run)?\(", re.MULTILINE
)
BUFFER = re.compile(r"= empty_strided_(?:cpu|cuda)\(\(([\d, ]*)\), \([\d, ]*\), torch\.(\w+)\)")
EXTERN = re.compile(
    r"(?:extern_kernels\.(\w+)|torch\.ops\.aten\.(_scaled_dot_product\w+?)(?:\.default)?)\("
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", default="h100-100m")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--sequences", type=int, default=2)
    parser.add_argument("--precision", choices=sorted(DTYPES), default="bf16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="the graphs alone, of a small shape; no code is generated",
    )
    flags = parser.parse_args()
    scale = "tiny" if flags.quick else flags.scale
    config = find_scale(scale).config
    shape = config.model.model_copy(update={"layers": flags.layers})
    model = GPT(shape, config.tokenizer.vocab_size)
    initialise(model, 0)
    centre_(model)
    model.to(flags.device)
    block = torch.randint(
        0, config.tokenizer.vocab_size, (flags.sequences, shape.context + 1), device=flags.device
    )
    ids, targets, dtype = block[:, :-1], block[:, 1:], DTYPES[flags.precision]
    graph = inspect(model, ids, targets, dtype)
    row: dict[str, object] = {
        "figure": "compiled_step",
        "scale": scale,
        "layers": flags.layers,
        "precision": flags.precision,
        "graphs": graph.graphs,
        "graph_breaks": graph.breaks,
        "forward_products_a_layer": (graph.forward_products - 1) / flags.layers,
        "backward_products_a_layer": (graph.backward_products - 2) / flags.layers,
        "host_waits": graph.waiting,
    }
    if not flags.quick:
        row.update(generated(model, ids, targets, dtype, flags))
    print(
        json.dumps({**row, "torch": torch.__version__, "command": " ".join(["python", *sys.argv])})
    )


def generated(
    model: GPT,
    ids: torch.Tensor,
    targets: torch.Tensor,
    dtype: torch.dtype,
    flags: argparse.Namespace,
) -> dict[str, object]:
    """Kernels by direction, what each fuses, and the buffers as large as the logits."""
    from torch._inductor.utils import run_fw_bw_and_get_code

    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = (
            cache  # so that code is generated, and not taken from an earlier run
        )
        compute = open_runtime(
            RuntimeConfig.model_validate(
                {
                    "device": flags.device,
                    "precision": flags.precision,
                    "attention_backend": "flash",
                    "compile": True,
                    "threads": 1,
                }
            ),
            model.config,
        )
        model.zero_grad()
        step = torch.compile(model.loss_sum, dynamic=False, fullgraph=True)
        with compute.attention():
            _, codes = run_fw_bw_and_get_code(lambda: step(ids, targets, dtype))
    logits = ids.numel() * model.vocab_size
    found: dict[str, object] = {}
    for direction, code in zip(("forward", "backward"), codes, strict=True):
        call = code[code.index("def call(") :]
        kernels = Counter(KERNEL.findall(call))
        externs = Counter(name or other for name, other in EXTERN.findall(call))
        say(f"{direction}: {sum(kernels.values())} kernels, {dict(externs)}")
        for name, count in kernels.items():
            say(f"  {count} x {name}")
        found[f"{direction}_kernels"] = sum(kernels.values())
        found[f"{direction}_kernels_a_layer"] = round(
            (sum(kernels.values())) / model.config.layers, 1
        )
        found[f"{direction}_library_calls"] = dict(externs)
        found[f"{direction}_float32_logits"] = sum(
            kind == "float32" and product(size) >= logits for size, kind in BUFFER.findall(call)
        )
    return found


def product(size: str) -> int:
    total = 1
    for part in size.split(","):
        total *= int(part) if part.strip() else 1
    return total


if __name__ == "__main__":
    main()
