"""Artifacts are absent or whole; digests leave out the clock; nothing is overwritten."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from picochat.core.errors import BadInput, WrongUsage
from picochat.core.publish import (
    adopt,
    artifact_key,
    changed_files,
    exclusive,
    find_artifact,
    find_whole_artifact,
    open_artifact,
    open_workspace,
    publish,
    superseded,
    take_back,
)


def make(place: Path, text: str = "x", *, observed: str = "now", key: str = "k"):
    with publish(place, "thing", key, {"input": "d"}) as staging:
        staging.path("sub/a.txt").write_text(text)
        staging.volatile("clock.txt").write_text(observed)
        staging.facts = {"n": 1}
    assert staging.artifact is not None
    return staging.artifact


def test_artifact_appears_whole_with_digests(tmp_path: Path) -> None:
    artifact = make(tmp_path / "a")
    assert set(artifact.manifest.files) == {"sub/a.txt"}
    assert set(artifact.manifest.volatile_files) == {"clock.txt"}
    assert changed_files(artifact.place, artifact.manifest) == []
    assert not list(tmp_path.glob(".*")) and not list(tmp_path.glob("*.work"))


def test_digest_ignores_observations_and_nothing_else(tmp_path: Path) -> None:
    first = make(tmp_path / "a", observed="monday")
    assert make(tmp_path / "b", observed="tuesday").digest == first.digest
    assert make(tmp_path / "c", text="y").digest != first.digest


def test_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), publish(tmp_path / "a", "thing", "k", {}) as staging:
        staging.path("a.txt").write_text("x")
        raise RuntimeError
    assert not (tmp_path / "a").exists() and not (tmp_path / ".a.draft").exists()


def test_workspace_survives_an_error_and_is_dropped_for_another_key(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), publish(tmp_path / "a", "thing", "k", {}) as staging:
        (staging.workspace / "half").write_text("done")
        raise RuntimeError
    with publish(tmp_path / "a", "thing", "k", {}) as staging:
        assert (staging.workspace / "half").read_text() == "done"
        staging.path("a.txt").write_text("x")
    with pytest.raises(RuntimeError), publish(tmp_path / "b", "thing", "k", {}) as staging:
        (staging.workspace / "half").write_text("done")
        raise RuntimeError
    with publish(tmp_path / "b", "thing", "other", {}) as staging:
        assert not (staging.workspace / "half").exists()
    assert (tmp_path / "b.work.superseded-1" / "half").exists()


def test_work_that_was_set_aside_is_taken_up_again_for_its_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("mine", "other"):
        with pytest.raises(RuntimeError), publish(tmp_path / "a", "thing", key, {}) as staging:
            (staging.workspace / "half").write_text(key)
            raise RuntimeError
    assert (
        "holds unfinished work for other settings or inputs, which is kept: a.work.superseded-1"
        in capsys.readouterr().err
    )
    with publish(tmp_path / "a", "thing", "mine", {}) as staging:
        assert (staging.workspace / "half").read_text() == "mine"
        staging.path("a.txt").write_text("x")
    assert "taking up the unfinished work of a.work.superseded-1 again" in capsys.readouterr().err
    with publish(tmp_path / "a", "thing", "other", {}) as staging:
        assert (staging.workspace / "half").read_text() == "other"


def test_work_goes_on_after_a_disk_was_full_when_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    place = tmp_path / "thing"
    with monkeypatch.context() as patch:
        patch.setattr("picochat.core.publish.write_atomic", full)
        with pytest.raises(OSError, match="No space"), publish(place, "thing", "k", {}):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["thing.work"]
    (open_workspace(place, "k") / "step-1").write_text("hours of work")
    monkeypatch.setattr("picochat.core.publish.write_atomic", full)
    monkeypatch.setattr(Path, "write_text", full)
    with publish(place, "thing", "k", {}) as staging:
        assert (staging.workspace / "step-1").read_text() == "hours of work"
    assert capsys.readouterr().err == ""


def test_artifact_that_was_set_aside_is_taken_back_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "a"
    for key in ("1", "2", "3"):
        make(place, f"text {key}", key=key)
    assert take_back(place, "thing", "0") is None
    assert take_back(place, "other thing", "1") is None
    taken = take_back(place, "thing", "1")
    assert taken is not None and taken.path("sub/a.txt").read_text() == "text 1"
    assert find_artifact(place, "thing", "1") == taken
    assert sorted(path.read_text() for path in tmp_path.glob("a.superseded-*/sub/a.txt")) == [
        "text 2",
        "text 3",
    ]
    (
        next(folder for folder in superseded(place) if "2" in (folder / "sub/a.txt").read_text())
        / "sub/a.txt"
    ).write_text("!")
    assert take_back(place, "thing", "2") is None
    assert find_artifact(place, "thing", "1") == taken


def test_older_artifact_is_set_aside_not_overwritten(tmp_path: Path) -> None:
    make(tmp_path / "a", "old", key="1")
    make(tmp_path / "a", "new", key="2")
    assert (tmp_path / "a.superseded-1" / "sub" / "a.txt").read_text() == "old"
    assert find_artifact(tmp_path / "a", "thing", "1") is None
    assert find_artifact(tmp_path / "a", "thing", "2") is not None


@pytest.mark.parametrize("tamper", ["change", "remove", "add"])
def test_changed_files_are_named(tmp_path: Path, tamper: str) -> None:
    artifact = make(tmp_path / "a")
    if tamper == "change":
        artifact.path("sub/a.txt").write_text("z")
    elif tamper == "remove":
        artifact.path("sub/a.txt").unlink()
    else:
        artifact.path("sub/b.txt").write_text("z")
    expected = "sub/b.txt" if tamper == "add" else "sub/a.txt"
    assert changed_files(artifact.place, artifact.manifest) == [expected]


def test_missing_or_other_kind_names_the_remedy(tmp_path: Path) -> None:
    make(tmp_path / "a")
    with pytest.raises(BadInput) as missing:
        open_artifact(tmp_path / "none", "thing", made_by="make it")
    assert missing.value.fix == "make it"
    with pytest.raises(BadInput, match="holds a thing, a shard is needed"):
        open_artifact(tmp_path / "a", "shard")


def test_adopted_artifact_is_the_same(tmp_path: Path) -> None:
    artifact = make(tmp_path / "cache")
    adopted = (
        adopt(artifact, tmp_path / "run" / "a") if (tmp_path / "run").mkdir() is None else artifact
    )
    assert adopted.digest == artifact.digest
    assert changed_files(adopted.place, adopted.manifest) == []
    assert adopt(artifact, tmp_path / "run" / "a").place == adopted.place


def test_key_follows_config_inputs_and_version() -> None:
    keys = {
        artifact_key({"a": 1}, {"x": "1"}, 1),
        artifact_key({"a": 2}, {"x": "1"}, 1),
        artifact_key({"a": 1}, {"x": "2"}, 1),
        artifact_key({"a": 1}, {"x": "1"}, 2),
    }
    assert len(keys) == 4


def test_folder_in_use_is_refused_and_a_kill_frees_it(tmp_path: Path) -> None:
    code = (
        "import sys,time; from pathlib import Path; from picochat.core.publish import exclusive\n"
        "with exclusive(Path(sys.argv[1]),'folder'): print('held',flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with (
        pytest.raises(WrongUsage, match=f"in use by another process \\(pid {holder.pid}\\)"),
        exclusive(tmp_path / "lock", "folder"),
    ):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with exclusive(tmp_path / "lock", "folder"):
        pass


def test_one_who_may_wait_gets_the_folder_when_the_other_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (
        "import sys,time; from pathlib import Path; from picochat.core.publish import exclusive\n"
        "with exclusive(Path(sys.argv[1]),'folder'): print('held',flush=True); time.sleep(0.5)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with exclusive(tmp_path / "lock", "folder", wait=True):
            assert holder.wait(5) == 0
    assert "waiting for it" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "content"), [("sub/a.txt", "tampered"), ("manifest.json", "{")])
def test_damaged_artifact_is_set_aside_where_it_can_be_made_again(
    tmp_path: Path, name: str, content: str
) -> None:
    made = make(tmp_path / "thing")
    assert find_whole_artifact(tmp_path / "thing", made.kind, "k") == made
    assert find_whole_artifact(tmp_path / "thing", made.kind, "other") is None
    assert (tmp_path / "thing" / name).exists()
    (tmp_path / "thing" / name).write_text(content)
    assert find_whole_artifact(tmp_path / "thing", made.kind, "k") is None
    assert (tmp_path / "thing.superseded-1" / name).read_text() == content


def test_kill_at_any_moment_leaves_absent_or_whole(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from picochat.core.publish import publish\n"
        "print('ready',flush=True)\n"
        "with publish(Path(sys.argv[1]),'thing','k',{}) as d:\n"
        "    for i in range(200): d.path(f'{i}.txt').write_text('x'*1000)\n"
    )
    for number in range(6):
        place = tmp_path / str(number) / "a"
        child = subprocess.Popen([sys.executable, "-c", code, str(place)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.004 * number)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        if place.exists():
            artifact = open_artifact(place, "thing")
            assert (
                changed_files(place, artifact.manifest) == []
                and len(artifact.manifest.files) == 200
            )
        with publish(place, "thing", "k", {}) as staging:
            staging.path("a.txt").write_text("again")
        assert json.loads((place / "manifest.json").read_text())["kind"] == "thing"
