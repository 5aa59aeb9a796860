"""States are whole or set aside, and written while training goes on; the needed ones are kept.

Also: going back to one after a spike.
"""

import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from picochat.config import HostConfig, RuntimeConfig, TrainConfig
from picochat.core.errors import BadInput, HostProblem, Interrupted
from picochat.core.journal import read_journal
from picochat.core.publish import open_artifact
from picochat.core.records import read_json, write_json
from picochat.facts import STATES
from picochat.model.gpt import GPT
from picochat.model.runtime import open_runtime
from picochat.train.checkpoint import (
    STATE_FILES,
    SavedState,
    StateWriter,
    TrainState,
    drop_states_after,
    load_state,
    newest_state,
    saved_steps,
    state_folder,
    sweep_half_written,
    write_state,
)
from picochat.train.held_out import HeldOut
from picochat.train.loader import Batch, HostLoader, host_batch
from picochat.train.loop import Job, Outcome, Trainer
from tests.train.builders import EVERY_STEP, begin_run
from tests.train.killing import busy_config, train_calmly, train_with_kills
from tests.train.test_loop import CONFIG, batch_of, evaluate, make_model

Evaluate = Callable[[GPT], HeldOut]


def make_train_state(step: int) -> TrainState:
    return TrainState(
        step=step, spike_mean=4.0, spike_seen=step, spike_steps=[], first_loss=4.1, last_loss=4.0
    )


def make_state(step: int) -> SavedState:
    """A state whose numbers all equal its step."""
    tensors = {f"matrix{n}": torch.full((8, 4), float(step)) for n in range(3)}
    return SavedState(
        make_train_state(step),
        tensors,
        {"moment": torch.full((8,), float(step)), "count": torch.tensor(float(step))},
    )


def train(
    workspace: Path,
    batches: Callable[[int], Batch] = batch_of,
    *,
    every_step: bool = False,
    judge: Evaluate = evaluate,
    **settings: object,
) -> tuple[GPT, Outcome]:
    """Train a small model to the end; `every_step`: save after each step."""
    config = TrainConfig.model_validate(
        {"steps": 12, "sequences_per_step": 8, "eval_every": 4, "muon_lr": 0.01, **settings}
    )
    compute, model = open_runtime(RuntimeConfig(threads=1), CONFIG), make_model()
    job = Job("base", config, HostLoader(batches, compute.device, fixed_shape=True), judge)
    host = HostConfig(checkpoint_minutes=EVERY_STEP if every_step else 1e6)
    return model, Trainer(model, job, compute, host, workspace, quiet=True).train()


def same(one: GPT, other: GPT) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def names(workspace: Path) -> list[int]:
    return [int(folder.name.removeprefix("step-")) for folder in saved_steps(workspace)]


# ---- damage --------------------------------------------------------------------------------------


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("name", STATE_FILES)
@pytest.mark.parametrize(
    "damage", [halve, empty, Path.unlink, flip_a_bit], ids=["halved", "emptied", "gone", "one bit"]
)
def test_damaged_state_is_set_aside_and_the_one_before_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Callable[[Path], None]
) -> None:
    write_state(tmp_path, make_state(4))
    write_state(tmp_path, make_state(8))
    damage(state_folder(tmp_path, 8) / name)
    found = newest_state(tmp_path)
    assert found is not None
    saved = load_state(found)
    assert saved.state.step == 4
    assert all(
        bool((tensor == 4).all()) for tensor in (*saved.weights.values(), *saved.optimizer.values())
    )
    assert "step-0000008 is damaged" in capsys.readouterr().err
    assert names(tmp_path) == [4] and (tmp_path / "damaged-step-0000008").is_dir()


def test_training_ends_the_same_after_its_newest_states_were_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    straight, outcome = train(tmp_path / "a")
    with pytest.raises(Interrupted):
        train(tmp_path / "b", stopping(9), every_step=True)
    for folder in saved_steps(tmp_path / "b")[-2:]:
        halve(folder / "optimizer.safetensors")
    resumed, again = train(tmp_path / "b")
    assert same(straight, resumed) and outcome.curve.read_bytes() == again.curve.read_bytes()
    for folder in saved_steps(tmp_path / "b"):
        empty(folder / "state.json")
    resumed, again = train(tmp_path / "b")
    assert same(straight, resumed) and outcome.curve.read_bytes() == again.curve.read_bytes()
    assert "no saved training state is whole" in capsys.readouterr().err


def test_digests_of_states_are_the_same_after_kills_and_damage(tmp_path: Path) -> None:
    """Of each step there is one row, of the state that training went on from."""
    _, outcome = train(tmp_path / "a", every_step=True)
    with pytest.raises(Interrupted):
        train(tmp_path / "b", stopping(9), every_step=True)
    halve(saved_steps(tmp_path / "b")[-1] / "optimizer.safetensors")
    _, again = train(tmp_path / "b", every_step=True)
    rows = read_journal(outcome.states)
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert read_journal(again.states) == rows


def test_rows_of_states_that_a_rollback_trains_again_are_dropped(tmp_path: Path) -> None:
    write_state(tmp_path, make_state(4))
    write_state(tmp_path, make_state(6))
    drop_states_after(tmp_path, 4)
    write_state(tmp_path, make_state(8))
    assert [row["step"] for row in read_journal(tmp_path / STATES)] == names(tmp_path) == [4, 8]


def test_state_of_another_version_is_refused_with_the_remedy(tmp_path: Path) -> None:
    write_state(tmp_path, make_state(4))
    file = state_folder(tmp_path, 4) / "state.json"
    value = read_json(file)
    write_json(file, {**value, "state": {**value["state"], "momentum_dtype": "bf16"}})
    with pytest.raises(BadInput, match="another version") as refused:
        newest_state(tmp_path)
    assert f"move {tmp_path} away" in (refused.value.fix or "")
    assert "momentum_dtype: unknown key" in refused.value.problems[0].what
    assert names(tmp_path) == [4]
    tmp_path.rename(tmp_path.with_name("moved"))
    assert newest_state(tmp_path) is None


# ---- writing -------------------------------------------------------------------------------------


def test_saves_in_quick_succession_hold_what_was_there_when_they_were_asked_for(
    tmp_path: Path,
) -> None:
    weights, moments = {"matrix": torch.zeros(1000, 1000)}, {"moment": torch.zeros(1000, 1000)}
    writer = StateWriter(tmp_path, lambda _: {1})
    for step in range(1, 6):
        for tensor in (*weights.values(), *moments.values()):
            tensor.fill_(float(step))
        writer.save(make_train_state(step), weights, moments)
        weights["matrix"].fill_(-1.0)
    writer.finish()
    writer.close()
    assert names(tmp_path) == [1, 4, 5]
    for step in (1, 4, 5):
        saved = load_state(state_folder(tmp_path, step))
        assert saved.state.step == step
        assert bool((saved.weights["matrix"] == step).all()) and bool(
            (saved.optimizer["moment"] == step).all()
        )


def test_what_a_kill_left_half_written_is_swept(tmp_path: Path) -> None:
    left = tmp_path / ".step-0000007"
    left.mkdir()
    (left / "weights.safetensors").write_bytes(b"half")
    sweep_half_written(tmp_path)
    assert not left.exists()


def test_needed_states_outlive_many_saves(tmp_path: Path) -> None:
    """The best, the one to replay from and the newest two stay.

    Saved at every step, evaluated each fifth, best at the tenth.
    """
    _, outcome = train(tmp_path, every_step=True, judge=best_at(2), steps=30, eval_every=5)
    assert names(tmp_path) == [10, 25, 29, 30]
    assert (
        outcome.replay == state_folder(tmp_path, 25) and load_state(outcome.replay).state.step == 25
    )


def test_interrupt_during_saves_loses_nothing(tmp_path: Path) -> None:
    """A save is under way nearly all the time."""
    straight, outcome = train(tmp_path / "a")
    with pytest.raises(Interrupted) as stopped:
        train(tmp_path / "b", stopping(5, signal.SIGINT), every_step=True)
    assert stopped.value.exit_code == 130 and names(tmp_path / "b")
    resumed, again = train(tmp_path / "b", every_step=True)
    assert same(straight, resumed) and outcome.curve.read_bytes() == again.curve.read_bytes()


def test_full_disk_is_one_message_and_training_goes_on_from_the_state_before(
    tmp_path: Path,
) -> None:
    """A real, small file system: room for two states, not for the third."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        with pytest.raises(HostProblem, match="cannot be written") as full:
            train(disk / "work", steps=40)
        assert "No space left" in full.value.what and "free some space" in (full.value.fix or "")
        kept = names(disk / "work")
        assert kept and not list((disk / "work").glob(".step-*"))
        assert all(load_state(state_folder(disk / "work", step)) for step in kept)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        resumed, _ = train(disk / "work", steps=40)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert same(train(tmp_path / "a", steps=40)[0], resumed)


def test_stages_killed_anywhere_end_in_the_same_artifact(tmp_path: Path) -> None:
    """Signals at random moments of the real stage, while it publishes as well.

    bench/kill_train.py does it by hundreds.
    """
    config = busy_config()
    begin_run(tmp_path / "run", config)
    longest_s = train_calmly(tmp_path / "run", tmp_path / "calm", config)
    mixed = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    train_with_kills(
        tmp_path / "run", tmp_path / "killed", config, 5, longest_s, random.Random(3), mixed
    )
    calm, killed = (open_artifact(tmp_path / name, "base") for name in ("calm", "killed"))
    assert killed.digest == calm.digest
    assert "replay/weights.safetensors" in calm.manifest.files


def stopping(
    step: int, number: int = signal.SIGTERM, rows: Callable[[int], Batch] = batch_of
) -> Callable[[int], Batch]:
    """Rows whose making sends a signal to this process at `step`."""

    def batches(at: int) -> Batch:
        if at == step:
            os.kill(os.getpid(), number)
        return rows(at)

    return batches


# ---- the best weights ----------------------------------------------------------------------------


def best_at(number: int) -> Evaluate:
    """A judge whose `number`th evaluation is the best: its losses fall before and rise after."""
    count = iter(range(1, 1000))

    def judge(model: GPT) -> HeldOut:
        distance = abs(next(count) - number)
        return HeldOut(3.0 + distance, 1.0 + distance)

    return judge


def test_best_weights_are_published_where_they_are_asked_for(tmp_path: Path) -> None:
    last, ended = train(tmp_path / "a", judge=best_at(2))
    assert ended.scored_step == 12 and ended.held_out == HeldOut(4.0, 2.0)
    best, outcome = train(tmp_path / "b", judge=best_at(2), every_step=True, publish="best")
    assert (
        outcome.scored_step == 8
        and outcome.held_out == HeldOut(3.0, 1.0)
        and outcome.state.step == 12
    )
    weights = load_state(state_folder(tmp_path / "b", 8)).weights
    assert all(torch.equal(tensor, weights[name]) for name, tensor in best.state_dict().items())
    assert not same(last, best)
    final, finished = train(tmp_path / "c", publish="best")
    assert finished.scored_step == 12 and same(final, last)


def test_best_weights_that_were_damaged_are_not_published(tmp_path: Path) -> None:
    work = tmp_path / "the work"

    def judge(model: GPT) -> HeldOut:
        held_out = inner(model)
        if held_out.loss == 5.0:  # the last of three evaluations, two after the best
            flip_a_bit(state_folder(work, 4) / "weights.safetensors")
        return held_out

    inner = best_at(1)
    with pytest.raises(
        BadInput, match=r"step-0000004 is damaged: weights\.safetensors is not as it was written"
    ) as caught:
        train(work, judge=judge, publish="best")
    cut = state_folder(work, 4) / "weights.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(BadInput) as unread:
        load_state(cut.parent)
    command, _, promise = str(caught.value.fix).partition("; ")
    assert unread.value.fix == caught.value.fix
    assert promise == "the command that made it makes it again"
    subprocess.run(["bash", "-ec", command], check=True)
    train(work, judge=best_at(1), publish="best")


# ---- spikes --------------------------------------------------------------------------------------

WILD = np.random.default_rng(9).integers(0, 61, (8, 17))


def poisoned(*steps: int) -> Callable[[int], Batch]:
    """The rows of test_loop, but at these steps rows that nobody could have learned."""

    def batches(at: int) -> Batch:
        return host_batch(WILD[:, :-1].copy(), WILD[:, 1:].copy()) if at in steps else batch_of(at)

    return batches


SPIKY: dict[str, object] = {
    "steps": 60,
    "eval_every": 10,
    "muon_lr": 0.05,
    "adamw_lr": 0.05,
    "spike_factor": 1.2,
    "spike_nats": 0.0,
}


def test_spike_takes_training_back_and_on_with_later_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Step 36 (rows 35) spikes: back to step 30, and on with rows 36.

    The same as rows that never held what is skipped.
    """
    model, outcome = train(tmp_path / "a", poisoned(35), spike_rollbacks=1, **SPIKY)
    assert (
        outcome.state.rollbacks == 1
        and outcome.state.skipped == 6
        and outcome.state.spike_steps == [36]
    )
    said = capsys.readouterr().err
    assert "loss spike at step 36" in said and "went back to step 30" in said
    without, other = train(tmp_path / "b", lambda at: batch_of(at if at < 30 else at + 6), **SPIKY)
    assert same(model, without)
    assert outcome.curve.read_bytes() == other.curve.read_bytes()
    rows = read_journal(outcome.curve)
    assert [row["step"] for row in rows if row["loss"] is not None] == list(range(1, 61))
    assert [row["step"] for row in rows if row["loss"] is None] == [10, 20, 30, 40, 50, 60]


def test_second_spike_passes_over_the_rows_of_both(tmp_path: Path) -> None:
    """Rows 35, then 37 (as step 32 after the first rollback); the second skips to row 38."""
    model, outcome = train(tmp_path / "a", poisoned(35, 37), spike_rollbacks=2, **SPIKY)
    assert (
        outcome.state.rollbacks == 2
        and outcome.state.skipped == 8
        and outcome.state.spike_steps == [36, 32]
    )
    assert same(
        model, train(tmp_path / "b", lambda at: batch_of(at if at < 30 else at + 8), **SPIKY)[0]
    )
    _, limited = train(tmp_path / "c", poisoned(35, 37), spike_rollbacks=1, **SPIKY)
    assert (
        limited.state.rollbacks == 1
        and limited.state.skipped == 6
        and limited.state.spike_steps == [36, 32]
    )


def test_rollbacks_do_not_depend_on_when_states_are_saved_nor_on_stops(tmp_path: Path) -> None:
    spikes = (35, 37)
    straight, outcome = train(tmp_path / "a", poisoned(*spikes), spike_rollbacks=2, **SPIKY)
    for step in (33, 36, 40, 44):
        with pytest.raises(Interrupted):
            train(
                tmp_path / "b",
                stopping(step, rows=poisoned(*spikes)),
                every_step=True,
                spike_rollbacks=2,
                **SPIKY,
            )
    resumed, again = train(
        tmp_path / "b", poisoned(*spikes), every_step=True, spike_rollbacks=2, **SPIKY
    )
    assert same(straight, resumed)
    assert outcome.state == again.state and outcome.curve.read_bytes() == again.curve.read_bytes()


def test_spike_before_the_first_evaluation_is_said_and_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, outcome = train(
        tmp_path, poisoned(35), every_step=True, spike_rollbacks=1, **{**SPIKY, "eval_every": 50}
    )
    said = capsys.readouterr().err
    assert "no evaluation before it to go back to" in said
    assert (
        outcome.state.rollbacks == 0
        and outcome.state.skipped == 0
        and outcome.state.spike_steps == [36]
    )
