"""Greedy replies and log-likelihoods from a model, many rows at a time.

Rows are padded on the left and share one cache. Rows that have ended are taken out, so short
replies do not wait for long ones. A batch gives the same tokens as one row at a time (tested in
float32; in bf16 rounding may decide a near tie differently). Does not sample with a temperature.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from picochat.model.gpt import GPT, IGNORED_TARGET, Cache

LEAST_ALIVE = 0.75
"""Ended rows leave the cache when less than this fraction of its rows is still open.

They do not leave at once, because taking rows out copies the whole cache.
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

    A reply ends with `end`, after `max_new_tokens`, or where the context is full. end: -1 where no
    token ends a reply.
    """
    cache, ids_BT = _padded(model, prompts, max(end, 0), max_new_tokens)
    owners = list(range(len(prompts)))  # the prompt that each row of the batch belongs to
    open_prompts = set(owners)
    replies: list[list[int]] = [[] for _ in prompts]
    for _ in range(max_new_tokens):
        tokens_B = model(ids_BT, dtype, cache, newest_only=True)[:, -1].argmax(dim=-1)
        for prompt, token in zip(owners, tokens_B.tolist(), strict=True):
            if prompt in open_prompts and token != end:
                replies[prompt].append(token)
            if token == end or len(prompts[prompt]) + len(replies[prompt]) >= model.config.context:
                open_prompts.discard(prompt)
        if not open_prompts:
            break
        # Rows that have ended stay in the batch until here; what they generate is ignored above.
        if len(open_prompts) < LEAST_ALIVE * len(owners):
            rows = [row for row, prompt in enumerate(owners) if prompt in open_prompts]
            owners = [owners[row] for row in rows]
            kept = torch.tensor(rows, device=tokens_B.device)
            cache.take(kept)
            tokens_B = tokens_B[kept]
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

    The model reads a prompt once for all of its options. pad: any id of the vocabulary; padding
    does not change the result.
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
        # The last logits of the prompt score the first token of each option. To score the others,
        # the model reads the options after the prompt, whose cached row is copied for each option.
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
    """For each (prompt, continuation) the summed log-probability of the continuation, in nats.

    Prompts must not be empty.
    """
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
    """Summed log-probability of each row's targets: computed in float32, added up in float64."""
    loss_BT = torch.nn.functional.cross_entropy(
        logits_BTV.float().transpose(1, 2),
        targets_BT,
        ignore_index=IGNORED_TARGET,
        reduction="none",
    )
    return (-loss_BT.double().sum(dim=1)).tolist()


def _padded(model: GPT, prompts: Sequence[Ids], pad: int, more: int) -> tuple[Cache, Tensor]:
    """A cache with room for `more` positions after the prompts, and the ids, padded on the left."""
    device = model.embedding.weight.device
    longest = max(len(prompt) for prompt in prompts)
    offsets = [longest - len(prompt) for prompt in prompts]
    offset_B = torch.tensor(offsets, device=device)
    ids_BT = torch.tensor(
        [[pad] * offset + list(prompt) for offset, prompt in zip(offsets, prompts, strict=True)],
        device=device,
    )
    valid_BS = torch.arange(longest, device=device)[None, :] >= offset_B[:, None]
    return Cache(valid_BS, offset_B, longest + more), ids_BT


def _grow(cache: Cache, positions: int) -> None:
    cache.valid_BS = torch.nn.functional.pad(cache.valid_BS, (0, positions), value=True)
