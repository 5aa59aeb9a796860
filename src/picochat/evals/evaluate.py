"""The scores stage: ask both models every question, keep all replies, and state the scores.

The eval rows go to both models, a part of the SFT rows and the external benchmarks too; prefixes of
the training text are continued, and the loss of each held-out document is measured, beside the bits
per byte of a 5-gram baseline.
What was answered is kept in the files of evals/eval_records.py, and `facts_from` computes the
scores from these files alone. Importing this module needs no torch, so that `run verify` does not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from picochat.config import EvalConfig, RunConfig, RuntimeConfig
from picochat.core.errors import BadInput
from picochat.core.progress import say
from picochat.core.publish import Artifact, StagingFolder
from picochat.core.records import (
    digest_bytes,
    finite_or_none,
    to_jsonable,
    write_atomic,
    write_json,
    write_jsonl,
)
from picochat.data.benchmarks.stage import read_items, read_texts
from picochat.evals.answerer import Answerer
from picochat.evals.eval_records import (
    CONTINUATIONS,
    EXTERNAL,
    HELD_OUT,
    MEASURED,
    REPLIES,
    EvaluatedRow,
    HeldOutDocument,
    Memorization,
    ScoresMeasured,
    read_continuations,
    read_external,
    read_held_out,
    read_measured,
    read_replies,
)
from picochat.evals.external import ask_benchmark, external_scores_of
from picochat.evals.ngram import ngram_bits_per_byte
from picochat.evals.replies import ask_all, evaluated_row
from picochat.evals.scores import scores_of, scores_page
from picochat.facts import BenchmarksFacts, HonestyFacts, ScoresFacts, ShardsFacts, facts_of
from picochat.skills.scoring import can_fail, with_options_listed
from picochat.skills.task_rows import EvalRow, SftRow, as_eval_row, read_published_rows
from picochat.tokens.shards import TokenShards, TokenStream, open_shards
from picochat.tokens.token_counts import spread_sample
from picochat.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from picochat.model.gpt import GPT
    from picochat.model.runtime import Runtime

MEMORIZED_TOKENS = 50
PREFIX_TOKENS = 50


def evaluate(
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
    staging: StagingFolder,
) -> None:
    """Write all replies and measurements, and the ScoresFacts that follow from them."""
    from picochat.evals.gpt_answerer import GptAnswerer
    from picochat.model.runtime import open_runtime
    from picochat.model.weights import check_tokenizer, load_model, read_info

    vocabulary = Tokenizer.load(tokenizer.path("tokenizer.json"))
    compute = open_runtime(runtime, read_info(sft.place).model)
    base_model, _ = load_model(base.place, compute.device)
    chat_model, info = load_model(sft.place, compute.device)
    check_tokenizer(info, vocabulary.digest, sft.place)
    tokens = open_shards(shards)
    chat, base_answerer = (
        GptAnswerer(model, vocabulary, compute.dtype) for model in (chat_model, base_model)
    )
    given = questions(rows, evals.fit_rows)
    asked = ask_questions(base_answerer, chat, given, evals)
    write_jsonl(staging.path(REPLIES), asked)
    external = [
        item
        for name in sorted(facts_of(benchmarks, BenchmarksFacts).benchmarks)
        for item in ask_benchmark(name, read_texts(benchmarks, name), chat, base_answerer, evals)
    ]
    write_jsonl(staging.path(EXTERNAL), external)
    recalled = _continue_prefixes(chat_model, tokens, evals.memorization_samples, seed, compute)
    write_jsonl(staging.path(CONTINUATIONS), recalled)
    measured = _measure_baseline(tokens, shards, vocabulary, evals)
    write_json(staging.path(MEASURED), measured)
    held_out = held_out_documents(base_model, chat_model, tokens.held_out, vocabulary, compute)
    write_jsonl(staging.path(HELD_OUT), held_out)
    inputs = {"sft": sft, "rows": rows, "benchmarks": benchmarks, "honesty": honesty}
    facts = facts_from(staging.folder, inputs)
    write_json(staging.path("report.json"), facts)
    page = scores_page(facts, {row.id: row for _, row in given}, asked)
    write_atomic(staging.path("report.md"), page.encode())
    staging.facts = to_jsonable(facts)


def facts_from(
    files: Path, inputs: Mapping[str, Artifact], config: RunConfig | None = None
) -> ScoresFacts:
    """The scores that follow from the kept replies, whatever report and manifest state.

    inputs: sft, rows, benchmarks, honesty. config: not needed. Raises BadInput if a reply is to
    none of the rows.
    """
    contamination = facts_of(inputs["honesty"], HonestyFacts)
    rows = {row.id: row for _, row in questions(inputs["rows"], None)}
    asked = read_replies(files)
    if foreign := [item.id for item in asked if item.id not in rows]:
        raise BadInput(
            f"{REPLIES} has {len(foreign)} replies to no question of its rows, the first:"
            f" {foreign[0]!r}"
        )
    return scores_of(
        rows,
        asked,
        read_continuations(files),
        read_measured(files),
        read_held_out(files),
        set(contamination.contaminated_eval_rows),
        inputs["sft"].digest,
        external_scores_of(
            facts_of(inputs["benchmarks"], BenchmarksFacts).benchmarks,
            read_items(inputs["benchmarks"]),
            read_external(files),
            contamination.contaminated_external_rows,
        ),
    )


def questions(rows: Artifact, fit_rows: int | None) -> list[tuple[str, EvalRow]]:
    """(set, row) of every question: all eval rows, and `fit_rows` SFT rows of each side.

    Eval rows of a choice whose prompt does not list the options are asked again with the list, as
    the set `eval_listed`. fit_rows: None takes all. SFT rows without a rule that a reply could fail
    are left out, because they would always pass.
    """
    found = eval_questions(list(read_published_rows(rows.path("eval.jsonl"), EvalRow)))
    for name in ("sft_train", "sft_held_out"):
        sft = [as_eval_row(row) for row in read_published_rows(rows.path(f"{name}.jsonl"), SftRow)]
        sft = [row for row in sft if can_fail(row)]
        # By hash and not by seed: no choice of a seed can find rows that are answered well.
        sft.sort(key=lambda row: hashlib.sha256(row.id.encode()).digest())
        found += [(name, row) for row in sft[:fit_rows]]
    return found


def eval_questions(rows: Sequence[EvalRow]) -> list[tuple[str, EvalRow]]:
    """(set, row) of the questions that eval rows ask: all of them, then choices listed."""
    listed = filter(None, map(with_options_listed, rows))
    return [*(("eval", row) for row in rows), *(("eval_listed", row) for row in listed)]


def ask_questions(
    base: Answerer, chat: Answerer, questions: Sequence[tuple[str, EvalRow]], evals: EvalConfig
) -> list[EvaluatedRow]:
    """The replies to every (set, row), in the order given.

    The chat model is asked all of them, the base model those of the set `eval`.
    """
    of_chat = ask_all(chat, [row for _, row in questions], evals, "chat model")
    of_base = ask_all(
        base,
        [row for name, row in questions if name == "eval"],
        evals,
        "base model, the same questions",
    )
    return [
        evaluated_row(name, row, of_chat[row.id], of_base.get(row.id)) for name, row in questions
    ]


def prefix_positions(train_tokens: int, samples: int, seed: int, context: int) -> list[int]:
    """Where in the training tokens the prefixes begin that the model is to continue.

    Empty where a prefix and its continuation fit neither the tokens nor the context.
    """
    span = PREFIX_TOKENS + MEMORIZED_TOKENS
    if train_tokens <= span or span > context:
        return []
    return np.random.default_rng([seed, 50]).integers(0, train_tokens - span, samples).tolist()


def _continue_prefixes(
    model: GPT, tokens: TokenShards, samples: int, seed: int, compute: Runtime
) -> list[Memorization]:
    """Seeded prefixes of the training text, continued greedily for MEMORIZED_TOKENS."""
    from picochat.model.sampling import greedy_replies

    starts = prefix_positions(len(tokens.train), samples, seed, model.config.context)
    if not starts:
        return []
    span = PREFIX_TOKENS + MEMORIZED_TOKENS
    texts = [tokens.train.slice(start, start + span).astype(int).tolist() for start in starts]
    replies = greedy_replies(
        model,
        [text[:PREFIX_TOKENS] for text in texts],
        end=-1,  # no token ends it: a continuation of training text runs over document ends
        max_new_tokens=MEMORIZED_TOKENS,
        dtype=compute.dtype,
    )
    return [
        Memorization(position=start, expected=text[PREFIX_TOKENS:], continued=reply)
        for start, text, reply in zip(starts, texts, replies, strict=True)
    ]


def _measure_baseline(
    tokens: TokenShards, shards: Artifact, vocabulary: Tokenizer, evals: EvalConfig
) -> ScoresMeasured:
    """Held-out bits per byte of the 5-gram baseline."""
    seen = spread_sample(tokens.train, evals.ngram_train_tokens, vocabulary.bos)
    say(f"5-gram baseline on {len(seen):,} of {len(tokens.train):,} training tokens")
    return ScoresMeasured(
        ngram_bits_per_byte=ngram_bits_per_byte(
            seen,
            tokens.held_out.slice(0, len(tokens.held_out)),
            vocab_size=vocabulary.vocab_size,
            held_out_text_bytes=facts_of(shards, ShardsFacts).held_out_text_bytes,
            bos_id=vocabulary.bos,
        ),
        ngram_train_tokens=len(seen),
    )


def held_out_documents(
    base: GPT, chat: GPT, held_out: TokenStream, vocabulary: Tokenizer, compute: Runtime
) -> list[HeldOutDocument]:
    """Each document of the stream with the loss of both models, in order."""
    from picochat.train.held_out import token_nats

    tokens = held_out.slice(0, len(held_out))
    starts = np.flatnonzero(tokens == vocabulary.bos)
    of_base, of_chat = (
        token_nats(model, held_out, vocabulary.bos, compute) for model in (base, chat)
    )
    documents: list[HeldOutDocument] = []
    for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
        text = vocabulary.decode_bytes(tokens[start:end].tolist())
        documents.append(
            HeldOutDocument(
                sha256=digest_bytes(text),
                text_bytes=len(text),
                # fsum is exact, so a document has the same sum whatever batches its tokens were in.
                base_nats=finite_or_none(math.fsum(of_base[start:end].tolist())),
                chat_nats=finite_or_none(math.fsum(of_chat[start:end].tolist())),
            )
        )
    return documents
