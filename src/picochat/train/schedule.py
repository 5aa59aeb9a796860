"""What follows from settings, steps and losses alone: rate, teacher, evaluations, loss spikes.

Imports no torch, so that verification computes the same again from a curve and the settings.
"""

from __future__ import annotations

from collections.abc import Iterable

from picochat.config import CountsConfig, TrainConfig

# ---- the learning rate ---------------------------------------------------------------------------


def lr_fraction(step: int, config: TrainConfig) -> float:
    """The fraction of the peak rate that step `step` (from 0) uses.

    Linear warm-up, a plateau, then linear decay to `final_lr_fraction` over the last
    `decay_fraction` of the steps. It is above 0 at the first step.
    """
    # Linear decay to zero beats a cosine to 10% from 0.1B to 1.7B parameters (arXiv 2502.15938).
    # The decay is a fraction of the steps and not a number, so that a shorter run keeps the shape.
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    decay_steps = config.decay_fraction * config.steps
    if not decay_steps:
        return warm
    left = min(1.0, (config.steps - step) / decay_steps)
    return warm * (config.final_lr_fraction + (1 - config.final_lr_fraction) * left)


def teacher_share(step: int, steps: int, counts: CountsConfig) -> float:
    """How much of the targets of step `step` (from 0) of `steps` the counts are."""
    return counts.teacher * max(0.0, 1 - step / (counts.teacher_until * steps))


def half_the_rates(stage: str, config: TrainConfig) -> str:
    """The options that halve both peak rates of a stage."""
    muon, adamw = config.muon_lr / 2, config.adamw_lr / 2
    return f"--set {stage}.muon_lr={muon:g} --set {stage}.adamw_lr={adamw:g}"


# ---- evaluations ---------------------------------------------------------------------------------


def evaluates_after(step: int, config: TrainConfig) -> bool:
    """Whether the held-out set is evaluated after `step` finished steps."""
    return step == config.steps or (config.eval_every is not None and step % config.eval_every == 0)


def evaluation_before(step: int, config: TrainConfig) -> int | None:
    """The last step before `step` that is followed by an evaluation; None without one."""
    if config.eval_every is None or step <= config.eval_every:
        return None
    return (step - 1) // config.eval_every * config.eval_every


def evaluations_left(step: int, config: TrainConfig) -> int:
    """How many evaluations are due after `step` finished steps, the final one included."""
    if step >= config.steps:
        return 0
    every = config.eval_every
    return 1 if every is None else -(-config.steps // every) - step // every


def replay_step(config: TrainConfig) -> int | None:
    """The step from which a replay trains again: the last evaluation but the final one.

    From there it reaches the final weights.
    """
    return evaluation_before(config.steps, config)


# ---- loss spikes ---------------------------------------------------------------------------------

EMA_WEIGHT = 0.05
"""Weight of the newest loss in the running mean, which so spans about twenty steps."""
FIRST_STEPS = 20
"""Before so many steps no loss is a spike: it falls too steeply for its mean to tell anything."""


def is_spike(loss: float, mean: float | None, seen: int, config: TrainConfig) -> bool:
    """Whether a loss stands far above the running mean of the `seen` losses before it.

    A spike is over `spike_factor` times the mean and also over `spike_nats` above it: where rows
    are known by heart, losses are near zero and a factor alone means nothing. A loss that is not
    finite is no spike; it ends the run.
    """
    if mean is None or seen < FIRST_STEPS:
        return False
    return loss > max(config.spike_factor * mean, mean + config.spike_nats)


def running_mean(mean: float | None, loss: float) -> float:
    """The running mean after one more loss."""
    return loss if mean is None else (1 - EMA_WEIGHT) * mean + EMA_WEIGHT * loss


def spike_steps(losses: Iterable[float], config: TrainConfig) -> list[int]:
    """The steps of a whole curve, counted from 1, whose loss is a spike."""
    found: list[int] = []
    mean: float | None = None
    for seen, loss in enumerate(losses):
        if is_spike(loss, mean, seen, config):
            found.append(seen + 1)
        mean = running_mean(mean, loss)
    return found
