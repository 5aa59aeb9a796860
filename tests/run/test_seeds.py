"""`run tiny --seeds N`: runs that share all but the training, and what that moves."""

from __future__ import annotations

import os
import re
import shutil
import statistics
from pathlib import Path

import pytest

from picochat.cli.main import run_command
from picochat.core.records import read_json, read_record
from picochat.facts import ScoresFacts, facts_of
from picochat.release.verify import verify_bundle
from picochat.report.spread import Spread
from picochat.run.folder import RunDir
from picochat.run.graph import ARTIFACTS, KNOWN_BEFORE_TRAINING
from tests.small_pack import SHAPE, make_pack

SETTINGS = [word for key, value in SHAPE.items() for word in ("--set", f"{key}={value}")]
SETTINGS += ["--set", "evals.fit_rows=4", "--set", "evals.max_new_tokens=4"]
SHORT = ["--base-steps", "4", "--sft-steps", "2"]


def command(out: Path, pack: Path, *more: str) -> list[str]:
    words = ["run", "tiny", "--out-dir", str(out), "--dataset-pack", str(pack)]
    return [*words, *SETTINGS, *SHORT, *more]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pack and the runs of two training seeds."""
    root = tmp_path_factory.mktemp("seeds")
    os.environ["PICOCHAT_HOME"] = str(root / "cache")
    pack = make_pack(root / "pack")
    assert run_command(command(root / "runs", pack, "--seeds", "2")) == 0
    return root


def test_runs_share_all_but_what_the_training_seed_decides(trained: Path) -> None:
    first, second = (RunDir(trained / "runs" / f"seed-{seed}") for seed in (42, 43))
    same = [
        spec.kind
        for spec in ARTIFACTS
        if first.artifact(spec.kind).digest == second.artifact(spec.kind).digest
    ]
    assert set(same) >= set(KNOWN_BEFORE_TRAINING)
    assert not {"base", "sft", "scores", "summary"} & set(same)
    journal = (second.root / "timings.jsonl").read_text()
    assert set(re.findall(r'"stage": ?"(\w+)"', journal)).isdisjoint(KNOWN_BEFORE_TRAINING)
    for run in (first, second):
        assert verify_bundle(run.root).evidence_digest


def test_the_page_states_mean_and_spread_of_the_runs(trained: Path) -> None:
    spread = read_record(Spread, trained / "runs" / "seeds.json", "seeds")
    assert (spread.runs, spread.verdicts) == (["seed-42", "seed-43"], ["warn", "warn"])
    bits = [
        facts_of(RunDir(trained / "runs" / name).artifact("scores"), ScoresFacts).base_bits_per_byte
        for name in spread.runs
    ]
    measured = next(each for each in spread.measures if each.name.startswith("base model"))
    assert measured.values == bits
    assert measured.values[0] != measured.values[1]
    assert measured.mean == pytest.approx(statistics.fmean(filter(None, bits)))
    assert measured.standard_deviation == pytest.approx(statistics.stdev(filter(None, bits)))
    page = (trained / "runs" / "seeds.md").read_text()
    assert f"{measured.mean:.4f} | {measured.standard_deviation:.4f}" in page
    chart = (trained / "runs" / "seeds.svg").read_text()
    assert chart.count("<polyline") == 2 and "seed-43" in chart


def test_the_same_command_again_trains_nothing_and_a_third_seed_goes_on(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = trained / "pack" / "pack.json"
    assert run_command(command(trained / "runs", pack, "--seeds", "2")) == 0
    shown = capsys.readouterr()
    assert "built " not in shown.err and "standard deviation" in shown.out
    assert run_command(command(trained / "runs", pack, "--seeds", "3", "--preflight-only")) == 0
    assert "3 seeds train 3 times as long" in capsys.readouterr().out
    assert not (trained / "runs" / "seed-44").exists()
    assert run_command(["run", "show", str(trained / "runs")]) == 0  # of the two that are finished


def test_screens_of_several_seeds_and_of_one_of_them(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = shutil.copytree(trained / "runs", tmp_path / "runs")
    line = command(runs, trained / "pack" / "pack.json", "--seeds", "2")
    assert run_command([*line, "--long-run-gate-profile", "first_release"]) == 3  # both are blocked
    capsys.readouterr()
    assert run_command(["run", "show", str(runs)]) == 0
    assert re.search(r"release gate +blocked +blocked", capsys.readouterr().out)
    assert run_command(["run", "status", str(runs)]) == 0
    assert capsys.readouterr().out.count(" built ") == 2 * len(ARTIFACTS)
    assert run_command(["run", "show", str(runs / "seed-43")]) == 0


def test_a_folder_of_seeds_is_no_run_and_a_run_no_folder_of_seeds(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The remedies are followed as they are printed."""
    runs, pack = trained / "runs", trained / "pack" / "pack.json"
    assert run_command(command(runs, pack)) == 2
    assert "go on with these runs: --seeds N" in capsys.readouterr().err
    assert run_command(command(runs, pack, "--seeds", "2")) == 0
    capsys.readouterr()
    assert run_command(["run", "bundle", str(runs)]) == 4
    named = capsys.readouterr().err.partition("name one: ")[2].strip()
    assert run_command(["run", "bundle", named, "--out", str(trained / "one.tgz")]) == 0
    capsys.readouterr()
    assert run_command(command(runs / "seed-42", pack, "--seeds", "2")) == 2
    assert "choose another --out-dir" in capsys.readouterr().err
    assert run_command(command(tmp_path, pack, "--seeds", "2", "--preflight-only")) == 0


def test_the_first_training_seed_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "pack")
    seeds = ["--seeds", "2", "--preflight-only"]
    run_command(command(tmp_path / "runs", pack, *seeds, "--set", "training_seed=7"))
    config = read_json(tmp_path / "runs" / "seed-7" / "run.json", "run")["config"]
    assert (config["seed"], config["training_seed"]) == (42, 7)


def test_a_run_that_stopped_names_the_command_with_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = make_pack(tmp_path / "pack")
    line = command(tmp_path / "runs", pack, "--seeds", "2", "--preflight-only")
    assert run_command(line) == 0
    capsys.readouterr()
    assert run_command(["run", "show", str(tmp_path / "runs")]) == 4
    assert "run tiny --seeds N --out-dir" in capsys.readouterr().err
    assert run_command(["run", "status", str(tmp_path / "runs")]) == 0
    shown = capsys.readouterr().out
    assert "preflight" in shown and "seed-43: not begun" in shown
    (tmp_path / "runs" / "seeds.json").write_text("[]")
    assert run_command(["run", "status", str(tmp_path / "runs")]) == 4
    assert "names no runs" in capsys.readouterr().err
    assert run_command(line[:-1]) == 0
    assert run_command(["run", "show", str(tmp_path / "runs")]) == 0
