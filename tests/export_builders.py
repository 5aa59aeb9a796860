"""Small real parts for the tests of exports: a tokenizer, centred weights, a whole run folder with
facts that hang together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from picochat.config import ModelConfig, ResolvedConfig, RunConfig, flatten, parameter_count
from picochat.core.machine import MachineRecord
from picochat.core.publish import Artifact, open_artifact, publish
from picochat.core.records import Record, digest_bytes, write_json
from picochat.facts import (
    CorpusFacts,
    ExercisesFacts,
    ExternalScore,
    FindingRecord,
    GateFacts,
    HonestyFacts,
    ParityFacts,
    PreflightFacts,
    Rate,
    RowsFacts,
    RowSource,
    ScoresFacts,
    ShardsFacts,
    SkillScore,
    SourceFacts,
    TokenizerFacts,
    TrainFacts,
    TrivialFacts,
    TrivialScore,
)
from picochat.model.centred import centre_
from picochat.model.gpt import GPT, initialise
from picochat.model.weights import CheckpointInfo, save_model
from picochat.release.hf import ExportRequest
from picochat.run.folder import RunDir
from picochat.scales import find_scale
from picochat.tokens import tokenizer as tokens
from tests.builders import make_rate, own_rows

VOCAB_SIZE = 400
MODEL = ModelConfig(
    context=64, layers=2, width=48, heads=3, kv_heads=1, head_width=16, mlp_width=96
)
TOKEN = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZ012345"


@cache
def tokenizer_bytes() -> bytes:
    """A small tokenizer of the real kind, trained on a text with enough merges."""
    endings = ("at", "en", "ing", "ous", "ship", "tion")
    words = [
        first + vowel + ending
        for first in "bcdfgklmnprst"
        for vowel in "aeiou"
        for ending in endings
    ]
    return tokens.train([" ".join(words)] * 4, VOCAB_SIZE)


def template() -> bytes:
    return Path(tokens.__file__).with_name("chat_template.jinja").read_bytes()


def make_model(config: ModelConfig = MODEL, *, seed: int = 1, centred: bool = True) -> GPT:
    """Random weights, larger than at the start of training, so that the logits differ from each
    other.
    """
    model = GPT(config, VOCAB_SIZE)
    initialise(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 4.0 if parameter.dim() == 2 else 1.0
            parameter.mul_(scale * (1 + 0.2 * torch.randn(parameter.shape, generator=generator)))
    if centred:
        centre_(model)
    return model


def make_checkpoint(
    place: Path,
    model: GPT | None = None,
    *,
    stage: str = "sft",
    tokenizer_digest: str | None = None,
) -> Artifact:
    """A published checkpoint."""
    model = model or make_model()
    digest = tokenizer_digest or digest_bytes(tokenizer_bytes())
    info = CheckpointInfo(
        model=model.config, vocab_size=VOCAB_SIZE, tokenizer_digest=digest, stage=stage, step=90
    )
    with publish(place, stage, "key", {}) as staging:
        save_model(model, info, staging.folder)
        staging.facts = train_facts(stage).model_dump(mode="json")
    return open_artifact(place, stage)


def make_tokenizer(place: Path) -> Artifact:
    facts = TokenizerFacts(vocab_size=VOCAB_SIZE, merges=VOCAB_SIZE - 264)
    return make_artifact(
        place,
        "tokenizer",
        facts,
        {"tokenizer.json": tokenizer_bytes(), "chat_template.jinja": template()},
    )


def make_artifact(
    place: Path, kind: str, facts: Record | None, files: dict[str, bytes]
) -> Artifact:
    with publish(place, kind, "key", {}) as staging:
        for name, data in files.items():
            staging.path(name).write_bytes(data)
        staging.facts = facts.model_dump(mode="json") if facts else {}
    return open_artifact(place, kind)


# ---- a run ---------------------------------------------------------------------------------------


@dataclass
class RunParts:
    """The facts of a run that passed; change one before `make_run` to get another run.

    `leave_out`: kinds not made.
    """

    gate: GateFacts = field(default_factory=lambda: gate_facts("approved"))
    corpus: CorpusFacts = field(default_factory=lambda: corpus_facts())
    exercises: ExercisesFacts = field(
        default_factory=lambda: ExercisesFacts(
            fraction_asked=0.0, documents=0, text_bytes=0, words=0
        )
    )
    leave_out: tuple[str, ...] = ()
    scored_checkpoint: str | None = None
    extra: dict[str, bytes] = field(default_factory=dict)


def make_run(root: Path, facts: RunParts | None = None) -> RunDir:
    """A run folder with every artifact that an export looks at."""
    facts = facts or RunParts()
    run = RunDir(root)
    root.mkdir(parents=True)
    config = run_config()
    write_json(
        run.config, ResolvedConfig(config=config, origins=dict.fromkeys(flatten(config), "scale"))
    )
    write_json(run.machine, machine())
    sft = make_checkpoint(run.place("sft"))
    make_tokenizer(run.place("tokenizer"))
    import_report = {
        "dataset": "someone/some-corpus",
        "config_name": "plain",
        "revision": "0123abcd" * 5,
        "licence": "odc-by",
        "data_files": [
            {"name": "web.parquet", "digest": f"sha256:{'7' * 64}"},
            {"name": "small.jsonl", "digest": f"git:{'8' * 40}"},
        ],
    }
    parts: dict[str, tuple[Record | None, dict[str, bytes]]] = {
        "corpus": (facts.corpus, {"import_reports/web.json": json.dumps(import_report).encode()}),
        "exercises": (facts.exercises, {"sample.txt": b""}),
        "rows": (rows_facts(), {"eval.jsonl": b"{}\n"}),
        "honesty": (honesty_facts(), {"report.md": b"# honesty\n"}),
        "trivial": (trivial_facts(), {"measured.json": b"{}"}),
        "preflight": (preflight_facts(), {"preflight.md": b"# preflight\n"}),
        "base": (train_facts("base"), {"curve.jsonl": b"{}\n"}),
        "scores": (
            scores_facts(facts.scored_checkpoint or sft.digest),
            {"report.md": b"# scores\n", **facts.extra},
        ),
        "parity": (
            ParityFacts(
                reader="x",
                largest_relative_difference=1e-6,
                greedy_tokens_equal=True,
                other_differences=0,
            ),
            {"export_report.json": b"{}"},
        ),
        "gate": (facts.gate, {"gate.md": b"# gate\n"}),
        "summary": (None, {"summary.md": b"# summary\n"}),
    }
    for kind, (record, files) in parts.items():
        if kind not in facts.leave_out:
            make_artifact(run.place(kind), kind, record, files)
    (root / "tokenizer.json").write_bytes(tokenizer_bytes())
    return run


def request_of(run: RunDir, out_dir: Path, **changes: Any) -> ExportRequest:
    values: dict[str, Any] = {
        "checkpoint": run.place("sft"),
        "tokenizer": run.root / "tokenizer.json",
        "out_dir": out_dir,
        "model_name": "pico-test",
        "licence": "mit",
        "dataset_summary": "A made-up corpus.",
        "eval_summary": "See the evidence.",
    }
    return ExportRequest(**{**values, **changes})


def run_config() -> RunConfig:
    return find_scale("tiny").config.model_copy(update={"model": MODEL})


def machine() -> MachineRecord:
    return MachineRecord(
        system="Linux",
        python="3.10",
        cpu="some",
        cores=2,
        memory_bytes=None,
        gpus=[],
        versions={},
        commit="f00dfeed" * 5,
    )


def rate(passed: int, count: int, low: float, high: float) -> Rate:
    return Rate(passed=passed, count=count, fraction=passed / count, low=low, high=high)


def corpus_facts(licence: str | None = "odc-by") -> CorpusFacts:
    web = SourceFacts(
        label="web",
        kind="hub",
        documents=801,
        text_bytes=90_001,
        pinned=True,
        licence=licence,
        import_report=True,
    )
    wiki = SourceFacts(
        label="wiki",
        kind="files",
        documents=202,
        text_bytes=30_003,
        pinned=True,
        licence="cc-by-sa-4.0",
        import_report=False,
    )
    return CorpusFacts(
        documents_read=1_011,
        documents=1_003,
        train_documents=993,
        held_out_documents=10,
        text_bytes=120_004,
        train_text_bytes=118_000,
        held_out_text_bytes=2_004,
        repeated_ids=0,
        exact_duplicates=8,
        near_duplicates=5,
        dropped={"duplicate": 8},
        duplicates=[],
        held_out_fraction=0.01,
        sources=[web, wiki],
    )


def rows_facts() -> RowsFacts:
    return RowsFacts(
        chat_read=own_rows(280),
        eval_read=own_rows(70),
        sft_turns=280,
        eval_scored_by={"exact answer": 70},
        sft_train_rows=251,
        sft_held_out_rows=29,
        eval_rows=70,
        sft_by_skill={"math": 280},
        eval_by_skill={"math": 70},
        eval_items_by_skill={"math": 66},
        repeated_sft_prompts=0,
        eval_rows_without_rule=0,
        shared_items=0,
        sources=[
            RowSource(
                label="chats",
                dataset="someone/some-chats",
                config="all",
                revision="4567cdef" * 5,
                licence="apache-2.0",
            )
        ],
    )


def shards_facts() -> ShardsFacts:
    return ShardsFacts(
        train_tokens=40_960,
        held_out_tokens=1_024,
        train_documents=993,
        held_out_documents=10,
        train_text_bytes=118_000,
        held_out_text_bytes=2_004,
        roundtrip_documents=200,
        roundtrip_failures=0,
    )


def honesty_facts() -> HonestyFacts:
    return HonestyFacts(
        corpus_text_bytes=120_004,
        scanned_text_bytes=120_004,
        scanned_documents=1_003,
        eval_rows=70,
        sft_exact_prompts=0,
        sft_largest_coverage=0.1,
        corpus_contaminated_by_skill={},
        eval_by_skill={"math": 70},
        external_rows={},
        external_contaminated={},
        contaminated_eval_rows=["math-007"],
    )


def trivial_facts() -> TrivialFacts:
    score = TrivialScore(
        answerer="constant line",
        line="Final answer: 42",
        all=make_rate(3, 70),
        levels={"add_carry": make_rate(2, 40)},
        unanswerable=make_rate(1, 9),
        answerable=make_rate(2, 61),
    )
    return TrivialFacts(skills={"math": [score]}, text_bytes=120_000, documents=1_000)


def finding(name: str, status: str, measured: float | None, bound: str) -> FindingRecord:
    return FindingRecord(
        name=name,
        status=status,
        measured=measured,
        unit="fraction",
        bound=bound,
        message=f"{name} is {status}",
        fix=None,
    )


def preflight_facts() -> PreflightFacts:
    findings = [
        finding("documents", "pass", 1_003, ">= 1"),
        finding("base_exposure", "warn", 5.25, "<= 4.0"),
    ]
    return PreflightFacts(status="warn", profile="skill_release", findings=findings)


def gate_facts(status: str) -> GateFacts:
    findings = [
        finding("run_completed", "pass", 1.0, "= 1"),
        finding("refusal", "pass", 0.875, ">= 0.75"),
    ]
    if status != "approved":
        findings.append(
            finding(
                "skill_release_eval_math",
                "block" if status == "blocked" else "warn",
                0.125,
                ">= 0.3",
            )
        )
    return GateFacts(
        status=status, profile="skill_release", findings=findings, weakest_skill="math"
    )


def train_facts(stage: str) -> TrainFacts:
    return TrainFacts(
        stage=stage,
        steps=90,
        planned_steps=91,
        tokens=46_080,
        parameters=parameter_count(MODEL, VOCAB_SIZE),
        first_loss=5.991,
        final_loss=3.125,
        losses_finite=True,
        spikes=2,
        scored_step=90,
        held_out_loss=3.25,
        held_out_bits_per_byte=1.875,
        largest_centre_error=1e-9,
    )


def scores_facts(scored_checkpoint: str) -> ScoresFacts:
    math = SkillScore(
        all=rate(43, 70, 0.497, 0.720),
        clean=rate(42, 69, 0.490, 0.715),
        base=rate(3, 70, 0.015, 0.119),
        chance=0.011,
        levels={"addition": rate(20, 25, 0.609, 0.911), "removal": rate(5, 20, 0.112, 0.469)},
    )
    choice = SkillScore(
        all=rate(31, 50, 0.482, 0.741),
        clean=rate(30, 49, 0.472, 0.735),
        base=rate(13, 50, 0.159, 0.396),
        chance=0.25,
        levels={},
    )
    return ScoresFacts(
        base_bits_per_byte=1.8712,
        sft_bits_per_byte=1.9034,
        ngram_bits_per_byte=2.2256,
        ngram_train_tokens=1_000_000,
        skills={"math": math, "choice": choice},
        sft_fit=rate(200, 251, 0.742, 0.842),
        sft_held_out_fit=rate(17, 29, 0.407, 0.745),
        refusal=rate(35, 40, 0.739, 0.945),
        over_refusal=rate(36, 41, 0.745, 0.947),
        choice_listed=rate(41, 70, 0.469, 0.694),
        prompt_echo=rate(1, 71, 0.002, 0.076),
        unsupported_claims=rate(2, 39, 0.014, 0.169),
        memorized=rate(0, 64, 0.0, 0.057),
        scored_checkpoint=scored_checkpoint,
        external={
            "riddles": ExternalScore(
                all=rate(300, 501, 0.555, 0.641), clean=rate(299, 500, 0.554, 0.640), chance=0.251
            )
        },
    )
