"""External benchmarks: the log-likelihood of every option, and the scores that follow from them.

The rules are those of lm-evaluation-harness, so that the harness gives the same numbers for the
exported model with `add_bos_token=True`: BOS, context, a space and the option are one text; the
tokens of the option are those behind the tokens of the context alone; blanks that end a context
belong to the option; what exceeds the model's context loses its beginning. There is no chat
template: published figures are of plain text, and the base model has never seen a template.

Two accuracies: `acc` takes the option with the largest summed log-likelihood, `acc_norm` the one
with the largest sum divided by the option's characters (not bytes, not tokens). Scoring needs
neither the models nor the texts of the benchmark, and importing this module needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from picochat.config import EvalConfig
from picochat.core.progress import Progress
from picochat.data.benchmarks.layouts import BenchmarkRow
from picochat.data.benchmarks.stage import BenchmarkItem
from picochat.evals.answerer import Answerer
from picochat.evals.eval_records import LIKELIHOOD_DIGITS, EvaluatedItem
from picochat.evals.intervals import rate
from picochat.facts import BenchmarkFacts, ExternalScore, Rate

MOST_LOGITS = 1 << 28
"""Numbers in the logits of one batch: a gigabyte in float32."""

LogLikelihoods = Sequence[float]
Rule = Callable[[BenchmarkItem, LogLikelihoods], bool]


# ---- log-likelihoods -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A context and one option as tokens.

    cut: the context lost its beginning. too_long: nothing of the context is left.
    """

    row: int
    option: int
    context: list[int]
    continuation: list[int]
    cut: bool
    too_long: bool

    def __len__(self) -> int:
        return len(self.context) + len(self.continuation)


def ask_benchmark(
    name: str,
    rows: Sequence[BenchmarkRow],
    chat: Answerer,
    base: Answerer | None,
    evals: EvalConfig,
) -> list[EvaluatedItem]:
    """Both models' log-likelihoods of every option of every row, in the order of the rows.

    base: a model with the tokenizer and the context of `chat`; None: there is none to ask.
    """
    pairs = [pair for number, row in enumerate(rows) for pair in pairs_of(number, row, chat)]
    too_long = {pair.row for pair in pairs if pair.too_long}
    possible = [pair for pair in pairs if pair.row not in too_long]
    cut = {pair.row for pair in pairs if pair.cut}
    of_chat = _likelihoods(chat, possible, rows, evals, f"{name}, chat model")
    of_base = _likelihoods(base, possible, rows, evals, f"{name}, base model") if base else None
    return [
        EvaluatedItem(
            id=row.id,
            benchmark=name,
            log_likelihoods=of_chat[number],
            base_log_likelihoods=of_base[number] if of_base else None,
            cut=number in cut,
            too_long=number in too_long,
        )
        for number, row in enumerate(rows)
    ]


def pairs_of(number: int, row: BenchmarkRow, answerer: Answerer) -> Iterator[Pair]:
    """One pair for each option of the row."""
    context = row.context.rstrip()
    blanks = row.context[len(context) :]
    read = answerer.encode(context)
    start = [] if answerer.bos is None else [answerer.bos]
    for option, text in enumerate(row.options):
        # Encoded as one text, as the harness does: merges across the boundary are kept, so the
        # option is not spelled as it would be alone.
        whole = answerer.encode(f"{context}{blanks} {text}")
        continuation = whole[len(read) :]
        before = [*start, *whole[: len(read)]]
        room = answerer.context + 1 - len(continuation)  # the last token is only ever a target
        yield Pair(
            number,
            option,
            before[-room:] if room > 0 else [],
            continuation,
            room < len(before),
            room <= 0,
        )


def _likelihoods(
    answerer: Answerer,
    pairs: Sequence[Pair],
    rows: Sequence[BenchmarkRow],
    evals: EvalConfig,
    label: str,
) -> list[list[float] | None]:
    """For each row the sum of each option; None where one of them is missing or not finite."""
    found = [[math.nan] * len(row.options) for row in rows]
    most_tokens = min(
        max(1, evals.batch_rows // 4) * answerer.context, MOST_LOGITS // answerer.vocab_size
    )
    with Progress(label, len(pairs), "options") as progress:
        for batch in batches(pairs, most_tokens):
            sums = answerer.continuation_log_likelihoods(
                [(pair.context, pair.continuation) for pair in batch]
            )
            for pair, total in zip(batch, sums, strict=True):
                if math.isfinite(total):
                    found[pair.row][pair.option] = round(total, LIKELIHOOD_DIGITS)
            progress.advance(len(batch))
    return [sums if all(map(math.isfinite, sums)) else None for sums in found]


def batches(pairs: Sequence[Pair], most_tokens: int) -> Iterator[list[Pair]]:
    """Batches of pairs of similar length, of at most `most_tokens` tokens with padding.

    The longest come first, so that a batch that exceeds the memory fails at once and not after
    minutes.
    """
    batch: list[Pair] = []
    for pair in sorted(pairs, key=lambda pair: (-len(pair), pair.row, pair.option)):
        if batch and (len(batch) + 1) * len(batch[0]) > most_tokens:
            yield batch
            batch = []
        batch.append(pair)
    if batch:
        yield batch


# ---- scores --------------------------------------------------------------------------------------


def external_scores_of(
    benchmarks: Mapping[str, BenchmarkFacts],
    items: Sequence[BenchmarkItem],
    asked: Sequence[EvaluatedItem],
    contaminated: Mapping[str, Collection[str]],
) -> dict[str, ExternalScore]:
    """The score of each benchmark by its name.

    items: every item that must have been asked. contaminated: by benchmark, the ids of items that
    the contamination scan found.
    """
    by_id = {answer.id: answer for answer in asked}
    return {
        name: _score(
            facts,
            [item for item in items if item.benchmark == name],
            by_id,
            set(contaminated.get(name, ())),
        )
        for name, facts in benchmarks.items()
    }


def _score(
    facts: BenchmarkFacts,
    items: Sequence[BenchmarkItem],
    asked: Mapping[str, EvaluatedItem],
    contaminated: Collection[str],
) -> ExternalScore:
    of_chat = {item.id: asked[item.id].log_likelihoods for item in items if item.id in asked}
    of_base = {item.id: asked[item.id].base_log_likelihoods for item in items if item.id in asked}
    too_long = {item.id for item in items if item.id in asked and asked[item.id].too_long}
    read = is_right_norm if facts.read_by == "acc_norm" else is_right
    rows = items if len(items) == facts.rows else []
    verdicts = _verdicts(rows, of_chat, too_long, read)
    clean = [verdicts[item.id] for item in rows if item.id not in contaminated] if verdicts else []
    return ExternalScore(
        all=_rate(verdicts.values()),
        clean=_rate(clean),
        chance=facts.chance,
        base=_rate(_verdicts(rows, of_base, too_long, read).values()),
        read_by=facts.read_by,
        acc=_rate(_verdicts(rows, of_chat, too_long, is_right).values()),
        acc_norm=_rate(_verdicts(rows, of_chat, too_long, is_right_norm).values()),
        cut_rows=sum(item.id in asked and asked[item.id].cut for item in items),
        too_long_rows=len(too_long),
    )


def is_right(item: BenchmarkItem, log_likelihoods: LogLikelihoods) -> bool:
    """Whether the correct option has the largest sum. Of equal options the first counts."""
    return _largest(log_likelihoods) == item.correct


def is_right_norm(item: BenchmarkItem, log_likelihoods: LogLikelihoods) -> bool:
    """Whether the correct option has the largest sum per character."""
    per_character = [
        found / count for found, count in zip(log_likelihoods, item.characters, strict=True)
    ]
    return _largest(per_character) == item.correct


def _verdicts(
    items: Sequence[BenchmarkItem],
    found: Mapping[str, LogLikelihoods | None],
    too_long: Collection[str],
    right: Rule,
) -> dict[str, bool]:
    """Item id -> whether it is right; empty where one of the items cannot be judged.

    A rate over the items that are left would depend on which ones failed, so a benchmark is
    measured as a whole or not at all (docs/decisions/0024).
    """
    verdicts: dict[str, bool] = {}
    for item in items:
        likelihoods = found.get(item.id)
        if item.id in too_long:
            verdicts[item.id] = False
        elif likelihoods is not None and is_usable(item, likelihoods):
            verdicts[item.id] = right(item, likelihoods)
        else:
            return {}
    return verdicts


def is_usable(item: BenchmarkItem, log_likelihoods: LogLikelihoods) -> bool:
    """Whether there is a finite number for each option."""
    return len(log_likelihoods) == len(item.characters) and all(
        math.isfinite(number) for number in log_likelihoods
    )


def _rate(verdicts: Collection[bool]) -> Rate:
    return rate(sum(verdicts), len(verdicts))


def _largest(numbers: Sequence[float]) -> int:
    return max(range(len(numbers)), key=numbers.__getitem__)
