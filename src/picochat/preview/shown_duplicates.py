"""Duplicates for a preview: counts within and across sources, and the largest clusters.

They are found among the texts of a sample, or read from a corpus artifact, whose stage compared
every document with every other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import xxhash

from picochat.core.publish import Artifact
from picochat.core.records import read_jsonl
from picochat.data.corpus.near_duplicates import near_duplicate_clusters
from picochat.facts import CorpusFacts, DuplicatePair, facts_of
from picochat.present.printable import printable
from picochat.preview.preview_record import ClusterText, DuplicateCluster, Duplicates
from picochat.preview.text_sample import SourceSample

SHOWN_CLUSTERS = 4  # of each kind
SHOWN_CHARACTERS = 900
CONTEXT_CHARACTERS = 150  # shown before the first difference
ALL_COMPARED = "all documents of the pack, compared with each other"

Place = tuple[int, int]  # sample, position in it
Kind = Literal["exact", "near"]
# A cluster of a corpus whose texts are wanted: its kind and the ids of its documents. An exact
# cluster repeats the id of its first document, because the corpus lists copies under it.
Wanted = tuple[Kind, list[str]]


def sampled_duplicates(
    samples: Sequence[SourceSample], jaccard: float, documents: int
) -> Duplicates:
    """Duplicates among the texts of the samples. documents: their number in the whole pack."""
    places = [(n, place) for n, sample in enumerate(samples) for place in range(len(sample.texts))]
    groups: dict[bytes, list[Place]] = {}
    for n, place in places:
        digest = xxhash.xxh3_128_digest(samples[n].texts[place].encode())
        groups.setdefault(digest, []).append((n, place))
    different = [group[0] for group in groups.values()]
    clusters = near_duplicate_clusters([samples[n].texts[place] for n, place in different], jaccard)
    exact_groups = [group for group in groups.values() if len(group) > 1]
    near_groups = [[different[member] for member in cluster] for cluster in clusters]
    exact, near = (sum(len(group) - 1 for group in found) for found in (exact_groups, near_groups))
    complete = all(sample.complete for sample in samples)
    # A sample of a fraction s of all documents holds both documents of a pair with probability
    # s ** 2.
    fraction = min(1.0, len(places) / documents) if documents else 0.0
    sample_basis = (
        f"a sample of {len(places):,} documents, {fraction:.2%} of the pack, which holds both"
        f" halves of only about {fraction**2:.2g} of all pairs of duplicates: far too low;"
        " --full compares all documents"
    )
    return Duplicates(
        complete=complete,
        basis=ALL_COMPARED if complete else sample_basis,
        documents=len(places),
        exact=exact,
        near=near,
        exact_fraction=exact / len(places) if places else None,
        near_fraction=near / len(different) if different else None,
        pairs=_pairs([sample.source.label for sample in samples], exact_groups, near_groups),
        clusters=[
            *_largest_clusters(samples, "exact", exact_groups),
            *_largest_clusters(samples, "near", near_groups),
        ],
    )


def _pairs(
    labels: Sequence[str], exact: Iterable[Sequence[Place]], near: Iterable[Sequence[Place]]
) -> list[DuplicatePair]:
    """Documents that repeat the first one of their group, counted by the sources of both."""
    exact_counts, near_counts = (
        Counter((labels[n], labels[group[0][0]]) for group in groups for n, _ in group[1:])
        for groups in (exact, near)
    )
    return [
        DuplicatePair(source=pair[0], of=pair[1], exact=exact_counts[pair], near=near_counts[pair])
        for pair in sorted({*exact_counts, *near_counts})
    ]


def _largest_clusters(
    samples: Sequence[SourceSample], kind: Kind, groups: Iterable[Sequence[Place]]
) -> list[DuplicateCluster]:
    largest = sorted(groups, key=lambda group: (-len(group), group[0]))[:SHOWN_CLUSTERS]
    clusters: list[DuplicateCluster] = []
    for group in largest:
        shown = [
            (samples[n].ids[place], samples[n].source.label, samples[n].texts[place])
            for n, place in group[: _shown_count(kind)]
        ]
        texts = shown_texts(shown)
        clusters.append(DuplicateCluster(kind=kind, documents=len(group), texts=texts))
    return clusters


def corpus_duplicates(corpus: Artifact) -> tuple[Duplicates, list[Wanted]]:
    """(duplicates of the whole corpus without clusters, its largest clusters as ids)."""
    facts = facts_of(corpus, CorpusFacts)
    read, exact, near = facts.documents_read, facts.exact_duplicates, facts.near_duplicates
    largest: list[list[str]] = []
    for _, row in read_jsonl(corpus.path("near_duplicates.jsonl")):
        largest = sorted([*largest, row["documents"]], key=lambda ids: -len(ids))[:SHOWN_CLUSTERS]
    copies = Counter[str](
        row["of"]
        for _, row in read_jsonl(corpus.path("dropped.jsonl"))
        if row["reason"] == "duplicate_text"
    )
    most = sorted(copies.items(), key=lambda item: (-item[1], item[0]))[:SHOWN_CLUSTERS]
    wanted: list[Wanted] = [("exact", [of] * (count + 1)) for of, count in most]
    wanted.extend(("near", ids) for ids in largest)
    found = Duplicates(
        complete=True,
        basis=ALL_COMPARED,
        documents=read,
        exact=exact,
        near=near,
        exact_fraction=exact / read if read else None,
        near_fraction=near / facts.documents if facts.documents else None,
        pairs=facts.duplicates,
        clusters=[],
    )
    return found, wanted


def wanted_ids(wanted: Iterable[Wanted]) -> set[str]:
    """The ids whose texts `fetched_clusters` needs."""
    return {id for kind, ids in wanted for id in ids[: _shown_count(kind)]}


def fetched_clusters(wanted: Sequence[Wanted], texts: dict[str, str]) -> list[DuplicateCluster]:
    """The clusters with their texts; a cluster is left out if a text is missing."""
    found: list[DuplicateCluster] = []
    for kind, ids in wanted:
        # An id of a corpus is LABEL:ID, and a label holds no colon.
        shown = [
            (id, id.split(":", 1)[0], texts[id]) for id in ids[: _shown_count(kind)] if id in texts
        ]
        if len(shown) == _shown_count(kind):
            found.append(DuplicateCluster(kind=kind, documents=len(ids), texts=shown_texts(shown)))
    return found


def shown_texts(documents: Sequence[tuple[str, str, str]]) -> list[ClusterText]:
    """Excerpts of documents (id, source, text); two texts start shortly before they differ."""
    texts = [text for _, _, text in documents]
    pairs = enumerate(zip(texts[0], texts[-1], strict=False))
    same = next((place for place, (one, other) in pairs if one != other), min(map(len, texts)))
    start = max(0, same - CONTEXT_CHARACTERS) if len(texts) > 1 else 0
    return [
        ClusterText(
            id=printable(id),
            source=source,
            text=printable(text[start : start + SHOWN_CHARACTERS]),
            first_character=start,
            characters=len(text),
        )
        for id, source, text in documents
    ]


def _shown_count(kind: Kind) -> int:
    """The number of texts shown of a cluster; equal texts need only one."""
    return 1 if kind == "exact" else 2
