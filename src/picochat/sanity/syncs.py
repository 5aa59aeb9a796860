"""Calls for which the host would wait for the device: a training step has none, or the device idles while Python catches up.

On a GPU torch itself refuses them, whatever they are called. Elsewhere nothing waits, so the calls that would are looked for
by name among all that torch ran. Does not see values that Python reads from memory without asking torch (`tolist`, `numpy`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

WAITING_CALLS = frozenset(
    f"aten::{name}"
    for name in (
        "item",
        "_local_scalar_dense",
        "is_nonzero",
        "nonzero",
        "masked_select",
        "equal",
        "_unique2",
        "repeat_interleave",
    )
)
"""Operators whose result, or its shape, the host must know."""


def host_syncs(work: Callable[[], object], device: torch.device) -> list[str]:
    """What in `work` makes the host wait for the device, sorted by name; on a GPU the first that was refused."""
    if device.type == "cuda":
        return _refused(work)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        work()
    return sorted({event.name for event in seen.events() or [] if event.name in WAITING_CALLS})


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
