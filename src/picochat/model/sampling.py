"""Replies and likelihoods from a model, many rows at a time.

Rows are padded on the left and share one cache; rows that have ended are taken out, so short
replies do not wait for long ones. Greedy decoding gives the same tokens as one row at a time
(tested in float32; in bf16 a near tie may fall the other way). Does not sample with a temperature.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from picochat.model.gpt import GPT, IGNORED_TARGET, Cache

LEAST_ALIVE = 0.75
"""Ended rows leave the cache when fewer than this fraction of its rows goes on.

Not at once, because taking rows out copies the whole cache.
"""
Ids = Sequence[int]


@torch.no_grad()
def greedy_replies(
    model: GPT,
    prompts: Sequence[Ids],
    *,
    end: int,
    max_new_tokens: int,
    dtype: torch.dtype = torch.float32,
) -> list[list[int]]:
    """For each prompt the greedy reply, without the token `end`.

    A reply ends with `end`, after `max_new_tokens`, or where the context is full.
    """
    cache, ids_BT = _padded(model, prompts, end, max_new_tokens)
    slots = list(range(len(prompts)))  # the prompt that each row of the batch belongs to
    open_rows = set(slots)
    replies: list[list[int]] = [[] for _ in prompts]
    for _ in range(max_new_tokens):
        tokens_B = model(ids_BT, dtype, cache, newest_only=True)[:, -1].argmax(dim=-1)
        for row, token in zip(slots, tokens_B.tolist(), strict=True):
            if row in open_rows and token != end:
                replies[row].append(token)
            if token == end or len(prompts[row]) + len(replies[row]) >= model.config.context:
                open_rows.discard(row)
        if not open_rows:
            break
        if len(open_rows) < LEAST_ALIVE * len(slots):
            kept = torch.tensor(
                [slot for slot, row in enumerate(slots) if row in open_rows], device=tokens_B.device
            )
            cache.take(kept)
            slots, tokens_B = [row for row in slots if row in open_rows], tokens_B[kept]
        _grow(cache, 1)
        ids_BT = tokens_B[:, None]
    return replies


@torch.no_grad()
def option_log_likelihoods(
    model: GPT,
    questions: Sequence[tuple[Ids, Sequence[Ids]]],
    *,
    pad: int,
    dtype: torch.dtype = torch.float32,
) -> list[list[float]]:
    """For each (prompt, options) the summed log-probability of each option, in nats.

    A prompt is read once for all of its options. pad: any id of the vocabulary; its positions count
    for nothing.
    """
    prompts = [prompt for prompt, _ in questions]
    options = [option for _, options in questions for option in options]
    most = max(len(option) for option in options)
    cache, ids_BT = _padded(model, prompts, pad, most)
    first_BV = model(ids_BT, dtype, cache, newest_only=True)[:, -1]
    owners = [question for question, (_, given) in enumerate(questions) for _ in given]
    rows = torch.tensor(owners, device=first_BV.device)
    logits_BTV = first_BV[rows][:, None]
    targets_BT = torch.full((len(options), most), IGNORED_TARGET)
    for row, option in enumerate(options):
        targets_BT[row, : len(option)] = torch.tensor(option)
    targets_BT = targets_BT.to(first_BV.device)
    if most > 1:
        # The prompt's last logits score each option's first token. The other tokens are read after
        # the prompt, whose cached row is copied for each of its options.
        cache.take(rows)
        _grow(cache, most - 1)
        read_BT = torch.where(targets_BT == IGNORED_TARGET, pad, targets_BT)[:, :-1]
        logits_BTV = torch.cat((logits_BTV, model(read_BT, dtype, cache)), dim=1)
    sums = iter(_summed(logits_BTV, targets_BT))
    return [[next(sums) for _ in given] for _, given in questions]


@torch.no_grad()
def continuation_log_likelihoods(
    model: GPT, pairs: Sequence[tuple[Ids, Ids]], *, dtype: torch.dtype = torch.float32
) -> list[float]:
    """For each (prompt, continuation) the summed log-probability of the continuation, in nats."""
    device = model.embedding.weight.device
    length = max(len(prompt) + len(continuation) for prompt, continuation in pairs) - 1
    ids_BT = torch.zeros(len(pairs), length, dtype=torch.long)
    targets_BT = torch.full((len(pairs), length), IGNORED_TARGET)
    for row, (prompt, continuation) in enumerate(pairs):
        whole = torch.tensor([*prompt, *continuation])
        ids_BT[row, : len(whole) - 1] = whole[:-1]
        targets_BT[row, len(prompt) - 1 : len(whole) - 1] = whole[len(prompt) :]
    return _summed(model(ids_BT.to(device), dtype), targets_BT.to(device))


def _summed(logits_BTV: Tensor, targets_BT: Tensor) -> list[float]:
    """Log-probability of each row's targets, in float32, summed in float64."""
    loss_BT = torch.nn.functional.cross_entropy(
        logits_BTV.float().transpose(1, 2),
        targets_BT,
        ignore_index=IGNORED_TARGET,
        reduction="none",
    )
    return (-loss_BT.double().sum(dim=1)).tolist()


def _padded(model: GPT, prompts: Sequence[Ids], pad: int, more: int) -> tuple[Cache, Tensor]:
    """An empty cache with room for `more` positions, and the prompts padded on the left."""
    device = model.embedding.weight.device
    longest = max(len(prompt) for prompt in prompts)
    offset_B = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
    ids_BT = torch.tensor(
        [[max(pad, 0)] * (longest - len(prompt)) + list(prompt) for prompt in prompts],
        device=device,
    )
    return (
        Cache(
            torch.arange(longest, device=device)[None, :] >= offset_B[:, None],
            offset_B,
            longest + more,
        ),
        ids_BT,
    )


def _grow(cache: Cache, positions: int) -> None:
    cache.valid_BS = torch.nn.functional.pad(cache.valid_BS, (0, positions), value=True)
