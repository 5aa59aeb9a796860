"""Several processes train what one would, resume each other's states, and end together."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from picochat.config import RunConfig
from picochat.core.errors import WrongUsage
from picochat.core.journal import read_journal
from picochat.core.publish import Artifact, StagingFolder, open_artifact, publish
from picochat.model.gpt import GPT, initialise
from picochat.run.folder import RunDir
from picochat.run.request import check_processes
from picochat.run.workers import Call, unseen
from picochat.scales import find_scale
from picochat.train.artifact import publish_replay
from picochat.train.checkpoint import damage_of, load_state, newest_state
from picochat.train.distributed import ONE_PROCESS, ProcessGroup
from tests.builders import make_config
from tests.small_pack import make_pack
from tests.train.in_processes import (
    ADAMW,
    CONFIG,
    MUON,
    POISONED_AT,
    ROWS,
    SPIKY,
    STEPS,
    STOPS_AT,
    VOCAB,
    Small,
    run,
)

ROOT = Path(__file__).parents[2]
PATHS = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of workspaces and weights: of one process, of two, and of resumes across both."""
    folder = tmp_path_factory.mktemp("group")
    run(folder, Small("one", settings=MUON))
    run(folder, Small("one-adamw", settings=ADAMW))
    run(folder, Small("spiky-one", spiky=True, settings=SPIKY))
    run(folder, Small("one-stopped", ends_by=signal.SIGTERM, settings=MUON))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rendezvous = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    line = [sys.executable, "-m", "tests.train.in_processes", str(folder)]
    pair = [
        subprocess.Popen(
            line,
            env={**PATHS, **rendezvous, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    said = [process.communicate(timeout=200)[1] for process in pair]
    assert [process.returncode for process in pair] == [1, -signal.SIGKILL], said
    (folder / "said").write_text(said[0])
    run(folder, Small("two-to-one", goes_on="two-stopped", settings=MUON))
    return folder


def losses(folder: Path, name: str) -> list[float]:
    return [
        row["loss"]
        for row in read_journal(folder / name / "curve.jsonl")
        if row["loss"] is not None
    ]


def held_out(folder: Path, name: str) -> list[float]:
    return [
        row["held_out_loss"]
        for row in read_journal(folder / name / "curve.jsonl")
        if row["held_out_loss"] is not None
    ]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("several", "one"),
    [
        ("replicated", "one"),
        ("sharded", "one"),
        ("sharded-adamw", "one-adamw"),
        ("two-to-one", "one"),
        ("one-to-replicated", "one"),
        ("one-to-sharded", "one"),
    ],
)
def test_losses_and_weights_equal_those_of_one_process(
    trained: Path, several: str, one: str
) -> None:
    assert len(losses(trained, several)) == STEPS
    assert losses(trained, several) == pytest.approx(losses(trained, one), rel=1e-6)
    assert held_out(trained, several) == pytest.approx(held_out(trained, one), rel=1e-6)
    got, want = (
        load_file(trained / f"{several}.safetensors"),
        load_file(trained / f"{one}.safetensors"),
    )
    assert got.keys() == want.keys()
    assert max(float((got[name] - want[name]).abs().max()) for name in want) < 3e-6


@pytest.mark.timeout(240)
@pytest.mark.parametrize("several", ["spiky-replicated", "spiky-sharded"])
def test_a_rollback_and_the_best_weights_are_those_of_one_process(
    trained: Path, several: str
) -> None:
    rows = read_journal(trained / several / "metrics.jsonl")
    assert [(row["from_step"], row["step"]) for row in rows if row["event"] == "rollback"] == [
        (POISONED_AT + 1, 24)
    ]
    # rounding grows at rates that high; a rollback that was missed would be 7 nats
    assert losses(trained, several) == pytest.approx(losses(trained, "spiky-one"), abs=1e-4)
    got, want = (
        load_file(trained / f"{several}.safetensors"),
        load_file(trained / "spiky-one.safetensors"),
    )
    assert max(float((got[name] - want[name]).abs().max()) for name in want) < 1e-4
    # the held-out rows are learned worse and worse, so the best weights are not the last ones
    found = held_out(trained, several)
    assert found.index(min(found)) < len(found) - 1


@pytest.mark.timeout(240)
def test_a_signal_to_any_process_stops_all_after_one_saved_step(trained: Path) -> None:
    states = sorted(path.name for path in (trained / "two-stopped").glob("step-*"))
    assert len(states) >= 1 and STOPS_AT <= int(states[-1][-7:]) <= STOPS_AT + 1
    parts = trained / "two-stopped" / states[-1] / "parts"
    assert {path.suffix for path in parts.iterdir()} == {".safetensors"} and len(
        list(parts.iterdir())
    ) == 2


@pytest.mark.timeout(240)
def test_a_state_in_parts_is_checked_as_any_other_and_published_whole(
    trained: Path, tmp_path: Path
) -> None:
    state = newest_state(trained / "two-stopped")
    assert state is not None and damage_of(state) is None
    publish_replay(state, StagingFolder(tmp_path / "draft", tmp_path))
    whole, again = load_state(state), load_state(tmp_path / "draft" / "replay")
    assert again.state == whole.state
    for one, other in ((whole.weights, again.weights), (whole.optimizer, again.optimizer)):
        assert one.keys() == other.keys() and all(
            torch.equal(one[name], other[name]) for name in one
        )
    shutil.copytree(state, tmp_path / state.name)
    part = sorted((tmp_path / state.name / "parts").iterdir())[0]
    os.truncate(part, part.stat().st_size - 1)
    assert damage_of(tmp_path / state.name) == f"parts/{part.name} is not as it was written"


@pytest.mark.timeout(240)
def test_a_killed_process_ends_the_first_one_with_one_message_instead_of_a_hang(
    trained: Path,
) -> None:
    last = (trained / "said").read_text().strip().splitlines()[-1]
    assert "LostProcess: another of the 2 processes ended" in last
    assert not (trained / "killed.safetensors").exists() and list(
        (trained / "killed").glob("step-*")
    )


def test_recomputed_blocks_give_the_same_gradients_bit_for_bit() -> None:
    def gradients(recompute: bool) -> list[torch.Tensor]:
        model = GPT(CONFIG, VOCAB)
        initialise(model, 0)
        model.recompute_blocks(recompute)
        model.loss_sum(torch.from_numpy(ROWS[:4, :-1]), torch.from_numpy(ROWS[:4, 1:])).backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    kept, again = gradients(False), gradients(True)
    assert len(kept) == len(again) > 0
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))


# ---- what is refused -----------------------------------------------------------------------------


def test_a_scale_for_several_gpus_names_the_torchrun_command() -> None:
    scale = find_scale("h100-100m-ddp8")
    with pytest.raises(WrongUsage, match="made for 8 GPUs") as error:
        check_processes(scale, scale.config, 1)
    assert "torchrun --standalone --nproc-per-node 8" in (error.value.fix or "")
    for processes in (2, 4, 8, 16):
        check_processes(scale, scale.config, processes)
    for name in ("tiny", "h100-100m"):
        check_processes(find_scale(name), find_scale(name).config, 1)


def test_processes_that_do_not_divide_the_rows_are_refused() -> None:
    config: RunConfig = make_config(base={"sequences_per_step": 9}, sft={"sequences_per_step": 8})
    with pytest.raises(WrongUsage, match="2 processes cannot share out the rows") as error:
        check_processes(find_scale("h100-100m"), config, 2)
    assert [problem.what for problem in error.value.problems] == ["base.sequences_per_step is 9"]


def test_columns_that_do_not_share_out_are_refused_before_anything_is_sent() -> None:
    from picochat.model.sharding import require_columns

    require_columns(GPT(CONFIG, VOCAB), 2)
    with pytest.raises(WrongUsage, match="3 processes cannot split every matrix") as error:
        require_columns(GPT(CONFIG, VOCAB), 3)
    assert any("32 columns" in problem.what for problem in error.value.problems)


def test_an_artifact_that_a_process_does_not_see_is_named(tmp_path: Path) -> None:
    with publish(tmp_path / "shards", "shards", "key", {}) as staging:
        staging.path("a").write_text("a")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "key").write_text("key")
    here = open_artifact(tmp_path / "shards", "shards")
    assert unseen(Call("base", {"shards": here}, tmp_path / "work"), ONE_PROCESS) is None
    away = Artifact(tmp_path / "elsewhere", here.manifest, here.digest)
    other = Artifact(here.place, here.manifest, "0" * 64)
    for arguments, workspace, path in (
        ({"shards": away}, tmp_path / "work", tmp_path / "elsewhere"),
        ({"shards": other}, tmp_path / "work", here.place),
        ({"shards": here}, tmp_path / "no work", tmp_path / "no work"),
    ):
        problem = unseen(Call("base", arguments, workspace), ProcessGroup(rank=1, size=2))
        assert problem is not None and str(path) in problem.what and "process 1" in problem.what


# ---- the whole run under torchrun ----------------------------------------------------------------


def command(root: Path) -> list[str]:
    shape = (
        "tokenizer.vocab_size=600 model.layers=1 model.width=64 model.heads=2 model.kv_heads=1"
        " model.mlp_width=64"
    )
    quick = (
        "base.eval_every=10 sft.sequences_per_step=8 evals.max_new_tokens=4 evals.fit_rows=2"
        " host.workers=1"
    )
    settings = [word for setting in f"{shape} {quick}".split() for word in ("--set", setting)]
    places = ["--out-dir", str(root / "run"), "--dataset-pack", str(root / "pack" / "pack.json")]
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    return [
        *torchrun,
        "-m",
        "picochat.cli.main",
        "run",
        "tiny",
        *places,
        *settings,
        "--base-steps",
        "60",
        "--sft-steps",
        "4",
    ]


def watch(root: Path, line: list[str], pattern: str | None = None) -> tuple[int, str]:
    """(exit code, stderr) of the command; SIGTERM when a line of stderr has the pattern."""
    environment = {**PATHS, "PICOCHAT_HOME": str(root / "cache")}
    said: list[str] = []
    with subprocess.Popen(
        line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for text in process.stderr:
            said.append(text)
            if pattern is not None and re.search(pattern, text):
                process.terminate()
                pattern = None
    return process.returncode, "".join(said)


def processes_of(root: Path) -> list[str]:
    """Every running process whose command line names `root`."""
    found: list[str] = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if str(root).encode() in (place / "cmdline").read_bytes():
                found.append(place.name)
        except OSError:
            continue  # it ended while we looked
    return found


def none_left(root: Path) -> bool:
    deadline = time.monotonic() + 10
    while processes_of(root) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not processes_of(root)


@pytest.mark.timeout(280)
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are found by /proc")
def test_run_under_torchrun_stops_saved_goes_on_and_leaves_no_process(tmp_path: Path) -> None:
    make_pack(tmp_path / "pack")
    few = command(tmp_path)
    code, said = watch(tmp_path, few, r"base: step 10:")
    stopped = re.search(r"base: stopped and saved after step (\d+) of 60", said)
    assert code != 0 and stopped is not None and none_left(tmp_path), said

    code, said = watch(tmp_path, few)
    assert (
        code == 0
        and f"base: resumed after step {stopped.group(1)} of 60" in said
        and none_left(tmp_path)
    ), said
    assert said.count("built base") == 1, "only the main process reports"
    facts = RunDir(tmp_path / "run").artifact("base").facts
    assert facts["steps"] == 60 and facts["losses_finite"] and facts["tokens"] == 60 * 8 * 256
