"""Every remedy in the source was tried, and every command in one is a command that picochat takes.

remedies.toml lists each remedy under the test that provokes its message and does what it says,
under `by hand` with how that was done without a test, or under `not tried` with the reason. A
remedy of several parts is tried by several tests.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from picochat.config import flatten
from picochat.scales import find_scale
from picochat.skills.skill_data import tomllib
from tests.cli.test_examples import COMMANDS
from tests.remedies import HOLE, Remedy, remedies

TESTS = Path(__file__).parent
TABLE = TESTS / "remedies.toml"
BY_HAND, NOT_TRIED = "by hand", "not tried"
OF_TORCHRUN = {"--standalone", "--nproc-per-node", "--no-python"}
# To be pasted: a command at the begin of a remedy or after a colon, up to a semicolon.
PASTED = re.compile(r"(?:^|: )(?:torchrun [^;]*--no-python )?picochat ([^;]*)")
MENTIONED = re.compile(r"picochat ((?:data|run|export|sanity) [a-z0-9-]+|scales)")


def table() -> dict[str, dict[str, list[str]]]:
    """file of tests, BY_HAND or NOT_TRIED -> test, way or reason -> remedies, each one line."""
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def line(remedy: Remedy) -> str:
    return f"{remedy.file} {remedy.place}: {remedy.text}"


def listed(*, tried: bool) -> Counter[str]:
    """How often each remedy is listed under a test or a way by hand, or as not tried."""
    ways = [ways for title, ways in table().items() if (title != NOT_TRIED) is tried]
    return Counter(each for way in ways for lines in way.values() for each in lines)


@cache
def names_of_tests(path: str) -> frozenset[str]:
    tree = ast.parse((TESTS.parent / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_every_remedy_is_listed_and_every_listed_one_is_in_the_source() -> None:
    known = {line(remedy) for remedy in remedies()}
    found = {*listed(tried=True), *listed(tried=False)}
    absent = "".join(
        f"\n    {json.dumps(each, ensure_ascii=False)}," for each in sorted(known - found)
    )
    assert not absent, f"list these in tests/remedies.toml, under the test that tries them:{absent}"
    assert found - known == set(), "the source has no such remedy any more"


def test_what_is_listed_as_not_tried_is_listed_once() -> None:
    assert max(listed(tried=False).values()) == 1
    assert set(listed(tried=True)) & set(listed(tried=False)) == set()


@pytest.mark.parametrize("path", [title for title in table() if title not in (BY_HAND, NOT_TRIED)])
def test_the_tests_that_try_remedies_exist(path: str) -> None:
    assert set(table()[path]) - names_of_tests(path) == set()
    for name, tries in table()[path].items():
        assert len(tries) == len(set(tries)) > 0, name


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
