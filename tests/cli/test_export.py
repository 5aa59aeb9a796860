"""`picochat export hf` from the command line: each refusal with its exit code, and no refusal
leaves a folder.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from picochat.cli.main import run_command
from picochat.run.folder import RunDir
from tests.export_builders import RunParts, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return make_run(tmp_path_factory.mktemp("cli") / "run", RunParts(scored_checkpoint="e" * 64))


def export(run: RunDir, out_dir: Path, *more: str, checkpoint: str = "sft/checkpoint") -> int:
    flags = [
        "--checkpoint",
        str(run.root / checkpoint),
        "--tokenizer",
        str(run.root / "tokenizer.json"),
    ]
    return run_command(
        [
            "export",
            "hf",
            *flags,
            "--out-dir",
            str(out_dir),
            "--model-name",
            "m",
            "--license",
            "mit",
            *more,
        ]
    )


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--push-to-hub"], 2, "fix: --repo-id OWNER/NAME"),
        (["--private"], 2, "add --push-to-hub"),
        (
            ["--push-to-hub", "--repo-id", "a/b", "--token-env", "NO_SUCH_TOKEN"],
            2,
            "fix: export NO_SUCH_TOKEN=...",
        ),
        (["--dtype", "float23"], 2, "did you mean float32"),
        (["--flavor", "cohre"], 2, "did you mean cohere"),
        ([], 3, "is not the checkpoint that the run's scores speak of"),
    ],
)
def test_each_refusal_has_its_exit_code_and_leaves_nothing(
    run: RunDir,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    code: int,
    words: str,
) -> None:
    assert export(run, tmp_path / "out", *more) == code
    said = capsys.readouterr()
    assert words in said.err
    assert said.out == ""
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_checkpoint_is_bad_input(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(run, tmp_path / "out", checkpoint="honesty") == 4
    assert "is not a checkpoint" in capsys.readouterr().err


def test_export_into_the_evidence_is_refused(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(run, run.place("sft") / "model", "--allow-unscored") == 2
    assert "lies inside the artifact" in capsys.readouterr().err
    assert not (run.place("sft") / "model").exists()
