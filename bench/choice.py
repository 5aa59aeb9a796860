"""How the likelihoods of options compare fairly: rules of length on every held-out fact.

    python bench/choice.py [--run demo/out/runs/tiny-wiki-v1 | --gguf MODEL.gguf] [--shots 0]
        [--quick]

Each held-out fact of the choice skill is asked without its options, and the four options are scored
as the reply: by the sum of the log-probabilities of their tokens, by its mean per token and per
byte, and by the sum against that after a question that asks nothing. Each is taken with and without
the end of the reply. `--run`: the chat model of a finished run. `--gguf`: another maker's chat
model, made float32 by transformers (pip install transformers gguf accelerate). Without either, new
weights, which know nothing. `--shots`: that many SFT facts are answered before the question.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from harness.figures import table

from evals import opened
from picochat.evals.intervals import rate
from picochat.present.values import rate as rate_text
from picochat.skills import choice
from picochat.skills.skill import Question
from picochat.skills.task_rows import Message
from picochat.tokens.chat_format import render_prompt

Turns = list[tuple[str, str]]
Scorer = Callable[[Turns, Sequence[str]], list[list[float]]]
"""(turns of a chat, options) to the nats of each token of each option, its end of turn last."""

NOTHING = "What is the answer?"  # a question that makes no option likelier
RULES: dict[str, Callable[[list[float], list[float], str], float]] = {
    "sum": lambda asked, alone, option: sum(asked),
    "mean per token": lambda asked, alone, option: sum(asked) / len(asked),
    "mean per byte": lambda asked, alone, option: sum(asked) / len(option.encode()),
    "sum against nothing": lambda asked, alone, option: sum(asked) - sum(alone),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--shots", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="24 facts")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    scorer = gguf_scorer(flags.gguf) if flags.gguf else run_scorer(flags.run)
    facts = sum(fact.side == "eval" for fact in choice.all_facts())
    questions = choice.make(24 if flags.quick else facts, "eval", 42, "direct")
    known = [q for q in choice.make(80, "sft", 3, "direct") if "\n" not in q.prompt]
    compare(scorer, questions, [(q.prompt, q.reply) for q in known[: flags.shots]])


def compare(scorer: Scorer, questions: Sequence[Question], shots: Turns) -> None:
    options = sorted({option for question in questions for option in question.options})
    alone: dict[str, list[float]] = {}
    for start in range(0, len(options), 32):
        some = options[start : start + 32]
        alone |= zip(some, scorer([*shots, user(NOTHING)], some), strict=True)
    asked = [scorer([*shots, user(question.prompt)], question.options) for question in questions]
    rows: list[list[object]] = []
    for name, rule in RULES.items():
        for end in (True, False):
            passed = longest = 0
            for question, found in zip(questions, asked, strict=True):
                cut = None if end else -1
                scores = [
                    rule(nats[:cut], alone[option][:cut], option)
                    for nats, option in zip(found, question.options, strict=True)
                ]
                best = question.options[scores.index(max(scores))]
                passed += best == question.reply
                longest += len(best) == max(map(len, question.options))
            said = rate_text(rate(passed, len(questions)))
            rows.append([name, "with its end" if end else "", said, longest])
    table("held-out facts", ["rule", "reply", "passed", "a longest option chosen"], rows)


def user(text: str) -> tuple[str, str]:
    """A turn of the user whose reply is asked for."""
    return text, ""


def messages_of(turns: Turns) -> list[dict[str, str]]:
    """The turns as messages, up to the last question."""
    said = [each for turn in turns for each in zip(("user", "assistant"), turn, strict=True)]
    return [{"role": role, "content": text} for role, text in said[:-1]]


def run_scorer(run: Path | None) -> Scorer:
    task = opened(run, "tiny", 1)
    tokenizer = task.tokenizer

    def score(turns: Turns, options: Sequence[str]) -> list[list[float]]:
        messages = [Message.model_validate(each) for each in messages_of(turns)]
        prompt = render_prompt(tokenizer, messages)
        found: list[list[float]] = []
        for option in options:
            ids = torch.tensor([[*prompt, *tokenizer.encode(option), tokenizer.end]])
            with torch.no_grad():
                logits_TV = task.model(ids[:, :-1], torch.float32)[0]
            found.append(nats_of(logits_TV[len(prompt) - 1 :], ids[0, len(prompt) :]))
        return found

    return score


def gguf_scorer(path: Path) -> Scorer:
    import transformers

    load: dict[str, Any] = {"gguf_file": path.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, **load)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, dtype=torch.float32, **load
    ).eval()

    def ids_of(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    @torch.no_grad()
    def score(turns: Turns, options: Sequence[str]) -> list[list[float]]:
        text = tokenizer.apply_chat_template(
            messages_of(turns), tokenize=False, add_generation_prompt=True
        )
        read = model(torch.tensor([ids_of(text)]), use_cache=True, logits_to_keep=1)
        replies = [torch.tensor([*ids_of(option), tokenizer.eos_token_id]) for option in options]
        padded_OT = torch.nn.utils.rnn.pad_sequence(replies, batch_first=True)
        # The prompt is read once: its cache is copied for each option.
        read.past_key_values.batch_repeat_interleave(len(options))
        rest_OTV = model(padded_OT[:, :-1], past_key_values=read.past_key_values).logits
        return [
            nats_of(torch.cat((read.logits[0], rest_TV[: len(ids) - 1])), ids)
            for rest_TV, ids in zip(rest_OTV, replies, strict=True)
        ]

    return score


def nats_of(logits_TV: torch.Tensor, ids_T: torch.Tensor) -> list[float]:
    """The log-probability of each id."""
    log_TV = torch.log_softmax(logits_TV.float(), dim=-1)
    return log_TV.gather(1, ids_T[:, None])[:, 0].tolist()


if __name__ == "__main__":
    main()
