"""Calls for which the host waits for the device.

A training step must have none. While the host waits it queues no kernels, and then the device idles
until Python has caught up. On a GPU torch itself refuses such calls, whatever they are called. On a
CPU nothing waits, so the calls that would are looked for by name among all that Python asks of
torch; what a CPU kernel does inside itself says nothing about a GPU's and is left out. Does not see
values that Python reads from memory without asking torch (`tolist`, `numpy`), nor what a compiled
graph calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITING_CALLS = frozenset(
    f"aten::{name}"
    for name in (
        "_local_scalar_dense",
        "is_nonzero",
        "nonzero",
        "masked_select",
        "equal",
        "_unique2",
        "bincount",
    )
)
"""Operators whose result, or its shape, the host must know."""


class _CallsByName(TorchDispatchMode):
    """Collects the names of all operators that Python calls while inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func._schema.name)
        return func(*args, **(kwargs or {}))


def host_syncs(work: Callable[[], object], device: torch.device) -> list[str]:
    """The calls in `work` for which the host waits, sorted by name; on a GPU the first of them."""
    if device.type == "cuda":
        return _refused(work)
    with _CallsByName() as seen:
        work()
    return sorted(seen.names & WAITING_CALLS)


def _refused(work: Callable[[], object]) -> list[str]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        work()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return [str(error).splitlines()[0]]
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return []
