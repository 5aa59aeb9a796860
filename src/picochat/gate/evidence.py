"""What a verdict may look at: the typed facts of the artifacts, and the configuration. Nothing else
reaches a measure.

Every fact is optional: one that is None was not measured, and no measure may turn that into a
number. The two reports are what is written as preflight.json and gate.json.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from picochat.config import RunConfig
from picochat.core.publish import Artifact, changed_files
from picochat.core.records import Record, read_record
from picochat.rundir import (
    BenchmarksFacts,
    ConversationsFacts,
    CorpusFacts,
    FindingRecord,
    HonestyFacts,
    HostFacts,
    ParityFacts,
    PracticeFacts,
    RowsFacts,
    ScoresFacts,
    ShardsFacts,
    TokenizerFacts,
    TrainFacts,
    facts_of,
)

REPORT_SCHEMA_VERSION = 1


class PlanRecord(Record):
    """What the run would do, counted before it does it.

    `hours` needs the speed that was measured on this host.
    """

    parameters: int
    planned_tokens: int
    target_tokens: int
    train_tokens: int | None
    practice_share: float | None
    planned_epochs: float | None
    hours: float | None
    usd: float | None
    hours_of: dict[str, float]


class PreflightReport(Record):
    """preflight.json: the whole verdict, host measurements included."""

    schema_version: int
    status: Literal["ready", "warn", "blocked"]
    profile: str
    long_run: bool
    plan: PlanRecord
    findings: list[FindingRecord]


class GateReport(Record):
    """gate.json: the verdict on a finished run."""

    schema_version: int
    status: Literal["approved", "warn", "blocked"]
    profile: str
    weakest_skill: str | None
    findings: list[FindingRecord]


@dataclass(frozen=True)
class Evidence:
    """The configuration and the facts of each stage.

    `shipped_checkpoint` is the digest of the SFT checkpoint at hand.
    """

    config: RunConfig
    corpus: CorpusFacts | None = None
    practice: PracticeFacts | None = None
    rows: RowsFacts | None = None
    benchmarks: BenchmarksFacts | None = None
    tokenizer: TokenizerFacts | None = None
    shards: ShardsFacts | None = None
    conversations: ConversationsFacts | None = None
    honesty: HonestyFacts | None = None
    host: HostFacts | None = None
    preflight: PreflightReport | None = None
    base: TrainFacts | None = None
    sft: TrainFacts | None = None
    scores: ScoresFacts | None = None
    parity: ParityFacts | None = None
    changed_files: int | None = None
    shipped_checkpoint: str | None = None


def preflight_evidence(
    corpus: Artifact,
    practice: Artifact,
    rows: Artifact,
    benchmarks: Artifact,
    tokenizer: Artifact,
    shards: Artifact,
    conversations: Artifact,
    honesty: Artifact,
    host: Artifact,
    config: RunConfig,
) -> Evidence:
    """What can be known before training.

    Raises BadInput where a manifest states facts that this version does not know.
    """
    return Evidence(
        config=config,
        corpus=facts_of(corpus, CorpusFacts),
        practice=facts_of(practice, PracticeFacts),
        rows=facts_of(rows, RowsFacts),
        benchmarks=facts_of(benchmarks, BenchmarksFacts),
        tokenizer=facts_of(tokenizer, TokenizerFacts),
        shards=facts_of(shards, ShardsFacts),
        conversations=facts_of(conversations, ConversationsFacts),
        honesty=facts_of(honesty, HonestyFacts),
        host=read_record(HostFacts, host.path("host.json"), "host measurements"),
    )


def gate_evidence(
    preflight: Artifact,
    honesty: Artifact,
    base: Artifact,
    sft: Artifact,
    scores: Artifact,
    parity: Artifact,
    rows: Artifact,
    benchmarks: Artifact,
    config: RunConfig,
) -> Evidence:
    """What is known after the last evaluation, before anybody looked whether the files are still
    what was published.
    """
    return Evidence(
        config=config,
        rows=facts_of(rows, RowsFacts),
        benchmarks=facts_of(benchmarks, BenchmarksFacts),
        honesty=facts_of(honesty, HonestyFacts),
        preflight=read_record(
            PreflightReport, preflight.path("preflight.json"), "preflight report"
        ),
        base=facts_of(base, TrainFacts),
        sft=facts_of(sft, TrainFacts),
        scores=facts_of(scores, ScoresFacts),
        parity=facts_of(parity, ParityFacts),
        shipped_checkpoint=sft.digest,
    )


def with_file_check(evidence: Evidence, artifacts: tuple[Artifact, ...]) -> Evidence:
    """The evidence with the number of files whose bytes differ from their manifest; reads every
    byte.
    """
    changed = sum(len(changed_files(artifact.place, artifact.manifest)) for artifact in artifacts)
    return replace(evidence, changed_files=changed)
