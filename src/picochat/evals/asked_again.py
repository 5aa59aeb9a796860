"""One question asked again: is what the model says now what was recorded, the same but for
rounding, or something else?

Replies are compared as texts, likelihoods option by option, and both are judged by the rules of the
scores. Does not decide how many differences are too many: release/ask.py does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from picochat.data.benchmarks.stage import BenchmarkItem
from picochat.evals.external_scores import Rule, is_usable
from picochat.evals.record import Asked, ExternalAsked
from picochat.evals.replies import row_prompt
from picochat.evals.retrace import Speaker, gap_along
from picochat.evals.scores import judge
from picochat.skills.task_rows import EvalRow

SHOWN_CHARACTERS = 90
Likelihoods = Sequence[float] | None


@dataclass(frozen=True)
class Answer:
    """One question's comparison, chat and base model together.

    equal: the same texts, likelihoods within the limit. apart: not what the weights say, beyond
    rounding. `told`: what differs.
    """

    name: str
    equal: bool
    apart: bool
    judged_alike: bool
    told: str


def compare_reply(
    name: str, row: EvalRow, stated: Asked, again: Asked, chat: Speaker, base: Speaker
) -> Answer:
    """What was recorded of a row against what both models say now."""
    told = [
        _reply_told(
            "the chat model",
            row,
            chat,
            (stated.reply, stated.log_likelihoods),
            (again.reply, again.log_likelihoods),
        )
    ]
    if stated.base_reply is not None and again.base_reply is not None:
        pair = (
            (stated.base_reply, stated.base_log_likelihoods),
            (again.base_reply, again.base_log_likelihoods),
        )
        told.append(_reply_told("the base model", row, base, *pair))
    then, now = judge(row, stated), judge(row, again)
    verdicts = [
        ("", then.passed, now.passed),
        (" of the base model", bool(then.base_passed), bool(now.base_passed)),
    ]
    judged = [f"judged {_word(a)}{whose}, now {_word(b)}" for whose, a, b in verdicts if a != b]
    texts = [text for _, text in told if text]
    return Answer(
        name, not texts, any(apart for apart, _ in told), not judged, "; ".join([*texts, *judged])
    )


def compare_item(
    name: str,
    item: BenchmarkItem,
    right: Rule,
    tokens: Sequence[int],
    stated: ExternalAsked,
    again: ExternalAsked,
    limit_nats: float,
) -> Answer:
    """What was recorded of a benchmark item against what both models make of it now. tokens: of
    each option, by which the limit grows, since these likelihoods are sums."""
    limits = [limit_nats * max(1, count) for count in tokens]
    pairs = (
        ("the chat model", stated.log_likelihoods, again.log_likelihoods),
        ("the base model", stated.base_log_likelihoods, again.base_log_likelihoods),
    )
    texts = [_likelihoods_told(who, a, b) for who, a, b in pairs if not _within(a, b, limits)]
    if (stated.cut, stated.too_long) != (again.cut, again.too_long):
        texts.append("other options are too long for the context")
    verdicts = [
        tuple(
            found is not None and is_usable(item, found) and right(item, found) for found in (a, b)
        )
        for _, a, b in pairs
    ]
    judged = [
        f"{who}: judged {_word(a)}, now {_word(b)}"
        for (who, _, _), (a, b) in zip(pairs, verdicts, strict=True)
        if a != b
    ]
    return Answer(
        name, not texts and not judged, bool(texts), not judged, "; ".join([*texts, *judged])
    )


def _reply_told(
    who: str,
    row: EvalRow,
    speaker: Speaker,
    stated: tuple[str, Likelihoods],
    again: tuple[str, Likelihoods],
) -> tuple[bool, str]:
    """(whether it is apart, what differs: empty where nothing does) of one model's reply to a row."""
    if stated[1] is not None or again[1] is not None:
        options = len(again[1] or ())
        if not _within(stated[1], again[1], [speaker.limit_nats] * options):
            return True, _likelihoods_told(who, stated[1], again[1])
        return False, (
            ""
            if stated[0] == again[0]
            else f"{who}: {_texts(stated[0], again[0])} (options nearly as likely)"
        )
    if stated[0] == again[0]:
        return False, ""
    prompt = row_prompt(row, speaker.tokenizer)[-(speaker.model.config.context - 1) :]
    gap = gap_along(speaker, prompt, stated[0])
    why = (
        "not what it says, however it is rounded" if gap is None else f"a near tie, {gap:.2g} nats"
    )
    return gap is None, f"{who}: {_texts(stated[0], again[0])} ({why})"


def _within(stated: Likelihoods, again: Likelihoods, limits: Sequence[float]) -> bool:
    """Whether each is as far apart as its limit at most. NaN is within nothing."""
    if stated is None or again is None:
        return stated is again
    return len(stated) == len(again) and all(
        abs(a - b) <= limit for a, b, limit in zip(stated, again, limits, strict=True)
    )


def _likelihoods_told(who: str, stated: Likelihoods, again: Likelihoods) -> str:
    if stated is None or again is None or len(stated) != len(again):
        return (
            f"{who}: likelihoods of {len(stated or ())} options are recorded, it gives"
            f" {len(again or ())}"
        )
    worst = max(
        range(len(stated)),
        key=lambda n: abs(stated[n] - again[n]) if math.isfinite(stated[n]) else math.inf,
    )
    return (
        f"{who}: option {worst + 1} is recorded with {stated[worst]:.6g} nats, it gives"
        f" {again[worst]:.6g}"
    )


def _texts(stated: str, again: str) -> str:
    """Both texts, from a little before they part, shortened."""
    same = next(
        (n for n, (a, b) in enumerate(zip(stated, again, strict=False)) if a != b),
        min(len(stated), len(again)),
    )
    start = max(0, same - SHOWN_CHARACTERS // 3)
    shown = [
        ("..." if start else "") + text[start : start + SHOWN_CHARACTERS]
        for text in (stated, again)
    ]
    return f"recorded {shown[0]!r}, says {shown[1]!r}"


def _word(passed: bool) -> str:
    return "passed" if passed else "failed"
