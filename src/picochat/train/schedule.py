"""The learning rate: linear warm-up, a plateau, linear decay over the last share of the steps.

Linear decay to zero beats a cosine to 10% from 0.1B to 1.7B parameters (arXiv 2502.15938). A share
of the steps, not a number of them, so that a shorter run keeps the shape.
"""

from __future__ import annotations

from picochat.config import TrainConfig


def lr_share(step: int, config: TrainConfig) -> float:
    """Share of the peak rate that step `step` (from 0) uses; above 0 at the first step,
    `final_lr_share` after the last.
    """
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    decay_steps = config.decay_share * config.steps
    if not decay_steps:
        return warm
    left = min(1.0, (config.steps - step) / decay_steps)
    return warm * (config.final_lr_share + (1 - config.final_lr_share) * left)
