"""One signal or two, in any stage: the exit code of the signal, no traceback, and the same command
goes on.
"""

from __future__ import annotations

import os
import pydoc_data.topics
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.run.test_own_data import SMALL, STEPS

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def stopped_at(
    command: list[str], marker: str, number: int, gap_s: float | None
) -> tuple[int, str]:
    """(exit code, output) of the command after one signal, or two, at the line of the marker."""
    process = subprocess.Popen(
        [sys.executable, "-m", "picochat.cli.main", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith(marker):
                break
        process.send_signal(number)
        if gap_s is not None:
            time.sleep(gap_s)
            process.send_signal(number)
        said += process.stdout.read()
    return process.wait(timeout=60), said


@pytest.mark.timeout(600)
def test_two_signals_in_any_stage_end_it_with_their_code_and_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICOCHAT_HOME", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("<|endoftext|>".join(pydoc_data.topics.topics.values()))
    command = ["run", "tiny", "--input", str(tmp_path / "text.txt"), "--train-anyway"]
    command += ["--out-dir", str(tmp_path / "run"), *SMALL, *STEPS]
    for marker, number, gap_s in (
        ("building corpus", signal.SIGTERM, 0.02),
        ("building tokenizer", signal.SIGINT, 0.0),
        ("building honesty", signal.SIGTERM, 0.0),
        ("building host", signal.SIGINT, 0.3),
        ("building base", signal.SIGTERM, 0.05),
        ("building scores", signal.SIGINT, 0.02),
        ("writing the export", signal.SIGTERM, None),
    ):
        code, said = stopped_at(command, marker, number, gap_s)
        assert (code, "Traceback" in said) == (CODES[number], False), f"{marker}\n{said}"
        assert marker in said and "what was finished is kept" in said
    whole = [sys.executable, "-m", "picochat.cli.main", *command]
    done = subprocess.run(whole, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "reused base" in done.stderr


def test_a_signal_whose_error_python_drops_ends_the_command_all_the_same() -> None:
    code = (
        "import os, signal, time, weakref\n"
        "from picochat.cli import main\n"
        "class Thing: pass\n"
        "def command(arguments):\n"
        "    signal.signal(signal.SIGTERM, main._stop)\n"
        "    thing = Thing()\n"
        "    kept = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))\n"
        "    del thing\n"
        "    time.sleep(1)\n"
        "    return 0\n"
        "main.run_command = command\n"
        "main.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 143 and "Traceback" not in done.stderr
    assert "what was finished is kept" in done.stderr
