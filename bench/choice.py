"""How the likelihoods of options compare fairly: rules of length on every held-out fact.

    python bench/choice.py [--run demo/out/runs/tiny-wiki-v1 | --folder MODEL] [--shots 0] [--quick]

Each held-out fact of the choice skill is asked without its options, and the four options are scored
as the reply: by the sum of the log-probabilities of their tokens, by its mean per token and per
byte, and by the sum against that after a question that asks nothing. Each is taken with and without
the end of the reply. `--run`: the chat model of a finished run. `--folder`: another maker's chat
model as transformers saves it; bench/gguf_folder.py makes one of a GGUF file. Without either, new
weights, which know nothing. `--shots`: that many SFT facts are answered before the question.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from harness.figures import table

from evals import opened
from picochat.evals.answerer import Answerer
from picochat.evals.folder_answerer import open_folder
from picochat.evals.gpt_answerer import GptAnswerer
from picochat.evals.intervals import rate
from picochat.present.values import rate as rate_text
from picochat.skills import choice
from picochat.skills.skill import Question
from picochat.skills.task_rows import EvalRow, Message

Turns = list[tuple[str, str]]
NOTHING = "What is the answer?"  # a question that makes no option likelier


@dataclass(frozen=True)
class Sum:
    """Nats of an option after a prompt, and over how many tokens."""

    nats: float
    tokens: int


RULES: dict[str, Callable[[Sum, Sum, str], float]] = {
    "sum": lambda asked, alone, option: asked.nats,
    "mean per token": lambda asked, alone, option: asked.nats / asked.tokens,
    "mean per byte": lambda asked, alone, option: asked.nats / len(option.encode()),
    "sum against nothing": lambda asked, alone, option: asked.nats - alone.nats,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--shots", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="24 facts")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    facts = sum(fact.side == "eval" for fact in choice.all_facts())
    questions = choice.make(24 if flags.quick else facts, "eval", 42, "direct")
    known = [q for q in choice.make(80, "sft", 3, "direct") if "\n" not in q.prompt]
    shots = [(q.prompt, q.reply) for q in known[: flags.shots]]
    if flags.folder:
        folder = open_folder(flags.folder, torch.device("cpu"), torch.float32)
        compare(folder, folder.ends[0], questions, shots)
    else:
        task = opened(flags.run, "tiny", 1)
        answerer = GptAnswerer(task.model, task.tokenizer)
        compare(answerer, task.tokenizer.end, questions, shots)


def compare(answerer: Answerer, end: int, questions: Sequence[Question], shots: Turns) -> None:
    options = sorted({option for question in questions for option in question.options})
    for with_end in (True, False):
        ending = [end] if with_end else []
        alone: dict[str, Sum] = {}
        for start in range(0, len(options), 32):
            some = options[start : start + 32]
            alone |= zip(some, score(answerer, shots, NOTHING, some, ending), strict=True)
        asked = [score(answerer, shots, q.prompt, q.options, ending) for q in questions]
        rows: list[list[object]] = []
        for name, rule in RULES.items():
            passed = longest = 0
            for question, found in zip(questions, asked, strict=True):
                scores = [
                    rule(each, alone[option], option)
                    for each, option in zip(found, question.options, strict=True)
                ]
                best = question.options[scores.index(max(scores))]
                passed += best == question.reply
                longest += len(best) == max(map(len, question.options))
            rows.append([name, rate_text(rate(passed, len(questions))), longest])
        title = f"held-out facts, options {'with' if with_end else 'without'} the end of the reply"
        table(title, ["rule", "passed", "a longest option chosen"], rows)


def score(
    answerer: Answerer, shots: Turns, question: str, options: Sequence[str], ending: list[int]
) -> list[Sum]:
    """The sums of the options as the reply to the question."""
    history = [
        Message.model_validate({"role": role, "content": text})
        for turn in shots
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    prompt = answerer.row_prompt(EvalRow(id="asked", user=question, history=history))
    ids = [[*answerer.encode(option), *ending] for option in options]
    sums = answerer.option_log_likelihoods([(prompt, ids)])[0]
    return [Sum(nats, len(each)) for nats, each in zip(sums, ids, strict=True)]


if __name__ == "__main__":
    main()
