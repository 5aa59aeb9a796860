"""Loads an exported folder with transformers alone, as on another machine.

`python -m picochat.export.read_back FOLDER WORK` loads FOLDER with the Auto classes in float32,
answers WORK/questions.json, and writes WORK/logits.npy and WORK/answers.json, which parity.py
compares. It is a separate process so that it has no network, token or cache of the user.
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
    """Logits (B, T, V) of the questions' `ids`, and the other answers."""
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
    """`count` tokens by transformers' own generate and cache, without an end token."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=count, pad_token_id=prompt[0]
    )
    ids = torch.tensor([prompt])
    return model.generate(ids, attention_mask=torch.ones_like(ids))[0, len(prompt) :].tolist()


def chat_ids(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    """Token ids of the messages and the start of a reply, by the folder's chat template."""
    rendered = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True
    )
    return list(rendered["input_ids"])


def main(folder: Path, work: Path) -> None:
    warnings.simplefilter("ignore")  # deprecations inside transformers say nothing of the folder
    questions = json.loads((work / "questions.json").read_text(encoding="utf-8"))
    torch.set_num_threads(questions["threads"])
    logits_BTV, answers = answer(folder, questions)
    np.save(work / "logits.npy", logits_BTV)
    (work / "answers.json").write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
