"""Announces a run before it is trained: `picochat run preregister`.

`preregistration.json` states what will be trained and judged: settings, training seeds, every
artifact that is made before training, and both tables of bounds. The same command gives the same
bytes on every machine, so it holds no date: who publishes it where others see when gives it one.
`preregistration.md` is the same to read. The eval rows are announced by digest; their texts only on
request, because public questions end up in training text. Does not judge the run, and needs no GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from picochat.config import ResolvedConfig, RunConfig, flatten
from picochat.core.machine import picochat_version
from picochat.core.progress import say
from picochat.core.publish import Artifact, FileDigest, set_aside
from picochat.core.records import Record, digest_bytes, pretty_json, read_jsonl, write_atomic
from picochat.data.benchmarks.resolve import require_benchmarks
from picochat.evals.recipes import BY_DIGEST
from picochat.facts import BenchmarksFacts, CorpusFacts, RowsFacts, facts_of
from picochat.gate.checks_page import table_text
from picochat.gate.decide import Row
from picochat.gate.preflight import CHECKS
from picochat.gate.release import RULES
from picochat.present.values import byte_quantity, count
from picochat.release.push import ANNOUNCED, PushTarget, push_files, require_target
from picochat.run.folder import RunDir
from picochat.run.graph import KNOWN_BEFORE_TRAINING
from picochat.run.request import RunRequest, check_rollbacks, open_request, pack_of
from picochat.run.runner import run_stages

SCHEMA_VERSION = 1
JSON, PAGE = ANNOUNCED
KINDS = tuple(kind for kind in KNOWN_BEFORE_TRAINING if kind != "host")
"""The artifacts that are announced: all before training but what a machine measures of itself."""
NOT_ANNOUNCED = ("training_seed", *BY_DIGEST, "gate.gpu_hour_usd", "gate.budget_usd")
"""Settings that stand elsewhere in the announcement, or say only what an hour costs.

Left out as well is the section `host`, which changes no result.
"""


class AnnouncedArtifact(Record):
    """What the digest of an artifact is taken of; `picochat.core.publish.Manifest` has the rest."""

    inputs: dict[str, str]
    files: dict[str, FileDigest]
    facts: dict[str, Any]


class AnnouncedRow(Record):
    """A row of a verdict's table. `effect`: of a missed block bound in the run's profile."""

    unit: str
    warns_unless: str | None
    blocks_unless: str | None
    effect: str


class Preregistration(Record):
    """preregistration.json.

    picochat: version and commit of the code. settings: `section.key` -> value. checks, rules: of
    preflight and gate, by name and reading. eval_rows: rows/eval.jsonl as values; None: by digest.
    """

    schema_version: int
    picochat: str
    settings: dict[str, Any]
    training_seeds: list[int]
    artifacts: dict[str, AnnouncedArtifact]
    checks: dict[str, AnnouncedRow]
    rules: dict[str, AnnouncedRow]
    eval_rows: list[dict[str, Any]] | None


def announcement_of(
    config: RunConfig, artifacts: Mapping[str, Artifact], picochat: str, seeds: Sequence[int]
) -> Preregistration:
    """The announcement of a run with these settings, artifacts, code and training seeds."""
    settings = {
        key: value
        for key, value in flatten(config).items()
        if key not in NOT_ANNOUNCED and not key.startswith("host.")
    }
    announced = {
        kind: AnnouncedArtifact.model_validate(
            artifacts[kind].manifest.model_dump(include={"inputs", "files", "facts"})
        )
        for kind in KINDS
        if kind in artifacts
    }
    return Preregistration(
        schema_version=SCHEMA_VERSION,
        picochat=picochat,
        settings=settings,
        training_seeds=list(seeds),
        artifacts=announced,
        checks=_table(CHECKS, config.gate.profile),
        rules=_table(RULES, config.gate.profile),
        eval_rows=None,
    )


def _table(rows: Iterable[Row], profile: str) -> dict[str, AnnouncedRow]:
    """The rows that the profile judges."""
    return {
        f"{row.name} ({row.reading})": AnnouncedRow(
            unit=row.unit,
            warns_unless=None if row.warn is None else str(row.warn),
            blocks_unless=None if row.block is None else str(row.block),
            effect=row.severity.of(profile),
        )
        for row in rows
        if row.severity.of(profile) != "off"
    }


def preregister_run(
    request: RunRequest, seeds: int | None, eval_texts: bool, push: PushTarget | None
) -> list[str]:
    """Build what the run needs before training, write the announcement of it, and push it if asked.

    seeds: how many training seeds that follow each other; None: one run. Returns lines for the
    terminal. What is built serves the run. Raises HubProblem where a benchmark cannot be fetched.
    """
    token = require_target(push) if push else ""
    root = request.out_dir
    request = replace(request, dataset_pack=pack_of(request), inputs=None)
    run, resolved, pack = open_request(request)
    check_rollbacks(resolved.config)
    require_benchmarks(resolved.config.external)
    first = resolved.config.training_seed
    if seeds is not None:  # the run folder that `run tiny --seeds` begins with
        run = RunDir(root / f"seed-{first}")
    artifacts = run_stages(run, resolved, pack, last=KINDS[-1])
    announced = announcement_of(
        resolved.config, artifacts, picochat_version(), range(first, first + (seeds or 1))
    )
    if eval_texts:
        rows = read_jsonl(artifacts["rows"].path("eval.jsonl"), "eval rows")
        announced = announced.model_copy(update={"eval_rows": [row for _, row in rows]})
    data = pretty_json(announced)
    page = announcement_page(announced, digest_bytes(data), resolved, artifacts)
    for name, content in ((JSON, data), (PAGE, page.encode())):
        _write_beside_earlier(root / name, content)
    lines = [f"announcement {root / JSON}: sha256 {digest_bytes(data)}", f"page: {root / PAGE}"]
    if push is None:
        return [*lines, PUBLISH_IT]
    message = push.message or "Announce a run before it is trained"
    lines += push_files(root, ANNOUNCED, push, token, message).lines()
    return [*lines, *([NOBODY_SEES_IT] if push.private else [])]


PUBLISH_IT = (
    "publish both files before you train, where others see the date: --push-to-hub --repo-id"
    " OWNER/NAME, or any place that you do not control alone"
)
NOBODY_SEES_IT = "the repository is private: nobody else sees the announcement until it is public"


def _write_beside_earlier(path: Path, data: bytes) -> None:
    """Write a file of the announcement. Another one that is there may be published: it is kept."""
    if path.exists() and path.read_bytes() != data:
        say(f"{path} was another announcement; it is now {set_aside(path).name}")
    write_atomic(path, data)


# ---- the page ------------------------------------------------------------------------------------


def announcement_page(
    announced: Preregistration,
    digest: str,
    resolved: ResolvedConfig,
    artifacts: Mapping[str, Artifact],
) -> str:
    """preregistration.md: what a reader wants to know first, and the table of the release gate."""
    config = resolved.config
    corpus = facts_of(artifacts["corpus"], CorpusFacts)
    rows = facts_of(artifacts["rows"], RowsFacts)
    benchmarks = facts_of(artifacts["benchmarks"], BenchmarksFacts).benchmarks
    eval_file = announced.artifacts["rows"].files["eval.jsonl"]
    chosen = [
        f"`{key}={announced.settings[key]}`"
        for key, origin in resolved.origins.items()
        if origin not in ("default", "scale") and key in announced.settings
    ]
    facts = {
        "scale": f"`{config.scale}`; {count(config.base.steps)} base steps,"
        f" {count(config.sft.steps)} SFT steps",
        "changed settings": ", ".join(chosen) or "none",
        "training seeds": ", ".join(map(str, announced.training_seeds)),
        "text": f"{count(corpus.documents)} documents, {byte_quantity(corpus.text_bytes)}:"
        f" {', '.join(source.label for source in corpus.sources)}",
        "SFT rows": f"{count(rows.sft_train_rows)}, and {count(rows.sft_held_out_rows)} held out",
        "eval rows": f"{count(rows.eval_rows)}; sha256 of rows/eval.jsonl `{eval_file.sha256}`",
        "benchmarks": ", ".join(f"{name} ({count(b.rows)})" for name, b in benchmarks.items())
        or "none",
        "gate profile": config.gate.profile,
        "picochat": announced.picochat,
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return PAGE_TEXT.format(json=JSON, digest=digest, table=table, rules=table_text(RULES))


PAGE_TEXT = """# A run, announced before it is trained

`{json}` beside this page (sha256 `{digest}`)
states every setting, every digest of what is made before training, and every bound. Who has the
bundle of the run compares them: `picochat run verify BUNDLE --preregistration {json}`, or
with the name of this repository on the Hub.

| what | announced |
|---|---|
{table}

## The release gate

{rules}"""
