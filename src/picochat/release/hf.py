"""Exports a checkpoint as a folder that any tool loads, with its card and its evidence.

`export_hf` refuses what must not go out (damaged, uncentred, made with another tokenizer, not the
one that was scored), writes the folder under a hidden name, loads it with transformers in another
process, and compares the logits. Only then the folder appears, by one rename. An export with the
same content is left as it stands; another one is set aside, never overwritten. The same checkpoint,
flags and versions give the same bytes. Needs no network; pushing is release/push.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from picochat.config import ResolvedConfig, parameter_count
from picochat.core.errors import BadInput, CheckFailed, Problem, WrongUsage, did_you_mean
from picochat.core.progress import say
from picochat.core.publish import (
    Artifact,
    changed_files,
    exclusive,
    file_names,
    hidden_folder,
    open_artifact,
    publish_folder,
)
from picochat.core.records import digest_file, read_record, write_atomic, write_json
from picochat.data.licences import compare_licences
from picochat.export.export_record import (
    EXPORT_RECORD,
    SCHEMA_VERSION,
    ExportRecord,
    ParityReport,
    changed_since_export,
    digest_files,
    misses,
    read_export_record,
)
from picochat.export.model_folder import (
    DTYPES,
    TokenizerFiles,
    read_tokenizer,
    round_weights_,
    write_model_folder,
)
from picochat.export.parity import compare, expected_of, require_reader
from picochat.export.stock_classes import Flavor, find_flavor, require_stock_shape
from picochat.facts import RunFacts
from picochat.model.centred import CENTRE_TOLERANCE, largest_centre_error
from picochat.model.gpt import GPT
from picochat.model.weights import WEIGHTS, CheckpointInfo, load_model, read_info
from picochat.present.values import short_digest
from picochat.release.bom import BOM, render_bom
from picochat.release.card import Subject, render_card
from picochat.release.evidence import attach_evidence, missing_evidence
from picochat.release.hub_results import eval_results
from picochat.release.licence import licence_objections, licence_text
from picochat.release.push import PushReport, PushTarget, push_folder, require_target
from picochat.report.summary import provenance_of
from picochat.run.folder import RunDir, run_of
from picochat.run.graph import read_facts


@dataclass(frozen=True)
class ExportRequest:
    """What the user asked for.

    `eval_tasks`: see hub_results.py. `dtype`: of the stored weights. `push`: where to publish the
    folder, None to keep it here.
    """

    checkpoint: Path
    tokenizer: Path
    out_dir: Path
    model_name: str
    licence: str = "unknown"
    dataset_summary: str = ""
    eval_summary: str = ""
    eval_tasks: Mapping[str, str] = field(default_factory=dict[str, str])
    dtype: str = "float32"
    flavor: str = "stablelm"
    allow_unscored: bool = False
    push: PushTarget | None = None


@dataclass(frozen=True)
class ExportReport:
    """What stands now.

    `kept`: an export with the same content was there. `set_aside`: where an older one went.
    """

    place: Path
    record: ExportRecord
    kept: bool
    set_aside: Path | None
    pushed: PushReport | None

    def lines(self) -> list[str]:
        parity = self.record.parity
        size_mb = sum(file.bytes for file in self.record.files.values()) / 1e6
        lines = [
            (
                f"{'already there' if self.kept else 'exported'}: {self.place}"
                f" ({len(self.record.files)} files, {size_mb:.1f} MB)"
            ),
            (
                f"read back by {parity.reader}: logits within"
                f" {parity.largest_relative_difference:.2g} of the largest (at most"
                f" {parity.bound:g}), {parity.greedy_tokens} greedy tokens"
                f" {'equal' if parity.greedy_tokens_equal else 'tied'}"
            ),
            f"verdict on these weights: {self.record.verdict or 'none'}",
        ]
        if self.set_aside:
            lines.append(f"the earlier export is now {self.set_aside}")
        return lines + (self.pushed.lines() if self.pushed else [])


@dataclass(frozen=True)
class Source:
    """A checkpoint that may be exported, with what belongs to it.

    `run`: the run folder that it lies in, if any; `facts`, `commit` and `versions` are of that run.
    """

    artifact: Artifact
    model: GPT
    info: CheckpointInfo
    tokenizer: TokenizerFiles
    run: RunDir | None
    facts: RunFacts | None
    commit: str | None
    versions: Mapping[str, str]
    scored: bool


def export_hf(request: ExportRequest) -> ExportReport:
    """The exported folder at `request.out_dir`, pushed where asked.

    Raises WrongUsage (flags, folder in use), BadInput (a checkpoint or tokenizer that cannot be
    used), CheckFailed (not the scored checkpoint, a licence that a source's contradicts, or the
    folder computes something else), HubProblem (push). On any of them no new folder appears.
    """
    flavor = find_flavor(request.flavor)
    require_dtype(request.dtype)
    token = require_target(request.push) if request.push else None
    require_reader()
    require_free(request.out_dir)
    require_outside(request.out_dir, run_of(request.checkpoint))
    source = open_source(request)
    require_licence(request.licence, source.facts)
    eval_results(request.eval_tasks, None, source.facts, source.scored)
    if request.push:
        require_evidence(source)
    lock = request.out_dir.with_name(f".{request.out_dir.name}.lock")
    with (
        exclusive(lock, f"export folder {request.out_dir}"),
        hidden_folder(request.out_dir) as folder,
    ):
        record = write_export(folder, request, source, flavor)
        kept = same_export(request.out_dir, record)
        older = None if kept else publish_folder(folder, request.out_dir)
    pushed = None
    if request.push and token:
        message = request.push.message or f"Publish {request.model_name}"
        pushed = push_folder(request.out_dir, request.push, token, message)
    return ExportReport(request.out_dir, record, kept, older, pushed)


# ---- what may be exported ------------------------------------------------------------------------


def require_dtype(dtype: str) -> None:
    if dtype not in DTYPES:
        raise WrongUsage(
            f"--dtype {dtype!r} cannot be stored{did_you_mean(dtype, DTYPES)}",
            fix=f"one of: {', '.join(DTYPES)}",
        )


def open_source(request: ExportRequest) -> Source:
    """The checkpoint to export, when it has passed every check.

    Raises BadInput or CheckFailed with every objection.
    """
    info = read_info(request.checkpoint)
    artifact = open_artifact(
        request.checkpoint, info.stage, made_by="name a folder such as RUN/sft/checkpoint"
    )
    require_stock_shape(info.model)
    tokenizer = read_tokenizer(request.tokenizer)
    changed = changed_files(artifact.place, artifact.manifest)
    problems = [
        Problem(f"{name} differs from the checkpoint's manifest", "restore it, or train again")
        for name in changed
    ]
    if tokenizer.digest != info.tokenizer_digest:
        what = (
            f"tokenizer {request.tokenizer} ({short_digest(tokenizer.digest)}) is not the one of"
            f" the training ({short_digest(info.tokenizer_digest)})"
        )
        problems.append(
            Problem(what, "name the tokenizer.json of the run that made the checkpoint")
        )
    if problems:
        raise BadInput(f"checkpoint {request.checkpoint} cannot be exported", problems=problems)
    model, _ = load_model(request.checkpoint)
    require_centred(model, request.checkpoint)
    run = run_of(request.checkpoint)
    facts = commit = None
    versions: Mapping[str, str] = {}
    if run is not None:
        config = read_record(ResolvedConfig, run.config, "resolved configuration").config
        facts = read_facts(config, run.artifacts())
        if (machine := run.machine_record()) is not None:
            commit, versions = machine.commit, machine.versions
    scored = bool(facts and facts.scores and facts.scores.scored_checkpoint == artifact.digest)
    if facts is not None and not scored and not request.allow_unscored:
        raise not_scored(request.checkpoint, artifact, facts)
    return Source(artifact, model.eval(), info, tokenizer, run, facts, commit, versions, scored)


def require_centred(model: GPT, checkpoint: Path) -> None:
    """Raises BadInput where a norm would see a mean other than zero.

    No stock class computes what such weights compute.
    """
    error = largest_centre_error(model)
    if not error <= CENTRE_TOLERANCE:
        raise BadInput(
            f"the weights of {checkpoint} are not centred: largest |mean| {error:.1e}, at most"
            f" {CENTRE_TOLERANCE:g} is allowed",
            fix="train again with --set model.centred=true",
        )


def not_scored(checkpoint: Path, artifact: Artifact, facts: RunFacts) -> CheckFailed:
    scored = short_digest(facts.scores.scored_checkpoint) if facts.scores else "none"
    return CheckFailed(
        f"{checkpoint} ({short_digest(artifact.digest)}) is not the checkpoint that the run's"
        f" scores speak of ({scored})",
        fix=(
            "export RUN/sft/checkpoint of a finished run, or pass --allow-unscored: the card then"
            " shows no score"
        ),
    )


def require_licence(licence: str, facts: RunFacts | None) -> None:
    """Raises CheckFailed where a release would have a licence that those of its text contradict."""
    if facts and (problems := licence_objections(licence, facts)):
        found = compare_licences(facts.licences(), licence)
        raise CheckFailed(
            f"the licence {licence} contradicts those of what the model was trained on",
            problems=problems,
            fix=(
                f"--license {found.fitting[0]}; {found.choice}"
                if found.fitting
                else "leave these sources out of the pack and train again: no licence fits"
            ),
        )


def require_evidence(source: Source) -> None:
    """Raises BadInput, before any work, where evidence that a push needs is missing.

    Otherwise the push would be refused only at its end.
    """
    missing = missing_evidence(source.run)
    if missing or not source.scored:
        again = source.run.again if source.run else "export RUN/sft/checkpoint of a finished run"
        problems = [Problem(f"the run has no {kind}", fix=again) for kind in missing]
        if not source.scored:
            problems.append(
                Problem("these weights were not scored", "export the run's sft/checkpoint")
            )
        raise BadInput("only a model with its whole evidence is pushed", problems=problems)


# ---- what is written -----------------------------------------------------------------------------


def write_export(
    folder: Path, request: ExportRequest, source: Source, flavor: Flavor
) -> ExportRecord:
    """Fill `folder` and compare it with the model.

    Raises CheckFailed, naming the figure, where it computes something else.
    """
    say(f"writing {request.model_name} as {flavor.architecture} in {request.dtype} ...")
    round_weights_(source.model, request.dtype)
    stored_numbers = write_model_folder(
        folder,
        source.model,
        source.info,
        source.tokenizer,
        flavor,
        request.dtype,
        weight_notes(source),
    )
    say("reading it back with transformers ...")
    expected = expected_of(source.info, source.tokenizer, held_out_shards(source.run))
    parity = compare(source.model, folder, request.dtype, expected)
    if problems := misses(parity, expected.end_id):
        raise CheckFailed(
            "the export does not compute what the model computes, so nothing was published",
            problems=problems,
        )
    if source.run:
        attach_evidence(source.run, folder, source.scored)
    subject = card_subject(request, source, flavor, stored_numbers, parity)
    for name, text in statements(folder, subject, source.facts).items():
        write_atomic(folder / name, text.encode())
    record = export_record(folder, request, source, stored_numbers, parity)
    write_json(folder / EXPORT_RECORD, record)
    return record


def statements(folder: Path, subject: Subject, facts: RunFacts | None) -> dict[str, str]:
    """Name -> text of what the folder says of its weights: card, licence, BOM, and scores for the
    Hub where they were asked for.
    """
    return {
        "README.md": render_card(subject, facts),
        "LICENSE": licence_text(subject.licence, subject.model_name),
        BOM: render_bom(subject, facts, digest_file(folder / WEIGHTS)),
        **eval_results(subject.eval_tasks, subject.repo_id, facts, subject.scored),
    }


def weight_notes(source: Source) -> dict[str, str]:
    """What the weights file says of itself. No path and no clock: equal work gives equal bytes."""
    notes = {
        "checkpoint": source.artifact.digest,
        "tokenizer": source.tokenizer.digest,
        "parameters": str(parameter_count(source.info.model, source.info.vocab_size)),
    }
    if source.commit:
        notes["commit"] = source.commit
    return notes


def held_out_shards(run: RunDir | None) -> Artifact | None:
    """The run's token shards, None where they did not travel with it (a bundle leaves them out)."""
    if run is None or not run.has("shards") or not any(run.place("shards").glob("held_out-*.bin")):
        return None
    return run.artifact("shards")


def card_subject(
    request: ExportRequest,
    source: Source,
    flavor: Flavor,
    stored_numbers: int,
    parity: ParityReport,
) -> Subject:
    info = source.info
    return Subject(
        model_name=request.model_name,
        repo_id=request.push.repo_id if request.push else None,
        licence=request.licence,
        dataset_summary=request.dataset_summary,
        eval_summary=request.eval_summary,
        eval_tasks=request.eval_tasks,
        stage=info.stage,
        step=info.step,
        context=info.model.context,
        vocab_size=info.vocab_size,
        architecture=flavor.architecture,
        dtype=request.dtype,
        parameters=parameter_count(info.model, info.vocab_size),
        stored_numbers=stored_numbers,
        checkpoint_digest=source.artifact.digest,
        tokenizer_digest=source.tokenizer.digest,
        end_token=source.tokenizer.spelling[source.tokenizer.ids.end],
        scored=source.scored,
        parity=parity,
        commit=source.commit,
        versions=source.versions,
        provenance=provenance_of(source.facts) if source.facts else (),
    )


def export_record(
    folder: Path, request: ExportRequest, source: Source, stored_numbers: int, parity: ParityReport
) -> ExportRecord:
    gate = source.facts.gate if source.facts and source.scored else None
    return ExportRecord(
        schema_version=SCHEMA_VERSION,
        kind="export hf",
        commit=source.commit,
        model_name=request.model_name,
        repo_id=request.push.repo_id if request.push else None,
        licence=request.licence,
        dataset_summary=request.dataset_summary,
        eval_summary=request.eval_summary,
        eval_tasks=dict(request.eval_tasks),
        flavor=request.flavor,
        dtype=request.dtype,
        checkpoint_digest=source.artifact.digest,
        tokenizer_digest=source.tokenizer.digest,
        parameters=parameter_count(source.info.model, source.info.vocab_size),
        stored_numbers=stored_numbers,
        scored=source.scored,
        verdict=gate.status if gate else None,
        parity=parity,
        files=digest_files(folder),
    )


# ---- how it appears ------------------------------------------------------------------------------


def require_free(place: Path) -> None:
    """Raises WrongUsage where something else than an earlier export stands at `place`."""
    if not place.exists() or (place.is_dir() and not file_names(place)):
        return
    if not place.is_dir() or not (place / EXPORT_RECORD).exists():
        raise WrongUsage(
            f"{place} exists and is not an earlier export",
            fix="choose another --out-dir, or move it away",
        )


def require_outside(place: Path, run: RunDir | None) -> None:
    """Raises WrongUsage where `place` lies inside an artifact of the run.

    A file written there would make the artifact differ from its manifest.
    """
    if run and (inside := run.place_around(place)):
        raise WrongUsage(
            f"{place} lies inside the artifact {inside}/", fix="choose another --out-dir"
        )


def same_export(place: Path, record: ExportRecord) -> bool:
    """Whether an intact export with just this content stands at `place`."""
    if not (place / EXPORT_RECORD).exists():
        return False
    try:
        return read_export_record(place) == record and not changed_since_export(place, record)
    except BadInput:  # an export of another version: to be set aside, not to be understood
        return False
