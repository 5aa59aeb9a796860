"""The corpus: which documents of a pack are read, which are dropped and why, and which are held out.

Nothing is copied. The artifact states every source file with its digest, the ids that are dropped and the share that is
held out; `read_split` streams the sources again and refuses where one has changed. A held-out document is chosen by the
hash of its id, so a larger import keeps the old ones out; near-duplicates go where the first of their cluster goes, so no
held-out text has a near copy in training. Ids are `<label>:<id of the source>`.

A weight w reads a training document floor(w) times and once more by the hash of its id; held-out documents are read once.
Memory: some 800 bytes a document (512 of them its near-duplicate signature), so 0.8 GB for a million; texts only stream.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from picochat.config import DataConfig, HostConfig
from picochat.core.errors import BadInput, Problem
from picochat.core.progress import Progress
from picochat.core.publish import Artifact, Draft
from picochat.core.records import Record, digest_file, read_json, read_jsonl, read_record, write_json, write_jsonl
from picochat.data.corpus_scan import FileScan, scan_files
from picochat.data.documents import Document, Provenance, file_path, ignored_files, read_source_file
from picochat.data.duplicates import PERMUTATIONS, Signatures, cluster_signatures
from picochat.data.pack import LoadedPack, LoadedSource, source_digests
from picochat.rundir import CorpusFacts, SourceFacts, facts_of

Split = Literal["train", "held_out"]


class CorpusFile(Record):
    """One source file. `name` is relative to its source."""

    name: str
    bytes: int
    sha256: str


class CorpusSource(Record):
    """One source in `sources.json`. `ignored`: ending -> files that are not read because their kind is not known."""

    label: str
    weight: float
    min_chars: int
    provenance: Provenance | None
    import_report: str | None
    ignored: dict[str, int]
    files: list[CorpusFile]


class CorpusSources(Record):
    schema_version: int
    held_out_share: float
    sources: list[CorpusSource]


@dataclass
class _Tally:
    """The documents of all sources in order, as parallel columns, and what was dropped."""

    ids: list[str]
    owners: list[int]
    characters: list[int]
    text_bytes: list[int]
    copies: list[int]
    dropped: list[tuple[str, str]]


def build_corpus(pack: LoadedPack, data: DataConfig, host: HostConfig, draft: Draft) -> None:
    """Reads every source once and writes what `read_split` needs. Raises BadInput for broken files and repeated ids."""
    sources = [_describe(source, data, draft) for source in pack.sources]
    tally = _Tally([], [], [], [], [], [])
    signatures = _read_sources(pack, sources, host, tally)
    _require_unique_ids(tally)
    clusters = cluster_signatures(signatures, data.near_duplicate_jaccard)
    near = {member: cluster[0] for cluster in clusters for member in cluster[1:]}
    copies = np.array(tally.copies, dtype=np.int64)
    if data.drop_near_duplicates:
        copies[list(near)] = 0
        tally.dropped += [(tally.ids[member], "near_duplicate") for member in near]
    if not copies.any():
        raise BadInput(f"pack {pack.path} has no document left", problems=_drop_problems(tally), fix="see --set data.min_chars")
    shares = np.array([id_share(tally.ids[near.get(index, index)]) for index in range(len(tally.ids))])
    text_bytes = int((np.array(tally.text_bytes, dtype=np.int64) * copies).sum())
    share = held_out_share(text_bytes, shares[copies > 0], data)
    held_out = (shares < share) & (copies > 0)
    copies[held_out] = 1
    _write_files(pack, draft, sources, share, tally, clusters)
    draft.facts = _facts(pack, sources, tally, copies, held_out, near, share).model_dump(mode="json")


def read_split(corpus: Artifact, split: Split) -> Iterator[Document]:
    """The documents of a split, in the order of sources, files and rows; a repeated one (weight) follows itself as `<id>~2`.

    Raises BadInput where a source file is gone or differs from what the corpus was built from.
    """
    reader = SplitReader(corpus)
    for number in range(len(reader.files)):
        yield from reader.read(number, split)


class SplitReader:
    """Reads a corpus file by file, for who reads several at a time. `files` is the order that `read_split` follows."""

    def __init__(self, corpus: Artifact) -> None:
        listing = read_record(CorpusSources, corpus.path("sources.json"), "corpus sources")
        places = read_json(corpus.path("location.json"), "corpus location")["sources"]
        self.files = [(source, Path(places[source.label]), file) for source in listing.sources for file in source.files]
        self._share = facts_of(corpus, CorpusFacts).held_out_share
        self._dropped = {row["id"] for _, row in read_jsonl(corpus.path("dropped.jsonl"))}
        clusters = (row["documents"] for _, row in read_jsonl(corpus.path("near_duplicates.jsonl")))
        self._first = {id: cluster[0] for cluster in clusters for id in cluster[1:]}

    def read(self, number: int, split: Split) -> Iterator[Document]:
        """The documents of one file that belong to the split."""
        source, place, file = self.files[number]
        _require_unchanged(source, place, file)
        for row in read_source_file(place, file.name):
            id = f"{source.label}:{row.id}"
            if row.problem is not None or id in self._dropped:
                continue
            held_out = id_share(self._first.get(id, id)) < self._share
            if held_out != (split == "held_out"):
                continue
            yield Document(id, row.text, source.label)
            for copy in range(2, weight_copies(id, source.weight) + 1 if split == "train" else 0):
                yield Document(f"{id}~{copy}", row.text, source.label)


def id_share(id: str, purpose: str = "split") -> float:
    """A number in [0, 1) that follows from the id alone: sha256, its first 52 bits."""
    digest = hashlib.sha256(f"{purpose}\0{id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 12) / (1 << 52)


def weight_copies(id: str, weight: float) -> int:
    """How often a document is read at this weight: its whole part, and once more for the fraction of ids that draw it."""
    whole = int(weight)
    return whole + (id_share(id, "weight") < weight - whole)


def held_out_share(text_bytes: int, shares: np.ndarray, data: DataConfig) -> float:
    """The share of documents held out: the configured one, or less where the corpus is so large that less is enough.

    A corpus so small that no document would fall under it holds out the one with the smallest number.
    """
    share = min(data.held_out_share, data.held_out_bytes / text_bytes)
    smallest = float(shares.min())
    if smallest >= share and len(np.unique(shares)) > 1:
        return float(np.nextafter(smallest, 1.0))
    return share


def _describe(source: LoadedSource, data: DataConfig, draft: Draft) -> CorpusSource:
    """The source as `sources.json` states it; its import report is copied into the artifact."""
    report = source.report_path()
    if report is not None:
        draft.path(f"import_reports/{source.label}.json").write_bytes(report.read_bytes())
    digests = source_digests(source)
    return CorpusSource(
        label=source.label,
        weight=source.weight,
        min_chars=max(data.min_chars, source.min_chars or 1),
        provenance=source.manifest.provenance if source.manifest else None,
        import_report=f"import_reports/{source.label}.json" if report else None,
        ignored=ignored_files(source.path),
        files=[CorpusFile(name=file.name, bytes=file.bytes, sha256=digests[file.name]) for file in source.files],
    )


def _read_sources(pack: LoadedPack, sources: list[CorpusSource], host: HostConfig, tally: _Tally) -> Signatures:
    """Fills the tally, first occurrence of a text first, and gives the kept documents' signatures."""
    seen: set[bytes] = set()
    signatures: list[Signatures] = []
    wanted = [(owner, place.path, file) for owner, place in enumerate(pack.sources) for file in sources[owner].files]
    total_bytes = sum(file.bytes for _, _, file in wanted)
    tasks = [(sources[owner].label, path, file.name, sources[owner].min_chars) for owner, path, file in wanted]
    with Progress("read corpus", total_bytes / 1e6, "MB") as progress:
        for (owner, path, file), scan in zip(wanted, scan_files(tasks, host.workers, total_bytes), strict=True):
            if scan.sha256 != file.sha256:
                where = file_path(path, file.name)
                raise BadInput(f"{where} differs from its digest in documents.json", fix="import it again with --force")
            kept = _take_scan(scan, owner, sources[owner].weight, seen, tally)
            signatures.append(scan.signatures[kept])
            progress.advance(file.bytes / 1e6, f"{len(tally.ids):,} documents")
    return np.concatenate(signatures) if signatures else np.zeros((0, PERMUTATIONS), dtype=np.uint32)


def _take_scan(scan: FileScan, owner: int, weight: float, seen: set[bytes], tally: _Tally) -> list[int]:
    """Positions of the scan's documents that stay. Weight draws first, so a text it leaves out drops no other."""
    kept: list[int] = []
    tally.dropped += scan.dropped
    for index, digest in enumerate(scan.digests):
        id = scan.ids[index]
        copies = weight_copies(id, weight)
        reason = "weight" if copies == 0 else "duplicate_text" if digest in seen else None
        if reason is not None:
            tally.dropped.append((id, reason))
            continue
        seen.add(digest)
        kept.append(index)
        tally.ids.append(id)
        tally.owners.append(owner)
        tally.characters.append(scan.characters[index])
        tally.text_bytes.append(scan.text_bytes[index])
        tally.copies.append(copies)
    return kept


def _require_unique_ids(tally: _Tally) -> None:
    """Dropping and splitting go by id, so an id that two texts share would mix them up."""
    ids = sorted([*tally.ids, *(id for id, _ in tally.dropped)])
    repeated = sorted({one for one, other in pairwise(ids) if one == other})
    if repeated:
        raise BadInput(
            f"{len(repeated):,} document ids stand for more than one row, the first: {repeated[0]}",
            fix='give the rows of that source unique "id" values, or none at all',
        )


def _drop_problems(tally: _Tally) -> list[Problem]:
    return [Problem(f"{count:,} documents: {reason}") for reason, count in _drop_counts(tally).items()]


def _drop_counts(tally: _Tally) -> dict[str, int]:
    return dict(sorted(Counter(reason for _, reason in tally.dropped).items()))


def _write_files(
    pack: LoadedPack, draft: Draft, sources: list[CorpusSource], share: float, tally: _Tally, clusters: list[list[int]]
) -> None:
    write_json(draft.path("pack.json"), pack.portable_pack())
    write_json(draft.path("recipe.json"), pack.portable_recipe())
    write_json(draft.path("sources.json"), CorpusSources(schema_version=1, held_out_share=share, sources=sources))
    write_jsonl(draft.path("dropped.jsonl"), ({"id": id, "reason": reason} for id, reason in sorted(tally.dropped)))
    rows = ({"documents": [tally.ids[member] for member in cluster]} for cluster in clusters)
    write_jsonl(draft.path("near_duplicates.jsonl"), rows)
    locations = {source.label: str(source.path.resolve()) for source in pack.sources}
    write_json(draft.observation("location.json"), {"pack": str(pack.path.resolve()), "sources": locations})


def _facts(
    pack: LoadedPack,
    sources: list[CorpusSource],
    tally: _Tally,
    copies: np.ndarray,
    held_out: np.ndarray,
    near: dict[int, int],
    share: float,
) -> CorpusFacts:
    text_bytes = np.array(tally.text_bytes, dtype=np.int64) * copies
    characters = np.array(tally.characters, dtype=np.int64) * copies
    owners = np.array(tally.owners, dtype=np.int64)
    reasons = _drop_counts(tally)
    held_out_documents = int(copies[held_out].sum())
    documents = int(copies.sum())
    return CorpusFacts(
        documents_read=documents + len(tally.dropped),
        documents=documents,
        train_documents=documents - held_out_documents,
        held_out_documents=held_out_documents,
        characters=int(characters.sum()),
        text_bytes=int(text_bytes.sum()),
        train_text_bytes=int(text_bytes[~held_out].sum()),
        held_out_text_bytes=int(text_bytes[held_out].sum()),
        exact_duplicates=reasons.get("duplicate_text", 0),
        near_duplicates=len(near),
        dropped=reasons,
        held_out_share=share,
        sources=[
            _source_facts(source, loaded, int(copies[owners == number].sum()), int(text_bytes[owners == number].sum()))
            for number, (source, loaded) in enumerate(zip(sources, pack.sources, strict=True))
        ],
    )


def _source_facts(source: CorpusSource, loaded: LoadedSource, documents: int, text_bytes: int) -> SourceFacts:
    provenance = source.provenance
    return SourceFacts(
        label=source.label,
        kind="hub" if provenance and provenance.kind == "hub" else "files",
        documents=documents,
        text_bytes=text_bytes,
        pinned=True,  # every file's digest is in sources.json, and a Hub import has its commit in the provenance
        licence=provenance.licence if provenance else None,
        import_report=source.import_report is not None,
    )


def _require_unchanged(source: CorpusSource, place: Path, file: CorpusFile) -> None:
    path = file_path(place, file.name)
    fix = "put the file back, or run again: a changed source makes a new corpus"
    if not path.is_file():
        raise BadInput(f"source {source.label}: {path} is gone", fix=fix)
    if path.stat().st_size != file.bytes or digest_file(path) != file.sha256:
        raise BadInput(f"source {source.label}: {path} has changed since the corpus was built", fix=fix)
