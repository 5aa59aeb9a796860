"""The corpus stage: which documents are read, which are dropped and why, which are held out.

No text is copied (docs/decisions/0004). The artifact has the digest of every source file and a
decision for each of its rows; reader.py reads the sources again. Ids are `<label>:<id in the
source>`, and `<label>:<file>#<row>` for a row that repeats the id of an earlier one. With weight w
a training document is read floor(w) times, and once more for some hashes of its id; held-out
documents are read once.

Memory: a fixed amount, about ten bytes a document, and eight for each that repeats an id. About
600 bytes a document are on disk while the corpus is built (docs/decisions/0015).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from picochat.config import DataConfig, HostConfig, RunConfig
from picochat.core.errors import BadInput, Problem
from picochat.core.progress import Progress, say
from picochat.core.publish import Artifact, StagingFolder
from picochat.core.records import Record, read_jsonl, read_record, write_json, write_jsonl
from picochat.data.corpus.corpus_scan import (
    EXCLUDED,
    ScanListing,
    ScanTask,
    scan_groups,
    scan_tasks,
)
from picochat.data.corpus.near_duplicates import connect, members_of_clusters
from picochat.data.corpus.reader import (
    DECISIONS,
    DROPPED,
    HELD_OUT,
    RENAMED,
    CorpusSource,
    CorpusSources,
    RowDecisions,
)
from picochat.data.corpus.row_table import PlacedChunk, Repeats, RowTable
from picochat.data.documents import file_path
from picochat.data.left_out import ignored_files
from picochat.data.pack import LoadedPack, LoadedSource
from picochat.facts import CorpusFacts, DuplicatePair, SourceFacts


class MeasuredText(Record):
    """`measured.json`: sizes of the text of all documents that are read, with their weights.

    text_bytes: label of the source -> bytes.
    """

    held_out_text_bytes: int
    text_bytes: dict[str, int]


class Drop(NamedTuple):
    """A row that is not read, the reason, and the row that it repeats, if any."""

    row: int
    reason: str
    of: int | None


class Outcome(NamedTuple):
    """The decision about every row, and the repetitions that it rests on."""

    table: RowTable
    decisions: RowDecisions
    exact: Repeats
    near: Repeats
    held_out_fraction: float


def build_corpus(
    pack: LoadedPack, data: DataConfig, host: HostConfig, staging: StagingFolder
) -> None:
    """Scan every source and write the artifact.

    Raises BadInput for broken files, and for a corpus without documents.
    """
    sources = [_describe(source, data, staging) for source in pack.sources]
    with RowTable(staging.workspace / "scan") as table:
        _scan(pack, sources, data, host, table)
        _require_excluded(pack, table)
        _rename_repeated(table, staging.workspace / "ids")
        outcome = _decide(table, pack, data, staging.workspace)
        _write_files(pack, sources, outcome, staging)
    staging.facts = facts_from(staging.folder).model_dump(mode="json")


# ---- the scan ------------------------------------------------------------------------------------


def _describe(source: LoadedSource, data: DataConfig, staging: StagingFolder) -> CorpusSource:
    """The source for `sources.json`, still without files. Copies its import report."""
    report = source.report_path()
    if report is not None:
        staging.path(f"import_reports/{source.label}.json").write_bytes(report.read_bytes())
    return CorpusSource(
        label=source.label,
        weight=source.weight,
        min_chars=source.least_chars(data.min_chars),
        text_column=source.text_column,
        licence=source.licence,
        provenance=source.manifest.provenance if source.manifest else None,
        import_report=f"import_reports/{source.label}.json" if report else None,
        ignored=ignored_files(source.path, [file.name for file in source.files]),
        files=[],
    )


def _scan(
    pack: LoadedPack,
    sources: list[CorpusSource],
    data: DataConfig,
    host: HostConfig,
    table: RowTable,
) -> None:
    """Scan all files; add every row to `table` and every file to `sources`."""
    tasks = scan_tasks(pack, data.min_chars)
    owners = {source.label: number for number, source in enumerate(pack.sources)}
    with Progress("read corpus", sum(task.file_bytes for task in tasks) / 1e6, "MB") as progress:
        listings = scan_groups(tasks, table.folder, host.workers)
        for task, listing in zip(tasks, listings, strict=True):
            owner = owners[task.label]
            _take_files(pack.sources[owner], sources[owner], task, listing)
            table.add(owner, task, listing)
            progress.advance(task.file_bytes / 1e6, f"{table.total:,} documents")
    table.flush()


def _take_files(
    source: LoadedSource, described: CorpusSource, task: ScanTask, listing: ScanListing
) -> None:
    """Add the scanned files. Raises BadInput if one differs from the digest in its manifest."""
    for found in listing.files:
        stated = source.files[len(described.files)]
        if stated.sha256 is not None and stated.sha256 != found.sha256:
            where = file_path(task.source, found.name)
            raise BadInput(
                f"{where} differs from its digest in documents.json",
                fix="import it again with --force",
            )
        described.files.append(found)


def _require_excluded(pack: LoadedPack, table: RowTable) -> None:
    """Raise BadInput if an excluded document is in no source.

    Otherwise a misspelled id would go unnoticed, and its document would be trained on.
    """
    missing = set(pack.recipe.exclude_documents)
    for placed in table.chunks if missing else ():
        if EXCLUDED in placed.chunk.reasons:
            code = placed.chunk.reasons.index(EXCLUDED) + 1
            rows = np.flatnonzero(placed.chunk.column("problem") == code) + placed.first
            missing -= {name(row) for row in rows.tolist() for name in (table.id, table.place)}
    if missing:
        raise BadInput(
            f"{len(missing):,} of exclude_documents are in no source, the first: {min(missing)}",
            fix=(
                "write them as reports name them, LABEL:ID, with the label of the source in the"
                " recipe"
            ),
        )


def _rename_repeated(table: RowTable, scratch: Path) -> None:
    """Let FILE#ROW be the id of rows that repeat one, because splits and lists rest on ids.

    Raises BadInput if another row has such a place as its own id.
    """
    if repeated := table.rename_repeated(scratch):
        raise BadInput(
            f"{len(repeated):,} document ids are the place FILE#ROW of another row, the first:"
            f" {repeated[0]}",
            fix='rename the file, or give its rows other "id" values, or none',
        )
    if len(table.renamed):
        say(
            f"{len(table.renamed):,} rows repeat the id of an earlier row of their source (the"
            f" first: {table.id(int(table.renamed[0]))}); FILE#ROW is their id instead"
        )


# ---- decisions -----------------------------------------------------------------------------------


def _decide(table: RowTable, pack: LoadedPack, data: DataConfig, workspace: Path) -> Outcome:
    """Decide about every row: weight, then equal texts, then near-duplicates, then the split."""
    # Weight comes first, so that no text is dropped as a duplicate of one that is not read.
    decisions = table.copies()
    exact = table.repeated_texts(decisions, workspace / "digests")
    decisions[exact.rows] = DROPPED
    say(f"comparing {np.count_nonzero(decisions):,} documents for near-duplicates")
    blocks = table.signature_blocks(decisions)
    parents = connect(
        blocks, table.total, table.signatures, data.near_duplicate_jaccard, workspace / "bands"
    )
    near = Repeats(*members_of_clusters(parents))
    if data.drop_near_duplicates:
        decisions[near.rows] = DROPPED
    outcome = Outcome(table, decisions, exact, near, 0.0)
    if not decisions.any():
        _refuse_empty(pack, Counter(drop.reason for drop in _drops(outcome)))
    return outcome._replace(held_out_fraction=_hold_out(table, decisions, near, data))


# What lets rows of a reason be read.
REMEDIES = {
    "below_min_chars": "lower min_chars of the sources, or --set data.min_chars=1",
    "missing_text_column": 'name the column of the text: "text_column" of the source in the recipe',
    "text_not_string": 'name a column of text: "text_column" of the source in the recipe',
    "weight": "raise the weights of the sources in the recipe",
    EXCLUDED: "take documents out of exclude_documents in the recipe",
}


def _refuse_empty(pack: LoadedPack, dropped: Counter[str]) -> NoReturn:
    reasons = sorted(dropped.items())
    fixes = [REMEDIES[reason] for reason, _ in reasons if reason in REMEDIES]
    raise BadInput(
        f"pack {pack.path} has no document left"
        if reasons
        else f"pack {pack.path} has no document: its files hold no rows",
        problems=[Problem(f"{rows:,} documents: {reason}") for reason, rows in reasons],
        fix="; ".join([*fixes, "or name sources with other text" if fixes else "add text to it"]),
    )


def _hold_out(table: RowTable, decisions: RowDecisions, near: Repeats, data: DataConfig) -> float:
    """Mark the held-out documents, and return the fraction below which they are held out.

    It is the configured fraction, or less for a large corpus (`data.held_out_bytes`). If there is
    no document below it, the one with the smallest number is held out. Raises BadInput for a corpus
    of one document, or of one cluster of near-duplicates.
    """
    text_bytes, smallest, largest = 0, 1.0, 0.0
    for placed, fractions in _split_fractions(table, near):
        here = placed.of(decisions)
        text_bytes += int(placed.chunk.column("text_bytes") @ here.astype(np.int64))
        kept = fractions[here != DROPPED]
        smallest = min(smallest, kept.min(initial=1.0))
        largest = max(largest, kept.max(initial=0.0))
    if smallest == largest:
        raise BadInput(
            "all text is one document, or near copies of one: nothing can be held out of training",
            fix="divide it into files, or write <|endoftext|> between the documents of a text file",
        )
    fraction = min(data.held_out_fraction, data.held_out_bytes / text_bytes)
    if smallest >= fraction:
        fraction = float(np.nextafter(smallest, 1.0))
    for placed, fractions in _split_fractions(table, near):
        here = placed.of(decisions)
        here[(fractions < fraction) & (here != DROPPED)] = HELD_OUT
    return fraction


def _split_fractions(
    table: RowTable, near: Repeats
) -> Iterator[tuple[PlacedChunk, npt.NDArray[np.float64]]]:
    """(chunk, numbers in [0, 1) that decide the split of its rows) for each chunk."""
    # A near-duplicate has the number of its cluster's first document, because a held-out page with
    # a near copy in training would look easier than it is. The first document is in this chunk or
    # in an earlier one, so its number is known.
    firsts = np.unique(near.firsts)
    of_first = np.zeros(len(firsts))
    for placed in table.chunks:
        fractions = table.column(placed, "fraction")
        bounds = [placed.first, placed.first + placed.chunk.rows]
        start, stop = np.searchsorted(firsts, bounds)
        of_first[start:stop] = fractions[firsts[start:stop] - placed.first]
        start, stop = np.searchsorted(near.rows, bounds)
        fractions[near.rows[start:stop] - placed.first] = of_first[
            np.searchsorted(firsts, near.firsts[start:stop])
        ]
        yield placed, fractions


# ---- files ---------------------------------------------------------------------------------------


def _write_files(
    pack: LoadedPack, sources: list[CorpusSource], outcome: Outcome, staging: StagingFolder
) -> None:
    listing = CorpusSources(
        schema_version=2, held_out_fraction=outcome.held_out_fraction, sources=sources
    )
    write_json(staging.path("pack.json"), pack.portable_pack())
    write_json(staging.path("recipe.json"), pack.portable_recipe())
    write_json(staging.path("sources.json"), listing)
    outcome.decisions.tofile(staging.path(DECISIONS))
    outcome.table.renamed.astype("<i8").tofile(staging.path(RENAMED))
    write_jsonl(staging.path("dropped.jsonl"), _drop_rows(outcome))
    write_jsonl(staging.path("near_duplicates.jsonl"), _cluster_rows(outcome.table, outcome.near))
    write_json(staging.path("measured.json"), _measure(sources, outcome))
    # Volatile, so that the digest is the same wherever pack and sources are.
    locations = {source.label: str(source.path.resolve()) for source in pack.sources}
    write_json(
        staging.volatile("location.json"), {"pack": str(pack.path.resolve()), "sources": locations}
    )


def _drops(outcome: Outcome) -> Iterator[Drop]:
    """Every row that is not read, in order."""
    for placed in outcome.table.chunks:
        local = np.flatnonzero(placed.of(outcome.decisions) == DROPPED)
        problems = placed.chunk.column("problem")[local].tolist()
        copies = outcome.table.column(placed, "copies")[local].tolist()
        texts, nears = (_of_chunk(repeats, placed) for repeats in (outcome.exact, outcome.near))
        rows = (local + placed.first).tolist()
        for row, problem, wanted in zip(rows, problems, copies, strict=True):
            if problem:
                yield Drop(row, placed.chunk.reasons[problem - 1], None)
            elif not wanted:
                yield Drop(row, "weight", None)
            elif row in texts:
                yield Drop(row, "duplicate_text", texts[row])
            else:
                yield Drop(row, "near_duplicate", nears[row])


def _of_chunk(repeats: Repeats, placed: PlacedChunk) -> dict[int, int]:
    """row -> the row that it repeats, for the rows of one chunk."""
    start, stop = np.searchsorted(repeats.rows, [placed.first, placed.first + placed.chunk.rows])
    return dict(
        zip(repeats.rows[start:stop].tolist(), repeats.firsts[start:stop].tolist(), strict=True)
    )


def _drop_rows(outcome: Outcome) -> Iterator[dict[str, str]]:
    """The rows of dropped.jsonl."""
    for drop in _drops(outcome):
        if drop.reason == "weight":
            continue  # these follow from ids and weights, and may be most of a source
        row = {"id": outcome.table.id(drop.row), "reason": drop.reason}
        yield row if drop.of is None else {**row, "of": outcome.table.id(drop.of)}


def _cluster_rows(table: RowTable, near: Repeats) -> Iterator[dict[str, list[str]]]:
    """The rows of near_duplicates.jsonl: the ids of each cluster, by first document."""
    order = np.lexsort((near.rows, near.firsts))
    firsts, begins = np.unique(near.firsts[order], return_index=True)
    clusters = np.split(near.rows[order], begins[1:])
    # Not strict, because np.split returns one empty cluster where there are none.
    for first, members in zip(firsts.tolist(), clusters, strict=False):
        yield {"documents": [table.id(row) for row in (first, *members.tolist())]}


def _measure(sources: list[CorpusSource], outcome: Outcome) -> MeasuredText:
    held_out_text_bytes = 0
    text_bytes = {source.label: 0 for source in sources}
    for placed in outcome.table.chunks:
        held_out = placed.of(outcome.decisions) == HELD_OUT
        copies = np.where(held_out, 1, placed.of(outcome.decisions)).astype(np.int64)
        sizes = placed.chunk.column("text_bytes")
        text_bytes[sources[placed.owner].label] += int(sizes @ copies)
        held_out_text_bytes += int(sizes @ held_out.astype(np.int64))
    return MeasuredText(held_out_text_bytes=held_out_text_bytes, text_bytes=text_bytes)


# ---- facts ---------------------------------------------------------------------------------------


def facts_from(
    files: Path, inputs: Mapping[str, Artifact] | None = None, config: RunConfig | None = None
) -> CorpusFacts:
    """The facts of a corpus, from its files; `inputs` and `config` are not used.

    Sizes of text come from measured.json, all else from the decisions and the lists of documents.
    Raises BadInput if the files contradict each other.
    """
    listing = read_record(CorpusSources, files / "sources.json", "corpus sources")
    measured = read_record(MeasuredText, files / "measured.json", "measured text")
    decisions: RowDecisions = np.fromfile(files / DECISIONS, dtype=np.uint8)
    rows = [sum(file.rows for file in source.files) for source in listing.sources]
    if sum(rows) != len(decisions):
        raise BadInput(
            f"corpus/row_decisions.u8: holds {len(decisions):,} rows,"
            f" sources.json lists {sum(rows):,}"
        )
    of_sources = np.split(decisions, np.cumsum(rows)[:-1])
    # A held-out document is read once. Its byte is HELD_OUT and not a count.
    held_out = [int(np.count_nonzero(part == HELD_OUT)) for part in of_sources]
    documents = [
        int(part.sum(dtype=np.int64)) - (HELD_OUT - 1) * count
        for part, count in zip(of_sources, held_out, strict=True)
    ]
    dropped, exact = _dropped(files, int(np.count_nonzero(decisions == DROPPED)))
    near: Counter[tuple[str, str]] = Counter()
    for _, row in read_jsonl(files / "near_duplicates.jsonl", "clusters"):
        first, *members = map(_label, row["documents"])
        near.update((member, first) for member in members)
    text_bytes = sum(measured.text_bytes.values())
    labels = [source.label for source in listing.sources]
    return CorpusFacts(
        documents_read=sum(documents) + sum(dropped.values()),
        documents=sum(documents),
        train_documents=sum(documents) - sum(held_out),
        held_out_documents=sum(held_out),
        text_bytes=text_bytes,
        train_text_bytes=text_bytes - measured.held_out_text_bytes,
        held_out_text_bytes=measured.held_out_text_bytes,
        repeated_ids=_renamed_rows(files, len(decisions)),
        exact_duplicates=sum(exact.values()),
        near_duplicates=sum(near.values()),
        dropped=dropped,
        duplicates=[
            DuplicatePair(
                source=label, of=other, exact=exact[label, other], near=near[label, other]
            )
            for label in labels
            for other in labels
            if exact[label, other] or near[label, other]
        ],
        held_out_fraction=listing.held_out_fraction,
        sources=[
            _source_facts(source, count, measured.text_bytes[source.label])
            for source, count in zip(listing.sources, documents, strict=True)
        ],
    )


def _renamed_rows(files: Path, rows: int) -> int:
    """How many of the corpus's rows are renamed."""
    renamed = np.fromfile(files / RENAMED, dtype="<i8")
    ascending = bool((np.diff(renamed) > 0).all())
    if len(renamed) and not (renamed[0] >= 0 and renamed[-1] < rows and ascending):
        raise BadInput(f"corpus/{RENAMED}: is not an ascending list of rows of the corpus")
    return len(renamed)


def _dropped(files: Path, rows: int) -> tuple[dict[str, int], Counter[tuple[str, str]]]:
    """(reason -> dropped rows, (label, label of the repeated text) -> exact duplicates).

    rows: how many rows the decisions drop.
    """
    reasons: Counter[str] = Counter()
    exact: Counter[tuple[str, str]] = Counter()
    for _, row in read_jsonl(files / "dropped.jsonl", "dropped rows"):
        reasons[row["reason"]] += 1
        if row["reason"] == "duplicate_text":
            exact[_label(row["id"]), _label(row["of"])] += 1
    by_weight = rows - sum(reasons.values())
    if by_weight < 0:
        raise BadInput(
            f"corpus/dropped.jsonl: lists {-by_weight:,} rows more than row_decisions.u8 drops"
        )
    if by_weight:  # only these rows are not listed
        reasons["weight"] = by_weight
    return dict(sorted(reasons.items())), exact


def _label(id: str) -> str:
    return id.partition(":")[0]  # a label holds no colon


def _source_facts(source: CorpusSource, documents: int, text_bytes: int) -> SourceFacts:
    provenance = source.provenance
    return SourceFacts(
        label=source.label,
        kind="hub" if provenance and provenance.kind == "hub" else "files",
        documents=documents,
        text_bytes=text_bytes,
        # sources.json has the digest of every file, and the commit of an import from the Hub.
        pinned=True,
        licence=source.licence,
        import_report=source.import_report is not None,
    )
