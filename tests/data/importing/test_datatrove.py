import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from picochat.data.documents import read_manifest
from picochat.data.importing.hf_import import import_dataset
from tests.data.builders import folder_bytes, parquet_files, request, serving
from tests.fake_hub import FakeHub

SHARE = Path(__file__).parents[3] / "src"
needs_datatrove = pytest.mark.skipif(
    importlib.util.find_spec("datatrove") is None,
    reason="datatrove is not installed: pip install 'picochat[datatrove]'",
)
WITHOUT = """
import sys
sys.modules["datatrove"] = None
from picochat.core.errors import BadInput
try:
    import picochat.data.importing.datatrove
except BadInput as error:
    print(error.lines())
"""


@needs_datatrove
def test_three_tasks_of_the_local_executor_give_the_digests_of_one_process(tmp_path: Path) -> None:
    from picochat.data.datatrove_stages import run_locally
    from picochat.data.importing.datatrove import import_pipeline

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

    from picochat.data.importing.datatrove import import_pipeline

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
        env={"PYTHONPATH": str(SHARE)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "needs datatrove" in done.stdout
    assert "pip install 'picochat[datatrove]'" in done.stdout
    assert done.stderr == ""


def test_importing_datasets_on_one_machine_loads_no_datatrove() -> None:
    code = (
        "import sys, picochat.data.importing.hf_import, picochat.data.importing.ranks;"
        " print('datatrove' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(SHARE)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
