"""The contamination scan: are eval or benchmark rows in the corpus or in the SFT rows? The stage,
its facts and its report.

What is looked for is a row's prompt with its options; its answer only tells whether a very short
prompt such as "Who are you?" is the item or plain English (`items`). How texts are searched is in
`texts`. Decides nothing: the preflight does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from picochat.config import HonestyConfig, HostConfig
from picochat.core.machine import usable_cores
from picochat.core.publish import Artifact, Draft
from picochat.core.records import read_jsonl, write_atomic, write_json, write_jsonl
from picochat.data.benchmarks.layouts import BenchmarkRow
from picochat.facts import BenchmarksFacts, CorpusFacts, HonestyFacts, PracticeFacts, facts_of
from picochat.honesty.index import Index, build_index
from picochat.honesty.items import ScanItem, Words, item_of_row, scan_item
from picochat.honesty.normalize import words_of
from picochat.honesty.report import report_page
from picochat.honesty.texts import (
    DIRTY_COVERAGE,
    HITS_KEPT_PER_BENCHMARK_ROW,
    HITS_KEPT_PER_ROW,
    Hit,
    Tally,
    Text,
    scan_texts,
)

COPY = re.compile(r"~[0-9]+$")


# ---- the stage -----------------------------------------------------------------------------------


def scan_run(
    corpus: Artifact,
    practice: Artifact,
    rows: Artifact,
    benchmarks: Artifact,
    honesty: HonestyConfig,
    host: HostConfig,
    draft: Draft,
) -> None:
    """Scan corpus (held-out documents too), practice and SFT rows: hits.jsonl, report.json,
    report.md, HonestyFacts.
    """
    from picochat.data.corpus.reader import read_split
    from picochat.data.documents import read_documents

    text_bytes = (
        facts_of(corpus, CorpusFacts).text_bytes + facts_of(practice, PracticeFacts).text_bytes
    )
    read = (
        *(read_split(corpus, split) for split in ("train", "held_out")),
        read_documents(practice.place, "practice"),
    )
    documents = ((document.id, document.text) for document in chain(*read))
    found = scan_rows(
        list(_rows(rows, "eval.jsonl")),
        chain(_rows(rows, "sft_train.jsonl"), _rows(rows, "sft_held_out.jsonl")),
        documents,
        honesty,
        workers=host.workers or usable_cores(),
        corpus_bytes=text_bytes,
        benchmarks={
            name: benchmark_items(benchmarks, name)
            for name in sorted(facts_of(benchmarks, BenchmarksFacts).benchmarks)
        },
    )
    write_jsonl(draft.path("hits.jsonl"), found.hits)
    write_json(draft.path("report.json"), found.report)
    write_atomic(draft.path("report.md"), report_page(found.facts, found.report).encode())
    draft.facts = found.facts.model_dump(mode="json")


def benchmark_items(benchmarks: Artifact, name: str) -> list[ScanItem]:
    """What is looked for of a published benchmark."""
    from picochat.data.benchmarks.stage import read_texts

    return [item_of_benchmark(name, row) for row in read_texts(benchmarks, name)]


def item_of_benchmark(name: str, row: BenchmarkRow) -> ScanItem:
    """What is looked for of a benchmark's row: its question, and the correct option where the
    question is very short.
    """
    return scan_item(row.id, name, row.question, [row.options[row.correct]])


def _rows(rows: Artifact, name: str) -> Iterator[dict[str, Any]]:
    return (row for _, row in read_jsonl(rows.path(name), "rows"))


@dataclass(frozen=True)
class ScanFound:
    facts: HonestyFacts
    hits: list[Hit]
    report: dict[str, Any]


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
    """Everything that the stage publishes, from plain rows and (id, text) pairs.

    corpus_bytes: what the documents hold; None: what comes is all there is. expected_bytes: about
    that, to show progress by. benchmarks: the rows of each external benchmark by its name.
    """
    own = [item_of_row(row) for row in evals]
    external = [
        replace(item, benchmark=name) for name, rows in (benchmarks or {}).items() for item in rows
    ]
    items = own + external
    index = build_index(items, config)
    sft_tally, exact = scan_sft_rows(index, sft)
    tally = scan_texts(
        index, documents, workers=workers, total_bytes=corpus_bytes or expected_bytes
    )
    dirty = {*tally.dirty_documents, *sft_tally.dirty_documents, *exact}
    facts = HonestyFacts(
        corpus_text_bytes=tally.text_bytes if corpus_bytes is None else corpus_bytes,
        scanned_text_bytes=tally.text_bytes,
        scanned_documents=tally.documents,
        eval_rows=len(own),
        sft_exact_prompts=sum(number < len(own) for number in exact),
        sft_largest_coverage=round(sft_tally.largest_coverage, 4),
        corpus_dirty_by_skill=_by_skill(own, tally.dirty_documents),
        eval_by_skill=_by_skill(own, range(len(own))),
        external_rows={name: len(rows) for name, rows in (benchmarks or {}).items()},
        external_dirty={
            name: len(_ids(items, tally.dirty_documents, name)) for name in benchmarks or {}
        },
        dirty_external_rows={name: _ids(items, dirty, name) for name in benchmarks or {}},
        dirty_eval_rows=_ids(items, dirty, None),
    )
    return ScanFound(
        facts, sft_tally.hits + tally.hits, _report(index, config, tally, sft_tally, exact)
    )


def _by_skill(own: Sequence[ScanItem], numbers: Iterable[int]) -> dict[str, int]:
    """Every skill of the eval rows with how many of the items with these numbers are its own, zeros
    included.
    """
    counts = Counter(own[number].skill for number in numbers if number < len(own))
    return {skill: counts[skill] for skill in sorted({item.skill for item in own})}


def _ids(items: Sequence[ScanItem], numbers: Iterable[int], benchmark: str | None) -> list[str]:
    return sorted(items[number].id for number in numbers if items[number].benchmark == benchmark)


def _report(
    index: Index, config: HonestyConfig, corpus: Tally, sft: Tally, exact: Sequence[int]
) -> dict[str, Any]:
    items = index.items
    names = list(dict.fromkeys(item.benchmark for item in items if item.benchmark is not None))

    def holding(tally: Tally, benchmark: str | None) -> dict[str, int]:
        found = tally.dirty_documents.items()
        return {items[n].id: count for n, count in sorted(found) if items[n].benchmark == benchmark}

    return {
        "hit_words": config.hit_words,
        "coverage_words": config.coverage_words,
        "dirty_coverage": DIRTY_COVERAGE,
        "template_runs": index.template_runs,
        "rows_too_short_to_look_for": _ids(items, index.unscannable, None),
        "sft_rows": sft.documents,
        "sft_exact_prompts": _ids(items, exact, None),
        "sft_rows_holding": holding(sft, None),
        "corpus_documents_holding": holding(corpus, None),
        "benchmarks": {
            name: {
                "rows_too_short_to_look_for": len(_ids(items, index.unscannable, name)),
                "sft_exact_prompts": _ids(items, exact, name),
                "sft_rows_holding": holding(sft, name),
                "corpus_documents_holding": holding(corpus, name),
            }
            for name in names
        },
        "documents_to_leave_out": _without_copies(corpus.to_leave_out),
        "hits_kept_per_row": HITS_KEPT_PER_ROW,
        "hits_kept_per_benchmark_row": HITS_KEPT_PER_BENCHMARK_ROW,
    }


def _without_copies(ids: Sequence[str]) -> list[str]:
    """A document that is read twice (by its weight) follows itself as ID~2; the recipe knows it as
    ID.
    """
    all_ids = set(ids)
    return [id for id in ids if COPY.sub("", id) == id or COPY.sub("", id) not in all_ids]


def scan_sft_rows(index: Index, rows: Iterable[Mapping[str, Any]]) -> tuple[Tally, list[int]]:
    """What the SFT rows hold of the items, and the numbers of the items whose whole prompt is an
    SFT prompt.
    """
    prompts: set[Words] = set()

    def texts() -> Iterator[Text]:
        for number, row in enumerate(rows, start=1):
            prompts.add(tuple(words_of(str(row["user"]))))
            yield str(row.get("id", number)), f"{row['user']}\n{row.get('assistant', '')}"

    tally = scan_texts(index, texts(), where="sft")
    return tally, [
        number for number, item in enumerate(index.items) if prompts.intersection(item.spellings)
    ]
