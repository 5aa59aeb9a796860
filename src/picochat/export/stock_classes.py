"""Maps our weights to stock classes: the tensors and the config.json of each flavor.

Stock classes have our block (one norm for attention and MLP, QK-norm before RoPE) only with
LayerNorm. On centred weights RMSNorm and LayerNorm are the same function (model/centred.py), so the
mapping only renames, adds zero biases, copies the gains to each head, and reorders rows for RoPE.
parity.py checks that the result computes the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from picochat.config import ModelConfig
from picochat.core.errors import BadInput, WrongUsage, did_you_mean

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class TokenIds:
    """The special tokens that a config names. `end`: of a reply; of a document in a base model."""

    bos: int
    end: int
    pad: int


@dataclass(frozen=True)
class Flavor:
    """A stock class that can hold the block.

    `tensors`: ours to theirs. `originals`: theirs to ours. `settings`: its own keys of config.json.
    """

    name: str
    architecture: str
    tensors: Callable[[Tensors, ModelConfig], dict[str, Tensor]]
    originals: Callable[[Tensors, ModelConfig], dict[str, Tensor]]
    settings: Callable[[ModelConfig], dict[str, object]]


def stablelm_tensors(ours: Tensors, model: ModelConfig) -> dict[str, Tensor]:
    """The tensors of StableLM.

    Its RoPE is half-split like ours. Its norms have a bias, and each head has its own QK gains.
    """
    theirs = {"model.embed_tokens.weight": ours["embedding.weight"]}
    theirs.update(_norm_with_zero_bias("model.norm", ours["norm.weight"]))
    for layer in range(model.layers):
        old, new = f"blocks.{layer}", f"model.layers.{layer}"
        theirs.update(_norm_with_zero_bias(f"{new}.input_layernorm", ours[f"{old}.norm.weight"]))
        theirs.update({f"{new}.{name}": ours[f"{old}.{key}"] for key, name in MATRICES})
        for side, heads in (("query", model.heads), ("key", model.kv_heads)):
            gain_D = ours[f"{old}.attention.{side}_norm.weight"]
            for head in range(heads):
                # A copy, because safetensors refuses tensors that share memory.
                theirs[f"{new}.self_attn.{side[0]}_layernorm.norms.{head}.weight"] = gain_D.clone()
    return theirs


def cohere_tensors(ours: Tensors, model: ModelConfig) -> dict[str, Tensor]:
    """The tensors of Cohere.

    Its RoPE pairs neighbours, so the rows of each query and key head are interleaved. Its norms
    have no bias.
    """
    theirs = {
        "model.embed_tokens.weight": ours["embedding.weight"],
        "model.norm.weight": ours["norm.weight"],
    }
    for layer in range(model.layers):
        old, new = f"blocks.{layer}", f"model.layers.{layer}"
        theirs[f"{new}.input_layernorm.weight"] = ours[f"{old}.norm.weight"]
        theirs.update({f"{new}.{name}": ours[f"{old}.{key}"] for key, name in MATRICES})
        for side, heads in (("query", model.heads), ("key", model.kv_heads)):
            matrix = f"{new}.self_attn.{side[0]}_proj.weight"
            theirs[matrix] = interleave(theirs[matrix], model.head_width)
            gain_D = interleave(ours[f"{old}.attention.{side}_norm.weight"], model.head_width)
            theirs[f"{new}.self_attn.{side[0]}_norm.weight"] = gain_D.repeat(heads, 1)
    return theirs


def stablelm_originals(theirs: Tensors, model: ModelConfig) -> dict[str, Tensor]:
    """Our tensors, from those of `stablelm_tensors`. Raises KeyError where one is missing."""
    ours = _matrices(theirs, model)
    for layer in range(model.layers):
        old, new = f"blocks.{layer}", f"model.layers.{layer}"
        for side in ("query", "key"):
            gain_D = theirs[f"{new}.self_attn.{side[0]}_layernorm.norms.0.weight"]
            ours[f"{old}.attention.{side}_norm.weight"] = gain_D
    return ours


def cohere_originals(theirs: Tensors, model: ModelConfig) -> dict[str, Tensor]:
    """Our tensors, from those of `cohere_tensors`. Raises KeyError where one is missing."""
    ours = _matrices(theirs, model)
    for layer in range(model.layers):
        old, new = f"blocks.{layer}.attention", f"model.layers.{layer}.self_attn"
        for side in ("query", "key"):
            ours[f"{old}.{side}.weight"] = uninterleave(
                theirs[f"{new}.{side[0]}_proj.weight"], model.head_width
            )
            ours[f"{old}.{side}_norm.weight"] = uninterleave(
                theirs[f"{new}.{side[0]}_norm.weight"][0], model.head_width
            )
    return ours


def _matrices(theirs: Tensors, model: ModelConfig) -> dict[str, Tensor]:
    """Our tensors that both flavors only rename."""
    ours = {
        "embedding.weight": theirs["model.embed_tokens.weight"],
        "norm.weight": theirs["model.norm.weight"],
    }
    for layer in range(model.layers):
        old, new = f"blocks.{layer}", f"model.layers.{layer}"
        ours[f"{old}.norm.weight"] = theirs[f"{new}.input_layernorm.weight"]
        ours.update({f"{old}.{key}": theirs[f"{new}.{name}"] for key, name in MATRICES})
    return ours


MATRICES: tuple[tuple[str, str], ...] = (
    # Ours in blocks.L, theirs in model.layers.L.
    ("attention.query.weight", "self_attn.q_proj.weight"),
    ("attention.key.weight", "self_attn.k_proj.weight"),
    ("attention.value.weight", "self_attn.v_proj.weight"),
    ("attention.out.weight", "self_attn.o_proj.weight"),
    ("mlp.gate.weight", "mlp.gate_proj.weight"),
    ("mlp.up.weight", "mlp.up_proj.weight"),
    ("mlp.down.weight", "mlp.down_proj.weight"),
)


def interleave(rows: Tensor, head_width: int) -> Tensor:
    """The rows of each head in the order 0, D/2, 1, D/2+1, ...: RoPE pairs become neighbours."""
    order_D = torch.arange(head_width).view(2, head_width // 2).T.reshape(-1)
    return rows.unflatten(0, (-1, head_width))[:, order_D].flatten(0, 1).contiguous()


def uninterleave(rows: Tensor, head_width: int) -> Tensor:
    """Undoes `interleave`."""
    order_D = torch.arange(head_width).view(head_width // 2, 2).T.reshape(-1)
    return rows.unflatten(0, (-1, head_width))[:, order_D].flatten(0, 1).contiguous()


def _norm_with_zero_bias(name: str, gain: Tensor) -> dict[str, Tensor]:
    return {f"{name}.weight": gain, f"{name}.bias": torch.zeros_like(gain)}


def stablelm_settings(model: ModelConfig) -> dict[str, object]:
    # transformers 4 reads the rotary keys at the top level, 5 those in rope_parameters. Both would
    # rotate a quarter of each head without partial_rotary_factor.
    return {
        "model_type": "stablelm",
        "use_parallel_residual": True,
        "qk_layernorm": True,
        "use_qkv_bias": False,
        "hidden_dropout": 0.0,
        "partial_rotary_factor": 1.0,
        "rope_theta": model.rope_theta,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": model.rope_theta,
            "partial_rotary_factor": 1.0,
        },
    }


def cohere_settings(model: ModelConfig) -> dict[str, object]:
    return {
        "model_type": "cohere",
        "use_qk_norm": True,
        "attention_bias": False,
        "logit_scale": 1.0,
        "rope_theta": model.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta},
    }


FLAVORS: tuple[Flavor, ...] = (
    Flavor(
        "stablelm", "StableLmForCausalLM", stablelm_tensors, stablelm_originals, stablelm_settings
    ),
    Flavor("cohere", "CohereForCausalLM", cohere_tensors, cohere_originals, cohere_settings),
)


def find_flavor(name: str) -> Flavor:
    """The flavor of that name. Raises WrongUsage if there is none."""
    for flavor in FLAVORS:
        if flavor.name == name:
            return flavor
    names = [flavor.name for flavor in FLAVORS]
    raise WrongUsage(
        f"there is no export flavor {name!r}{did_you_mean(name, names)}",
        fix=f"one of: {', '.join(names)}",
    )


def require_stock_shape(model: ModelConfig) -> None:
    """Raises BadInput if the heads do not fill the width: stock classes have no head_width."""
    if model.heads * model.head_width != model.width:
        raise BadInput(
            f"{model.heads} heads of {model.head_width} do not make the width {model.width}: no"
            " stock class holds that shape",
            fix="train a model whose model.heads x model.head_width is model.width",
        )


def stock_config(
    flavor: Flavor, model: ModelConfig, vocab_size: int, ids: TokenIds, dtype: str, version: str
) -> dict[str, object]:
    """The content of config.json. Keys that transformers 5 renamed have both names.

    dtype: `float32` or `bfloat16`. version: of transformers.
    """
    return {
        "architectures": [flavor.architecture],
        "vocab_size": vocab_size,
        "hidden_size": model.width,
        "intermediate_size": model.mlp_width,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": model.context,
        "layer_norm_eps": model.norm_eps,
        "tie_word_embeddings": True,
        "attention_dropout": 0.0,
        "initializer_range": model.init_std,
        "use_cache": True,
        "bos_token_id": ids.bos,
        "eos_token_id": ids.end,
        "pad_token_id": ids.pad,
        "dtype": dtype,
        "torch_dtype": dtype,
        "transformers_version": version,
        **flavor.settings(model),
    }
