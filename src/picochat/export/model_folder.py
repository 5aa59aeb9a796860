"""Writes the files that other tools load: configs, weights, tokenizer and chat template.

The configs are config.json and generation_config.json. The same checkpoint and tokenizer give the
same bytes. The files are not written by transformers, because each of its two major versions writes
files that the other misreads. Publishes nothing and compares nothing: that is release/hf.py and
export/parity.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from safetensors.torch import save_file

from picochat.core.errors import BadInput
from picochat.core.records import pretty_json
from picochat.export.stock_classes import Flavor, TokenIds, stock_config
from picochat.model.gpt import GPT
from picochat.model.weights import CheckpointInfo
from picochat.tokens.tokenizer import SPECIALS, Tokenizer

TEMPLATE = "chat_template.jinja"
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}
LONGEST_REPLY_TOKENS = 256


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer.json and its chat template, with the special tokens that the other files name."""

    path: Path
    words: Tokenizer
    template: str
    digest: str
    ids: TokenIds
    spelling: Mapping[int, str]


def read_tokenizer(path: Path) -> TokenizerFiles:
    """The tokenizer at `path` (RUN/tokenizer.json or the artifact's own).

    Raises BadInput where it is not one of ours.
    """
    words = Tokenizer.load(path)
    return TokenizerFiles(
        path=path,
        words=words,
        template=_template_of(path),
        digest=words.digest,
        ids=TokenIds(bos=words.bos, end=words.end, pad=words.pad),
        spelling=dict(enumerate(SPECIALS)),
    )


def _template_of(tokenizer: Path) -> str:
    """The chat template beside the file, or in the tokenizer artifact.

    A run's front page is a copy of the artifact's file, without the template beside it.
    """
    for place in (tokenizer.parent, tokenizer.parent / "tokenizer"):
        if (place / TEMPLATE).exists():
            return (place / TEMPLATE).read_text(encoding="utf-8")
    raise BadInput(
        f"there is no {TEMPLATE} beside {tokenizer}", fix="name the tokenizer.json of a run folder"
    )


@torch.no_grad()
def round_weights_(model: GPT, dtype: str) -> None:
    """Round every weight to `dtype` in place, so that the model is what the file will hold.

    float32 changes nothing.
    """
    for parameter in model.parameters():
        parameter.copy_(parameter.to(DTYPES[dtype]).float())


def write_model_folder(
    folder: Path,
    model: GPT,
    info: CheckpointInfo,
    tokenizer: TokenizerFiles,
    flavor: Flavor,
    dtype: str,
    notes: Mapping[str, str],
) -> int:
    """Write the files into `folder` and return how many numbers the weights file stores.

    notes: metadata with names that begin with `picochat.`.

    `model` must hold weights rounded to `dtype`, so that the conversion below loses nothing.
    """
    ids = end_of(info, tokenizer.ids)
    stored = "bfloat16" if dtype == "bf16" else dtype
    config = stock_config(
        flavor, info.model, info.vocab_size, ids, stored, metadata.version("transformers")
    )
    (folder / "config.json").write_bytes(pretty_json(config))
    (folder / "generation_config.json").write_bytes(
        pretty_json(generation_config(ids, info.model.context))
    )
    _write_tokenizer(folder, tokenizer, ids, info.model.context)
    tensors = flavor.tensors(model.state_dict(), info.model)
    weights = {name: tensor.to(DTYPES[dtype]).contiguous() for name, tensor in tensors.items()}
    path = folder / "model.safetensors"
    save_file(
        weights,
        path,
        metadata={"format": "pt", **{f"picochat.{key}": value for key, value in notes.items()}},
    )
    sort_header(path)
    path.chmod(0o644)  # the writer makes it private
    return sum(tensor.numel() for tensor in weights.values())


def end_of(info: CheckpointInfo, ids: TokenIds) -> TokenIds:
    """The ids of the tokens that begin, end and pad a text of this checkpoint.

    A base model never learnt to end a turn: its text ends with the bos of the next document.
    """
    return ids if info.stage == "sft" else TokenIds(bos=ids.bos, end=ids.bos, pad=ids.pad)


def generation_config(ids: TokenIds, context: int) -> dict[str, object]:
    """Greedy, as the replies that were scored: who wants samples asks for them."""
    return {
        "bos_token_id": ids.bos,
        "eos_token_id": ids.end,
        "pad_token_id": ids.pad,
        "do_sample": False,
        "max_new_tokens": min(LONGEST_REPLY_TOKENS, context // 2),
    }


def _write_tokenizer(folder: Path, tokenizer: TokenizerFiles, ids: TokenIds, context: int) -> None:
    special = {
        "bos_token": tokenizer.spelling[ids.bos],
        "eos_token": tokenizer.spelling[ids.end],
        "pad_token": tokenizer.spelling[ids.pad],
    }
    config: dict[str, object] = {
        **special,
        # v5 writes a class name that v4 does not know; this one loads in both
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        "padding_side": "left",
        # old readers look for the template here and not in its own file
        "chat_template": tokenizer.template,
    }
    (folder / "tokenizer.json").write_bytes(tokenizer.path.read_bytes())
    (folder / "tokenizer_config.json").write_bytes(pretty_json(config))
    (folder / "special_tokens_map.json").write_bytes(pretty_json(special))
    (folder / TEMPLATE).write_text(tokenizer.template, encoding="utf-8")


def sort_header(path: Path) -> None:
    """Put the header of a safetensors file in sorted order, in place.

    The writer of safetensors shuffles the metadata at every call, so two files with the same
    content would differ.

    The format is 8 bytes with the header's length, the header (JSON, padded with spaces), and the
    data.
    """
    with path.open("r+b") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
        ordered = json.dumps(
            header, sort_keys=True, separators=(",", ":"), ensure_ascii=False
        ).encode()
        assert len(ordered) <= size, "sorting a header cannot make it longer"
        stream.seek(8)
        stream.write(ordered.ljust(size, b" "))
