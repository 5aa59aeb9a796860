"""Standard streams outlast their readers: no work is lost because a pipe was closed, and every text
can be written.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from picochat.cli.main import run_command
from picochat.train.signals import DeferredSignals
from tests.small_pack import make_pack
from tests.train.builders import begin_run, small_config

CLI = [sys.executable, "-m", "picochat.cli.main"]


TRAIN = """
import sys
from pathlib import Path
from picochat.cli.main import run_command
from picochat.cli.streams import outlast_readers
from picochat.cli import data
from picochat.run.folder import RunDir
from tests.train.builders import small_config, train_base

@data.app.command("train")
def train():
    train_base(RunDir(Path(sys.argv[1])), small_config(steps=1_000_000, eval_every=None))

outlast_readers()
sys.exit(run_command(["data", "train"]))
"""


def test_ctrl_c_that_ends_tee_first_still_saves_the_training(tmp_path: Path) -> None:
    """What `2>&1 | tee log` is when Ctrl-C reaches all of the pipe: tee is gone before picochat
    says that it stops.
    """
    run = begin_run(tmp_path / "run", small_config())
    command = [sys.executable, "-c", TRAIN, str(run.root)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as training:
        assert training.stdout is not None
        heard = next((line for line in training.stdout if "| loss" in line), None)
        assert heard, "training ended before it said anything"
        training.stdout.close()
        training.send_signal(signal.SIGINT)
        assert training.wait(timeout=60) == 130
    assert list((run.root / "base" / "checkpoint.work").glob("step-*")), "the state was not saved"


def test_closed_terminal_is_noted_like_ctrl_c_and_left_alone_under_nohup() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with DeferredSignals(lambda: None) as late:
            os.kill(os.getpid(), signal.SIGHUP)
        assert late.number == signal.SIGHUP
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with DeferredSignals(lambda: None) as late:
            os.kill(os.getpid(), signal.SIGHUP)
        assert late.number is None
        assert run_command(["scales"]) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


def test_reader_that_has_seen_enough_is_no_error() -> None:
    with subprocess.Popen(
        [*CLI, "scales", "--keys"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None and command.stderr is not None
        assert command.stdout.readline().startswith("setting")
        command.stdout.close()
        assert command.stderr.read() == ""
        assert command.wait(timeout=60) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_full_disk_under_standard_output_is_said_once() -> None:
    with open("/dev/full", "w") as full:
        found = subprocess.run(
            [*CLI, "scales"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (found.returncode, found.stderr.splitlines()[0]) == (
        1,
        "the disk is full; what was finished is kept (exit 1)",
    )
    assert "Traceback" not in found.stderr


def test_terminal_without_unicode_gets_escapes_and_json_stays_json(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "Äpfel")
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [
        *CLI,
        "data",
        "preview",
        "--dataset-pack",
        str(pack),
        "--scale",
        "tiny",
        "--json",
        "--html",
        str(pack.parent / "x"),
    ]
    found = subprocess.run(command, capture_output=True, env=ascii_only, check=True)
    assert json.loads(found.stdout.decode())["schema_version"]
    assert b"\\xc4pfel" in found.stderr


SPEAKS = """
import os, signal, sys
from picochat.cli.streams import outlast_readers
from picochat.core.progress import say, say_in_handler

outlast_readers()
for number in range(2_000):
    if number == 1_000:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        signal.signal(signal.SIGALRM, lambda *_: say_in_handler("stopping"))
    say(f"line {number}")
signal.setitimer(signal.ITIMER_REAL, 0)
say("whole")
"""


def test_a_handler_may_speak_in_the_middle_of_a_line_that_is_being_written() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SPEAKS], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-500:]
    lines = done.stderr.splitlines()
    assert lines.count("stopping") > 0 and lines[-1] == "whole"
    assert [line for line in lines if line.startswith("line")] == [
        f"line {number}" for number in range(2_000)
    ]
