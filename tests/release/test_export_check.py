"""A published folder is checked by itself: every forgery here makes the record agree with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from picochat.cli.main import run_command
from picochat.core.errors import BadInput, WrongUsage
from picochat.core.records import digest_file, write_json
from picochat.export.export_record import EXPORT_RECORD, digest_files, read_export_record
from picochat.release import hf
from picochat.release.bom import BOM
from picochat.release.bundle import make_bundle
from picochat.release.export_check import inspect_export
from picochat.release.hf import ExportRequest, export_hf
from picochat.run.folder import RunDir
from tests.export_builders import TOKEN, tokenizer_bytes
from tests.fake_hub_write import FakeHub, Repo, fake_hub
from tests.forger import change_config, change_facts, change_json, make_real_run, settle

pytest.importorskip("transformers")
STOCK = {"model.head_width": 32}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return make_real_run(tmp_path_factory.mktemp("run"), more=STOCK)


def export(run: RunDir, out: Path, **more: Any) -> Path:
    words = {"dataset_summary": "Help texts.", "eval_summary": "See below.", "licence": "mit"}
    return export_hf(
        ExportRequest(
            checkpoint=run.place("sft"),
            tokenizer=run.place("tokenizer") / "tokenizer.json",
            out_dir=out,
            model_name="pico-test",
            **{**words, **more},
        )
    ).place


@pytest.fixture(scope="module")
def exported(run: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run, tmp_path_factory.mktemp("export") / "model")


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "model"))


def reseal(folder: Path, **changes: Any) -> None:
    record = read_export_record(folder).model_copy(
        update={"files": digest_files(folder), **changes}
    )
    write_json(folder / EXPORT_RECORD, record)


def found(folder: Path, bundle: Path | None = None) -> list[str]:
    return [problem.what for problem in inspect_export(folder, bundle).problems]


@pytest.mark.parametrize("more", [{}, {"dtype": "bf16"}, {"flavor": "cohere"}])
def test_an_honest_export_holds_alone_and_beside_its_bundle(
    run: RunDir, tmp_path: Path, more: dict[str, str]
) -> None:
    folder = export(run, tmp_path / "model", **more)
    alone, beside = inspect_export(folder), inspect_export(folder, run.root)
    assert not alone.problems and not beside.problems
    assert alone.evidence_digest == beside.evidence_digest is not None
    compared = {check.name: check.compared for check in alone.checks}
    assert compared["weights"] == (0 if more.get("dtype") == "bf16" else 1)
    assert {check.name: check.compared for check in beside.checks}["weights"] == 1
    assert min(count for name, count in compared.items() if name != "weights") > 1


def test_a_bom_with_another_licence_revision_or_score_is_found(folder: Path) -> None:
    bom = folder / BOM
    honest = bom.read_text()
    assert found(folder) == []
    for stated in ('"name": "mit"', '"lowerBound": "0', '"SHA-256"'):
        assert stated in honest, stated
        bom.write_text(honest.replace(stated, stated.replace('"', '" ', 1)))
        reseal(folder)
        assert found(folder) == [f"{BOM}: differs from what the evidence gives"]
    bom.unlink()
    reseal(folder)
    assert found(folder) == [f"{BOM}: differs from what the evidence gives"]


def test_a_score_for_a_leaderboard_that_the_evidence_does_not_give_is_found(
    run: RunDir, tmp_path: Path
) -> None:
    """The benchmark of the run is stated as one of the Hub; of a local file no score may go out."""
    with pytest.raises(WrongUsage, match="whole scores on datasets of the Hub"):
        export(run, tmp_path / "model", eval_tasks={"quiz": "easy"})
    hub = RunDir(Path(shutil.copytree(run.root, tmp_path / "hub")))
    place = {"dataset": "someone/quiz", "split": "test", "revision": "0" * 40}

    def state(value: dict[str, Any]) -> None:
        value["benchmarks"]["quiz"].update(place)

    change_json(hub.place("benchmarks") / "sources.json", state)
    change_facts(hub, "benchmarks", state)
    settle(hub)
    folder = export(hub, tmp_path / "model", eval_tasks={"quiz": "easy"})
    assert found(folder) == []
    result = folder / ".eval_results" / "quiz.yaml"
    honest = result.read_text()
    result.write_text(honest.replace('"value": ', '"value": 1'))
    (result.parent / "hle.yaml").write_text(honest)
    reseal(folder)
    assert found(folder) == [
        f".eval_results/{name}.yaml: differs from what the evidence gives"
        for name in ("hle", "quiz")
    ]


def test_what_changed_after_the_export_is_found(folder: Path) -> None:
    (folder / "extra.txt").write_text("x")
    (folder / "config.json").unlink()
    assert {
        "extra.txt: differs from export_report.json, is missing, or was added",
        "config.json: differs from export_report.json, is missing, or was added",
    } <= set(found(folder))


def test_a_clone_and_the_cache_of_the_hub_hold_too(folder: Path, tmp_path: Path) -> None:
    """Files of git and the announcement beside the model, and a link in the place of each file."""
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    (folder / "preregistration.json").write_text("{}")
    for name in (".git/HEAD", ".cache/huggingface/download/x.lock"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("x")
    assert found(folder) == []
    cache = tmp_path / "snapshot"
    for path in sorted(folder.rglob("*")):
        target = cache / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            target.symlink_to(path)
    assert found(cache) == []


def test_a_card_edited_by_hand_is_found(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card.replace("**warn**", "**approved**"))
    reseal(folder)
    assert found(folder) == ["README.md: differs from what the evidence gives"]


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = folder / "model.safetensors"
    with safe_open(path, framework="pt") as opened:
        notes = opened.metadata()
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    before = digest_file(path)
    save_file(tensors, path, metadata=notes)
    bom = folder / BOM
    bom.write_text(bom.read_text().replace(before, digest_file(path)))
    reseal(folder)


def test_halved_weights_are_found(folder: Path) -> None:
    def halve(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            tensors[name] = tensor / 2

    change_weights(folder, halve)
    assert found(folder) == ["model.safetensors: is not the checkpoint that the evidence states"]


def test_one_gain_and_a_bias_that_the_training_does_not_have_are_found(folder: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.self_attn.q_layernorm.norms.1.weight"] *= 2
        tensors["model.norm.bias"] += 1

    change_weights(folder, change)
    told = found(folder)
    assert len(told) == 2 and all("is not what StableLmForCausalLM needs" in what for what in told)


def test_rounded_weights_of_another_model_are_found_with_the_bundle(
    run: RunDir, tmp_path: Path
) -> None:
    folder = export(run, tmp_path / "model", dtype="bf16")
    change_weights(folder, lambda tensors: tensors["model.embed_tokens.weight"].mul_(2))
    assert found(folder) == []
    assert "only --bundle with weights" in "".join(inspect_export(folder).lines())
    assert found(folder, run.root) == [
        f"model.safetensors: is not the checkpoint of {run.root}, rounded"
    ]
    bundle = tmp_path / "b.tgz"
    make_bundle(run, bundle, None, strict=False, include_weights=False)
    assert found(folder, bundle) == [
        f"model.safetensors: cannot be compared, since {bundle} holds no weights"
    ]


def test_another_tokenizer_is_found(folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(tokenizer_bytes())
    reseal(folder)
    assert "tokenizer.json: is not the file that the manifest of the tokenizer states" in found(
        folder
    )


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("config.json", "rope_theta", 500_000.0),
        ("generation_config.json", "do_sample", True),
        ("tokenizer_config.json", "chat_template", "Say that you are Picochat."),
    ],
)
def test_other_settings_are_found(folder: Path, name: str, key: str, value: object) -> None:
    change_json(folder / name, lambda settings: settings.update({key: value}))
    reseal(folder)
    assert found(folder) == [f"{name}: differs from what the evidence gives"]


def test_a_verdict_in_the_record_that_the_gate_did_not_give_is_found(folder: Path) -> None:
    reseal(folder, verdict="approved")
    assert found(folder) == [
        "export_report.json: states verdict 'approved', the evidence gives 'warn'"
    ]


def test_a_verdict_in_the_evidence_that_the_facts_do_not_give_is_found(
    run: RunDir, tmp_path: Path
) -> None:
    """The publisher changes the verdict in the run, with all digests, and exports."""
    forged = RunDir(Path(shutil.copytree(run.root, tmp_path / "forged")))

    def approve(value: dict[str, Any]) -> None:
        value["status"] = "approved"
        for finding in value["findings"]:
            finding["status"] = "pass"

    change_facts(forged, "gate", approve)
    change_json(forged.place("gate") / "gate.json", approve)
    settle(forged, judge=False)
    folder = export(forged, tmp_path / "model")
    told = found(folder)
    assert told and all(what.startswith("gate") for what in told)


def test_evidence_that_is_left_out_is_found(folder: Path) -> None:
    shutil.rmtree(folder / "evidence" / "eval")
    reseal(folder)
    assert "evidence/eval: is missing" in found(folder)
    shutil.rmtree(folder / "evidence")
    reseal(folder)
    missing = ["evidence/run.json: is missing, so that nothing vouches for weights and card"]
    assert found(folder) == missing
    (folder / "README.md").write_text("# Approved\n")
    reseal(folder, scored=False, verdict=None)
    assert found(folder) == missing


def test_a_changed_report_and_a_file_that_nothing_vouches_for_are_found(folder: Path) -> None:
    (folder / "evidence" / "eval" / "report.md").write_text("# all passed")
    (folder / "evidence" / "award.md").write_text("x")
    reseal(folder)
    assert {
        "evidence/eval/report.md: its bytes differ from the manifest",
        "evidence/award.md: belongs to no artifact, so nothing vouches for it",
    } == set(found(folder))


def test_other_settings_of_the_run_are_found_with_the_bundle(run: RunDir, tmp_path: Path) -> None:
    """run.json enters no artifact's digest, and the card shows it."""
    forged = RunDir(Path(shutil.copytree(run.root, tmp_path / "forged")))
    change_config(forged, lambda config: config["base"].update(weight_decay=0.5))
    folder = export(forged, tmp_path / "model")
    assert found(folder) == []
    assert found(folder, run.root) == [f"run.json: states other settings than in {run.root}"]


def test_a_licence_that_the_export_would_have_refused_is_found(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The publisher's own exporter asks nobody, and the record and the card agree with it."""
    released = RunDir(Path(shutil.copytree(run.root, tmp_path / "released")))
    change_config(released, lambda config: config["gate"].update(profile="first_release"))
    change_facts(
        released, "corpus", lambda facts: facts["sources"][0].update(licence="cc-by-nc-4.0")
    )
    settle(released)
    assert found(export(released, tmp_path / "honest", licence="cc-by-nc-4.0")) == []
    monkeypatch.setattr(hf, "require_licence", lambda licence, facts: None)
    told = found(export(released, tmp_path / "model", licence="mit"))
    assert len(told) == 1
    assert told[0].startswith("export_report.json: the licence mit contradicts a source: ")
    assert told[0].endswith("(cc-by-nc-4.0) asks for attribution, non-commercial use")


def test_a_bundle_of_another_run_is_found(run: RunDir, folder: Path, tmp_path: Path) -> None:
    other = make_real_run(tmp_path, training_seed=43, more=STOCK)
    told = found(folder, other.root)
    assert f"base: is another one than in {other.root}" in told
    assert f"rows: is another one than in {other.root}" not in told


def test_what_is_no_export_is_one_message(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not an export"):
        inspect_export(tmp_path)
    change_json(folder / EXPORT_RECORD, lambda record: record.update(schema_version=1))
    with pytest.raises(BadInput, match="is an export of layout 1"):
        inspect_export(folder)


def test_command_line(
    run: RunDir, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["export", "verify", str(folder), "--bundle", str(run.root)]) == 0
    assert "nothing differs; the verdict it states is warn" in capsys.readouterr().out
    for path in (folder, folder / "evidence"):
        assert run_command(["run", "verify", str(path)]) == 2
        assert f"fix: picochat export verify {folder}" in capsys.readouterr().err
    (folder / "README.md").write_text("# The best model\n")
    reseal(folder)
    assert run_command(["export", "verify", str(folder)]) == 3
    assert "README.md: differs from what the evidence gives" in capsys.readouterr().err
    assert run_command(["export", "verify", str(folder), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["holds"] is False
    assert run_command(["export", "verify", str(tmp_path / "nothing")]) == 4


@pytest.fixture
def hub(exported: Path) -> Iterator[FakeHub]:
    """A Hub that holds the exported model."""
    with fake_hub(TOKEN) as running:
        files = {
            path.relative_to(exported).as_posix(): path.read_bytes()
            for path in exported.rglob("*")
            if path.is_file()
        }
        repo = Repo(private=False)
        repo.commits["1" * 40] = {**repo.files(), **files}
        running.repos["someone/pico-test"] = repo
        yield running


def test_a_model_on_the_hub_is_downloaded_and_checked(hub: FakeHub, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = {
        **kept,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "home"),
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    command = [sys.executable, "-m", "picochat.cli.main", "export", "verify"]

    def verified(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, name],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    done = verified("someone/pico-test")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("someone/pico-test: nothing differs")
    files = hub.repos["someone/pico-test"].commits["1" * 40]
    files["README.md"] = files["README.md"].replace(b"**warn**", b"**approved**")
    done = verified("someone/pico-test")
    assert done.returncode == 3 and "README.md: differs" in done.stderr
    done = verified("someone/nothing")
    assert done.returncode == 5 and "Traceback" not in done.stderr
