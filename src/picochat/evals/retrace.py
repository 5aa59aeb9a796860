"""Could a model have said this? A text is followed token by token, also where rounding decides
between near ties.

Greedy decoding takes the likeliest token. Two machines round differently, so of two tokens that are
nearly as likely each may take the other one, and what follows is then another text. `gap_along`
tells such a text from one that the model would not say. It reads text and not tokens, since text is
what is kept of a reply: where its usual spelling fails, every other one is tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import torch

from picochat.model.gpt import GPT
from picochat.tokens.tokenizer import Tokenizer

READS_PER_TOKEN = 4
"""How many times as many tokens as the longest reply are tried before a text counts as one that
cannot be followed.
"""
BROKEN = "\ufffd"  # stands at the end of a text whose last character is not whole yet


@dataclass(frozen=True)
class Speaker:
    """A model and how it is asked.

    `limit_nats`: how far below the likeliest token one still counts as nearly as likely.
    """

    model: GPT
    tokenizer: Tokenizer
    max_new_tokens: int
    limit_nats: float
    dtype: torch.dtype

    def is_full(self, prompt: Sequence[int], said: Sequence[int]) -> bool:
        """Whether nothing can follow, so that the reply ends without an end of turn."""
        return (
            len(said) >= self.max_new_tokens or len(prompt) + len(said) >= self.model.config.context
        )


@torch.no_grad()
def gap_along(speaker: Speaker, prompt: Sequence[int], text: str) -> float | None:
    """By how many nats a token of `text`, end of turn included, falls short of the likeliest one in
    its place, at most.

    0: greedy decoding says `text` here. None: more than the limit, however it is spelled. prompt:
    as it was asked, its beginning cut where it is too long.
    """
    gap = _usual_gap(speaker, prompt, text)
    return (
        gap
        if gap is not None and gap <= speaker.limit_nats
        else _searched_gap(speaker, prompt, text)
    )


def _usual_gap(speaker: Speaker, prompt: Sequence[int], text: str) -> float | None:
    """The gap of the text as the tokenizer spells it, read at once; None where a reply cannot be
    that long.
    """
    said = speaker.tokenizer.encode(text)
    if len(said) > speaker.max_new_tokens or len(prompt) + len(said) > speaker.model.config.context:
        return None
    whole = (
        [*prompt, *said]
        if speaker.is_full(prompt, said)
        else [*prompt, *said, speaker.tokenizer.end]
    )
    shorts_TV = _shorts(speaker, whole[:-1])[len(prompt) - 1 :]
    targets_T = torch.tensor(whole[len(prompt) :], device=shorts_TV.device)
    return float(shorts_TV.gather(1, targets_T[:, None]).max())


def _searched_gap(speaker: Speaker, prompt: Sequence[int], text: str) -> float | None:
    """The smallest gap of any spelling.

    Best first: paths are followed in the order of their gaps.
    """
    paths: list[tuple[float, int, list[int]]] = [(0.0, 0, [])]
    for _ in range(READS_PER_TOKEN * speaker.max_new_tokens):
        if not paths:
            return None
        gap, _, said = heappop(paths)
        if speaker.is_full(prompt, said) or speaker.tokenizer.end in said[-1:]:
            if speaker.tokenizer.decode(said) == text:
                return gap
            continue
        for token, short in _near(speaker, [*prompt, *said]):
            longer = [*said, token]
            if _begins(
                speaker.tokenizer.decode(longer), text, whole=token == speaker.tokenizer.end
            ):
                heappush(paths, (max(gap, short), -len(longer), longer))
    return None


def _near(speaker: Speaker, ids: Sequence[int]) -> Iterator[tuple[int, float]]:
    """(token, nats below the likeliest) of every next token within the limit."""
    short_V = _shorts(speaker, ids, newest_only=True)[-1]
    for token in (short_V <= speaker.limit_nats).nonzero()[:, 0].tolist():
        yield token, float(short_V[token])


def _shorts(speaker: Speaker, ids: Sequence[int], *, newest_only: bool = False) -> torch.Tensor:
    """(T, V): after each token, or the last alone, how many nats every next one is below the
    likeliest.
    """
    ids_BT = torch.tensor([list(ids)], device=speaker.model.embedding.weight.device)
    logits_TV = speaker.model(ids_BT, speaker.dtype, newest_only=newest_only)[0].float()
    return logits_TV.max(dim=-1, keepdim=True).values - logits_TV


def _begins(said: str, text: str, *, whole: bool) -> bool:
    """Whether `text` can go on after `said`, or is `said` where the reply ends here."""
    return said == text if whole else text.startswith(said.rstrip(BROKEN))
