"""A publisher who wants to claim more than is true: changes a run's files or facts, and makes
everything that has no secret agree with the change: digests, the chain of inputs, scores, both
verdicts, the summary's pages and the bundle.

What verification still finds was found because a claim does not follow from the evidence, not
because a digest was forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from picochat.config import ResolvedConfig, flatten
from picochat.core.journal import Journal
from picochat.core.machine import machine_record
from picochat.core.publish import Artifact, Manifest, StagingFolder, publish
from picochat.core.records import digest_bytes, pretty_json, read_record, write_json
from picochat.data.benchmarks.resolve import resolve_benchmarks
from picochat.data.pack import load_pack
from picochat.evals.eval_records import read_replies
from picochat.evals.evaluate import facts_from, questions
from picochat.evals.scores import scores_page
from picochat.gate.preflight import run_preflight
from picochat.gate.release import run_gate
from picochat.report.summary import rendered
from picochat.run.folder import RunDir
from picochat.run.graph import ARTIFACTS, read_facts
from tests.builders import change, make_config, make_host_facts
from tests.data.benchmarks.builders import arc_rows, write_lines
from tests.small_pack import SHAPE, make_pack

Rows = list[dict[str, Any]]
TINY: dict[str, dict[str, Any]] = {
    "base": {"steps": 4, "sequences_per_step": 4, "eval_every": 2},
    "sft": {"steps": 2, "sequences_per_step": 8},
    "evals": {"max_new_tokens": 4, "fit_rows": 5},
}


def make_real_run(
    root: Path, training_seed: int = 42, more: dict[str, Any] | None = None
) -> RunDir:
    """A run of four steps by the stages themselves, with a benchmark; only what the host can do is
    not measured but stated. more: `section.key` -> value, beside those of SHAPE.
    """
    shape: dict[str, dict[str, Any]] = {}
    for key, value in {**SHAPE, **(more or {})}.items():
        section, _, name = key.partition(".")
        shape.setdefault(section, {})[name] = value
    quiz = write_lines(root / "quiz.jsonl", arc_rows(60))
    config = change(
        make_config("tiny", **shape, **TINY, external={"benchmarks": (f"quiz={quiz}",)}),
        training_seed=training_seed,
    )
    run, pack = RunDir(root / "run"), load_pack(make_pack(root / "pack"))
    write_json(
        run.config, ResolvedConfig(config=config, origins=dict.fromkeys(flatten(config), "scale"))
    )
    write_json(run.machine, change(machine_record(), commit="0" * 40))
    given = {
        "pack": pack,
        "track": None,
        "gpu_hour_usd": None,
        "timings": run.timings,
        "machine": run.machine,
        "benchmark_files": resolve_benchmarks(config.external),
    }
    made: dict[str, Artifact] = {}
    for stage in ARTIFACTS:
        settings = {
            name: given[name] if name in given else getattr(config, name, None)
            for name in stage.settings
        }
        needs = {need: made[need] for need in stage.inputs}
        digests = {need: made[need].digest for need in stage.inputs}
        if "facts" in stage.settings:
            settings["facts"], needs = read_facts(config, needs), {}
        with publish(run.place(stage.kind), stage.kind, f"key of {stage.kind}", digests) as staging:
            if stage.kind == "host":
                write_json(staging.volatile("host.json"), make_host_facts())
            else:
                stage.make(**needs, **settings, staging=staging)
        assert staging.artifact
        made[stage.kind] = staging.artifact
        Journal(run.timings).append({"stage": stage.kind, "seconds": 36.0, "time": 1.0})
    run.write_front_pages()
    return run


def rows_of(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def change_rows(path: Path, change: Callable[[Rows], Rows]) -> None:
    """Write the rows of a .jsonl file as `change` makes them."""
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in change(rows_of(path))),
        "utf-8",
    )


def change_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_text("utf-8"))
    change(value)
    path.write_bytes(pretty_json(value))


def change_facts(run: RunDir, kind: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what an artifact's manifest states."""
    change_json(run.place(kind) / "manifest.json", lambda manifest: change(manifest["facts"]))


def change_config(run: RunDir, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the values of run.json."""
    change_json(run.config, lambda resolved: change(resolved["config"]))


def settle(run: RunDir, *, judge: bool = True) -> None:
    """Let the whole run agree with its files as they are now. judge: decide and render again, as an
    honest run would.
    """
    artifacts: dict[str, Artifact] = {}
    for place in ARTIFACTS:
        if not run.has(place.kind):
            continue
        facts = _made_again(place.kind, run, artifacts, place.inputs) if judge else None
        artifacts[place.kind] = _relinked(run, place.kind, artifacts, facts)
    run.write_front_pages()


def _made_again(
    kind: str, run: RunDir, artifacts: dict[str, Artifact], needs: tuple[str, ...]
) -> dict[str, Any] | None:
    config = read_record(ResolvedConfig, run.config).config
    staging = StagingFolder(run.place(kind), run.place(kind))
    if kind == "scores":
        return _scores(run, artifacts)
    if kind in ("preflight", "gate"):
        stage = run_preflight if kind == "preflight" else run_gate
        stage(read_facts(config, {need: artifacts[need] for need in needs}), staging)
        return staging.facts
    if kind == "summary":
        seen = json.loads(staging.path("observed.json").read_text("utf-8"))
        for name, data in rendered(read_facts(config, artifacts), seen).items():
            staging.path(name).write_bytes(data)
    return None


def _scores(run: RunDir, artifacts: dict[str, Artifact]) -> dict[str, Any]:
    stated = _relinked(run, "scores", artifacts, None)
    facts = facts_from(stated.place, artifacts)
    by_id = {row.id: row for _, row in questions(artifacts["rows"], None)}
    write_json(stated.path("report.json"), facts)
    stated.path("report.md").write_text(
        scores_page(facts, by_id, read_replies(stated.place)), "utf-8"
    )
    return facts.model_dump(mode="json")


def _relinked(
    run: RunDir, kind: str, artifacts: dict[str, Artifact], facts: dict[str, Any] | None
) -> Artifact:
    """The artifact with a manifest that states its files and inputs as they are now."""
    folder = run.place(kind)
    value = json.loads((folder / "manifest.json").read_text("utf-8"))
    value["inputs"] = {
        name: artifacts[name].digest if name in artifacts else digest
        for name, digest in value["inputs"].items()
    }
    for table in (value["files"], value["volatile_files"]):
        for name in [name for name in table if (folder / name).exists()]:
            data = (folder / name).read_bytes()
            table[name] = {"sha256": digest_bytes(data), "bytes": len(data)}
    value["facts"] = value["facts"] if facts is None else facts
    manifest = Manifest.model_validate_json(json.dumps(value)).sealed()
    (folder / "manifest.json").write_bytes(pretty_json(manifest))
    return Artifact(folder, manifest, manifest.digest())
