"""Recorded answers against those of now: only differences beyond rounding are mismatches, and what
a model could have generated is told from what it could not.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from picochat.config import ModelConfig
from picochat.data.benchmarks.stage import BenchmarkItem
from picochat.evals.compare_answers import Comparison, ModelRunner, compare_item, greedy_gap
from picochat.evals.eval_records import EvaluatedItem
from picochat.evals.external import is_right
from picochat.model.gpt import GPT, initialise
from picochat.model.sampling import greedy_replies
from picochat.skills.mixture import make_rows
from picochat.tokens.tokenizer import Tokenizer, train

PROMPT = [0, 2, 70, 71, 72]
ITEM = BenchmarkItem(id="q1", benchmark="quiz", digest="0", characters=[3, 3], correct=0)


def said(chat: list[float] | None, base: list[float] | None = None) -> EvaluatedItem:
    return EvaluatedItem(
        id="q1",
        benchmark="quiz",
        log_likelihoods=chat,
        base_log_likelihoods=base,
        cut=False,
        too_long=chat is None,
    )


def compared(stated: EvaluatedItem, again: EvaluatedItem, limit_nats: float = 0.1) -> Comparison:
    return compare_item("quiz item q1", ITEM, is_right, [2, 2], stated, again, limit_nats)


@pytest.mark.parametrize(
    ("stated", "again", "equal", "mismatch", "judged_alike"),
    [
        (said([-1.0, -2.0]), said([-1.0, -2.0]), True, False, True),
        (
            said([-1.0, -2.0]),
            said([-1.19, -2.0]),
            True,
            False,
            True,
        ),  # two tokens: a sum may be off by twice the limit
        (said([-1.0, -2.0]), said([-1.21, -2.0]), False, True, True),
        (
            said([-1.0, -1.1]),
            said([-1.0, -0.95]),
            False,
            False,
            False,
        ),  # within the limit, and yet the other option
        (said([-1.0, -2.0], [-1.0, -2.0]), said([-1.0, -2.0], [-1.0, -9.0]), False, True, True),
        (said([-1.0]), said([-1.0, -2.0]), False, True, False),
        (said(None), said([-1.0, -2.0]), False, True, False),
        (said(None), said(None), True, False, True),
        (said([float("nan"), -2.0]), said([-1.0, -2.0]), False, True, False),
    ],
)
def test_likelihoods_are_compared_within_the_limit_and_judged(
    stated: EvaluatedItem, again: EvaluatedItem, equal: bool, mismatch: bool, judged_alike: bool
) -> None:
    answer = compared(stated, again)
    assert (answer.equal, answer.mismatch, answer.judged_alike) == (equal, mismatch, judged_alike)
    assert bool(answer.note) == (not equal)


# ---- could the model have generated this text ----------------------------------------------------


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> ModelRunner:
    """A model whose replies are pieces of text in no usual spelling, as new weights say them."""
    sft, _ = make_rows("release_skills", 100, 10, "scratchpad", 1)
    place = tmp_path_factory.mktemp("runner") / "tokenizer.json"
    place.write_bytes(train((f"{row.user}\n{row.assistant}" for row in sft), 400))
    model = GPT(
        ModelConfig(
            context=64, layers=2, width=48, heads=4, kv_heads=2, head_width=12, mlp_width=64
        ),
        400,
    )
    initialise(model, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8.0)
    return ModelRunner(model.eval(), Tokenizer.load(place), 8, 1e-3, torch.float32)


def greedy(runner: ModelRunner, prompt: list[int], tokens: int = 8) -> list[int]:
    return greedy_replies(runner.model, [prompt], end=runner.tokenizer.end, max_new_tokens=tokens)[
        0
    ]


def test_what_the_model_says_has_no_gap_however_it_is_spelled(runner: ModelRunner) -> None:
    spelled_otherwise = 0
    for last in range(80, 104):
        prompt = [*PROMPT, last]
        reply = greedy(runner, prompt)
        text = runner.tokenizer.decode(reply)
        spelled_otherwise += runner.tokenizer.encode(text) != reply
        gap = greedy_gap(runner, prompt, text)
        assert gap is not None and gap < 1e-4
    assert spelled_otherwise > 3  # so that the search is tried, not the usual spelling alone


def test_what_it_does_not_say_is_not_followed(runner: ModelRunner) -> None:
    text = runner.tokenizer.decode(greedy(runner, PROMPT))
    for other in ("", "Final answer: 7", text + "!", text[:-1], "x" * 2000):
        assert greedy_gap(runner, PROMPT, other) is None


def test_a_token_nearly_as_likely_is_followed_up_to_the_limit(runner: ModelRunner) -> None:
    """The second likeliest first token, and then what the model says after it."""
    with torch.no_grad():
        logits = runner.model(torch.tensor([PROMPT]))[0, -1]
    (best, second), token = logits.topk(2).values.tolist(), int(logits.topk(2).indices[1])
    reply = [token, *greedy(runner, [*PROMPT, token], 7)]
    text, gap = runner.tokenizer.decode(reply), best - second
    found = greedy_gap(replace(runner, limit_nats=gap + 0.01), PROMPT, text)
    assert found == pytest.approx(gap, abs=1e-4)
    assert greedy_gap(replace(runner, limit_nats=gap - 0.01), PROMPT, text) is None


def test_a_reply_that_the_context_ends_is_followed_to_its_end(runner: ModelRunner) -> None:
    prompt = [*PROMPT, *range(80, 80 + 64 - len(PROMPT) - 3)]
    reply = greedy(runner, prompt)
    assert len(prompt) + len(reply) <= 64
    gap = greedy_gap(runner, prompt, runner.tokenizer.decode(reply))
    assert gap is not None and gap < 1e-4
