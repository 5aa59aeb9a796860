"""The export: what it writes, what it refuses, and that nothing half-made or different ever
appears.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from picochat.cli.main import run_command
from picochat.config import parameter_count
from picochat.core.errors import BadInput, CheckFailed, PicochatError, WrongUsage
from picochat.core.publish import changed_files, hidden_folder, open_artifact, publish_folder
from picochat.export.export_record import EXPORT_RECORD, changed_since_export, read_export_record
from picochat.export.stock_classes import (
    find_flavor,
    interleave,
    stablelm_settings,
    stablelm_tensors,
)
from picochat.facts import CorpusFacts
from picochat.model.weights import load_model
from picochat.release import hf
from picochat.release.bom import BOM
from picochat.release.hf import ExportReport, ExportRequest, export_hf, open_source, same_export
from picochat.release.push import PushTarget
from picochat.run.folder import RunDir
from tests.export_builders import (
    MODEL,
    TOKEN,
    VOCAB_SIZE,
    RunParts,
    corpus_facts,
    make_checkpoint,
    make_model,
    make_run,
    make_tokenizer,
    request_of,
    tokenizer_bytes,
)
from tests.forger import change_config

FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "README.md",
    "LICENSE",
    BOM,
    EXPORT_RECORD,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return make_run(tmp_path_factory.mktemp("hf") / "run")


@pytest.fixture(scope="module")
def report(run: RunDir, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    """One real export, shared: reading it back takes seconds."""
    pytest.importorskip("transformers")
    return export_hf(request_of(run, tmp_path_factory.mktemp("out") / "model"))


def read(report: ExportReport, name: str) -> Any:
    return json.loads((report.place / name).read_text(encoding="utf-8"))


def nothing_stands(request: ExportRequest) -> bool:
    """No folder, and no hidden draft of one."""
    return not request.out_dir.exists() and not list(request.out_dir.parent.glob("*.draft"))


def refusal(request: ExportRequest, kind: type[PicochatError]) -> PicochatError:
    with pytest.raises(kind) as caught:
        export_hf(request)
    assert nothing_stands(request)
    return caught.value


# ---- what is written -----------------------------------------------------------------------------


def test_the_export_computes_what_the_model_computes(report: ExportReport) -> None:
    parity = report.record.parity
    assert parity.model_class == "StableLmForCausalLM"
    assert parity.largest_relative_difference < 1e-5
    assert parity.greedy_tokens == 32
    assert parity.greedy_tokens_equal
    assert parity.texts_equal
    assert parity.chat_equal
    assert not parity.missing_keys
    assert not parity.unexpected_keys
    assert parity.tokens_compared == 2 * MODEL.context


def test_the_folder_holds_every_file_and_the_record_names_each(report: ExportReport) -> None:
    found = {path.name for path in report.place.iterdir()} - {"evidence"}
    assert found == FILES
    assert not changed_since_export(report.place, read_export_record(report.place))


def test_float32_weights_are_the_checkpoint_bit_for_bit(report: ExportReport, run: RunDir) -> None:
    model, _ = load_model(run.place("sft"))
    stored = load_file(report.place / "model.safetensors")
    ours = model.state_dict()
    assert torch.equal(stored["model.embed_tokens.weight"], ours["embedding.weight"])
    assert torch.equal(
        stored["model.layers.1.self_attn.q_proj.weight"], ours["blocks.1.attention.query.weight"]
    )
    assert torch.equal(
        stored["model.layers.1.self_attn.k_layernorm.norms.0.weight"],
        ours["blocks.1.attention.key_norm.weight"],
    )
    assert "lm_head.weight" not in stored


def test_the_weights_file_says_what_it_is_and_always_in_the_same_order(
    report: ExportReport, run: RunDir
) -> None:
    path = report.place / "model.safetensors"
    with safe_open(path, "pt") as stored:
        notes = stored.metadata()
    assert notes["format"] == "pt"
    assert notes["picochat.checkpoint"] == run.artifact("sft").digest
    assert notes["picochat.parameters"] == str(parameter_count(MODEL, VOCAB_SIZE))
    size = int.from_bytes(path.read_bytes()[:8], "little")
    keys = list(json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"])
    assert keys == sorted(keys)


def test_stored_numbers_are_counted_from_the_file(report: ExportReport) -> None:
    stored = load_file(report.place / "model.safetensors")
    assert report.record.stored_numbers == sum(tensor.numel() for tensor in stored.values())
    biases = (MODEL.layers + 1) * MODEL.width
    copies = MODEL.layers * (MODEL.heads + MODEL.kv_heads - 2) * MODEL.head_width
    assert report.record.stored_numbers == report.record.parameters + biases + copies


def test_the_stated_counts_of_the_100m_scale() -> None:
    model = find_model("h100-100m")
    shapes = {name: torch.empty(shape, device="meta") for name, shape in shapes_of(model).items()}
    theirs = stablelm_tensors(shapes, model)
    assert len(theirs) == 403
    assert sum(tensor.numel() for tensor in theirs.values()) == 106_997_248


def find_model(scale: str) -> Any:
    from picochat.scales import find_scale

    return find_scale(scale).config.model


def shapes_of(model: Any) -> dict[str, tuple[int, ...]]:
    from picochat.model.gpt import GPT

    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in GPT(model, 8192).state_dict().items()}


def test_config_has_the_keys_of_both_major_versions(report: ExportReport) -> None:
    config = read(report, "config.json")
    assert config["dtype"] == config["torch_dtype"] == "float32"
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10_000.0
    assert (
        config["partial_rotary_factor"] == config["rope_parameters"]["partial_rotary_factor"] == 1.0
    )
    assert config["layer_norm_eps"] == MODEL.norm_eps
    assert config["tie_word_embeddings"] is True
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (0, 4, 5)


def test_tokenizer_config_loads_in_both_major_versions(report: ExportReport) -> None:
    config = read(report, "tokenizer_config.json")
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["model_input_names"] == ["input_ids", "attention_mask"]
    assert config["chat_template"] == (report.place / "chat_template.jinja").read_text()
    assert config["eos_token"] == "<|end|>"
    assert read(report, "special_tokens_map.json")["pad_token"] == "<|pad|>"


def test_generation_ends_where_a_turn_ends_and_is_greedy_as_scored(report: ExportReport) -> None:
    config = read(report, "generation_config.json")
    assert config["eos_token_id"] == 4
    assert config["do_sample"] is False
    assert "_from_model_config" not in config


def test_evidence_is_attached_whole_and_can_be_checked(report: ExportReport, run: RunDir) -> None:
    for kind, folder in (
        ("scores", "eval"),
        ("gate", "gate"),
        ("honesty", "honesty"),
        ("preflight", "preflight"),
        ("summary", "summary"),
    ):
        artifact = open_artifact(report.place / "evidence" / folder, kind)
        assert not changed_files(artifact.place, artifact.manifest)
        assert artifact.digest == run.artifact(kind).digest
    assert (report.place / "evidence" / "sft" / "checkpoint" / "manifest.json").exists()
    assert (report.place / "evidence" / "run.json").exists()


def test_no_file_holds_a_path_of_this_machine(report: ExportReport, run: RunDir) -> None:
    for path in report.place.rglob("*"):
        if path.is_file():
            assert str(run.root).encode() not in path.read_bytes(), path.name


def test_the_same_export_twice_gives_the_same_bytes_and_leaves_the_first(
    report: ExportReport, run: RunDir
) -> None:
    before = (report.place / EXPORT_RECORD).stat().st_ino
    again = export_hf(request_of(run, report.place))
    assert again.kept
    assert again.set_aside is None
    assert again.record == report.record
    assert (report.place / EXPORT_RECORD).stat().st_ino == before
    assert {path.name for path in report.place.parent.iterdir()} == {"model", ".model.lock"}


def test_an_earlier_export_that_differs_is_set_aside(report: ExportReport, tmp_path: Path) -> None:
    place = Path(shutil.copytree(report.place, tmp_path / "model"))
    (place / "README.md").write_text("edited by hand")
    assert not same_export(place, report.record)
    with hidden_folder(place) as folder:
        shutil.copytree(report.place, folder, dirs_exist_ok=True)
        older = publish_folder(folder, place)
    assert older == tmp_path / "model.superseded-1"
    assert (older / "README.md").read_text() == "edited by hand"
    assert same_export(place, report.record)


def test_cohere_computes_the_same(run: RunDir, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    report = export_hf(request_of(run, tmp_path / "model", flavor="cohere", dtype="bf16"))
    assert report.record.parity.model_class == "CohereForCausalLM"
    assert report.record.parity.largest_relative_difference <= 2e-3
    assert (
        load_file(report.place / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16
    )


def test_interleaving_pairs_the_halves_of_each_head() -> None:
    rows = torch.arange(8)
    assert interleave(rows, 4).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


# ---- what is refused -----------------------------------------------------------------------------


def other_eps(model: Any) -> dict[str, object]:
    return {**stablelm_settings(model), "layer_norm_eps": 1e-5}


def test_an_export_that_computes_something_else_leaves_no_folder(
    run: RunDir, tmp_path: Path
) -> None:
    """The smallest known mistake, another eps: every weight loads and nearly every best token
    agrees.
    """
    pytest.importorskip("transformers")
    request = request_of(run, tmp_path / "model")
    wrong = replace(find_flavor("stablelm"), settings=other_eps)
    source = open_source(request)
    with torch.no_grad():  # small vectors, so that eps weighs as much as it does at the real width
        source.model.embedding.weight.mul_(0.05)
    with pytest.raises(CheckFailed) as caught, hidden_folder(request.out_dir) as folder:
        hf.write_export(folder, request, source, wrong)
    assert "logits differ by" in caught.value.problems[0].what
    assert nothing_stands(request)


def test_uncentred_weights_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    make_checkpoint(run.place("sft"), make_model(centred=False))
    problem = refusal(request_of(run, tmp_path / "model", allow_unscored=True), BadInput)
    assert "not centred: largest |mean|" in problem.what


def test_another_tokenizer_and_a_changed_file_are_refused_together(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    make_checkpoint(run.place("sft"), tokenizer_digest="0" * 64)
    (run.place("sft") / "model.json").write_bytes(
        (run.place("sft") / "model.json").read_bytes() + b"\n"
    )
    problem = refusal(request_of(run, tmp_path / "model"), BadInput)
    assert ["differs from the checkpoint's manifest" in item.what for item in problem.problems] == [
        True,
        False,
    ]
    assert "is not the one of the training" in problem.problems[1].what


def test_a_checkpoint_that_was_not_scored_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", RunParts(scored_checkpoint="e" * 64))
    problem = refusal(request_of(run, tmp_path / "model"), CheckFailed)
    assert "e" * 12 in problem.what
    assert "--allow-unscored" in (problem.fix or "")


def make_release(root: Path, corpus: CorpusFacts) -> RunDir:
    """A run of a release profile. The source `wiki` of its corpus is under CC BY-SA 4.0."""
    run = make_run(root, RunParts(corpus=corpus))
    change_config(run, lambda config: config["gate"].update(profile="first_release"))
    return run


def test_a_release_under_a_licence_that_a_source_contradicts_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    request = request_of(make_release(tmp_path / "run", corpus_facts("odc-by")), tmp_path / "model")
    options = {
        "--checkpoint": request.checkpoint,
        "--tokenizer": request.tokenizer,
        "--out-dir": request.out_dir,
    }
    command = ["export", "hf", *(str(word) for pair in options.items() for word in pair)]
    assert run_command([*command, "--license", "mit"]) == 3
    assert nothing_stands(request)
    told = capsys.readouterr().err
    assert "the licence mit contradicts those of what the model was trained on" in told
    assert "    wiki (cc-by-sa-4.0) asks for attribution, share alike\n" in told
    assert "web (odc-by)" not in told
    fix = next(line for line in told.splitlines() if line.startswith("fix: ")).split()
    assert run_command([*command, *(word.strip(";") for word in fix[1:3])]) == 0
    card = (request.out_dir / "README.md").read_text()
    assert 'license: "cc-by-sa-4.0"' in card and "contradicts" not in card


def test_a_release_that_no_licence_fits_is_refused_until_the_sources_are_left_out(
    tmp_path: Path,
) -> None:
    run = make_release(tmp_path / "run", corpus_facts("cc-by-nc-4.0"))
    for licence in ("mit", "cc-by-nc-4.0", "cc-by-sa-4.0", "unknown"):
        problem = refusal(request_of(run, tmp_path / "model", licence=licence), CheckFailed)
        assert "asks for attribution" in problem.problems[0].what
        assert problem.fix and problem.fix.startswith("leave these sources out")
    rest = [source for source in corpus_facts().sources if source.label != "web"]
    without = corpus_facts().model_copy(update={"sources": rest})
    facts = open_source(
        request_of(make_release(tmp_path / "other", without), tmp_path / "model")
    ).facts
    hf.require_licence("cc-by-sa-4.0", facts)
    with pytest.raises(CheckFailed):
        hf.require_licence("mit", facts)


def test_a_research_run_is_exported_and_its_card_says_that_the_licence_contradicts(
    report: ExportReport,
) -> None:
    card = (report.place / "README.md").read_text()
    assert "> The licence of this model is mit, which **contradicts** those of its" in card


def test_heads_that_do_not_fill_the_width_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    make_checkpoint(run.place("sft"), make_model(MODEL.model_copy(update={"head_width": 8})))
    problem = refusal(request_of(run, tmp_path / "model", allow_unscored=True), BadInput)
    assert "3 heads of 8 do not make the width 48" in problem.what


def test_a_folder_that_is_no_export_is_left_alone(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("years of work")
    with pytest.raises(WrongUsage, match="not an earlier export"):
        export_hf(request_of(run, tmp_path / "model"))
    assert (tmp_path / "model" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"flavor": "stablelmm"}, WrongUsage, "did you mean stablelm"),
        ({"dtype": "fp8"}, WrongUsage, "cannot be stored"),
        ({"push": PushTarget("no-owner")}, WrongUsage, "cannot be pushed"),
        ({"checkpoint": Path("/nowhere")}, BadInput, "is not a checkpoint"),
        ({"tokenizer": Path("/nowhere/tokenizer.json")}, BadInput, "does not exist"),
    ],
)
def test_what_cannot_be_used_is_said_before_any_work(
    run: RunDir, tmp_path: Path, change: dict[str, Any], kind: type[PicochatError], words: str
) -> None:
    assert words in refusal(request_of(run, tmp_path / "model", **change), kind).what


def test_a_push_without_the_whole_evidence_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    run = make_run(tmp_path / "run", RunParts(leave_out=("gate", "summary")))
    problem = refusal(request_of(run, tmp_path / "model", push=PushTarget("me/model")), BadInput)
    assert [item.what for item in problem.problems] == [
        "the run has no gate",
        "the run has no summary",
    ]


def test_a_tokenizer_without_its_template_is_refused(run: RunDir, tmp_path: Path) -> None:
    alone = tmp_path / "alone" / "tokenizer.json"
    alone.parent.mkdir()
    alone.write_bytes(tokenizer_bytes())
    problem = refusal(request_of(run, tmp_path / "model", tokenizer=alone), BadInput)
    assert "chat_template.jinja" in problem.what


def test_a_checkpoint_outside_a_run_is_a_source_without_evidence(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "somewhere" / "checkpoint")
    make_tokenizer(tmp_path / "tokenizer")
    request = ExportRequest(
        checkpoint=tmp_path / "somewhere" / "checkpoint",
        tokenizer=tmp_path / "tokenizer" / "tokenizer.json",
        out_dir=tmp_path / "model",
        model_name="alone",
    )
    source = open_source(request)
    assert source.facts is None
    assert not source.scored


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with hidden_folder(tmp_path / "model") as folder:
        (folder / "x").write_text("x")
        assert publish_folder(folder, tmp_path / "model") is None
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_crash_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def crash(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("power cut")

    attempt: Callable[[Path], None] = crash
    with (
        pytest.raises(RuntimeError, match="power cut"),
        hidden_folder(tmp_path / "model") as folder,
    ):
        attempt(folder)
    assert list(tmp_path.iterdir()) == []


def test_flavors_are_found_by_name() -> None:
    assert find_flavor("cohere").architecture == "CohereForCausalLM"
    assert replace(find_flavor("stablelm"), name="x").name == "x"
