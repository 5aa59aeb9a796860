"""Asks the published weights some recorded questions again and compares the replies.

Weights and texts are used only where every byte is the one that the manifests state. Which
questions are asked follows from a seed that the verifier gives, so that nobody can know them when
the bundle is made. They are asked by the code of the scores stage. In float32 on both sides every
reply must be the recorded one. Where either side rounds to bf16 or TF32, the bounds below apply.

Does not see what the weights were trained on, nor bits per byte, nor recalled prefixes, whose texts
are in no bundle.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import shlex
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
from picochat.data.benchmarks.stage import read_items, read_texts
from picochat.evals.compare_answers import Comparison, ModelRunner, compare_item, compare_reply
from picochat.evals.eval_records import EvaluatedItem, EvaluatedRow, read_external, read_replies
from picochat.evals.evaluate import ask_questions, questions
from picochat.evals.external import ask_benchmark, is_right, is_right_norm, pairs_of
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

    `stated`, `here`: precision and device of the run, and of this machine.
    """

    answers: tuple[Comparison, ...]
    seed: int
    pool: int
    rounding: str
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

    def figures(self) -> dict[str, object]:
        """For `--json`: counts, the rule, the seed, the time."""
        return {
            "asked": len(self.answers),
            "recorded": self.pool,
            "equal": sum(answer.equal for answer in self.answers),
            "mismatches": sum(answer.mismatch for answer in self.answers),
            "judged_alike": sum(answer.judged_alike for answer in self.answers),
            "mismatches_or_judged_otherwise": len(self.unlike),
            "mismatches_or_judged_otherwise_at_most": self.allowed,
            "limit_nats": LIMIT_NATS[self.rounding],
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
            *(["all that was recorded and can be asked"] if count == self.pool else []),
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
    report: VerifyReport, count: int, seed: int | None, run_dir: Path | None
) -> VerifyReport:
    """The report with up to `count` recorded questions asked again.

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


def _command(path: Path, count: int, seed: int, run_dir: Path | None) -> str:
    """What asks the same questions again."""
    more = ["--run-dir", str(run_dir)] if run_dir else []
    return shlex.join(
        [
            "picochat",
            "run",
            "verify",
            str(path),
            "--ask",
            str(count),
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


def draw(pool: Mapping[str, Iterable[str]], count: int, seed: int) -> list[tuple[str, str]]:
    """(group, id) of `count` questions, spread evenly over the groups.

    Each group gives as many as every other while it has any. All are drawn where `count` is larger.

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


def ask_again(recorded: Recorded, count: int, seed: int, command: str) -> Outcome:
    """Load the weights, ask the questions that the seed draws, and compare the replies."""
    pool = pool_of(recorded)
    drawn = draw(pool, count, seed)
    say(f"asking {len(drawn)} recorded questions again, seed {seed}: {command}")
    started = time.monotonic()
    runtime, compute = _compute_here(recorded)
    # Whether the machines are alike does not count: in bf16 a reply depends on the rows beside it
    # even on one machine (docs/decisions/0027).
    rounding = "coarse" if _is_coarse(recorded.config.runtime) or _is_coarse(runtime) else "fine"
    (base, _), (chat, _) = (
        load_model(place, compute.device) for place in (recorded.base, recorded.chat)
    )
    evals = recorded.config.evals
    limit = LIMIT_NATS[rounding]
    runners = [
        ModelRunner(model, recorded.tokenizer, evals.max_new_tokens, limit, compute.dtype)
        for model in (chat, base)
    ]
    evals = evals.model_copy(update={"batch_rows": min(BATCH_ROWS, evals.batch_rows)})
    answers = _ask_rows(recorded, drawn, runners, evals)
    answers += _ask_items(recorded, drawn, runners, evals)
    return Outcome(
        answers=tuple(answers),
        seed=seed,
        pool=sum(map(len, pool.values())),
        rounding=rounding,
        stated=_name(recorded.config.runtime),
        here=_name(runtime),
        seconds=time.monotonic() - started,
        again=command,
        lacking=recorded.lacking,
    )


def _ask_rows(
    recorded: Recorded,
    drawn: Sequence[tuple[str, str]],
    runners: Sequence[ModelRunner],
    evals: EvalConfig,
) -> list[Comparison]:
    chat, base = runners
    stated = [recorded.asked[key] for group, key in drawn if not group.startswith("benchmark ")]
    if not stated:
        return []
    given = [(item.set, recorded.rows[item.id]) for item in stated]
    again = ask_questions(base.answerer, chat.answerer, given, evals)
    return [
        compare_reply(f"{item.set} row {item.id}", recorded.rows[item.id], item, said, chat, base)
        for item, said in zip(stated, again, strict=True)
    ]


def _ask_items(
    recorded: Recorded,
    drawn: Sequence[tuple[str, str]],
    runners: Sequence[ModelRunner],
    evals: EvalConfig,
) -> list[Comparison]:
    """What both models make of the drawn benchmark items."""
    facts = facts_of(recorded.benchmarks, BenchmarksFacts).benchmarks
    items = {item.id: item for item in read_items(recorded.benchmarks)}
    chat, base = runners
    answers: list[Comparison] = []
    for name, texts in recorded.texts.items():
        rows = [texts[key] for group, key in drawn if group == f"benchmark {name}"]
        right = is_right_norm if facts[name].read_by == "acc_norm" else is_right
        again = ask_benchmark(name, rows, chat.answerer, base.answerer, evals) if rows else []
        for number, (row, said) in enumerate(zip(rows, again, strict=True)):
            tokens = [len(pair.continuation) for pair in pairs_of(number, row, chat.answerer)]
            stated = recorded.external[row.id]
            answers.append(
                compare_item(
                    f"{name} item {row.id}",
                    items[row.id],
                    right,
                    tokens,
                    stated,
                    said,
                    chat.limit_nats,
                )
            )
    return answers


def _compute_here(recorded: Recorded) -> tuple[RuntimeConfig, Runtime]:
    """The run's own runtime, or float32 on the CPU where this machine lacks the run's GPU.

    The change is printed.
    """
    stated = recorded.config.runtime
    # Any attention kernel that is right here will do: a reply depends on it by rounding alone.
    # Nothing is compiled for so few rows.
    threads = min(stated.threads, usable_cores()) if stated.threads else None
    runtime = stated.model_copy(
        update={"compile": False, "threads": threads, "attention_backend": "auto"}
    )
    if runtime.device == "cuda" and not torch.cuda.is_available():
        say(
            "the replies were recorded on a CUDA device and there is none here: asking on the CPU,"
            " in float32"
        )
        runtime = runtime.model_copy(update={"device": "cpu", "precision": "float32"})
    return runtime, open_runtime(runtime, read_info(recorded.chat).model)


def _is_coarse(runtime: RuntimeConfig) -> bool:
    """Whether products are rounded to bf16 or TF32.

    A near tie may then fall the other way with the rows that are asked beside it.
    """
    reduced = runtime.matmul_precision == "medium" or (
        runtime.device == "cuda" and runtime.matmul_precision != "highest"
    )
    return runtime.precision != "float32" or reduced


def _name(runtime: RuntimeConfig) -> str:
    return f"{runtime.precision} on {runtime.device}"
