"""The graphs of the training step, forward and backward, before any code is generated.

`inspect` traces the step of a model on any device and counts. Which kernels come of it is
bench/graph.py's to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from functorch.compile import make_boxed_func
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch._functorch.partitioners import min_cut_rematerialization_partition

from picochat.model.gpt import GPT

PRODUCTS = ("aten.mm", "aten.addmm", "aten.bmm", "aten.baddbmm")
WAITING = ("aten._local_scalar_dense", "aten.item", "aten.nonzero", "aten.is_nonzero")


@dataclass
class StepGraph:
    """Counts over the step.

    `products`: matrix products, attention apart. `waiting`: operators that the host would wait for.
    """

    graphs: int = 0
    breaks: int = 0
    forward_products: int = 0
    backward_products: int = 0
    waiting: list[str] = field(default_factory=list)


def inspect(model: GPT, ids_BT: Tensor, targets_BT: Tensor, dtype: torch.dtype) -> StepGraph:
    """Trace loss and gradients once; the gradients are left in the model."""
    found = StepGraph()

    def counting(name: str) -> Callable[..., Any]:
        def compiler(graph: torch.fx.GraphModule, inputs: Any) -> Any:
            targets = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
            products = sum(
                target.startswith(tuple(f"{p}." for p in PRODUCTS)) for target in targets
            )
            setattr(found, name, getattr(found, name) + products)
            found.waiting += [target for target in targets if target.startswith(WAITING)]
            return make_boxed_func(graph.forward)

        return compiler

    backend = aot_autograd(
        fw_compiler=counting("forward_products"),
        bw_compiler=counting("backward_products"),
        partition_fn=min_cut_rematerialization_partition,
    )

    def counted(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        found.graphs += 1
        return backend(graph, inputs)

    torch._dynamo.reset()
    counters.clear()
    loss = torch.compile(model.loss_sum, dynamic=False, backend=counted)(ids_BT, targets_BT, dtype)
    loss.backward()
    found.breaks = sum(counters["graph_break"].values())
    torch._dynamo.reset()
    return found
