"""Damage in a run folder is noticed before anything is trained or judged on it."""

from __future__ import annotations

import os
import pydoc_data.topics
import subprocess
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


def test_a_file_that_was_added_is_found_and_a_field_that_was_edited(tmp_path: Path) -> None:
    artifact = make(tmp_path / "tokenizer")
    (artifact.place / "deep" / "held_out-00009.bin").write_bytes(b"x")
    for find in (touched_files(artifact), changed_files(artifact.place, artifact.manifest)):
        assert find == ["deep/held_out-00009.bin"]
    (artifact.place / "deep" / "held_out-00009.bin").unlink()
    path = artifact.path("manifest.json")
    for old, new in (('"key": "key"', '"key": "other"'), ('"facts": {', '"facts": {"x": 1')):
        whole = path.read_text()
        edited(path, whole.replace(old, new).encode(), keep_time=True)
        found = open_artifact(artifact.place, "tokenizer")
        assert touched_files(found) == ["manifest.json"]
        assert changed_files(found.place, found.manifest) == ["manifest.json"]
        path.write_text(whole)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, list[str]]:
    """A finished run of a few steps in a folder whose name needs quotes, and its command."""
    from picochat.cli.main import run_command

    root = tmp_path_factory.mktemp("a b")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PICOCHAT_HOME", str(root / "cache"))
        (root / "text.txt").write_text("<|endoftext|>".join(pydoc_data.topics.topics.values()))
        command = ["run", "tiny", "--input", str(root / "text.txt")]
        command += ["--out-dir", str(root / "run"), *SMALL, *STEPS]
        assert run_command(command) == 0
    return RunDir(root / "run"), command


@pytest.fixture
def run(
    finished: tuple[RunDir, list[str]], monkeypatch: pytest.MonkeyPatch
) -> tuple[RunDir, list[str]]:
    monkeypatch.setenv("PICOCHAT_HOME", str(finished[0].root.parent / "cache"))
    return finished


def again(command: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    from picochat.cli.main import run_command

    capsys.readouterr()
    code = run_command(command)
    return code, capsys.readouterr().err


def paste(said: str) -> None:
    """Do what the remedy says, in a shell."""
    line = next(line for line in said.splitlines() if "mv '" in line)
    subprocess.run(["bash", "-ec", line[line.index("mv '") :].partition(":")[0]], check=True)


def test_a_file_in_a_checkpoint_that_is_not_of_it_is_named_with_a_command_that_helps(
    run: tuple[RunDir, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    place = run[0].place("base")
    (place / "notes of mine.txt").write_text("x")
    code, said = again(run[1], capsys)
    assert code == 4 and "do not belong to it: notes of mine.txt" in said
    paste(said)
    assert (place.parent / "notes of mine.txt").read_text() == "x"
    code, said = again(run[1], capsys)
    assert code == 0 and "built" not in said


def test_a_finished_run_is_not_called_approved_over_evidence_that_was_changed(
    run: tuple[RunDir, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    path = run[0].artifact("shards").path("train-00000.bin")
    data = path.read_bytes()
    path.unlink()  # not in place: the cache has the same file
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    published_ns = (path.parent / "manifest.json").stat().st_mtime_ns
    os.utime(path, ns=(published_ns, published_ns))
    code, said = again(run[1], capsys)
    assert code == 4 and "was changed since it was made: train-00000.bin" in said
    paste(said)
    code, said = again(run[1], capsys)
    assert code == 0 and path.read_bytes() == data


def test_an_edit_that_reaches_the_cache_is_noticed_by_the_next_run_that_shares_it(
    run: tuple[RunDir, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    path = run[0].artifact("shards").path("train-00000.bin")
    data = path.read_bytes()
    assert path.stat().st_nlink > 1, "the cache has the same file"
    edited(path, bytes([data[0] ^ 1]) + data[1:], keep_time=True)
    other = [word.replace(str(run[0].root), f"{run[0].root} 2") for word in run[1]]
    code, said = again([*other, "--preflight-only"], capsys)
    assert code == 0 and "is damaged (train-00000.bin)" in said
    there = RunDir(Path(f"{run[0].root} 2")).artifact("shards").path("train-00000.bin")
    assert there.read_bytes() == data
    code, said = again(run[1], capsys)  # the first run takes what was made again
    assert code == 4
    paste(said)
    code, said = again(run[1], capsys)
    assert code == 0 and path.read_bytes() == data
