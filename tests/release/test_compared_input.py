"""`run compare` reads run folders, bundles and folders of seeds, and says in one message what it
cannot compare.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from picochat.cli.main import run_command
from picochat.core.errors import BadInput, CheckFailed, Problem, WrongUsage
from picochat.core.records import write_json
from picochat.release.bundle import make_bundle
from picochat.release.compared_input import compare_paths, read_run, read_side
from picochat.report.comparison_page import comparison_lines
from picochat.run.folder import RunDir
from tests.folder_builders import make_llama
from tests.forger import change_config, change_json, change_rows, make_real_run, settle
from tests.run_builder import HOSTILE, make_run

# ---- real runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs that differ in the seed alone, and the bundle of the second."""
    root = tmp_path_factory.mktemp("real")
    for seed in (42, 43):
        (root / f"made-{seed}").mkdir()
        run = make_real_run(root / f"made-{seed}", training_seed=seed)
        run.root.rename(root / f"seed-{seed}")
    # Commits may be made between the two runs while somebody develops.
    shutil.copy(root / "seed-42" / "machine.json", root / "seed-43" / "machine.json")
    make_bundle(RunDir(root / "seed-43"), root / "seed-43.tgz", None, strict=False)
    return root


def test_two_runs_that_differ_in_the_seed_alone_are_no_difference(
    real: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "compare", str(real / "seed-42"), str(real / "seed-43")]
    assert run_command(command) == 0
    shown = capsys.readouterr().out
    assert "no difference: the settings and data are the same" in shown.splitlines()[3]
    assert "what differs: the training seed (42 and 43); the settings and data are" in shown
    assert "quiz, acc_norm" in shown and "held-out text, chat model" in shown
    assert run_command([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["same_recipe"] and found["differs"] == []
    assert found["differences"]["made"] == []
    of_text = [each for each in found["measures"] if each["kind"] == "bits per byte"]
    assert all(each["difference"] != 0 and each["p"] == 1.0 for each in of_text)
    means = {each["name"]: each["mean_a"] for each in found["measures"]}
    scores = RunDir(real / "seed-42").artifact("scores").facts
    assert means["held-out text, base model"] == pytest.approx(scores["base_bits_per_byte"])
    assert means["held-out text, chat model"] == pytest.approx(scores["sft_bits_per_byte"])
    for name in ("math", "choice", "identity"):
        assert means[name] == scores["skills"][name]["all"]["fraction"]


def test_a_bundle_is_compared_as_its_run_is_if_it_holds(real: Path, tmp_path: Path) -> None:
    folder = compare_paths(real / "seed-42", real / "seed-43")
    with tarfile.open(real / "seed-43.tgz") as archive:
        archive.extractall(tmp_path, filter="data")
    for bundle in (real / "seed-43.tgz", tmp_path / "seed-43"):
        found = compare_paths(real / "seed-42", bundle)
        assert (found.measures, found.levels) == (folder.measures, folder.levels)
        assert found.differences == folder.differences
    page = tmp_path / "seed-43" / "eval" / "replies.jsonl"
    page.write_bytes(page.read_bytes().replace(b'"reply":"', b'"reply":"x', 1))
    with pytest.raises(CheckFailed, match="does not hold what it claims"):
        compare_paths(real / "seed-42", tmp_path / "seed-43")


def test_a_public_model_is_compared_on_the_rows_that_both_were_asked(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a result whose reply was changed is refused; the remedy is followed."""
    pack, model = real / "made-42" / "pack" / "pack.json", make_llama(tmp_path / "llama")
    asked = ["--device", "cpu", "--max-new-tokens", "4", "--max-rows", "20"]
    command = ["eval", str(model), "--dataset-pack", str(pack), *asked]
    assert run_command([*command, "--out-dir", str(tmp_path / "first")]) == 0
    found = compare_paths(real / "seed-42", tmp_path / "first")
    assert [each.shared + each.contaminated for each in found.shared] == [20]
    assert not found.differences.known
    replies = tmp_path / "first" / "replies.jsonl"
    replies.write_bytes(replies.read_bytes().replace(b'"reply":"', b'"reply":"x', 1))
    capsys.readouterr()
    assert run_command(["run", "compare", str(real / "seed-42"), str(tmp_path / "first")]) == 4
    assert "ask the model again, with another --out-dir" in capsys.readouterr().err
    assert run_command([*command, "--out-dir", str(tmp_path / "second")]) == 0
    assert run_command(["run", "compare", str(real / "seed-42"), str(tmp_path / "second")]) == 0
    shown = capsys.readouterr().out
    assert "How one side was made is not known" in shown and "several seeds" not in shown


# ---- runs of stated replies ----------------------------------------------------------------------


def stated(root: Path, failing: int = 0, **settings: Any) -> Path:
    """A run of run_builder.py; so many more rows of identity fail, and settings are other ones."""
    run = make_run(root)
    change_config(run, lambda config: _change(config, settings, 42))

    def fail(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        mine = [
            row
            for row in rows
            if row["set"] == "eval" and row["skill"] == "identity" and row["reply"] != HOSTILE
        ]
        for row in mine[:failing]:
            row["reply"] = HOSTILE
        return rows

    if failing:
        change_rows(run.place("scores") / "replies.jsonl", fail)
        settle(run)
    return root


def test_scores_of_another_version_are_named_with_what_makes_them_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = stated(tmp_path / "old")

    def unreadable(*_: object) -> None:
        raise BadInput("measured.json is not usable", problems=[Problem("old_bits: unknown key")])

    monkeypatch.setattr("picochat.release.compared_input.facts_from", unreadable)
    assert run_command(["run", "compare", str(old), str(stated(tmp_path / "b"))]) == 4
    shown = capsys.readouterr().err
    assert "old_bits: unknown key" in shown and "picochat run tiny --out-dir" in shown


def _change(config: dict[str, Any], settings: dict[str, Any], seed: int) -> None:
    config["training_seed"] = seed
    for key, value in settings.items():
        section, _, name = key.partition("__")
        (config[section] if name else config)[name or section] = value


def test_settings_and_rows_that_differ_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = stated(tmp_path / "a", failing=40)
    b = stated(tmp_path / "b", base__muon_lr=0.005, gate__budget_usd=9.0, host__workers=3)
    assert run_command(["run", "compare", str(a), str(b), "--out", str(tmp_path / "p.svg")]) == 0
    shown = capsys.readouterr().out
    assert "differ by more than chance" in shown and "B is better: identity" in shown
    assert "base.muon_lr" in shown and "budget" not in shown and "workers" not in shown
    assert "tells these two models apart, not their settings" in shown
    assert "identity" in (tmp_path / "p.svg").read_text()


def test_other_data_is_named(tmp_path: Path) -> None:
    a, b = stated(tmp_path / "a"), stated(tmp_path / "b")
    for path, digest in ((a, "1" * 64), (b, "2" * 64)):
        manifest = path / "corpus" / "manifest.json"
        change_json(manifest, lambda value, digest=digest: value["inputs"].update(pack=digest))
        settle(RunDir(path))
    (text,) = compare_paths(a, b).differences.data
    assert (text.name, text.a) == ("text", "111111111111, 995,000 documents, 4.28 GB")


def make_seeds(folder: Path, run: Path, seeds: tuple[int, ...], **settings: Any) -> Path:
    """A folder of copies of a run with these seeds."""
    for seed in seeds:
        shutil.copytree(run, folder / f"seed-{seed}")
        change_config(
            RunDir(folder / f"seed-{seed}"), lambda c, seed=seed: _change(c, settings, seed)
        )
    write_json(folder / "seeds.json", {"runs": [f"seed-{seed}" for seed in seeds], "made_by": "x"})
    return folder


def test_runs_of_several_seeds_are_one_side(tmp_path: Path) -> None:
    weak, good = stated(tmp_path / "weak", failing=45), stated(tmp_path / "good")
    a = make_seeds(tmp_path / "a", weak, (41, 42, 43))
    b = make_seeds(tmp_path / "b", good, (41, 42), base__muon_lr=0.005)
    found = compare_paths(a, b)
    assert [each.name for each in found.beyond_chance] == ["identity"]
    assert (len(found.measures[0].a), len(found.measures[0].b)) == (3, 2)
    shown = "\n".join(comparison_lines(found))
    assert "3 runs, seeds 41, 42, 43" in shown and "The seed counts as chance" in shown
    with pytest.raises(WrongUsage, match="A and B are the same run"):
        compare_paths(a, a / "seed-42")


# ---- bad input -----------------------------------------------------------------------------------


def test_a_run_is_not_compared_with_itself(tmp_path: Path) -> None:
    a, b = stated(tmp_path / "a"), stated(tmp_path / "b")
    with pytest.raises(WrongUsage, match="are the same run") as caught:
        compare_paths(a, tmp_path / "x" / ".." / "a")
    assert caught.value.fix == "name two different runs to compare"
    assert compare_paths(a, b).measures


def test_what_is_no_run_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tgz").write_text("text")
    for path, message in (
        ("empty", "is no run: it has no run.json"),
        ("none", "bundle .* does not exist"),
        ("text.tgz", r"is not a whole \.tgz"),
    ):
        with pytest.raises(BadInput, match=message):
            read_side(tmp_path / path)
    with pytest.raises(BadInput) as caught:
        read_side(tmp_path / "empty")
    assert "name a run folder, a bundle" in str(caught.value.fix)


def test_an_unfinished_run_names_the_command_that_finishes_it(tmp_path: Path) -> None:
    make_run(tmp_path / "half", until="sft")
    with pytest.raises(BadInput, match="half is not finished: it has no scores") as caught:
        read_side(tmp_path / "half")
    assert f"picochat run tiny --out-dir {tmp_path / 'half'} ..." in str(caught.value.fix)
    with pytest.raises(BadInput, match="not finished") as caught:
        read_run(RunDir(tmp_path / "half"), tmp_path / "half.tgz")
    assert caught.value.fix == "name the bundle of a run that ended with a verdict"


def better_replies(run: RunDir) -> None:
    change_rows(
        run.place("scores") / "replies.jsonl",
        lambda rows: [{**row, "reply": row["expected"]} for row in rows],
    )


def other_rows(run: RunDir) -> None:
    change_json(run.place("rows") / "manifest.json", lambda value: value["facts"].update(x=1))


def other_score(run: RunDir) -> None:
    """Digests agree with what is stated; the score does not follow from the replies."""
    better_replies(run)
    settle(run, judge=False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (better_replies, "scores: replies.jsonl is not as it was made"),
        (other_rows, "scores: was made from another rows"),
        (other_score, "scores: differ from what the replies give"),
    ],
    ids=["replies", "rows", "score"],
)
def test_a_run_that_was_changed_is_not_compared(
    tmp_path: Path, damage: Callable[[RunDir], None], message: str
) -> None:
    a = stated(tmp_path / "a")
    damage(RunDir(a))
    with pytest.raises(BadInput, match="is not one finished run") as caught:
        read_side(a)
    assert any(message in problem.what for problem in caught.value.problems)


def test_a_seed_that_is_not_finished_names_the_command_with_seeds(tmp_path: Path) -> None:
    folder = make_seeds(tmp_path / "a", stated(tmp_path / "run"), (42,))
    make_run(folder / "seed-43", until="sft")
    write_json(folder / "seeds.json", {"runs": ["seed-42", "seed-43"]})
    with pytest.raises(BadInput, match="seed-43 is not finished: it has no scores") as caught:
        read_side(folder)
    assert f"picochat run tiny --seeds N --out-dir {folder} ..." in str(caught.value.fix)


def test_runs_of_one_side_must_be_of_one_recipe(tmp_path: Path) -> None:
    run = stated(tmp_path / "run")
    folder = make_seeds(tmp_path / "a", run, (42, 43))
    change_config(RunDir(folder / "seed-43"), lambda config: config["base"].update(muon_lr=0.005))
    with pytest.raises(BadInput, match="seed-43 from seed-42") as caught:
        read_side(folder)
    command = str(caught.value.fix).partition(": picochat ")[2].split()
    assert command == ["run", "compare", str(folder / "seed-42"), str(folder / "seed-43")]
    assert run_command(command) == 0
