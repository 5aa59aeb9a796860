"""A step's rows: each token a target once per epoch, the same rows wherever they are cut."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from picochat.config import SftConfig
from picochat.model.gpt import IGNORED_TARGET
from picochat.tokens.chat_format import Conversations
from picochat.tokens.row_order import rows_of_step
from picochat.tokens.shards import TokenStream
from picochat.train.loader import (
    DeviceLoader,
    HostLoader,
    Loader,
    next_token_batch,
    sft_batch,
    stream_loader,
)

CONTEXT = 16
CPU = torch.device("cpu")


def stream_of(tokens: np.ndarray, shards: int) -> TokenStream:
    """`tokens` as a stream of `shards` pieces of uneven length."""
    cuts = np.linspace(0, len(tokens), shards + 1).astype(int)
    cuts[1:-1] += np.arange(shards - 1) * 3
    parts = tuple(tokens[a:b].astype(np.uint16) for a, b in itertools.pairwise(cuts))
    return TokenStream(parts, tuple(int(cut) for cut in cuts), text_bytes=len(tokens))


def loaders_of(stream: TokenStream, rows_per_step: int) -> list[Loader]:
    return [
        stream_loader(stream, CONTEXT, rows_per_step, 3, CPU),
        DeviceLoader(stream, CONTEXT, rows_per_step, 3, CPU),
    ]


@pytest.mark.parametrize("which", [0, 1])
def test_every_training_token_is_a_target_exactly_once_per_epoch(which: int) -> None:
    """Each token is its position; in each of two epochs all but the first and the tail come."""
    stream = stream_of(np.arange(60_000), shards=5)
    rows = stream.row_count(CONTEXT)
    rows_per_step = 23
    assert rows % rows_per_step == 0, "epochs end with a step here"
    loader = loaders_of(stream, rows_per_step)[which]
    for epoch in range(2):
        seen: Counter[int] = Counter()
        for step in range(epoch * rows // rows_per_step, (epoch + 1) * rows // rows_per_step):
            batch = loader.batch(step)
            assert torch.equal(batch.targets_BT, batch.ids_BT + 1), (
                "the token after each input is its target"
            )
            assert batch.target_count == batch.targets_BT.numel()
            seen.update(batch.targets_BT.flatten().tolist())
        assert set(seen.values()) == {1} and sorted(seen) == list(range(1, rows * CONTEXT + 1))
    loader.close()


def test_rows_cut_on_the_device_are_those_cut_on_the_host() -> None:
    """Ids of all 16 bits, steps across the end of an epoch, rows that lie in two shards."""
    stream = stream_of(np.random.default_rng(0).integers(0, 65_536, 5_000), shards=7)
    host, device = loaders_of(stream, rows_per_step=13)
    for step in (0, 1, 2, 23, 24, 25, 1_000):
        a, b = host.batch(step), device.batch(step)
        assert (
            torch.equal(a.ids_BT, b.ids_BT)
            and torch.equal(a.targets_BT, b.targets_BT)
            and a.target_count == b.target_count
        )
        block = next_token_batch(
            stream, rows_of_step(step, 13, stream.row_count(CONTEXT), 3), CONTEXT
        )
        assert torch.equal(block.ids_BT, a.ids_BT)
    host.close()


def test_rows_made_ahead_are_those_asked_for() -> None:
    asked: list[int] = []

    def batch_of(step: int):
        asked.append(step)
        return next_token_batch(stream_of(np.arange(100) + step, 1), np.arange(2), 16)

    loader = HostLoader(batch_of, CPU, fixed_shape=True)
    for step in (0, 1, 2, 7, 3):
        assert int(loader.batch(step).ids_BT[0, 0]) == step
    loader.close()
    assert {0, 1, 2, 3, 7} <= set(asked)


def test_trouble_in_the_thread_that_makes_rows_is_raised_where_they_are_asked_for() -> None:
    def batch_of(step: int):
        raise OSError("the disk is gone")

    loader = HostLoader(batch_of, CPU, fixed_shape=True)
    with pytest.raises(OSError, match="the disk is gone"):
        loader.batch(0)
    loader.close()


def test_an_sft_step_has_conversations_and_then_text_of_their_length() -> None:
    """Six conversations of 40 tokens, whose last ten are targets, beside a stream of positions."""
    chats = Conversations(
        tokens=np.arange(240, dtype=np.uint16),
        targets=np.tile(np.arange(40) >= 30, 6),
        offsets=np.arange(7) * 40,
    )
    text = stream_of(np.arange(1_000, 3_000), shards=3)
    alone = SftConfig(steps=9, sequences_per_step=3)
    mixed = SftConfig(steps=9, sequences_per_step=5, text_sequences=2)
    seen: set[int] = set()
    for step in range(9):
        chat = sft_batch(step, chats, None, alone, 0, 64, 3)
        both = sft_batch(step, chats, text, mixed, 0, 64, 3)
        assert torch.equal(both.ids_BT[:3], chat.ids_BT)
        assert torch.equal(both.targets_BT[:3], chat.targets_BT)
        shown = both.ids_BT[3:]
        assert shown.shape == (2, 64) and int(shown.min()) >= 1_000
        assert torch.equal(both.targets_BT[3:], shown + 1), "every token of text is a target"
        assert both.target_count == chat.target_count + 128
        assert both.target_count == int((both.targets_BT != IGNORED_TARGET).sum())
        seen |= set(shown[:, 0].tolist())
    assert len(seen) == 18, "each step has other text"


def test_an_sft_step_of_text_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="must be smaller than sequences_per_step"):
        SftConfig(steps=1, sequences_per_step=4, text_sequences=4)
