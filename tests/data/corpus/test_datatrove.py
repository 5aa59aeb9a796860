from pathlib import Path

import pytest

pytest.importorskip(
    "datatrove", reason="datatrove is not installed: pip install 'picochat[datatrove]'"
)

from picochat.data.corpus.datatrove import scan_pipeline, scan_share
from picochat.data.datatrove_stages import run_locally
from tests.data.builders import make_corpus, make_pack, prose

SOURCES = 5  # each is a group of its own


def _pack(folder: Path) -> Path:
    """Sources that repeat some of each other's texts."""
    rows = {f"s{number}": range(40 * number, 40 * number + 60) for number in range(SOURCES)}
    return make_pack(
        folder,
        {label: [(str(row), prose(row)) for row in numbers] for label, numbers in rows.items()},
    )


def _scan_folder(place: Path) -> Path:
    """Where the corpus at `place` will look for scans; the key is that of `make_corpus`."""
    workspace = place.with_name(f"{place.name}.work")
    workspace.mkdir(parents=True)
    (workspace / "key").write_text("key")
    return workspace / "scan"


def test_a_corpus_of_scans_by_three_tasks_is_that_of_one_process_and_reads_no_source_again(
    tmp_path: Path,
) -> None:
    pack = _pack(tmp_path)
    alone = make_corpus(pack, tmp_path / "alone")
    run_locally(
        scan_pipeline(pack, 1, _scan_folder(tmp_path / "ranks"), tasks=3),
        tmp_path / "logs",
        workers=2,
    )
    for shard in (tmp_path / "sources").rglob("*.zst"):
        shard.write_bytes(bytes(shard.stat().st_size))
    assert make_corpus(pack, tmp_path / "ranks").digest == alone.digest
    assert alone.facts["exact_duplicates"] == 20 * (SOURCES - 1)


def test_every_group_is_scanned_by_one_rank_and_once(tmp_path: Path) -> None:
    pack = _pack(tmp_path)
    folder = _scan_folder(tmp_path / "ranks")
    assert [scan_share(pack, 1, folder, rank, 3) for rank in range(3)] == [120, 120, 60]
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert sum(name.endswith(".json") for name in stamps) == SOURCES
    assert [scan_share(pack, 1, folder, rank, 3) for rank in range(3)] == [120, 120, 60]
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps


def test_groups_that_no_rank_scanned_are_scanned_by_the_corpus_itself(tmp_path: Path) -> None:
    pack = _pack(tmp_path)
    alone = make_corpus(pack, tmp_path / "alone")
    scan_share(pack, 1, _scan_folder(tmp_path / "ranks"), 1, 3)
    assert make_corpus(pack, tmp_path / "ranks").digest == alone.digest
