import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from picochat.core.errors import BadInput, HubProblem, WrongUsage
from picochat.data.importing import distributed_import
from picochat.data.importing.hf_import import import_dataset
from picochat.data.importing.import_report import ImportRequest
from tests.data.builders import folder_bytes, parquet_bytes, parquet_files, prose, request, serving
from tests.fake_hub import FakeHub

SHARE = Path(__file__).parents[3] / "src"
READ_ONE = """
import sys
from picochat.data.importing.distributed_import import read
from picochat.data.importing.import_report import ImportRequest
read(ImportRequest.model_validate_json(sys.argv[1]), 1, 3)
"""


def _files() -> dict[str, bytes]:
    """Rows that are kept, repeated, too short, without text, or shown in part by a report."""
    files = parquet_files(files=3, rows=160, group_rows=40)
    odd: list[object] = [
        prose(row % 30) if row % 7 else (None, "   ", "short", "nul\0here")[row % 4]
        for row in range(150)
    ]
    odd[3] = " " * 400 + prose(77)
    files["cfg/odd-train-0.parquet"] = parquet_bytes(odd, group_rows=60)
    return files


def _run(wanted: ImportRequest, tasks: int) -> int:
    """All steps, the ranks of each in turn and in no order that matters."""
    distributed_import.pin(wanted)
    for rank in reversed(range(tasks)):
        distributed_import.read(wanted, rank, tasks)
    distributed_import.decide(wanted)
    for rank in reversed(range(tasks)):
        distributed_import.write(wanted, rank, tasks)
    return distributed_import.publish(wanted)


@pytest.mark.parametrize(
    ("sample", "tasks", "max_rows"),
    [("spread", 3, 400), ("spread", 1, 777), ("head", 5, 333), ("spread", 20, 10_000)],
)
def test_ranks_give_the_bytes_of_one_process(
    tmp_path: Path, sample: str, tasks: int, max_rows: int
) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", _files())
        alone = import_dataset(request(tmp_path / "alone", sample=sample, max_rows=max_rows))
        documents = _run(request(tmp_path / "ranks", sample=sample, max_rows=max_rows), tasks)
    assert documents == alone.rows_written > 100
    assert {"duplicate_text", "empty_text", "below_min_chars"} <= set(alone.skip_reasons)
    assert folder_bytes(tmp_path / "ranks") == folder_bytes(tmp_path / "alone")


def test_ranks_over_local_files_give_the_bytes_of_one_process(tmp_path: Path) -> None:
    for name, data in _files().items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(data)
    import_dataset(request(tmp_path / "alone", dataset=str(tmp_path / "data")))
    _run(request(tmp_path / "ranks", dataset=str(tmp_path / "data")), 2)
    assert folder_bytes(tmp_path / "ranks") == folder_bytes(tmp_path / "alone")


def test_every_row_group_is_read_by_one_rank_and_every_slice_once(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", _files())
        wanted = request(tmp_path, max_rows=10_000)
        slices = distributed_import.pin(wanted)
        rows = [distributed_import.read(wanted, rank, 4) for rank in range(4)]
        assert sum(rows) == 3 * 160 + 150
        assert all(rows)
        assert [distributed_import.read(wanted, rank, 4) for rank in range(4)] == [0] * 4
    found = sorted(
        path.stem for path in (tmp_path / "documents.work/ranks/fragments").glob("*.npz")
    )
    assert found == [f"{number:06d}" for number in range(slices)]


def test_a_killed_rank_repeated_gives_the_same_bytes(tmp_path: Path) -> None:
    release = threading.Event()
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", _files())
        import_dataset(request(tmp_path / "alone"))
        wanted = request(tmp_path / "ranks")
        distributed_import.pin(wanted)
        hub.fail(path=r"resolve/.*parquet", after=1, times=1000, hold=release)
        command = [sys.executable, "-c", READ_ONE, wanted.model_dump_json()]
        child = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(SHARE)}, stderr=subprocess.DEVNULL
        )
        assert hub.held.acquire(timeout=60)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        hub.faults.clear()
        release.set()
        fragments = tmp_path / "ranks/documents.work/ranks/fragments"
        whole = len(list(fragments.glob("*.npz")))
        assert whole == 1, "the rank was killed between its first slice and its last"
        with pytest.raises(BadInput, match="slices were not read"):
            distributed_import.decide(wanted)
        _run(wanted, 3)
    assert folder_bytes(tmp_path / "ranks") == folder_bytes(tmp_path / "alone")


def test_a_rank_killed_while_writing_leaves_nothing_that_counts(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", _files())
        import_dataset(request(tmp_path / "alone"))
        wanted = request(tmp_path / "ranks")
        distributed_import.pin(wanted)
        distributed_import.read(wanted, 0, 1)
        distributed_import.decide(wanted)
        distributed_import.write(wanted, 1, 2)
        shared = tmp_path / "ranks/documents.work/ranks"
        (shared / "documents/.shard-000000.jsonl.zst.part").write_bytes(b"half a shard")
        (shared / "shards/000001.json").unlink()
        (shared / "documents/shard-000001.jsonl.zst").write_bytes(b"renamed, but never recorded")
        with pytest.raises(BadInput, match="shards were not written"):
            distributed_import.publish(wanted)
        _run(wanted, 2)
    assert folder_bytes(tmp_path / "ranks") == folder_bytes(tmp_path / "alone")


def test_a_complete_import_is_left_alone_by_every_step(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", _files())
        wanted = request(tmp_path)
        documents = _run(wanted, 2)
        before = folder_bytes(tmp_path)
        asked = len(hub.requests)
        assert _run(wanted, 2) == documents
        assert len(hub.requests) == asked
    assert folder_bytes(tmp_path) == before


def test_an_import_stays_at_the_revision_that_was_pinned(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        commit = hub.add_dataset("owner/name", _files())
        import_dataset(request(tmp_path / "alone"))
        wanted = request(tmp_path / "ranks")
        distributed_import.pin(wanted)
        assert hub.add_dataset("owner/name", parquet_files(files=2)) != commit
        _run(wanted, 2)
    assert folder_bytes(tmp_path / "ranks") == folder_bytes(tmp_path / "alone")


def test_files_without_row_counts_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.jsonl").write_text(
        '{"text": "a text of more than twenty characters"}\n'
    )
    with pytest.raises(WrongUsage, match=r"train\.jsonl is no parquet file"):
        distributed_import.pin(
            request(tmp_path / "ranks", dataset=str(tmp_path / "data"), config=None)
        )


def test_another_request_does_not_mix_with_an_unfinished_one(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", _files())
        distributed_import.pin(request(tmp_path))
        for step in (
            distributed_import.pin,
            lambda wanted: distributed_import.read(wanted, 0, 1),
            distributed_import.decide,
        ):
            with pytest.raises(WrongUsage, match="another request"):
                step(request(tmp_path, seed=7))


def test_a_step_without_the_one_before_it_names_that(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing was pinned"):
        distributed_import.read(request(tmp_path), 0, 1)
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", _files())
        distributed_import.pin(request(tmp_path))
    with pytest.raises(BadInput, match="nothing was decided"):
        distributed_import.write(request(tmp_path), 0, 1)


def test_rows_without_a_document_among_them_are_refused_with_the_reasons(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", {"cfg/train.parquet": parquet_bytes([None, "", "short"])})
        wanted = request(tmp_path)
        distributed_import.pin(wanted)
        distributed_import.read(wanted, 0, 1)
        with pytest.raises(BadInput, match="no document came out of 3 rows") as caught:
            distributed_import.decide(wanted)
    assert len(caught.value.problems) == 3


def test_a_fault_of_the_hub_ends_the_rank_with_its_reason(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", _files())
        wanted = request(tmp_path)
        distributed_import.pin(wanted)
        hub.fail(path=r"resolve/.*parquet", times=1000, status=403)
        with pytest.raises(HubProblem):
            distributed_import.read(wanted, 0, 1)


def test_shards_do_not_depend_on_how_many_frames_a_slice_has(tmp_path: Path) -> None:
    texts: list[object] = [prose(row, words=30_000) for row in range(40)]
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", {"cfg/train.parquet": parquet_bytes(texts, group_rows=40)})
        import_dataset(request(tmp_path / "alone", document_shard_rows=7))
        wanted = request(tmp_path / "ranks", document_shard_rows=7)
        distributed_import.pin(wanted)
        distributed_import.read(wanted, 0, 1)
        with np.load(tmp_path / "ranks/documents.work/ranks/fragments/000000.npz") as stored:
            assert len(stored["frame_rows"]) > 1
        _run(wanted, 1)
    assert folder_bytes(tmp_path / "ranks") == folder_bytes(tmp_path / "alone")
