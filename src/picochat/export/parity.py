"""Compares an exported folder, read by transformers without our classes, with the model.

All logits are compared, because wrong exports load without a warning and agree on most best tokens.
Both sides compute in float32: in bf16, two correct implementations differ by more than a wrong one
does in float32. Tokenizer, chat template and greedy generation are compared too. This covers the
installed version of transformers and no other engine.

Shape suffixes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from picochat.core.errors import BadInput, CheckFailed, HostProblem, PicochatError, Problem
from picochat.core.progress import say
from picochat.core.publish import Artifact, StagingFolder
from picochat.core.records import write_json
from picochat.export.export_record import (
    BOUNDS,
    EXPORT_RECORD,
    ROWS,
    TEXTS,
    ParityReport,
    facts_from,
    greedy_tokens,
    prompt_tokens,
    row_tokens,
)
from picochat.export.model_folder import TokenizerFiles, end_of, read_tokenizer, write_model_folder
from picochat.export.stock_classes import find_flavor, require_stock_shape
from picochat.model.gpt import GPT
from picochat.model.weights import CheckpointInfo, load_model, read_info
from picochat.skills.task_rows import Message
from picochat.tokens.chat_format import render_prompt
from picochat.tokens.shards import TokenStream, open_shards

READER_TIMEOUT_S = 1800
READER_FIX = "pip install 'picochat[hf]'"

MESSAGES = (
    Message(role="user", content="What is 17 + 25?"),
    Message(role="assistant", content="17 + 25 = 42\nFinal answer: 42"),
    Message(role="user", content="Spell the word tree.\n"),
)


@dataclass(frozen=True)
class Expected:
    """Our side of the comparison.

    ids_BT: tokens to compute logits for.
    text_ids, chat_ids: TEXTS and MESSAGES as token ids.
    end_id: the token that ends generation.
    """

    ids_BT: np.ndarray
    token_source: str
    text_ids: list[list[int]]
    chat_ids: list[int]
    end_id: int


def expected_of(
    info: CheckpointInfo, tokenizer: TokenizerFiles, shards: Artifact | None
) -> Expected:
    """Our side, on held-out tokens; on seeded random ids if `shards` has none or too few."""
    held_out = rows_of(open_shards(shards).held_out, info.model.context) if shards else None
    return Expected(
        ids_BT=random_tokens(info.vocab_size, info.model.context) if held_out is None else held_out,
        token_source="seeded random ids" if held_out is None else "held-out text",
        text_ids=tokenizer.words.encode_many(TEXTS),
        chat_ids=render_prompt(tokenizer.words, MESSAGES),
        end_id=end_of(info, tokenizer.ids).end,
    )


def measure_parity(
    sft: Artifact, tokenizer: Artifact, shards: Artifact, staging: StagingFolder
) -> None:
    """The parity stage: compare a temporary float32 export of the checkpoint with the model.

    Without transformers, or if the weights cannot be exported, the report states the reason and no
    measurement. The run keeps its other evidence.
    """
    report, problem = None, None
    try:
        report = _measure(sft, read_tokenizer(tokenizer.path("tokenizer.json")), shards)
    except PicochatError as error:
        problem = " ".join((error.what, *(item.what for item in error.problems)))
        say(f"export parity is not measured: {problem}")
    write_json(staging.path(EXPORT_RECORD), {"problem": problem, "parity": report})
    facts = facts_from(staging.folder, {"tokenizer": tokenizer})
    staging.facts = facts.model_dump(mode="json")


def _measure(sft: Artifact, tokenizer: TokenizerFiles, shards: Artifact) -> ParityReport:
    require_reader()
    require_stock_shape(read_info(sft.place).model)
    say("writing the export, and reading it back with transformers")
    model, info = load_model(sft.place)
    return compare_export(model, info, tokenizer, shards)


def compare_export(
    model: GPT, info: CheckpointInfo, tokenizer: TokenizerFiles, shards: Artifact | None
) -> ParityReport:
    """Export `model` in float32 into a temporary folder and compare it."""
    with tempfile.TemporaryDirectory(prefix="picochat-parity-") as name:
        write_model_folder(
            Path(name), model, info, tokenizer, find_flavor("stablelm"), "float32", notes={}
        )
        return compare(model, Path(name), "float32", expected_of(info, tokenizer, shards))


def reader_installed() -> bool:
    """Whether transformers can be imported. Does not import it."""
    return importlib.util.find_spec("transformers") is not None


def require_reader() -> None:
    """Raises BadInput if transformers is not installed."""
    if not reader_installed():
        raise BadInput(
            "an export is read back before it is published, and transformers is not installed",
            fix=READER_FIX,
        )


def random_tokens(vocab_size: int, context: int) -> np.ndarray:
    """Seeded random ids (B, T)."""
    shape = (ROWS, row_tokens(context))
    return np.random.default_rng(0).integers(0, vocab_size, size=shape, dtype=np.int64)


def rows_of(stream: TokenStream, context: int) -> np.ndarray | None:
    """The first tokens of the stream as (B, T); None if there are too few."""
    length = row_tokens(context)
    if len(stream) < ROWS * length:
        return None
    return stream.slice(0, ROWS * length).astype(np.int64).reshape(ROWS, length)


def compare(model: GPT, folder: Path, dtype: str, expected: Expected) -> ParityReport:
    """Measure the differences between the folder, read back by transformers, and `model`.

    model: with the weights that the folder stores, in float32.

    Raises CheckFailed if transformers cannot read the folder. `misses` judges the report.
    """
    prompt = expected.ids_BT[0, : prompt_tokens(model.config.context)].tolist()
    questions = {
        "ids": expected.ids_BT.tolist(),
        "prompt": prompt,
        "greedy_tokens": greedy_tokens(model.config.context),
        "texts": TEXTS,
        "messages": MESSAGES,
        "threads": torch.get_num_threads(),
    }
    theirs_BTV, answers = _ask_reader(folder, questions)
    ours_BTV = logits(model, expected.ids_BT)
    largest_logit = float(np.abs(ours_BTV).max())
    difference = largest_difference(ours_BTV, theirs_BTV)
    shortfall = greedy_shortfall(model, prompt, answers["greedy_ids"])
    return ParityReport(
        reader=answers["reader"],
        model_class=answers["model_class"],
        dtype=dtype,
        token_source=expected.token_source,
        tokens_compared=int(expected.ids_BT.size),
        best_token_differs=int((ours_BTV.argmax(-1) != theirs_BTV.argmax(-1)).sum()),
        largest_logit=round_up(largest_logit),
        largest_difference=round_up(difference),
        largest_relative_difference=round_up(difference / largest_logit),
        bound=BOUNDS[dtype],
        greedy_tokens=len(answers["greedy_ids"]),
        greedy_tokens_equal=shortfall == 0.0,
        greedy_largest_shortfall=round_up(shortfall / largest_logit),
        missing_keys=answers["missing_keys"],
        unexpected_keys=answers["unexpected_keys"],
        texts_compared=len(TEXTS),
        texts_equal=answers["text_ids"] == expected.text_ids,
        chat_equal=answers["chat_ids"] == expected.chat_ids,
        end_id=answers["end_id"],
    )


@torch.no_grad()
def logits(model: GPT, ids_BT: np.ndarray) -> np.ndarray:
    """Our logits (B, T, V) in float32."""
    return model(torch.from_numpy(ids_BT)).float().numpy()


def largest_difference(ours_BTV: np.ndarray, theirs_BTV: np.ndarray) -> float:
    """Largest |difference| of two sets of logits; infinite if it is not finite or shapes differ."""
    if ours_BTV.shape != theirs_BTV.shape:
        return math.inf
    difference = float(np.abs(ours_BTV - theirs_BTV).max())
    return difference if math.isfinite(difference) else math.inf


def greedy_shortfall(model: GPT, prompt: Sequence[int], theirs: Sequence[int]) -> float:
    """The largest gap, along the reader's tokens, between our best logit and that of its token.

    A gap of 0 shows in one pass that we generate the same tokens. The result is a number and not a
    comparison of tokens because of ties: two logits can be equal to within rounding.
    """
    ids = np.array([[*prompt, *theirs[:-1]]], dtype=np.int64)
    logits_TV = logits(model, ids)[0, len(prompt) - 1 :]
    chosen_T = logits_TV[np.arange(len(theirs)), list(theirs)]
    return float((logits_TV.max(-1) - chosen_T).max())


def round_up(number: float) -> float:
    """The number rounded up to two significant digits; infinity and NaN stay.

    Further digits depend on the number of threads. Upward, so that no published difference is
    smaller than the measured one.
    """
    if number <= 0 or not math.isfinite(number):
        return number
    exponent = math.floor(math.log10(number)) - 1
    # The division leaves an error in the last bits, which would lift an exact 12 to 13.
    digits = math.ceil(round(number / 10.0**exponent, 6))
    return float(f"{digits}e{exponent}")


def _ask_reader(folder: Path, questions: dict[str, object]) -> tuple[np.ndarray, dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="picochat-read-back-") as name:
        work = Path(name)
        write_json(work / "questions.json", questions)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "picochat.export.read_back", str(folder.resolve()), name],
                env=_reader_environment(work),
                capture_output=True,
                text=True,
                timeout=READER_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise HostProblem(
                f"reading the export back took longer than {READER_TIMEOUT_S} s",
                fix="run the same command again when the machine has less to do",
            ) from None
        if done.returncode != 0:
            last_lines = [line for line in done.stderr.splitlines() if line.strip()][-3:]
            raise CheckFailed(
                "transformers cannot read the export back",
                problems=[Problem(line) for line in last_lines],
            )
        answers = json.loads((work / "answers.json").read_text(encoding="utf-8"))
        return np.load(work / "logits.npy"), answers


def _reader_environment(home: Path) -> dict[str, str]:
    """Without network, token and the user's cache, so that only the folder can be read."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING_FACE", "TRANSFORMERS_"))
    }
    return {
        **kept,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(home / "home"),
        "CUDA_VISIBLE_DEVICES": "",
    }
