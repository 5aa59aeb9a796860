"""The honesty stage: find eval and benchmark rows in the corpus, the exercises and the SFT rows.

It searches for a row's prompt with its options. `items` defines a match, and `scan_texts` searches
the texts. The preflight judges what was found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from picochat.config import HonestyConfig, HostConfig, RunConfig
from picochat.core.machine import usable_cores
from picochat.core.publish import Artifact, StagingFolder
from picochat.core.records import (
    Record,
    read_json,
    read_jsonl,
    read_record,
    to_jsonable,
    write_atomic,
    write_json,
    write_jsonl,
)
from picochat.data.benchmarks.layouts import BenchmarkRow
from picochat.data.benchmarks.stage import read_texts
from picochat.data.corpus.reader import read_split
from picochat.data.documents import read_documents
from picochat.facts import BenchmarksFacts, CorpusFacts, ExercisesFacts, HonestyFacts, facts_of
from picochat.honesty.contamination_page import contamination_page
from picochat.honesty.index import Index, build_index
from picochat.honesty.items import ScanItem, Words, item_of_row, scan_item
from picochat.honesty.normalize import words_of
from picochat.honesty.scan_texts import (
    CONTAMINATED_COVERAGE,
    HITS_KEPT_PER_BENCHMARK_ROW,
    HITS_KEPT_PER_ROW,
    Hit,
    Tally,
    Text,
    scan_texts,
)

COPY = re.compile(r"~[0-9]+$")


class HonestyMeasured(Record):
    """measured.json: what the scan counted. What it found is in report.json."""

    scanned_text_bytes: int
    scanned_documents: int
    sft_largest_coverage: float


# ---- the stage -----------------------------------------------------------------------------------


def scan_run(
    corpus: Artifact,
    exercises: Artifact,
    rows: Artifact,
    benchmarks: Artifact,
    honesty: HonestyConfig,
    host: HostConfig,
    staging: StagingFolder,
) -> None:
    """Scan corpus, exercises and SFT rows; write hits.jsonl, measured.json, report.json, report.md.

    Held-out documents are scanned too.
    """
    documents = chain(
        *(read_split(corpus, split) for split in ("train", "held_out")),
        read_documents(exercises.place, "exercises"),
    )
    inputs = {"corpus": corpus, "exercises": exercises, "rows": rows, "benchmarks": benchmarks}
    found = scan_rows(
        list(_rows(rows, "eval.jsonl")),
        chain(_rows(rows, "sft_train.jsonl"), _rows(rows, "sft_held_out.jsonl")),
        ((document.id, document.text) for document in documents),
        honesty,
        workers=host.workers or usable_cores(),
        corpus_bytes=_text_bytes(inputs),
        benchmarks={
            name: benchmark_items(benchmarks, name)
            for name in sorted(facts_of(benchmarks, BenchmarksFacts).benchmarks)
        },
    )
    write_jsonl(staging.path("hits.jsonl"), found.hits)
    write_json(staging.path("measured.json"), found.measured)
    write_json(staging.path("report.json"), found.report)
    facts = facts_from(staging.folder, inputs)
    write_atomic(staging.path("report.md"), contamination_page(facts, found.report).encode())
    staging.facts = to_jsonable(facts)


def facts_from(
    files: Path, inputs: Mapping[str, Artifact], config: RunConfig | None = None
) -> HonestyFacts:
    """The facts of the scan, from report.json, measured.json and the inputs.

    inputs: corpus, exercises, rows, benchmarks. config: not used.
    """
    benchmarks = facts_of(inputs["benchmarks"], BenchmarksFacts).benchmarks
    return _facts(
        read_json(files / "report.json", "honesty report"),
        read_record(HonestyMeasured, files / "measured.json", "measurements"),
        [item_of_row(row) for row in _rows(inputs["rows"], "eval.jsonl")],
        {name: found.rows for name, found in benchmarks.items()},
        _text_bytes(inputs),
    )


def _text_bytes(inputs: Mapping[str, Artifact]) -> int:
    """Of corpus and exercises."""
    corpus = facts_of(inputs["corpus"], CorpusFacts)
    return corpus.text_bytes + facts_of(inputs["exercises"], ExercisesFacts).text_bytes


def benchmark_items(benchmarks: Artifact, name: str) -> list[ScanItem]:
    """The items of a published benchmark."""
    return [item_of_benchmark(name, row) for row in read_texts(benchmarks, name)]


def item_of_benchmark(name: str, row: BenchmarkRow) -> ScanItem:
    """The item of a benchmark's row: its question, with the correct option as the answer."""
    return scan_item(row.id, name, row.question, [row.options[row.correct]])


def _rows(rows: Artifact, name: str) -> Iterator[dict[str, Any]]:
    return (row for _, row in read_jsonl(rows.path(name), "rows"))


# ---- the scan, without artifacts -----------------------------------------------------------------


@dataclass(frozen=True)
class ScanFound:
    """The result of a scan."""

    facts: HonestyFacts
    hits: list[Hit]
    report: dict[str, Any]
    measured: HonestyMeasured


def scan_rows(
    evals: Sequence[Mapping[str, Any]],
    sft: Iterable[Mapping[str, Any]],
    documents: Iterable[Text],
    config: HonestyConfig,
    *,
    workers: int,
    corpus_bytes: int | None,
    expected_bytes: int | None = None,
    benchmarks: Mapping[str, Sequence[ScanItem]] | None = None,
) -> ScanFound:
    """Search for eval rows and benchmark items in SFT rows and in (id, text) pairs.

    corpus_bytes: bytes of text in the corpus; None if `documents` are all of it. expected_bytes: an
    estimate of it for the progress bar. benchmarks: name -> items.
    """
    own = [item_of_row(row) for row in evals]
    benchmarks = benchmarks or {}
    external = [replace(item, benchmark=name) for name, rows in benchmarks.items() for item in rows]
    index = build_index(own + external, config)
    sft_tally, exact = scan_sft_rows(index, sft)
    tally = scan_texts(
        index, documents, workers=workers, total_bytes=corpus_bytes or expected_bytes
    )
    measured = HonestyMeasured(
        scanned_text_bytes=tally.text_bytes,
        scanned_documents=tally.documents,
        sft_largest_coverage=round(sft_tally.largest_coverage, 4),
    )
    report = _report(index, config, list(benchmarks), tally, sft_tally, exact)
    facts = _facts(
        report,
        measured,
        own,
        {name: len(rows) for name, rows in benchmarks.items()},
        tally.text_bytes if corpus_bytes is None else corpus_bytes,
    )
    return ScanFound(facts, sft_tally.hits + tally.hits, report, measured)


def scan_sft_rows(index: Index, rows: Iterable[Mapping[str, Any]]) -> tuple[Tally, list[int]]:
    """(which items the SFT rows hold, the numbers of the items whose prompt is an SFT prompt)."""
    prompts: set[Words] = set()

    def texts() -> Iterator[Text]:
        for number, row in enumerate(rows, start=1):
            turns: list[Mapping[str, str]] = row.get("history") or []
            asked = [turn["content"] for turn in turns if turn["role"] == "user"]
            prompts.update(tuple(words_of(str(prompt))) for prompt in (*asked, row["user"]))
            before = "".join(f"{turn['content']}\n" for turn in turns)
            text = f"{before}{row['user']}\n{row.get('assistant', '')}"
            yield str(row.get("id", number)), text

    tally = scan_texts(index, texts(), where="sft")
    # An equal prompt counts at any length. In a novel "Who are you?" is plain English, but as the
    # prompt of an SFT row it is the item.
    return tally, [
        number for number, item in enumerate(index.items) if prompts.intersection(item.spellings)
    ]


def _report(
    index: Index,
    config: HonestyConfig,
    benchmarks: Sequence[str],
    corpus: Tally,
    sft: Tally,
    exact: Sequence[int],
) -> dict[str, Any]:
    """report.json: which rows were found where, and the settings of the scan."""
    items = index.items

    def ids(numbers: Iterable[int], benchmark: str | None) -> list[str]:
        return sorted(items[n].id for n in numbers if items[n].benchmark == benchmark)

    def holding(tally: Tally, benchmark: str | None) -> dict[str, int]:
        found = tally.texts_holding.items()
        return {items[n].id: count for n, count in sorted(found) if items[n].benchmark == benchmark}

    return {
        "hit_words": config.hit_words,
        "coverage_words": config.coverage_words,
        "contaminated_coverage": CONTAMINATED_COVERAGE,
        "template_runs": index.template_runs,
        "rows_not_looked_for": ids(index.unscannable, None),
        "sft_rows": sft.documents,
        "sft_exact_prompts": ids(exact, None),
        "sft_rows_holding": holding(sft, None),
        "corpus_documents_holding": holding(corpus, None),
        "benchmarks": {
            name: {
                "rows_not_looked_for": len(ids(index.unscannable, name)),
                "sft_exact_prompts": ids(exact, name),
                "sft_rows_holding": holding(sft, name),
                "corpus_documents_holding": holding(corpus, name),
            }
            for name in benchmarks
        },
        "documents_to_leave_out": _without_copies(corpus.to_leave_out),
        "hits_kept_per_row": HITS_KEPT_PER_ROW,
        "hits_kept_per_benchmark_row": HITS_KEPT_PER_BENCHMARK_ROW,
    }


def _without_copies(ids: Sequence[str]) -> list[str]:
    """The ids without further copies: a document that is read twice comes as ID and as ID~2."""
    # An id that ends in ~2 by itself is kept, because the id without it is not in the list.
    all_ids = set(ids)
    return [id for id in ids if COPY.sub("", id) == id or COPY.sub("", id) not in all_ids]


def _facts(
    report: Mapping[str, Any],
    measured: HonestyMeasured,
    own: Sequence[ScanItem],
    external_rows: Mapping[str, int],
    corpus_text_bytes: int,
) -> HonestyFacts:
    """own: the items of our own eval rows. external_rows: benchmark -> number of rows."""
    skills = sorted({item.skill for item in own})
    in_corpus = report["corpus_documents_holding"]
    found = report["benchmarks"]
    return HonestyFacts(
        corpus_text_bytes=corpus_text_bytes,
        scanned_text_bytes=measured.scanned_text_bytes,
        scanned_documents=measured.scanned_documents,
        eval_rows=len(own),
        sft_exact_prompts=len(report["sft_exact_prompts"]),
        sft_largest_coverage=measured.sft_largest_coverage,
        corpus_contaminated_by_skill={
            skill: sum(item.id in in_corpus for item in own if item.skill == skill)
            for skill in skills
        },
        eval_by_skill={skill: sum(item.skill == skill for item in own) for skill in skills},
        external_rows=dict(external_rows),
        external_contaminated={
            name: len(found[name]["corpus_documents_holding"]) for name in external_rows
        },
        contaminated_external_rows={name: contaminated_rows(found[name]) for name in external_rows},
        contaminated_eval_rows=contaminated_rows(report),
    )


def contaminated_rows(report: Mapping[str, Any]) -> list[str]:
    """Sorted ids of the rows that were found, by a report or by its part about one benchmark."""
    return sorted(
        {
            *report["corpus_documents_holding"],
            *report["sft_rows_holding"],
            *report["sft_exact_prompts"],
        }
    )
