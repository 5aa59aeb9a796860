"""What follows from an artifact's own files about data, rows, tokens and contamination: facts,
computed again.

Each public function takes a run and returns what differs; follows.py is their table. Without torch.
What needs the corpus itself, the weights or the clock is not here: docs/verification.md says what
follows from that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from picochat.core.errors import Problem
from picochat.core.publish import Artifact
from picochat.core.records import parse_record, plain, read_json, read_jsonl, read_record
from picochat.data.benchmarks.resolve import wanted_benchmarks
from picochat.data.benchmarks.stage import ITEMS, BenchmarkItem, item_of, read_items, read_texts
from picochat.data.corpus.build import source_facts
from picochat.data.corpus.reader import DROPPED, HELD_OUT, CorpusSource, CorpusSources, Fates, Split
from picochat.data.documents import DocumentsManifest
from picochat.facts import (
    BenchmarkFacts,
    BenchmarksFacts,
    ConversationsFacts,
    CorpusFacts,
    HonestyFacts,
    PracticeFacts,
    RowsFacts,
    ShardsFacts,
    TokenizerFacts,
)
from picochat.honesty import contamination_scan
from picochat.honesty.contamination_page import contamination_page
from picochat.honesty.contamination_scan import contaminated_rows, scan_sft_rows
from picochat.honesty.index import build_index
from picochat.honesty.items import item_of_row
from picochat.honesty.scan_texts import Hit
from picochat.release.compare import Stated, differences, names_shown, stated_of
from picochat.skills.practice import sample_page
from picochat.skills.prepare import rows_facts
from picochat.skills.rows import EvalRow, SftRow, read_published_rows
from picochat.tokens import chat_format, tokenizer
from picochat.tokens import shards as token_shards
from picochat.tokens.chat_format import fitting, join_conversations, open_conversations, read_chats
from picochat.tokens.shards import ShardSidecar
from picochat.tokens.tokenizer import Tokenizer

START_BYTES = 8  # of a document's offset in a .starts file
TOKEN_BYTES = 2
SPLITS: tuple[Split, ...] = ("train", "held_out")

# ---- data ----------------------------------------------------------------------------------------


def corpus_differences(run: Stated) -> list[Problem]:
    """Counts from the fate of every row, reasons from the list of what was dropped, provenance from
    the sources.
    """
    corpus, facts = run["corpus"], run.facts("corpus", CorpusFacts)
    listing = read_record(CorpusSources, corpus.path("sources.json"), "corpus sources")
    fates: Fates = np.fromfile(corpus.path("fates.u8"), dtype=np.uint8)
    rows = [sum(file.rows for file in source.files) for source in listing.sources]
    if sum(rows) != len(fates):
        return [
            Problem(f"corpus/fates.u8: holds {len(fates):,} rows, sources.json lists {sum(rows):,}")
        ]
    copies = np.where(fates == HELD_OUT, 1, fates.astype(np.int64))
    documents = [int(part.sum()) for part in np.split(copies, np.cumsum(rows)[:-1])]
    held_out, dropped = int((fates == HELD_OUT).sum()), _dropped(corpus)
    near = sum(
        len(row["documents"]) - 1
        for _, row in read_jsonl(corpus.path("near_duplicates.jsonl"), "clusters")
    )
    stated_bytes = [source.text_bytes for source in facts.sources]
    sources = [
        source_facts(*each)
        for each in zip(listing.sources, zip(documents, stated_bytes, strict=True), strict=True)
    ]
    follows = {
        "documents": sum(documents),
        "train_documents": sum(documents) - held_out,
        "held_out_documents": held_out,
        "held_out_share": listing.held_out_share,
        "exact_duplicates": dropped.get("duplicate_text", 0),
        "near_duplicates": near,
        "dropped": {
            **dropped,
            **{name: count for name, count in facts.dropped.items() if name == "weight"},
        },
        "documents_read": sum(documents) + sum(facts.dropped.values()),
        "text_bytes": sum(stated_bytes),
        "train_text_bytes": sum(stated_bytes) - facts.held_out_text_bytes,
        "sources": sources,
    }
    problems = stated_of("corpus", facts, follows, "its files give")
    if sum(facts.dropped.values()) != int((fates == DROPPED).sum()):
        problems.append(
            Problem(
                f"corpus.dropped: states {sum(facts.dropped.values()):,} rows, fates.u8 has another"
                " number"
            )
        )
    return [
        *problems,
        *(
            p
            for source, size in zip(listing.sources, stated_bytes, strict=True)
            for p in _source(corpus, source, size)
        ),
    ]


def _dropped(corpus: Artifact) -> dict[str, int]:
    """Rows of dropped.jsonl by reason."""
    counts: dict[str, int] = {}
    for _, row in read_jsonl(corpus.path("dropped.jsonl"), "dropped rows"):
        counts[row["reason"]] = counts.get(row["reason"], 0) + 1
    return counts


def _source(corpus: Artifact, source: CorpusSource, text_bytes: int) -> list[Problem]:
    """Whether a source gave no more text than its files have, and its import report says the same
    of where it comes from.
    """
    problems: list[Problem] = []
    if text_bytes > sum(file.text_bytes for file in source.files) * max(1, -(-source.weight // 1)):
        problems.append(
            Problem(
                f"corpus.sources: {source.label} states {text_bytes:,} bytes of text, its files"
                " have fewer"
            )
        )
    origin = source.provenance
    if origin and source.import_report and origin.kind == "hub":
        report = read_json(corpus.path(source.import_report), "import report")
        stated = {"dataset": origin.dataset, "config": origin.config, "revision": origin.revision}
        said = {
            "dataset": report.get("dataset"),
            "config": report.get("config_name"),
            "revision": report.get("revision"),
        }
        problems += differences(
            f"corpus/sources.json {source.label}", stated, said, f"{source.import_report} says"
        )
    return problems


def practice_differences(run: Stated) -> list[Problem]:
    """Counts from documents.json, and the sample that its words and the seed give.

    The sheets themselves stay out of bundles.
    """
    practice, facts = run["practice"], run.facts("practice", PracticeFacts)
    listed = read_record(DocumentsManifest, practice.path("documents.json"), "practice")
    words = tuple(practice.path("words.txt").read_text("utf-8").split())
    follows = {
        "share_asked": run.config.practice.share,
        "documents": listed.documents,
        "text_bytes": listed.text_bytes,
        "words": len(words),
    }
    problems = stated_of("practice", facts, follows, "its files and settings give")
    parts = {
        "documents": sum(s.documents for s in listed.shards),
        "text_bytes": sum(s.text_bytes for s in listed.shards),
    }
    problems += stated_of("practice/documents.json", listed, parts, "its shards give")
    page = (
        sample_page(words, run.config.seed).encode()
        if run.config.practice.share and listed.documents
        else b""
    )
    if practice.path("sample.txt").read_bytes() != page:
        problems.append(
            Problem("practice/sample.txt: differs from what words.txt and the seed give")
        )
    return problems


def rows_differences(run: Stated) -> list[Problem]:
    """All facts from the rows, whose ids must be different: an id that two rows share would be
    judged by the rule of one.
    """
    rows = run["rows"]
    train, held_out = (
        list(read_published_rows(rows.path(f"{name}.jsonl"), SftRow))
        for name in ("sft_train", "sft_held_out")
    )
    evals = list(read_published_rows(rows.path("eval.jsonl"), EvalRow))
    again = rows_facts(train, held_out, evals)
    problems = differences(
        "rows", plain(run.facts("rows", RowsFacts)), plain(again), "its files give"
    )
    ids = [row.id for row in (*train, *held_out, *evals)]
    if repeated := sorted(id for id, count in Counter(ids).items() if count > 1):
        problems.append(Problem(f"rows: {names_shown(repeated)} is the id of more than one row"))
    return problems


def benchmarks_differences(run: Stated) -> list[Problem]:
    """Counts and chance from the items; that none is missing that was asked for; in a run folder,
    each item from its text.
    """
    facts, items = run.facts("benchmarks", BenchmarksFacts), read_items(run["benchmarks"])
    asked = sorted(wanted_benchmarks(run.config.external))
    problems = differences(
        "benchmarks", sorted([*facts.benchmarks, *facts.unresolved]), asked, "the settings ask for"
    )
    ids = [item.id for item in items]
    if len(set(ids)) < len(ids) or {item.benchmark for item in items} != set(facts.benchmarks):
        problems.append(
            Problem(
                f"benchmarks/{ITEMS}: holds an item twice, or items of another benchmark than the"
                " facts state"
            )
        )
    for name, stated in facts.benchmarks.items():
        mine = [item for item in items if item.benchmark == name]
        problems += _benchmark(name, stated, mine, run.config.external.max_rows)
        problems += _texts(run["benchmarks"], name, mine)
    return problems


def _benchmark(
    name: str, facts: BenchmarkFacts, items: Sequence[BenchmarkItem], most: int
) -> list[Problem]:
    """Counts and chance of one benchmark. most: rows that the settings ask for at most; 0: all."""
    usable = facts.rows_read - sum(facts.unusable.values())
    wanted = min(most, usable) if most else usable
    follows: dict[str, object] = {
        "usable_rows": usable,
        "rows": len(items),
        "chance": sum(1 / len(item.characters) for item in items) / max(1, len(items)),
    }
    problems = stated_of(f"benchmarks.benchmarks.{name}", facts, follows, f"{ITEMS} gives")
    if len(items) != wanted:
        problems.append(
            Problem(
                f"benchmarks/{ITEMS}: holds {len(items):,} items of {name}, the settings ask for"
                f" {wanted:,}"
            )
        )
    return problems


def _texts(benchmarks: Artifact, name: str, items: Sequence[BenchmarkItem]) -> list[Problem]:
    """Items that differ from their texts, where these are at hand: in a run folder."""
    if not benchmarks.path(f"rows/{name}.jsonl").exists():
        return []
    texts = {row.id: item_of(name, row) for row in read_texts(benchmarks, name)}
    wrong = [item.id for item in items if texts.get(item.id) != item]
    return (
        [
            Problem(
                f"benchmarks/{ITEMS}: {names_shown(wrong)} differs from its text in"
                f" rows/{name}.jsonl"
            )
        ]
        if wrong
        else []
    )


# ---- tokens --------------------------------------------------------------------------------------


def tokenizer_differences(run: Stated) -> list[Problem]:
    again = tokenizer.facts_from(run["tokenizer"].place, run.artifacts, run.config)
    stated = plain(run.facts("tokenizer", TokenizerFacts))
    asked = run.config.tokenizer.vocab_size
    return [
        *differences("tokenizer", stated, plain(again), "its files give"),
        *differences("tokenizer.vocab_size", again.vocab_size, asked, "the settings ask for"),
    ]


def shards_differences(run: Stated) -> list[Problem]:
    """Sums over the sidecars, which must fit the files that the manifest states, the tokenizer, the
    corpus and the practice.
    """
    shards, facts = run["shards"], run.facts("shards", ShardsFacts)
    corpus, practised = run.facts("corpus", CorpusFacts), run.facts("practice", PracticeFacts)
    names = sorted(name for name in shards.manifest.files if name.endswith(".bin"))
    sidecars = {
        name: read_record(ShardSidecar, shards.path(name.replace(".bin", ".json")), "shard")
        for name in names
    }
    again = token_shards.facts_from(shards.place, run.artifacts, run.config)
    problems = differences("shards", plain(facts), plain(again), "its files give")
    counted = {
        "train_documents": corpus.train_documents + practised.documents,
        "held_out_documents": corpus.held_out_documents,
        "train_text_bytes": corpus.train_text_bytes + practised.text_bytes,
        "held_out_text_bytes": corpus.held_out_text_bytes,
        "practice_documents": practised.documents,
    }
    problems += stated_of("shards", facts, counted, "corpus and practice give")
    tokenizer_digest = run["tokenizer"].manifest.files["tokenizer.json"].sha256
    for name, side in sidecars.items():
        files = shards.manifest.files
        held = {
            "tokens": files[name].bytes // TOKEN_BYTES,
            "documents": files[name.replace(".bin", ".starts")].bytes // START_BYTES,
            "sha256": files[name].sha256,
            "tokenizer": tokenizer_digest,
        }
        problems += stated_of(
            f"base/token_shards/{name.replace('.bin', '.json')}", side, held, "the manifests give"
        )
    return problems


def conversations_differences(run: Stated) -> list[Problem]:
    """The SFT rows encoded again: what was trained on is what the rows say, and nothing else."""
    words = Tokenizer.load(run["tokenizer"].path("tokenizer.json"))
    context = run.config.model.context
    problems: list[Problem] = []
    for split in SPLITS:
        name = f"sft_{split}"
        chats = read_chats(run["rows"].path(f"{name}.jsonl"), words)
        encoded = join_conversations(fitting(chats, context))
        there = open_conversations(run["conversations"], split)
        parts = (
            (encoded.tokens, there.tokens),
            (encoded.targets, there.targets),
            (encoded.offsets, there.offsets),
        )
        if not all(np.array_equal(one, other) for one, other in parts):
            problems.append(
                Problem(
                    f"sft/conversations/{split}.npz: is not what rows/{name}.jsonl gives, encoded"
                )
            )
    again = chat_format.facts_from(run["conversations"].place, run.artifacts, run.config)
    stated = plain(run.facts("conversations", ConversationsFacts))
    return problems + differences("conversations", stated, plain(again), "the rows give")


# ---- contamination -------------------------------------------------------------------------------


def honesty_differences(run: Stated) -> list[Problem]:
    """The facts that its report gives, and what the scan says of the SFT rows, scanned again.

    The corpus itself is not here to be scanned.
    """
    honesty, facts = run["honesty"], run.facts("honesty", HonestyFacts)
    report = read_json(honesty.path("report.json"), "honesty report")
    corpus, practised = run.facts("corpus", CorpusFacts), run.facts("practice", PracticeFacts)
    again = contamination_scan.facts_from(honesty.place, run.artifacts, run.config)
    problems = _sft_again(run, report, facts)
    problems += differences("honesty", plain(facts), plain(again), "report and rows give")
    scanned = {"scanned_documents": corpus.documents + practised.documents}
    problems += stated_of("honesty", facts, scanned, "corpus and practice have")
    sizes = {
        "hit_words": run.config.honesty.hit_words,
        "coverage_words": run.config.honesty.coverage_words,
    }
    problems += differences(
        "honesty/report.json",
        {name: report[name] for name in sizes},
        dict(sizes),
        "the settings say",
    )
    problems += _unlisted_hits(run["honesty"], report)
    if run["honesty"].path("report.md").read_text("utf-8") != contamination_page(facts, report):
        problems.append(Problem("honesty/report.md: differs from what facts and report give"))
    return problems


def _sft_again(run: Stated, report: Mapping[str, Any], facts: HonestyFacts) -> list[Problem]:
    """What report and facts state otherwise than a scan of the SFT rows for our own eval rows.

    What the scan says of benchmarks needs their texts.
    """
    rows = run["rows"]
    evals = [item_of_row(row) for _, row in read_jsonl(rows.path("eval.jsonl"), "rows")]
    sft = [
        row
        for name in ("sft_train", "sft_held_out")
        for _, row in read_jsonl(rows.path(f"{name}.jsonl"), "rows")
    ]
    tally, numbers = scan_sft_rows(build_index(evals, run.config.honesty), sft)
    again = {
        "sft_rows": len(sft),
        "sft_exact_prompts": sorted(evals[number].id for number in numbers),
        "sft_rows_holding": {
            evals[number].id: count for number, count in tally.texts_holding.items()
        },
    }
    problems = differences(
        "honesty/report.json", {name: report[name] for name in again}, again, "the rows give"
    )
    coverage = {"sft_largest_coverage": round(tally.largest_coverage, 4)}
    return problems + stated_of("honesty", facts, coverage, "the rows give")


def _unlisted_hits(honesty: Artifact, report: Mapping[str, Any]) -> list[Problem]:
    """Hits of rows that the report does not call contaminated."""
    contaminated = {
        None: set(contaminated_rows(report)),
        **{name: set(contaminated_rows(found)) for name, found in report["benchmarks"].items()},
    }
    hits = [
        parse_record(Hit, value, f"hits.jsonl, line {line}")
        for line, value in read_jsonl(honesty.path("hits.jsonl"), "hits")
    ]
    wrong = {hit.row for hit in hits if hit.row not in contaminated.get(hit.benchmark, set())}
    return (
        [
            Problem(
                f"honesty/hits.jsonl: holds hits of {names_shown(sorted(wrong))}, which the report"
                " calls clean"
            )
        ]
        if wrong
        else []
    )
