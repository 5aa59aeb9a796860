"""Recorded answers against the answers that the same weights give now.

Texts are compared as they are, likelihoods option by option, and both are judged by the rules of
the scores. Greedy decoding takes the likeliest token, and two machines round differently: of two
tokens that are nearly as likely each machine may take another one, and from there on the texts have
nothing in common. So a text that differs is read by the model token by token (`greedy_gap`), which
tells a near tie from a text that the model would not generate. Does not decide how many differences
are too many: release/ask.py does. docs/decisions/0027 has the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import torch

from picochat.data.benchmarks.stage import BenchmarkItem
from picochat.evals.eval_records import EvaluatedItem, EvaluatedRow
from picochat.evals.external import Rule, is_usable
from picochat.evals.gpt_answerer import GptAnswerer
from picochat.evals.scores import judge
from picochat.model.gpt import GPT
from picochat.skills.scoring import choice_candidates
from picochat.skills.task_rows import EvalRow
from picochat.tokens.chat_format import row_prompt
from picochat.tokens.tokenizer import Tokenizer

SHOWN_CHARACTERS = 90
READS_PER_TOKEN = 4
"""Forward passes of the search for another spelling, for each token of the longest reply."""
INCOMPLETE_CHARACTER = "\ufffd"
"""What `decode` gives for a last character of which bytes are still missing."""

Likelihoods = Sequence[float] | None


@dataclass(frozen=True)
class ModelRunner:
    """A model and the settings that it is asked with.

    limit_nats: how far below the likeliest token another one still counts as a near tie.
    """

    model: GPT
    tokenizer: Tokenizer
    max_new_tokens: int
    limit_nats: float
    dtype: torch.dtype

    @property
    def answerer(self) -> GptAnswerer:
        return GptAnswerer(self.model, self.tokenizer, self.dtype)

    def is_full(self, prompt: Sequence[int], reply: Sequence[int]) -> bool:
        """Whether the reply ends here for lack of room, without an end of turn."""
        return (
            len(reply) >= self.max_new_tokens
            or len(prompt) + len(reply) >= self.model.config.context
        )


@dataclass(frozen=True)
class Comparison:
    """The recorded answers to one question and the answers now, of chat and base model.

    equal: the same texts, and likelihoods within the limit. mismatch: the weights do not give the
    recorded answer, however it is rounded. note: what differs; empty where nothing does.
    """

    name: str
    equal: bool
    mismatch: bool
    judged_alike: bool
    note: str


def compare_reply(
    name: str,
    row: EvalRow,
    stated: EvaluatedRow,
    now: EvaluatedRow,
    chat: ModelRunner,
    base: ModelRunner,
) -> Comparison:
    """Compare both models' recorded replies to a row with those that they give now."""
    found = [
        _compare_texts(
            "the chat model",
            row,
            chat,
            (stated.reply, stated.log_likelihoods),
            (now.reply, now.log_likelihoods),
        )
    ]
    if stated.base_reply is not None and now.base_reply is not None:
        found.append(
            _compare_texts(
                "the base model",
                row,
                base,
                (stated.base_reply, stated.base_log_likelihoods),
                (now.base_reply, now.base_log_likelihoods),
            )
        )
    before, after = judge(row, stated), judge(row, now)
    verdicts = [
        ("", before.passed, after.passed),
        (" of the base model", bool(before.base_passed), bool(after.base_passed)),
    ]
    judged = [f"judged {_word(a)}{whose}, now {_word(b)}" for whose, a, b in verdicts if a != b]
    notes = [note for _, note in found if note]
    return Comparison(
        name,
        equal=not notes,
        mismatch=any(mismatch for mismatch, _ in found),
        judged_alike=not judged,
        note="; ".join([*notes, *judged]),
    )


def compare_item(
    name: str,
    item: BenchmarkItem,
    right: Rule,
    tokens: Sequence[int],
    stated: EvaluatedItem,
    now: EvaluatedItem,
    limit_nats: float,
) -> Comparison:
    """Compare both models' recorded likelihoods of a benchmark item with those of now.

    tokens: of each option. The likelihoods are sums, so the limit of an option grows with them.
    """
    limits = [limit_nats * max(1, count) for count in tokens]
    pairs = (
        ("the chat model", stated.log_likelihoods, now.log_likelihoods),
        ("the base model", stated.base_log_likelihoods, now.base_log_likelihoods),
    )
    notes = [_likelihoods_note(who, a, b) for who, a, b in pairs if not _within(a, b, limits)]
    if (stated.cut, stated.too_long) != (now.cut, now.too_long):
        notes.append("other options are too long for the context")
    judged: list[str] = []
    for who, *both in pairs:
        a, b = (
            found is not None and is_usable(item, found) and right(item, found) for found in both
        )
        if a != b:
            judged.append(f"{who}: judged {_word(a)}, now {_word(b)}")
    return Comparison(
        name,
        equal=not notes and not judged,
        mismatch=bool(notes),
        judged_alike=not judged,
        note="; ".join([*notes, *judged]),
    )


def likelihood_gaps(stated: Likelihoods, now: Likelihoods, tokens: Sequence[int]) -> list[float]:
    """Nats a token between the recorded likelihood of each option and that of now.

    tokens: of each option. Empty where either side has none; NaN counts as infinity.
    """
    if stated is None or now is None:
        return []
    gaps = [abs(a - b) / max(1, count) for a, b, count in zip(stated, now, tokens, strict=False)]
    return [math.inf if math.isnan(gap) else gap for gap in gaps]


def option_tokens(row: EvalRow, tokenizer: Tokenizer) -> list[int]:
    """The number of tokens of each option of a choice."""
    return [len(tokenizer.encode(text)) for text in choice_candidates(row)]


def _compare_texts(
    who: str,
    row: EvalRow,
    runner: ModelRunner,
    stated: tuple[str, Likelihoods],
    now: tuple[str, Likelihoods],
) -> tuple[bool, str]:
    """(whether it is a mismatch, what differs) of one model's reply to a row."""
    if stated[1] is not None or now[1] is not None:
        tokens = option_tokens(row, runner.tokenizer)
        limits = [runner.limit_nats * max(1, count) for count in tokens]
        if not _within(stated[1], now[1], limits):
            return True, _likelihoods_note(who, stated[1], now[1])
        if stated[0] == now[0]:
            return False, ""
        return False, f"{who}: {_both_texts(stated[0], now[0])} (options nearly as likely)"
    if stated[0] == now[0]:
        return False, ""
    # A row that does not fit was not asked. A reply that is stated all the same is looked at behind
    # as much of the prompt as fits.
    prompt = row_prompt(runner.tokenizer, row)[-(runner.model.config.context - 1) :]
    gap = greedy_gap(runner, prompt, stated[0])
    why = (
        "not what it says, however it is rounded" if gap is None else f"a near tie, {gap:.2g} nats"
    )
    return gap is None, f"{who}: {_both_texts(stated[0], now[0])} ({why})"


def _within(stated: Likelihoods, now: Likelihoods, limits: Sequence[float]) -> bool:
    """Whether each pair differs by its limit at most. NaN is within no limit."""
    if stated is None or now is None:
        return stated is now
    return len(stated) == len(now) and all(
        abs(a - b) <= limit for a, b, limit in zip(stated, now, limits, strict=True)
    )


def _likelihoods_note(who: str, stated: Likelihoods, now: Likelihoods) -> str:
    if stated is None or now is None or len(stated) != len(now):
        return (
            f"{who}: likelihoods of {len(stated or ())} options are recorded, it gives"
            f" {len(now or ())}"
        )
    worst = max(
        range(len(stated)),
        key=lambda n: abs(stated[n] - now[n]) if math.isfinite(stated[n]) else math.inf,
    )
    return (
        f"{who}: option {worst + 1} is recorded with {stated[worst]:.6g} nats, it gives"
        f" {now[worst]:.6g}"
    )


def _both_texts(stated: str, now: str) -> str:
    """Both texts, shortened, from a little before the first character that differs."""
    same = next(
        (n for n, (a, b) in enumerate(zip(stated, now, strict=False)) if a != b),
        min(len(stated), len(now)),
    )
    start = max(0, same - SHOWN_CHARACTERS // 3)
    shown = [
        ("..." if start else "") + text[start : start + SHOWN_CHARACTERS] for text in (stated, now)
    ]
    return f"recorded {shown[0]!r}, says {shown[1]!r}"


def _word(passed: bool) -> str:
    return "passed" if passed else "failed"


# ---- could the model have generated this text ----------------------------------------------------


@torch.no_grad()
def greedy_gap(runner: ModelRunner, prompt: Sequence[int], text: str) -> float | None:
    """How many nats the tokens of `text` fall short of the likeliest ones, at most.

    0: greedy decoding generates `text` here. None: more than the limit, however it is spelled. The
    end of turn behind the text counts as one of its tokens. prompt: as it was asked, without its
    beginning where it is too long.
    """
    # Replies are kept as text, and a model need not spell a text as the tokenizer does. The usual
    # spelling is tried first, because it takes one forward pass; the search takes hundreds.
    gap = _usual_gap(runner, prompt, text)
    if gap is not None and gap <= runner.limit_nats:
        return gap
    return _searched_gap(runner, prompt, text)


def _usual_gap(runner: ModelRunner, prompt: Sequence[int], text: str) -> float | None:
    """The gap of the text as the tokenizer spells it; None where no reply can be that long."""
    reply = runner.tokenizer.encode(text)
    context = runner.model.config.context
    if len(reply) > runner.max_new_tokens or len(prompt) + len(reply) > context:
        return None
    end = [] if runner.is_full(prompt, reply) else [runner.tokenizer.end]
    ids = [*prompt, *reply, *end]
    gaps_TV = _gaps_to_likeliest(runner, ids[:-1])[len(prompt) - 1 :]
    targets_T = torch.tensor(ids[len(prompt) :], device=gaps_TV.device)
    return float(gaps_TV.gather(1, targets_T[:, None]).max())


def _searched_gap(runner: ModelRunner, prompt: Sequence[int], text: str) -> float | None:
    """The smallest gap of any spelling of the text within the limit; None where there is none.

    Best-first search: the prefix with the smallest gap is extended next, and among equal ones the
    longest, so the first complete spelling that is taken from the heap has the smallest gap.
    """
    prefixes: list[tuple[float, int, list[int]]] = [(0.0, 0, [])]
    # Bounded: with near ties at every token the number of spellings grows exponentially.
    for _ in range(READS_PER_TOKEN * runner.max_new_tokens):
        if not prefixes:
            return None
        gap, _, reply = heappop(prefixes)
        if runner.is_full(prompt, reply) or runner.tokenizer.end in reply[-1:]:
            if runner.tokenizer.decode(reply) == text:
                return gap
            continue
        for token, token_gap in _near_ties(runner, [*prompt, *reply]):
            longer = [*reply, token]
            is_end = token == runner.tokenizer.end
            if _can_become(runner.tokenizer.decode(longer), text, whole=is_end):
                heappush(prefixes, (max(gap, token_gap), -len(longer), longer))
    return None


def _near_ties(runner: ModelRunner, ids: Sequence[int]) -> Iterator[tuple[int, float]]:
    """(token, nats below the likeliest) of every next token within the limit."""
    gaps_V = _gaps_to_likeliest(runner, ids, newest_only=True)[-1]
    for token in (gaps_V <= runner.limit_nats).nonzero()[:, 0].tolist():
        yield token, float(gaps_V[token])


def _gaps_to_likeliest(
    runner: ModelRunner, ids: Sequence[int], *, newest_only: bool = False
) -> torch.Tensor:
    """(T, V): how many nats each next token is below the likeliest, after each of the ids.

    newest_only: after the last id alone.
    """
    ids_BT = torch.tensor([list(ids)], device=runner.model.embedding.weight.device)
    logits_TV = runner.model(ids_BT, runner.dtype, newest_only=newest_only)[0].float()
    # Differences of logits are differences of log-probabilities: the normalizer cancels.
    return logits_TV.max(dim=-1, keepdim=True).values - logits_TV


def _can_become(prefix: str, text: str, *, whole: bool) -> bool:
    """Whether `text` starts with the prefix, or equals it where the reply ends here."""
    return prefix == text if whole else text.startswith(prefix.rstrip(INCOMPLETE_CHARACTER))
