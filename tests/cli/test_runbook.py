"""Every picochat command in the documents parses, with every flag that it uses."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from picochat.cli.main import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("docs/runbook.md", "README.md", "CONTRIBUTING.md", "demo/demo.sh")


def commands_of(text: str) -> list[list[str]]:
    """Argument lists of the picochat commands: lines joined, pipes and redirections cut."""
    joined = re.sub(r"\\\n\s*", " ", text)
    found: list[list[str]] = []
    for line in joined.splitlines():
        match = re.search(r"(?:^|\s|`)picochat ((?:sanity|data|run|export|scales)\b[^`]*)", line)
        if match and "..." not in line:
            words = shlex.split(match.group(1).split(" 2>&1")[0].split(" | ")[0])
            found.append(words)
    return found


ALL = [
    (document, words)
    for document in DOCUMENTS
    for words in commands_of((ROOT / document).read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(
    ("document", "words"),
    ALL,
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else value,
)
def test_documented_command_parses(document: str, words: list[str]) -> None:
    parse(words)


def parse(words: list[str]) -> None:
    """Raises the command line's own error where it does not know these words."""
    command = get_command(app)
    context = command.make_context("picochat", list(words), resilient_parsing=False)
    name, sub, rest = command.resolve_command(context, [*context._protected_args, *context.args])  # type: ignore[attr-defined]
    while hasattr(sub, "resolve_command"):
        context = sub.make_context(name, rest, parent=context)
        name, sub, rest = sub.resolve_command(context, [*context._protected_args, *context.args])
    assert sub is not None
    sub.make_context(name, rest, parent=context)


def test_the_runbook_has_every_command_of_the_path() -> None:
    runbook = [words for document, words in ALL if document == "docs/runbook.md"]
    named = {tuple(words[:2]) for words in runbook}
    assert named == {
        ("sanity", "preh100"),
        ("data", "hf-import"),
        ("data", "preview"),
        ("data", "task-pack"),
        ("run", "tiny"),
        ("run", "bundle"),
        ("run", "verify"),
        ("export", "hf"),
        ("export", "verify"),
    }
    assert sum(words[:2] == ["run", "tiny"] for words in runbook) == 3
    assert any("--push-to-hub" in words for words in runbook)
