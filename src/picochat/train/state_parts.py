"""The tensors of a state as the parts of several processes hold them: under which names, and read
whole by one process.

Knows no folder of states and no record (train/checkpoint.py), nor who holds which part
(train/sharded_states.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

IN_WEIGHTS, IN_OPTIMIZER = "weights/", "optimizer/"


def whole_tensors(parts: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(weights, optimizer state), whole, read by this process alone."""
    reader = HuggingFaceStorageReader(str(parts))
    tensors = {
        name: torch.empty(stored.size, dtype=stored.properties.dtype)
        for name, stored in reader.read_metadata().state_dict_metadata.items()
        if isinstance(stored, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "torch.distributed is disabled", UserWarning
        )  # that is what no_dist asks for
        load(tensors, storage_reader=reader, no_dist=True)
    return parted(tensors)


def joined(weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> dict[str, Any]:
    """Weights and optimizer state under one set of names."""
    kinds = ((IN_WEIGHTS, weights), (IN_OPTIMIZER, optimizer))
    return {
        prefix + name: tensor.detach()
        for prefix, tensors in kinds
        for name, tensor in tensors.items()
    }


def parted(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(weights, optimizer state) of what `joined` put together."""

    def below(prefix: str) -> dict[str, Tensor]:
        return {
            name[len(prefix) :]: tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }

    return below(IN_WEIGHTS), below(IN_OPTIMIZER)
