"""The comparison behind an export: what counts as a miss, and that the stage says what it could not
measure.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from picochat.core.publish import Artifact, open_artifact, publish
from picochat.core.records import digest_bytes, read_json, write_json
from picochat.export import parity
from picochat.export.export_record import misses
from picochat.export.parity import (
    Expected,
    greedy_shortfall,
    largest_difference,
    logits,
    measure_parity,
    round_up,
)
from picochat.facts import ParityFacts, facts_of
from picochat.model.weights import CheckpointInfo
from picochat.tokens.shards import ShardSidecar
from tests.builders import make_parity_report
from tests.export_builders import (
    MODEL,
    VOCAB_SIZE,
    make_checkpoint,
    make_model,
    make_tokenizer,
    shards_facts,
    tokenizer_bytes,
)


def expected() -> Expected:
    return Expected(
        ids_BT=np.zeros((2, 4), dtype=np.int64),
        token_source="x",
        text_ids=[],
        chat_ids=[],
        end_id=4,
    )


def make_shards(place: Path, tokens: int) -> Artifact:
    """Held-out and training shards of `tokens` seeded ids each."""
    ids = np.random.default_rng(3).integers(8, VOCAB_SIZE, size=tokens).astype("<u2")
    with publish(place, "shards", "key", {}) as staging:
        for split in ("train", "held_out"):
            name = f"{split}-00000"
            staging.path(f"{name}.bin").write_bytes(ids.tobytes())
            staging.path(f"{name}.starts").write_bytes(np.array([0], dtype="<i8").tobytes())
            sidecar = ShardSidecar(
                tokens=tokens,
                documents=1,
                text_bytes=tokens,
                sha256=digest_bytes(ids.tobytes()),
                tokenizer="t",
                roundtrip_documents=1,
                roundtrip_failures=0,
            )
            write_json(staging.path(f"{name}.json"), sidecar)
        staging.facts = shards_facts().model_dump(mode="json")
    return open_artifact(place, "shards")


def measure(sft: Artifact, root: Path, shards: Artifact) -> Artifact:
    with publish(root / "parity", "parity", "key", {}) as staging:
        measure_parity(sft, make_tokenizer(root / "tokenizer"), shards, staging)
    return open_artifact(root / "parity", "parity")


def test_the_stage_measures_on_held_out_tokens(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    sft = make_checkpoint(tmp_path / "sft")
    first = measure(sft, tmp_path, make_shards(tmp_path / "shards", 1_000))
    facts = facts_of(first, ParityFacts)
    assert facts.reader is not None
    assert facts.reader.startswith("transformers ")
    assert facts.largest_relative_difference is not None
    assert 0 <= facts.largest_relative_difference < 1e-5
    assert facts.greedy_tokens_equal
    report = read_json(first.path("export_report.json"))
    assert report["problem"] is None
    assert report["parity"]["token_source"] == "held-out text"


def test_weights_that_no_stock_class_holds_are_unmeasured_with_the_reason(tmp_path: Path) -> None:
    narrow = MODEL.model_copy(update={"head_width": 8})
    artifact = measure(
        make_checkpoint(tmp_path / "sft", make_model(narrow)),
        tmp_path,
        make_shards(tmp_path / "shards", 1_000),
    )
    facts = facts_of(artifact, ParityFacts)
    assert (facts.reader, facts.largest_relative_difference, facts.greedy_tokens_equal) == (
        None,
        None,
        None,
    )
    assert "3 heads of 8" in read_json(artifact.path("export_report.json"))["problem"]


def test_a_report_within_its_bounds_has_no_miss() -> None:
    assert misses(make_parity_report(), expected().end_id) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"largest_relative_difference": 1.1e-4}, "logits differ by 0.00011"),
        ({"largest_relative_difference": math.inf}, "logits differ by inf"),
        ({"largest_relative_difference": math.nan}, "logits differ by nan"),
        ({"greedy_largest_shortfall": 2e-4}, "greedy token"),
        ({"missing_keys": ["a", "b"]}, "lacks weights: a, b (2)"),
        ({"unexpected_keys": ["c"]}, "has too many weights: c (1)"),
        ({"texts_equal": False}, "tokenizer"),
        ({"chat_equal": False}, "chat template"),
        ({"end_id": 0}, "ends at token 0, ours at 4"),
    ],
)
def test_each_difference_alone_is_a_miss(change: dict[str, Any], words: str) -> None:
    found = misses(make_parity_report(**change), expected().end_id)
    assert len(found) == 1
    assert words in found[0].what


@given(st.floats(min_value=1e-30, max_value=1e30))
def test_rounding_up_keeps_two_digits_and_never_flatters(number: float) -> None:
    rounded = round_up(number)
    assert rounded >= number * (1 - 1e-6)
    assert rounded <= number * 1.1 * (1 + 1e-6)
    assert float(f"{rounded:.1e}") == rounded


def test_rounding_up_by_example() -> None:
    assert round_up(1.23e-6) == 1.3e-6
    assert round_up(1.2e-6) == 1.2e-6
    assert round_up(9.91) == 10.0
    assert round_up(0.0) == 0.0
    assert round_up(math.inf) == math.inf


def test_logits_that_are_not_numbers_differ_infinitely() -> None:
    good = np.ones((1, 2, 3), dtype=np.float32)
    bad = good.copy()
    bad[0, 1, 2] = math.nan
    assert largest_difference(good, bad) == math.inf
    assert largest_difference(good, good[:, :1]) == math.inf
    assert largest_difference(good, good + 0.5) == 0.5


def test_greedy_shortfall_is_zero_for_our_own_choice_and_the_gap_for_another() -> None:
    model = make_model()
    prompt = [0, 2, 9, 17]
    path = list(prompt)
    for _ in range(5):
        path.append(int(logits(model, np.array([path]))[0, -1].argmax()))
    ours = path[len(prompt) :]
    assert greedy_shortfall(model, prompt, ours) == 0.0
    last_V = np.sort(logits(model, np.array([path[:-1]]))[0, -1])
    second = int(np.argsort(logits(model, np.array([path[:-1]]))[0, -1])[-2])
    assert greedy_shortfall(model, prompt, [*ours[:-1], second]) == pytest.approx(
        last_V[-1] - last_V[-2], abs=1e-5
    )


def test_too_few_held_out_tokens_are_replaced_by_seeded_ids(tmp_path: Path) -> None:
    info = CheckpointInfo(
        model=MODEL,
        vocab_size=VOCAB_SIZE,
        tokenizer_digest=digest_bytes(tokenizer_bytes()),
        stage="sft",
        step=1,
    )
    make_tokenizer(tmp_path / "tokenizer")
    words = parity.read_tokenizer(tmp_path / "tokenizer" / "tokenizer.json")
    few = parity.expected_of(info, words, make_shards(tmp_path / "few", 100))
    none = parity.expected_of(info, words, None)
    assert few.token_source == none.token_source == "seeded random ids"
    assert np.array_equal(few.ids_BT, none.ids_BT)
    assert few.ids_BT.shape == (2, MODEL.context)
    assert (
        parity.expected_of(info, words, make_shards(tmp_path / "enough", 128)).token_source
        == "held-out text"
    )


def test_a_base_model_ends_at_the_next_document(tmp_path: Path) -> None:
    info = CheckpointInfo(
        model=MODEL, vocab_size=VOCAB_SIZE, tokenizer_digest="x", stage="base", step=1
    )
    make_tokenizer(tmp_path / "tokenizer")
    words = parity.read_tokenizer(tmp_path / "tokenizer" / "tokenizer.json")
    assert parity.expected_of(info, words, None).end_id == words.ids.bos


def test_rounding_to_bf16_happens_before_the_comparison() -> None:
    from picochat.export.model_folder import round_weights_

    model = make_model()
    round_weights_(model, "bf16")
    for parameter in model.parameters():
        assert torch.equal(parameter, parameter.to(torch.bfloat16).float())
