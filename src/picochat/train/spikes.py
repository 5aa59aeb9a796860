"""Loss spikes: steps whose loss stands far above its running mean. Warned, recorded, never silently
smoothed.

A loss that is not finite is not a spike: it ends the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field

EMA_WEIGHT = 0.05
"""Weight of the newest loss in the running mean: it looks back over about twenty steps."""
FIRST_STEPS = 20
"""Steps before the running mean means anything: the loss falls too steeply."""


@dataclass
class SpikeWatch:
    """Feed it each step's loss in order. `steps`: where spikes stood. All of it is saved with the
    training state.

    A spike is over `factor` times the running mean, and over `nats` above it.
    """

    factor: float
    nats: float
    mean: float | None = None
    seen: int = 0
    steps: list[int] = field(default_factory=list[int])

    def is_spike(self, step: int, loss: float) -> bool:
        high = self.mean is not None and loss > max(self.factor * self.mean, self.mean + self.nats)
        spike = high and self.seen >= FIRST_STEPS
        if spike:
            self.steps.append(step)
        self.mean = loss if self.mean is None else (1 - EMA_WEIGHT) * self.mean + EMA_WEIGHT * loss
        self.seen += 1
        return spike
