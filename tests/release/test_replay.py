"""Replay: a run's last stretch trained again gives its losses and weights; what was changed, or is
missing, is said.
"""

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from picochat.cli.main import run_command
from picochat.config import CountsConfig, RunConfig
from picochat.core.errors import BadInput
from picochat.core.publish import Manifest
from picochat.core.records import digest_bytes, pretty_json, read_json, write_json
from picochat.release.bundle import make_bundle
from picochat.release.replay import inspect_with_replay, relative_distance, replay
from picochat.run.folder import RunDir
from tests.train.builders import SPIKING, begin_run, small_config, train_base


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run with a base checkpoint of twelve steps and a state to replay from at step 8."""
    return make_run(tmp_path_factory.mktemp("replay") / "run", small_config())


def make_run(root: Path, config: RunConfig) -> RunDir:
    run = begin_run(root, config)
    train_base(run, config)
    return run


def copied(run: RunDir, root: Path) -> RunDir:
    shutil.copytree(run.root, root)
    return RunDir(root)


def bundled(run: RunDir, path: Path, **more: bool) -> Path:
    return make_bundle(run, path, None, strict=False, **more).path


def rewrite_manifest(run: RunDir, kind: str, **facts: object) -> None:
    """State the files of an artifact as they are now, and other facts: what someone who changes a
    file would do next.
    """
    file = run.place(kind) / "manifest.json"
    manifest: dict[str, Any] = json.loads(file.read_text())
    manifest["facts"].update(facts)
    for table in (manifest["files"], manifest["volatile_files"]):
        for name in table:
            data = (run.place(kind) / name).read_bytes()
            table[name] = {"sha256": digest_bytes(data), "bytes": len(data)}
    file.write_bytes(pretty_json(Manifest.model_validate(manifest)))


def change_loss(run: RunDir, step: int, change: Callable[[float], float]) -> None:
    """Another loss at one step of the curve, with digests to match."""
    curve = run.place("base") / "curve.jsonl"
    rows = [json.loads(line) for line in curve.read_text().splitlines()]
    for row in rows:
        if row["step"] == step and row["loss"] is not None:
            row["loss"] = change(row["loss"])
    curve.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rewrite_manifest(run, "base")


def elsewhere(run: RunDir) -> None:
    """Let the run state that it was trained on another processor."""
    write_json(run.machine, {**read_json(run.machine), "cpu": "another"})


def test_replay_of_a_run_folder_is_equal_bit_for_bit(finished: RunDir) -> None:
    part = inspect_with_replay(finished.root, 3, None)
    assert not part.problems and part.checks[-1].compared == 3
    assert (
        part.checks[-1].note
        == "losses of steps 9 to 11 equal bit for bit; the last 1 steps were not trained again"
    )
    whole = inspect_with_replay(finished.root, 100, None)
    assert whole.checks[-1].compared == 4
    assert (
        whole.checks[-1].note
        == "losses of steps 9 to 12 equal bit for bit; published weights equal bit for bit"
    )
    assert "replay: 4 compared: losses of steps 9 to 12" in "\n".join(whole.lines())


def test_the_published_state_is_not_a_copy_of_its_own(tmp_path: Path) -> None:
    """While the artifact is made, its files are the workspace's by hard link; afterwards nothing
    else holds them.
    """
    run = make_run(tmp_path / "run", small_config())
    assert not (tmp_path / "run" / "base" / "checkpoint.work").exists()
    state = run.place("base") / "replay"
    assert sorted(path.name for path in state.iterdir()) == [
        "optimizer.safetensors",
        "state.json",
        "weights.safetensors",
    ]
    assert all(os.stat(path).st_nlink == 1 for path in state.iterdir())
    assert read_json(state / "state.json")["state"]["step"] == 8
    assert {f"replay/{path.name}" for path in state.iterdir()} <= set(
        run.artifact("base").manifest.files
    )


def test_changed_loss_is_found_to_the_last_bit_on_a_machine_like_the_runs(
    finished: RunDir, tmp_path: Path
) -> None:
    run = copied(finished, tmp_path / "run")
    change_loss(run, 10, lambda loss: loss + 1e-6)
    report = inspect_with_replay(run.root, 4, None)
    assert report.exit_code == 3 and report.checks[-1].compared == 2
    assert report.problems[0].what.startswith("step 10: the curve states a loss of ")
    assert (
        "must be equal" in report.problems[0].what
        and "steps 11 to 12 were not trained" in report.problems[0].what
    )


def test_elsewhere_a_small_difference_passes_and_is_stated_and_a_large_one_does_not(
    finished: RunDir, tmp_path: Path
) -> None:
    run = copied(finished, tmp_path / "run")
    elsewhere(run)
    change_loss(run, 10, lambda loss: loss + 1e-4)
    report = inspect_with_replay(run.root, 4, None)
    assert not report.problems
    assert "equal within 0.001 nats (largest difference 0.0001)" in (report.checks[-1].note or "")
    change_loss(run, 11, lambda loss: loss + 1e-2)
    report = inspect_with_replay(run.root, 4, None)
    assert (
        report.exit_code == 3
        and "step 11" in report.problems[0].what
        and "at most 0.001 different" in report.problems[0].what
    )


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_weights_that_did_not_come_from_these_steps_are_found(
    finished: RunDir, tmp_path: Path, where: str
) -> None:
    """A step of somebody else's training on top: a change as large as one step's own."""
    run = copied(finished, tmp_path / "run")
    if where == "elsewhere":
        elsewhere(run)
    file = run.place("base") / "model.safetensors"
    start, end = load_file(run.place("base") / "replay" / "weights.safetensors"), load_file(file)
    save_file(
        {name: end[name] + 0.25 * (end[name] - start[name]) for name in end},
        file,
        metadata={"format": "pt"},
    )
    rewrite_manifest(run, "base")
    report = inspect_with_replay(run.root, 4, None)
    assert report.exit_code == 3
    assert "step 12: published weights differ by 20.00% of the way" in report.problems[0].what


def test_a_curve_without_a_step_is_found(finished: RunDir, tmp_path: Path) -> None:
    run = copied(finished, tmp_path / "run")
    curve = run.place("base") / "curve.jsonl"
    curve.write_text(
        "".join(line for line in curve.read_text().splitlines(True) if '"step":11,' not in line)
    )
    rewrite_manifest(run, "base")
    assert (
        "base.losses_finite: states true" in inspect_with_replay(run.root, 4, None).problems[0].what
    )
    assert "step 11: the curve states no loss" in replay(run.root, 4, None).problems[0].what


def test_bundle_is_replayed_with_the_parts_of_a_run_that_was_made_again(
    finished: RunDir, tmp_path: Path
) -> None:
    bundle = bundled(finished, tmp_path / "b.tgz")
    with pytest.raises(BadInput) as lacking:
        inspect_with_replay(bundle, 2, None)
    said = "\n".join(lacking.value.lines())
    assert (
        "base: replay/weights.safetensors and" in said
        and "shards: held_out-00000.bin and" in said
        and "--run-dir RUN" in said
    )
    again = make_run(tmp_path / "again", small_config())
    report = inspect_with_replay(bundle, 4, again.root)
    assert not report.problems
    assert "steps 9 to 12 equal bit for bit; published weights equal" in (
        report.checks[-1].note or ""
    )


def test_a_bundle_unpacked_by_hand_is_replayed_and_lends_what_another_lacks(
    finished: RunDir, tmp_path: Path
) -> None:
    whole = bundled(
        finished, tmp_path / "whole.tgz", include_token_shards=True, include_replay=True
    )
    with tarfile.open(whole) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (tmp_path / "unpacked" / "__MACOSX").mkdir()
    report = inspect_with_replay(tmp_path / "unpacked", 3, None)
    assert not report.problems and report.checks[-1].compared == 3
    lacking = bundled(finished, tmp_path / "lacking.tgz")
    report = inspect_with_replay(lacking, 3, tmp_path / "unpacked")
    assert not report.problems and report.checks[-1].compared == 3


def test_bundle_with_everything_needs_no_run_folder(finished: RunDir, tmp_path: Path) -> None:
    bundle = bundled(finished, tmp_path / "b.tgz", include_replay=True, include_token_shards=True)
    report = inspect_with_replay(bundle, 4, None)
    assert not report.problems and not report.left_out
    assert "published weights equal bit for bit" in (report.checks[-1].note or "")


def test_bundle_states_the_digest_of_the_state_that_it_leaves_out(
    finished: RunDir, tmp_path: Path
) -> None:
    report = make_bundle(finished, tmp_path / "b.tgz", None, strict=False)
    left = {name: entry for name, entry in report.contents.left_out.items() if "/replay/" in name}
    assert set(left) == {
        "base/checkpoint/replay/weights.safetensors",
        "base/checkpoint/replay/optimizer.safetensors",
    }
    stated = finished.artifact("base").manifest.files
    assert all(
        entry.sha256 == stated[name.removeprefix("base/checkpoint/")].sha256
        for name, entry in left.items()
    )
    assert all("--include-replay" in entry.reason for entry in left.values())


def test_another_run_is_not_taken_for_the_bundles_own(finished: RunDir, tmp_path: Path) -> None:
    bundle = bundled(finished, tmp_path / "b.tgz")
    other = make_run(tmp_path / "other", small_config(muon_lr=0.02))
    (other.place("shards") / "train-00000.bin").write_bytes(b"\0\0")
    with pytest.raises(BadInput) as refused:
        inspect_with_replay(bundle, 2, other.root)
    wrong = [problem.what for problem in refused.value.problems]
    assert len(wrong) == 2 and all(
        "is not the file that the manifest states" in what for what in wrong
    )
    assert "replay/weights.safetensors" in wrong[0] and "train-00000.bin" in wrong[1]


def test_what_differs_already_is_not_trained_again(
    finished: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(finished, tmp_path / "run")
    shard = run.place("shards") / "train-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-2] + b"\1\1")
    report = inspect_with_replay(run.root, 2, None)
    assert report.exit_code == 3 and [check.name for check in report.checks][-1] != "replay"
    assert "nothing was trained again" in capsys.readouterr().err


def test_rows_that_were_passed_over_after_a_spike_are_passed_over_again(tmp_path: Path) -> None:
    """Nothing is learned, and any loss a little over its mean counts as a spike: training goes back
    in its last stretch too.
    """
    config = small_config(**SPIKING)
    run = make_run(tmp_path / "run", config)
    facts = run.artifact("base").facts
    state = read_json(run.place("base") / "replay" / "state.json")["state"]
    assert facts["skipped_steps"] > state["skipped"]
    check = replay(run.root, 100, None)
    assert not check.problems and "published weights equal bit for bit" in (check.note or "")


def test_a_teacher_that_stays_to_the_end_is_asked_again(tmp_path: Path) -> None:
    config = small_config().model_copy(
        update={"counts": CountsConfig(teacher=1.0, teacher_until=1.0)}
    )
    check = replay(make_run(tmp_path / "run", config).root, 4, None)
    assert not check.problems and "published weights equal bit for bit" in (check.note or "")


def test_best_weights_are_compared_at_their_step_or_said_to_be_before_it(tmp_path: Path) -> None:
    """A rising rate that ruins the model: the first evaluation is the best, and the replay begins
    at the second.
    """
    config = small_config(
        publish="best", muon_lr=3.0, adamw_lr=3.0, warmup_steps=12, decay_fraction=0.0
    )
    run = make_run(tmp_path / "run", config)
    assert run.artifact("base").facts["scored_step"] == 4
    assert "published weights are those of step 4, before the state" in (
        replay(run.root, 4, None).note or ""
    )
    shutil.copyfile(
        run.place("base") / "replay" / "weights.safetensors",
        run.place("base") / "model.safetensors",
    )
    rewrite_manifest(run, "base", scored_step=8)
    assert "published weights equal bit for bit" in (replay(run.root, 1, None).note or "")
    rewrite_manifest(run, "base", scored_step=12)
    assert "step 12: published weights differ by" in replay(run.root, 4, None).problems[0].what


def test_run_without_a_state_to_replay_from_says_why(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", small_config(eval_every=None, steps=2))
    assert "replay/state.json" not in run.artifact("base").manifest.files
    with pytest.raises(BadInput, match="kept no state") as refused:
        replay(run.root, 2, None)
    assert "base.eval_every" in (refused.value.fix or "")


def test_run_without_a_base_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="base"):
        inspect_with_replay(begin_run(tmp_path / "run", small_config()).root, 2, None)


def test_relative_distance_is_a_share_of_the_way_that_the_weights_moved() -> None:
    start, end = {"w": torch.zeros(4)}, {"w": torch.full((4,), 2.0)}
    assert relative_distance({"w": torch.full((4,), 1.5)}, end, start) == pytest.approx(0.25)
    assert relative_distance(end, end, start) == 0.0
    assert relative_distance(end, start, start) == float("inf")


def test_command_line_of_a_replay(
    finished: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["run", "verify", str(finished.root), "--replay", "2"]) == 0
    shown = capsys.readouterr()
    assert (
        "losses of steps 9 to 10 equal bit for bit" in shown.out
        and "training again: 2/2 steps" in shown.err
    )
    assert run_command(["run", "verify", str(finished.root), "--replay", "2", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["replay"]["compared"] == 2 and "equal bit for bit" in checks["replay"]["note"]
    assert run_command(["run", "verify", str(finished.root), "--run-dir", str(tmp_path)]) == 2
    assert "--run-dir needs --replay or --ask" in capsys.readouterr().err
    run = copied(finished, tmp_path / "run")
    change_loss(run, 9, lambda loss: loss - 0.5)
    assert run_command(["run", "verify", str(run.root), "--replay", "2"]) == 3
    assert "step 9: the curve states a loss of" in capsys.readouterr().err
