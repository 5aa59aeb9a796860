"""Every command's help ends with an example, and the example is one that the command takes."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from typer.main import get_command

from picochat.cli.main import app, run_command


def commands(group: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    inner = getattr(group, "commands", None)
    if not inner:
        return [(path, group)]
    return [found for name in sorted(inner) for found in commands(inner[name], (*path, name))]


COMMANDS = commands(get_command(app))


def test_the_commands_are_found() -> None:
    assert {("run", "tiny"), ("data", "init-pack"), ("export", "hf")} <= {p for p, _ in COMMANDS}


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(p) for p, _ in COMMANDS])
def test_the_help_of_a_command_ends_with_an_example_that_it_takes(
    path: tuple[str, ...], command: Any
) -> None:
    text = " ".join((command.help or "").split())
    example = re.search(r"Example: picochat (.*)$", text)
    assert example, "the help ends with `Example: picochat ...`"
    words = shlex.split(example.group(1))
    assert tuple(words[: len(path)]) == path
    with command.make_context("picochat", words[len(path) :]) as context:
        assert not context.args


@pytest.mark.parametrize("command", ["status", "show", "bundle"])
def test_a_run_is_an_argument_or_an_option_alike(
    command: str, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    for given in ([str(tmp_path)], ["--run-dir", str(tmp_path)]):
        assert run_command(["run", command, *given]) == 4
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    assert run_command(["run", command]) == 2
    assert "a run folder is needed" in capsys.readouterr().err
    assert run_command(["run", command, str(tmp_path), "--run-dir", str(tmp_path)]) == 2
