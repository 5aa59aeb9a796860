import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from picochat.data.document_shards import read_manifest
from picochat.data.importing.hf_import import import_dataset
from tests.data.builders import (
    folder_bytes,
    make_corpus,
    make_pack,
    parquet_files,
    prose,
    request,
    serving,
)
from tests.fake_hub import FakeHub

SOURCE = Path(__file__).parents[2] / "src"
needs_datatrove = pytest.mark.skipif(
    importlib.util.find_spec("datatrove") is None,
    reason="datatrove is not installed: pip install 'picochat[datatrove]'",
)
SOURCES = 5  # of the pack that is scanned; each is a group of its own
WITHOUT = """
import sys
sys.modules["datatrove"] = None
from picochat.core.errors import BadInput
try:
    import picochat.data.datatrove_pipelines
except BadInput as error:
    print(error.lines())
"""


@needs_datatrove
def test_three_tasks_of_the_local_executor_give_the_digests_of_one_process(tmp_path: Path) -> None:
    from picochat.data.datatrove_pipelines import import_pipeline, run_locally

    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files())
        import_dataset(request(tmp_path / "alone"))
        hub.fail(path=r"resolve/.*parquet", after=6, status=403)
        stages = import_pipeline(request(tmp_path / "ranks"), tasks=3)
        with pytest.raises(Exception, match="403"):
            run_locally(stages, tmp_path / "logs", workers=2)
        assert not (tmp_path / "ranks/documents").exists()
        run_locally(stages, tmp_path / "logs", workers=2)
    manifests = [read_manifest(tmp_path / name / "documents") for name in ("alone", "ranks")]
    assert manifests[0] is not None
    assert manifests[0] == manifests[1]
    assert folder_bytes(tmp_path / "ranks") == folder_bytes(tmp_path / "alone")
    assert (tmp_path / "logs/read/stats.json").is_file()


@needs_datatrove
def test_stages_that_were_sent_elsewhere_do_the_same_work(tmp_path: Path) -> None:
    import dill

    from picochat.data.datatrove_pipelines import import_pipeline

    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", parquet_files())
        import_dataset(request(tmp_path / "alone"))
        stages = dill.loads(dill.dumps(import_pipeline(request(tmp_path / "ranks"), tasks=2)))
        for stage in stages:
            for rank in range(stage.tasks):
                for step in stage.pipeline:
                    step.run(None, rank, stage.tasks)
    assert str(stages[0].pipeline[0]) == "PICOCHAT: pin"
    assert folder_bytes(tmp_path / "ranks") == folder_bytes(tmp_path / "alone")


def test_a_missing_extra_is_one_message_with_the_command_that_brings_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "needs datatrove" in done.stdout
    assert "pip install 'picochat[datatrove]'" in done.stdout
    assert done.stderr == ""


def test_importing_datasets_on_one_machine_loads_no_datatrove() -> None:
    code = (
        "import sys, picochat.data.importing.hf_import, picochat.data.importing.distributed_import;"
        " print('datatrove' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


# ---- the scan of a corpus ------------------------------------------------------------------------


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


@needs_datatrove
def test_a_corpus_of_scans_by_three_tasks_is_that_of_one_process_and_reads_no_source_again(
    tmp_path: Path,
) -> None:
    from picochat.data.datatrove_pipelines import run_locally, scan_pipeline

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


@needs_datatrove
def test_every_group_is_scanned_by_one_rank_and_once(tmp_path: Path) -> None:
    from picochat.data.datatrove_pipelines import scan_groups_of_rank

    pack = _pack(tmp_path)
    folder = _scan_folder(tmp_path / "ranks")
    assert [scan_groups_of_rank(pack, 1, folder, rank, 3) for rank in range(3)] == [120, 120, 60]
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert sum(name.endswith(".json") for name in stamps) == SOURCES
    assert [scan_groups_of_rank(pack, 1, folder, rank, 3) for rank in range(3)] == [120, 120, 60]
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps


@needs_datatrove
def test_groups_that_no_rank_scanned_are_scanned_by_the_corpus_itself(tmp_path: Path) -> None:
    from picochat.data.datatrove_pipelines import scan_groups_of_rank

    pack = _pack(tmp_path)
    alone = make_corpus(pack, tmp_path / "alone")
    scan_groups_of_rank(pack, 1, _scan_folder(tmp_path / "ranks"), 1, 3)
    assert make_corpus(pack, tmp_path / "ranks").digest == alone.digest
