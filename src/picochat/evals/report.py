"""The scores stage: both models are asked every eval row, the SFT rows their own question, and all
replies are kept.

`replies.jsonl`, `external.jsonl` and `memorization.jsonl` hold what was said, `measured.json` what
needs the models, `report.json` and `report.md` what follows from these by evals/scores.py.
Importing this module needs no torch, so that `run verify` does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from picochat.config import EvalConfig, RuntimeConfig
from picochat.core.progress import say
from picochat.core.publish import Artifact, Draft
from picochat.core.records import (
    parse_record,
    read_jsonl,
    read_record,
    write_atomic,
    write_json,
    write_jsonl,
)
from picochat.data.benchmarks.stage import read_items, read_texts
from picochat.evals.external_scores import external_scores_of
from picochat.evals.ngram import ngram_bits_per_byte
from picochat.evals.record import Asked, ExternalAsked, Measured, Memorization
from picochat.evals.scores import judge, scores_of
from picochat.facts import (
    BenchmarksFacts,
    ExternalScore,
    HonestyFacts,
    ScoresFacts,
    ShardsFacts,
    facts_of,
)
from picochat.present.labels import OTHER_RATES
from picochat.present.printable import cell
from picochat.present.values import fraction, rate
from picochat.skills.rows import EvalRow, SftRow, as_eval_row, read_published_rows
from picochat.skills.scoring import can_fail
from picochat.tokens.shards import TokenShards, open_shards
from picochat.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from picochat.model.compute import Compute
    from picochat.model.gpt import GPT

MEMORIZED_TOKENS = 50
PREFIX_TOKENS = 50


def score_run(
    base: Artifact,
    sft: Artifact,
    rows: Artifact,
    benchmarks: Artifact,
    shards: Artifact,
    tokenizer: Artifact,
    honesty: Artifact,
    evals: EvalConfig,
    runtime: RuntimeConfig,
    seed: int,
    draft: Draft,
) -> None:
    """Ask, measure, write everything down, and state the scores that follow."""
    from picochat.model.compute import open_compute
    from picochat.model.weights import check_tokenizer, load_model, read_info

    vocabulary = Tokenizer.load(tokenizer.path("tokenizer.json"))
    compute = open_compute(runtime, read_info(sft.place).model)
    base_model, _ = load_model(base.place, compute.device)
    chat_model, info = load_model(sft.place, compute.device)
    check_tokenizer(info, vocabulary.digest, sft.place)
    tokens = open_shards(shards)
    asked = ask_questions(
        base_model, chat_model, questions(rows, evals.fit_rows), vocabulary, evals, compute
    )
    external = _ask_external(base_model, chat_model, benchmarks, vocabulary, evals, compute)
    memorization = _recall(chat_model, tokens, evals.memorization_samples, seed, compute)
    measured = _measure(base_model, chat_model, tokens, shards, vocabulary, evals, compute)
    write_jsonl(draft.path("replies.jsonl"), asked)
    write_jsonl(draft.path("external.jsonl"), external)
    write_jsonl(draft.path("memorization.jsonl"), memorization)
    write_json(draft.path("measured.json"), measured)
    by_id = {row.id: row for _, row in questions(rows, evals.fit_rows)}
    facts = scores_of(
        by_id,
        asked,
        memorization,
        measured,
        dirty_rows(honesty),
        sft.digest,
        _external(benchmarks, external, honesty),
    )
    write_json(draft.path("report.json"), facts)
    write_atomic(draft.path("report.md"), report_page(facts, by_id, asked).encode())
    draft.facts = facts.model_dump(mode="json")


def recompute_scores(
    scores: Artifact, rows: Artifact, benchmarks: Artifact, honesty: Artifact
) -> ScoresFacts:
    """The scores that follow from a published artifact's files, whatever its report and manifest
    state.
    """
    recalled = [
        parse_record(Memorization, value, "memorization.jsonl")
        for _, value in read_jsonl(scores.path("memorization.jsonl"))
    ]
    external = read_external(scores)
    measured = read_record(Measured, scores.path("measured.json"))
    by_id = {row.id: row for _, row in questions(rows, None)}
    found = _external(benchmarks, external, honesty)
    return scores_of(
        by_id,
        read_asked(scores),
        recalled,
        measured,
        dirty_rows(honesty),
        scores.manifest.inputs["sft"],
        found,
    )


def read_asked(scores: Artifact) -> list[Asked]:
    """What was asked and said, as published."""
    return [
        parse_record(Asked, value, f"replies.jsonl, line {n}")
        for n, value in read_jsonl(scores.path("replies.jsonl"))
    ]


def read_external(scores: Artifact) -> list[ExternalAsked]:
    """What was made of benchmark items, as published."""
    rows = read_jsonl(scores.path("external.jsonl"))
    return [
        parse_record(ExternalAsked, value, f"external.jsonl, line {line}") for line, value in rows
    ]


def questions(rows: Artifact, fit_rows: int | None) -> list[tuple[str, EvalRow]]:
    """(set, row) of every question: all eval rows, and of each SFT side the `fit_rows` that come
    first by hash (None: all).

    SFT rows without a rule that a reply could fail are not asked: they would always pass.
    """
    found: list[tuple[str, EvalRow]] = [
        ("eval", row) for row in read_published_rows(rows.path("eval.jsonl"), EvalRow)
    ]
    for name in ("sft_train", "sft_held_out"):
        sft = [as_eval_row(row) for row in read_published_rows(rows.path(f"{name}.jsonl"), SftRow)]
        sft = [row for row in sft if can_fail(row)]
        sft.sort(key=lambda row: hashlib.sha256(row.id.encode()).digest())
        found += [(name, row) for row in sft[:fit_rows]]
    return found


def dirty_rows(honesty: Artifact) -> set[str]:
    return set(facts_of(honesty, HonestyFacts).dirty_eval_rows)


def ask_questions(
    base: GPT,
    chat: GPT,
    questions: Sequence[tuple[str, EvalRow]],
    vocabulary: Tokenizer,
    evals: EvalConfig,
    compute: Compute,
) -> list[Asked]:
    """What the chat model says to every (set, row), and the base model to those of the set `eval`,
    in the order given.
    """
    from picochat.evals.replies import ask_all

    said = ask_all(
        chat, [row for _, row in questions], vocabulary, evals, compute.dtype, "chat model"
    )
    base_rows = [row for name, row in questions if name == "eval"]
    base_said = ask_all(
        base, base_rows, vocabulary, evals, compute.dtype, "base model, the same questions"
    )
    asked: list[Asked] = []
    for name, row in questions:
        mine, other = said[row.id], base_said.get(row.id)
        asked.append(
            Asked.model_validate(
                {
                    "id": row.id,
                    "set": name,
                    "skill": row.skill,
                    "stage": row.curriculum_stage,
                    "prompt": row.user,
                    "expected": row.reference_answer,
                    "reply": mine.text,
                    "log_likelihoods": mine.log_likelihoods,
                    "base_reply": other.text if other else None,
                    "base_log_likelihoods": other.log_likelihoods if other else None,
                }
            )
        )
    return asked


def _ask_external(
    base: GPT,
    chat: GPT,
    benchmarks: Artifact,
    vocabulary: Tokenizer,
    evals: EvalConfig,
    compute: Compute,
) -> list[ExternalAsked]:
    """What both models make of every item, benchmark after benchmark."""
    from picochat.evals.external import ask_benchmark

    names = sorted(facts_of(benchmarks, BenchmarksFacts).benchmarks)
    texts = ((name, read_texts(benchmarks, name)) for name in names)
    return [
        item
        for name, rows in texts
        for item in ask_benchmark(name, rows, chat, base, vocabulary, evals, compute.dtype)
    ]


def _external(
    benchmarks: Artifact, asked: Sequence[ExternalAsked], honesty: Artifact
) -> dict[str, ExternalScore]:
    facts, dirty = (
        facts_of(benchmarks, BenchmarksFacts),
        facts_of(honesty, HonestyFacts).dirty_external_rows,
    )
    return external_scores_of(facts.benchmarks, read_items(benchmarks), asked, dirty)


def prefix_positions(train_tokens: int, samples: int, seed: int, context: int) -> list[int]:
    """Where in the training tokens the prefixes stand that the model is to continue; none where
    they would not fit.
    """
    span = PREFIX_TOKENS + MEMORIZED_TOKENS
    if train_tokens <= span or span > context:
        return []
    return np.random.default_rng([seed, 50]).integers(0, train_tokens - span, samples).tolist()


def _recall(
    model: GPT, tokens: TokenShards, samples: int, seed: int, compute: Compute
) -> list[Memorization]:
    """Seeded prefixes of training text, continued greedily for as many tokens as count as
    memorized.
    """
    from picochat.model.sampling import greedy_replies

    starts = prefix_positions(len(tokens.train), samples, seed, model.config.context)
    if not starts:
        return []
    span = PREFIX_TOKENS + MEMORIZED_TOKENS
    texts = [tokens.train.slice(start, start + span).astype(int).tolist() for start in starts]
    replies = greedy_replies(
        model,
        [text[:PREFIX_TOKENS] for text in texts],
        end=-1,
        max_new_tokens=MEMORIZED_TOKENS,
        dtype=compute.dtype,
    )
    return [
        Memorization(position=start, expected=text[PREFIX_TOKENS:], continued=reply)
        for start, text, reply in zip(starts, texts, replies, strict=True)
    ]


def _measure(
    base: GPT,
    chat: GPT,
    tokens: TokenShards,
    shards: Artifact,
    vocabulary: Tokenizer,
    evals: EvalConfig,
    compute: Compute,
) -> Measured:
    from picochat.train.held_out import held_out_of_stream

    text_bytes = facts_of(shards, ShardsFacts).held_out_text_bytes
    count = min(len(tokens.train), evals.ngram_train_tokens)
    say(f"5-gram baseline on {count:,} training tokens")
    ngram = ngram_bits_per_byte(
        tokens.train.slice(0, count),
        tokens.held_out.slice(0, len(tokens.held_out)),
        vocab_size=vocabulary.vocab_size,
        held_out_text_bytes=text_bytes,
        bos_id=vocabulary.bos,
    )
    return Measured(
        base_bits_per_byte=held_out_of_stream(
            base, tokens.held_out, text_bytes, vocabulary.bos, compute
        ).bits_per_byte,
        sft_bits_per_byte=held_out_of_stream(
            chat, tokens.held_out, text_bytes, vocabulary.bos, compute
        ).bits_per_byte,
        ngram_bits_per_byte=ngram,
        ngram_train_tokens=count,
    )


def report_page(facts: ScoresFacts, rows: dict[str, EvalRow], asked: Iterable[Asked]) -> str:
    """report.md: the rates with their intervals, then every reply that failed and why, a few for
    each skill.
    """
    lines = [
        "# Scores",
        "",
        "| skill | all rows | clean rows | base model | chance |",
        "|---|---|---|---|---|",
    ]
    for name, skill in facts.skills.items():
        cells = [name, rate(skill.all), rate(skill.clean), rate(skill.base), fraction(skill.chance)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += _external_lines(facts)
    lines += ["", "| rate | measured |", "|---|---|"]
    lines += [f"| {label} | {rate(getattr(facts, name))} |" for name, label in OTHER_RATES.items()]
    lines += ["", "## Replies that failed", ""]
    shown: dict[str, int] = {}
    for item in asked:
        judged = judge(rows[item.id], item)
        if item.set == "eval" and not judged.passed and shown.setdefault(item.skill, 0) < 5:
            shown[item.skill] += 1
            texts = (("asked", item.prompt), ("expected", item.expected), ("said", item.reply))
            lines += [
                f"- **{cell(item.id)}** ({judged.reason})",
                *(f"  - {name}: {cell(repr(text))}" for name, text in texts),
            ]
    return "\n".join(lines) + "\n"


def _external_lines(facts: ScoresFacts) -> list[str]:
    if not facts.external:
        return []
    lines = [
        "",
        "| benchmark | all rows | clean rows | base model | chance | read by |",
        "|" + "---|" * 6,
    ]
    for name, score in facts.external.items():
        base = rate(score.base) if score.base else ""
        cells = [name, rate(score.all), rate(score.clean), base, fraction(score.chance)]
        lines.append("| " + " | ".join([*cells, score.read_by]) + " |")
    return lines
