"""The optimizer step: Muon for the matrices of the blocks, AdamW for the rest, then centring.

Muon (Jordan et al. 2024) keeps a momentum and applies it with all singular values brought near one
(model/orthogonalize.py). Does not know the schedule: the caller passes each step's fraction of the
peak rate.

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

    A few batched products update a stack, instead of hundreds of small ones. sharding: set where
    each process holds some columns of each matrix and of its momentum. products: the dtype of the
    products that orthogonalize.
    """

    name: str
    parameters: list[nn.Parameter]
    momentum_NOI: Tensor
    sharding: Sharding | None = None
    products: torch.dtype = torch.float32

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
        # Nesterov momentum, as in the Muon reference.
        self.momentum_NOI.lerp_(grad, 1 - config.muon_momentum)
        nesterov = torch.lerp(grad, self.momentum_NOI, config.muon_momentum)
        made_by = self.sharding.orthogonalized if self.sharding else orthogonalize
        update = made_by(nesterov, self.products)
        # Tall matrices get larger updates, by sqrt(rows / columns), as in the reference.
        rows, columns = self.parameters[0].shape
        changes = (update * (lr * max(1.0, rows / columns) ** 0.5)).unbind()
        for parameter, change in zip(self.parameters, changes, strict=True):
            local_part(parameter, self.sharding).mul_(1 - lr * config.weight_decay).sub_(change)

    def state(self) -> Tensor:
        """The momenta (N, O, I): a DTensor over all processes where weights are sharded."""
        if self.sharding is None:
            return self.momentum_NOI
        return self.sharding.stacked(self.momentum_NOI, self.parameters[0].shape[1])


def local_part(tensor: Tensor, sharding: Sharding | None) -> Tensor:
    """The part of a tensor that this process holds; without sharding the whole tensor."""
    return sharding.local(tensor) if sharding else tensor


def stacks_of(
    parameters: list[nn.Parameter],
    sharding: Sharding | None = None,
    products: torch.dtype = torch.float32,
) -> list[Stack]:
    """The matrices grouped by shape, in order of first appearance, with momenta at zero."""
    groups: dict[str, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault("x".join(map(str, parameter.shape)), []).append(parameter)
    return [
        Stack(
            shape,
            group,
            torch.stack([torch.zeros_like(local_part(p.detach(), sharding)) for p in group]),
            sharding,
            products,
        )
        for shape, group in groups.items()
    ]


class Optimizer:
    """One step over the whole model, and its state as named tensors.

    compiled: compile Muon and the centring into one graph. pool: updates stacks in parallel on a
    CPU. sharding: set where each process holds a part of every weight. The state then consists of
    DTensors with the names and whole shapes of one process. products: the dtype of Muon's products,
    that of the model's own. Most CPUs only emulate bfloat16, and a step took eight times as long.
    """

    def __init__(
        self,
        model: GPT,
        config: TrainConfig,
        *,
        compiled: bool = False,
        pool: ThreadPool = ONE_THREAD,
        sharding: Sharding | None = None,
        products: torch.dtype = torch.float32,
    ) -> None:
        self.model, self.config, self.pool, self.sharding = model, config, pool, sharding
        matrices: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            is_matrix = parameter.dim() == 2 and name.startswith("blocks.")
            (matrices if is_matrix else rest).append(parameter)
        is_muon = config.matrix_optimizer == "muon"
        self.stacks = stacks_of(matrices, sharding, products) if is_muon else []
        # Made once here, because a compiled graph cannot create a Stack.
        self._stack_parts = [
            stack.part(part) for stack in self.stacks for part in pool.slices(len(stack.parameters))
        ]
        # Gains and the embedding have no weight decay. Muon decays its own matrices in `update_`.
        decayed = [] if self.stacks else [{"params": matrices, "weight_decay": config.weight_decay}]
        self.adamw = torch.optim.AdamW(
            [{"params": rest, "weight_decay": 0.0}, *decayed],
            lr=config.adamw_lr,
            betas=(config.adamw_beta1, config.adamw_beta2),
            eps=1e-10,
            fused=True,
        )
        # Each process projects its own parts: no mean crosses processes (model/sharding.py).
        projected = projected_weights(model) if model.config.centred else []
        self._projected = [
            replace(one, weight=local_part(one.weight.detach(), sharding)) for one in projected
        ]
        # A tensor, because each new Python number would compile the graph again.
        self._muon_lr = torch.zeros((), device=matrices[0].device)
        self._finish = self._muon_and_centre
        # With sharding, Muon exchanges columns between its products, so only the Newton-Schulz
        # iterations are compiled, in model/sharding.py.
        if compiled and sharding is None:
            self._finish = torch.compile(self._finish, dynamic=False, fullgraph=True)
        names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
        self._adamw_prefixes: dict[Tensor, str] = {
            p: f"adamw.{names[p]}." for group in self.adamw.param_groups for p in group["params"]
        }

    @torch.no_grad()
    def step(self, lr_fraction: float) -> Tensor:
        """Apply the gradients at `lr_fraction` of the peak rates, and clear them.

        Returns the global gradient norm before clipping, a scalar on the device.
        """
        norm = self._clipped_norm()
        # Not part of the compiled graph: torch's fused AdamW is one pass over memory already.
        for group in self.adamw.param_groups:
            group["lr"] = self.config.adamw_lr * lr_fraction
        self.adamw.step()
        self._muon_lr.fill_(self.config.muon_lr * lr_fraction)
        self._finish()
        self.model.zero_grad(set_to_none=True)
        return norm

    def _clipped_norm(self) -> Tensor:
        gradients = [
            local_part(p.grad, self.sharding) for p in self.model.parameters() if p.grad is not None
        ]
        if self.sharding is None:
            if self.config.grad_clip is None:
                return nn.utils.get_total_norm(gradients)
            return nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        norm = self.sharding.total_norm(gradients)
        if self.config.grad_clip is not None:
            # As torch's clip_grad_norm_, but by the norm over all processes.
            scale = torch.clamp(self.config.grad_clip / (norm + 1e-6), max=1.0)
            for gradient in gradients:
                gradient.mul_(scale)
        return norm

    def _muon_and_centre(self) -> None:
        self.pool.map(lambda part: part.update_(self._muon_lr, self.config), self._stack_parts)
        project_(self._projected)

    def state(self) -> dict[str, Tensor]:
        """Muon's momenta and AdamW's moments by name, sharing memory with the optimizer."""
        tensors = {f"muon.{stack.name}": stack.state() for stack in self.stacks}
        for parameter, state in self.adamw.state.items():
            prefix = self._adamw_prefixes[parameter]
            tensors.update({prefix + key: value for key, value in state.items()})
        return tensors

    def blank_state(self) -> dict[str, Tensor]:
        """Zeros with the names and shapes of `state()`, for a reader to fill.

        Works before the first step, when AdamW has no state yet.
        """
        tensors = {f"muon.{stack.name}": torch.zeros_like(stack.state()) for stack in self.stacks}
        for parameter, prefix in self._adamw_prefixes.items():
            tensors[f"{prefix}step"] = torch.zeros((), device=parameter.device)
            for key in ("exp_avg", "exp_avg_sq"):
                tensors[prefix + key] = torch.zeros_like(parameter.detach())
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Copy `tensors` in. Raises BadInput where they belong to another configuration."""
        try:
            for stack in self.stacks:
                stack.momentum_NOI.copy_(local_part(tensors[f"muon.{stack.name}"], self.sharding))
            # Set directly: AdamW's `load_state_dict` identifies parameters by number, not by name.
            for parameter, prefix in self._adamw_prefixes.items():
                self.adamw.state[parameter] = {
                    key: tensors[prefix + key].to(parameter.device)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                }
        except KeyError as error:
            raise BadInput(
                f"the optimizer state has no {error.args[0]}: it belongs to another configuration"
            ) from None
