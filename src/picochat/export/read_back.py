"""Loads an exported folder with transformers alone, as another machine would.

`python -m picochat.export.read_back FOLDER WORK` loads FOLDER with the Auto classes in float32,
answers the questions in WORK/questions.json, and writes WORK/logits.npy and WORK/answers.json. It
is a program of its own because it must see nothing but the folder, and because transformers need
not be importable where picochat is. Judges nothing: export/parity.py does.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch


def answer(folder: Path, questions: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Logits (B, T, V) float32 of `ids`, and what else was asked.

    The rest is greedy tokens, text ids, chat ids, keys and versions.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
    )
    model, loading = loaded
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    with torch.no_grad():
        logits_BTV = model(torch.tensor(questions["ids"])).logits
    return logits_BTV.numpy(), {
        "reader": f"transformers {transformers.__version__}",
        "model_class": type(model).__name__,
        "missing_keys": sorted(loading["missing_keys"]),
        "unexpected_keys": sorted(loading["unexpected_keys"]),
        "end_id": model.generation_config.eos_token_id,
        "greedy_ids": greedy(model, questions["prompt"], questions["greedy_tokens"]),
        "text_ids": [
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in questions["texts"]
        ],
        "chat_ids": chat_ids(tokenizer, questions["messages"]),
    }


def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    """`count` tokens after the prompt by the reader's own generate, with its cache.

    Nothing ends the generation early.
    """
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=count, pad_token_id=prompt[0]
    )
    ids = torch.tensor([prompt])
    return model.generate(ids, attention_mask=torch.ones_like(ids))[0, len(prompt) :].tolist()


def chat_ids(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    """The messages by the folder's chat template, opened for a reply."""
    rendered = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True
    )
    return list(rendered["input_ids"])


def main(folder: Path, work: Path) -> None:
    warnings.simplefilter("ignore")  # a reader's own deprecations are no finding about the folder
    questions = json.loads((work / "questions.json").read_text(encoding="utf-8"))
    torch.set_num_threads(questions["threads"])
    logits_BTV, answers = answer(folder, questions)
    np.save(work / "logits.npy", logits_BTV)
    (work / "answers.json").write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
