"""A text that a model says is followed with no gap, one beside a near tie with a small one, and any
other one is not.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from picochat.config import ModelConfig
from picochat.evals.retrace import Speaker, gap_along
from picochat.model.gpt import GPT, initialise
from picochat.model.sampling import greedy_replies
from picochat.skills.mixture import make_rows
from picochat.tokens.tokenizer import Tokenizer, train

PROMPT = [0, 2, 70, 71, 72]


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Speaker:
    """A model whose replies are pieces of text in no usual spelling, as new weights say them."""
    sft, _ = make_rows("release_skills", 100, 10, "scratchpad", 1)
    place = tmp_path_factory.mktemp("retrace") / "tokenizer.json"
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
    return Speaker(model.eval(), Tokenizer.load(place), 8, 1e-3, torch.float32)


def said(speaker: Speaker, prompt: list[int], tokens: int = 8) -> list[int]:
    return greedy_replies(
        speaker.model, [prompt], end=speaker.tokenizer.end, max_new_tokens=tokens
    )[0]


def test_what_the_model_says_has_no_gap_however_it_is_spelled(speaker: Speaker) -> None:
    spelled_otherwise = 0
    for last in range(80, 104):
        prompt = [*PROMPT, last]
        reply = said(speaker, prompt)
        text = speaker.tokenizer.decode(reply)
        spelled_otherwise += speaker.tokenizer.encode(text) != reply
        gap = gap_along(speaker, prompt, text)
        assert gap is not None and gap < 1e-4
    assert spelled_otherwise > 3  # so that the search is tried, not the usual spelling alone


def test_what_it_does_not_say_is_not_followed(speaker: Speaker) -> None:
    text = speaker.tokenizer.decode(said(speaker, PROMPT))
    for other in ("", "Final answer: 7", text + "!", text[:-1], "x" * 2000):
        assert gap_along(speaker, PROMPT, other) is None


def test_a_token_nearly_as_likely_is_followed_up_to_the_limit(speaker: Speaker) -> None:
    """The second likeliest first token, and then what the model says after it."""
    with torch.no_grad():
        logits = speaker.model(torch.tensor([PROMPT]))[0, -1]
    (best, second), token = logits.topk(2).values.tolist(), int(logits.topk(2).indices[1])
    reply = [token, *said(speaker, [*PROMPT, token], 7)]
    text, gap = speaker.tokenizer.decode(reply), best - second
    found = gap_along(replace(speaker, limit_nats=gap + 0.01), PROMPT, text)
    assert found == pytest.approx(gap, abs=1e-4)
    assert gap_along(replace(speaker, limit_nats=gap - 0.01), PROMPT, text) is None


def test_a_reply_that_the_context_ends_is_followed_to_its_end(speaker: Speaker) -> None:
    prompt = [*PROMPT, *range(80, 80 + 64 - len(PROMPT) - 3)]
    reply = said(speaker, prompt)
    assert len(prompt) + len(reply) <= 64
    gap = gap_along(speaker, prompt, speaker.tokenizer.decode(reply))
    assert gap is not None and gap < 1e-4
