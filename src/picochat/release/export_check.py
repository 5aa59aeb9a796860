"""Checks an exported model folder offline: the folder that people download.

Its files are those of its record. Its evidence hangs together: manifests, the chain of inputs and
the verdicts that follow from the facts. The weights, brought back to the names of the training, are
byte for byte the checkpoint that was scored. Configuration, tokenizer, chat template, card and
licence are written again from the evidence and compared.

The copy of the evidence in a folder lacks most files, so scores are not computed again: the bundle
of the run has them, and with it every manifest is compared too. Does not see what release/verify.py
does not see.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from picochat.config import ResolvedConfig, parameter_count
from picochat.core.errors import BadInput, PicochatError, Problem
from picochat.core.network import hub_endpoint, open_client
from picochat.core.publish import Artifact, FileDigest, file_names
from picochat.core.records import digest_file, read_json, read_record
from picochat.export.export_record import (
    EXPORT_RECORD,
    FOLDER_SIGNATURE,
    SCHEMA_VERSION,
    ExportRecord,
    read_export_record,
)
from picochat.export.model_folder import DTYPES, TEMPLATE, read_tokenizer, write_settings
from picochat.export.stock_classes import find_flavor
from picochat.facts import GateFacts, RunFacts, ScoresFacts, facts_of
from picochat.model.centred import CENTRE_TOLERANCE, largest_centre_error
from picochat.model.gpt import GPT
from picochat.model.weights import WEIGHTS, CheckpointInfo, read_info, weights_bytes
from picochat.present.printable import printable_line
from picochat.release.card import Subject
from picochat.release.compare import compared
from picochat.release.evidence import FOLDER, OF_THE_SCORED, REPORTS
from picochat.release.hf import statements
from picochat.release.hub_results import EVAL_RESULTS
from picochat.release.integrity import (
    artifacts_of,
    chain_problems,
    digest_of,
    evidence_digest,
    manifest_problems,
)
from picochat.release.licence import licence_objections
from picochat.release.push import KEPT_ON_HUB, REPO_ID, hub_errors
from picochat.release.stated_files import opened_run
from picochat.release.verify import VerifyCheck, VerifyReport, inspect_bundle, verdict_problems
from picochat.report.summary import provenance_of
from picochat.run.folder import RunDir
from picochat.run.graph import ARTIFACTS, read_facts

LEFT_BY_GIT_AND_HUB = (".git/", ".cache/", *KEPT_ON_HUB)
SETTINGS_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    TEMPLATE,
)


@dataclass(frozen=True)
class Export:
    """A folder that is checked, with what its evidence says.

    `facts`, `info`: None where the folder holds no evidence. `checkpoint`: the artifact that the
    weights are of; None where the evidence has no such artifact.
    """

    folder: Path
    record: ExportRecord
    run: RunDir
    artifacts: Mapping[str, Artifact]
    facts: RunFacts | None
    info: CheckpointInfo | None
    checkpoint: Artifact | None


def inspect_model(name: str, bundle: Path | None = None) -> VerifyReport:
    """`inspect_export` of a folder, or of a model repository OWNER/NAME on the Hub.

    A repository is downloaded into a temporary folder. Raises BadInput for what is neither,
    HubProblem for what the network or the Hub answers.
    """
    if Path(name).exists() or not REPO_ID.fullmatch(name):
        return inspect_export(Path(name), bundle)
    client = open_client()
    with tempfile.TemporaryDirectory(prefix="picochat-export-") as folder:
        with hub_errors(name, client):
            client.library.snapshot_download(name, local_dir=folder, endpoint=hub_endpoint())
        return replace(inspect_export(Path(folder), bundle), path=Path(name))


def inspect_export(folder: Path, bundle: Path | None = None) -> VerifyReport:
    """What was compared and what differs.

    bundle: the evidence bundle or run folder that the export was made from; it is verified too.
    Raises BadInput for what is no export, or one of another version.
    """
    record = _known_record(folder)
    # Links are followed: the Hub's cache has one for each file, and only contents are compared.
    digests = {
        name: digest_of(folder / name)
        for name in sorted(file_names(folder) - {EXPORT_RECORD, FOLDER_SIGNATURE})
        if not name.startswith(LEFT_BY_GIT_AND_HUB)
    }
    checks = [
        VerifyCheck(
            "files",
            len(digests),
            tuple(
                Problem(f"{name}: differs from {EXPORT_RECORD}, is missing, or was added")
                for name in sorted(digests.keys() | record.files.keys())
                if digests.get(name) != record.files.get(name)
            ),
        )
    ]
    run = RunDir(folder / FOLDER)
    artifacts, unreadable = artifacts_of(run)
    checks.append(_check_evidence(record, artifacts, unreadable, digests))
    export, lacking = _with_evidence(folder, record, run, artifacts)
    stated = ("none", None, None)
    if export.facts is None:
        checks.append(VerifyCheck("what it was made from", 0, tuple(lacking)))
    else:
        stated = (
            record.verdict or "none",
            export.facts.config.gate.profile,
            evidence_digest(run, artifacts),
        )
        checks += [
            VerifyCheck("verdicts", 2, tuple(verdict_problems(run, artifacts))),
            _check_record(export),
            _check_settings(export),
            _check_card(export),
        ]
    checks.append(_check_weights(export, bundle))
    if bundle is not None:
        checks.append(_check_against(bundle, artifacts, stated[2]))
    return VerifyReport(folder, *stated, (), (), tuple(checks))


def _known_record(folder: Path) -> ExportRecord:
    """The record. Raises BadInput where there is none, or one of another layout."""
    if (folder / EXPORT_RECORD).is_file():
        value: Any = read_json(folder / EXPORT_RECORD, "export record")
        version = value.get("schema_version") if isinstance(value, dict) else None
        if version != SCHEMA_VERSION:
            raise BadInput(
                f"{folder} is an export of layout {version!r}, this version of picochat reads"
                f" {SCHEMA_VERSION}",
                fix="check it with the version of picochat that evidence/machine.json names",
            )
    return read_export_record(folder)


# ---- the evidence --------------------------------------------------------------------------------


def _check_evidence(
    record: ExportRecord,
    artifacts: Mapping[str, Artifact],
    unreadable: list[Problem],
    digests: Mapping[str, FileDigest],
) -> VerifyCheck:
    """Manifests against the files that are here, and the chain between them."""
    below = f"{FOLDER}/"
    found = {
        name.removeprefix(below): digest
        for name, digest in digests.items()
        if name.startswith(below)
    }
    problems = [*unreadable, *chain_problems(artifacts)]
    for spec in ARTIFACTS:
        if spec.kind not in artifacts:
            if (
                spec.kind in REPORTS
                and artifacts
                and (record.scored or spec.kind not in OF_THE_SCORED)
            ):
                problems.append(Problem(f"{FOLDER}/{spec.folder}: is missing"))
            continue
        absent = (
            {}
            if spec.kind in REPORTS
            else {
                f"{spec.folder}/{name}": None
                for name in (
                    *artifacts[spec.kind].manifest.files,
                    *artifacts[spec.kind].manifest.volatile_files,
                )
            }
        )
        problems += [
            Problem(f"{FOLDER}/{problem.what}")
            for problem in manifest_problems(spec, artifacts[spec.kind], found, absent)
        ]
    folders = tuple(f"{spec.folder}/" for spec in ARTIFACTS if spec.kind in artifacts)
    problems += [
        Problem(f"{FOLDER}/{name}: belongs to no artifact, so nothing vouches for it")
        for name in found
        if name not in ("run.json", "machine.json") and not name.startswith(folders)
    ]
    return VerifyCheck("evidence", len(found), tuple(problems))


def _with_evidence(
    folder: Path, record: ExportRecord, run: RunDir, artifacts: Mapping[str, Artifact]
) -> tuple[Export, list[Problem]]:
    """The export, and why nothing can be computed again from its evidence."""
    bare = Export(folder, record, run, artifacts, None, None, None)
    if not run.config.is_file():
        what = f"{FOLDER}/run.json: is missing, so that nothing vouches for weights and card"
        return bare, [Problem(what)]
    try:
        config = read_record(ResolvedConfig, run.config, "configuration").config
        facts = read_facts(config, artifacts)
        checkpoint = next(
            (one for one in artifacts.values() if one.digest == record.checkpoint_digest), None
        )
        info = read_info(checkpoint.place) if checkpoint else None
    except PicochatError as error:
        return bare, [Problem("; ".join([error.what, *(one.what for one in error.problems)]))]
    if checkpoint is None:
        what = f"{EXPORT_RECORD}: no checkpoint of the evidence has the digest that it states"
        return bare, [Problem(what)]
    return Export(folder, record, run, artifacts, facts, info, checkpoint), []


def _check_against(
    bundle: Path, artifacts: Mapping[str, Artifact], digest: str | None
) -> VerifyCheck:
    """The bundle holds what it claims, and its artifacts are those of the evidence here.

    digest: the evidence digest that the export gives.
    """
    report = inspect_bundle(bundle)
    problems = [Problem(f"{bundle}: {problem.what}") for problem in report.problems]
    with opened_run(bundle, skip=(".safetensors", ".bin", ".npz")) as run:
        stated = {kind: artifact.digest for kind, artifact in artifacts_of(run)[0].items()}
    problems += [
        Problem(f"{kind}: is another one than in {bundle}")
        for kind, artifact in artifacts.items()
        if stated.get(kind) != artifact.digest
    ]
    if not problems and digest != report.evidence_digest and len(stated) == len(artifacts):
        problems.append(Problem(f"run.json: states other settings than in {bundle}"))
    return VerifyCheck("bundle", len(artifacts), tuple(problems))


# ---- what is written again -----------------------------------------------------------------------


def _check_record(export: Export) -> VerifyCheck:
    """What the record states, against the evidence."""
    record, facts, info = export.record, export.facts, export.info
    assert facts is not None and info is not None
    scores = _facts_of(export, "scores", ScoresFacts)
    gate = _facts_of(export, "gate", GateFacts)
    machine = export.run.machine_record()
    expected: dict[str, object] = {
        "commit": machine.commit if machine else None,
        "tokenizer_digest": info.tokenizer_digest,
        "parameters": parameter_count(info.model, info.vocab_size),
        "scored": scores is not None and scores.scored_checkpoint == record.checkpoint_digest,
        "verdict": gate.status if gate and record.scored else None,
    }
    problems = [
        Problem(
            f"{EXPORT_RECORD}: states {name} {getattr(record, name)!r}, the evidence gives"
            f" {value!r}"
        )
        for name, value in expected.items()
        if getattr(record, name) != value
    ]
    return VerifyCheck("record", len(expected), tuple(problems))


def _facts_of(export: Export, kind: str, facts: type[Any]) -> Any:
    return facts_of(export.artifacts[kind], facts) if kind in export.artifacts else None


def _check_settings(export: Export) -> VerifyCheck:
    """Configuration, tokenizer and chat template, written again from the evidence."""
    return VerifyCheck(
        "settings and tokenizer",
        len(SETTINGS_FILES),
        tuple(compared("settings", lambda: _settings_problems(export))),
    )


def _settings_problems(export: Export) -> list[Problem]:
    folder, info, tokenizer = export.folder, export.info, export.artifacts.get("tokenizer")
    assert info is not None
    if tokenizer is None:
        return [Problem(f"{FOLDER}: has no manifest of the tokenizer")]
    problems = [
        Problem(f"{name}: is not the file that the manifest of the tokenizer states")
        for name in ("tokenizer.json", TEMPLATE)
        if not (folder / name).is_file()
        or digest_file(folder / name) != tokenizer.manifest.files[name].sha256
    ]
    config: Any = read_json(folder / "config.json", "config.json")
    with tempfile.TemporaryDirectory() as again:
        write_settings(
            Path(again),
            info,
            read_tokenizer(folder / "tokenizer.json"),
            find_flavor(export.record.flavor),
            export.record.dtype,
            str(config["transformers_version"]),
        )
        problems += [
            Problem(f"{name}: differs from what the evidence gives")
            for name in SETTINGS_FILES
            if not (folder / name).is_file()
            or (folder / name).read_bytes() != (Path(again) / name).read_bytes()
        ]
    return problems


def _check_card(export: Export) -> VerifyCheck:
    """Card, licence and BOM, rendered again from the evidence and the publisher's own words.

    The licence must be one that the export would have taken.
    """
    return VerifyCheck(
        "card, licence and BOM", 3, tuple(compared("card", lambda: _card_problems(export)))
    )


def _card_problems(export: Export) -> list[Problem]:
    record, facts, info = export.record, export.facts, export.info
    assert facts is not None and info is not None
    tokenizer = read_tokenizer(export.folder / "tokenizer.json")
    machine = export.run.machine_record()
    subject = Subject(
        model_name=record.model_name,
        repo_id=record.repo_id,
        licence=record.licence,
        dataset_summary=record.dataset_summary,
        eval_summary=record.eval_summary,
        stage=info.stage,
        step=info.step,
        context=info.model.context,
        vocab_size=info.vocab_size,
        architecture=find_flavor(record.flavor).architecture,
        dtype=record.dtype,
        parameters=record.parameters,
        stored_numbers=record.stored_numbers,
        checkpoint_digest=record.checkpoint_digest,
        tokenizer_digest=record.tokenizer_digest,
        end_token=tokenizer.spelling[tokenizer.ids.end],
        scored=record.scored,
        parity=record.parity,
        commit=record.commit,
        versions=machine.versions if machine else {},
        provenance=provenance_of(facts),
        eval_tasks=record.eval_tasks,
    )
    expected = statements(export.folder, subject, facts)
    # The Hub shows every file there as a score of the model.
    names = {name for name in record.files if name.startswith(EVAL_RESULTS)} | expected.keys()
    problems = [
        Problem(f"{EXPORT_RECORD}: the licence {record.licence} contradicts a source: {found.what}")
        for found in licence_objections(record.licence, facts)
    ]
    return problems + [
        Problem(f"{name}: differs from what the evidence gives")
        for name in sorted(names)
        if not (export.folder / name).is_file()
        or (export.folder / name).read_text("utf-8", "replace") != expected.get(name)
    ]


# ---- the weights ---------------------------------------------------------------------------------


def _check_weights(export: Export, bundle: Path | None) -> VerifyCheck:
    """The stored tensors against the checkpoint that the manifest states."""
    if export.checkpoint is None:
        return VerifyCheck("weights", 0, (), "not compared: no evidence states what they should be")
    problems = compared("weights", lambda: _weights_problems(export, bundle))
    note = "byte for byte those of the checkpoint"
    if export.record.dtype != "float32":
        note = (
            f"rounded to {export.record.dtype}: those of the checkpoint, rounded"
            if bundle
            else f"not compared: rounded to {export.record.dtype}, which only --bundle with weights"
            " shows to be those of the checkpoint"
        )
    done = export.record.dtype == "float32" or bundle is not None
    return VerifyCheck("weights", int(done), tuple(problems), None if problems else note)


def _weights_problems(export: Export, bundle: Path | None) -> list[Problem]:
    info, checkpoint, record = export.info, export.checkpoint, export.record
    assert info is not None and checkpoint is not None
    path = export.folder / WEIGHTS
    flavor = find_flavor(record.flavor)
    try:
        stored = load_file(path)
        with safe_open(path, framework="pt") as opened:
            notes: Mapping[str, str] = opened.metadata() or {}
    except SafetensorError as error:
        return [Problem(f"{WEIGHTS}: cannot be read ({printable_line(str(error))})")]
    problems: list[Problem] = []
    for key, value in (
        ("checkpoint", record.checkpoint_digest),
        ("tokenizer", record.tokenizer_digest),
    ):
        if notes.get(f"picochat.{key}") != value:
            problems.append(Problem(f"{WEIGHTS}: says that it is of another {key}"))
    if sum(tensor.numel() for tensor in stored.values()) != record.stored_numbers:
        problems.append(Problem(f"{WEIGHTS}: holds another count of numbers than is stated"))
    if any(tensor.dtype != DTYPES[record.dtype] for tensor in stored.values()):
        problems.append(Problem(f"{WEIGHTS}: is not stored in {record.dtype}"))
    ours = flavor.originals(stored, info.model)
    again = flavor.tensors(ours, info.model)
    odd = sorted(
        name
        for name in again.keys() | stored.keys()
        if name not in again or name not in stored or not torch.equal(again[name], stored[name])
    )
    problems += [
        Problem(f"{WEIGHTS}: {name} is not what {flavor.architecture} needs beside the others")
        for name in odd[:5]
    ]
    stated = checkpoint.manifest.files[WEIGHTS].sha256
    if record.dtype == "float32":
        if hashlib.sha256(weights_bytes(ours)).hexdigest() != stated:
            what = f"{WEIGHTS}: is not the checkpoint that the evidence states"
            return [*problems, Problem(what)]
        model = GPT(info.model, info.vocab_size)
        model.load_state_dict(ours)
        if info.model.centred and not largest_centre_error(model) <= CENTRE_TOLERANCE:
            what = f"{WEIGHTS}: is not mean-centred, as {flavor.architecture} needs"
            problems.append(Problem(what))
    elif bundle is not None:
        problems += _rounded_problems(bundle, checkpoint.kind, stated, ours, record.dtype)
    return problems


def _rounded_problems(
    bundle: Path, kind: str, stated: str, ours: Mapping[str, torch.Tensor], dtype: str
) -> list[Problem]:
    """Rounded weights against those of the bundle, rounded."""
    with opened_run(bundle, skip=(".bin", ".npz")) as run:
        path = run.place(kind) / WEIGHTS
        if not path.is_file():
            return [Problem(f"{WEIGHTS}: cannot be compared, since {bundle} holds no weights")]
        if digest_file(path) != stated:
            return [Problem(f"{WEIGHTS}: {bundle} holds another checkpoint")]
        exact = load_file(path)
    rounded = {name: tensor.to(DTYPES[dtype]) for name, tensor in exact.items()}
    same = rounded.keys() == ours.keys() and all(
        torch.equal(tensor, ours[name]) for name, tensor in rounded.items()
    )
    return [] if same else [Problem(f"{WEIGHTS}: is not the checkpoint of {bundle}, rounded")]
