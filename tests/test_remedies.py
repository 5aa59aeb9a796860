"""Every remedy in the source was tried, and every command in one is a command that picochat takes.

remedies.toml has a row for each remedy: `tried` names the tests that provoke the message and do
what it says, `by_hand` says how that was done without a test, `not_tried` why it was not done.
`then` says what happened.
"""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from picochat.config import flatten
from picochat.scales import find_scale
from picochat.skills.skill_data import tomllib
from tests.cli.test_examples import COMMANDS
from tests.remedies import HOLE, Remedy, remedies

TESTS = Path(__file__).parent
TABLE = TESTS / "remedies.toml"
HOW = ("tried", "by_hand", "not_tried")
OF_TORCHRUN = {"--standalone", "--nproc-per-node", "--no-python"}
# To be pasted: a command at the begin of a remedy or after a colon, up to a semicolon.
PASTED = re.compile(r"(?:^|: )(?:torchrun [^;]*--no-python )?picochat ([^;]*)")
MENTIONED = re.compile(r"picochat ((?:data|run|export|sanity) [a-z0-9-]+|scales)")


def rows() -> list[dict[str, Any]]:
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))["remedy"]


def row_key(row: dict[str, Any]) -> Remedy:
    return Remedy(row["file"], row["place"], row["fix"])


@cache
def names_of_tests(path: str) -> frozenset[str]:
    tree = ast.parse((TESTS.parent / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_every_remedy_has_a_row_and_every_row_a_remedy() -> None:
    listed = [row_key(row) for row in rows()]
    assert len(listed) == len(set(listed))
    assert set(remedies()) - set(listed) == set(), "add a row to tests/remedies.toml"
    assert set(listed) - set(remedies()) == set(), "the source has no such remedy any more"


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row['file']}:{row['place']}")
def test_a_row_says_how_its_remedy_was_tried(row: dict[str, Any]) -> None:
    assert len([key for key in HOW if row.get(key)]) == 1
    assert row.get("not_tried") or row.get("then")
    for node in row.get("tried", []):
        path, _, name = node.partition("::")
        assert name.partition("[")[0] in names_of_tests(path), f"{node} is no test"


def known_options() -> set[str]:
    found = {"--help", *OF_TORCHRUN}
    for _, command in COMMANDS:
        for parameter in command.params:
            found |= {*parameter.opts, *parameter.secondary_opts}
    return found


@pytest.mark.parametrize("text", sorted({remedy.text for remedy in remedies()}))
def test_a_remedy_names_only_what_exists(text: str) -> None:
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known_options()
    paths = {" ".join(path) for path, _ in COMMANDS}
    assert {found.strip() for found in MENTIONED.findall(text)} <= paths
    settings = flatten(find_scale("tiny").config)
    for key in re.findall(r"--set (\S+?)=", text.replace(f"{HOLE}.", "base.")):
        assert key in (*settings, "section.key", HOLE)


PASTEABLE = sorted({found for r in remedies() for found in PASTED.findall(r.text)})


def test_commands_to_paste_are_found() -> None:
    assert len(PASTEABLE) > 5


@pytest.mark.parametrize("command", PASTEABLE)
def test_a_command_to_paste_is_one_that_picochat_takes(command: str) -> None:
    """A command that ends with ` ...` goes on with the options that the user gave before."""
    words = shlex.split(command.replace(HOLE, "1").replace(" N", " 1"))
    goes_on = words[-1] == "..."
    words = words[:-1] if goes_on else words
    path, found = next(
        (path, found) for path, found in COMMANDS if tuple(words[: len(path)]) == path
    )
    context = found.make_context("picochat", words[len(path) :], resilient_parsing=goes_on)
    assert not context.args
