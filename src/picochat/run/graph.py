"""The graph of a run: ARTIFACTS has one row for each kind of artifact, in the order of making.

A row says where the artifact lies, which files it holds, which record states its facts, what it is
made from and by which function. The runner, verification, the bundle and the generated
docs/artifacts.md read the same rows. Reading the table imports no torch: stages that need it stand
below as functions that import it when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from picochat.config import RunConfig
from picochat.core.publish import Artifact
from picochat.core.records import Record, read_record
from picochat.data.benchmarks.stage import publish_benchmarks
from picochat.data.corpus.build import build_corpus
from picochat.facts import (
    BenchmarksFacts,
    ConversationsFacts,
    CorpusFacts,
    GateFacts,
    HonestyFacts,
    HostFacts,
    ParityFacts,
    PracticeFacts,
    PreflightFacts,
    PreflightReport,
    RowsFacts,
    RunFacts,
    ScoresFacts,
    ShardsFacts,
    TokenizerFacts,
    TrainFacts,
    facts_of,
)
from picochat.gate.preflight import run_preflight
from picochat.gate.release import run_gate
from picochat.honesty.contamination_scan import scan_run
from picochat.report.summary import write_summary
from picochat.skills.exercises import write_exercises
from picochat.skills.prepare import prepare_rows
from picochat.tokens.chat_format import encode_conversations
from picochat.tokens.shards import write_shards
from picochat.tokens.tokenizer import train_tokenizer

# ---- stages that import torch when they are called -----------------------------------------------


def measure_host(**arguments: Any) -> None:
    from picochat.sanity import host

    host.measure_host(**arguments)


def pretrain(**arguments: Any) -> None:
    from picochat.train import base

    base.pretrain(**arguments)


def finetune(**arguments: Any) -> None:
    from picochat.train import sft

    sft.finetune(**arguments)


def evaluate(**arguments: Any) -> None:
    from picochat.evals import evaluate

    evaluate.evaluate(**arguments)


def measure_parity(**arguments: Any) -> None:
    from picochat.export import parity

    parity.measure_parity(**arguments)


# ---- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArtifactSpec:
    """One kind of artifact.

    folder: in the run folder. files: what it holds; NNNNN and LABEL stand for many. facts: the
    record of its manifest's facts; None where it states none.
    make: the function that makes it, called with keyword arguments: `draft`, an Artifact for each
    kind in `inputs`, and each of `settings`. A stage with `facts` in its settings is given its
    inputs as one RunFacts instead of one by one.
    settings: names of config sections, or `seed`, `pack`, `benchmark_files` (where benchmarks were
    found just now), `gpu_hour_usd`, `track` (the folder of trackers), `timings` and `machine`
    (paths of the run folder).
    version: raise it when the function makes something else from the same input; finished run
    folders are then made again.
    shared: the artifact lies in the cache and is linked into each run.
    by_all: where torchrun started several processes, all of them call the function together; the
    first one publishes.
    """

    kind: str
    folder: str
    files: str
    facts: type[Record] | None
    make: Callable[..., None]
    inputs: tuple[str, ...]
    settings: tuple[str, ...]
    version: int
    shared: bool = False
    by_all: bool = False


KNOWN_BEFORE_TRAINING = (
    "corpus",
    "practice",
    "rows",
    "benchmarks",
    "tokenizer",
    "shards",
    "conversations",
    "honesty",
    "host",
)
TRAINING_SETTINGS = ("runtime", "host", "seed", "gpu_hour_usd", "track")

ARTIFACTS: tuple[ArtifactSpec, ...] = (
    ArtifactSpec(
        kind="corpus",
        folder="corpus",
        files=(
            "pack.json recipe.json sources.json import_reports/LABEL.json fates.u8 dropped.jsonl"
            " near_duplicates.jsonl measured.json location.json"
        ),
        facts=CorpusFacts,
        make=build_corpus,
        inputs=(),
        settings=("pack", "data", "host"),
        version=3,
        shared=True,
    ),
    ArtifactSpec(
        kind="practice",
        folder="practice",
        files="shard-NNNNNN.jsonl.zst documents.json words.txt sample.txt",
        facts=PracticeFacts,
        make=write_exercises,
        inputs=("corpus",),
        settings=("practice", "host", "seed"),
        version=2,
        shared=True,
    ),
    ArtifactSpec(
        kind="rows",
        folder="rows",
        files="sft_train.jsonl sft_held_out.jsonl eval.jsonl",
        facts=RowsFacts,
        make=prepare_rows,
        inputs=(),
        settings=("pack", "seed"),
        version=1,
    ),
    ArtifactSpec(
        kind="benchmarks",
        folder="benchmarks",
        files="items.jsonl sources.json rows/LABEL.jsonl unresolved.json",
        facts=BenchmarksFacts,
        make=publish_benchmarks,
        inputs=(),
        settings=("external", "benchmark_files"),
        version=2,
    ),
    ArtifactSpec(
        kind="tokenizer",
        folder="tokenizer",
        files="tokenizer.json chat_template.jinja measured.json",
        facts=TokenizerFacts,
        make=train_tokenizer,
        inputs=("corpus",),
        settings=("tokenizer", "seed"),
        version=3,
        shared=True,
    ),
    ArtifactSpec(
        kind="shards",
        folder="base/token_shards",
        files=(
            "train-NNNNN.bin held_out-NNNNN.bin, a .starts and a .json beside each; measured.json"
            " encoding.json"
        ),
        facts=ShardsFacts,
        make=write_shards,
        inputs=("corpus", "practice", "tokenizer"),
        settings=("shards", "host", "seed"),
        version=3,
        shared=True,
    ),
    ArtifactSpec(
        kind="conversations",
        folder="sft/conversations",
        files="train.npz held_out.npz",
        facts=ConversationsFacts,
        make=encode_conversations,
        inputs=("rows", "tokenizer"),
        settings=("model",),
        version=1,
    ),
    ArtifactSpec(
        kind="honesty",
        folder="honesty",
        files="report.json report.md hits.jsonl measured.json",
        facts=HonestyFacts,
        make=scan_run,
        inputs=("corpus", "practice", "rows", "benchmarks"),
        settings=("honesty", "host"),
        version=5,
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
        version=3,
    ),
    ArtifactSpec(
        kind="base",
        folder="base/checkpoint",
        files=(
            "model.safetensors model.json curve.jsonl metrics.jsonl measured.json replay/weights.safetensors"
            " replay/optimizer.safetensors replay/state.json"
        ),
        facts=TrainFacts,
        make=pretrain,
        inputs=("shards", "tokenizer"),
        settings=("model", "base", *TRAINING_SETTINGS),
        version=6,
        by_all=True,
    ),
    ArtifactSpec(
        kind="sft",
        folder="sft/checkpoint",
        files="model.safetensors model.json curve.jsonl metrics.jsonl measured.json",
        facts=TrainFacts,
        make=finetune,
        inputs=("base", "conversations", "tokenizer"),
        settings=("sft", *TRAINING_SETTINGS),
        version=6,
        by_all=True,
    ),
    ArtifactSpec(
        kind="scores",
        folder="eval",
        files=(
            "replies.jsonl external.jsonl memorization.jsonl measured.json report.json report.md"
        ),
        facts=ScoresFacts,
        make=evaluate,
        inputs=("base", "sft", "rows", "benchmarks", "shards", "tokenizer", "honesty"),
        settings=("evals", "runtime", "seed"),
        version=5,
    ),
    ArtifactSpec(
        kind="parity",
        folder="parity",
        files="export_report.json",
        facts=ParityFacts,
        make=measure_parity,
        inputs=("sft", "tokenizer", "shards"),
        settings=(),
        version=1,
    ),
    ArtifactSpec(
        kind="gate",
        folder="gate",
        files="gate.json gate.md",
        facts=GateFacts,
        make=run_gate,
        inputs=("preflight", "honesty", "base", "sft", "scores", "parity", "rows", "benchmarks"),
        settings=("facts",),
        version=7,
    ),
    ArtifactSpec(
        kind="summary",
        folder="summary",
        files="summary.json summary.md report.html loss.svg gate.svg observed.json",
        facts=None,
        make=write_summary,
        inputs=(*KNOWN_BEFORE_TRAINING, "preflight", "base", "sft", "scores", "parity", "gate"),
        settings=("facts", "timings", "machine"),
        version=4,
    ),
)


@dataclass(frozen=True)
class FrontPage:
    """A file of an artifact that is copied into the run folder itself, under `name`."""

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
    """The facts of these artifacts, by kind, as one value.

    Raises BadInput where a manifest states facts that this version does not know.
    """
    facts = {
        spec.kind: facts_of(artifacts[spec.kind], spec.facts)
        for spec in ARTIFACTS
        if spec.facts is not None and spec.kind in artifacts
    }
    return RunFacts(
        config=config,
        artifacts=artifacts,
        **facts,  # pyright: ignore[reportArgumentType]  (one field of RunFacts a kind)
        host=_read(artifacts, "host", "host.json", HostFacts),
        preflight_report=_read(artifacts, "preflight", "preflight.json", PreflightReport),
        shipped_checkpoint=artifacts["sft"].digest if "sft" in artifacts else None,
    )


def _read(artifacts: Mapping[str, Artifact], kind: str, name: str, model: type[Any]) -> Any:
    """A file outside the digest as its record; None where there is no such artifact or file."""
    if kind not in artifacts or not artifacts[kind].path(name).exists():
        return None
    return read_record(model, artifacts[kind].path(name), name)
