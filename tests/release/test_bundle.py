import gzip
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from picochat.core.errors import BadInput, WrongUsage
from picochat.core.records import read_json
from picochat.release.bundle import BundleReport, make_bundle
from picochat.run.folder import RunDir
from picochat.run.graph import ARTIFACTS, FRONT_PAGES
from tests.builders import make_rows_facts, make_shards_facts
from tests.run_builder import make_run


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    (folder / "deeper").mkdir(parents=True)
    (folder / "train.log").write_text("step 1\n")
    (folder / "deeper" / "import.log").write_text("row 1\n")
    (folder / ".hidden").write_text("x")
    return folder


def names_in(path: Path) -> set[str]:
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def strict(run: RunDir, logs: Path, **options: bool) -> BundleReport:
    return make_bundle(run, run.root.parent / "out.tgz", logs, strict=True, **options)


def test_a_complete_run_gives_a_strict_bundle_of_all_its_evidence(
    tmp_path: Path, logs: Path
) -> None:
    run = make_run(tmp_path / "run")
    report = strict(run, logs)
    names = names_in(report.path)
    assert {"run.json", "machine.json", "bundle.json", "SHA256SUMS"} <= names
    assert {page.name for page in FRONT_PAGES} <= names
    assert {f"{spec.folder}/manifest.json" for spec in ARTIFACTS} <= names
    assert {
        "eval/replies.jsonl",
        "rows/eval.jsonl",
        "corpus/import_reports/cosmopedia-v2.json",
    } <= names
    assert {
        "sft/checkpoint/model.safetensors",
        "base/checkpoint/curve.jsonl",
        "host/host.json",
    } <= names
    assert {"logs/train.log", "logs/deeper/import.log"} <= names
    assert "logs/.hidden" not in names
    assert report.contents.missing == []
    assert report.contents.verdict == "approved"
    assert report.files == len(names)


def test_token_shards_stay_out_unless_asked_for_and_their_sidecars_stay_in(
    tmp_path: Path, logs: Path
) -> None:
    run = make_run(tmp_path / "run")
    names = names_in(strict(run, logs).path)
    assert not [name for name in names if name.endswith(".bin")]
    assert "base/token_shards/train-00000.json" in names
    assert "base/token_shards/train-00000.bin" in names_in(
        strict(run, logs, include_token_shards=True).path
    )


def test_weights_can_be_left_out_and_that_is_stated(tmp_path: Path, logs: Path) -> None:
    report = strict(make_run(tmp_path / "run"), logs, include_weights=False)
    assert not [name for name in names_in(report.path) if name.endswith(".safetensors")]
    assert "sft/checkpoint/model.safetensors" in report.contents.left_out


def test_logs_of_another_run_are_refused_and_told(tmp_path: Path, logs: Path) -> None:
    """A log that names none of this run's artifacts of a kind tells of another run."""
    run = make_run(tmp_path / "run")
    digest = run.artifact("gate").digest
    log = logs / "train.log"
    log.write_text(f"built gate {'0' * 12} in 3s\nbuilt gate {digest[:12]} in 3s\n")
    strict(run, logs)
    log.write_text(f"built gate {'0' * 12} in 3s\n")
    with pytest.raises(BadInput) as error:
        strict(run, logs)
    assert f"they name gate {'0' * 12} and not {digest[:12]}" in error.value.problems[0].what
    loose = make_bundle(run, tmp_path / "loose.tgz", logs, strict=False)
    assert any("are of another run" in what for what in loose.contents.missing)


def test_no_folder_of_the_makers_machine_is_in_the_bundle(tmp_path: Path, logs: Path) -> None:
    report = strict(make_run(tmp_path / "run"), logs)
    with tarfile.open(report.path) as archive:
        for info in archive:
            stream = archive.extractfile(info)
            assert stream is not None
            data = stream.read()
            assert str(tmp_path).encode() not in data, info.name
            assert b"/home/somebody" not in data, info.name


def test_the_same_run_folder_gives_the_same_bytes(tmp_path: Path, logs: Path) -> None:
    run = make_run(tmp_path / "run")
    first = strict(run, logs)
    moved = tmp_path / "elsewhere"
    shutil.copytree(run.root, moved / "run")
    for path in (moved / "run").rglob("*"):
        os.utime(path, (1, 1))
    second = make_bundle(RunDir(moved / "run"), moved / "second.tgz", logs, strict=True)
    assert first.sha256 == second.sha256
    assert first.path.read_bytes() == second.path.read_bytes()


def test_equal_work_has_the_same_evidence_digest_and_other_work_another(
    tmp_path: Path, logs: Path
) -> None:
    first, second = (
        make_bundle(make_run(tmp_path / name), tmp_path / f"{name}.tgz", logs, strict=True)
        for name in "ab"
    )
    other = make_run(tmp_path / "c", facts={"rows": make_rows_facts(repeated_sft_prompts=1)})
    third = make_bundle(other, tmp_path / "c.tgz", logs, strict=True)
    assert (
        first.contents.evidence_digest
        == second.contents.evidence_digest
        != third.contents.evidence_digest
    )


def test_sha256sum_alone_can_check_it(tmp_path: Path, logs: Path) -> None:
    report = strict(make_run(tmp_path / "run"), logs)
    subprocess.run(["tar", "-xzf", str(report.path), "-C", str(tmp_path / "logs")], check=True)
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    subprocess.run(check, cwd=tmp_path / "logs" / "run", check=True)
    listed = (tmp_path / "logs" / "run" / "SHA256SUMS").read_text().splitlines()
    assert len(listed) == report.files - 1


@pytest.mark.parametrize("kind", [spec.kind for spec in ARTIFACTS])
def test_strict_names_each_missing_artifact_and_what_makes_it(
    tmp_path: Path, logs: Path, kind: str
) -> None:
    run = make_run(tmp_path / "run")
    shutil.rmtree(run.place(kind))
    with pytest.raises(BadInput) as refusal:
        strict(run, logs)
    named = [
        problem
        for problem in refusal.value.problems
        if problem.what.startswith(f"{run.place(kind).relative_to(run.root)}/: ")
    ]
    assert named
    assert "picochat run tiny --out-dir" in (named[0].fix or "")
    assert refusal.value.exit_code == 4
    assert not (tmp_path / "out.tgz").exists()


def test_strict_names_everything_that_is_missing_at_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", until="host")
    run.machine.unlink()
    with pytest.raises(BadInput) as refusal:
        make_bundle(run, tmp_path / "out.tgz", None, strict=True)
    text = "\n".join(refusal.value.lines())
    for expected in (
        "preflight/",
        "base/checkpoint/",
        "sft/checkpoint/",
        "eval/",
        "gate/",
        "summary/",
        "machine.json",
        "logs/",
    ):
        assert f"{expected}:" in text or f"    {expected}" in text, expected


@pytest.mark.parametrize("name", ["gate.json", "summary.md", "tokenizer.json"])
def test_strict_refuses_a_front_page_that_is_gone_or_changed(
    tmp_path: Path, logs: Path, name: str
) -> None:
    run = make_run(tmp_path / "run")
    (run.root / name).write_text("changed")
    with pytest.raises(BadInput, match="no complete evidence"):
        strict(run, logs)
    (run.root / name).unlink()
    with pytest.raises(BadInput) as refusal:
        strict(run, logs)
    assert any(problem.what.startswith(name) for problem in refusal.value.problems)


@pytest.mark.parametrize(
    "name",
    ["eval/replies.jsonl", "base/checkpoint/metrics.jsonl", "base/token_shards/train-00000.bin"],
)
def test_strict_refuses_files_that_differ_from_their_manifest(
    tmp_path: Path, logs: Path, name: str
) -> None:
    run = make_run(tmp_path / "run")
    with (run.root / name).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(BadInput) as refusal:
        strict(run, logs)
    assert [problem.what for problem in refusal.value.problems] == [
        f"{name}: its bytes differ from the manifest"
    ]


def test_strict_refuses_an_artifact_that_was_made_from_another(tmp_path: Path, logs: Path) -> None:
    run = make_run(tmp_path / "run")
    other = make_run(
        tmp_path / "other", facts={"shards": make_shards_facts(train_tokens=1_040_000_000)}
    )
    shutil.rmtree(run.place("shards"))
    shutil.copytree(other.place("shards"), run.place("shards"))
    with pytest.raises(BadInput) as refusal:
        strict(run, logs)
    assert any(
        problem.what.startswith("base: was made from another shards")
        for problem in refusal.value.problems
    )


def test_without_strict_an_unfinished_run_is_bundled_and_says_what_is_missing(
    tmp_path: Path,
) -> None:
    run = make_run(
        tmp_path / "run", until="preflight", facts={"rows": make_rows_facts(shared_items=2)}
    )
    report = make_bundle(run, tmp_path / "out.tgz", None, strict=False)
    assert report.contents.verdict == "blocked by the preflight"
    assert "sft/checkpoint/: the sft artifact is missing" in report.contents.missing
    assert any(line.startswith("missing: logs/") for line in report.lines())
    assert "preflight/preflight.json" in names_in(report.path)


def test_a_blocked_verdict_is_bundled_like_any_other(tmp_path: Path, logs: Path) -> None:
    run = make_run(tmp_path / "run", facts={"rows": make_rows_facts(shared_items=2)})
    assert read_json(run.root / "gate.json")["status"] == "blocked"
    assert strict(run, logs).contents.verdict == "blocked"


def refused(tmp_path: Path, logs: Path) -> list[str]:
    """What a bundle with these logs is refused for."""
    run = (
        make_run(tmp_path / "run") if not (tmp_path / "run").exists() else RunDir(tmp_path / "run")
    )
    with pytest.raises(BadInput) as refusal:
        make_bundle(run, tmp_path / "out.tgz", logs, strict=False)
    assert not (tmp_path / "out.tgz").exists()
    return [problem.what for problem in refusal.value.problems]


def test_a_secret_of_the_environment_is_never_in_a_bundle(
    tmp_path: Path, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TRACKER_API_KEY", "a-secret-of-this-environment")
    monkeypatch.setenv("SHORT_TOKEN", "train")
    text = "x" * ((1 << 20) - 10) + "key a-secret-of-this-environment\n"  # across two blocks
    (logs / "push.log").write_text(text)
    (logs / "of a-secret-of-this-environment.log").write_text("")
    assert refused(tmp_path, logs) == [
        "logs/of a-secret-of-this-environment.log: holds the value of MY_TRACKER_API_KEY",
        "logs/push.log: holds the value of MY_TRACKER_API_KEY",
    ]


def test_a_log_that_is_compressed_or_a_link_is_refused(tmp_path: Path, logs: Path) -> None:
    (logs / "train.log.gz").write_bytes(gzip.compress(b"hf_" + b"A1b2" * 9))
    assert refused(tmp_path, logs) == [
        "logs/train.log.gz: is compressed, so that nobody sees what it holds"
    ]
    (logs / "train.log.gz").unlink()
    (logs / "home").symlink_to(Path.home())
    assert refused(tmp_path, logs) == [f"{logs / 'home'} is a link"]


def test_a_file_of_the_run_that_is_a_link_is_refused(tmp_path: Path, logs: Path) -> None:
    run = make_run(tmp_path / "run")
    page = run.place("gate") / "gate.json"
    page.rename(tmp_path / "elsewhere.json")
    page.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BadInput) as refusal:
        make_bundle(run, tmp_path / "out.tgz", logs, strict=False)
    assert [problem.what for problem in refusal.value.problems] == [f"{page} is a link"]


def test_wrong_places_are_refused_with_the_remedy(tmp_path: Path, logs: Path) -> None:
    run = make_run(tmp_path / "run", until="corpus")
    with pytest.raises(WrongUsage):
        make_bundle(run, tmp_path, logs, strict=False)
    with pytest.raises(WrongUsage):
        make_bundle(run, run.place("corpus") / "x.tgz", logs, strict=False)
    with pytest.raises(BadInput):
        make_bundle(run, tmp_path / "x.tgz", tmp_path / "no-logs", strict=False)
    with pytest.raises(BadInput):
        make_bundle(RunDir(tmp_path / "nothing"), tmp_path / "x.tgz", logs, strict=False)


def test_a_bundle_written_into_the_logs_does_not_hold_itself(tmp_path: Path, logs: Path) -> None:
    run = make_run(tmp_path / "run")
    first = make_bundle(run, logs / "evidence.tgz", logs, strict=True)
    second = make_bundle(run, logs / "evidence.tgz", logs, strict=True)
    assert first.sha256 == second.sha256
