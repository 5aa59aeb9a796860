"""Training state on disk: all that a resumed run needs to go on bit for bit. safetensors and JSON, published by rename.

A state is a folder `step-NNNNNNN` in the stage's workspace: weights, optimizer, and a record of step, spike watch and
curve length. The data order needs no state: it follows from seed and step. The two newest states are kept; a folder
without its record is an interrupted save and is ignored.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from picochat.core.records import Record, read_record, write_json

KEPT_STATES = 2


class StateRecord(Record):
    """`step` is the number of finished steps."""

    step: int
    spike_mean: float | None
    spike_seen: int
    spikes: int
    first_loss: float | None
    last_loss: float | None


@dataclass(frozen=True)
class SavedState:
    record: StateRecord
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def save_state(workspace: Path, record: StateRecord, weights: dict[str, Tensor], optimizer: dict[str, Tensor]) -> None:
    folder = workspace / f".step-{record.step:07d}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, folder / "weights.safetensors")
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in optimizer.items()}, folder / "optimizer.safetensors"
    )
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    write_json(folder / "state.json", record)
    final = workspace / f"step-{record.step:07d}"
    shutil.rmtree(final, ignore_errors=True)
    os.rename(folder, final)
    for old in saved_steps(workspace)[:-KEPT_STATES]:
        shutil.rmtree(old)


def saved_steps(workspace: Path) -> list[Path]:
    """Complete states, oldest first."""
    return sorted(path for path in workspace.glob("step-*") if (path / "state.json").exists())


def load_latest_state(workspace: Path) -> SavedState | None:
    states = saved_steps(workspace)
    if not states:
        return None
    folder = states[-1]
    record = read_record(StateRecord, folder / "state.json", "training state")
    return SavedState(record, load_file(folder / "weights.safetensors"), load_file(folder / "optimizer.safetensors"))
