"""The trainer of the tokenizer, which runs in a process of its own (`train_process`).

It imports `tokenizers` and nothing of picochat, so that the process starts in a tenth of a second.
"""

from __future__ import annotations

import ctypes
import signal
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import IO

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

SPECIALS: tuple[str, ...] = (
    "<|bos|>",  # before each document and each conversation
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",  # after each turn; stops generation
    "<|pad|>",
    "<|reserved_0|>",  # spare: a later special token must not move the other ids
    "<|reserved_1|>",
)
# Qwen2's split pattern. llama.cpp knows it by that name, and tiktoken can use it because it is a
# single regular expression. It splits numbers into single digits (`\p{N}`), because arithmetic is
# trained digit by digit. This costs 0.6 to 1.4% more tokens and no bits per byte
# (docs/decisions/0005).
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LEAST_MERGE_COUNT = 2  # a pair that appears once in the sample is no pattern
LENGTH = struct.Struct("<Q")
"""A text in the pipe: its length in bytes, then its bytes as UTF-8."""
PR_SET_PDEATHSIG = 1  # of Linux, sys/prctl.h


def untrained() -> tokenizers.Tokenizer:
    """A tokenizer with the split pattern and the bytes, without merges."""
    # No normalizer: decoding could not give the text back. No post-processor: our code adds special
    # tokens, and a reader that added bos too would put two before each text.
    tokenizer = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(SPLIT_PATTERN), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def trained_here(texts: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    """A tokenizer with up to `vocab_size` ids. Holds the interpreter lock until it is done."""
    tokenizer = untrained()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=LEAST_MERGE_COUNT,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def main() -> None:
    """Train on the texts of standard input, write the tokenizer.json to standard output."""
    # Ctrl-C reaches every process of the terminal. The caller reports it and kills this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        # A caller that is killed cannot kill this process, so the kernel shall.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    found = trained_here(_read(sys.stdin.buffer), int(sys.argv[1])).to_str(pretty=False)
    sys.stdout.buffer.write(found.encode("utf-8"))


def _read(stream: IO[bytes]) -> Iterator[str]:
    while head := stream.read(LENGTH.size):
        (length,) = LENGTH.unpack(head)
        yield stream.read(length).decode("utf-8")


if __name__ == "__main__":
    main()
