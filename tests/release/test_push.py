"""Pushing, against a Hub on loopback, by the real client in a process of its own (it reads its
endpoint when imported).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from picochat.core.errors import BadInput, WrongUsage
from picochat.core.records import write_json
from picochat.export.export_record import EXPORT_RECORD, digest_files, read_export_record
from picochat.export.parity import logits, random_tokens
from picochat.model.weights import load_model
from picochat.release.hf import export_hf
from picochat.release.push import PushTarget, push_target, require_publishable, require_target
from picochat.run.folder import RunDir
from tests.export_builders import (
    MODEL,
    TOKEN,
    VOCAB_SIZE,
    RunParts,
    gate_facts,
    make_run,
    request_of,
)
from tests.fake_hub_write import FakeHub, Repo, fake_hub

pytest.importorskip("transformers")
REPO = "someone/pico-test"
PUSH = """
import sys
from pathlib import Path
from picochat.core.errors import PicochatError
from picochat.release.push import PushTarget, push_folder
folder, repo, private, token = sys.argv[1:]
try:
    report = push_folder(Path(folder), PushTarget(repo, private == "yes"), token, "Publish it")
except PicochatError as error:
    print("\\n".join(error.lines()), file=sys.stderr)
    sys.exit(error.exit_code)
print("\\n".join(report.lines()))
"""
LOAD = """
import sys, numpy, torch, transformers
repo, ids, out = sys.argv[1:]
model = transformers.AutoModelForCausalLM.from_pretrained(repo, dtype=torch.float32)
tokenizer = transformers.AutoTokenizer.from_pretrained(repo)
with torch.no_grad():
    numpy.save(out, model(torch.from_numpy(numpy.load(ids))).logits.numpy())
print(tokenizer.chat_template is not None)
"""


@dataclass(frozen=True)
class Exported:
    folder: Path
    run: RunDir


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """One export of a run that the gate blocked, for every test here."""
    root = tmp_path_factory.mktemp("push")
    run = make_run(root / "run", RunParts(gate=gate_facts("blocked")))
    export_hf(request_of(run, root / "out"))
    return Exported(root / "out", run)


@pytest.fixture
def folder(exported: Exported, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(exported.folder, tmp_path / "copy"))


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub(TOKEN) as running:
        yield running


def environment(hub: FakeHub, home: Path) -> dict[str, str]:
    loopback = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(home),
        "NO_PROXY": "127.0.0.1",
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {
        **kept,
        **loopback,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def push(
    hub: FakeHub, folder: Path, home: Path, *, private: str = "no", token: str = TOKEN
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PUSH, str(folder), REPO, private, token]
    return subprocess.run(
        command, env=environment(hub, home), capture_output=True, text=True, timeout=120
    )


def reseal(folder: Path) -> None:
    """Make the record agree with a folder that a test has changed, as a new export would."""
    record = read_export_record(folder).model_copy(update={"files": digest_files(folder)})
    write_json(folder / EXPORT_RECORD, record)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_runbooks_push_is_one_commit_that_a_stranger_can_load(
    hub: FakeHub, exported: Exported, tmp_path: Path
) -> None:
    run, out = exported.run, tmp_path / "out"
    flags = (
        f"--checkpoint {run.place('sft')} --tokenizer {run.root}/tokenizer.json --out-dir {out}"
        " --model-name pico --license mit"
    )
    words = [
        "--dataset-summary",
        "A corpus.",
        "--eval-summary",
        "See the evidence.",
        "--push-to-hub",
        "--repo-id",
        REPO,
    ]
    done = subprocess.run(
        [sys.executable, "-m", "picochat.cli.main", "export", "hf", *flags.split(), *words],
        env={**environment(hub, tmp_path / "home"), "HF_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert hub.count("/commit/") == 1
    held = hub.repos[REPO].files()
    assert {name: data for name, data in held.items() if name != ".gitattributes"} == contents(out)
    assert f'name = "{REPO}"'.encode() in held["README.md"]
    assert hub.repos[REPO].head in done.stdout
    assert TOKEN not in done.stdout + done.stderr
    assert not any(TOKEN.encode() in data for data in held.values())
    ids_BT = random_tokens(VOCAB_SIZE, MODEL.context)
    np.save(tmp_path / "ids.npy", ids_BT)
    command = [
        sys.executable,
        "-c",
        LOAD,
        REPO,
        str(tmp_path / "ids.npy"),
        str(tmp_path / "logits.npy"),
    ]
    loaded = subprocess.run(
        command,
        env=environment(hub, tmp_path / "other"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert loaded.returncode == 0, loaded.stderr
    model, _ = load_model(run.place("sft"))
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), logits(model, ids_BT), atol=1e-4)


def test_a_second_push_deletes_what_the_folder_lacks(
    hub: FakeHub, folder: Path, tmp_path: Path
) -> None:
    (folder / "stale.txt").write_text("old")
    reseal(folder)
    assert push(hub, folder, tmp_path / "home").returncode == 0
    (folder / "stale.txt").unlink()
    reseal(folder)
    done = push(hub, folder, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert "1 stale deleted" in done.stdout
    assert hub.count("/commit/") == 2
    held = hub.repos[REPO].files()
    assert {name for name in held if name != ".gitattributes"} == set(contents(folder))
    assert ".gitattributes" in held


def test_a_push_leaves_the_announcement_of_the_run_where_it_is(
    hub: FakeHub, folder: Path, tmp_path: Path
) -> None:
    hub.repos[REPO] = Repo(private=False)
    hub.repos[REPO].files()["preregistration.json"] = b"{}"
    done = push(hub, folder, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert hub.repos[REPO].files()["preregistration.json"] == b"{}"


@pytest.mark.parametrize(
    ("status", "words", "fix"),
    [
        (403, "may not write", "use a token with write access to that owner, or another --repo-id"),
        (409, "somebody else is changing", "push again"),
        (412, "in between", "look at the repository, then push again"),
        (429, "too many requests", "wait some minutes, then push again"),
        (503, "not well (status 503)", "wait, then push again"),
    ],
)
def test_what_the_hub_refuses_is_pushed_again_as_the_remedy_says(
    hub: FakeHub, exported: Exported, tmp_path: Path, status: int, words: str, fix: str
) -> None:
    hub.refuse["/commit/" if status in (409, 412) else "/api/repos/create"] = status
    done = push(hub, exported.folder, tmp_path / "home")
    assert done.returncode == 5
    assert words in done.stderr
    assert f"fix: {fix}\n" in done.stderr
    assert TOKEN not in done.stderr
    hub.refuse.clear()  # what the Hub refused has passed, or the owner let the token in
    assert push(hub, exported.folder, tmp_path / "home").returncode == 0


def test_a_wrong_token_is_a_hub_problem(hub: FakeHub, exported: Exported, tmp_path: Path) -> None:
    done = push(hub, exported.folder, tmp_path / "home", token="hf_" + "x" * 34)
    assert done.returncode == 5
    assert "not valid" in done.stderr
    assert "fix: make a token that may write" in done.stderr
    assert push(hub, exported.folder, tmp_path / "home", token=TOKEN).returncode == 0


def test_no_network_is_a_hub_problem(hub: FakeHub, exported: Exported, tmp_path: Path) -> None:
    there, hub.endpoint = hub.endpoint, "http://127.0.0.1:9"
    done = push(hub, exported.folder, tmp_path / "home")
    assert done.returncode == 5
    assert "could not be reached" in done.stderr
    assert "fix: check the network, HF_ENDPOINT" in done.stderr and "push again" in done.stderr
    hub.endpoint = there
    assert push(hub, exported.folder, tmp_path / "home").returncode == 0


def test_a_hub_that_lost_a_file_is_found_out(
    hub: FakeHub, exported: Exported, tmp_path: Path
) -> None:
    hub.drop_on_commit.add("LICENSE")
    done = push(hub, exported.folder, tmp_path / "home")
    assert done.returncode == 5
    assert "LICENSE: is missing" in done.stderr
    assert "fix: push again" in done.stderr
    hub.drop_on_commit.clear()
    assert push(hub, exported.folder, tmp_path / "home").returncode == 0


def test_private_never_goes_into_a_public_repository(
    hub: FakeHub, exported: Exported, tmp_path: Path
) -> None:
    assert push(hub, exported.folder, tmp_path / "home").returncode == 0
    done = push(hub, exported.folder, tmp_path / "home", private="yes")
    assert done.returncode == 2
    assert "is public" in done.stderr
    assert hub.count("/commit/") == 1
    assert "fix: make it private on the Hub, or leave --private out" in done.stderr
    hub.repos[REPO].private = True
    assert push(hub, exported.folder, tmp_path / "home", private="yes").returncode == 0


def test_a_blocked_model_may_be_pushed_and_says_so_at_the_top(exported: Exported) -> None:
    require_publishable(exported.folder, TOKEN)
    assert "**blocked**" in (exported.folder / "README.md").read_text().split("## Load it")[0]


def test_a_folder_that_changed_since_the_export_is_refused_and_exported_again(
    folder: Path, exported: Exported, tmp_path: Path
) -> None:
    (folder / "README.md").write_text("# The best model\n")
    (folder / "extra.txt").write_text("x")
    with pytest.raises(BadInput) as refusal:
        require_publishable(folder, TOKEN)
    assert [problem.what for problem in refusal.value.problems] == [
        "README.md changed since the export",
        "extra.txt changed since the export",
    ]
    assert {problem.fix for problem in refusal.value.problems} == {"export again"}
    export_hf(request_of(exported.run, tmp_path / "again"))
    require_publishable(tmp_path / "again", TOKEN)


@pytest.mark.parametrize(
    ("token", "what"), [(TOKEN, "the value of the token"), ("hf_" + "Q" * 34, "a Hub token")]
)
def test_a_folder_that_holds_a_token_is_refused(folder: Path, token: str, what: str) -> None:
    (folder / "evidence" / "log.txt").write_text(f"export HF_TOKEN={token}\n")
    reseal(folder)
    with pytest.raises(BadInput, match="may not be published") as refusal:
        require_publishable(folder, TOKEN)
    assert [problem.what for problem in refusal.value.problems] == [
        f"evidence/log.txt holds {found}" for found in dict.fromkeys([what, "a Hub token"])
    ]
    assert refusal.value.problems[0].fix == "take it out of the run, and export again"
    (folder / "evidence" / "log.txt").write_text("export HF_TOKEN=...\n")
    reseal(folder)
    require_publishable(folder, TOKEN)


@pytest.mark.parametrize("kind", ["eval", "gate", "summary", "honesty", "preflight", "parity"])
def test_a_folder_without_its_evidence_is_refused(
    folder: Path, exported: Exported, kind: str
) -> None:
    shutil.rmtree(folder / "evidence" / kind)
    reseal(folder)
    with pytest.raises(BadInput) as refusal:
        require_publishable(folder, TOKEN)
    assert f"{kind} (" in refusal.value.problems[0].what
    assert "finish the run" in str(refusal.value.problems[0].fix)
    shutil.copytree(exported.folder / "evidence" / kind, folder / "evidence" / kind)
    reseal(folder)
    require_publishable(folder, TOKEN)


def test_weights_that_were_not_scored_are_refused(folder: Path, exported: Exported) -> None:
    record = read_export_record(folder).model_copy(update={"scored": False})
    write_json(folder / EXPORT_RECORD, record)
    with pytest.raises(BadInput) as refusal:
        require_publishable(folder, TOKEN)
    fix = "export the run's sft/checkpoint, without --allow-unscored"
    assert [problem.fix for problem in refusal.value.problems] == [fix]
    require_publishable(exported.folder, TOKEN)  # that export


def test_what_a_desktop_leaves_in_a_folder_is_no_change_and_is_not_pushed(
    hub: FakeHub, folder: Path, tmp_path: Path
) -> None:
    names = set(contents(folder))
    for name in (".DS_Store", "evidence/Thumbs.db"):
        (folder / name).write_bytes(b"x")
    done = push(hub, folder, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert f"pushed {len(names)} files" in done.stdout


def test_a_push_needs_no_folder_for_the_client(hub: FakeHub, folder: Path) -> None:
    done = push(hub, folder, Path("/proc/nothing"))
    assert done.returncode == 0, done.stderr


def test_a_folder_that_is_no_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not an export"):
        require_publishable(tmp_path, TOKEN)


@pytest.mark.parametrize(
    "repo_id", ["name", "a/b/c", "/name", "a/", "a/../b", "a b/c", "me/x.git", "me/a--b", ""]
)
def test_a_malformed_repository_name_is_wrong_usage(
    repo_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", TOKEN)
    with pytest.raises(WrongUsage) as refusal:
        require_target(PushTarget(repo_id, token_variable="SOME_TOKEN"))
    assert "OWNER/NAME" in refusal.value.problems[0].what
    assert refusal.value.problems[0].fix == "for example --repo-id me/my-model"
    assert require_target(PushTarget("me/my-model", token_variable="SOME_TOKEN")) == TOKEN


def test_a_missing_token_is_wrong_usage_with_the_command_that_mends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(WrongUsage) as refusal:
        require_target(PushTarget(REPO))
    assert refusal.value.problems[0].fix == "export HF_TOKEN=..."
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert require_target(PushTarget(REPO)) == TOKEN


def test_half_a_wish_to_push_is_wrong_usage() -> None:
    with pytest.raises(WrongUsage, match="needs a place") as refusal:
        push_target(True, None, False, "HF_TOKEN", None)
    assert refusal.value.fix == "--repo-id OWNER/NAME"
    with pytest.raises(WrongUsage, match="are for a push") as refusal:
        push_target(False, REPO, False, "HF_TOKEN", None)
    assert refusal.value.fix == "add --push-to-hub, or leave them out"
    assert push_target(True, REPO, False, "HF_TOKEN", None) == PushTarget(REPO)
    assert push_target(False, None, False, "HF_TOKEN", None) is None


def test_the_record_of_an_export_can_be_read_by_anyone(exported: Exported) -> None:
    record = json.loads((exported.folder / EXPORT_RECORD).read_text())
    assert record["verdict"] == "blocked"
    assert set(record["files"]) == set(contents(exported.folder)) - {EXPORT_RECORD}
