"""The digests of every saved state are evidence; a stretch that the verifier's seed draws is
trained again from the publisher's states, and what is not the run's own is found.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from picochat.cli.main import run_command
from picochat.config import HostConfig, RunConfig
from picochat.core.errors import BadInput
from picochat.core.records import digest_file, digest_json, read_json, write_json
from picochat.facts import StateRow
from picochat.release.bundle import make_bundle
from picochat.release.challenge import challenge, stretches
from picochat.release.replay import inspect_with_replay, replay
from picochat.run.folder import RunDir
from picochat.train.artifact import read_states
from tests.forger import change_json, change_rows
from tests.release.test_replay import change_loss, copied, elsewhere, rewrite_manifest
from tests.train.builders import EVERY_STEP, SPIKING, begin_run, small_config, train_base


def make_run(root: Path, config: RunConfig, **host: Any) -> RunDir:
    run = begin_run(root, config)
    train_base(run, config, HostConfig(**host))
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run of twelve steps that kept its states of steps 4, 8 and 12."""
    return make_run(tmp_path_factory.mktemp("challenge") / "run", small_config(), keep_states=True)


def rows_of(run: RunDir) -> list[StateRow]:
    return read_states(run.place("base"))


def state(run: RunDir, step: int) -> Path:
    return run.root / "base" / "states" / f"step-{step:07d}"


def problems(run: RunDir, from_step: int, steps: int = 4) -> list[str]:
    return [
        problem.what for problem in inspect_with_replay(run.root, steps, None, from_step).problems
    ]


def test_digests_of_kept_states_are_those_of_the_evidence(finished: RunDir) -> None:
    assert [row.step for row in rows_of(finished)] == [4, 8, 12]
    for row in rows_of(finished):
        found = {path.name: digest_file(path) for path in state(finished, row.step).iterdir()}
        assert found == {name: file.sha256 for name, file in row.files.items()}


def test_states_that_are_deleted_leave_their_digests_and_move_no_digest_of_the_run(
    finished: RunDir, tmp_path: Path
) -> None:
    """Which states are saved beside those of evaluations is up to the clock."""
    run = make_run(tmp_path / "run", small_config(), checkpoint_minutes=EVERY_STEP)
    assert not (run.root / "base" / "states").exists()
    rows = rows_of(run)
    assert [row.step for row in rows] == list(range(1, 13))
    assert [row for row in rows if row.step % 4 == 0] == rows_of(finished)
    assert run.artifact("base").digest == finished.artifact("base").digest
    assert "states.jsonl" in run.artifact("base").manifest.volatile_files


def test_every_step_is_as_likely_to_be_drawn_and_a_seed_draws_the_same_again(
    finished: RunDir,
) -> None:
    drawn = Counter(challenge(finished.root, seed)[0].split(";")[0] for seed in range(300))
    assert set(drawn) == {
        f"stretch {number} of 3: steps {4 * number - 3} to {4 * number} of 12"
        for number in (1, 2, 3)
    }
    assert min(drawn.values()) > 60
    assert challenge(finished.root, 7) == challenge(finished.root, 7)
    seeds = {re.findall(r"--seed (\d+)", challenge(finished.root, None)[0])[0] for _ in range(4)}
    assert len(seeds) == 4


def bundle_of(run: RunDir, path: Path) -> Path:
    return make_bundle(run, path, None, strict=False).path


def draw(path: Path, first: int) -> list[str]:
    """The challenge that draws the stretch after step `first`."""
    lines = (challenge(path, seed) for seed in range(100))
    return next(found for found in lines if f": steps {first + 1} to" in found[0])


@pytest.mark.parametrize("first", [0, 4, 8])
def test_the_stretch_that_is_asked_for_is_trained_again_by_the_command_that_is_printed(
    finished: RunDir, tmp_path: Path, first: int, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = bundle_of(finished, tmp_path / "b.tgz")
    lines = draw(bundle, first)
    sent = tmp_path / "sent" / "base"
    shutil.copytree(finished.place("shards"), sent / "token_shards")
    for name in re.findall(r"    (states/step-\d+) \(", "\n".join(lines)):
        shutil.copytree(finished.root / "base" / name, sent / name)
    command = lines[-1].removeprefix("then: picochat ").replace("FOLDER", str(tmp_path / "sent"))
    assert run_command(shlex.split(command)) == 0
    said = capsys.readouterr().out
    assert f"losses of steps {first + 1} to {first + 4} equal bit for bit" in said
    assert f"weights and optimizer state of step {first + 4} have the stated digests" in said


def test_on_a_machine_like_the_runs_the_state_at_the_end_is_not_needed(
    finished: RunDir, tmp_path: Path
) -> None:
    run = copied(finished, tmp_path / "run")
    shutil.rmtree(state(run, 12))
    check = replay(run.root, 4, None, 8)
    assert not check.problems and "step 12 have the stated digests" in (check.note or "")
    elsewhere(run)
    check = replay(run.root, 4, None, 8)
    assert not check.problems and "step 12 is not here, so it was not compare" in (check.note or "")
    check = replay(run.root, 2, None, 8)
    assert "the state of step 12 was not reached" in (check.note or "")


def test_the_published_state_serves_for_its_step(finished: RunDir, tmp_path: Path) -> None:
    run = copied(finished, tmp_path / "run")
    shutil.rmtree(run.root / "base" / "states")
    assert problems(run, 8) == []


def test_a_stretch_after_loss_spikes_reads_the_rows_that_the_run_read(tmp_path: Path) -> None:
    """Training goes back again and again, so each stretch skipped another number of rows."""
    config = small_config(**SPIKING)
    run = make_run(tmp_path / "run", config, keep_states=True)
    assert len({row.skipped for row in rows_of(run)}) > 1
    for stretch in stretches(rows_of(run)):
        assert problems(run, stretch.first, 8) == []


# ---- forgeries -----------------------------------------------------------------------------------


def test_a_state_of_another_run_is_refused(finished: RunDir, tmp_path: Path) -> None:
    run = copied(finished, tmp_path / "run")
    other = small_config().model_copy(update={"training_seed": 7})
    another = make_run(tmp_path / "another", other, keep_states=True)
    shutil.rmtree(state(run, 4))
    shutil.copytree(state(another, 4), state(run, 4))
    with pytest.raises(BadInput) as refused:
        inspect_with_replay(run.root, 4, None, 4)
    assert "is not the file that states.jsonl states" in refused.value.problems[0].what
    assert refused.value.problems[0].fix == "ask the publisher for the state of this run"
    shutil.rmtree(state(run, 4))
    with pytest.raises(BadInput) as refused:
        inspect_with_replay(run.root, 4, None, 4)
    assert "the state of step 4 is not here" in refused.value.problems[0].what
    assert "host.keep_states=true" in (refused.value.problems[0].fix or "")
    shutil.copytree(state(finished, 4), state(run, 4))
    assert problems(run, 4) == []


def test_an_edited_loss_inside_a_stretch_is_found(finished: RunDir, tmp_path: Path) -> None:
    run = copied(finished, tmp_path / "run")
    change_loss(run, 6, lambda loss: loss - 1e-6)
    (problem,) = problems(run, 4)
    assert problem.startswith("step 6: the curve states a loss of")


def forge_state(run: RunDir, step: int, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the weights of a saved state, and make every digest agree with them."""
    file = state(run, step) / "weights.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    change_json(
        file.with_name("state.json"),
        lambda value: value["sha256"].update({file.name: digest_file(file)}),
    )

    def restate(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for row in rows:
            for name, stated in row["files"].items() if row["step"] == step else ():
                stated["sha256"] = digest_file(file.with_name(name))
                stated["bytes"] = file.with_name(name).stat().st_size
        return rows

    restate_rows(run, restate)


def restate_rows(
    run: RunDir, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
) -> None:
    change_rows(run.place("base") / "states.jsonl", change)
    rewrite_manifest(run, "base", states=digest_json(rows_of(run)))


def push_away(tensors: dict[str, Any]) -> None:
    for tensor in tensors.values():
        tensor += 0.3 * tensor.std()


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_state_that_training_does_not_lead_to_is_found(tmp_path: Path, where: str) -> None:
    """Its digests are in the evidence as if it had been saved."""
    run = make_run(tmp_path / "run", small_config(eval_every=3), keep_states=True)
    assert problems(run, 3, 3) == []
    forge_state(run, 6, push_away)
    if where == "elsewhere":
        elsewhere(run)
    (problem,) = problems(run, 3, 3)
    assert problem.startswith(
        "step 6: trained again, other digests than stated: weights.safetensors"
        if where == "here"
        else "step 6: saved weights of step 6 differ by"
    )
    (problem,) = problems(run, 6, 3)
    assert problem.startswith("step 7: the curve states a loss of")


def drop_a_row(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["step"] != 8]


def repeat_a_row(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*rows, rows[0]]


def skip_more(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*rows[:-1], {**rows[-1], "skipped": 5}]


def another_replay(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows[1]["files"]["weights.safetensors"]["sha256"] = "0" * 64
    return rows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop_a_row, "states.jsonl: state of step 8: missing"),
        (repeat_a_row, "a step stands there twice, or out of order"),
        (skip_more, "other skipped steps than 0"),
        (another_replay, "step 8: replay/weights.safetensors is another"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_states_that_settings_and_steps_do_not_give_are_found(
    finished: RunDir,
    tmp_path: Path,
    change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
    said: str,
) -> None:
    run = copied(finished, tmp_path / "run")
    restate_rows(run, change)
    found = problems(run, 4)
    assert any(said in what for what in found), found


def test_rows_of_states_are_bound_by_the_digest_of_the_artifact(
    finished: RunDir, tmp_path: Path
) -> None:
    run = copied(finished, tmp_path / "run")
    change_rows(
        run.place("base") / "states.jsonl",
        lambda rows: [{**rows[0], "files": rows[1]["files"]}, *rows[1:]],
    )
    rewrite_manifest(run, "base")
    assert any(what.startswith("base.states: states") for what in problems(run, 4))


def test_names_that_lead_out_of_the_folder_are_refused(finished: RunDir, tmp_path: Path) -> None:
    run = copied(finished, tmp_path / "run")
    change_rows(
        run.place("base") / "states.jsonl",
        lambda rows: [{**rows[0], "files": {"../../secret": {"sha256": "0", "bytes": 1}}}],
    )
    with pytest.raises(BadInput, match="row 1 is not usable"):
        challenge(run.root, 1)


# ---- refusals ------------------------------------------------------------------------------------


def test_first_weights_elsewhere_are_refused_and_another_stretch_is_drawn(
    finished: RunDir, tmp_path: Path
) -> None:
    run = copied(finished, tmp_path / "run")
    elsewhere(run)
    with pytest.raises(BadInput, match="only a machine with the processor") as refused:
        replay(run.root, 4, None, 0)
    assert "`picochat run challenge` draws another" in (refused.value.fix or "")
    assert "elsewhere draw another stretch" in draw(run.root, 0)[1]
    assert not replay(run.root, 4, None, 4).problems


def test_a_step_at_which_no_state_was_saved_names_the_command_that_draws_one(
    finished: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "verify", str(finished.root), "--replay", "4", "--from-step"]
    assert run_command([*words, "5"]) == 4
    assert "take one that `picochat run challenge` names" in capsys.readouterr().err
    assert run_command([*words, "4"]) == 0
    assert run_command(["run", "verify", str(finished.root), "--from-step", "4"]) == 2
    assert "--replay 100 --from-step 4" in capsys.readouterr().err
    assert run_command(["run", "challenge", str(finished.root)]) == 0


def test_a_run_that_states_no_saved_state_has_no_challenge(
    finished: RunDir, tmp_path: Path
) -> None:
    run = copied(finished, tmp_path / "run")
    (run.place("base") / "states.jsonl").write_text("")
    with pytest.raises(BadInput, match="states no saved state") as refused:
        challenge(run.root, None)
    assert "this version of picochat trained" in (refused.value.fix or "")


def test_states_that_were_kept_before_are_set_aside(finished: RunDir, tmp_path: Path) -> None:
    run = copied(finished, tmp_path / "run")
    write_json(state(run, 4) / "note.json", {"of": "the first run"})
    shutil.rmtree(run.place("base"))
    train_base(run, small_config(), HostConfig(keep_states=True))
    kept = run.root / "base" / "states.superseded-1" / "step-0000004" / "note.json"
    assert read_json(kept) == {"of": "the first run"} and not (state(run, 4) / "note.json").exists()
    assert json.loads((state(run, 4) / "state.json").read_text())["state"]["step"] == 4
