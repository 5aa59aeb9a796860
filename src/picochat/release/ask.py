"""Asks the published weights some recorded questions again and compares the replies.

Weights and texts are used only where every byte is the one that the manifests state. Which
questions are asked follows from a seed that the verifier gives, so that nobody can know them when
the bundle is made. They are asked by the code of the scores stage, in float32. Every reply must be
the recorded one, unless the run says that it rounded to bf16 or TF32 and its recorded likelihoods
show that it did. The wider bounds below apply then.

Does not see what the weights were trained on, nor bits per byte, nor recalled prefixes, whose texts
are in no bundle.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import shlex
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from picochat.config import EvalConfig, ResolvedConfig, RunConfig, RuntimeConfig
from picochat.core.errors import BadInput, Problem
from picochat.core.machine import usable_cores
from picochat.core.progress import say
from picochat.core.publish import Artifact
from picochat.core.records import read_record
from picochat.data.benchmarks.layouts import BenchmarkRow
from picochat.data.benchmarks.stage import BenchmarkItem, read_items, read_texts
from picochat.evals.compare_answers import (
    Comparison,
    ModelRunner,
    compare_item,
    compare_reply,
    likelihood_gaps,
    option_tokens,
)
from picochat.evals.eval_records import EvaluatedItem, EvaluatedRow, read_external, read_replies
from picochat.evals.evaluate import ask_questions, questions
from picochat.evals.external import Rule, ask_benchmark, is_right, is_right_norm, pairs_of
from picochat.evals.gpt_answerer import GptAnswerer
from picochat.facts import BenchmarksFacts, facts_of
from picochat.model.runtime import Runtime, open_runtime
from picochat.model.weights import INFO, WEIGHTS, check_tokenizer, load_model, read_info
from picochat.present.printable import printable_line
from picochat.present.values import duration
from picochat.release.stated_files import opened_run, place_with, run_in
from picochat.release.verify import VerifyCheck, VerifyReport
from picochat.run.folder import RunDir
from picochat.skills.task_rows import EvalRow
from picochat.tokens.tokenizer import Tokenizer

LIMIT_NATS = {"fine": 1e-3, "coarse": 0.25}
"""The largest difference of a likelihood per token, and of a recorded token from the likeliest.

In nats. docs/decisions/0027 has the measurements.
"""
LARGEST_FRACTION = {"fine": 0.0, "coarse": 0.05}
"""The fraction of replies that may be mismatches or scored differently before the check fails.

The number of questions is rounded up.
"""
ROUNDED_NATS = 1e-4
"""A run that rounded to bf16 or TF32 has at least this median difference of a likelihood per token.

float32 gives 5e-6 at most, bf16 a thousand times as much (docs/decisions/0027).
"""
FEWEST_LIKELIHOODS = 8
"""Likelihoods from which a run's rounding is told. With fewer its own word is taken."""
BATCH_ROWS = 16
"""Rows asked together: fewer than in a run, for a laptop's memory and so that progress is seen.

It changes no reply in float32.
"""
SEEDS = 2**32


@dataclass(frozen=True)
class Recorded:
    """What a run recorded and what asking it again needs, found and checked.

    `lacking`: what cannot be asked here, and why.
    """

    config: RunConfig
    rows: Mapping[str, EvalRow]
    asked: Mapping[str, EvaluatedRow]
    external: Mapping[str, EvaluatedItem]
    texts: Mapping[str, Mapping[str, BenchmarkRow]]
    benchmarks: Artifact
    chat: Path
    base: Path
    tokenizer: Tokenizer
    lacking: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """The answers and how they were had.

    `sizes`: of each group of questions, how many were asked and how many there are. `stated`,
    `here`: precision and device of the run, and of this machine. `median_gap_nats`: of likelihoods
    per token, between record and now; None: too few were asked.
    """

    answers: tuple[Comparison, ...]
    seed: int
    sizes: Mapping[str, tuple[int, int]]
    rounding: str
    median_gap_nats: float | None
    stated: str
    here: str
    seconds: float
    again: str
    lacking: tuple[str, ...]

    @property
    def unlike(self) -> list[Comparison]:
        """Questions whose reply is a mismatch, or scored differently."""
        return [answer for answer in self.answers if answer.mismatch or not answer.judged_alike]

    @property
    def allowed(self) -> int:
        return math.ceil(LARGEST_FRACTION[self.rounding] * len(self.answers))

    @property
    def pool(self) -> int:
        return sum(size for _, size in self.sizes.values())

    @property
    def chance(self) -> float:
        """Of asking one given question, in the group where it is smallest."""
        return min((asked / size for asked, size in self.sizes.values() if size), default=1.0)

    def figures(self) -> dict[str, object]:
        """For `--json`: counts, the rule, the seed, the time."""
        return {
            "asked": len(self.answers),
            "recorded": self.pool,
            "chance_to_ask_one_question_at_least": round(self.chance, 4),
            "equal": sum(answer.equal for answer in self.answers),
            "mismatches": sum(answer.mismatch for answer in self.answers),
            "judged_alike": sum(answer.judged_alike for answer in self.answers),
            "mismatches_or_judged_otherwise": len(self.unlike),
            "mismatches_or_judged_otherwise_at_most": self.allowed,
            "limit_nats": LIMIT_NATS[self.rounding],
            "median_likelihood_gap_nats": self.median_gap_nats,
            "recorded_in": self.stated,
            "asked_in": self.here,
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "command": self.again,
        }

    def note(self) -> str:
        """One line: counts, seed, precision, time."""
        count, equal = len(self.answers), sum(answer.equal for answer in self.answers)
        judged = sum(answer.judged_alike for answer in self.answers)
        mismatches = sum(answer.mismatch for answer in self.answers)
        said = [
            (
                f"{equal} of {count} equal, {count - equal - mismatches} near ties,"
                f" {mismatches} mismatches; {judged} of {count} judged alike"
                f" (at most {self.allowed} may be mismatches or scored differently)"
            ),
            f"recorded in {self.stated}, asked in {self.here}",
            f"seed {self.seed}, took {duration(self.seconds)}",
            (
                "all that was recorded and can be asked"
                if count == self.pool
                else f"the chance of finding one invented reply is {self.chance:.2g} or more;"
                " --ask all asks every question"
            ),
            *self.lacking,
        ]
        return "; ".join(said)

    def check(self) -> VerifyCheck:
        """Every difference is listed; they are problems where they are more than the bound."""
        differing = [answer for answer in self.answers if answer.note]
        problems: tuple[Problem, ...] = ()
        if len(self.unlike) > self.allowed:
            problems = tuple(Problem(f"{answer.name}: {answer.note}") for answer in self.unlike)
            differing = [answer for answer in differing if answer not in self.unlike]
        notes = tuple(f"{answer.name}: {answer.note}" for answer in differing)
        return VerifyCheck(
            "asked again", len(self.answers), problems, self.note(), notes, self.figures()
        )


def with_questions(
    report: VerifyReport, count: int | None, seed: int | None, run_dir: Path | None
) -> VerifyReport:
    """The report with up to `count` recorded questions asked again; None: all of them.

    Where something differs already, nothing is asked.

    seed: which questions; None: drawn here. run_dir: the folder that has the weights where the
    bundle does not. Raises BadInput where the weights are not here, or are not those that the
    manifests state.
    """
    if report.problems:
        say("what is stated differs already, so nothing was asked again")
        return report
    seed = secrets.randbelow(SEEDS) if seed is None else seed
    # Token shards are the largest files that a bundle may hold, and no question needs them.
    with opened_run(report.path, skip=(".bin",)) as stated:
        recorded = find_recorded(
            stated, report.path, [stated, run_in(run_dir)] if run_dir else [stated]
        )
        outcome = ask_again(recorded, count, seed, _command(report.path, count, seed, run_dir))
    if len(outcome.unlike) > outcome.allowed:
        say(f"asked again: {outcome.note()}")
    elif outcome.unlike:
        say(
            f"warning: {len(outcome.unlike)} of {len(outcome.answers)} replies are mismatches or"
            " scored differently; the report lists them"
        )
    return replace(report, checks=(*report.checks, outcome.check()))


def _command(path: Path, count: int | None, seed: int, run_dir: Path | None) -> str:
    """What asks the same questions again."""
    more = ["--run-dir", str(run_dir)] if run_dir else []
    return shlex.join(
        [
            "picochat",
            "run",
            "verify",
            str(path),
            "--ask",
            "all" if count is None else str(count),
            "--ask-seed",
            str(seed),
            *more,
        ]
    )


# ---- what it needs -------------------------------------------------------------------------------

MISSING_FIX = (
    "--run-dir RUN names the run folder that has it; the maker can bundle the weights by leaving"
    " --no-include-weights out"
)


def find_recorded(stated: RunDir, path: Path, roots: Sequence[RunDir]) -> Recorded:
    """What `stated` recorded, with the weights and benchmark texts that it states.

    Weights and texts come from the first of `roots` that has them as they are stated.

    path: what `stated` was read from. Raises BadInput that names what is missing or differs.
    """
    scores, rows, benchmarks = (stated.artifact(kind) for kind in ("scores", "rows", "benchmarks"))
    problems: list[Problem] = []
    chat, base = (
        place_with(stated.artifact(kind), [WEIGHTS, INFO], roots, problems, MISSING_FIX)
        for kind in ("sft", "base")
    )
    if chat is None or base is None:
        raise BadInput(f"{path} cannot be asked with what is here", problems=problems)
    texts, lacking = _texts(benchmarks, roots)
    tokenizer = Tokenizer.load(stated.artifact("tokenizer").path("tokenizer.json"))
    for place in (chat, base):
        check_tokenizer(read_info(place), tokenizer.digest, place)
    return Recorded(
        config=read_record(ResolvedConfig, stated.config, "configuration").config,
        rows={row.id: row for _, row in questions(rows, None)},
        asked={item.id: item for item in read_replies(scores.place)},
        external={item.id: item for item in read_external(scores.place)},
        texts=texts,
        benchmarks=benchmarks,
        chat=chat,
        base=base,
        tokenizer=tokenizer,
        lacking=lacking,
    )


def _texts(
    benchmarks: Artifact, roots: Sequence[RunDir]
) -> tuple[dict[str, dict[str, BenchmarkRow]], tuple[str, ...]]:
    """(benchmark -> id -> row with its text, what is not here).

    A bundle has no texts: they are other people's.
    """
    found: dict[str, dict[str, BenchmarkRow]] = {}
    lacking: list[Problem] = []
    for name in sorted(facts_of(benchmarks, BenchmarksFacts).benchmarks):
        place = place_with(benchmarks, [f"rows/{name}.jsonl"], roots, lacking, MISSING_FIX)
        if place is not None:
            found[name] = {
                row.id: row for row in read_texts(replace(benchmarks, place=place), name)
            }
    return found, tuple(printable_line(f"not asked: {problem.what}") for problem in lacking)


# ---- asking again --------------------------------------------------------------------------------


def draw(pool: Mapping[str, Iterable[str]], count: int | None, seed: int) -> list[tuple[str, str]]:
    """(group, id) of `count` questions, spread evenly over the groups.

    Each group gives as many as every other while it has any. All are drawn where `count` is larger
    or None.

    The order is by hashes of seed and id: the same in every version of Python, and another with
    every seed.
    """
    places: list[tuple[int, str, str, str]] = []
    for group, ids in pool.items():
        hashed = sorted(
            (hashlib.sha256(f"{seed}\n{group}\n{key}".encode()).hexdigest(), key) for key in ids
        )
        places += [(place, digest, group, key) for place, (digest, key) in enumerate(hashed)]
    # The place within its group sorts first. A claim is made for each group, so each gets as many
    # questions.
    return [(group, key) for _, _, group, key in sorted(places)[:count]]


def pool_of(recorded: Recorded) -> dict[str, list[str]]:
    """Group -> ids of what can be asked.

    Groups are every skill, the SFT rows of each side, and every benchmark whose texts are here.
    """
    pool: dict[str, list[str]] = {}
    for item in recorded.asked.values():
        pool.setdefault(item.skill if item.set == "eval" else item.set, []).append(item.id)
    for name, rows in recorded.texts.items():
        pool[f"benchmark {name}"] = [key for key in rows if key in recorded.external]
    return pool


def ask_again(recorded: Recorded, count: int | None, seed: int, command: str) -> Outcome:
    """Load the weights, ask the questions that the seed draws, and compare the replies."""
    pool = pool_of(recorded)
    drawn = draw(pool, count, seed)
    say(f"asking {len(drawn)} recorded questions again, seed {seed}: {command}")
    started = time.monotonic()
    runtime, compute = _compute_here(recorded)
    (base, _), (chat, _) = (
        load_model(place, compute.device) for place in (recorded.base, recorded.chat)
    )
    models = Models(
        GptAnswerer(base, recorded.tokenizer, compute.dtype),
        GptAnswerer(chat, recorded.tokenizer, compute.dtype),
        recorded.config.evals.model_copy(
            update={"batch_rows": min(BATCH_ROWS, recorded.config.evals.batch_rows)}
        ),
    )
    rows, items = _ask_rows(recorded, drawn, models), _ask_items(recorded, drawn, models)
    gaps = [gap for answer in (*rows, *items) for gap in answer.gaps()]
    median_gap = statistics.median(gaps) if len(gaps) >= FEWEST_LIKELIHOODS else None
    # Whether the machines are alike does not count: in bf16 a reply depends on the rows beside it
    # even on one machine (docs/decisions/0027).
    rounded = median_gap is None or median_gap > ROUNDED_NATS
    rounding = "coarse" if _is_coarse(recorded.config.runtime) and rounded else "fine"
    runners = [
        ModelRunner(
            model,
            recorded.tokenizer,
            recorded.config.evals.max_new_tokens,
            LIMIT_NATS[rounding],
            compute.dtype,
        )
        for model in (chat, base)
    ]
    return Outcome(
        answers=tuple(answer.compared(*runners) for answer in (*rows, *items)),
        seed=seed,
        sizes={
            group: (sum(name == group for name, _ in drawn), len(ids))
            for group, ids in pool.items()
        },
        rounding=rounding,
        median_gap_nats=median_gap,
        stated=_name(recorded.config.runtime),
        here=_name(runtime),
        seconds=time.monotonic() - started,
        again=command,
        lacking=recorded.lacking,
    )


@dataclass(frozen=True)
class Models:
    base: GptAnswerer
    chat: GptAnswerer
    evals: EvalConfig


@dataclass(frozen=True)
class RowAgain:
    """A row of the tasks, with the recorded replies and those of now."""

    row: EvalRow
    stated: EvaluatedRow
    now: EvaluatedRow
    tokenizer: Tokenizer

    def gaps(self) -> list[float]:
        """Of the likelihoods of its options, nats a token; empty where it has none."""
        if self.stated.log_likelihoods is None:
            return []
        tokens = option_tokens(self.row, self.tokenizer)
        return [
            *likelihood_gaps(self.stated.log_likelihoods, self.now.log_likelihoods, tokens),
            *likelihood_gaps(
                self.stated.base_log_likelihoods, self.now.base_log_likelihoods, tokens
            ),
        ]

    def compared(self, chat: ModelRunner, base: ModelRunner) -> Comparison:
        name = f"{self.stated.set} row {self.stated.id}"
        return compare_reply(name, self.row, self.stated, self.now, chat, base)


@dataclass(frozen=True)
class ItemAgain:
    """An item of a benchmark, with the recorded likelihoods and those of now.

    tokens: of each option.
    """

    item: BenchmarkItem
    rule: Rule
    tokens: Sequence[int]
    stated: EvaluatedItem
    now: EvaluatedItem

    def gaps(self) -> list[float]:
        stated, now = self.stated, self.now
        return [
            *likelihood_gaps(stated.log_likelihoods, now.log_likelihoods, self.tokens),
            *likelihood_gaps(stated.base_log_likelihoods, now.base_log_likelihoods, self.tokens),
        ]

    def compared(self, chat: ModelRunner, base: ModelRunner) -> Comparison:
        name = f"{self.stated.benchmark} item {self.stated.id}"
        return compare_item(
            name, self.item, self.rule, self.tokens, self.stated, self.now, chat.limit_nats
        )


def _ask_rows(
    recorded: Recorded, drawn: Sequence[tuple[str, str]], models: Models
) -> list[RowAgain]:
    stated = [recorded.asked[key] for group, key in drawn if not group.startswith("benchmark ")]
    if not stated:
        return []
    given = [(item.set, recorded.rows[item.id]) for item in stated]
    again = ask_questions(models.base, models.chat, given, models.evals)
    return [
        RowAgain(recorded.rows[item.id], item, said, recorded.tokenizer)
        for item, said in zip(stated, again, strict=True)
    ]


def _ask_items(
    recorded: Recorded, drawn: Sequence[tuple[str, str]], models: Models
) -> list[ItemAgain]:
    """What both models make of the drawn benchmark items."""
    facts = facts_of(recorded.benchmarks, BenchmarksFacts).benchmarks
    items = {item.id: item for item in read_items(recorded.benchmarks)}
    answers: list[ItemAgain] = []
    for name, texts in recorded.texts.items():
        rows = [texts[key] for group, key in drawn if group == f"benchmark {name}"]
        rule = is_right_norm if facts[name].read_by == "acc_norm" else is_right
        again = ask_benchmark(name, rows, models.chat, models.base, models.evals) if rows else []
        for number, (row, said) in enumerate(zip(rows, again, strict=True)):
            tokens = [len(pair.continuation) for pair in pairs_of(number, row, models.chat)]
            answers.append(ItemAgain(items[row.id], rule, tokens, recorded.external[row.id], said))
    return answers


def _compute_here(recorded: Recorded) -> tuple[RuntimeConfig, Runtime]:
    """The run's own device, or the CPU where this machine lacks the run's GPU; in float32.

    The change of device is printed. In float32 a reply does not depend on the rows beside it, and
    what differs from the record is the run's own rounding.
    """
    stated = recorded.config.runtime
    # Any attention kernel that is right here will do: a reply depends on it by rounding alone.
    # Nothing is compiled for so few rows.
    threads = min(stated.threads, usable_cores()) if stated.threads else None
    runtime = stated.model_copy(
        update={
            "compile": False,
            "threads": threads,
            "attention_backend": "auto",
            "precision": "float32",
            "matmul_precision": "highest",
        }
    )
    if runtime.device == "cuda" and not torch.cuda.is_available():
        say("the replies were recorded on a CUDA device and there is none here: asking on the CPU")
        runtime = runtime.model_copy(update={"device": "cpu"})
    return runtime, open_runtime(runtime, read_info(recorded.chat).model)


def _is_coarse(runtime: RuntimeConfig) -> bool:
    """Whether the settings round products to bf16 or TF32."""
    reduced = runtime.matmul_precision == "medium" or (
        runtime.device == "cuda" and runtime.matmul_precision != "highest"
    )
    return runtime.precision != "float32" or reduced


def _name(runtime: RuntimeConfig) -> str:
    return f"{runtime.precision} on {runtime.device}"
