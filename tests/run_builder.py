"""`make_run`: a whole run folder as the stages publish it, without training: real artifacts,
manifests, verdicts and pages.

Facts are the healthy ones of builders.py. Weights and shards are a few bytes; everything that
decides is real: the preflight, the gate and the summary are made by their own stages, and the
scores follow from real rows and kept replies.
"""

from __future__ import annotations

import atexit
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from picochat.config import ResolvedConfig, RunConfig, flatten
from picochat.core.journal import Journal
from picochat.core.machine import MachineRecord
from picochat.core.publish import Artifact, StagingFolder, publish
from picochat.core.records import (
    Record,
    canonical_json,
    digest_bytes,
    read_record,
    write_json,
    write_jsonl,
)
from picochat.data.benchmarks.stage import BenchmarkSource
from picochat.evals.eval_records import EvaluatedRow, HeldOutDocument, Memorization, ScoresMeasured
from picochat.evals.evaluate import questions
from picochat.evals.external import external_scores_of
from picochat.evals.scores import scores_of
from picochat.facts import RunFacts, ScoresFacts, StateRow, TokenizerFacts
from picochat.gate.preflight import run_preflight
from picochat.gate.release import run_gate
from picochat.release.bundle import PLACEHOLDER
from picochat.report.summary import claims, observed, rendered, write_summary
from picochat.run.folder import RunDir
from picochat.run.graph import ARTIFACTS, read_facts, spec_of
from picochat.skills.mixture import make_rows
from picochat.skills.prepare import RowsMeasured
from picochat.skills.scoring import with_options_listed
from picochat.skills.task_rows import EvalRow, SftRow, as_eval_row, row_json
from tests.builders import (
    make_benchmark_items,
    make_benchmarks_facts,
    make_config,
    make_conversations_facts,
    make_corpus_facts,
    make_exercises_facts,
    make_external_answers,
    make_honesty_facts,
    make_host_facts,
    make_parity_facts,
    make_rows_facts,
    make_scores_facts,
    make_shards_facts,
    make_train_facts,
    make_trivial_facts,
    own_rows,
)

FAILING = 10  # each tenth reply to a question that has an answer fails
HOSTILE = "<script>alert(1)</script> | [no](x)"


def make_run(
    root: Path,
    *,
    until: str = "summary",
    config: RunConfig | None = None,
    facts: Mapping[str, Record] | None = None,
) -> RunDir:
    """An approved first release with every artifact up to `until`.

    `facts`: other facts than the healthy ones, by kind.
    """
    resolved = config or make_config(gate={"profile": "first_release"})
    shutil.copytree(_built(until, resolved, dict(facts or {})), root)
    return RunDir(root)


BUILT: dict[tuple[str, bytes, bytes], Path] = {}


def _built(until: str, config: RunConfig, facts: dict[str, Record]) -> Path:
    """A run folder of these values, built once in a process: tests change a copy of it."""
    name = (until, canonical_json(config), canonical_json(facts))
    if name not in BUILT:
        folder = Path(tempfile.mkdtemp(prefix="picochat-test-run-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _build(RunDir(folder / "run"), until, config, facts)
        BUILT[name] = folder / "run"
    return BUILT[name]


def _build(run: RunDir, until: str, resolved: RunConfig, facts: dict[str, Record]) -> None:
    write_json(
        run.config,
        ResolvedConfig(config=resolved, origins=dict.fromkeys(flatten(resolved), "scale")),
    )
    write_json(run.machine, make_machine())
    artifacts: dict[str, Artifact] = {}
    timings = Journal(run.timings)
    for place in ARTIFACTS:
        timings.append({"stage": place.kind, "seconds": 36.0, "time": 1.0})
        inputs = {kind: artifacts[kind] for kind in place.inputs}
        digests = {kind: artifact.digest for kind, artifact in inputs.items()}
        with publish(run.place(place.kind), place.kind, f"key of {place.kind}", digests) as staging:
            _fill(place.kind, staging, inputs, artifacts, run, resolved, facts)
        assert staging.artifact
        artifacts[place.kind] = staging.artifact
        if place.kind == until:
            break
    run.write_front_pages()


def facts_of_run(run: RunDir) -> RunFacts:
    """The facts of every artifact that the run folder holds."""
    return read_facts(read_record(ResolvedConfig, run.config).config, run.artifacts())


def claims_of(run: RunDir) -> dict[str, Any]:
    return claims(facts_of_run(run))


def observed_of(run: RunDir) -> dict[str, Any]:
    return observed(facts_of_run(run), run.timings, run.machine)


def rendered_of(run: RunDir, seen: dict[str, Any] | None = None) -> dict[str, bytes]:
    """The pages of the summary as they are rendered again."""
    return rendered(facts_of_run(run), seen or observed_of(run))


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


@lru_cache
def make_row_files() -> tuple[tuple[SftRow, ...], tuple[EvalRow, ...]]:
    """Real SFT and eval rows of all skills."""
    sft, evals = make_rows("release_skills", 320, 700, "scratchpad", 42)
    return tuple(sft), tuple(evals)


@lru_cache
def make_replies() -> tuple[EvaluatedRow, ...]:
    """What was said to every eval row and some SFT rows: the reference answer, but each tenth reply
    is a hostile text.
    """
    sft, evals = make_row_files()
    asked = [_ask("eval", row, number) for number, row in enumerate(evals)]
    asked += [
        _ask("eval_listed", row, number)
        for number, row in enumerate(filter(None, map(with_options_listed, evals)))
    ]
    asked += [_ask("sft_train", as_eval_row(row), number) for number, row in enumerate(sft[:40])]
    return tuple(
        asked
        + [_ask("sft_held_out", as_eval_row(row), number) for number, row in enumerate(sft[-40:])]
    )


def _ask(kind: str, row: EvalRow, number: int) -> EvaluatedRow:
    fails = number % FAILING == 0 and row.answerable
    likelihoods = [
        -1.0 if (label == row.correct_choice) != fails else -2.0 for label in row.choice_labels
    ]
    return EvaluatedRow.model_validate(
        {
            "id": row.id,
            "set": kind,
            "skill": row.skill,
            "stage": row.curriculum_stage,
            "prompt": row.user,
            "expected": row.reference_answer,
            "reply": HOSTILE if fails else row.reference_answer,
            "log_likelihoods": likelihoods or None,
            "base_reply": "the the the" if kind == "eval" else None,
            "base_log_likelihoods": [-1.0 for _ in likelihoods] or None if kind == "eval" else None,
        }
    )


def _fill(
    kind: str,
    staging: StagingFolder,
    inputs: dict[str, Artifact],
    artifacts: dict[str, Artifact],
    run: RunDir,
    config: RunConfig,
    facts: dict[str, Record],
) -> None:
    if kind == "preflight":
        run_preflight(read_facts(config, inputs), staging)
    elif kind == "gate":
        run_gate(read_facts(config, inputs), staging)
    elif kind == "summary":
        write_summary(read_facts(config, inputs), run.timings, run.machine, staging)
    elif kind == "scores":
        _fill_scores(staging, artifacts, facts)
    else:
        WRITERS.get(kind, _fill_plain)(kind, staging)
        healthy = HEALTHY.get(kind)
        chosen = facts.get(kind) or (healthy() if healthy else None)
        staging.facts = chosen.model_dump(mode="json") if chosen and spec_of(kind).facts else {}
        if kind == "host":
            write_json(staging.volatile("host.json"), chosen)


def _fill_scores(
    staging: StagingFolder, artifacts: dict[str, Artifact], facts: dict[str, Record]
) -> None:
    """The files of an evaluation and the scores that follow from them; `facts` changes what is
    measured, not counted.
    """
    stated = facts.get("scores") or make_scores_facts()
    assert isinstance(stated, ScoresFacts)
    measured = ScoresMeasured.model_validate(
        {name: getattr(stated, name) for name in ScoresMeasured.model_fields}
    )
    memorized = [
        Memorization(position=number, expected=[1, 2], continued=[2, 1]) for number in range(64)
    ]
    write_jsonl(staging.path("replies.jsonl"), make_replies())
    write_jsonl(staging.path("memorization.jsonl"), memorized)
    write_json(staging.path("measured.json"), measured)
    held_out = make_held_out(stated.base_bits_per_byte, stated.sft_bits_per_byte)
    write_jsonl(staging.path("held_out.jsonl"), held_out)
    rows = {row.id: row for _, row in questions(artifacts["rows"], None)}
    items = make_benchmark_items()
    answers = make_external_answers(items, 330)
    write_jsonl(staging.path("external.jsonl"), answers)
    external = external_scores_of(make_benchmarks_facts().benchmarks, items, answers, {})
    scores = scores_of(
        rows, make_replies(), memorized, measured, held_out, (), artifacts["sft"].digest, external
    )
    write_json(staging.path("report.json"), scores)
    staging.path("report.md").write_text("# Scores\n")
    staging.facts = scores.model_dump(mode="json")


def make_held_out(base_bits: float | None, chat_bits: float | None) -> list[HeldOutDocument]:
    """Forty documents with the bytes of the healthy shards, all with these bits per byte.

    Fewer than the shards state, so that a comparison of such runs is quick.
    """
    size = make_shards_facts().held_out_text_bytes // 40
    return [
        HeldOutDocument(
            sha256=digest_bytes(str(number).encode()),
            text_bytes=size,
            base_nats=None if base_bits is None else base_bits * size * math.log(2),
            chat_nats=None if chat_bits is None else chat_bits * size * math.log(2),
        )
        for number in range(40)
    ]


def _fill_rows(kind: str, staging: StagingFolder) -> None:
    sft, evals = make_row_files()
    for name, rows in (("sft_train", sft[:-40]), ("sft_held_out", sft[-40:]), ("eval", evals)):
        write_jsonl(staging.path(f"{name}.jsonl"), (row_json(row) for row in rows))
    measured = RowsMeasured(chat=own_rows(len(sft)), evals=own_rows(len(evals)), sources=[])
    write_json(staging.path("measured.json"), measured)


def _fill_plain(kind: str, staging: StagingFolder) -> None:
    """The files that the place promises, each with a line that names it."""
    for name in spec_of(kind).files.split():
        if kind != "host" and "." in name and not PLACEHOLDER.search(name):
            staging.path(name.rstrip(",")).write_text(json.dumps({"file": name}) + "\n")


def _fill_corpus(kind: str, staging: StagingFolder) -> None:
    _fill_plain(kind, staging)
    for source in make_corpus_facts().sources:
        write_json(staging.path(f"import_reports/{source.label}.json"), {"label": source.label})
    write_json(staging.volatile("location.json"), {"root": "/home/somebody/private"})


def _fill_honesty(kind: str, staging: StagingFolder) -> None:
    _fill_plain(kind, staging)
    staging.path("hits.jsonl").write_bytes(b"\n")  # none


def _fill_exercises(kind: str, staging: StagingFolder) -> None:
    _fill_plain(kind, staging)
    staging.path("shard-000000.jsonl.zst").write_bytes(bytes(64))


def _fill_benchmarks(kind: str, staging: StagingFolder) -> None:
    write_jsonl(staging.path("items.jsonl"), make_benchmark_items())
    sources = {
        name: facts.model_dump(mode="json", include=set(BenchmarkSource.model_fields))
        for name, facts in make_benchmarks_facts().benchmarks.items()
    }
    write_json(staging.path("sources.json"), {"benchmarks": sources})
    write_jsonl(staging.path("rows/science_questions.jsonl"), [{"question": "somebody's"}])
    write_json(staging.volatile("unresolved.json"), {})


def _fill_shards(kind: str, staging: StagingFolder) -> None:
    for split in ("train", "held_out"):
        staging.path(f"{split}-00000.bin").write_bytes(bytes(64))
        staging.path(f"{split}-00000.starts").write_bytes(bytes(8))
        write_json(staging.path(f"{split}-00000.json"), {"tokens": 32})
    write_json(staging.path("encoding.json"), {"documents": 2})


def _fill_checkpoint(kind: str, staging: StagingFolder) -> None:
    write_json(staging.path("model.json"), {"stage": kind})
    staging.path("model.safetensors").write_bytes(f"weights of {kind}".encode() * 50)
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
    write_jsonl(staging.path("curve.jsonl"), curve)
    measured = {"skipped_steps": 0, "spikes": None, "largest_centre_error": 1e-9}
    write_json(staging.path("measured.json"), measured)
    speeds = [
        {"step": row["step"], "tokens": row["tokens"], "tokens_per_second": 560_000.0, "mfu": 0.41}
        for row in curve
    ]
    write_jsonl(staging.volatile("metrics.jsonl"), speeds)
    states = [StateRow(step=400, skipped=0, files={})]
    write_jsonl(staging.volatile("states.jsonl"), states)


WRITERS: dict[str, Callable[[str, StagingFolder], None]] = {
    "corpus": _fill_corpus,
    "exercises": _fill_exercises,
    "rows": _fill_rows,
    "honesty": _fill_honesty,
    "benchmarks": _fill_benchmarks,
    "shards": _fill_shards,
    "base": _fill_checkpoint,
    "sft": _fill_checkpoint,
}
HEALTHY: dict[str, Callable[[], Record]] = {
    "corpus": make_corpus_facts,
    "exercises": make_exercises_facts,
    "rows": make_rows_facts,
    "benchmarks": make_benchmarks_facts,
    "tokenizer": lambda: TokenizerFacts(vocab_size=8192, merges=7_920),
    "shards": make_shards_facts,
    "conversations": make_conversations_facts,
    "honesty": make_honesty_facts,
    "trivial": make_trivial_facts,
    "host": make_host_facts,
    "base": lambda: make_train_facts("base"),
    "sft": lambda: make_train_facts("sft"),
    "parity": make_parity_facts,
}
