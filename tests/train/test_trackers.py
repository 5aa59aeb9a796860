"""Trackers: each step once over kills, a failure never stops training, nothing private goes out."""

import os
import sqlite3
import struct
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest

from picochat.config import Tracker
from picochat.core.errors import WrongUsage
from picochat.facts import MetricsRow
from picochat.train.event_file import EventFile, crc32c
from picochat.train.trackers import (
    TRACKED,
    TRACKERS,
    OpenTracker,
    Series,
    TrackerKind,
    Trackers,
    check_trackers,
)

ROOT = Path(__file__).parents[2]


def report(step: int, **values: float) -> dict[str, object]:
    return {
        "event": "report",
        "step": step,
        "time": 1_000.0 + step,
        "loss": 10.0 - step,
        "seconds_left": 5.0,
        **values,
    }


class Kept:
    """A tracker that keeps what it is given, and fails at the step that it is told."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.series: list[Series] = []
        self.fails_at, self.closed = fails_at, 0

    def kind(self, name: Tracker = "tensorboard") -> TrackerKind:
        return TrackerKind(name, None, self.open)

    def open(self, series: Series) -> "Kept":
        self.series.append(series)
        return self

    def write(self, step: int, values: Mapping[str, float], now: float) -> None:
        if step == self.fails_at:
            raise OSError("no space\nleft")
        self.rows.append((step, dict(values)))

    def close(self) -> None:
        self.closed += 1


def make_trackers(tmp_path: Path, *kept: TrackerKind) -> Trackers:
    return Trackers(
        tuple(kind.name for kind in kept),
        tmp_path / "run" / "track",
        "base",
        tmp_path / "work",
        kept,
    )


def records(path: Path) -> list[bytes]:
    """The events of a file, their checksums compared with ones computed here."""
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = data[12 : 12 + length]
        for stated, of in ((data[8:12], data[:8]), (data[12 + length : 16 + length], event)):
            crc = crc32c(of)
            assert struct.unpack("<I", stated)[0] == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
        found.append(event)
        data = data[16 + length :]
    return found


def test_the_table_and_the_setting_name_the_same_trackers() -> None:
    assert tuple(kind.name for kind in TRACKERS) == get_args(Tracker)
    assert set(TRACKED) <= set(MetricsRow.model_fields)


def test_extras_install_what_the_table_needs() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for kind in TRACKERS:
        assert f'\n{kind.name} = ["{kind.package or kind.name}>=' in text, kind.name


def test_a_missing_package_is_said_before_any_work_with_the_command_that_installs_it() -> None:
    absent = TrackerKind("wandb", "no_such_package_here", TRACKERS[0].open)
    with pytest.raises(WrongUsage, match="figures") as error:
        check_trackers(("tensorboard", "wandb"), (TRACKERS[0], absent))
    assert error.value.exit_code == 2 and error.value.fix == "pip install 'picochat[wandb]'"
    assert "no_such_package_here" in error.value.problems[0].what
    check_trackers(None, (absent,))
    check_trackers(("tensorboard",), (TRACKERS[0], absent))


def test_a_tracker_is_opened_with_the_first_figures_and_given_no_others_than_the_table_names(
    tmp_path: Path,
) -> None:
    kept = Kept()
    trackers = make_trackers(tmp_path, kept.kind())
    trackers.send({"event": "started", "step": 0, "time": 1.0, "seconds": 3.0})
    assert not kept.series
    trackers.send(report(10))
    assert kept.rows == [(10, {"loss": 0.0})]
    assert (
        kept.series[0].folder == tmp_path / "run" / "track" / "tensorboard"
        and kept.series[0].run == "run"
    )
    trackers.close()
    assert kept.closed == 1


def test_a_resumed_stage_goes_on_with_its_series_and_doubles_no_step(tmp_path: Path) -> None:
    kept = Kept()
    for steps in (
        range(1, 8),
        range(4, 6),
        range(3, 12),
    ):  # two kills, each after steps that are taken again
        trackers = make_trackers(tmp_path, kept.kind())
        for step in steps:
            trackers.send(report(step))
            if step % 4 == 0:
                trackers.send(
                    {"event": "evaluation", "step": step, "time": 1.0, "held_out_loss": 2.0}
                )
        trackers.close()
    assert [step for step, values in kept.rows if "loss" in values] == list(range(1, 12))
    assert [step for step, values in kept.rows if "held_out_loss" in values] == [4, 8]
    assert len({series.name for series in kept.series}) == 1


def test_a_tracker_that_fails_tells_no_password_of_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:sEcret@proxy:1")

    def refuse(series: Series) -> OpenTracker:
        raise OSError("no way through http://user:sEcret@proxy:1")

    trackers = make_trackers(tmp_path, TrackerKind("wandb", None, refuse))
    trackers.send(report(1))
    said = capsys.readouterr().err
    assert "wandb failed" in said and "sEcret" not in said


def test_a_tracker_that_fails_is_said_once_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing, healthy = Kept(fails_at=2), Kept()
    trackers = make_trackers(tmp_path, failing.kind("wandb"), healthy.kind("trackio"))
    for step in range(1, 6):
        trackers.send(report(step))
    trackers.close()
    assert [step for step, _ in failing.rows] == [1] and [step for step, _ in healthy.rows] == [
        1,
        2,
        3,
        4,
        5,
    ]
    said = capsys.readouterr().err
    assert (
        said == "wandb failed and gets no more figures (OSError: no space left); training goes on\n"
    )


def test_checksum_is_the_castagnoli_one() -> None:
    assert crc32c(b"123456789") == 0xE3069283 and crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


def test_event_file_states_version_step_and_values(tmp_path: Path) -> None:
    file = EventFile(tmp_path / "deep" / "events", 1.5)
    file.write(300, {"loss": 2.5}, 2.5)
    file.close()
    first, second = records(tmp_path / "deep" / "events")
    assert first == b"\x09" + struct.pack("<d", 1.5) + b"\x1a\x0dbrain.Event:2"
    value = b"\x0a\x04loss\x15" + struct.pack("<f", 2.5)
    assert second == b"\x09" + struct.pack("<d", 2.5) + b"\x10\xac\x02\x2a\x0d\x0a\x0b" + value


@pytest.mark.parametrize("torn", [1, 11, 12, 20, 39])
def test_event_file_goes_on_after_a_row_that_a_kill_tore(tmp_path: Path, torn: int) -> None:
    path = tmp_path / "events"
    for step in (1, 2):
        file = EventFile(path, 1.0)
        file.write(step, {"loss": 1.0}, 2.0)
        file.close()
        whole = path.read_bytes()
        path.write_bytes(whole + whole[:torn])
    file = EventFile(path, 1.0)
    file.write(3, {"loss": 1.0}, 2.0)
    file.close()
    assert len(records(path)) == 4


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    if find_spec("tensorboard") is None:
        pytest.skip("the package tensorboard is not installed")
    code = """
        import sys
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
        runs = EventMultiplexer().AddRunsFromDirectory(sys.argv[1]).Reload()
        (run,) = runs.Runs()
        losses = [(event.step, event.value) for event in runs.Scalars(run, "loss")]
        print(run[:5], losses, runs.Scalars(run, "mfu")[0].wall_time)
        """
    for steps in (range(1, 4), range(2, 6)):
        trackers = make_trackers(tmp_path, TRACKERS[0])
        for step in steps:
            trackers.send(report(step, mfu=0.5))
        trackers.close()
    told = run_python(code, str(tmp_path / "run" / "track" / "tensorboard"))
    assert told.strip() == "base- [(1, 9.0), (2, 8.0), (3, 7.0), (4, 6.0), (5, 5.0)] 1001.0"


SEND = """
    import sys
    from pathlib import Path
    from picochat.train.trackers import TRACKERS, Trackers
    root, name, first, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    trackers = Trackers((name,), root / "run" / "track", "base", root / "work")
    for step in range(first, last):
        row = {"event": "report", "step": step, "time": 1.0, "loss": 10.0 - step, "mfu": 0.5}
        trackers.send(row)
    trackers.close()
    """


def run_python(code: str, *arguments: str) -> str:
    """Output of a program in its own interpreter: trackers hold state, threads and warnings."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WANDB_", "TRACKIO_"))
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env={**environment, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "failed" not in done.stderr, done.stderr
    return done.stdout


def test_trackio_keeps_each_step_once_in_the_run_folder(tmp_path: Path) -> None:
    if find_spec("trackio") is None:
        pytest.skip("the package trackio is not installed")
    for first, last in ((1, 4), (2, 6)):
        assert run_python(SEND, str(tmp_path), "trackio", str(first), str(last)) == ""
    (database,) = (tmp_path / "run" / "track" / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute(
            "select step, run_name, metrics from metrics order by step"
        ).fetchall()
    assert [row[0] for row in rows] == [1, 2, 3, 4, 5] and len({row[1] for row in rows}) == 1
    assert b'"loss"' in bytes(rows[0][2]) and rows[0][1].startswith("run-base-")


def test_wandb_keeps_each_step_once_offline_and_nothing_of_the_machine(tmp_path: Path) -> None:
    if find_spec("wandb") is None:
        pytest.skip("the package wandb is not installed")
    read = """
        import glob, struct, sys
        from wandb.proto import wandb_internal_pb2
        for path in sorted(glob.glob(sys.argv[1] + "/run/track/wandb/wandb/offline-run-*/*.wandb")):
            # LevelDB's log: (checksum, length, kind), then the record; here one block
            data, at = open(path, "rb").read(), 7
            while at + 7 <= len(data):
                length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
                assert kind == 1, "a record in one piece"
                record = wandb_internal_pb2.Record.FromString(data[at + 7 : at + 7 + length])
                at += 7 + length
                assert not record.run.host and not record.run.git.remote_url
                if record.HasField("history"):
                    items = {
                        item.key or ".".join(item.nested_key): item.value_json
                        for item in record.history.item
                    }
                    print(int(items["_step"]), float(items["loss"]))
        """
    for first, last in ((1, 4), (2, 6)):
        assert run_python(SEND, str(tmp_path), "wandb", str(first), str(last)) == ""
    assert run_python(read, str(tmp_path)).split("\n")[:-1] == [
        f"{step} {10.0 - step}" for step in range(1, 6)
    ]
    written = b"".join(
        path.read_bytes() for path in (tmp_path / "run" / "track" / "wandb").rglob("*.wandb")
    )
    for private in (sys.executable, str(Path.cwd()), str(tmp_path)):
        assert private.encode() not in written, private
