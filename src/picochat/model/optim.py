"""The optimizer step: Muon for the matrices of the blocks, AdamW for the rest, then centring.

Muon (Jordan et al. 2024) keeps a momentum and applies an update made from it whose singular values
are all near one (model/orthogonalize.py). Momentum and masters are float32; the update is computed
in bfloat16 on a GPU and in float32 elsewhere, because most processors only emulate bfloat16
products: a step took eight times as long. Does not know the schedule: each step is given its
fraction of the peak rate.

Shape suffixes: N matrices of one shape, O outputs, I inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from picochat.config import TrainConfig
from picochat.core.errors import BadInput
from picochat.model.centred import project_, projected_weights
from picochat.model.gpt import GPT
from picochat.model.orthogonalize import orthogonalize
from picochat.model.thread_pool import ONE_THREAD, ThreadPool

if TYPE_CHECKING:
    from picochat.model.sharding import Sharding


@dataclass(frozen=True)
class Stack:
    """All matrices (O, I) of one shape, and their momenta (N, O, I) in one buffer.

    Stacked, they are updated by a few batched products instead of hundreds of small ones.
    sharding: set where each process holds some columns of each matrix, and of the momenta.
    """

    name: str
    parameters: list[nn.Parameter]
    momentum_NOI: Tensor
    sharding: Sharding | None = None

    def part(self, part: slice) -> Stack:
        """Some of the matrices, with a view of their momenta."""
        return replace(self, parameters=self.parameters[part], momentum_NOI=self.momentum_NOI[part])

    @torch.no_grad()
    def update_(self, lr: Tensor, config: TrainConfig) -> None:
        """One Muon step at rate `lr`, a scalar tensor."""
        grad = torch.stack(
            [
                local_part(parameter.grad, self.sharding)
                for parameter in self.parameters
                if parameter.grad is not None
            ]
        )
        # Nesterov momentum as in the reference: the update looks one step ahead of the momentum.
        self.momentum_NOI.lerp_(grad, 1 - config.muon_momentum)
        nesterov = torch.lerp(grad, self.momentum_NOI, config.muon_momentum)
        # Tall matrices get larger updates, by sqrt(rows / columns), as in the reference.
        rows, columns = self.parameters[0].shape
        dtype = torch.bfloat16 if grad.is_cuda else torch.float32
        update = (
            self.sharding.orthogonalized(nesterov, dtype)
            if self.sharding
            else orthogonalize(nesterov, dtype)
        )
        changes = (update * (lr * max(1.0, rows / columns) ** 0.5)).unbind()
        for parameter, change in zip(self.parameters, changes, strict=True):
            local_part(parameter, self.sharding).mul_(1 - lr * config.weight_decay).sub_(change)

    def state(self) -> Tensor:
        """The momenta, as a DTensor over all processes' columns where weights are sharded."""
        return (
            self.sharding.stacked(self.momentum_NOI, self.parameters[0].shape[1])
            if self.sharding
            else self.momentum_NOI
        )


def local_part(tensor: Tensor, sharding: Sharding | None) -> Tensor:
    """The part of a weight or gradient that this process holds: all of it without sharding."""
    return sharding.local(tensor) if sharding else tensor


def stacks_of(parameters: list[nn.Parameter], sharding: Sharding | None = None) -> list[Stack]:
    """The matrices grouped by shape, in order of first appearance, with momenta at zero."""
    groups: dict[str, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault("x".join(map(str, parameter.shape)), []).append(parameter)
    momenta = [
        torch.stack([torch.zeros_like(local_part(p.detach(), sharding)) for p in group])
        for group in groups.values()
    ]
    return [
        Stack(shape, group, zeros, sharding)
        for (shape, group), zeros in zip(groups.items(), momenta, strict=True)
    ]


class Optimizer:
    """One step over the whole model, and its state as named tensors.

    compiled: make Muon of all stacks and the centring one compiled graph. pool: updates stacks in
    parallel on a CPU. sharding: set where several processes hold the weights in parts and step
    together; the state then consists of DTensors of the same names and whole shapes.
    """

    def __init__(
        self,
        model: GPT,
        config: TrainConfig,
        *,
        compiled: bool = False,
        pool: ThreadPool = ONE_THREAD,
        sharding: Sharding | None = None,
    ) -> None:
        self.model, self.config, self.pool, self.sharding = model, config, pool, sharding
        matrices = [
            p for name, p in model.named_parameters() if p.dim() == 2 and name.startswith("blocks.")
        ]
        rest = [
            p
            for name, p in model.named_parameters()
            if not (p.dim() == 2 and name.startswith("blocks."))
        ]
        self.stacks = stacks_of(matrices, sharding) if config.matrix_optimizer == "muon" else []
        # Made once here: a compiled graph cannot be traced through a Stack that is made inside it.
        self._stack_parts = [
            stack.part(part) for stack in self.stacks for part in pool.slices(len(stack.parameters))
        ]
        # Gains and the embedding are never decayed; Muon decays its own matrices in `update_`.
        decayed = [] if self.stacks else [{"params": matrices, "weight_decay": config.weight_decay}]
        self.adamw = torch.optim.AdamW(
            [{"params": rest, "weight_decay": 0.0}, *decayed],
            lr=config.adamw_lr,
            betas=(config.adamw_beta1, config.adamw_beta2),
            eps=1e-10,
            fused=True,
        )
        # Each process projects the parts that it holds: no mean crosses a split (see sharding.py).
        projected = projected_weights(model) if model.config.centred else []
        self._projected = [
            replace(one, weight=local_part(one.weight.detach(), sharding)) for one in projected
        ]
        # A tensor, because a new Python number would compile the graph again at each step.
        self._muon_lr = torch.zeros((), device=matrices[0].device)
        # With sharding only the iterations are compiled (model/sharding.py): the rest is exchange.
        one_graph = compiled and sharding is None
        self._finish = (
            torch.compile(self._muon_and_centre, dynamic=False, fullgraph=True)
            if one_graph
            else self._muon_and_centre
        )
        self._names: dict[Tensor, str] = {
            parameter: name for name, parameter in model.named_parameters()
        }

    @torch.no_grad()
    def step(self, lr_fraction: float) -> Tensor:
        """Apply the gradients at `lr_fraction` of the peak rates, and clear them.

        Returns the global gradient norm before clipping, a scalar on the device.
        """
        norm = self._clipped_norm()
        # AdamW stays torch's fused kernel: it is one pass over memory already.
        for group in self.adamw.param_groups:
            group["lr"] = self.config.adamw_lr * lr_fraction
        self.adamw.step()
        self._muon_lr.fill_(self.config.muon_lr * lr_fraction)
        self._finish()
        self.model.zero_grad(set_to_none=True)
        return norm

    def _clipped_norm(self) -> Tensor:
        if self.sharding is None:
            parameters = list(self.model.parameters())
            if self.config.grad_clip is None:
                return total_norm(parameters)
            return nn.utils.clip_grad_norm_(parameters, self.config.grad_clip)
        gradients = [
            self.sharding.local(p.grad) for p in self.model.parameters() if p.grad is not None
        ]
        norm = self.sharding.total_norm(gradients)
        if self.config.grad_clip is not None:
            # As clip_grad_norm_ does, but by the norm over all processes.
            scale = torch.clamp(self.config.grad_clip / (norm + 1e-6), max=1.0)
            for gradient in gradients:
                gradient.mul_(scale)
        return norm

    def _muon_and_centre(self) -> None:
        self.pool.map(lambda part: part.update_(self._muon_lr, self.config), self._stack_parts)
        project_(self._projected)

    def state(self) -> dict[str, Tensor]:
        """Momenta and moments by name, sharing memory with the optimizer."""
        tensors = {f"muon.{stack.name}": stack.state() for stack in self.stacks}
        for parameter, state in self.adamw.state.items():
            tensors.update(
                {f"adamw.{self._names[parameter]}.{key}": value for key, value in state.items()}
            )
        return tensors

    def blank_state(self) -> dict[str, Tensor]:
        """Zeros in the form of `state()`, for a reader to fill. Works before the first step."""
        tensors = {f"muon.{stack.name}": torch.zeros_like(stack.state()) for stack in self.stacks}
        for group in self.adamw.param_groups:
            for parameter in group["params"]:
                prefix = f"adamw.{self._names[parameter]}."
                tensors[f"{prefix}step"] = torch.zeros((), device=parameter.device)
                tensors.update(
                    {
                        prefix + key: torch.zeros_like(parameter.detach())
                        for key in ("exp_avg", "exp_avg_sq")
                    }
                )
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take over `tensors`. Raises BadInput where they belong to another configuration."""
        try:
            for stack in self.stacks:
                stack.momentum_NOI.copy_(local_part(tensors[f"muon.{stack.name}"], self.sharding))
            # Set by hand: torch's own `load_state_dict` knows parameters by number and not by name.
            for group in self.adamw.param_groups:
                for parameter in group["params"]:
                    prefix = f"adamw.{self._names[parameter]}."
                    state = {
                        key: tensors[prefix + key] for key in ("step", "exp_avg", "exp_avg_sq")
                    }
                    self.adamw.state[parameter] = {
                        k: v.to(parameter.device) for k, v in state.items()
                    }
        except KeyError as error:
            raise BadInput(
                f"the optimizer state has no {error.args[0]}: it belongs to another configuration"
            ) from None


def total_norm(parameters: list[nn.Parameter]) -> Tensor:
    """Global norm of the gradients, on the device. The host does not wait for it."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
