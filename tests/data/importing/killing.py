"""An import as a process of its own, killed at random moments until it is complete."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.data.builders import parquet_files
from tests.fake_hub import FakeHub

SOURCE = Path(__file__).parents[3] / "src"
ROWS = 1600
ANSWER_S = 0.02  # what the loopback Hub takes for a request, so that an import lasts a while


def slow_hub() -> FakeHub:
    hub = FakeHub()
    hub.add_dataset("owner/name", parquet_files(files=4, rows=400, group_rows=40))
    hub.fail(path="resolve/.*parquet", times=10**9, act=lambda: time.sleep(ANSWER_S))
    return hub


def start(folder: Path) -> subprocess.Popen[bytes]:
    arguments = [
        "hf-import",
        "--dataset",
        "owner/name",
        "--config",
        "cfg",
        "--max-rows",
        str(ROWS),
        "--connections",
        "2",
    ]
    arguments += [
        "--document-shard-rows",
        "50",
        "--min-chars",
        "1",
        "--out",
        str(folder / "corpus.txt"),
    ]
    code = (
        "import sys; from picochat.cli.main import run_command; sys.exit(run_command(['data',"
        " *sys.argv[1:]]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=environment, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said.decode()


def calm_import_s(folder: Path) -> float:
    """An undisturbed import into `folder`; returns the seconds it took."""
    begun = time.monotonic()
    finish(start(folder))
    return time.monotonic() - begun


def import_with_kills(folder: Path, kills: int, longest_s: float, choose: random.Random) -> int:
    """Start, kill at a random moment, start again, at most `kills` times, then let it finish.

    Returns the kills that hit.
    """
    hit = 0
    while hit < kills:
        process = start(folder)
        try:
            process.communicate(timeout=choose.uniform(0.4 * longest_s, longest_s))
            assert process.returncode == 0
            return hit
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            hit += 1
    finish(start(folder))
    return hit
