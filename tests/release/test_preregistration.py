"""A run is the announced one or it is not, in each thing that an announcement states; and the Hub's
history dates the announcement.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from picochat.cli.main import run_command
from picochat.core.errors import BadInput
from picochat.core.publish import superseded
from picochat.core.records import digest_file, read_json, write_json
from picochat.release.preregistration_check import (
    find_announcements,
    training_began,
    with_preregistration,
)
from picochat.release.push import PushTarget, push_files
from picochat.release.verify import VerifyCheck, inspect_bundle
from picochat.run.folder import RunDir
from picochat.skills.row_files import read_eval_rows
from tests.export_builders import TOKEN
from tests.fake_hub_write import FakeHub, fake_hub
from tests.forger import change_json, change_rows, settle
from tests.small_pack import SHAPE, make_pack

REPO = "someone/pico-announced"
SETTINGS = [word for key, value in SHAPE.items() for word in ("--set", f"{key}={value}")]
SETTINGS += ["--set", "evals.fit_rows=4", "--set", "evals.max_new_tokens=4"]
SETTINGS += ["--base-steps", "4", "--sft-steps", "2"]


def command(name: str, root: Path, out: Path, *more: str) -> list[str]:
    pack = str(root / "pack" / "pack.json")
    return ["run", name, "--out-dir", str(out), "--dataset-pack", pack, *SETTINGS, *more]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack, the announcement of three training seeds in `runs`, and the run of the first."""
    root = tmp_path_factory.mktemp("announced")
    os.environ["PICOCHAT_HOME"] = str(root / "cache")
    make_pack(root / "pack")
    assert run_command(command("preregister", root, root / "runs", "--seeds", "3")) == 0
    assert run_command(command("tiny", root, root / "runs" / "seed-42")) == 0
    return root


@pytest.fixture
def announcement(root: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copy(root / "runs" / "preregistration.json", tmp_path))


@pytest.fixture
def run(root: Path) -> RunDir:
    return RunDir(root / "runs" / "seed-42")


def checked(run: RunDir, name: Path | str) -> VerifyCheck:
    return with_preregistration(inspect_bundle(run.root), find_announcements(str(name))).checks[-1]


def found(run: RunDir, name: Path | str) -> list[str]:
    return [problem.what for problem in checked(run, name).problems]


def test_the_announced_run_holds_and_the_other_seeds_are_named(
    root: Path, run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "run.tgz"
    assert run_command(["run", "bundle", str(run.root), "--out", str(bundle)]) == 0
    capsys.readouterr()
    assert run_command(["run", "verify", str(bundle), "--preregistration", str(root / "runs")]) == 0
    said = capsys.readouterr().out
    assert f"sha256 {digest_file(root / 'runs' / 'preregistration.json')}" in said
    assert "one of 3 announced training seeds [42, 43, 44]: ask for all" in said
    assert "a file has no date" in said


def test_the_same_command_announces_the_same_bytes_and_builds_nothing_again(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = digest_file(root / "runs" / "preregistration.json")
    assert run_command(command("preregister", root, root / "runs", "--seeds", "3")) == 0
    said = capsys.readouterr()
    assert before in said.out and "built" not in said.err
    assert "--push-to-hub --repo-id OWNER/NAME" in said.out
    assert not superseded(root / "runs" / "preregistration.json")


def test_another_announcement_keeps_the_earlier_one(root: Path, tmp_path: Path) -> None:
    assert run_command(command("preregister", root, tmp_path / "a")) == 0
    assert run_command(command("preregister", root, tmp_path / "a", "--seed", "7")) == 0
    (kept,) = superseded(tmp_path / "a" / "preregistration.json")
    assert read_json(kept)["training_seeds"] == [42]
    assert read_json(tmp_path / "a" / "preregistration.json")["training_seeds"] == [7]


def test_the_page_states_seeds_rows_and_every_bound_of_the_gate(root: Path, run: RunDir) -> None:
    page = (root / "runs" / "preregistration.md").read_text()
    assert "| training seeds | 42, 43, 44 |" in page and "`base.steps=4`" in page
    assert digest_file(run.place("rows") / "eval.jsonl") in page
    assert digest_file(root / "runs" / "preregistration.json") in page
    for row in read_json(root / "runs" / "preregistration.json")["rules"]:
        assert row.split(" (")[0] in page


# ---- what differs --------------------------------------------------------------------------------


def announced_steps(value: dict[str, Any]) -> None:
    value["settings"]["base.steps"] = 5


def higher_bound(value: dict[str, Any]) -> None:
    name = next(name for name in value["rules"] if name.startswith("base_beats_baseline"))
    value["rules"][name]["blocks_unless"] = "<= 0.5"


def one_more_rule(value: dict[str, Any]) -> None:
    value["rules"]["fluency (of replies)"] = value["rules"][next(iter(value["rules"]))]


def a_check_that_blocks(value: dict[str, Any]) -> None:
    value["checks"][next(iter(value["checks"]))]["effect"] = "block!"


def other_seeds(value: dict[str, Any]) -> None:
    value["training_seeds"] = [1, 2]


def other_benchmark(value: dict[str, Any]) -> None:
    value["artifacts"]["benchmarks"]["files"]["items.jsonl"]["sha256"] = "0" * 64


def other_text(value: dict[str, Any]) -> None:
    value["artifacts"]["corpus"]["inputs"]["pack"] = "0" * 64


def other_code(value: dict[str, Any]) -> None:
    value["picochat"] = "9.9.9"


def rows_left_open(value: dict[str, Any]) -> None:
    del value["artifacts"]["rows"]


def one_more_artifact(value: dict[str, Any]) -> None:
    value["artifacts"]["second_corpus"] = value["artifacts"]["corpus"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (announced_steps, "announced settings.base.steps: states 5, the run has 4"),
        (higher_bound, 'blocks_unless: states "<= 0.5", this version has "<= 0.85"'),
        (one_more_rule, "announced rules.fluency (of replies): states"),
        (a_check_that_blocks, 'effect: states "block!", this version has'),
        (other_seeds, "announced training seeds 1, 2: the run has 42"),
        (other_benchmark, "announced benchmarks.files.items.jsonl.sha256: states"),
        (other_text, "announced corpus.inputs.pack: states"),
        (other_code, 'announced picochat: states "9.9.9", the run has'),
        (rows_left_open, "announced rows: states null, the run has"),
        (one_more_artifact, "announced second_corpus: the run has no such artifact"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_each_thing_that_is_not_as_announced_is_one_line(
    run: RunDir, announcement: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    assert found(run, announcement) == []
    change_json(announcement, change)
    (problem,) = found(run, announcement)
    assert said in problem


def test_a_run_that_is_not_the_announced_one_exits_with_3(run: RunDir, announcement: Path) -> None:
    change_json(announcement, announced_steps)
    words = ["run", "verify", str(run.root), "--preregistration", str(announcement)]
    assert run_command(words) == 3
    assert run_command([*words, "--json"]) == 3


def test_eval_rows_that_were_swapped_after_the_announcement_are_found(
    run: RunDir, announcement: Path, tmp_path: Path
) -> None:
    """The swap is made to agree with everything else in the run."""
    forged = RunDir(Path(shutil.copytree(run.root, tmp_path / "run")))
    change_rows(forged.place("rows") / "eval.jsonl", lambda rows: [*rows[1:], rows[0]])
    settle(forged)
    problems = found(forged, announcement)
    assert any("announced rows.files.eval.jsonl.sha256: states" in what for what in problems)
    assert all(what.startswith("announced rows.") for what in problems), "what follows is not said"


def test_the_price_and_the_host_are_not_part_of_what_is_announced(
    run: RunDir, announcement: Path, tmp_path: Path
) -> None:
    other = RunDir(Path(shutil.copytree(run.root, tmp_path / "run")))

    def cheaper(resolved: dict[str, Any]) -> None:
        resolved["config"]["gate"]["gpu_hour_usd"] = 2.5
        resolved["config"]["host"]["workers"] = 7

    change_json(other.config, cheaper)
    assert found(other, announcement) == []


def test_texts_of_eval_rows_are_announced_on_request_and_follow_their_digest(
    root: Path, run: RunDir, announcement: Path, tmp_path: Path
) -> None:
    assert read_json(announcement)["eval_rows"] is None
    assert run_command(command("preregister", root, tmp_path / "a", "--eval-texts")) == 0
    announced = tmp_path / "a" / "preregistration.json"
    rows = read_eval_rows(run.place("rows") / "eval.jsonl").rows
    assert [row["user"] for row in read_json(announced)["eval_rows"]] == [row.user for row in rows]
    assert found(run, announced) == []
    change_json(announced, lambda value: value["eval_rows"].pop())
    (problem,) = found(run, announced)
    assert "their texts are not those of the announced digest" in problem


# ---- on the Hub ----------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub(TOKEN) as running:
        for name in [name for name in os.environ if name.startswith("HF_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield running


def pushed(hub: FakeHub, root: Path, *more: str, seeds: str = "3") -> None:
    words = ["--seeds", seeds, "--push-to-hub", "--repo-id", REPO, *more]
    assert run_command(command("preregister", root, root / "runs", *words)) == 0


def date_of(run: RunDir, hours: float) -> str:
    """So many hours before training began, as the Hub writes a date."""
    began = training_began(run)
    assert began is not None
    return (began - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def test_an_announcement_is_one_commit_whose_date_verification_states(
    hub: FakeHub, root: Path, run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    pushed(hub, root)
    repo = hub.repos[REPO]
    assert len(repo.commits) == 2 and f"in one commit {repo.head}" in capsys.readouterr().out
    assert set(repo.files()) == {".gitattributes", "preregistration.json", "preregistration.md"}
    repo.made = repo.dates[repo.head] = date_of(run, 5)
    assert run_command(["run", "verify", str(run.root), "--preregistration", REPO]) == 0
    said = capsys.readouterr().out
    day = datetime.fromisoformat(repo.made[:19]).replace(tzinfo=timezone.utc)
    assert f"its commit {repo.head} {day:%Y-%m-%d %H:%M:%S} UTC, which is the Hub's word" in said
    assert "other announcements" not in said


def test_an_announcement_after_training_began_is_found(
    hub: FakeHub, root: Path, run: RunDir
) -> None:
    pushed(hub, root)
    (problem,) = found(run, REPO)
    assert "training began before, on" in problem and "by the run's own clock" in problem


def test_a_date_before_the_repository_was_made_is_found(
    hub: FakeHub, root: Path, run: RunDir
) -> None:
    """Who commits with git chooses the date of the commit; when a repository was made, the Hub
    says.
    """
    pushed(hub, root)
    hub.repos[REPO].dates[hub.repos[REPO].head] = date_of(run, 5)
    (problem,) = found(run, REPO)
    assert "the repository was made later" in problem


def test_an_announcement_that_was_changed_afterwards_is_found_by_its_history(
    hub: FakeHub, root: Path, run: RunDir, tmp_path: Path
) -> None:
    """The first announcement is of 5 steps; after training it is replaced by one of this run."""
    good = (root / "runs" / "preregistration.json").read_bytes()
    for folder, content in (("a", None), ("b", good)):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "preregistration.json"
        file.write_bytes(good)
        if content is None:
            change_json(file, announced_steps)
        push_files(tmp_path / folder, [file.name], PushTarget(REPO), TOKEN, "announce")
    repo = hub.repos[REPO]
    first, last = list(repo.commits)[1:]
    repo.made = repo.dates[first] = date_of(run, 5)
    assert found(run, REPO) == ["announced settings.base.steps: states 5, the run has 4"]
    repo.dates[last] = date_of(run, 1)
    check = checked(run, REPO)
    assert not check.problems and last in (check.note or "")
    assert "the repository holds other announcements, of 20" in (check.note or "")


def test_a_secret_in_an_announcement_is_refused_before_the_first_request(
    hub: FakeHub, root: Path, tmp_path: Path
) -> None:
    file = tmp_path / "preregistration.json"
    file.write_text(f'{{"settings": "{TOKEN}"}}')
    with pytest.raises(BadInput, match="may not be published") as refused:
        push_files(tmp_path, [file.name], PushTarget(REPO), TOKEN, "announce")
    assert refused.value.problems[0].fix == "take it out of pack and settings"
    assert not hub.requests
    file.write_text('{"settings": ""}')
    push_files(tmp_path, [file.name], PushTarget(REPO), TOKEN, "announce")


def test_a_private_announcement_says_that_nobody_sees_it(
    hub: FakeHub, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pushed(hub, root, "--private")
    assert "nobody else sees the announcement" in capsys.readouterr().out


def test_what_is_no_announcement_is_bad_input_that_names_one(
    hub: FakeHub, root: Path, run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(tmp_path / "other.json", {"schema_version": 99})
    push_files(run.root, ["summary.md"], PushTarget(REPO), TOKEN, "a model")
    for name, code in ((tmp_path / "other.json", 4), ("nothing.json", 4), (REPO, 4)):
        assert run_command(["run", "verify", str(run.root), "--preregistration", str(name)]) == code
        assert "preregistration.json that `picochat run preregister`" in capsys.readouterr().err
    words = ["run", "verify", str(run.root), "--preregistration"]
    assert run_command([*words, str(root / "runs" / "preregistration.json")]) == 0


def test_a_benchmark_that_cannot_be_fetched_is_no_announcement(
    hub: FakeHub, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command("preregister", root, tmp_path / "a", "--external-eval", "piqa")
    assert run_command(words) == 5
    assert "external benchmarks could not be had" in capsys.readouterr().err
    assert not (tmp_path / "a" / "preregistration.json").exists()


def test_the_announcement_is_json_that_any_reader_takes(root: Path) -> None:
    announced = json.loads((root / "runs" / "preregistration.json").read_text())
    assert set(announced["artifacts"]) >= {"corpus", "rows", "benchmarks", "shards"}
    assert "host.workers" not in announced["settings"]
