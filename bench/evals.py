"""Replies to the eval rows, on a CPU: batches with a cache against one row at a time.

    python bench/evals.py [--run demo/out/runs/tiny-wiki-v1] [--scale tiny]
        [--rows 512] [--threads 1] [--quick]

`--run`: weights, tokenizer and rows of a finished run, whose replies end where that model ends
them. Without one: new weights of the scale and a tokenizer trained on the SFT rows, whose replies
all run to the limit. The slow ways answer a seeded sample of the same rows, because all of them
would take minutes; every way is timed in turns, and the best turn counts. Replies are compared
token for token, in float32: a way that says something else stops the benchmark. The bound is 20
times as many rows/s as one row at a time without a cache; the ratio over one row at a time with a
cache is stated beside it.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from harness.figures import figure, say, table

from picochat.config import EvalConfig
from picochat.evals.gpt_answerer import GptAnswerer
from picochat.evals.replies import ask_all, generate_ids
from picochat.model.gpt import GPT, initialise
from picochat.model.sampling import continuation_log_likelihoods, greedy_replies
from picochat.model.weights import load_model
from picochat.run.folder import RunDir
from picochat.scales import find_scale
from picochat.skills.mixture import make_rows
from picochat.skills.scoring import choice_candidates
from picochat.skills.task_rows import EvalRow, read_published_rows
from picochat.tokens.chat_format import neutral_prompt, row_prompt
from picochat.tokens.tokenizer import Tokenizer, train

BOUND = 20.0
TURNS = 3
Replies = list[list[int]]


@dataclass(frozen=True)
class Task:
    model: GPT
    tokenizer: Tokenizer
    rows: list[EvalRow]
    limit: int

    @property
    def generated(self) -> list[EvalRow]:
        return [row for row in self.rows if not row.choice_labels]

    @property
    def chosen(self) -> list[EvalRow]:
        return [row for row in self.rows if row.choice_labels]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path)
    parser.add_argument("--scale", default="tiny")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--sample", type=int, default=24, help="rows that the slow ways answer")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--quick", action="store_true", help="128 rows, 8 of them one at a time, one turn"
    )
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    rows, sample, turns = (128, 8, 1) if flags.quick else (flags.rows, flags.sample, TURNS)
    task = opened(flags.run, flags.scale, rows)
    source = (
        f"weights of {flags.run}"
        if flags.run
        else f"new weights at {flags.scale}: every reply runs to the limit"
    )
    compare_generation(task, sample, turns, source, flags.threads)
    compare_choice(task, sample, turns, source, flags.threads)


def opened(run: Path | None, scale: str, most: int) -> Task:
    """Model, tokenizer and a seeded sample of eval rows of all skills."""
    limit = EvalConfig().max_new_tokens
    if run is not None:
        place = RunDir(run)
        tokenizer = Tokenizer.load(place.artifact("tokenizer").path("tokenizer.json"))
        model, _ = load_model(place.place("sft"), torch.device("cpu"))
        rows = list(read_published_rows(place.artifact("rows").path("eval.jsonl"), EvalRow))
    else:
        sft, rows = make_rows("release_skills", 1_400, 700, "scratchpad", 42)
        config = find_scale(scale).config
        tokenizer = trained_tokenizer(f"{row.user}\n{row.assistant}" for row in sft)
        model = GPT(config.model, config.tokenizer.vocab_size)
        initialise(model, 0)
    random.Random(0).shuffle(rows)
    return Task(model.eval(), tokenizer, rows[:most], limit)


def trained_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """A small one: the rows alone hold too few pieces for the vocabulary of a scale."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "tokenizer.json"
        place.write_bytes(train(texts, 1_024))
        return Tokenizer.load(place)


def compare_generation(task: Task, sample: int, turns: int, source: str, threads: int) -> None:
    asked = task.generated
    some = asked[:sample]
    said = {row.id: ids for row, ids in zip(asked, batched(task, asked), strict=True)}
    ways: dict[str, tuple[Sequence[EvalRow], Callable[[Task, Sequence[EvalRow]], Replies]]] = {
        "in batches, with a cache": (asked, batched),
        "one at a time, with a cache": (some, one_at_a_time),
        "one at a time, no cache": (some, one_at_a_time_without_cache),
    }
    speeds = dict.fromkeys(ways, 0.0)
    for _ in range(turns):
        for name, (rows, way) in ways.items():
            started = time.perf_counter()
            replies = way(task, rows)
            speeds[name] = max(speeds[name], len(rows) / (time.perf_counter() - started))
            differing = [
                row.id for row, ids in zip(rows, replies, strict=True) if ids != said[row.id]
            ]
            assert not differing, f"{name} says something else to {differing}"
    fast, cached, plain = speeds.values()
    table(
        "generated replies",
        ["way", "rows/s", "batched is x times"],
        [[n, s, fast / s] for n, s in speeds.items()],
    )
    tokens = sum(len(ids) + 1 for ids in said.values()) / len(said)
    shared = {
        "rows": len(asked),
        "tokens_per_reply": round(tokens, 1),
        "threads": threads,
        "source": source,
    }
    figure(
        "eval_generation_over_no_cache", fast, plain, "rows/s", peak_rss_mb(), bound=BOUND, **shared
    )
    figure("eval_generation_over_cached_rows", fast, cached, "rows/s", peak_rss_mb(), **shared)


def compare_choice(task: Task, sample: int, turns: int, source: str, threads: int) -> None:
    asked = task.chosen
    some = asked[:sample]
    fast = slow = 0.0
    for _ in range(turns):
        started = time.perf_counter()
        said = ask_all(GptAnswerer(task.model, task.tokenizer), asked, EvalConfig(), "choices")
        fast = max(fast, len(asked) / (time.perf_counter() - started))
        started = time.perf_counter()
        alone = {row.id: one_choice(task, row) for row in some}
        slow = max(slow, len(some) / (time.perf_counter() - started))
        for row in some:
            likelihoods = said[row.id].log_likelihoods
            assert (
                likelihoods
                and max(abs(a - b) for a, b in zip(likelihoods, alone[row.id], strict=True)) < 1e-4
            ), row.id
    table("choices", ["way", "rows/s"], [["in batches", fast], ["one option at a time", slow]])
    figure(
        "eval_choice",
        fast,
        slow,
        "rows/s",
        peak_rss_mb(),
        rows=len(asked),
        threads=threads,
        source=source,
    )


def batched(task: Task, rows: Sequence[EvalRow]) -> Replies:
    """The product's own way: what `ask_all` does, up to the tokens."""
    prompts = {row.id: row_prompt(task.tokenizer, row) for row in rows}
    config = EvalConfig(max_new_tokens=task.limit)
    found: dict[str, list[int]] = {}
    answerer = GptAnswerer(task.model, task.tokenizer)
    for batch in generate_ids(answerer, prompts, config):
        found.update(batch)
    return [found[row.id] for row in rows]


def one_at_a_time(task: Task, rows: Sequence[EvalRow]) -> Replies:
    prompts = [row_prompt(task.tokenizer, row) for row in rows]
    return [
        greedy_replies(task.model, [p], end=task.tokenizer.end, max_new_tokens=task.limit)[0]
        for p in prompts
    ]


@torch.no_grad()
def one_at_a_time_without_cache(task: Task, rows: Sequence[EvalRow]) -> Replies:
    """Every token of every reply reads the whole conversation again."""
    replies: Replies = []
    for row in rows:
        prompt, reply = row_prompt(task.tokenizer, row), list[int]()
        while len(reply) < task.limit and len(prompt) + len(reply) < task.model.config.context:
            token = int(task.model(torch.tensor([prompt + reply]), torch.float32)[0, -1].argmax())
            if token == task.tokenizer.end:
                break
            reply.append(token)
        replies.append(reply)
    return replies


def one_choice(task: Task, row: EvalRow) -> list[float]:
    prompt = row_prompt(task.tokenizer, row)
    options = [task.tokenizer.encode(candidate) for candidate in choice_candidates(row)]
    asked, alone = (
        [continuation_log_likelihoods(task.model, [(before, ids)])[0] for ids in options]
        for before in (prompt, neutral_prompt(task.tokenizer))
    )
    return [a - b for a, b in zip(asked, alone, strict=True)]


def peak_rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    say("timings are worth something only on a machine with nothing else to do")
    main()
