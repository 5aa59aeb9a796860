"""The optimizer step: Muon for the matrices of the blocks, AdamW for the rest, the centring projection last.

Muon (Jordan et al. 2024): momentum, then five Newton-Schulz iterations that bring all singular values of the update near
one. Matrices of one shape are stacked, so that a step is a few batched products instead of hundreds of small ones.
Momentum and masters are float32; the iterations run in bfloat16 on a GPU and in float32 elsewhere (bfloat16 products are
far slower on most processors). Does not know the schedule: each step is told its share of the peak rate.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from picochat.config import TrainConfig
from picochat.core.errors import BadInput
from picochat.model.centred import centre_
from picochat.model.gpt import GPT

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic of the Muon reference: steep at zero, near one over (0, 1]."""
NEWTON_SCHULZ_STEPS = 5


def orthogonalize(update_NOI: Tensor, dtype: torch.dtype) -> Tensor:
    """Each matrix of the stack (N, O, I) with its singular values pushed to about one. Returns float32."""
    a, b, c = NEWTON_SCHULZ
    tall = update_NOI.shape[-2] > update_NOI.shape[-1]
    x = (update_NOI.mT if tall else update_NOI).to(dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Muon:
    """Muon over parameters grouped by shape. `momenta` holds one stacked buffer (N, O, I) for each shape."""

    def __init__(self, parameters: list[nn.Parameter], config: TrainConfig, *, compiled: bool) -> None:
        self.config = config
        self.groups: dict[str, list[nn.Parameter]] = {}
        for parameter in parameters:
            self.groups.setdefault("x".join(map(str, parameter.shape)), []).append(parameter)
        self.momenta = {shape: torch.stack([torch.zeros_like(p) for p in group]) for shape, group in self.groups.items()}
        self._orthogonalize: Callable[[Tensor, torch.dtype], Tensor] = (
            torch.compile(orthogonalize) if compiled else orthogonalize
        )

    @torch.no_grad()
    def step(self, lr_share: float) -> None:
        lr = self.config.muon_lr * lr_share
        for shape, group in self.groups.items():
            grad = torch.stack([parameter.grad for parameter in group if parameter.grad is not None])
            momentum = self.momenta[shape].lerp_(grad, 1 - self.config.muon_momentum)
            nesterov = torch.lerp(grad, momentum, self.config.muon_momentum)
            dtype = torch.bfloat16 if grad.is_cuda else torch.float32
            rows, columns = grad.shape[-2:]
            update = self._orthogonalize(nesterov, dtype) * max(1.0, rows / columns) ** 0.5
            for parameter, change in zip(group, update, strict=True):
                parameter.mul_(1 - lr * self.config.weight_decay)
                parameter.sub_(change, alpha=lr)


class Optimizer:
    """One step over the whole model. `state` and `load_state` give and take named tensors, for checkpoints."""

    def __init__(self, model: GPT, config: TrainConfig, *, compiled: bool = False) -> None:
        self.model, self.config = model, config
        matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and name.startswith("blocks.")]
        rest = [p for name, p in model.named_parameters() if not (p.dim() == 2 and name.startswith("blocks."))]
        self.muon = Muon(matrices, config, compiled=compiled) if config.matrix_optimizer == "muon" else None
        decayed = [] if self.muon else [{"params": matrices, "weight_decay": config.weight_decay}]
        self.adamw = torch.optim.AdamW(
            [{"params": rest, "weight_decay": 0.0}, *decayed],
            lr=config.adamw_lr,
            betas=(config.adamw_beta1, config.adamw_beta2),
            eps=1e-10,
            fused=True,
        )
        self._names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}

    def step(self, lr_share: float) -> Tensor:
        """Apply the gradients at `lr_share` of the peak rates. Returns the global gradient norm, before clipping."""
        parameters = list(self.model.parameters())
        limit = self.config.grad_clip if self.config.grad_clip is not None else float("inf")
        norm = nn.utils.clip_grad_norm_(parameters, limit) if self.config.grad_clip else total_norm(parameters)
        for group in self.adamw.param_groups:
            group["lr"] = self.config.adamw_lr * lr_share
        self.adamw.step()
        if self.muon:
            self.muon.step(lr_share)
        if self.model.config.centred:
            centre_(self.model)
        self.model.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, Tensor]:
        tensors = {f"muon.{shape}": momentum for shape, momentum in (self.muon.momenta if self.muon else {}).items()}
        for parameter, state in self.adamw.state.items():
            tensors.update({f"adamw.{self._names[parameter]}.{key}": value for key, value in state.items()})
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Raises BadInput where the state belongs to another model or optimizer."""
        try:
            if self.muon:
                for shape, momentum in self.muon.momenta.items():
                    momentum.copy_(tensors[f"muon.{shape}"])
            for group in self.adamw.param_groups:
                for parameter in group["params"]:
                    prefix = f"adamw.{self._names[parameter]}."
                    state = {key: tensors[prefix + key] for key in ("step", "exp_avg", "exp_avg_sq")}
                    self.adamw.state[parameter] = {k: v.to(parameter.device) for k, v in state.items()}
        except KeyError as error:
            raise BadInput(f"the optimizer state has no {error.args[0]}: it belongs to another configuration") from None


def total_norm(parameters: list[nn.Parameter]) -> Tensor:
    """Global norm of the gradients, without a host sync."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
