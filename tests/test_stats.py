"""The figures of `make stats`, on a tree small enough to count by hand."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[1] / "bench"

ONE = '''"""A module."""

from picochat.b.name import helper


# a reason
def caller() -> int:  # noqa: X
    """Return a sum that is
    told on two lines.
    """

    def inner(x: int) -> int:
        return x

    return helper(1) + inner(2) + inner(3)
'''
OTHER = """class Pair:
    left: int
    right: int


def helper(x: int) -> int:
    return x + 1


VALUES = [{}]
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    package = tmp_path / "src" / "picochat"
    for path, text in (
        (package / "a" / "name.py", ONE),
        (package / "b" / "name.py", OTHER.format("1" * 100)),
        (package / "wide.py", f"# {'x' * 99}\n" + "\n".join(f"x = {n}" for n in range(400))),
        (tmp_path / "tests" / "a" / "test_one.py", "one = 1\n\ntwo = 2\n"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def stats(*flags: str) -> Any:
    line = [sys.executable, str(BENCH / "stats.py"), "--quick", "--json", *flags]
    return json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


def test_figures_are_those_counted_by_hand(tree: Path) -> None:
    counted = stats("--tree", str(tree))
    lines = 10 + 6 + 401
    assert counted["files"] == 3
    assert counted["lines without blank lines"] == lines
    assert counted["statements"] == 5 + 6 + 400
    assert counted["files over 400 lines"] == 1 and counted["which are long"] == "wide.py 401"
    assert counted["files that share their name"] == 2
    assert counted["which share a name"] == "name.py 2"
    assert counted["classes"] == counted["classes without a method"] == 1
    assert counted["functions"] == 3
    assert counted["used once, of 5 lines or fewer"] == 1, "helper; caller is unused, inner is not"
    assert counted["used once, of one statement"] == 1
    assert counted["lines over 100 columns in src"] == 2
    assert counted["comment lines"] == 2, "a comment for a tool does not count"
    assert counted["docstring lines"] == 3
    assert counted["docstrings without a sentence on line one"] == 1
    assert counted["test lines"] == 2
    assert counted["test lines to source lines"] == pytest.approx(2 / lines)
    assert counted["  a: files, lines, tests to lines"] == "1 10 0.20"


def test_characters_of_code_do_not_depend_on_wrapping(tree: Path) -> None:
    before = stats("--tree", str(tree))
    path = tree / "src" / "picochat" / "b" / "name.py"
    text = path.read_text()
    path.write_text(text.replace("[", "[\n    ").replace("]", ",\n]  # a note\n"))
    after = stats("--tree", str(tree))
    assert after["lines without blank lines"] == before["lines without blank lines"] + 2
    assert after["characters of code"] == before["characters of code"] > 0


def test_a_trace_holds_calls_and_leaves_out_what_an_import_does(tmp_path: Path) -> None:
    package = tmp_path / "picochat"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text(
        "def at_import(): pass\ndef called(): pass\ndef uncalled(): pass\nat_import()\n"
    )
    (tmp_path / "tracer").mkdir()
    shutil.copy(BENCH / "harness" / "entered.py", tmp_path / "tracer" / "sitecustomize.py")
    places = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "tracer"), str(tmp_path)]),
        "ENTERED_ROOT": str(package),
        "ENTERED_LOG": str(tmp_path / "log"),
    }
    code = "from picochat import part; [part.called() for _ in range(3)]"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **places}, check=True)
    assert (tmp_path / "log").read_text() == f"{package / 'part.py'}\t2\n"
