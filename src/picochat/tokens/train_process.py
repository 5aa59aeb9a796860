"""Trains a tokenizer in a process of its own, which the caller can stop at any time.

The trainer of `tokenizers` holds the interpreter lock until it is done, so that Ctrl-C and SIGTERM
would wait for minutes. Texts go to the process as they come, and its tokenizer.json comes back.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from typing import IO

from picochat.core.errors import HostProblem
from picochat.tokens.bpe_trainer import LENGTH

LONGEST_REASON = 300


def train_in_a_process(texts: Iterable[str], vocab_size: int) -> str:
    """The tokenizer.json that `bpe_trainer.trained_here` makes of the texts.

    Whatever ends the wait, also a signal, ends the process. Raises HostProblem if it fails.
    """
    command = [sys.executable, "-m", "picochat.tokens.bpe_trainer", str(vocab_size)]
    # A file, because a pipe that nobody reads would stop the process when it is full.
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
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
                raise _failure(process.returncode, errors, sent)
            return found.decode("utf-8")
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def _failure(exit_code: int, errors: IO[bytes], text_bytes: int) -> HostProblem:
    """How the process ended: by which signal, or with which error."""
    less_text = f"a smaller sample: --set tokenizer.train_bytes={max(1, text_bytes // 2)}"
    errors.seek(0)
    lines = errors.read().decode("utf-8", "replace").split("\n")
    reason = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    what = "the process that trains the tokenizer"
    if exit_code == -signal.SIGKILL:
        return HostProblem(f"{what} was killed, most often because memory ran out", fix=less_text)
    how = (
        f"ended by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"failed ({exit_code})"
    )
    return HostProblem(
        f"{what} {how}: {reason[:LONGEST_REASON]}", fix=f"if memory is short: {less_text}"
    )
