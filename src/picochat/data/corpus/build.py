"""The corpus: which documents of a pack are read, which are dropped and why, and which are held
out.

Nothing is copied. The artifact states every source file with its digest, and for each of its rows
what becomes of it; `reader` streams the sources again. A held-out document is chosen by the hash of
its id, so a larger import keeps the old ones out; near-duplicates go where the first of their
cluster goes, so no held-out text has a near copy in training. Ids are `<label>:<id of the source>`.

A weight w reads a training document floor(w) times and once more by the hash of its id; held-out
documents are read once. Memory: about ten bytes a document beside a fixed amount. What else must be
known of all documents lies on disk meanwhile, some 600 bytes each (docs/decisions/0015).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from picochat.config import DataConfig, HostConfig
from picochat.core.errors import BadInput, Problem
from picochat.core.progress import Progress, say
from picochat.core.publish import Draft
from picochat.core.records import write_json, write_jsonl
from picochat.data.corpus.duplicates import connect, members_of_clusters
from picochat.data.corpus.reader import DROPPED, HELD_OUT, CorpusFile, CorpusSource, CorpusSources
from picochat.data.corpus.row_table import Fates, PlacedChunk, Repeats, RowTable
from picochat.data.corpus.scan import EXCLUDED, ScanListing, ScanTask, scan_groups, scan_tasks
from picochat.data.documents import file_path, ignored_files
from picochat.data.pack import LoadedPack, LoadedSource
from picochat.facts import CorpusFacts, DuplicatePair, SourceFacts


class Drop(NamedTuple):
    """A row that is not read, why, and the row that it repeats, if it does."""

    row: int
    reason: str
    of: int | None


class Outcome(NamedTuple):
    """What becomes of every row, and how it came to that."""

    table: RowTable
    fates: Fates
    exact: Repeats
    near: Repeats
    held_out_share: float


def build_corpus(pack: LoadedPack, data: DataConfig, host: HostConfig, draft: Draft) -> None:
    """Reads every source once and writes what `read_split` needs.

    Raises BadInput for broken files and repeated ids.
    """
    sources = [_describe(source, data, draft) for source in pack.sources]
    with RowTable(draft.workspace / "scan") as table:
        _scan(pack, sources, data, host, table)
        _require_excluded(pack, table)
        _require_unique_ids(table, draft.workspace / "ids")
        outcome = _decide(table, pack, data, draft.workspace)
        dropped = _write_files(pack, sources, outcome, draft)
        draft.facts = _facts(pack, sources, outcome, dropped).model_dump(mode="json")


# ---- what is there -------------------------------------------------------------------------------


def _describe(source: LoadedSource, data: DataConfig, draft: Draft) -> CorpusSource:
    """The source as `sources.json` states it, but for what the scan will find; its import report is
    copied into the artifact.
    """
    report = source.report_path()
    if report is not None:
        draft.path(f"import_reports/{source.label}.json").write_bytes(report.read_bytes())
    return CorpusSource(
        label=source.label,
        weight=source.weight,
        min_chars=source.least_chars(data.min_chars),
        text_column=source.text_column,
        provenance=source.manifest.provenance if source.manifest else None,
        import_report=f"import_reports/{source.label}.json" if report else None,
        ignored=ignored_files(source.path),
        files=[],
    )


def _scan(
    pack: LoadedPack,
    sources: list[CorpusSource],
    data: DataConfig,
    host: HostConfig,
    table: RowTable,
) -> None:
    """Every row goes into `table`; `sources` get the files as they were found."""
    tasks = scan_tasks(pack, data.min_chars)
    owners = {source.label: number for number, source in enumerate(pack.sources)}
    with Progress("read corpus", sum(task.file_bytes for task in tasks) / 1e6, "MB") as progress:
        for task, listing in zip(
            tasks, scan_groups(tasks, table.folder, host.workers), strict=True
        ):
            owner = owners[task.label]
            _take_files(pack.sources[owner], sources[owner], task, listing)
            table.add(owner, task, listing)
            progress.advance(task.file_bytes / 1e6, f"{table.total:,} documents")
    table.flush()


def _take_files(
    source: LoadedSource, described: CorpusSource, task: ScanTask, listing: ScanListing
) -> None:
    """List the files that were read.

    Where a digest was stated before, it must be the one that was read.
    """
    for found in listing.files:
        stated = source.files[len(described.files)]
        if stated.sha256 is not None and stated.sha256 != found.sha256:
            where = file_path(task.source, found.name)
            raise BadInput(
                f"{where} differs from its digest in documents.json",
                fix="import it again with --force",
            )
        described.files.append(CorpusFile(bytes=stated.bytes, **found.model_dump()))


def _require_excluded(pack: LoadedPack, table: RowTable) -> None:
    """A document that was to be left out and has another name would be trained on unseen."""
    missing = set(pack.recipe.exclude_documents)
    for placed in table.chunks if missing else ():
        if EXCLUDED in placed.chunk.reasons:
            code = placed.chunk.reasons.index(EXCLUDED) + 1
            rows = np.flatnonzero(placed.chunk.column("problem") == code) + placed.first
            missing -= {table.id(row) for row in rows.tolist()}
    if missing:
        raise BadInput(
            f"{len(missing):,} of exclude_documents are in no source, the first: {min(missing)}",
            fix=(
                "write them as reports name them, LABEL:ID, with the label of the source in the"
                " recipe"
            ),
        )


def _require_unique_ids(table: RowTable, scratch: Path) -> None:
    """Splitting and weighing go by id, and so does every list of documents: an id that two rows
    share would mix them up.
    """
    repeated = table.repeated_ids(scratch)
    if repeated:
        raise BadInput(
            f"{len(repeated):,} document ids stand for more than one row, the first: {repeated[0]}",
            fix='give the rows of that source unique "id" values, or none at all',
        )


# ---- what becomes of it --------------------------------------------------------------------------


def _decide(table: RowTable, pack: LoadedPack, data: DataConfig, workspace: Path) -> Outcome:
    """Weight draws first, so that a text it leaves out drops no other; then equal texts, then near
    ones, then the split.
    """
    fates = table.copies()
    exact = table.repeated_texts(fates, workspace / "digests")
    fates[exact.rows] = DROPPED
    say(f"comparing {np.count_nonzero(fates):,} documents for near-duplicates")
    blocks = table.signature_blocks(fates)
    parents = connect(
        blocks, table.total, table.signatures, data.near_duplicate_jaccard, workspace / "bands"
    )
    near = Repeats(*members_of_clusters(parents))
    if data.drop_near_duplicates:
        fates[near.rows] = DROPPED
    if not fates.any():
        counts = Counter(drop.reason for drop in _drops(Outcome(table, fates, exact, near, 0.0)))
        problems = [
            Problem(f"{count:,} documents: {reason}") for reason, count in sorted(counts.items())
        ]
        raise BadInput(
            f"pack {pack.path} has no document left",
            problems=problems,
            fix="lower min_chars of the sources or --set data.min_chars, or add text",
        )
    return Outcome(table, fates, exact, near, _hold_out(table, fates, near, data))


def _hold_out(table: RowTable, fates: Fates, near: Repeats, data: DataConfig) -> float:
    """Mark the held-out documents. Returns the share: the configured one, or less where the corpus
    is so large that less is enough.

    A corpus so small that no document would fall under it holds out the one with the smallest
    number.
    """
    text_bytes, smallest, largest = 0, 1.0, 0.0
    for placed, shares in _split_shares(table, near):
        here = placed.of(fates)
        text_bytes += int((placed.chunk.column("text_bytes").astype(np.int64) * here).sum())
        kept = shares[here != DROPPED]
        smallest, largest = (
            min(smallest, kept.min(initial=1.0)),
            max(largest, kept.max(initial=0.0)),
        )
    share = min(data.held_out_share, data.held_out_bytes / text_bytes)
    if smallest >= share and smallest < largest:
        share = float(np.nextafter(smallest, 1.0))
    for placed, shares in _split_shares(table, near):
        here = placed.of(fates)
        here[(shares < share) & (here != DROPPED)] = HELD_OUT
    return share


def _split_shares(
    table: RowTable, near: Repeats
) -> Iterator[tuple[PlacedChunk, npt.NDArray[np.float64]]]:
    """Each chunk with the numbers that decide its split: a near-duplicate has that of its cluster's
    first.
    """
    firsts = np.unique(near.firsts)
    of_first = np.zeros(len(firsts))
    for placed in table.chunks:
        shares = placed.chunk.column("share")
        bounds = [placed.first, placed.first + placed.chunk.rows]
        start, stop = np.searchsorted(firsts, bounds)
        of_first[start:stop] = shares[firsts[start:stop] - placed.first]
        start, stop = np.searchsorted(near.rows, bounds)
        shares[near.rows[start:stop] - placed.first] = of_first[
            np.searchsorted(firsts, near.firsts[start:stop])
        ]
        yield placed, shares


# ---- what is written -----------------------------------------------------------------------------


def _drops(outcome: Outcome) -> Iterator[Drop]:
    """Every row that is not read, in order."""
    for placed in outcome.table.chunks:
        local = np.flatnonzero(placed.of(outcome.fates) == DROPPED)
        problems, copies = (
            placed.chunk.column("problem")[local],
            placed.chunk.column("copies")[local],
        )
        texts, nears = (_of_chunk(repeats, placed) for repeats in (outcome.exact, outcome.near))
        for row, problem, wanted in zip(
            (local + placed.first).tolist(), problems.tolist(), copies.tolist(), strict=True
        ):
            if problem:
                yield Drop(row, placed.chunk.reasons[problem - 1], None)
            elif not wanted:
                yield Drop(row, "weight", None)
            elif row in texts:
                yield Drop(row, "duplicate_text", texts[row])
            else:
                yield Drop(row, "near_duplicate", nears[row])


def _of_chunk(repeats: Repeats, placed: PlacedChunk) -> dict[int, int]:
    start, stop = np.searchsorted(repeats.rows, [placed.first, placed.first + placed.chunk.rows])
    return dict(
        zip(repeats.rows[start:stop].tolist(), repeats.firsts[start:stop].tolist(), strict=True)
    )


def _write_files(
    pack: LoadedPack, sources: list[CorpusSource], outcome: Outcome, draft: Draft
) -> Counter[str]:
    """All files of the artifact. Returns how many rows were dropped, by reason."""
    table = outcome.table
    listing = CorpusSources(
        schema_version=2, held_out_share=outcome.held_out_share, sources=sources
    )
    write_json(draft.path("pack.json"), pack.portable_pack())
    write_json(draft.path("recipe.json"), pack.portable_recipe())
    write_json(draft.path("sources.json"), listing)
    outcome.fates.tofile(draft.path("fates.u8"))
    dropped: Counter[str] = Counter()
    write_jsonl(draft.path("dropped.jsonl"), _drop_rows(outcome, dropped))
    write_jsonl(draft.path("near_duplicates.jsonl"), _cluster_rows(table, outcome.near))
    locations = {source.label: str(source.path.resolve()) for source in pack.sources}
    write_json(
        draft.observation("location.json"), {"pack": str(pack.path.resolve()), "sources": locations}
    )
    return dropped


def _drop_rows(outcome: Outcome, dropped: Counter[str]) -> Iterator[dict[str, str]]:
    """The rows of dropped.jsonl, counted on the way.

    What weight leaves out follows from id and weight, and is only counted.
    """
    for drop in _drops(outcome):
        dropped[drop.reason] += 1
        if drop.reason == "weight":
            continue
        row = {"id": outcome.table.id(drop.row), "reason": drop.reason}
        yield row if drop.of is None else {**row, "of": outcome.table.id(drop.of)}


def _cluster_rows(table: RowTable, near: Repeats) -> Iterator[dict[str, list[str]]]:
    """The rows of near_duplicates.jsonl: the ids of each cluster, clusters in the order of their
    first documents.
    """
    order = np.lexsort((near.rows, near.firsts))
    firsts, begins = np.unique(near.firsts[order], return_index=True)
    for first, members in zip(
        firsts.tolist(), np.split(near.rows[order], begins[1:]), strict=bool(len(firsts))
    ):
        yield {"documents": [table.id(row) for row in (first, *members.tolist())]}


def _facts(
    pack: LoadedPack, sources: list[CorpusSource], outcome: Outcome, dropped: Counter[str]
) -> CorpusFacts:
    totals = np.zeros((len(sources), 3), dtype=np.int64)
    held_out = np.zeros(2, dtype=np.int64)
    for placed in outcome.table.chunks:
        fates = placed.of(outcome.fates)
        copies = np.where(fates == HELD_OUT, 1, fates.astype(np.int64))
        sizes = np.stack(
            [
                np.ones(len(fates)),
                placed.chunk.column("text_bytes"),
                placed.chunk.column("characters"),
            ]
        )
        totals[placed.owner] += (sizes.astype(np.int64) * copies).sum(axis=1)
        held_out += sizes[:2, fates == HELD_OUT].sum(axis=1).astype(np.int64)
    documents, text_bytes, characters = totals.sum(axis=0).tolist()
    held_out_documents, held_out_text_bytes = held_out.tolist()
    return CorpusFacts(
        documents_read=documents + sum(dropped.values()),
        documents=documents,
        train_documents=documents - held_out_documents,
        held_out_documents=held_out_documents,
        characters=characters,
        text_bytes=text_bytes,
        train_text_bytes=text_bytes - held_out_text_bytes,
        held_out_text_bytes=held_out_text_bytes,
        exact_duplicates=len(outcome.exact.rows),
        near_duplicates=len(outcome.near.rows),
        dropped=dict(sorted(dropped.items())),
        duplicates=_duplicate_pairs(pack, outcome),
        held_out_share=outcome.held_out_share,
        sources=[source_facts(*each) for each in zip(sources, totals.tolist(), strict=True)],
    )


def _duplicate_pairs(pack: LoadedPack, outcome: Outcome) -> list[DuplicatePair]:
    """Which source repeats which, in the order of the sources."""
    labels = [source.label for source in pack.sources]
    counts = [
        _owner_counts(outcome.table, repeats, len(labels))
        for repeats in (outcome.exact, outcome.near)
    ]
    return [
        DuplicatePair(source=label, of=other, exact=int(counts[0][i, j]), near=int(counts[1][i, j]))
        for i, label in enumerate(labels)
        for j, other in enumerate(labels)
        if counts[0][i, j] or counts[1][i, j]
    ]


def _owner_counts(table: RowTable, repeats: Repeats, sources: int) -> npt.NDArray[np.int64]:
    """(sources, sources) how many rows of the one repeat a row of the other."""
    pairs = table.owners(repeats.rows) * sources + table.owners(repeats.firsts)
    return np.bincount(pairs, minlength=sources * sources).reshape(sources, sources)


def source_facts(source: CorpusSource, totals: Sequence[int]) -> SourceFacts:
    """What is stated of a source of which this many documents and bytes (and characters) are kept."""
    provenance = source.provenance
    return SourceFacts(
        label=source.label,
        kind="hub" if provenance and provenance.kind == "hub" else "files",
        documents=totals[0],
        text_bytes=totals[1],
        pinned=True,  # every file's digest is in sources.json, and a Hub import has its commit in the provenance
        licence=provenance.licence if provenance else None,
        import_report=source.import_report is not None,
    )
