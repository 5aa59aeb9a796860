import sys
import time
from pathlib import Path

import pytest

from picochat.cli.main import run_command
from picochat.core.errors import WrongUsage
from picochat.core.machine import environment_count, process_age_s


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says when a process was started")
def test_the_age_of_the_process_grows_as_the_clock_does() -> None:
    first = process_age_s()
    time.sleep(0.05)
    second = process_age_s()
    assert first is not None and second is not None and first > 0.1 and 0.05 <= second - first < 5


@pytest.mark.parametrize("name", ["WORLD_SIZE", "LOCAL_RANK", "SOURCE_DATE_EPOCH"])
def test_a_number_of_the_environment_that_is_none_is_wrong_usage_with_its_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value, number in (("", 7), ("0", 0), (" 12\n", 12)):
        monkeypatch.setenv(name, value)
        assert environment_count(name, 7) == number
    for value in ("two", "-1", "1.5", "²"):
        monkeypatch.setenv(name, value)
        with pytest.raises(WrongUsage, match=name) as caught:
            environment_count(name, 7)
        assert f"unset {name}" in str(caught.value.fix)
    monkeypatch.delenv(name)
    assert environment_count(name, 7) == 7


def test_a_left_over_number_of_processes_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    command = ["run", "tiny", "--input", str(tmp_path), "--out-dir", str(tmp_path / "run")]
    for value, says in (("two", "not a whole number"), ("2", "torchrun did not start")):
        monkeypatch.setenv("WORLD_SIZE", value)
        assert run_command(command) == 2
        said = capsys.readouterr().err
        assert says in said and "unset WORLD_SIZE" in said
    monkeypatch.delenv("WORLD_SIZE")
    (tmp_path / "a.txt").write_text("some text")
    assert run_command(command) == 2
    assert "its own files would be read" in capsys.readouterr().err, "the environment is past"
