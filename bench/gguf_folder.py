"""Makes a transformers folder of a GGUF file, in float32, for `picochat eval`.

    python bench/gguf_folder.py MODEL.gguf OUT

Needs `pip install 'picochat[hf]' gguf accelerate`. transformers reads architecture, weights,
tokenizer and chat template from the file; quantized weights become the float32 numbers that they
stand for, so the folder is the quantized model and not the one that it was made from. An
architecture that transformers does not read from GGUF is refused by it.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

NEEDED = ("transformers", "gguf", "accelerate")


def make_folder(gguf: Path, out: Path) -> None:
    """Write config, weights, tokenizer and chat template to `out`, which must not exist."""
    import transformers

    load: dict[str, Any] = {"gguf_file": gguf.name, "trust_remote_code": False}
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **load)
    if tokenizer.chat_template is None:
        sys.exit(f"{gguf} holds no chat template, which picochat eval needs")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        gguf.parent, dtype=torch.float32, **load
    )
    # The weights are no longer quantized, and a reader would look for the GGUF file again.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for attribute, value in (("hf_quantizer", None), ("is_quantized", False)):
        setattr(model, attribute, value)
    out.mkdir(parents=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    sha256 = hashlib.sha256(gguf.read_bytes()).hexdigest()
    parameters = sum(weight.numel() for weight in model.parameters())
    print(f"{type(model).__name__}, {parameters:,} parameters, of {gguf.name} (sha256 {sha256})")
    print(f"next: picochat eval {out} --dataset-pack PACK")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", type=Path, nargs="?")
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--quick", action="store_true", help="only say what is not installed")
    flags = parser.parse_args()
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(f"not installed: pip install {' '.join(missing)}")
    if not flags.quick:
        if flags.gguf is None or flags.out is None:
            parser.error("name the GGUF file and the folder to make")
        make_folder(flags.gguf, flags.out)
