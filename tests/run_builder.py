"""`make_run`: a whole run folder as the stages publish it, without training: real artifacts, manifests, verdicts and pages.

Facts are the healthy ones of builders.py. Weights and shards are a few bytes; everything that decides is real: the
preflight, the gate and the summary are made by their own stages. `count_replies` computes the scores of such a run again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from picochat.config import ResolvedConfig, RunConfig, flatten
from picochat.core.machine import MachineRecord
from picochat.core.publish import Artifact, Draft, publish
from picochat.core.records import Record, read_jsonl, write_json, write_jsonl
from picochat.gate.preflight import run_preflight
from picochat.gate.release import run_gate
from picochat.release.summary import write_summary
from picochat.rundir import PLACES, RunDir, ScoresFacts, SkillScore, TokenizerFacts, facts_of, place_of
from tests.builders import (
    STAGES,
    change,
    make_config,
    make_conversations_facts,
    make_corpus_facts,
    make_honesty_facts,
    make_host_facts,
    make_parity_facts,
    make_rate,
    make_rows_facts,
    make_scores_facts,
    make_shards_facts,
    make_train_facts,
)

INPUTS: dict[str, tuple[str, ...]] = {
    "corpus": (),
    "rows": (),
    "tokenizer": ("corpus",),
    "shards": ("corpus", "tokenizer"),
    "conversations": ("rows", "tokenizer"),
    "honesty": ("corpus", "rows"),
    "host": (),
    "preflight": ("corpus", "rows", "tokenizer", "shards", "conversations", "honesty", "host"),
    "base": ("shards", "tokenizer"),
    "sft": ("base", "conversations", "tokenizer"),
    "scores": ("base", "sft", "rows", "honesty", "shards", "tokenizer"),
    "parity": ("sft", "tokenizer"),
    "gate": ("preflight", "honesty", "base", "sft", "scores", "parity", "rows"),
    "summary": ("gate",),
}
CHANCE = {"choice": 0.25}
FAILING = 10  # of each stage's rows, every tenth fails


def make_run(
    root: Path, *, until: str = "summary", config: RunConfig | None = None, facts: Mapping[str, Record] | None = None
) -> RunDir:
    """A run folder with every artifact up to `until`. `facts`: other facts than the healthy ones, by kind."""
    run = RunDir(root)
    resolved = config or make_config()
    write_json(run.config, ResolvedConfig(config=resolved, origins=dict.fromkeys(flatten(resolved), "scale")))
    write_json(run.machine, make_machine())
    artifacts: dict[str, Artifact] = {}
    for place in PLACES:
        inputs = {kind: artifacts[kind] for kind in INPUTS[place.kind]}
        digests = {kind: artifact.digest for kind, artifact in inputs.items()}
        with publish(run.place(place.kind), place.kind, f"key of {place.kind}", digests) as draft:
            _fill(place.kind, draft, inputs, artifacts, run, resolved, dict(facts or {}))
        assert draft.artifact
        artifacts[place.kind] = draft.artifact
        if place.kind == until:
            break
    run.write_front_pages()
    return run


def make_machine() -> MachineRecord:
    return MachineRecord(
        system="Linux 6 x86_64",
        python="3.12.0",
        cpu="some processor",
        cores=16,
        memory_bytes=128 << 30,
        gpus=["NVIDIA H100 80GB HBM3, 81559 MiB, 570.00, 700.00 W"],
        versions={"picochat": "0.1.0", "torch": "2.13.0"},
        commit="0123456789abcdef0123456789abcdef01234567",
    )


def count_replies(scores: Artifact, rows: Artifact, honesty: Artifact) -> ScoresFacts:
    """The scores again from replies.jsonl: a stand-in for the evaluator's own function, over this builder's rows."""
    stated = facts_of(scores, ScoresFacts)
    replies = [row for _, row in read_jsonl(scores.path("replies.jsonl"))]
    skills = {skill: _count_skill([row for row in replies if row["skill"] == skill], skill) for skill in STAGES}
    return change(stated, skills=skills)


def _count_skill(rows: list[dict[str, Any]], skill: str) -> SkillScore:
    rate = make_rate(sum(row["passed"] for row in rows), len(rows))
    stages = sorted({row["stage"] for row in rows})
    return SkillScore(
        all=rate,
        clean=rate,
        base=make_rate(sum(row["base_passed"] for row in rows), len(rows)),
        chance=CHANCE.get(skill, 0.0),
        stages={stage: _stage_rate([row for row in rows if row["stage"] == stage]) for stage in stages},
    )


def _stage_rate(rows: list[dict[str, Any]]) -> Any:
    return make_rate(sum(row["passed"] for row in rows), len(rows))


def make_replies() -> list[dict[str, Any]]:
    """One row for each eval row, one in ten failing."""
    return [
        {
            "id": f"{skill}-{stage}-{number:03d}",
            "skill": skill,
            "stage": stage,
            "prompt": f"question {number} of {stage}",
            "expected": f"answer {number}",
            "reply": f"answer {number}" if number % FAILING else "<script>alert(1)</script> | no",
            "base_reply": "the the the",
            "passed": bool(number % FAILING),
            "base_passed": number % FAILING == 1,
            "reason": "" if number % FAILING else "another answer",
        }
        for skill, stages in STAGES.items()
        for stage, count in stages.items()
        for number in range(count)
    ]


def _fill(
    kind: str,
    draft: Draft,
    inputs: dict[str, Artifact],
    artifacts: dict[str, Artifact],
    run: RunDir,
    config: RunConfig,
    facts: dict[str, Record],
) -> None:
    if kind == "preflight":
        run_preflight(**inputs, config=config, draft=draft)
    elif kind == "gate":
        run_gate(**inputs, config=config, draft=draft)
    elif kind == "summary":
        write_summary(run, config, draft)
    elif kind == "scores":
        _fill_scores(draft, artifacts, facts)
    else:
        WRITERS.get(kind, _fill_plain)(kind, draft)
        healthy = HEALTHY.get(kind)
        chosen = facts.get(kind) or (healthy() if healthy else None)
        draft.facts = chosen.model_dump(mode="json") if chosen and place_of(kind).facts else {}
        if kind == "host":
            write_json(draft.observation("host.json"), chosen)


def _fill_scores(draft: Draft, artifacts: dict[str, Artifact], facts: dict[str, Record]) -> None:
    write_jsonl(draft.path("replies.jsonl"), make_replies())
    write_json(draft.path("report.json"), {})
    draft.path("report.md").write_text("# Scores\n")
    stated = facts.get("scores") or make_scores_facts(scored_checkpoint=artifacts["sft"].digest)
    skills = {skill: _count_skill([row for row in make_replies() if row["skill"] == skill], skill) for skill in STAGES}
    draft.facts = change(stated, skills=skills).model_dump(mode="json")


def _fill_plain(kind: str, draft: Draft) -> None:
    """The files that the place promises, each with a line that names it."""
    for name in place_of(kind).files.split():
        if kind != "host" and "." in name:
            draft.path(name.rstrip(",")).write_text(json.dumps({"file": name}) + "\n")


def _fill_corpus(kind: str, draft: Draft) -> None:
    _fill_plain(kind, draft)
    for source in make_corpus_facts().sources:
        write_json(draft.path(f"import_reports/{source.label}.json"), {"label": source.label})
    write_json(draft.observation("location.json"), {"root": "/home/somebody/private"})


def _fill_shards(kind: str, draft: Draft) -> None:
    for split in ("train", "held_out"):
        draft.path(f"{split}-00000.bin").write_bytes(bytes(64))
        write_json(draft.path(f"{split}-00000.json"), {"tokens": 32})


def _fill_checkpoint(kind: str, draft: Draft) -> None:
    write_json(draft.path("model.json"), {"stage": kind})
    draft.path("model.safetensors").write_bytes(f"weights of {kind}".encode() * 50)
    curve = [
        {
            "step": step,
            "tokens": step * 65_536,
            "loss": 3 + 6 / (1 + step / 50),
            "lr": 0.02,
            "grad_norm": 1.0,
            "held_out_bits_per_byte": 1.05 + 2 / step if step % 100 == 0 else None,
        }
        for step in range(10, 401, 10)
    ]
    write_jsonl(draft.path("curve.jsonl"), curve)
    speeds = [{"step": row["step"], "tokens": row["tokens"], "tokens_per_second": 560_000.0, "mfu": 0.41} for row in curve]
    write_jsonl(draft.observation("metrics.jsonl"), speeds)


WRITERS: dict[str, Callable[[str, Draft], None]] = {
    "corpus": _fill_corpus,
    "shards": _fill_shards,
    "base": _fill_checkpoint,
    "sft": _fill_checkpoint,
}
HEALTHY: dict[str, Callable[[], Record]] = {
    "corpus": make_corpus_facts,
    "rows": make_rows_facts,
    "tokenizer": lambda: TokenizerFacts(vocab_size=8192, merges=7_920, trained_on_bytes=200_000_000),
    "shards": make_shards_facts,
    "conversations": make_conversations_facts,
    "honesty": make_honesty_facts,
    "host": make_host_facts,
    "base": lambda: make_train_facts("base"),
    "sft": lambda: make_train_facts("sft"),
    "parity": make_parity_facts,
}
