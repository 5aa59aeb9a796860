"""Duplicates as a preview shows them: counts within and across sources, and the largest clusters
with their texts.

Two ways: among the texts of a sample, or from a corpus artifact, which compared every document with
every other. A sample that holds the share s of the documents holds a given pair with probability s
squared, so its shares are far too low; the basis says so. Decides nothing: the corpus stage drops,
the preflight judges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import xxhash

from picochat.core.publish import Artifact
from picochat.core.records import read_jsonl
from picochat.data.corpus.duplicates import near_duplicate_clusters
from picochat.data.preview.record import ClusterText, DuplicateCluster, Duplicates
from picochat.data.preview.sample import SourceSample
from picochat.facts import CorpusFacts, DuplicatePair, facts_of
from picochat.present.printable import printable

SHOWN_CLUSTERS = 4  # of each kind
SHOWN_CHARACTERS = 900
CONTEXT_CHARACTERS = 150  # shown before the first difference

Place = tuple[int, int]  # sample, position in it
PairCounts = dict[tuple[str, str], list[int]]


def sampled_duplicates(
    samples: Sequence[SourceSample], jaccard: float, documents: int
) -> Duplicates:
    """Duplicates among the texts of the samples.

    `documents`: how many the pack holds, for the basis.
    """
    places = [
        (number, position)
        for number, sample in enumerate(samples)
        for position in range(len(sample.texts))
    ]
    groups: dict[bytes, list[Place]] = {}
    for place in places:
        groups.setdefault(xxhash.xxh3_128_digest(_text(samples, place).encode()), []).append(place)
    different = [group[0] for group in groups.values()]
    clusters = near_duplicate_clusters([_text(samples, place) for place in different], jaccard)
    exact_groups = [group for group in groups.values() if len(group) > 1]
    near_groups = [[different[member] for member in cluster] for cluster in clusters]
    exact, near = (sum(len(group) - 1 for group in found) for found in (exact_groups, near_groups))
    complete = all(sample.complete for sample in samples)
    return Duplicates(
        complete=complete,
        basis=_sample_basis(complete, len(places), documents),
        documents=len(places),
        exact=exact,
        near=near,
        exact_share=exact / len(places) if places else None,
        near_share=near / len(different) if different else None,
        pairs=_pairs(samples, exact_groups, near_groups),
        clusters=[
            *(_exact_cluster(samples, group) for group in _largest(exact_groups)),
            *(_near_cluster(samples, group) for group in _largest(near_groups)),
        ],
    )


def corpus_duplicates(corpus: Artifact) -> tuple[Duplicates, list[tuple[str, list[str]]]]:
    """(counts of the whole corpus without texts, the largest clusters as (kind, ids)): texts are
    fetched by who reads them.
    """
    facts = facts_of(corpus, CorpusFacts)
    largest: list[list[str]] = []
    for _, row in read_jsonl(corpus.path("near_duplicates.jsonl")):
        largest = sorted([*largest, row["documents"]], key=lambda ids: -len(ids))[:SHOWN_CLUSTERS]
    copies: Counter[str] = Counter()
    for _, row in read_jsonl(corpus.path("dropped.jsonl")):
        if row["reason"] == "duplicate_text":
            copies[row["of"]] += 1
    most = sorted(copies.items(), key=lambda item: (-item[1], item[0]))[:SHOWN_CLUSTERS]
    wanted = [("exact", [of] * (count + 1)) for of, count in most] + [
        ("near", ids) for ids in largest
    ]
    found = Duplicates(
        complete=True,
        basis="all documents of the pack, compared with each other",
        documents=facts.documents_read,
        exact=facts.exact_duplicates,
        near=facts.near_duplicates,
        exact_share=facts.exact_duplicates / facts.documents_read if facts.documents_read else None,
        near_share=facts.near_duplicates / facts.documents if facts.documents else None,
        pairs=facts.duplicates,
        clusters=[],
    )
    return found, wanted


def wanted_ids(wanted: Iterable[tuple[str, list[str]]]) -> set[str]:
    """The ids whose texts `fetched_clusters` needs: the first two of each near-duplicate cluster,
    the first of equal texts.
    """
    return {id for kind, ids in wanted for id in (ids[:1] if kind == "exact" else ids[:2])}


def fetched_clusters(
    wanted: Sequence[tuple[str, list[str]]], texts: dict[str, str]
) -> list[DuplicateCluster]:
    """The clusters with their texts; one whose texts are gone is left out."""
    found: list[DuplicateCluster] = []
    for kind, ids in wanted:
        shown = [
            (id, label_of(id), texts[id])
            for id in (ids[:1] if kind == "exact" else ids[:2])
            if id in texts
        ]
        if shown and kind == "exact":
            found.append(
                DuplicateCluster(kind="exact", documents=len(ids), texts=shown_texts(shown))
            )
        elif len(shown) == 2:
            found.append(
                DuplicateCluster(kind="near", documents=len(ids), texts=shown_texts(shown))
            )
    return found


def label_of(id: str) -> str:
    """The source of a corpus id. Labels hold no colon."""
    return id.split(":", 1)[0]


def shown_texts(documents: Sequence[tuple[str, str, str]]) -> list[ClusterText]:
    """(id, source, text) as shown: from shortly before the first difference, where that is far from
    the beginning.
    """
    same = _common_prefix([text for _, _, text in documents]) if len(documents) > 1 else 0
    start = max(0, same - CONTEXT_CHARACTERS)
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


def _common_prefix(texts: Sequence[str]) -> int:
    first, other = texts[0], texts[1]
    for place, (one, two) in enumerate(zip(first, other, strict=False)):
        if one != two:
            return place
    return min(len(first), len(other))


def _sample_basis(complete: bool, looked_at: int, documents: int) -> str:
    if complete:
        return "all documents of the pack, compared with each other"
    share = min(1.0, looked_at / documents) if documents else 0.0
    return (
        f"a sample of {looked_at:,} documents, {share:.2%} of the pack, which holds both halves of"
        f" only about {share**2:.2g} of all pairs of duplicates: far too low; --full compares all"
        " documents"
    )


def _text(samples: Sequence[SourceSample], place: Place) -> str:
    return samples[place[0]].texts[place[1]]


def _largest(groups: Sequence[Sequence[Place]]) -> list[Sequence[Place]]:
    return sorted(groups, key=lambda group: (-len(group), group[0]))[:SHOWN_CLUSTERS]


def _exact_cluster(samples: Sequence[SourceSample], group: Sequence[Place]) -> DuplicateCluster:
    return DuplicateCluster(
        kind="exact", documents=len(group), texts=shown_texts(_documents(samples, group[:1]))
    )


def _near_cluster(samples: Sequence[SourceSample], group: Sequence[Place]) -> DuplicateCluster:
    return DuplicateCluster(
        kind="near", documents=len(group), texts=shown_texts(_documents(samples, group[:2]))
    )


def _documents(
    samples: Sequence[SourceSample], group: Sequence[Place]
) -> list[tuple[str, str, str]]:
    return [
        (
            samples[number].ids[position],
            samples[number].source.label,
            samples[number].texts[position],
        )
        for number, position in group
    ]


def _pairs(
    samples: Sequence[SourceSample],
    exact: Iterable[Sequence[Place]],
    near: Iterable[Sequence[Place]],
) -> list[DuplicatePair]:
    counts: PairCounts = {}
    for kind, groups in enumerate((exact, near)):
        for group in groups:
            of = samples[group[0][0]].source.label
            for number, _ in group[1:]:
                _count_pair(counts, samples[number].source.label, of, kind)
    return _pair_rows(counts)


def _count_pair(counts: PairCounts, source: str, of: str, kind: int) -> None:
    counts.setdefault((source, of), [0, 0])[kind] += 1


def _pair_rows(counts: PairCounts) -> list[DuplicatePair]:
    return [
        DuplicatePair(source=source, of=of, exact=exact, near=near)
        for (source, of), (exact, near) in sorted(counts.items())
    ]
