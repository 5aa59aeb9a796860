"""What a model makes of benchmark items: the log-likelihood of each option as what follows the
context. Facts, no scores.

The rules are lm-evaluation-harness's, so that both give the same numbers on the exported model with
`add_bos_token=True`: context, a space, the option, as one text behind BOS; the option's tokens are
those behind the tokens of the context alone; blanks that end a context belong to the option; what
is longer than the model's context loses its beginning. There is no chat template: the published
figures are of plain text, and the base model, which stands beside, knows no other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from picochat.config import EvalConfig
from picochat.core.progress import Progress
from picochat.data.benchmarks.layouts import BenchmarkRow
from picochat.evals.record import LIKELIHOOD_DIGITS, ExternalAsked
from picochat.model.gpt import GPT
from picochat.model.sampling import continuation_log_likelihoods
from picochat.tokens.tokenizer import Tokenizer

MOST_LOGITS = 1 << 28
"""Numbers in the logits of one batch: a gigabyte in float32."""


@dataclass(frozen=True)
class Pair:
    """An option behind its context, as tokens.

    `cut`: the context lost its beginning. `too_long`: nothing of it is left.
    """

    row: int
    option: int
    context: list[int]
    continuation: list[int]
    cut: bool
    too_long: bool


def ask_benchmark(
    name: str,
    rows: Sequence[BenchmarkRow],
    chat: GPT,
    base: GPT,
    tokenizer: Tokenizer,
    evals: EvalConfig,
    dtype: torch.dtype,
) -> list[ExternalAsked]:
    """Both models' log-likelihoods of every option of every row, in the order of the rows."""
    pairs = [
        pair
        for number, row in enumerate(rows)
        for pair in pairs_of(number, row, tokenizer, chat.config.context)
    ]
    too_long = {pair.row for pair in pairs if pair.too_long}
    possible = [pair for pair in pairs if pair.row not in too_long]
    mine = _likelihoods(chat, possible, rows, evals, dtype, f"{name}, chat model")
    theirs = _likelihoods(base, possible, rows, evals, dtype, f"{name}, base model")
    cut = {pair.row for pair in pairs if pair.cut}
    return [
        ExternalAsked(
            id=row.id,
            benchmark=name,
            log_likelihoods=_whole(mine[number]),
            base_log_likelihoods=_whole(theirs[number]),
            cut=number in cut,
            too_long=number in too_long,
        )
        for number, row in enumerate(rows)
    ]


def pairs_of(
    number: int, row: BenchmarkRow, tokenizer: Tokenizer, context_tokens: int
) -> Iterator[Pair]:
    """One pair for each option of the row."""
    context = row.context.rstrip()
    blanks = row.context[len(context) :]
    read = tokenizer.encode(context)
    for option, text in enumerate(row.options):
        whole = tokenizer.encode(f"{context}{blanks} {text}")
        continuation = whole[len(read) :]
        before = [tokenizer.bos, *whole[: len(read)]]
        room = context_tokens + 1 - len(continuation)  # the last token is only ever a target
        yield Pair(
            number,
            option,
            before[-room:] if room > 0 else [],
            continuation,
            room < len(before),
            room <= 0,
        )


def _likelihoods(
    model: GPT,
    pairs: Sequence[Pair],
    rows: Sequence[BenchmarkRow],
    evals: EvalConfig,
    dtype: torch.dtype,
    label: str,
) -> list[list[float]]:
    """For each row the sum of each option; NaN for what is not among the pairs."""
    found = [[math.nan] * len(row.options) for row in rows]
    with Progress(label, len(pairs), "options") as progress:
        for batch in batches(pairs, batch_tokens(model, evals)):
            sums = continuation_log_likelihoods(
                model, [(pair.context, pair.continuation) for pair in batch], dtype=dtype
            )
            for pair, total in zip(batch, sums, strict=True):
                found[pair.row][pair.option] = (
                    round(total, LIKELIHOOD_DIGITS) if math.isfinite(total) else math.nan
                )
            progress.advance(len(batch))
    return found


def batch_tokens(model: GPT, evals: EvalConfig) -> int:
    """Tokens of one batch, padding included."""
    return min(
        max(1, evals.batch_rows // 4) * model.config.context,
        MOST_LOGITS // model.embedding.weight.shape[0],
    )


def batches(pairs: Sequence[Pair], most_tokens: int) -> Iterator[list[Pair]]:
    """The pairs in batches of similar length, the longest first: what does not fit the memory says
    so at once.
    """
    batch: list[Pair] = []
    for pair in sorted(pairs, key=lambda pair: (-_length(pair), pair.row, pair.option)):
        if batch and (len(batch) + 1) * _length(batch[0]) > most_tokens:
            yield batch
            batch = []
        batch.append(pair)
    if batch:
        yield batch


def _length(pair: Pair) -> int:
    return len(pair.context) + len(pair.continuation)


def _whole(sums: Sequence[float]) -> list[float] | None:
    return list(sums) if all(math.isfinite(number) for number in sums) else None
