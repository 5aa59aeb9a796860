"""The contamination scan: are eval rows in the corpus or in the SFT rows? Hits carry document, offset and words.

What is looked for is an eval row's prompt with its options; its answer only tells whether a very short prompt such as
"Who are you?" is the item or plain English. An item is dirty where a text holds one of its 13-word runs, or its whole
prompt (under 13 words), or at least 70% of its 8-word runs (of four or more). Shared template words are no contamination.
Texts are streamed, over all cores where there is much of them; memory does not grow with the corpus.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

from picochat.config import HonestyConfig, HostConfig
from picochat.core.machine import usable_cores
from picochat.core.progress import Progress
from picochat.core.publish import Artifact, Draft
from picochat.core.records import Record, read_jsonl, write_atomic, write_json, write_jsonl
from picochat.core.workers import in_order
from picochat.honesty.ngrams import Index, Match, ScanItem, Words, build_index, count_words, coverage_of, find_matches
from picochat.honesty.normalize import words_of, words_with_offsets
from picochat.honesty.report import report_page
from picochat.rundir import BenchmarksFacts, CorpusFacts, HonestyFacts, facts_of

DIRTY_COVERAGE = 0.7
FEWEST_RUNS_FOR_COVERAGE = 4  # one or two 8-word runs of a short prompt say too little
HITS_KEPT_PER_ITEM = 20  # all are counted, these are kept with coordinates
BATCH_BYTES = 2_000_000
SAMPLE_BYTES = 8_000_000  # word counts come from it; a smaller corpus is scanned in this process
Text = tuple[str, str]  # document id, text


class Hit(Record):
    """One place where an eval row was found. `offset`: characters into the document. `words`: as normalized."""

    row: str
    skill: str
    where: str
    document: str
    offset: int
    rule: str
    words: str


@dataclass
class Tally:
    """What a scan of some texts found. `dirty_documents`: item id -> texts that hold it."""

    documents: int = 0
    text_bytes: int = 0
    dirty_documents: Counter[str] = field(default_factory=Counter[str])
    largest_coverage: float = 0.0
    hits: list[Hit] = field(default_factory=list[Hit])
    kept: Counter[str] = field(default_factory=Counter[str])

    def add(self, other: Tally) -> None:
        """Take in what a later batch found; keeps the first hits of each item."""
        self.documents += other.documents
        self.text_bytes += other.text_bytes
        self.dirty_documents.update(other.dirty_documents)
        self.largest_coverage = max(self.largest_coverage, other.largest_coverage)
        for hit in other.hits:
            self.keep(hit)

    def keep(self, hit: Hit) -> None:
        if self.kept[hit.row] < HITS_KEPT_PER_ITEM:
            self.kept[hit.row] += 1
            self.hits.append(hit)


# ---- the stage --------------------------------------------------------------------------------------------------------


def scan_run(
    corpus: Artifact, rows: Artifact, benchmarks: Artifact, honesty: HonestyConfig, host: HostConfig, draft: Draft
) -> None:
    """Scan the whole corpus, held-out documents too, and the SFT rows: hits.jsonl, report.json, report.md, HonestyFacts."""
    from picochat.data.corpus.reader import read_split

    corpus_facts = facts_of(corpus, CorpusFacts)
    documents = ((document.id, document.text) for split in ("train", "held_out") for document in read_split(corpus, split))
    evals = _rows(rows, "eval.jsonl")
    sft = chain(_rows(rows, "sft_train.jsonl"), _rows(rows, "sft_held_out.jsonl"))
    workers = host.workers or usable_cores()
    found = scan_rows(list(evals), sft, documents, honesty, workers=workers, corpus_bytes=corpus_facts.text_bytes)
    again = ((document.id, document.text) for split in ("train", "held_out") for document in read_split(corpus, split))
    items = {name: benchmark_items(benchmarks, name) for name in sorted(facts_of(benchmarks, BenchmarksFacts).benchmarks)}
    dirty, hits = scan_benchmarks(items, again, honesty, workers=workers, corpus_bytes=corpus_facts.text_bytes)
    external = {
        "external_rows": {name: len(found_items) for name, found_items in items.items()},
        "external_dirty": {name: len(ids) for name, ids in dirty.items()},
        "dirty_external_rows": dirty,
    }
    facts = found.facts.model_copy(update=external)
    write_jsonl(draft.path("hits.jsonl"), [*found.hits, *hits])
    write_json(draft.path("report.json"), found.report)
    write_atomic(draft.path("report.md"), report_page(facts, found.report).encode())
    draft.facts = facts.model_dump(mode="json")


def benchmark_items(benchmarks: Artifact, name: str) -> list[ScanItem]:
    """What is looked for of a benchmark: each question, and the correct option where the question is very short."""
    from picochat.data.benchmarks.stage import read_texts

    return [
        ScanItem(row.id, name, tuple(words_of(row.question)), (tuple(words_of(row.options[row.correct])),))
        for row in read_texts(benchmarks, name)
    ]


def scan_benchmarks(
    benchmarks: Mapping[str, Sequence[ScanItem]],
    documents: Iterable[Text],
    config: HonestyConfig,
    *,
    workers: int,
    corpus_bytes: int,
) -> tuple[dict[str, list[str]], list[Hit]]:
    """Benchmark -> sorted ids of its rows that the documents hold, and the hits."""
    items = [item for found in benchmarks.values() for item in found]
    if not items:
        return {name: [] for name in benchmarks}, []
    tally = scan_texts(items, documents, config, workers=workers, total_bytes=corpus_bytes)
    dirty = {name: sorted(i.id for i in found if tally.dirty_documents[i.id]) for name, found in benchmarks.items()}
    return dirty, tally.hits


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
    corpus_bytes: int,
) -> ScanFound:
    """Everything that the stage publishes, from plain rows and (id, text) pairs."""
    items = [item_of_row(row) for row in evals]
    sft_tally, exact = scan_sft_rows(items, sft, config)
    tally = scan_texts(items, documents, config, workers=workers, total_bytes=corpus_bytes)
    skill_of = {item.id: item.skill for item in items}
    index = build_index(items, config, {})
    facts = HonestyFacts(
        corpus_text_bytes=corpus_bytes,
        scanned_text_bytes=tally.text_bytes,
        scanned_documents=tally.documents,
        eval_rows=len(items),
        sft_exact_prompts=len(exact),
        sft_largest_coverage=round(sft_tally.largest_coverage, 4),
        corpus_dirty_by_skill=_by_skill(tally.dirty_documents, skill_of),
        eval_by_skill=_by_skill(skill_of, skill_of),
        external_rows={},
        external_dirty={},
        dirty_eval_rows=sorted({*tally.dirty_documents, *sft_tally.dirty_documents, *exact}),
    )
    return ScanFound(facts, sft_tally.hits + tally.hits, _report(index, config, tally, sft_tally, exact))


def _by_skill(ids: Iterable[str], skill_of: Mapping[str, str]) -> dict[str, int]:
    """Every skill of the eval rows with how many of `ids` are its own, zeros included."""
    counts = Counter(skill_of[item] for item in ids)
    return {skill: counts[skill] for skill in sorted(set(skill_of.values()))}


def _report(index: Index, config: HonestyConfig, corpus: Tally, sft: Tally, exact: Sequence[str]) -> dict[str, Any]:
    return {
        "hit_words": config.hit_words,
        "coverage_words": config.coverage_words,
        "dirty_coverage": DIRTY_COVERAGE,
        "template_runs": index.template_runs,
        "rows_too_short_to_look_for": list(index.unscannable),
        "sft_rows": sft.documents,
        "sft_exact_prompts": sorted(exact),
        "sft_rows_holding": dict(sorted(sft.dirty_documents.items())),
        "corpus_documents_holding": dict(sorted(corpus.dirty_documents.items())),
        "hits_kept_per_row": HITS_KEPT_PER_ITEM,
    }


def item_of_row(row: Mapping[str, Any]) -> ScanItem:
    """What is looked for: the prompt, options included; and the answers that make a very short prompt specific."""
    prompt = words_of(str(row["user"]))
    options = [words_of(option) for option in row.get("choice_options", [])]
    if options and not all(set(option) <= set(prompt) for option in options):
        prompt += [word for option in options for word in option]
    given = [*row.get("normalized_answers", []), *row.get("aliases", [])]
    given += [row.get(key) for key in ("normalized_answer", "final_answer", "expected", "reference_answer")]
    answers = tuple(tuple(words_of(answer)) for answer in given if answer)
    return ScanItem(str(row["id"]), str(row.get("skill", "other")), tuple(prompt), tuple(a for a in answers if a))


# ---- SFT rows ---------------------------------------------------------------------------------------------------------


def scan_sft_rows(
    items: Sequence[ScanItem], rows: Iterable[Mapping[str, Any]], config: HonestyConfig
) -> tuple[Tally, list[str]]:
    """What the SFT rows hold of the items, and the ids of the items whose whole prompt is an SFT prompt."""
    index = build_index(items, config, {})
    prompts: set[Words] = set()
    tally = Tally()
    for number, row in enumerate(rows, start=1):
        prompts.add(tuple(words_of(str(row["user"]))))
        _scan_text(index, str(row.get("id", number)), f"{row['user']}\n{row.get('assistant', '')}", "sft", tally)
    return tally, [item.id for item in items if item.prompt in prompts]


# ---- texts ------------------------------------------------------------------------------------------------------------


def scan_texts(
    items: Sequence[ScanItem],
    documents: Iterable[Text],
    config: HonestyConfig,
    *,
    workers: int = 1,
    total_bytes: int | None = None,
    where: str = "corpus",
) -> Tally:
    """What the documents hold of the items. The result does not depend on `workers`."""
    stream = iter(documents)
    sample = list(_batches(stream, SAMPLE_BYTES, most=1))
    counts = count_words(words_of(text[:10_000]) for batch in sample for _, text in batch[::10])
    index = build_index(items, config, counts)
    small = [part for batch in sample for part in _batches(iter(batch), BATCH_BYTES)]
    beyond = next(_batches(stream, BATCH_BYTES, most=1), None)
    batches = chain(small, [beyond] if beyond else [], _batches(stream, BATCH_BYTES))
    processes = workers if beyond else 1  # one sample is scanned before a process has started
    tally = Tally()
    with (
        Progress("honesty scan", total_bytes, "bytes") as progress,
        closing(in_order(partial(_scanner, index, where), batches, processes)) as parts,
    ):
        for part in parts:
            tally.add(part)
            progress.advance(part.text_bytes, note=f"{len(tally.dirty_documents)} dirty rows")
    return tally


def _batches(stream: Iterator[Text], size_bytes: int, most: int | None = None) -> Iterator[list[Text]]:
    """Lists of documents of about `size_bytes`; at most `most` of them, leaving the rest in the stream."""
    batch: list[Text] = []
    size = made = 0
    while made != most:
        document = next(stream, None)
        if document is not None:
            batch.append(document)
            size += len(document[1])
        if batch and (document is None or size >= size_bytes):
            yield batch
            batch, size, made = [], 0, made + 1
        if document is None:
            return


def _scanner(index: Index, where: str) -> Callable[[Sequence[Text]], Tally]:
    return partial(_scan_batch, index, where)


def _scan_batch(index: Index, where: str, batch: Sequence[Text]) -> Tally:
    tally = Tally()
    for document, text in batch:
        _scan_text(index, document, text, where, tally)
    return tally


def _scan_text(index: Index, document: str, text: str, where: str, tally: Tally) -> None:
    tally.documents += 1
    tally.text_bytes += len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
    words = words_of(text)
    matches = find_matches(index, words)
    if not matches:
        return
    coverage = coverage_of(index, words, matches)
    tally.largest_coverage = max([tally.largest_coverage, *coverage.values()])
    dirty = _dirty_matches(index, matches, coverage)
    if not dirty:
        return
    offsets = [offset for _, offset in words_with_offsets(text)]
    for match in dirty:
        run = " ".join(words[match.start : match.start + match.size])
        item = index.items[match.item]
        tally.keep(
            Hit(
                row=item.id,
                skill=item.skill,
                where=where,
                document=document,
                offset=offsets[match.start],
                rule=f"{match.rule} of {match.size} words",
                words=run,
            )
        )
    tally.dirty_documents.update({index.items[match.item].id for match in dirty})


def _dirty_matches(index: Index, matches: Sequence[Match], coverage: Mapping[int, float]) -> list[Match]:
    """The matches that make their item dirty; of one item in one text, the first of each rule."""
    first: dict[tuple[int, str], Match] = {}
    for match in matches:
        covered = coverage.get(match.item, 0.0) >= DIRTY_COVERAGE
        enough = index.own_runs[match.item] >= FEWEST_RUNS_FOR_COVERAGE
        if match.rule != "coverage" or (covered and enough):
            first.setdefault((match.item, match.rule), match)
    return list(first.values())
