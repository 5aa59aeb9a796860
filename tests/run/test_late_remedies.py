"""Remedies of what is found after the preflight: each is done as written, and the run ends well."""

from __future__ import annotations

import json
import pydoc_data.topics
import re
import shlex
import shutil
from pathlib import Path

import pytest

from picochat.cli.main import run_command
from picochat.core.errors import BadInput
from picochat.model.weights import RESTORE, load_model
from picochat.run.folder import RunDir
from tests.run.test_own_data import SMALL, STEPS

TEXT = "<|endoftext|>".join(list(pydoc_data.topics.topics.values())[:40])


def command(folder: Path, *more: str) -> list[str]:
    """A run on text and chats in `folder`; settings of `more` replace those of SMALL."""
    keys = {word.split("=")[0] for word in more if "=" in word}
    pairs = zip(SMALL[::2], SMALL[1::2], strict=True)
    kept = [word for pair in pairs if pair[1].split("=")[0] not in keys for word in pair]
    given = ["--input", str(folder / "text.txt"), "--chat", str(folder / "chat.jsonl")]
    return ["run", "tiny", "--out-dir", str(folder / "run"), *given, *kept, *STEPS, *more]


def written(folder: Path, text: str = TEXT) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "text.txt").write_text(text)
    rows = [{"user": f"Note {n} of all?", "assistant": f"It is note {n}."} for n in range(40)]
    (folder / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = written(tmp_path_factory.mktemp("finished"))
    assert run_command(command(folder)) == 0
    return folder


def fix_of(said: str) -> str:
    found = re.findall(r"fix: (.*)", said)
    assert found, said
    return found[-1]


def options_of(fix: str) -> list[str]:
    return shlex.split(re.sub(r"^.*: (?=--)", "", fix))


SHORT = "<|endoftext|>".join(TEXT[n : n + 400] for n in range(0, 4_000, 400))
LATE = (
    # the text, other settings, the context that is too long or too short, what says so
    (SHORT, ("--set", "tokenizer.vocab_size=320"), 4_096, "fewer than one row of"),
    (TEXT, (), 16, "SFT rows fits the context"),
)


@pytest.mark.parametrize(("text", "given", "context", "what"), LATE, ids=["base", "sft"])
def test_what_was_trained_anyway_gets_a_context_that_holds_it(
    text: str,
    given: tuple[str, ...],
    context: int,
    what: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = written(tmp_path / "own", text)
    wrong = command(folder, *given, "--set", f"model.context={context}")
    assert run_command(wrong) == 3
    assert "nothing was trained" in capsys.readouterr().out
    assert run_command([*wrong, "--train-anyway"]) == 4
    said = capsys.readouterr().err
    assert what in said
    assert run_command(command(folder, *given, *options_of(fix_of(said)))) == 0


@pytest.mark.parametrize("kinds", [("scores",), ("base", "sft"), ("parity",)])
def test_what_is_moved_away_is_made_again_by_the_same_command(
    kinds: tuple[str, ...], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(finished / "run")
    before = {kind: run.artifact(kind).digest for kind in kinds}
    for kind in kinds:
        shutil.move(run.place(kind), finished / f"moved-{kind}")
    assert run_command(command(finished)) == 0
    said = capsys.readouterr().err
    for kind in kinds:
        assert f"built {kind}" in said
        assert run.artifact(kind).digest == before[kind]


def test_evidence_that_a_bundle_misses_is_made_by_the_command_of_the_run(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(finished / "run")
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "run.log").write_text(f"built gate {'0' * 12} in 3s")
    bundle = ["run", "bundle", str(run.root), "--strict", "--out", str(tmp_path / "b.tgz")]
    bundle += ["--logs-dir", str(logs)]
    shutil.move(run.place("summary"), tmp_path / "summary")
    run.machine.unlink()
    assert run_command(bundle) == 4
    said = capsys.readouterr().err
    assert said.count("repeat the command of the run, which makes what is missing") == 2
    named = f"picochat run tiny --out-dir {shlex.quote(str(run.root))} ..."
    assert named in said
    assert "the logs of this run; its command says again what it did: picochat run tiny" in said
    assert run_command(command(finished)) == 0
    (logs / "run.log").write_text(capsys.readouterr().err)
    assert run_command(bundle) == 0
    assert run_command(["run", "verify", str(tmp_path / "b.tgz")]) == 0


def test_damaged_weights_are_restored(finished: Path, tmp_path: Path) -> None:
    place = tmp_path / "checkpoint"
    shutil.copytree(RunDir(finished / "run").place("sft"), place)
    weights = place / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    with pytest.raises(BadInput) as error:
        load_model(place)
    assert error.value.fix == RESTORE
    weights.write_bytes(whole)
    load_model(place)


def test_a_folder_that_is_not_a_runs_is_left_for_another(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path / "own")
    (folder / "run" / "eval").mkdir(parents=True)
    assert run_command([*command(folder), "--preflight-only"]) == 2
    assert fix_of(capsys.readouterr().err) == "choose another --out-dir, or move these away"
    shutil.move(folder / "run" / "eval", tmp_path / "mine")
    assert run_command([*command(folder), "--preflight-only"]) == 0
