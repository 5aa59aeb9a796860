import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from picochat.core.errors import BadInput
from picochat.data.importing import read_ahead
from picochat.data.importing.dataset_source import DatasetSource, open_source
from picochat.data.importing.read_ahead import Part, Position, read_in_order
from picochat.data.importing.slices import SlicePlan, SliceReader
from tests.data.builders import parquet_bytes, prose


@pytest.fixture
def source(tmp_path: Path) -> DatasetSource:
    """Four files, one of them without row groups."""
    data = tmp_path / "data"
    data.mkdir()
    for file in range(4):
        texts = [prose(1000 * file + row) for row in range(150)]
        (data / f"train-{file}.parquet").write_bytes(parquet_bytes(texts, group_rows=60))
    return open_source(str(data), None, "train", None)


def _ids(parts: Iterator[Part]) -> list[str]:
    return [
        json.loads(line)["id"]
        for part in parts
        if part.rows is not None
        for line in part.rows.lines
    ]


def _read(
    source: DatasetSource,
    folder: Path,
    after: Position | None = None,
    connections: int = 3,
    rows: int = 600,
) -> list[Part]:
    plan = SlicePlan(tuple(file.name for file in source.files), 600, "spread", 1)
    reader = SliceReader(source, "text", 1, folder / "footers")
    with read_in_order(
        reader, plan, connections=connections, after=after, rows_wanted=rows
    ) as parts:
        return list(parts)


def test_rows_come_in_one_order_whatever_the_connections_and_the_room(
    source: DatasetSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _ids(iter(_read(source, tmp_path, connections=1)))
    assert len(set(expected)) == 600
    assert _ids(iter(_read(source, tmp_path, connections=9))) == expected
    monkeypatch.setattr(
        read_ahead, "READ_AHEAD_BYTES", 1
    )  # only the slice whose turn it is may go on
    assert _ids(iter(_read(source, tmp_path, connections=5))) == expected


def test_reading_goes_on_in_the_middle_of_a_slice(source: DatasetSource, tmp_path: Path) -> None:
    parts = _read(source, tmp_path)
    everything = _ids(iter(parts))
    for number, part in enumerate(parts):
        for row in (1, 17, part.stop):
            begun = sum(
                len(each.rows or ()) for each in parts[:number] if each.slice.key != part.slice.key
            )
            rest = _read(
                source, tmp_path, after=Position(part.slice.key, row), rows=600 - begun - row
            )
            assert _ids(iter(rest)) == everything[begun + row :]


def test_no_more_slices_are_begun_than_the_rows_wanted_need(
    source: DatasetSource, tmp_path: Path
) -> None:
    assert sum(part.slice.rows for part in _read(source, tmp_path, rows=61)) == 120


def test_error_of_a_thread_reaches_the_caller_and_ends_the_others(
    source: DatasetSource, tmp_path: Path
) -> None:
    path = tmp_path / "data" / "train-2.parquet"
    path.write_bytes(path.read_bytes()[:-100] + bytes(100))
    with pytest.raises(BadInput, match="train-2"):
        _read(source, tmp_path)
    assert not [
        thread for thread in threading.enumerate() if thread.name.startswith(("import", "footers"))
    ]
