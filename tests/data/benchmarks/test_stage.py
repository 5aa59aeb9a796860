from pathlib import Path

from picochat.core.records import write_json, write_jsonl
from picochat.data.benchmarks.stage import (
    ITEMS,
    BenchmarkItem,
    BenchmarkSource,
    BenchmarkSources,
    facts_from,
)


def test_a_benchmark_without_scored_rows_has_no_chance_level(tmp_path: Path) -> None:
    source = BenchmarkSource(
        layout="arc",
        dataset=None,
        config=None,
        split=None,
        revision=None,
        licence=None,
        files={},
        rows_read=2,
        unusable={},
    )
    write_json(
        tmp_path / "sources.json", BenchmarkSources(benchmarks={"one": source, "none": source})
    )
    items = [
        BenchmarkItem(
            id=str(number), benchmark="one", digest="", characters=[1] * options, correct=0
        )
        for number, options in enumerate((2, 4))
    ]
    write_jsonl(tmp_path / ITEMS, items)
    write_json(tmp_path / "unresolved.json", {})
    found = facts_from(tmp_path).benchmarks
    assert (found["one"].rows, found["one"].chance) == (2, (1 / 2 + 1 / 4) / 2)
    assert (found["none"].rows, found["none"].chance) == (0, None)
