"""The graph of a run: ARTIFACTS has a row for each kind of artifact, in the order of building.

The runner, verification, the bundle and the generated docs/artifacts.md read these rows. Importing
this module does not import torch: stages that need it import it when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picochat.config import RunConfig
from picochat.core.publish import Artifact
from picochat.core.records import Record, read_record
from picochat.data.benchmarks.stage import facts_from as benchmarks_facts
from picochat.data.benchmarks.stage import publish_benchmarks
from picochat.data.corpus.build import build_corpus
from picochat.data.corpus.build import facts_from as corpus_facts
from picochat.evals.evaluate import evaluate
from picochat.evals.evaluate import facts_from as scores_facts
from picochat.evals.trivial import facts_from as trivial_facts
from picochat.evals.trivial import measure_trivial
from picochat.export.export_record import facts_from as parity_facts
from picochat.facts import (
    BenchmarksFacts,
    ConversationsFacts,
    CorpusFacts,
    ExercisesFacts,
    GateFacts,
    HonestyFacts,
    HostFacts,
    ParityFacts,
    PreflightFacts,
    PreflightReport,
    RowsFacts,
    RunFacts,
    ScoresFacts,
    ShardsFacts,
    TokenizerFacts,
    TrainFacts,
    TrivialFacts,
    facts_of,
)
from picochat.gate.preflight import run_preflight
from picochat.gate.release import run_gate
from picochat.honesty.contamination_scan import facts_from as honesty_facts
from picochat.honesty.contamination_scan import scan_run
from picochat.report.summary import write_summary
from picochat.skills.exercises import facts_from as exercises_facts
from picochat.skills.exercises import write_exercises
from picochat.skills.prepare import facts_from as rows_facts
from picochat.skills.prepare import prepare_rows
from picochat.tokens.chat_format import encode_conversations
from picochat.tokens.chat_format import facts_from as conversations_facts
from picochat.tokens.shards import facts_from as shards_facts
from picochat.tokens.shards import write_shards
from picochat.tokens.tokenizer import facts_from as tokenizer_facts
from picochat.tokens.tokenizer import train_tokenizer
from picochat.train.base import facts_from as base_facts
from picochat.train.base import pretrain
from picochat.train.sft import facts_from as sft_facts
from picochat.train.sft import finetune

# ---- stages that import torch when they are called -----------------------------------------------


def measure_host(**arguments: Any) -> None:
    from picochat.sanity import host

    host.measure_host(**arguments)


def measure_parity(**arguments: Any) -> None:
    from picochat.export import parity

    parity.measure_parity(**arguments)


# ---- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArtifactSpec:
    """One kind of artifact.

    folder: relative to the run folder.
    files: the files in it; NNNNN and LABEL stand for many.
    facts: the record of the facts in its manifest; None if it states none.
    make: the function that makes it. It gets keyword arguments: `staging`, an Artifact for each
    kind in `inputs`, and each name in `settings`. A stage with `facts` in its settings gets its
    inputs as one RunFacts instead.
    settings: names of config sections, or `seed`, `training_seed`, `pack`, `facts`,
    `benchmark_files` (the files that the benchmarks resolve to), `gpu_hour_usd`, `track` (the
    folder of trackers), `timings` and `machine` (paths in the run folder).
    version: raise it when the function makes something else from the same input; finished run
    folders then build the artifact again.
    facts_from: computes the facts from the artifact's folder, its inputs and the configuration. The
    stage states what it returns, and verification compares. None if there are no facts, and for
    verdicts, which verification decides again.
    shared: the artifact is in the cache and is linked into each run.
    by_all: under torchrun all processes call the function together; the first one publishes.
    """

    kind: str
    folder: str
    files: str
    facts: type[Record] | None
    make: Callable[..., None]
    inputs: tuple[str, ...]
    settings: tuple[str, ...]
    version: int
    facts_from: Callable[[Path, Mapping[str, Artifact], RunConfig], Record] | None = None
    shared: bool = False
    by_all: bool = False


KNOWN_BEFORE_TRAINING = (
    "corpus",
    "rows",
    "benchmarks",
    "tokenizer",
    "exercises",
    "shards",
    "conversations",
    "honesty",
    "trivial",
    "host",
)
TRAINING_SETTINGS = ("runtime", "host", "training_seed", "gpu_hour_usd", "track")

ARTIFACTS: tuple[ArtifactSpec, ...] = (
    ArtifactSpec(
        kind="corpus",
        folder="corpus",
        files=(
            "pack.json recipe.json sources.json import_reports/LABEL.json row_decisions.u8"
            " renamed_rows.i8 dropped.jsonl near_duplicates.jsonl measured.json location.json"
        ),
        facts=CorpusFacts,
        make=build_corpus,
        facts_from=corpus_facts,
        inputs=(),
        settings=("pack", "data", "host"),
        version=7,
        shared=True,
    ),
    ArtifactSpec(
        kind="rows",
        folder="rows",
        files="sft_train.jsonl sft_held_out.jsonl eval.jsonl measured.json",
        facts=RowsFacts,
        make=prepare_rows,
        facts_from=rows_facts,
        inputs=(),
        settings=("pack", "seed"),
        version=7,
    ),
    ArtifactSpec(
        kind="benchmarks",
        folder="benchmarks",
        files="items.jsonl sources.json rows/LABEL.jsonl unresolved.json",
        facts=BenchmarksFacts,
        make=publish_benchmarks,
        facts_from=benchmarks_facts,
        inputs=(),
        settings=("external", "benchmark_files"),
        version=2,
    ),
    ArtifactSpec(
        kind="tokenizer",
        folder="tokenizer",
        files="tokenizer.json chat_template.jinja",
        facts=TokenizerFacts,
        make=train_tokenizer,
        facts_from=tokenizer_facts,
        inputs=("corpus",),
        settings=("tokenizer", "seed"),
        version=4,
        shared=True,
    ),
    ArtifactSpec(
        kind="exercises",
        folder="exercises",
        files="shard-NNNNNN.jsonl.zst documents.json words.txt sample.txt",
        facts=ExercisesFacts,
        make=write_exercises,
        facts_from=exercises_facts,
        inputs=("corpus", "tokenizer"),
        settings=("exercises", "host", "seed"),
        version=6,
        shared=True,
    ),
    ArtifactSpec(
        kind="shards",
        folder="base/token_shards",
        files=(
            "train-NNNNN.bin held_out-NNNNN.bin, a .starts and a .json beside each encoding.json"
        ),
        facts=ShardsFacts,
        make=write_shards,
        facts_from=shards_facts,
        inputs=("corpus", "exercises", "tokenizer"),
        settings=("shards", "host", "seed"),
        version=4,
        shared=True,
    ),
    ArtifactSpec(
        kind="conversations",
        folder="sft/conversations",
        files="train.npz held_out.npz",
        facts=ConversationsFacts,
        make=encode_conversations,
        facts_from=conversations_facts,
        inputs=("rows", "tokenizer"),
        settings=("model",),
        version=3,
    ),
    ArtifactSpec(
        kind="honesty",
        folder="honesty",
        files="report.json report.md hits.jsonl measured.json",
        facts=HonestyFacts,
        make=scan_run,
        facts_from=honesty_facts,
        inputs=("corpus", "exercises", "rows", "benchmarks"),
        settings=("honesty", "host"),
        version=9,
        shared=True,
    ),
    ArtifactSpec(
        kind="trivial",
        folder="trivial",
        files="measured.json",
        facts=TrivialFacts,
        make=measure_trivial,
        facts_from=trivial_facts,
        inputs=("corpus", "rows"),
        settings=("seed",),
        version=4,
        shared=True,
    ),
    ArtifactSpec(
        kind="host",
        folder="host",
        files="host.json",
        facts=None,
        make=measure_host,
        inputs=("shards", "tokenizer"),
        settings=("model", "base", "runtime"),
        version=2,
    ),
    ArtifactSpec(
        kind="preflight",
        folder="preflight",
        files="preflight.json preflight.md",
        facts=PreflightFacts,
        make=run_preflight,
        inputs=KNOWN_BEFORE_TRAINING,
        settings=("facts",),
        version=13,
    ),
    ArtifactSpec(
        kind="base",
        folder="base/checkpoint",
        files=(
            "model.safetensors model.json curve.jsonl metrics.jsonl states.jsonl measured.json"
            " replay/weights.safetensors replay/optimizer.safetensors replay/state.json"
        ),
        facts=TrainFacts,
        make=pretrain,
        facts_from=base_facts,
        inputs=("shards", "tokenizer"),
        settings=("model", "counts", "base", *TRAINING_SETTINGS),
        version=9,
        by_all=True,
    ),
    ArtifactSpec(
        kind="sft",
        folder="sft/checkpoint",
        files=("model.safetensors model.json curve.jsonl metrics.jsonl states.jsonl measured.json"),
        facts=TrainFacts,
        make=finetune,
        facts_from=sft_facts,
        inputs=("base", "conversations", "tokenizer", "shards"),
        settings=("sft", *TRAINING_SETTINGS),
        version=9,
        by_all=True,
    ),
    ArtifactSpec(
        kind="scores",
        folder="eval",
        files=(
            "replies.jsonl external.jsonl memorization.jsonl measured.json held_out.jsonl"
            " report.json report.md"
        ),
        facts=ScoresFacts,
        make=evaluate,
        facts_from=scores_facts,
        inputs=("base", "sft", "rows", "benchmarks", "shards", "tokenizer", "honesty"),
        settings=("evals", "runtime", "seed"),
        version=15,
    ),
    ArtifactSpec(
        kind="parity",
        folder="parity",
        files="export_report.json",
        facts=ParityFacts,
        make=measure_parity,
        facts_from=parity_facts,
        inputs=("sft", "tokenizer", "shards"),
        settings=(),
        version=2,
    ),
    ArtifactSpec(
        kind="gate",
        folder="gate",
        files="gate.json gate.md",
        facts=GateFacts,
        make=run_gate,
        inputs=(
            "preflight",
            "honesty",
            "trivial",
            "base",
            "sft",
            "scores",
            "parity",
            "rows",
            "benchmarks",
        ),
        settings=("facts",),
        version=20,
    ),
    ArtifactSpec(
        kind="summary",
        folder="summary",
        files="summary.json summary.md report.html loss.svg gate.svg observed.json",
        facts=None,
        make=write_summary,
        inputs=(*KNOWN_BEFORE_TRAINING, "preflight", "base", "sft", "scores", "parity", "gate"),
        settings=("facts", "timings", "machine"),
        version=15,
    ),
)


@dataclass(frozen=True)
class FrontPage:
    """A file of an artifact that is copied to the top of the run folder, under `name`."""

    name: str
    kind: str
    file: str


FRONT_PAGES: tuple[FrontPage, ...] = (
    FrontPage("tokenizer.json", "tokenizer", "tokenizer.json"),
    FrontPage("preflight.json", "preflight", "preflight.json"),
    FrontPage("preflight.md", "preflight", "preflight.md"),
    FrontPage("gate.json", "gate", "gate.json"),
    FrontPage("gate.md", "gate", "gate.md"),
    FrontPage("summary.json", "summary", "summary.json"),
    FrontPage("summary.md", "summary", "summary.md"),
    FrontPage("report.html", "summary", "report.html"),
)


def spec_of(kind: str) -> ArtifactSpec:
    return next(spec for spec in ARTIFACTS if spec.kind == kind)


def read_facts(config: RunConfig, artifacts: Mapping[str, Artifact]) -> RunFacts:
    """The facts of these artifacts (by kind) as one value.

    Raises BadInput if a manifest states facts that this version does not know.
    """
    facts = {
        spec.kind: facts_of(artifacts[spec.kind], spec.facts)
        for spec in ARTIFACTS
        if spec.facts is not None and spec.kind in artifacts
    }
    return RunFacts(
        config=config,
        artifacts=artifacts,
        **facts,  # pyright: ignore[reportArgumentType]  (RunFacts has a field for each kind)
        host=_read(artifacts, "host", "host.json", HostFacts),
        preflight_report=_read(artifacts, "preflight", "preflight.json", PreflightReport),
        shipped_checkpoint=artifacts["sft"].digest if "sft" in artifacts else None,
    )


def _read(artifacts: Mapping[str, Artifact], kind: str, name: str, model: type[Any]) -> Any:
    """A file of an artifact as a record; None if there is no such artifact or file."""
    if kind not in artifacts or not artifacts[kind].path(name).exists():
        return None
    return read_record(model, artifacts[kind].path(name), name)
