"""The held-out loss: each target once, in batches that a processor's memory does not notice."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from picochat.config import ModelConfig, RuntimeConfig
from picochat.model.gpt import GPT, initialise
from picochat.model.runtime import open_runtime
from picochat.tokens.chat_format import join_conversations
from picochat.tokens.shards import TokenStream
from picochat.train.held_out import (
    TOKENS_PER_FORWARD,
    held_out_of_conversations,
    held_out_of_stream,
    rows_per_forward,
    stream_batches,
    summed_loss,
    token_nats,
)

CONFIG = ModelConfig(
    context=16, layers=1, width=32, heads=2, kv_heads=1, head_width=16, mlp_width=48
)
VOCAB, BOS = 61, 7


def make_model() -> GPT:
    model = GPT(CONFIG, VOCAB)
    initialise(model, 0)
    return model


def stream_of(count: int) -> TokenStream:
    tokens = np.random.default_rng(0).integers(0, VOCAB, count).astype(np.uint16)
    return TokenStream((tokens,), (0, count), text_bytes=3 * count)


def plain_nats(model: GPT, tokens: np.ndarray) -> tuple[float, int]:
    """Row by row in float64: nats and targets, BOS left out."""
    wide = GPT(CONFIG, VOCAB).double()
    wide.load_state_dict({name: tensor.double() for name, tensor in model.state_dict().items()})
    nats, targets = 0.0, 0
    for start in range(0, len(tokens) - 1, CONFIG.context):
        row = torch.from_numpy(tokens[start : start + CONFIG.context + 1].astype(np.int64))
        with torch.no_grad():
            log_probs = wide(row[None, :-1], torch.float64)[0].log_softmax(-1)
        for position, token in enumerate(row[1:].tolist()):
            if token != BOS:
                nats, targets = nats - float(log_probs[position, token]), targets + 1
    return nats, targets


@pytest.mark.parametrize("rows", [1, 3, 1000])
@pytest.mark.parametrize("count", [16 * 9 + 1, 16 * 9 + 6])
def test_every_target_but_bos_counts_once_however_rows_are_batched(rows: int, count: int) -> None:
    model, stream = make_model(), stream_of(count)
    want, targets = plain_nats(model, stream.slice(0, count))
    compute = open_runtime(RuntimeConfig(threads=2), CONFIG)
    got = summed_loss(model, stream_batches(stream, CONFIG.context, BOS, rows), compute)
    assert got[1] == targets
    assert got[0] == pytest.approx(want, rel=1e-6)


def test_bits_per_byte_are_of_the_raw_text() -> None:
    model, stream = make_model(), stream_of(200)
    nats, targets = plain_nats(model, stream.slice(0, 200))
    found = held_out_of_stream(
        model, stream, 900, BOS, open_runtime(RuntimeConfig(threads=1), CONFIG)
    )
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / 900, rel=1e-6)
    assert found.loss == pytest.approx(nats / targets, rel=1e-6)


@pytest.mark.parametrize("count", [0, 1, 16 * 9 + 1, 16 * 9 + 6, 10_000])
def test_losses_of_tokens_are_those_of_the_whole_stream(count: int) -> None:
    """One for each token, 0 where it is no target, and equal however many threads compute them."""
    model, stream = make_model(), stream_of(count)
    compute = open_runtime(RuntimeConfig(threads=2), CONFIG)
    nats = token_nats(model, stream, BOS, compute)
    tokens = stream.slice(0, count)
    assert nats.shape == (count,)
    assert not nats[tokens == BOS].any() and not nats[:1].any()
    want, _ = plain_nats(model, tokens)
    assert math.fsum(nats) == pytest.approx(want, rel=1e-6)
    again = token_nats(model, stream, BOS, open_runtime(RuntimeConfig(threads=2), CONFIG))
    assert again.tobytes() == nats.tobytes()
    if count == 16 * 9 + 6:
        part = tokens[32 : 32 + 17]  # one row
        alone = TokenStream((part,), (0, 17), text_bytes=0)
        row = token_nats(model, alone, BOS, compute)
        assert row[1:] == pytest.approx(nats[33:49], rel=1e-5)


def test_batch_of_a_processor_is_small() -> None:
    """Each core makes the logits of a batch of its own.

    At 16,384 tokens these once took most of an evaluation's memory.
    """
    model, tokens = make_model(), list[int]()
    model.register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0].numel()))
    held_out_of_stream(
        model, stream_of(10_000), 1, BOS, open_runtime(RuntimeConfig(threads=2), CONFIG)
    )
    assert max(tokens) == TOKENS_PER_FORWARD["cpu"] and sum(tokens) == 9_999


def test_one_row_is_a_batch_where_it_is_longer_than_any_batch_should_be() -> None:
    assert rows_per_forward(torch.device("cpu"), 1_000_000) == 1


def test_an_empty_held_out_set_has_no_loss() -> None:
    compute = open_runtime(RuntimeConfig(threads=1), CONFIG)
    found = held_out_of_stream(make_model(), stream_of(0), 0, BOS, compute)
    assert (found.loss, found.bits_per_byte) == (None, None)
    nothing = join_conversations([])
    assert held_out_of_conversations(make_model(), nothing, 0, compute).loss is None
