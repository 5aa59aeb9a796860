"""The benchmarks stage: what external benchmarks this run is scored on, as items with digests.

`rows/NAME.jsonl` holds the texts, which are other people's and stay out of bundles; `items.jsonl`
holds for each item what its score follows from, and the digest of its text. Why a benchmark is not
here depends on the day: `unresolved.json` says it, as an observation, and the facts only name it.
"""

from __future__ import annotations

from picochat.config import ExternalConfig
from picochat.core.publish import Artifact, Draft
from picochat.core.records import (
    Record,
    digest_json,
    parse_record,
    read_jsonl,
    write_json,
    write_jsonl,
)
from picochat.data.benchmarks.layouts import BenchmarkRow
from picochat.data.benchmarks.resolve import Resolution, Resolved
from picochat.data.benchmarks.rows import BenchmarkItems, read_benchmark, sample_items
from picochat.facts import BenchmarkFacts, BenchmarksFacts

ITEMS = "items.jsonl"


class BenchmarkItem(Record):
    """An item without its text.

    `digest`: of the row in rows/NAME.jsonl. `characters`: of each option, which acc_norm divides
    by.
    """

    id: str
    benchmark: str
    digest: str
    characters: list[int]
    correct: int


def publish_benchmarks(external: ExternalConfig, benchmark_files: Resolution, draft: Draft) -> None:
    """Write every benchmark's rows, all items and the BenchmarksFacts."""
    facts: dict[str, BenchmarkFacts] = {}
    items: list[BenchmarkItem] = []
    for resolved in benchmark_files.found:
        found = read_benchmark(resolved.name, resolved.files)
        scored = sample_items(found.items, external.max_rows)
        write_jsonl(draft.path(f"rows/{resolved.name}.jsonl"), scored)
        items += [item_of(resolved.name, row) for row in scored]
        facts[resolved.name] = _facts(resolved, found, scored)
    write_jsonl(draft.path(ITEMS), items)
    write_json(draft.observation("unresolved.json"), dict(benchmark_files.missing))
    draft.facts = BenchmarksFacts(
        benchmarks=facts, unresolved=sorted(benchmark_files.missing)
    ).model_dump(mode="json")


def item_of(benchmark: str, row: BenchmarkRow) -> BenchmarkItem:
    characters = [len(option) for option in row.options]
    return BenchmarkItem(
        id=row.id,
        benchmark=benchmark,
        digest=digest_json(row),
        characters=characters,
        correct=row.correct,
    )


def read_items(benchmarks: Artifact) -> list[BenchmarkItem]:
    """The items of the artifact, all benchmarks, as published."""
    path = benchmarks.path(ITEMS)
    return [
        parse_record(BenchmarkItem, value, f"{ITEMS}, line {line}")
        for line, value in read_jsonl(path, "items")
    ]


def read_texts(benchmarks: Artifact, name: str) -> list[BenchmarkRow]:
    """One benchmark's rows with their texts.

    Raises BadInput where the artifact is one out of a bundle, which has none.
    """
    path = benchmarks.path(f"rows/{name}.jsonl")
    return [
        parse_record(BenchmarkRow, value, f"{path.name}, line {line}")
        for line, value in read_jsonl(path, "benchmark rows")
    ]


def _facts(resolved: Resolved, found: BenchmarkItems, scored: list[BenchmarkRow]) -> BenchmarkFacts:
    fetched = resolved.fetched
    return BenchmarkFacts(
        layout=found.layout.name,
        read_by=found.layout.read_by,
        dataset=fetched.dataset if fetched else None,
        config=fetched.config if fetched else None,
        split=fetched.split if fetched else None,
        revision=fetched.revision if fetched else None,
        licence=fetched.licence if fetched else None,
        files={file.name: file.sha256 for file in resolved.files},
        rows_read=found.rows_read,
        unusable=found.unusable,
        usable_rows=len(found.items),
        rows=len(scored),
        chance=sum(1 / len(row.options) for row in scored) / len(scored),
    )
