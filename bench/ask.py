"""How far replies drift where numbers are rounded otherwise: the bounds of release/ask.py.

    python bench/ask.py [--run demo/out/runs/tiny-wiki-v1] [--rows 200] [--quick]

Asks the weights of a finished float32 run a seeded sample of its recorded questions again: as they
were recorded but fewer rows at a time, in bfloat16, and on a GPU where there is one. A table:
replies equal, replies that are no near tie up to one nat, the largest gap of those that are, the
largest difference of a likelihood per token, rows scored differently, and seconds. The last row
judges by the bounds themselves, with right answers in the place of the chat model's wrong replies.
Ends with one JSON line a row.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from harness.figures import figure, table

from picochat.config import EvalConfig, ResolvedConfig, RuntimeConfig
from picochat.core.records import read_record
from picochat.evals.compare_answers import ModelRunner, greedy_gap
from picochat.evals.eval_records import EvaluatedRow, read_replies
from picochat.evals.evaluate import questions
from picochat.evals.replies import Generation, ask_all
from picochat.evals.scores import judge
from picochat.model.runtime import DTYPES, apply_settings
from picochat.model.weights import load_model
from picochat.release.ask import BATCH_ROWS, LIMIT_NATS, draw
from picochat.run.folder import RunDir
from picochat.skills.task_rows import EvalRow
from picochat.tokens.chat_format import row_prompt
from picochat.tokens.tokenizer import Tokenizer

SEED = 1
ROUNDINGS: tuple[tuple[str, dict[str, object]], ...] = (
    # name, what is changed in the runtime
    ("fewer rows at a time", {}),
    ("bfloat16", {"precision": "bf16"}),
    ("GPU, float32", {"device": "cuda", "matmul_precision": "highest"}),
    ("GPU, TF32", {"device": "cuda"}),
    ("GPU, bfloat16", {"device": "cuda", "precision": "bf16"}),
)


@dataclass(frozen=True)
class Drift:
    """What was found of one model's replies.

    gaps: of replies that differ; None: no near tie up to the limit.
    """

    asked: int
    equal: int
    gaps: list[float | None]
    largest_difference: float
    judged_otherwise: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("demo/out/runs/tiny-wiki-v1"))
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--quick", action="store_true")
    flags = parser.parse_args()
    run = RunDir(flags.run)
    config = read_record(ResolvedConfig, run.config, "configuration").config
    tokenizer = Tokenizer.load(run.place("tokenizer") / "tokenizer.json")
    rows = {row.id: row for _, row in questions(run.artifact("rows"), None)}
    sample = _sample(read_replies(run.place("scores")), 20 if flags.quick else flags.rows)
    found: list[tuple[str, Drift]] = []
    for name, changes in ROUNDINGS:
        runtime = config.runtime.model_copy(update={**changes, "compile": False})
        if runtime.device == "cuda" and not torch.cuda.is_available():
            continue
        apply_settings(runtime)
        for kind in ("sft", "base"):
            runner = _runner(run, kind, tokenizer, config.evals.max_new_tokens, runtime)
            mine = (
                sample
                if kind == "sft"
                else [_as_chat(item) for item in sample if item.base_reply is not None]
            )
            found.append((f"{name}, {kind}", drift(runner, mine, rows, config.evals.batch_rows)))
    invented = [item.model_copy(update={"reply": item.expected}) for item in _wrong(sample, rows)]
    runner = replace(
        _runner(run, "sft", tokenizer, config.evals.max_new_tokens, config.runtime),
        limit_nats=LIMIT_NATS["coarse"],
    )
    found.append(("right answers invented", drift(runner, invented, rows, config.evals.batch_rows)))
    head = (
        "rounding",
        "asked",
        "equal",
        "no near tie",
        "largest gap, nats",
        "likelihoods apart",
        "scored differently",
        "s",
    )
    table(
        f"{len(sample)} recorded questions of {flags.run} again",
        head,
        [(name, *_cells(each)) for name, each in found],
    )
    for name, each in found:
        asked, equal, no_tie, gap, difference, judged, seconds = _cells(each)
        more = {
            "asked": asked,
            "equal": equal,
            "no_near_tie": no_tie,
            "likelihoods_apart": difference,
            "judged_otherwise": judged,
        }
        figure("ask_largest_gap", gap, None, "nats", None, rounding=name, seconds=seconds, **more)


def _sample(asked: list[EvaluatedRow], count: int) -> list[EvaluatedRow]:
    pool: dict[str, list[str]] = {}
    for item in asked:
        pool.setdefault(item.skill if item.set == "eval" else item.set, []).append(item.id)
    chosen = {key for _, key in draw(pool, count, SEED)}
    return [item for item in asked if item.id in chosen]


def _runner(
    run: RunDir, kind: str, tokenizer: Tokenizer, max_new_tokens: int, runtime: RuntimeConfig
) -> ModelRunner:
    model, _ = load_model(run.place(kind), runtime.device)
    return ModelRunner(model, tokenizer, max_new_tokens, 1.0, DTYPES[runtime.precision])


def _as_chat(item: EvaluatedRow) -> EvaluatedRow:
    """The base model's reply in the place of the chat model's, to be compared by the same code."""
    return item.model_copy(
        update={"reply": item.base_reply, "log_likelihoods": item.base_log_likelihoods}
    )


def _wrong(sample: list[EvaluatedRow], rows: dict[str, EvalRow]) -> Iterator[EvaluatedRow]:
    for item in sample:
        if (
            item.set == "eval"
            and item.expected
            and not item.log_likelihoods
            and not judge(rows[item.id], item).passed
        ):
            yield item


def drift(
    runner: ModelRunner, sample: list[EvaluatedRow], rows: dict[str, EvalRow], batch_rows: int
) -> Drift:
    """One model asked the sample again."""
    config = EvalConfig(
        max_new_tokens=runner.max_new_tokens, batch_rows=min(BATCH_ROWS, batch_rows)
    )
    started = time.monotonic()
    said = ask_all(runner.answerer, [rows[item.id] for item in sample], config, "asking")
    seconds = time.monotonic() - started
    generated = [
        item for item in sample if item.log_likelihoods is None and said[item.id].text != item.reply
    ]
    gaps = [greedy_gap(runner, _prompt(runner, rows[item.id]), item.reply) for item in generated]
    differences = [0.0]
    for item in sample:
        differences += [
            abs(a - b)
            for a, b in zip(
                item.log_likelihoods or (), said[item.id].log_likelihoods or (), strict=True
            )
        ]
    judged = sum(
        judge(rows[item.id], item).passed != judge(rows[item.id], _now(item, said[item.id])).passed
        for item in sample
    )
    equal = sum(said[item.id].text == item.reply for item in sample)
    return Drift(len(sample), equal, gaps, max(differences), judged, seconds)


def _prompt(runner: ModelRunner, row: EvalRow) -> list[int]:
    return row_prompt(runner.tokenizer, row)[-(runner.model.config.context - 1) :]


def _now(item: EvaluatedRow, said: Generation) -> EvaluatedRow:
    return item.model_copy(update={"reply": said.text, "log_likelihoods": said.log_likelihoods})


def _cells(drift: Drift) -> tuple[int, int, int, float, float, int, float]:
    gap = max((gap for gap in drift.gaps if gap is not None), default=0.0)
    return (
        drift.asked,
        drift.equal,
        drift.gaps.count(None),
        gap,
        drift.largest_difference,
        drift.judged_otherwise,
        drift.seconds,
    )


if __name__ == "__main__":
    main()
