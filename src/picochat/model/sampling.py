"""Replies and likelihoods from a model, many rows at a time.

Rows are padded on the left and share one cache; a row that has ended is taken out at once, so short replies do not wait
for long ones. Greedy decoding gives the same tokens as one row at a time (tested). Continuation likelihoods are padded on
the right and need no cache. Sampling with a temperature is not here yet.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from picochat.model.gpt import GPT, IGNORED_TARGET, Cache


@torch.no_grad()
def greedy_replies(
    model: GPT, prompts: Sequence[Sequence[int]], *, end: int, max_new_tokens: int, dtype: torch.dtype = torch.float32
) -> list[list[int]]:
    """For each prompt the most likely tokens until `end` (left out), `max_new_tokens` or the context is full."""
    device = model.embedding.weight.device
    longest = max(len(prompt) for prompt in prompts)
    offset_B = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
    ids_BT = torch.tensor([[end] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    cache = Cache(torch.arange(longest, device=device)[None, :] >= offset_B[:, None], offset_B)
    alive = list(range(len(prompts)))
    replies: list[list[int]] = [[] for _ in prompts]
    logits_BV = model(ids_BT, dtype, cache)[:, -1]
    for _ in range(max_new_tokens):
        tokens = logits_BV.argmax(dim=-1).tolist()
        kept = [slot for slot, token in enumerate(tokens) if token != end]
        for slot in kept:
            replies[alive[slot]].append(tokens[slot])
        kept = [slot for slot in kept if len(prompts[alive[slot]]) + len(replies[alive[slot]]) < model.config.context]
        if not kept:
            break
        if len(kept) < len(alive):
            _keep(cache, torch.tensor(kept, device=device))
            alive = [alive[slot] for slot in kept]
        cache.valid_BS = torch.nn.functional.pad(cache.valid_BS, (0, 1), value=True)
        next_B1 = torch.tensor([[replies[row][-1]] for row in alive], device=device)
        logits_BV = model(next_B1, dtype, cache)[:, -1]
    return replies


def _keep(cache: Cache, slots: Tensor) -> None:
    cache.valid_BS, cache.offset_B = cache.valid_BS[slots], cache.offset_B[slots]
    cache.keys = [key[slots] for key in cache.keys]
    cache.values = [value[slots] for value in cache.values]


@torch.no_grad()
def continuation_log_likelihoods(
    model: GPT, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], *, dtype: torch.dtype = torch.float32
) -> list[float]:
    """For each (prompt ids, continuation ids) the summed log-probability of the continuation, in nats."""
    device = model.embedding.weight.device
    length = max(len(prompt) + len(continuation) for prompt, continuation in pairs) - 1
    ids_BT = torch.zeros(len(pairs), length, dtype=torch.long)
    targets_BT = torch.full((len(pairs), length), IGNORED_TARGET)
    for row, (prompt, continuation) in enumerate(pairs):
        whole = torch.tensor([*prompt, *continuation])
        ids_BT[row, : len(whole) - 1] = whole[:-1]
        targets_BT[row, len(prompt) - 1 : len(whole) - 1] = whole[len(prompt) :]
    logits_BTV = model(ids_BT.to(device), dtype).float()
    loss_BT = torch.nn.functional.cross_entropy(
        logits_BTV.transpose(1, 2), targets_BT.to(device), ignore_index=IGNORED_TARGET, reduction="none"
    )
    return (-loss_BT.double().sum(dim=1)).tolist()
