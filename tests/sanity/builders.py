"""What the sanity tests are run on here: this CPU, and parts of which one is wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from picochat.config import RuntimeConfig
from picochat.model.gpt import GPT, Cache, Shares, initialise
from picochat.model.runtime import open_runtime
from picochat.sanity.context import SMALL, VOCAB, Context, Parts, SanityResult, small_model
from picochat.sanity.suite import SANITY, run_sanity
from picochat.scales import Scale
from picochat.tokens.row_order import Indices, rows_of_step
from picochat.train.loader import Batch, DeviceLoader

CPU = torch.device("cpu")


def make_context(
    *,
    include_compile: bool = False,
    scale: Scale | None = None,
    parts: Parts | None = None,
    precision: str = "float32",
    min_free_fraction: float = 0.0,
) -> Context:
    runtime = RuntimeConfig.model_validate({"threads": 1, "precision": precision})
    return Context(
        open_runtime(runtime, SMALL),
        runtime,
        include_compile,
        scale,
        1,
        min_free_fraction,
        gpu_hour_usd=3.0,
        parts=parts or Parts(),
    )


def result_of(name: str, context: Context) -> SanityResult:
    """The result of one test of the suite."""
    table = tuple(test for test in SANITY if test.name == name)
    (result,) = run_sanity(context, lambda _: None, table)
    return result


class Wrong(GPT):
    """The small model with one fault, which `fault` names."""

    def __init__(self, seed: int, fault: str) -> None:
        super().__init__(SMALL, VOCAB)
        self.load_state_dict(small_model(seed).state_dict())
        self.fault, self.calls = fault, 0

    def forward(
        self, ids_BT: Tensor, dtype: torch.dtype = torch.float32, cache: Cache | None = None
    ) -> Tensor:
        logits = super().forward(ids_BT, dtype, cache)
        if self.fault == "loud":
            return 100 * logits
        if self.fault == "blurred" and self.embedding.weight.dtype == torch.float32:
            return 1.01 * logits
        if self.fault == "wrong gradient" and self.embedding.weight.dtype == torch.float32:
            # Equal logits: only the backward pass is another one.
            return logits + 0.05 * (logits - logits.detach())
        if self.fault == "cache" and cache is not None and ids_BT.shape[1] == 1:
            return 1.01 * logits
        if self.fault == "cache of padded rows" and cache is not None and ids_BT.shape[1] == 1:
            return logits * torch.tensor([[[1.0]], [[torch.nan]]])
        return logits

    def loss_sum(
        self,
        ids_BT: Tensor,
        targets_BT: Tensor,
        dtype: torch.dtype = torch.float32,
        shares: Shares | None = None,
    ) -> Tensor:
        loss = super().loss_sum(ids_BT, targets_BT, dtype, shares)
        self.calls += 1
        if self.fault == "no number":
            return loss * torch.nan
        if self.fault == "forgetful":  # depends on what a resumed process does not know
            return loss * (1 + 0.1 * self.calls)
        if self.fault == "no number later" and self.calls > 2:
            return loss * torch.nan
        if self.fault == "waits for a value" and loss.item() > 1e9:
            return loss * 0
        if self.fault == "waits for a shape":
            return loss + 0 * len(targets_BT.flatten().nonzero())
        if self.fault == "waits for a comparison" and torch.equal(ids_BT, targets_BT):
            return loss * 0
        return loss


def wrong(fault: str) -> Parts:
    """The package's parts with a model that has this fault."""
    return Parts(model=lambda seed: Wrong(seed, fault))


def uncentred(seed: int) -> GPT:
    model = GPT(SMALL.model_copy(update={"centred": False}), VOCAB)
    initialise(model, seed)
    return model


def some_rows_twice(step: int, rows: int, size: int, seed: int) -> Indices:
    found = rows_of_step(step, rows, size, seed)
    found[0] = found[1]
    return found


def one_order_for_all_epochs(step: int, rows: int, size: int, seed: int) -> Indices:
    """Each row once an epoch where epochs end with a step; here they do not."""
    steps = -(-size // rows)
    return rows_of_step(step % steps, rows, size, seed)


class SignedLoader(DeviceLoader):
    """Ids above 32,767 come out negative and are cut off, as 16 signed bits would give them."""

    def batch(self, step: int) -> Batch:
        batch = super().batch(step)
        return Batch(batch.ids_BT.clamp(max=0x7FFF), batch.targets_BT, batch.target_count)


class LateLoader(DeviceLoader):
    """Each target is the token itself instead of the one after it."""

    def batch(self, step: int) -> Batch:
        batch = super().batch(step)
        return Batch(batch.ids_BT, batch.ids_BT.clone(), batch.target_count)


class MiscountingLoader(DeviceLoader):
    """The right rows, with one target fewer than they have: the mean loss would be another."""

    def batch(self, step: int) -> Batch:
        batch = super().batch(step)
        return Batch(batch.ids_BT, batch.targets_BT, batch.target_count - 1)
