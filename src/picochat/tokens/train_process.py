"""Trains a tokenizer in a process of its own, which the caller can stop at any time.

The trainer of `tokenizers` holds the interpreter lock until it is done, so that Ctrl-C and SIGTERM
would wait for minutes. Texts go to the process as they come, and its tokenizer.json comes back.
"""

from __future__ import annotations

import ctypes
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import IO

from picochat.core.errors import HostProblem

LENGTH = struct.Struct("<Q")
PR_SET_PDEATHSIG = 1  # of Linux, sys/prctl.h


def train_in_a_process(texts: Iterable[str], vocab_size: int) -> str:
    """The tokenizer.json that `tokenizer.trained_here` makes of the texts.

    Whatever ends the wait, also a signal, ends the process. Raises HostProblem if it is killed.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "picochat.tokens.tokenizer", str(vocab_size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin and process.stdout
    try:
        sent = 0
        try:
            for text in texts:
                data = text.encode("utf-8")
                sent += len(data)
                process.stdin.write(LENGTH.pack(len(data)) + data)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended; its exit code says how
        found = process.stdout.read()
        if process.wait() != 0:
            raise HostProblem(
                "the process that trains the tokenizer was killed, most often because memory ran"
                " out",
                fix=f"a smaller sample: --set tokenizer.train_bytes={max(1, sent // 2)}",
            )
        return found.decode("utf-8")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def answer(train: Callable[[Iterable[str], int], str]) -> None:
    """Be the process: train on the texts of standard input, write the result to standard output."""
    # Ctrl-C reaches every process of the terminal. The caller reports it and kills this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        # A caller that is killed cannot kill this process, so the kernel shall.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    found = train(_read(sys.stdin.buffer), int(sys.argv[1]))
    sys.stdout.buffer.write(found.encode("utf-8"))


def _read(stream: IO[bytes]) -> Iterator[str]:
    while head := stream.read(LENGTH.size):
        (length,) = LENGTH.unpack(head)
        yield stream.read(length).decode("utf-8")
