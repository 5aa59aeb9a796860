"""Checkpoint folders: the weights as safetensors, and a record that describes them. No pickle.

`model.safetensors` holds float32 tensors under the names of GPT's parameters; `model.json` is a
`CheckpointInfo`. Does not hold what resuming needs (train/checkpoint.py does).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from picochat.config import ModelConfig
from picochat.core.errors import BadInput
from picochat.core.records import Record, read_record, write_atomic, write_json
from picochat.model.gpt import GPT

WEIGHTS = "model.safetensors"
INFO = "model.json"


class CheckpointInfo(Record):
    """Describes the weights beside it.

    `tokenizer_digest`: sha256 of the tokenizer.json that they were trained with.
    """

    model: ModelConfig
    vocab_size: int
    tokenizer_digest: str
    stage: Literal["base", "sft"]
    step: int


def save_model(model: GPT, info: CheckpointInfo, folder: Path) -> None:
    """Write the weights in float32, and the record beside them."""
    write_atomic(folder / WEIGHTS, weights_bytes(model.state_dict()))
    write_json(folder / INFO, info)


def weights_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """The weights file of these tensors: equal tensors give equal bytes."""
    ours = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
    return save(ours, metadata={"format": "pt"})


RESTORE = "restore the file, or move the checkpoint away and train it again"


def read_info(place: Path) -> CheckpointInfo:
    """The record beside the weights. Raises BadInput where `place` is not a checkpoint folder."""
    if not (place / INFO).exists():
        raise BadInput(
            f"{place} is not a checkpoint: it has no {INFO}",
            fix="name a folder such as RUN/sft/checkpoint",
        )
    return read_record(CheckpointInfo, place / INFO, "checkpoint record")


def load_model(place: Path, device: torch.device | str = "cpu") -> tuple[GPT, CheckpointInfo]:
    """The model of a checkpoint folder, in float32.

    Raises BadInput for a damaged file, for weights of another shape, and for NaN and infinity.
    """
    info = read_info(place)
    model = GPT(info.model, info.vocab_size)
    try:
        tensors = load_file(place / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{place / WEIGHTS} cannot be read: {error}", fix=RESTORE) from None
    # Compared here, because the message of load_state_dict lists every name and does not name the
    # file.
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != found:
        wrong = sorted(
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        )
        raise BadInput(
            f"{place / WEIGHTS} does not fit its {INFO}: {', '.join(wrong[:5])}", fix=RESTORE
        )
    broken = sorted(name for name, tensor in tensors.items() if not tensor.isfinite().all())
    if broken:
        raise BadInput(
            f"{place / WEIGHTS} holds values that are not finite: {', '.join(broken[:5])}",
            fix=RESTORE,
        )
    model.load_state_dict(tensors)
    return model.to(device), info


def check_tokenizer(info: CheckpointInfo, tokenizer_digest: str, place: Path) -> None:
    """Raises BadInput where the weights were trained with another tokenizer."""
    if info.tokenizer_digest != tokenizer_digest:
        raise BadInput(
            f"checkpoint {place} was trained with another tokenizer ({info.tokenizer_digest[:12]},"
            f" this is {tokenizer_digest[:12]})",
            fix="use the tokenizer.json of the run that made the checkpoint",
        )
