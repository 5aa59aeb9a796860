"""Checks across artifacts about data, rows, tokens and contamination.

Each public function takes the facts of a run and returns what differs; cross_checks.py is their
table. What a stage's own files give is computed again there, by its `facts_from`; here is what
artifacts must say of each other and of the settings. What needs the corpus itself is not here:
docs/verification.md says what follows from that.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from picochat.core.errors import Problem
from picochat.core.publish import Artifact
from picochat.core.records import parse_record, read_json, read_jsonl, read_record, to_jsonable
from picochat.data.benchmarks.resolve import wanted_benchmarks
from picochat.data.benchmarks.stage import ITEMS, BenchmarkItem, item_of, read_items, read_texts
from picochat.data.corpus.reader import CorpusSource, CorpusSources, Split
from picochat.data.document_shards import DocumentsManifest
from picochat.data.importing.import_report import ImportReport
from picochat.data.pack import CorpusRecipe
from picochat.facts import HonestyFacts, RunFacts, ShardsFacts
from picochat.honesty.contamination_page import contamination_page
from picochat.honesty.contamination_scan import COPY, scan_sft_rows
from picochat.honesty.index import build_index
from picochat.honesty.items import item_of_row
from picochat.honesty.scan_texts import MOST_IDS_KEPT, Hit, most_hits
from picochat.release.compare import differences, known, names_shown, stated_of
from picochat.skills.exercises import sample_page
from picochat.skills.task_rows import EvalRow, SftRow, read_published_rows
from picochat.tokens.chat_format import fitting, join_conversations, open_conversations, read_chats
from picochat.tokens.shards import ShardSidecar
from picochat.tokens.tokenizer import Tokenizer

START_BYTES = 8  # of a document's offset in a .starts file
TOKEN_BYTES = 2
FEWEST_TOKENS = 2  # of a document: bos, and one of text
SPLITS: tuple[Split, ...] = ("train", "held_out")

# ---- data ----------------------------------------------------------------------------------------


def check_corpus(run: RunFacts) -> list[Problem]:
    """What files, recipe and import reports say of each source."""
    corpus, problems = run.artifacts["corpus"], list[Problem]()
    listing = read_record(CorpusSources, corpus.path("sources.json"), "corpus sources")
    recipe = read_record(CorpusRecipe, corpus.path("recipe.json"), "corpus recipe")
    for source, stated in zip(listing.sources, known(run.corpus).sources, strict=True):
        problems += _source(source, stated.text_bytes)
        if source.import_report:
            path = corpus.path(source.import_report)
            report = read_record(ImportReport, path, "import report")
            problems += import_problems(source, report)
    for source, item in zip(listing.sources, recipe.sources, strict=False):
        asked = {"weight": item.weight, "text_column": item.text_column}
        asked |= {"label": item.label} if item.label else {}
        asked |= {"licence": item.licence} if item.licence and not source.provenance else {}
        problems += differences(
            f"corpus/sources.json {source.label}",
            {name: getattr(source, name) for name in asked},
            asked,
            "recipe.json asks for",
        )
    if recipe.sources and len(recipe.sources) != len(listing.sources):
        problems.append(Problem("corpus/sources.json: lists other sources than recipe.json"))
    return problems


def _source(source: CorpusSource, text_bytes: int) -> list[Problem]:
    """A source cannot give more text than its files have."""
    if text_bytes <= sum(file.text_bytes for file in source.files) * max(1, -(-source.weight // 1)):
        return []
    return [
        Problem(
            f"corpus.sources: {source.label} states {text_bytes:,} bytes of text, its files have"
            " fewer"
        )
    ]


def import_problems(source: CorpusSource, report: ImportReport) -> list[Problem]:
    """The import report must state the origin and the files of the source, and add up."""
    problems: list[Problem] = []
    where, says = f"corpus/sources.json {source.label}", f"{source.import_report} says"
    if source.provenance is None:
        problems.append(Problem(f"{where}: has an import report and no origin"))
    else:
        origin = {
            "kind": report.kind,
            "dataset": report.dataset,
            "config": report.config_name,
            "split": report.split,
            "revision": report.revision,
            "licence": report.licence,
            "request": report.request,
        }
        stated = to_jsonable(source.provenance)
        problems += differences(where, {name: stated[name] for name in origin}, origin, says)
        if report.licence:
            licence = {"licence": report.licence}
            problems += differences(where, {"licence": source.licence}, licence, says)
    written = {
        Path(file.path).name: (file.num_documents, file.text_bytes, file.sha256)
        for file in report.document_files
    }
    wrong = [
        file.name
        for file in source.files
        if written.get(file.name) != (file.rows, file.text_bytes, file.sha256)
    ]
    if wrong:
        problems.append(
            Problem(
                f"{where}: {names_shown(wrong)} is not a file that {source.import_report} lists"
            )
        )
    sums = {
        "rows_seen": sum(file.rows_inspected for file in report.data_files),
        "rows_written": sum(file.num_documents for file in report.document_files),
        "rows_skipped": sum(report.skip_reasons.values()),
        "text_bytes_written": sum(file.text_bytes for file in report.document_files),
        "characters_written": sum(file.num_characters for file in report.document_files),
        "document_files_written": len(report.document_files),
    }
    problems += stated_of(f"corpus/{source.import_report}", report, sums, "its parts give")
    if report.rows_seen != report.rows_written + report.rows_skipped:
        problems.append(
            Problem(f"corpus/{source.import_report}: rows seen are not those written and skipped")
        )
    return problems


def check_exercises(run: RunFacts) -> list[Problem]:
    """Sums of the shards, and the sample that words and seed give.

    The exercises themselves stay out of bundles.
    """
    exercises = run.artifacts["exercises"]
    listed = read_record(DocumentsManifest, exercises.path("documents.json"), "exercises")
    words = tuple(exercises.path("words.txt").read_text("utf-8").split())
    parts = {
        "documents": sum(s.documents for s in listed.shards),
        "text_bytes": sum(s.text_bytes for s in listed.shards),
    }
    problems = stated_of("exercises/documents.json", listed, parts, "its shards give")
    page = (
        sample_page(words, run.config.seed).encode()
        if run.config.exercises.fraction and listed.documents
        else b""
    )
    if exercises.path("sample.txt").read_bytes() != page:
        problems.append(
            Problem("exercises/sample.txt: differs from what words.txt and the seed give")
        )
    return problems


def check_rows(run: RunFacts) -> list[Problem]:
    """Ids must be different: two rows of one id would be judged by the rule of one."""
    rows = run.artifacts["rows"]
    sft = (rows.path("sft_train.jsonl"), rows.path("sft_held_out.jsonl"))
    ids = [row.id for path in sft for row in read_published_rows(path, SftRow)]
    ids += [row.id for row in read_published_rows(rows.path("eval.jsonl"), EvalRow)]
    if repeated := sorted(id for id, count in Counter(ids).items() if count > 1):
        return [Problem(f"rows: {names_shown(repeated)} is the id of more than one row")]
    return []


def check_benchmarks(run: RunFacts) -> list[Problem]:
    """The settings ask for just these items; in a run folder, each item follows from its text."""
    facts, items = known(run.benchmarks), read_items(run.artifacts["benchmarks"])
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
        usable = stated.rows_read - sum(stated.unusable.values())
        most = run.config.external.max_rows
        wanted = min(most, usable) if most else usable
        if len(mine) != wanted:
            problems.append(
                Problem(
                    f"benchmarks/{ITEMS}: holds {len(mine):,} items of {name}, the settings ask for"
                    f" {wanted:,}"
                )
            )
        problems += _texts(run.artifacts["benchmarks"], name, mine)
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


def check_tokenizer(run: RunFacts) -> list[Problem]:
    """The vocabulary has the size that the settings ask for."""
    stated, asked = known(run.tokenizer).vocab_size, run.config.tokenizer.vocab_size
    return differences("tokenizer.vocab_size", stated, asked, "the settings ask for")


def check_shards(run: RunFacts) -> list[Problem]:
    """Counts fit corpus and exercises; sidecars fit the files that the manifest states."""
    shards, corpus, practised = run.artifacts["shards"], known(run.corpus), known(run.exercises)
    names = sorted(name for name in shards.manifest.files if name.endswith(".bin"))
    sidecars = {
        name: read_record(ShardSidecar, shards.path(name.replace(".bin", ".json")), "shard")
        for name in names
    }
    counted = {
        "train_documents": corpus.train_documents + practised.documents,
        "held_out_documents": corpus.held_out_documents,
        "train_text_bytes": corpus.train_text_bytes + practised.text_bytes,
        "held_out_text_bytes": corpus.held_out_text_bytes,
        "exercise_documents": practised.documents,
    }
    problems = stated_of("shards", run.shards, counted, "corpus and exercises give")
    problems += _text_of_tokens(known(run.shards))
    tokenizer_digest = run.artifacts["tokenizer"].manifest.files["tokenizer.json"].sha256
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
        problems += _starts(shards, name.replace(".bin", ".starts"), side.tokens)
    return problems


def _starts(shards: Artifact, name: str, tokens: int) -> list[Problem]:
    """Documents stand one behind the other, each with its bos and a token of text at least."""
    starts = np.fromfile(shards.path(name), dtype="<i8")
    gaps = np.diff(np.append(starts, tokens))
    if len(starts) and (starts[0] != 0 or gaps.min() < FEWEST_TOKENS):
        return [Problem(f"base/token_shards/{name}: has a document without text, or out of order")]
    return []


def _text_of_tokens(shards: ShardsFacts) -> list[Problem]:
    """A token of text stands for a byte at least, and the bos of a document for none."""
    parts = (
        ("train", shards.train_tokens, shards.train_documents, shards.train_text_bytes),
        ("held_out", shards.held_out_tokens, shards.held_out_documents, shards.held_out_text_bytes),
    )
    return [
        Problem(f"shards.{split}_tokens: states {tokens:,}, more than its text has bytes")
        for split, tokens, documents, text_bytes in parts
        if tokens - documents > text_bytes
    ]


def check_conversations(run: RunFacts) -> list[Problem]:
    """The SFT rows encoded again: what was trained on is what the rows say, and nothing else."""
    words = Tokenizer.load(run.artifacts["tokenizer"].path("tokenizer.json"))
    context = run.config.model.context
    problems: list[Problem] = []
    for split in SPLITS:
        name = f"sft_{split}"
        chats = read_chats(run.artifacts["rows"].path(f"{name}.jsonl"), words)
        encoded = join_conversations(fitting(chats, context))
        there = open_conversations(run.artifacts["conversations"], split)
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
    return problems


# ---- contamination -------------------------------------------------------------------------------


def check_honesty(run: RunFacts) -> list[Problem]:
    """The SFT rows scanned again; counts, settings, hits and page fit the report.

    The corpus itself is not here to be scanned.
    """
    honesty, facts = run.artifacts["honesty"], known(run.honesty)
    report = read_json(honesty.path("report.json"), "honesty report")
    corpus, practised = known(run.corpus), known(run.exercises)
    hits = [
        parse_record(Hit, value, f"hits.jsonl, line {line}")
        for line, value in read_jsonl(honesty.path("hits.jsonl"), "hits")
    ]
    problems = _sft_again(run, report, facts, hits)
    scanned = {"scanned_documents": corpus.documents + practised.documents}
    problems += stated_of("honesty", facts, scanned, "corpus and exercises have")
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
    problems += _hits_otherwise(hits, report)
    if honesty.path("report.md").read_text("utf-8") != contamination_page(facts, report):
        problems.append(Problem("honesty/report.md: differs from what facts and report give"))
    return problems


def _sft_again(
    run: RunFacts, report: Mapping[str, Any], facts: HonestyFacts, hits: Sequence[Hit]
) -> list[Problem]:
    """What report, facts and hits state otherwise than a scan of the SFT rows for our eval rows.

    What the scan says of benchmarks needs their texts.
    """
    rows = run.artifacts["rows"]
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
    problems += stated_of("honesty", facts, coverage, "the rows give")
    listed = Counter(hit for hit in hits if hit.where == "sft" and hit.benchmark is None)
    if listed != Counter(tally.hits):
        what = "honesty/hits.jsonl: lists other places in SFT rows than a scan of them gives"
        problems.append(Problem(what))
    return problems


def _hits_otherwise(hits: Sequence[Hit], report: Mapping[str, Any]) -> list[Problem]:
    """Rows whose listed places are not as many as the report's counts ask for.

    Each text that holds a row has at least one line, until enough are kept. So a row that is called
    contaminated has a place that can be looked up, and one that is called clean has none.
    """
    parts = {None: report, **report["benchmarks"]}
    counts = {
        (name, where, row): int(texts)
        for name, part in parts.items()
        for where, key in (("sft", "sft_rows_holding"), ("corpus", "corpus_documents_holding"))
        for row, texts in part[key].items()
    }
    listed: dict[tuple[str | None, str, str], list[str]] = defaultdict(list)
    for hit in hits:
        listed[hit.benchmark, hit.where, hit.row].append(hit.document)
    wrong: dict[str, None] = {}
    for key in {**counts, **listed}:
        most = most_hits(key[0])
        texts, documents = counts.get(key, 0), listed.get(key, [])
        enough = min(texts, most) <= len(documents) <= most
        if not enough or len(set(documents)) > texts:
            wrong[key[2]] = None
    left_out = set(report["documents_to_leave_out"])
    unnamed = [
        hit.document
        for hit in hits
        if hit.where == "corpus"
        and len(left_out) < MOST_IDS_KEPT
        and not {hit.document, COPY.sub("", hit.document)} & left_out
    ]
    problems: list[Problem] = []
    if wrong:
        what = f"lists other places of {names_shown(list(wrong))} than the report counts"
        problems.append(Problem(f"honesty/hits.jsonl: {what}"))
    if unnamed:
        what = f"documents_to_leave_out lacks {names_shown(unnamed)}, where a row was found"
        problems.append(Problem(f"honesty/report.json: {what}"))
    return problems


# ---- trivial answers -----------------------------------------------------------------------------


def check_trivial(run: RunFacts) -> list[Problem]:
    """Options were counted in text that the corpus can have.

    The counts themselves need the corpus, which is not here to be read.
    """
    trivial, corpus = known(run.trivial), known(run.corpus)
    most = {"documents": corpus.train_documents, "text_bytes": corpus.train_text_bytes}
    return [
        Problem(f"trivial.{name}: states {getattr(trivial, name):,}, the corpus has {limit:,}")
        for name, limit in most.items()
        if getattr(trivial, name) > limit
    ]
