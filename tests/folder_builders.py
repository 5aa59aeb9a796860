"""Small model folders as transformers writes them: a random Llama with a tokenizer of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from picochat.config import ModelConfig
from picochat.export.model_folder import read_tokenizer, write_model_folder
from picochat.export.stock_classes import find_flavor
from picochat.model.gpt import GPT
from picochat.model.weights import CheckpointInfo
from picochat.skills.mixture import make_rows
from tests.export_builders import MODEL, VOCAB_SIZE, make_model, make_tokenizer

CONTEXT = 192
OWN_MODEL = ModelConfig.model_validate({**MODEL.model_dump(), "context": CONTEXT})
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('no system turn, please') }}{% endif %}"
    "{{ '<s>[' + message['role'] + '] ' + message['content'] + '</s>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<s>[assistant] ' }}{% endif %}"
)


def make_llama(folder: Path, **changes: Any) -> Path:
    """A random Llama of 2 layers. Its tokenizer puts BOS before a text, and its generation config
    would sample, punish repetition and stop early.
    """
    import transformers

    tokenizer = _tokenizer()
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "initializer_range": 0.4,
        **changes,
    }
    torch.manual_seed(7)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))
    model.generation_config = transformers.GenerationConfig(
        do_sample=True,
        temperature=2.0,
        repetition_penalty=3.0,
        max_length=24,
        bos_token_id=0,
        eos_token_id=[1, 40],
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    import tokenizers
    import transformers

    words = tokenizers.Tokenizer(tokenizers.models.BPE())
    words.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sft, _ = make_rows("release_skills", 200, 50, "scratchpad", 1)
    words.train_from_iterator([f"{row.user}\n{row.assistant}" for row in sft], trainer)
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE
    )


def make_export(work: Path, model: GPT | None = None) -> Path:
    """The files that `export hf` writes of a small model with random weights."""
    tokenizer = read_tokenizer(make_tokenizer(work / "tokenizer").path("tokenizer.json"))
    model = model or make_model(OWN_MODEL)
    info = CheckpointInfo(
        model=model.config,
        vocab_size=VOCAB_SIZE,
        tokenizer_digest=tokenizer.digest,
        stage="sft",
        step=1,
    )
    folder = work / "model"
    folder.mkdir()
    write_model_folder(folder, model, info, tokenizer, find_flavor("stablelm"), "float32", {})
    return folder
