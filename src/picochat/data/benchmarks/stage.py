"""The benchmarks stage: the external benchmarks that a run is scored on, as items with digests.

`items.jsonl` has what a score needs of each item, and the digest of its text. `rows/NAME.jsonl` has
the texts, which stay out of bundles because others own them. `sources.json` says where each
benchmark comes from. `unresolved.json` says why one is missing. That may differ from day to day, so
the file is outside the artifact's digest, and the facts have only the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from picochat.config import ExternalConfig, RunConfig
from picochat.core.publish import Artifact, StagingFolder
from picochat.core.records import (
    Record,
    digest_json,
    parse_record,
    read_json,
    read_jsonl,
    read_record,
    write_json,
    write_jsonl,
)
from picochat.data.benchmarks.layouts import (
    BenchmarkItems,
    BenchmarkRow,
    find_layout,
    read_benchmark,
    sample_items,
)
from picochat.data.benchmarks.resolve import Resolution, Resolved
from picochat.facts import BenchmarkFacts, BenchmarksFacts

ITEMS = "items.jsonl"


class BenchmarkItem(Record):
    """An item without its text.

    digest: of the row in rows/NAME.jsonl. characters: of each option; acc_norm divides by them.
    """

    id: str
    benchmark: str
    digest: str
    characters: list[int]
    correct: int


class BenchmarkSource(Record):
    """Where a benchmark comes from, and how many rows its files have.

    Fields about the Hub are None for a local file. files: name -> sha256. unusable: reason -> rows
    that are not items.
    """

    layout: str
    dataset: str | None
    config: str | None
    split: str | None
    revision: str | None
    licence: str | None
    files: dict[str, str]
    rows_read: int
    unusable: dict[str, int]


class BenchmarkSources(Record):
    """`sources.json`, by the name of the benchmark."""

    benchmarks: dict[str, BenchmarkSource]


def publish_benchmarks(
    external: ExternalConfig, benchmark_files: Resolution, staging: StagingFolder
) -> None:
    """Write all files of the artifact."""
    sources: dict[str, BenchmarkSource] = {}
    items: list[BenchmarkItem] = []
    for resolved in benchmark_files.found:
        found = read_benchmark(resolved.name, resolved.files)
        scored = sample_items(found.items, external.max_rows)
        write_jsonl(staging.path(f"rows/{resolved.name}.jsonl"), scored)
        items += [item_of(resolved.name, row) for row in scored]
        sources[resolved.name] = _source(resolved, found)
    write_jsonl(staging.path(ITEMS), items)
    write_json(staging.path("sources.json"), BenchmarkSources(benchmarks=sources))
    write_json(staging.volatile("unresolved.json"), dict(benchmark_files.missing))
    staging.facts = facts_from(staging.folder).model_dump(mode="json")


def _source(resolved: Resolved, found: BenchmarkItems) -> BenchmarkSource:
    fetched = resolved.fetched
    return BenchmarkSource(
        layout=found.layout.name,
        dataset=fetched.dataset if fetched else None,
        config=fetched.config if fetched else None,
        split=fetched.split if fetched else None,
        revision=fetched.revision if fetched else None,
        licence=fetched.licence if fetched else None,
        files={file.name: file.sha256 for file in resolved.files},
        rows_read=found.rows_read,
        unusable=found.unusable,
    )


def facts_from(
    files: Path, inputs: Mapping[str, Artifact] | None = None, config: RunConfig | None = None
) -> BenchmarksFacts:
    """The facts of the benchmarks, from their files; `inputs` and `config` are not used."""
    listed = read_record(BenchmarkSources, files / "sources.json", "benchmark sources")
    chances: dict[str, list[float]] = {name: [] for name in listed.benchmarks}
    for item in _items(files / ITEMS):
        if item.benchmark in chances:
            chances[item.benchmark].append(1 / len(item.characters))
    facts = {
        name: BenchmarkFacts(
            **source.model_dump(),
            read_by=find_layout(source.layout).read_by,
            usable_rows=source.rows_read - sum(source.unusable.values()),
            rows=len(chances[name]),
            chance=sum(chances[name]) / len(chances[name]) if chances[name] else None,
        )
        for name, source in listed.benchmarks.items()
    }
    unresolved = read_json(files / "unresolved.json", "unresolved benchmarks")
    return BenchmarksFacts(benchmarks=facts, unresolved=sorted(unresolved))


def item_of(benchmark: str, row: BenchmarkRow) -> BenchmarkItem:
    """The row without its text."""
    return BenchmarkItem(
        id=row.id,
        benchmark=benchmark,
        digest=digest_json(row),
        characters=[len(option) for option in row.options],
        correct=row.correct,
    )


def read_items(benchmarks: Artifact) -> list[BenchmarkItem]:
    """The items of all benchmarks, in the order of the artifact."""
    return _items(benchmarks.path(ITEMS))


def _items(path: Path) -> list[BenchmarkItem]:
    return [
        parse_record(BenchmarkItem, value, f"{ITEMS}, line {line}")
        for line, value in read_jsonl(path, "items")
    ]


def read_texts(benchmarks: Artifact, name: str) -> list[BenchmarkRow]:
    """The rows of one benchmark with their texts. Raises BadInput if a bundle left them out."""
    path = benchmarks.path(f"rows/{name}.jsonl")
    return [
        parse_record(BenchmarkRow, value, f"{path.name}, line {line}")
        for line, value in read_jsonl(path, "benchmark rows")
    ]
