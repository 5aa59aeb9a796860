"""Which split a document falls into, and how often it is read: both follow from its id alone.

So a larger import keeps the old held-out documents out, and any machine comes to the same choice.
"""

from __future__ import annotations

import hashlib


def id_share(id: str, purpose: str = "split") -> float:
    """A number in [0, 1) that follows from the id alone: sha256, its first 52 bits."""
    digest = hashlib.sha256(f"{purpose}\0{id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 12) / (1 << 52)


def weight_copies(id: str, weight: float) -> int:
    """How often a document is read at this weight: its whole part, and once more for the fraction
    of ids that draw it.
    """
    whole = int(weight)
    return whole if whole == weight else whole + (id_share(id, "weight") < weight - whole)
