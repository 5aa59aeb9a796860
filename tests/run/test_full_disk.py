"""A disk that fills in any stage: one message, exit 1, nothing lost, and with room again the same
command goes on.
"""

from __future__ import annotations

import os
import pydoc_data.topics
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from picochat.cli.main import run_command
from picochat.core.publish import changed_files
from picochat.run import runner
from picochat.run.folder import RunDir
from picochat.run.graph import ARTIFACTS
from tests.run.test_own_data import SMALL, STEPS


@contextmanager
def mounted(place: Path) -> Generator[Path, None, None]:
    """A file system of 64 MB of its own."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as stream:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while stream.write(b"x" * size):
                    pass
            except OSError:
                continue


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run_command(command) == 1
    said = capsys.readouterr().err
    assert said.count("exit 1") == 1 and "fix: free some space" in said
    assert "Traceback" not in said


def filling_at(kind: str, disk: Path) -> Callable[[str], None]:
    def say(message: str) -> None:
        if message == f"building {kind}":
            fill(disk)

    return say


def test_a_disk_that_fills_in_any_stage_is_said_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("<|endoftext|>".join(pydoc_data.topics.topics.values()))
    with mounted(tmp_path / "disk") as disk:
        monkeypatch.setenv("PICOCHAT_HOME", str(disk / "cache"))
        run = RunDir(disk / "run")
        command = ["run", "tiny", "--input", str(text), "--out-dir", str(run.root)]
        command += [*SMALL, *STEPS, "--train-anyway"]
        for number, spec in enumerate(ARTIFACTS):
            monkeypatch.setattr(runner, "say", filling_at(spec.kind, disk))
            refused(command, capsys)
            (disk / "filler").unlink()
            assert [each.kind for each in ARTIFACTS if run.has(each.kind)] == [
                each.kind for each in ARTIFACTS[:number]
            ]
            assert not list(disk.rglob("*.draft")) and not list(disk.rglob("*.part"))
        monkeypatch.undo()
        monkeypatch.setenv("PICOCHAT_HOME", str(disk / "cache"))
        assert run_command(command) in (0, 3)
        for artifact in run.artifacts().values():
            assert not changed_files(artifact.place, artifact.manifest)
        results = (
            ["run", "bundle", "--run-dir", str(run.root), "--out", str(disk / "bundle.tgz")],
            [
                *("export", "hf", "--checkpoint", str(run.place("base")), "--out-dir"),
                *(str(disk / "model"), "--model-name", "m", "--allow-unscored", "--tokenizer"),
                str(run.place("tokenizer") / "tokenizer.json"),
            ],
        )
        for command in results:
            before = files_of(disk)
            fill(disk)
            refused(command, capsys)
            (disk / "filler").unlink()
            assert {name for name in files_of(disk) - before if not name.endswith(".lock")} == set()
            assert run_command(command) == 0
