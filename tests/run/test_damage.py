"""Damage in a run folder is noticed before anything is trained or judged on it."""

from __future__ import annotations

import os
import pydoc_data.topics
from pathlib import Path

import pytest

from picochat.core.publish import Artifact, changed_files, open_artifact, publish, touched_files
from picochat.run.folder import RunDir
from tests.run.test_own_data import SMALL, STEPS


def make(place: Path) -> Artifact:
    with publish(place, "tokenizer", "key", {}) as staging:
        staging.path("tokenizer.json").write_bytes(b"0123456789" * 100)
        staging.path("deep/other.bin").write_bytes(b"abc")
    return open_artifact(place, "tokenizer")


def edited(path: Path, data: bytes, *, keep_time: bool) -> None:
    stat = path.stat()
    path.write_bytes(data)
    if keep_time:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_an_untouched_artifact_is_whole(tmp_path: Path) -> None:
    artifact = make(tmp_path / "tokenizer")
    assert touched_files(artifact) == []
    assert changed_files(artifact.place, artifact.manifest) == []


def test_a_file_that_is_cut_by_a_byte_is_found_whatever_its_date(tmp_path: Path) -> None:
    artifact = make(tmp_path / "tokenizer")
    path = artifact.path("tokenizer.json")
    edited(path, path.read_bytes()[:-1], keep_time=True)
    assert touched_files(artifact) == ["tokenizer.json"]


def test_a_flipped_bit_is_found_by_its_date_and_else_by_its_digest(tmp_path: Path) -> None:
    for keep_time in (False, True):
        artifact = make(tmp_path / f"tokenizer-{keep_time}")
        path = artifact.path("deep/other.bin")
        edited(path, b"abb", keep_time=keep_time)
        assert touched_files(artifact) == ([] if keep_time else ["deep/other.bin"])
        assert changed_files(artifact.place, artifact.manifest) == ["deep/other.bin"]


def test_a_file_that_is_gone_is_found(tmp_path: Path) -> None:
    artifact = make(tmp_path / "tokenizer")
    artifact.path("deep/other.bin").unlink()
    assert touched_files(artifact) == ["deep/other.bin"]


def test_a_file_that_was_only_written_again_is_no_damage(tmp_path: Path) -> None:
    artifact = make(tmp_path / "tokenizer")
    edited(artifact.path("deep/other.bin"), b"abc", keep_time=False)
    assert touched_files(artifact) == []


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "._tokenizer.json", ".nfs0001"])
def test_what_a_desktop_leaves_in_an_artifact_is_no_change(name: str, tmp_path: Path) -> None:
    artifact = make(tmp_path / "tokenizer")
    (artifact.place / name).write_bytes(b"x")
    assert changed_files(artifact.place, artifact.manifest) == []
    (artifact.place / "extra.txt").write_bytes(b"x")
    assert changed_files(artifact.place, artifact.manifest) == ["extra.txt"]


def test_a_run_makes_a_damaged_tokenizer_again_and_keeps_a_damaged_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from picochat.cli.main import run_command

    texts = pydoc_data.topics.topics.values()
    (tmp_path / "text.txt").write_text("<|endoftext|>".join(texts))
    command = ["run", "tiny", "--input", str(tmp_path / "text.txt")]
    command += ["--out-dir", str(tmp_path / "run"), *SMALL, *STEPS]
    assert run_command([*command, "--preflight-only"]) == 0
    run = RunDir(tmp_path / "run")
    path = run.artifact("tokenizer").path("tokenizer.json")
    whole = path.read_bytes()
    path.unlink()  # not in place: the cache has the same file
    path.write_bytes(whole[:-1])
    capsys.readouterr()
    assert run_command(command) == 0
    assert "is damaged (tokenizer.json)" in capsys.readouterr().err
    assert run.artifact("tokenizer").path("tokenizer.json").read_bytes() == whole
    weights = run.artifact("base").path("model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    assert run_command(command) == 4
    said = capsys.readouterr().err
    assert "is damaged: model.safetensors" in said and "trains again" in said
    assert weights.exists()
