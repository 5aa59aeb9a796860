"""Loss spikes: steps whose loss stands far above its running mean. Warned, recorded, never silently smoothed.

A loss that is not finite is not a spike: it ends the run.
"""

from __future__ import annotations

from dataclasses import dataclass

EMA_WEIGHT = 0.05
"""Weight of the newest loss in the running mean: it looks back over about twenty steps."""
FIRST_STEPS = 20
"""Steps before the running mean means anything: the loss falls too steeply."""


@dataclass
class SpikeWatch:
    """Feed it each step's loss in order. `mean` and `seen` are saved with the training state."""

    factor: float
    mean: float | None = None
    seen: int = 0
    spikes: int = 0

    def is_spike(self, loss: float) -> bool:
        spike = self.seen >= FIRST_STEPS and self.mean is not None and loss > self.factor * self.mean
        self.spikes += spike
        self.mean = loss if self.mean is None else (1 - EMA_WEIGHT) * self.mean + EMA_WEIGHT * loss
        self.seen += 1
        return spike
