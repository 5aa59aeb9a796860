"""The whole run, small, on real text: a second run and a killed run end with the same evidence;
stages are what the table says.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from picochat.cli.main import run_command
from picochat.core.errors import BadInput
from picochat.core.records import read_json, write_json
from picochat.data.datatrove_pipelines import scan_groups_of_rank
from picochat.data.pack import load_pack
from picochat.facts import BenchmarksFacts, facts_of
from picochat.preview.preview_pack import preview_pack
from picochat.release.verify import inspect_bundle, verify_bundle
from picochat.run.folder import RunDir
from picochat.run.graph import ARTIFACTS
from picochat.run.request import RunRequest, open_request
from picochat.run.runner import run_stages, shared_corpus, shared_workspace
from picochat.run.status import status_lines
from picochat.scales import find_scale
from picochat.tokens.datatrove_parts import encode_corpus_parts
from tests.data.benchmarks.builders import add_arc, add_hellaswag, add_piqa, arc_rows, write_lines
from tests.data.builders import serving
from tests.fake_hub import FakeHub
from tests.run_builder import make_run
from tests.small_pack import SMALL, make_pack

STEPS = [
    "--set",
    "base.eval_every=4",
    "--set",
    "sft.sequences_per_step=8",
    "--set",
    "evals.max_new_tokens=8",
    "--set",
    "evals.fit_rows=5",
    "--set",
    "evals.batch_rows=8",  # fewer than the options of all choices, so that these share batches
]


RELEASE = ("--long-run-gate-profile", "skill_release")


def make_quiz(pack: Path) -> list[str]:
    """A benchmark beside the pack, and the flags that name it: a skill_release is scored on one."""
    path = write_lines(pack.parent / "quiz.jsonl", arc_rows(60))
    return ["--external-eval", f"quiz={path}", "--external-eval-max-rows", "50"]


def command(out: Path, pack: Path, *more: str) -> list[str]:
    shape = [word for word in SMALL if word not in ("--base-steps", "--sft-steps", "1")]
    return [
        "run",
        "tiny",
        "--out-dir",
        str(out),
        "--dataset-pack",
        str(pack),
        *shape,
        *STEPS,
        "--base-steps",
        "12",
        "--sft-steps",
        "6",
        *more,
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pack, a finished run and its strict bundle."""
    root = tmp_path_factory.mktemp("pipeline")
    os.environ["PICOCHAT_HOME"] = str(root / "cache")
    pack = make_pack(root / "pack")
    assert run_command(command(root / "run", pack, *RELEASE, *make_quiz(pack))) == 3
    (root / "logs").mkdir()
    (root / "logs" / "train.log").write_text("a log\n")
    bundle = [
        "run",
        "bundle",
        "--run-dir",
        str(root / "run"),
        "--out",
        str(root / "run.tgz"),
        "--logs-dir",
        str(root / "logs"),
        "--strict",
    ]
    assert run_command(bundle) == 0
    return root


def evidence_digest(path: Path) -> str:
    return verify_bundle(path).evidence_digest


def test_finished_run_is_verified_from_its_bundle_and_from_its_folder(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["run", "verify", str(finished / "run.tgz")]) == 0
    assert "verdict it states is blocked" in capsys.readouterr().out
    assert evidence_digest(finished / "run.tgz") == evidence_digest(finished / "run")


def test_front_pages_and_screens_of_a_finished_run(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {
        "tokenizer.json",
        "preflight.json",
        "preflight.md",
        "gate.json",
        "gate.md",
        "summary.json",
        "summary.md",
        "report.html",
    }
    assert names <= {path.name for path in (finished / "run").iterdir()}
    assert run_command(["run", "show", "--run-dir", str(finished / "run")]) == 0
    shown = capsys.readouterr().out
    assert (
        "release gate: blocked" in shown
        and "held-out bits per byte" in shown
        and "expected" in shown
    )
    assert run_command(["run", "status", "--run-dir", str(finished / "run")]) == 0
    assert capsys.readouterr().out.count(" built ") == len(ARTIFACTS)


def test_same_command_again_makes_nothing_and_says_the_same(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "run" / "timings.jsonl").read_bytes()
    pack = finished / "pack" / "pack.json"
    assert run_command(command(finished / "run", pack, *RELEASE, *make_quiz(pack))) == 3
    assert (finished / "run" / "timings.jsonl").read_bytes() == before
    assert "built " not in capsys.readouterr().err


def test_second_run_elsewhere_gives_the_same_evidence(finished: Path, tmp_path: Path) -> None:
    """Another place, an empty cache, other process counts: the same digests."""
    pack = make_pack(tmp_path / "pack")
    assert run_command(command(tmp_path / "run", pack, *RELEASE, *make_quiz(pack))) == 3
    assert evidence_digest(tmp_path / "run") == evidence_digest(finished / "run")
    first, second = (RunDir(root / "run") for root in (finished, tmp_path))
    for spec in ARTIFACTS:
        assert first.artifact(spec.kind).digest == second.artifact(spec.kind).digest, spec.kind


def test_killed_run_ends_with_the_same_evidence(finished: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments over the whole run, then the same command to its end.

    The order of sets differs from the first run, which this process made.
    """
    pack = make_pack(tmp_path / "pack")
    line = [
        sys.executable,
        "-m",
        "picochat.cli.main",
        *command(tmp_path / "run", pack, *RELEASE, *make_quiz(pack)),
    ]
    environment = {**os.environ, "PICOCHAT_HOME": str(tmp_path / "cache"), "PYTHONHASHSEED": "7"}
    chance = random.Random(7)
    for _ in range(6):
        child = subprocess.Popen(
            line,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(chance.uniform(1.0, 6.0))
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    ended = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 3, ended.stderr
    assert evidence_digest(tmp_path / "run") == evidence_digest(finished / "run")


def test_edited_evidence_is_found(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    replies = tmp_path / "run" / "eval" / "replies.jsonl"
    rows = [json.loads(line) for line in replies.read_text().splitlines()]
    for row in rows:
        row["reply"] = row["expected"] or row["reply"]
    replies.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = inspect_bundle(tmp_path / "run")
    assert report.exit_code == 3
    assert any("replies.jsonl" in line for line in report.lines())


def test_a_bundle_holds_no_benchmark_texts_and_its_scores_still_follow(finished: Path) -> None:
    with tarfile.open(finished / "run.tgz") as archive:
        names = archive.getnames()
        texts = [
            archive.extractfile(name).read()
            for name in names
            if name.endswith((".jsonl", ".json", ".md", ".html"))
        ]  # type: ignore[union-attr]
    assert any(name.endswith("benchmarks/items.jsonl") for name in names) and not any(
        "benchmarks/rows/" in name for name in names
    )
    assert not any(b"valley of Oltany" in text for text in texts)
    scores = read_json(finished / "run" / "eval" / "report.json")["external"]["quiz"]
    assert scores["all"]["count"] == scores["base"]["count"] == 50


def test_edited_likelihoods_are_found(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    path = tmp_path / "run" / "eval" / "external.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(
        "".join(
            json.dumps({**row, "log_likelihoods": [-1.0, *row["log_likelihoods"][1:]]}) + "\n"
            for row in rows
        )
    )
    problems = " ".join(problem.what for problem in inspect_bundle(tmp_path / "run").problems)
    assert "scores.external.quiz.acc" in problems


def test_benchmarks_of_the_hub_are_fetched_once_and_asked_for_until_they_are_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = RunRequest(
        tmp_path / "run",
        make_pack(tmp_path / "pack"),
        "tiny",
        flags={"external.benchmarks": ["auto"]},
    )
    run, resolved, pack = open_request(request)
    assert resolved.origins["external.benchmarks"] == "flag"

    def benchmarks() -> BenchmarksFacts:
        return facts_of(
            run_stages(run, resolved, pack, last="benchmarks")["benchmarks"], BenchmarksFacts
        )

    with serving(FakeHub()) as hub:
        add_arc(hub), add_hellaswag(hub)
        assert benchmarks().unresolved == ["piqa"]
        capsys.readouterr()
        assert benchmarks().unresolved == ["piqa"]
        assert "reused benchmarks" in capsys.readouterr().err, (
            "what is still missing makes nothing anew"
        )
        add_piqa(hub)
        assert benchmarks().unresolved == []
        asked = len(hub.requests)
        assert set(benchmarks().benchmarks) == {"arc_easy", "hellaswag", "piqa"}
        assert len(hub.requests) == asked
    assert (run.root / "benchmarks.superseded-1" / "unresolved.json").exists()


def test_preflight_and_full_run_share_what_they_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = make_pack(tmp_path / "pack")
    quiz = make_quiz(pack)
    assert run_command(command(tmp_path / "run", pack, "--preflight-only", *quiz)) == 0
    host = (tmp_path / "run" / "host" / "host.json").read_bytes()
    capsys.readouterr()
    run_command(command(tmp_path / "run", pack, *quiz))
    said = capsys.readouterr().err
    assert "built base" in said and not any(
        f"built {kind}" in said
        for kind in ("corpus", "benchmarks", "tokenizer", "shards", "honesty", "host", "preflight")
    )
    assert (tmp_path / "run" / "host" / "host.json").read_bytes() == host


def test_changed_setting_sets_the_older_artifact_aside_and_going_back_takes_it_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = make_pack(tmp_path / "pack")
    run = RunDir(tmp_path / "run")
    assert run_command(command(run.root, pack, "--preflight-only")) == 0
    first = {stage.kind: run.artifact(stage.kind) for stage in ARTIFACTS if run.has(stage.kind)}
    capsys.readouterr()
    assert run_command(command(run.root, pack, "--preflight-only", "--seed", "7")) == 0
    said = capsys.readouterr().err
    assert f"{run.place('tokenizer')} was made from something else (" in said
    assert "seed 42 -> 7): it is set aside as tokenizer.superseded-N" in said
    assert "reused corpus" in said and f"{run.place('corpus')} was" not in said
    assert (run.root / "tokenizer.superseded-1" / "tokenizer.json").exists()
    assert read_json(run.config)["origins"]["seed"] == "flag"
    assert run_command(command(run.root, pack, "--preflight-only")) == 0
    said = capsys.readouterr().err
    assert "taking back the rows of before" in said and "making" not in said
    assert {kind: run.artifact(kind).manifest for kind in first} == {
        kind: made.manifest for kind, made in first.items()
    }


def test_status_names_what_is_stale_and_what_to_do_next(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a run", until="gate")
    assert (
        status_lines(run)[-1]
        == f"next: the same `picochat run tiny --out-dir '{run.root}' ...` goes on"
    )
    (tmp_path / "whole").mkdir()
    whole = make_run(tmp_path / "whole" / "run")
    assert status_lines(whole)[-1] == f"next: picochat run show {whole.root}"
    manifest = read_json(whole.place("tokenizer") / "manifest.json")
    write_json(
        whole.place("tokenizer") / "manifest.json", {**manifest, "inputs": {"corpus": "other"}}
    )
    states = {line.split()[0]: line for line in status_lines(whole)}
    assert "stale" in states["tokenizer"] and states["tokenizer"].endswith(
        "(made from another corpus)"
    )
    assert "stale" in states["shards"] and "built " in states["rows"]
    assert states["next:"].endswith("goes on")


def test_new_rows_in_the_pack_are_read_and_leave_the_corpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = make_pack(tmp_path / "pack")
    assert run_command(command(tmp_path / "run", pack, "--preflight-only")) == 0
    rows = (pack.parent / "eval.jsonl").read_text().splitlines()
    (pack.parent / "eval.jsonl").write_text("\n".join(rows[:-1]) + "\n")
    capsys.readouterr()
    assert run_command(command(tmp_path / "run", pack, "--preflight-only")) == 0
    said = capsys.readouterr().err
    assert (
        "built rows" in said
        and "built honesty" in said
        and "reused corpus" in said
        and "reused shards" in said
    )


def test_work_that_another_machine_left_is_found_by_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICOCHAT_HOME", str(tmp_path / "cache"))
    request = RunRequest(
        tmp_path / "run",
        make_pack(tmp_path / "pack"),
        "tiny",
        settings=["tokenizer.vocab_size=512"],
    )
    run, resolved, pack = open_request(request)
    scans = shared_workspace(request, "corpus") / "scan"
    scan_groups_of_rank(request.dataset_pack, resolved.config.data.min_chars, scans, 0, 1)
    with pytest.raises(BadInput, match="corpus"):
        shared_workspace(request, "shards")
    run_stages(run, resolved, pack, last="exercises")
    assert not scans.exists(), "the finished corpus clears its workspace"
    parts = shared_workspace(request, "shards")
    seed, places = (
        resolved.config.seed,
        (run.place("corpus"), run.place("exercises"), run.place("tokenizer")),
    )
    assert encode_corpus_parts(*places, seed, parts, 0, 1) > 0
    made = {path.name: path.stat().st_ino for path in parts.glob("part-*")}
    seen: list[dict[str, int]] = []
    monkeypatch.setattr(
        "picochat.tokens.shards.require_whole",
        lambda *_: seen.append({path.name: path.stat().st_ino for path in parts.glob("part-*")}),
    )
    run_stages(run, resolved, pack, last="shards")
    assert seen == [made], "no part was encoded again"


def test_a_full_preview_leaves_the_corpus_for_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PICOCHAT_HOME", str(tmp_path / "cache"))
    pack = make_pack(tmp_path / "pack")
    scale = find_scale("tiny")
    left = shared_corpus(scale.config, load_pack(pack))
    found = preview_pack(
        load_pack(pack),
        scale,
        full=True,
        whole_bytes=1_000,
        sample_bytes=1_000,
        corpus=lambda: left,
    )
    assert found.duplicates.complete
    capsys.readouterr()
    run, resolved, loaded = open_request(RunRequest(tmp_path / "run", pack, "tiny"))
    made = run_stages(run, resolved, loaded, last="corpus")
    assert made["corpus"].digest == left.digest
    assert "reused corpus" in capsys.readouterr().err
