"""Progress is plain lines in a pipe, the first at once, with rate and time left."""

import io
import os
import pty
import subprocess
import sys

from picochat.core.progress import Progress, track


def test_first_line_comes_with_the_first_unit_and_last_says_what_it_took() -> None:
    stream = io.StringIO()
    with Progress("encode", 10, "MB", stream=stream) as progress:
        for _ in range(10):
            progress.advance(1)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("encode: 1/10 MB 10%")
    assert lines[-1].startswith("encode: 10/10 MB 100%") and "took 0s" in lines[-1]
    assert "\r" not in stream.getvalue()


def test_a_total_that_was_passed_is_called_expected() -> None:
    progress = Progress("tokenizer", 10, "MB", stream=io.StringIO())
    progress.done = 10.01
    assert progress._line(final=False).startswith("tokenizer: 10/10 MB 100%")
    progress.done = 24.9
    assert progress._line(final=False).split(" | ")[0] == "tokenizer: 24.9 MB, 10 expected"
    assert "left" not in progress._line(final=False)


def test_items_pass_through() -> None:
    assert list(track([1, 2, 3], "x", 3, "items")) == [1, 2, 3]


def test_a_note_may_say_rate_and_time_left_itself() -> None:
    stream = io.StringIO()
    with Progress("base", 10, "steps", stream=stream, own_pace=False) as progress:
        progress.note = "5 tok/s | 3s left"
        progress.advance(4)
    assert stream.getvalue().splitlines()[0] == "base: 4/10 steps 40% | 5 tok/s | 3s left"


def test_on_a_terminal_a_line_is_never_wider_and_a_message_takes_its_place() -> None:
    code = """
from picochat.core.progress import Progress, say
with Progress("base", 10, "steps") as progress:
    progress.note = "x" * 300
    progress.advance(1)
    say("a message")
"""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "40", "TERM": "xterm"}
    environment.pop("CI", None)
    subprocess.run([sys.executable, "-c", code], stderr=theirs, env=environment, check=True)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "\r\x1b[Ka message" in shown
    assert (
        max(len(line.replace("\x1b[K", "")) for line in shown.replace("\r", "\n").split("\n")) == 39
    )
