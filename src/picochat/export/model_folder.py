"""Writes the files that other tools load: configs, weights, tokenizer and chat template.

The same checkpoint and tokenizer give the same bytes. transformers does not write these files,
because each of its two major versions writes files that the other misreads. parity.py compares the
folder with the model; release/hf.py publishes it.
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
from picochat.tokens.bpe_trainer import SPECIALS
from picochat.tokens.tokenizer import Tokenizer

TEMPLATE = "chat_template.jinja"
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}
LONGEST_REPLY_TOKENS = 256


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer.json and its chat template.

    ids, spelling: the special tokens that the other files name, and the text of each.
    """

    path: Path
    words: Tokenizer
    template: str
    digest: str
    ids: TokenIds
    spelling: Mapping[int, str]


def read_tokenizer(path: Path) -> TokenizerFiles:
    """The tokenizer at `path`, a copy in a run folder or the artifact's own file.

    Raises BadInput if it is not a picochat tokenizer or has no chat template.
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
    # The tokenizer.json at the top of a run folder has no template beside it; its artifact has.
    for folder in (tokenizer.parent, tokenizer.parent / "tokenizer"):
        if (folder / TEMPLATE).exists():
            return (folder / TEMPLATE).read_text(encoding="utf-8")
    raise BadInput(
        f"there is no {TEMPLATE} beside {tokenizer}", fix="name the tokenizer.json of a run folder"
    )


@torch.no_grad()
def round_weights_(model: GPT, dtype: str) -> None:
    """Round every weight in place to a value that `dtype` can hold; parameters stay float32."""
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

    model: with weights rounded to `dtype`, so that storing them loses nothing.
    dtype: a key of DTYPES.
    notes: metadata of the weights file; their names get the prefix `picochat.`.
    """
    write_settings(folder, info, tokenizer, flavor, dtype, metadata.version("transformers"))
    tensors = flavor.tensors(model.state_dict(), info.model)
    weights = {name: tensor.to(DTYPES[dtype]).contiguous() for name, tensor in tensors.items()}
    path = folder / "model.safetensors"
    save_file(
        weights,
        path,
        metadata={"format": "pt", **{f"picochat.{key}": value for key, value in notes.items()}},
    )
    sort_header(path)
    path.chmod(0o644)  # safetensors makes a file that only its owner can read
    return sum(tensor.numel() for tensor in weights.values())


def write_settings(
    folder: Path,
    info: CheckpointInfo,
    tokenizer: TokenizerFiles,
    flavor: Flavor,
    dtype: str,
    version: str,
) -> None:
    """Write every file but the weights. version: of transformers, as config.json states it."""
    ids = end_of(info, tokenizer.ids)
    config = stock_config(
        flavor,
        info.model,
        info.vocab_size,
        ids,
        dtype=str(DTYPES[dtype]).removeprefix("torch."),
        version=version,
    )
    (folder / "config.json").write_bytes(pretty_json(config))
    (folder / "generation_config.json").write_bytes(
        pretty_json(generation_config(ids, info.model.context))
    )
    _write_tokenizer(folder, tokenizer, ids, info.model.context)


def end_of(info: CheckpointInfo, ids: TokenIds) -> TokenIds:
    """The special tokens of this checkpoint.

    A base model never saw the end of a turn. Its text ends with the BOS of the next document.
    """
    return ids if info.stage == "sft" else TokenIds(bos=ids.bos, end=ids.bos, pad=ids.pad)


def generation_config(ids: TokenIds, context: int) -> dict[str, object]:
    """Greedy by default, because the scored replies were."""
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
        # transformers 5 writes a class name that 4 does not know. Both load this one.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        "padding_side": "left",
        # Old readers expect the template here, not in a file of its own.
        "chat_template": tokenizer.template,
    }
    (folder / "tokenizer.json").write_bytes(tokenizer.path.read_bytes())
    (folder / "tokenizer_config.json").write_bytes(pretty_json(config))
    (folder / "special_tokens_map.json").write_bytes(pretty_json(special))
    (folder / TEMPLATE).write_text(tokenizer.template, encoding="utf-8")


def sort_header(path: Path) -> None:
    """Sort the header of a safetensors file in place.

    safetensors orders the metadata anew at each call, so equal content would give different bytes.
    The file has 8 bytes with the header's length, the header (JSON, padded with spaces), the data.
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
