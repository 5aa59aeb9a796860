from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from picochat.data.formats.file_rows import read_objects


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([-800_000, 0], pa.int32()).cast(pa.date32()), ["absent", "1970-01-01"]),
        (pa.array([0, 0], pa.timestamp("s", tz="Nowhere/Land")), ["absent", "absent"]),
        (pa.array([b"\xff", b"fine"]).view(pa.string()), ["absent", "fine"]),
        (pa.array([[10**12], None], pa.list_(pa.timestamp("s"))), ["absent", "absent"]),
    ],
    ids=str,
)
def test_a_value_that_python_cannot_hold_is_none_and_its_row_stays(
    values: pa.Array, expected: list[str]
) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"question": ["one", "two"], "asked": values}), buffer)
    rows = list(read_objects(io.BytesIO(buffer.getvalue()), "x.parquet"))
    assert [row["question"] for row in rows] == ["one", "two"]
    assert ["absent" if row["asked"] is None else str(row["asked"]) for row in rows] == expected
