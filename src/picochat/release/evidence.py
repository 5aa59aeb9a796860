"""What a run states about itself, as one value, and the copy of it that travels inside an export.

`read_evidence` reads facts, never payloads. `attach_evidence` copies the reports as whole artifact
folders, so that each can be checked against the manifest inside it, and the bare manifests of
everything else, so that the chain of digests from the weights to the source rows is complete.
Decides nothing: what is missing is None here, and said by the card.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from picochat.config import ResolvedConfig, RunConfig
from picochat.core.machine import MachineRecord
from picochat.core.publish import MANIFEST
from picochat.core.records import Record, read_json, read_record
from picochat.rundir import (
    PLACES,
    ConversationsFacts,
    CorpusFacts,
    GateFacts,
    HonestyFacts,
    Place,
    PracticeFacts,
    PreflightFacts,
    RowsFacts,
    RunDir,
    ScoresFacts,
    ShardsFacts,
    TokenizerFacts,
    TrainFacts,
    facts_of,
    place_of,
)

F = TypeVar("F", bound=Record)

REPORTS = ("honesty", "preflight", "scores", "parity", "gate", "summary")
"""Artifacts that are copied whole: what a reader of the card will want to open."""
OF_THE_SCORED = ("scores", "parity", "gate", "summary")
"""Artifacts that speak of the scored checkpoint alone: beside other weights they would mislead."""
FOLDER = "evidence"


@dataclass(frozen=True)
class Provenance:
    """Where one imported source came from, by its import report. None: the report does not say."""

    label: str
    dataset: str | None
    config: str | None
    revision: str | None


@dataclass(frozen=True)
class RunEvidence:
    """The facts of a run.

    `digests`: kind -> digest of each artifact that stands, in the order of the stages.
    """

    config: RunConfig
    digests: dict[str, str]
    provenance: tuple[Provenance, ...]
    commit: str | None
    corpus: CorpusFacts | None
    practice: PracticeFacts | None
    rows: RowsFacts | None
    tokenizer: TokenizerFacts | None
    shards: ShardsFacts | None
    conversations: ConversationsFacts | None
    honesty: HonestyFacts | None
    preflight: PreflightFacts | None
    base: TrainFacts | None
    sft: TrainFacts | None
    scores: ScoresFacts | None
    gate: GateFacts | None


def read_evidence(run: RunDir) -> RunEvidence:
    """All facts of the run that stand.

    Raises BadInput for a manifest that this version cannot read.
    """
    return RunEvidence(
        config=read_record(ResolvedConfig, run.config, "resolved configuration").config,
        digests={
            place.kind: run.artifact(place.kind).digest for place in PLACES if run.has(place.kind)
        },
        provenance=provenance_of(run),
        commit=(
            read_record(MachineRecord, run.machine, "machine record").commit
            if run.machine.exists()
            else None
        ),
        corpus=_facts(run, "corpus", CorpusFacts),
        practice=_facts(run, "practice", PracticeFacts),
        rows=_facts(run, "rows", RowsFacts),
        tokenizer=_facts(run, "tokenizer", TokenizerFacts),
        shards=_facts(run, "shards", ShardsFacts),
        conversations=_facts(run, "conversations", ConversationsFacts),
        honesty=_facts(run, "honesty", HonestyFacts),
        preflight=_facts(run, "preflight", PreflightFacts),
        base=_facts(run, "base", TrainFacts),
        sft=_facts(run, "sft", TrainFacts),
        scores=_facts(run, "scores", ScoresFacts),
        gate=_facts(run, "gate", GateFacts),
    )


def _facts(run: RunDir, kind: str, model: type[F]) -> F | None:
    return facts_of(run.artifact(kind), model) if run.has(kind) else None


def provenance_of(run: RunDir) -> tuple[Provenance, ...]:
    """Where each imported source came from: one for each import report in the corpus artifact, by
    label.
    """
    reports = sorted((run.place("corpus") / "import_reports").glob("*.json"))
    return tuple(_stated_by(path.stem, read_json(path, "import report")) for path in reports)


def _stated_by(label: str, report: dict[str, object]) -> Provenance:
    def text(key: str) -> str | None:
        value = report.get(key)
        return value if isinstance(value, str) and value else None

    return Provenance(label, text("dataset"), text("config_name"), text("revision"))


def missing_evidence(run: RunDir | None) -> list[str]:
    """Kinds of report that a publication needs and the run does not have; all of them without a
    run.
    """
    return [kind for kind in REPORTS if run is None or not run.has(kind)]


def attached_places(kinds: Collection[str], scored: bool) -> list[Place]:
    """Those of `kinds` that go with an export, in the order of the stages.

    `scored`: see OF_THE_SCORED.
    """
    return [
        place
        for place in PLACES
        if place.kind in kinds and (scored or place.kind not in OF_THE_SCORED)
    ]


def attach_evidence(run: RunDir, folder: Path, scored: bool) -> None:
    """Copy reports, manifests, resolved configuration and machine record of the run into
    `folder`/evidence.
    """
    target = folder / FOLDER
    for place in attached_places([place.kind for place in PLACES if run.has(place.kind)], scored):
        if place.kind in REPORTS:
            shutil.copytree(run.place(place.kind), target / place.folder)
        else:
            _copy(run.place(place.kind) / MANIFEST, target / place.folder / MANIFEST)
    for path in (run.config, run.machine):
        if path.exists():
            _copy(path, target / path.name)


def attached(folder: Path, kind: str) -> bool:
    """Whether an exported folder holds that report of its run."""
    return (folder / FOLDER / place_of(kind).folder / MANIFEST).exists()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
