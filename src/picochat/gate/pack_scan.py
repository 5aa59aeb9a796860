"""Scans a pack's documents and SFT rows for eval rows, without a run.

The contamination rows of the preflight judge the result. Documents come straight from the sources,
so exact duplicates are still among them. The report is no evidence of a run, which scans its own
corpus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from picochat.config import ExternalConfig, GateConfig, RunConfig
from picochat.core.errors import BadInput
from picochat.core.machine import usable_cores
from picochat.core.records import to_jsonable, write_atomic, write_json, write_jsonl
from picochat.data.benchmarks.layouts import read_benchmark
from picochat.data.benchmarks.resolve import require_benchmarks
from picochat.data.pack import TASK_PACK, LoadedPack
from picochat.data.pack_documents import expected_bytes, read_pack
from picochat.facts import FindingRecord, HonestyFacts, RunFacts
from picochat.gate.decide import Strictness, decide, verdict
from picochat.gate.preflight import CHECKS, STATUS
from picochat.gate.render import finding_lines, remedy_lines
from picochat.honesty.contamination_page import contamination_page, plain_id
from picochat.honesty.contamination_scan import ScanFound, item_of_benchmark, scan_rows
from picochat.honesty.items import ScanItem
from picochat.present.values import byte_quantity
from picochat.scales import find_scale
from picochat.skills.row_files import read_eval_rows, read_sft_rows
from picochat.skills.task_rows import row_json

SCHEMA_VERSION = 1
PROFILE = "skill_release"
MOST_HITS_SHOWN = 5


@dataclass(frozen=True)
class ContaminationReport:
    """What the scan found, judged by the release profile."""

    found: ScanFound
    findings: list[FindingRecord]

    @property
    def status(self) -> str:
        """`ready`, `warn` or `blocked`."""
        return STATUS[verdict(self.findings)]

    @property
    def exit_code(self) -> int:
        return 3 if self.status == "blocked" else 0

    def to_json(self) -> dict[str, Any]:
        return {
            **self.found.report,
            "schema_version": SCHEMA_VERSION,
            "status": self.status,
            "facts": to_jsonable(self.found.facts),
            "findings": to_jsonable(self.findings),
        }

    def lines(self) -> list[str]:
        """The report for the terminal; of the hits, the first MOST_HITS_SHOWN."""
        facts = self.found.facts
        title = (
            f"contamination: {self.status} for a release"
            f" ({byte_quantity(facts.scanned_text_bytes)} in {facts.scanned_documents:,} documents,"
            f" {self.found.report['sft_rows']:,} SFT rows)"
        )
        return [
            title,
            "",
            *_table(facts),
            "",
            *finding_lines(self.findings),
            *remedy_lines(self.findings),
            *self._places(),
        ]

    def _places(self) -> list[str]:
        hits = [
            f"{plain_id(hit.row)} in {plain_id(hit.document)} at {hit.offset}: {hit.words}"
            for hit in self.found.hits
        ]
        shown, more = hits[:MOST_HITS_SHOWN], hits[MOST_HITS_SHOWN:]
        if more:
            shown.append(f"and {len(more)} more in hits.jsonl")
        return ["", "found:", *(f"  {line}" for line in shown)] if shown else []


def _table(facts: HonestyFacts) -> list[str]:
    counts = [
        (plain_id(name), count, contaminated.get(name, 0))
        for rows, contaminated in (
            (facts.eval_by_skill, facts.corpus_contaminated_by_skill),
            (facts.external_rows, facts.external_contaminated),
        )
        for name, count in rows.items()
    ]
    table = [("", "rows", "in the corpus"), *counts]
    width = max(len(name) for name, _, _ in table)
    return [f"{name:{width}}  {count:>6}  {found:>13}" for name, count, found in table]


def scan_pack(
    pack: LoadedPack,
    *,
    eval_input: Path | None = None,
    benchmarks: Mapping[str, Sequence[ScanItem]] | None = None,
    workers: int | None = None,
) -> ContaminationReport:
    """Scan a pack for its eval rows, or for those of another file, and for benchmark items.

    Raises BadInput if there is nothing to look for.
    """
    eval_path = eval_input or pack.eval_path
    if eval_path is None and not benchmarks:
        fix = (
            "name a file of them with --eval-input, or make rows of the skills: "
            + TASK_PACK.format(pack=quote(str(pack.path)))
        )
        raise BadInput(f"pack {pack.path} names no eval rows to look for", fix=fix)
    evals = [row_json(row) for row in read_eval_rows(eval_path).rows] if eval_path else []
    sft = [row_json(row) for row in read_sft_rows(pack.chat_path).rows] if pack.chat_path else []
    config = find_scale("tiny").config.model_copy(update={"gate": GateConfig(profile=PROFILE)})
    found = scan_rows(
        evals,
        sft,
        ((document.id, document.text) for document in read_pack(pack, config.data.min_chars)),
        config.honesty,
        workers=workers or usable_cores(),
        corpus_bytes=None,
        expected_bytes=expected_bytes(pack),
        benchmarks=benchmarks,
    )
    return ContaminationReport(found, contamination_findings(found.facts, config))


def benchmark_items(external: ExternalConfig) -> dict[str, list[ScanItem]]:
    """Every row of the named benchmarks, as items to scan for.

    Raises HubProblem with the name of each benchmark that cannot be resolved.
    """
    return {
        found.name: [
            item_of_benchmark(found.name, row)
            for row in read_benchmark(found.name, found.files).items
        ]
        for found in require_benchmarks(external).found
    }


def write_reports(report: ContaminationReport, folder: Path) -> None:
    """Write hits.jsonl, report.json and report.md."""
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "hits.jsonl", report.found.hits)
    write_json(folder / "report.json", report.to_json())
    write_atomic(
        folder / "report.md", contamination_page(report.found.facts, report.found.report).encode()
    )


def contamination_findings(facts: HonestyFacts, config: RunConfig) -> list[FindingRecord]:
    """The findings of those preflight rows on contamination that can be measured here."""
    run = RunFacts(config=config, honesty=facts)
    rows = [row for row in CHECKS if row.name.startswith("contamination_")]
    measured = [row for row in rows if row.measure(run) is not None]
    return decide(measured, run, Strictness(PROFILE, softened=False))
