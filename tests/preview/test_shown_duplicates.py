from pathlib import Path

from picochat.config import DataConfig
from picochat.data.pack import load_pack
from picochat.facts import DuplicatePair
from picochat.preview.shown_duplicates import (
    SHOWN_CHARACTERS,
    corpus_duplicates,
    fetched_clusters,
    sampled_duplicates,
    shown_texts,
    wanted_ids,
)
from picochat.preview.text_sample import read_sample
from tests.data.builders import make_corpus, make_pack, prose

LONG = [prose(number, words=60) for number in range(40)]


def _near(text: str) -> str:
    return text.replace("Text", "Page", 1)


def _pack(folder: Path) -> Path:
    web = [(f"w{number}", text) for number, text in enumerate(LONG[:20])]
    web += [("w-again", LONG[0]), ("w-near", _near(LONG[1]))]
    books = [(f"b{number}", text) for number, text in enumerate(LONG[20:])]
    books += [("b-again", LONG[0]), ("b-once", LONG[2]), ("b-near", _near(LONG[25]))]
    return make_pack(folder, {"web": web, "books": books})


PAIRS = [
    DuplicatePair(source="books", of="books", exact=0, near=1),
    DuplicatePair(source="books", of="web", exact=2, near=0),
    DuplicatePair(source="web", of="web", exact=1, near=1),
]


def test_duplicates_are_counted_within_and_across_sources(tmp_path: Path) -> None:
    samples = read_sample(load_pack(_pack(tmp_path)).sources, DataConfig())
    found = sampled_duplicates(samples, 0.8, 45)
    assert found.complete
    assert (found.exact, found.near, found.documents) == (3, 2, 45)
    assert found.exact_fraction == 3 / 45
    assert found.near_fraction == 2 / 42
    assert found.pairs == PAIRS


def test_the_largest_clusters_come_with_their_texts(tmp_path: Path) -> None:
    samples = read_sample(load_pack(_pack(tmp_path)).sources, DataConfig())
    clusters = sampled_duplicates(samples, 0.8, 45).clusters
    assert [(each.kind, each.documents) for each in clusters] == [
        ("exact", 3),
        ("exact", 2),
        ("near", 2),
        ("near", 2),
    ]
    assert clusters[0].texts[0].text == LONG[0]
    assert {text.source for text in clusters[3].texts} == {"books"}


def test_a_sample_says_how_much_it_misses(tmp_path: Path) -> None:
    samples = read_sample(
        load_pack(_pack(tmp_path)).sources, DataConfig(), sample_bytes=5_000, whole_bytes=0
    )
    found = sampled_duplicates(samples, 0.8, 45)
    assert not found.complete
    assert found.documents < 45
    assert "far too low" in found.basis
    assert "--full" in found.basis


def test_texts_are_shown_from_shortly_before_their_first_difference() -> None:
    same = "word " * 400
    one, other = shown_texts([("a", "web", same + "left end"), ("b", "web", same + "right end")])
    assert one.first_character == other.first_character == len(same) - 150
    assert one.text.endswith("left end")
    assert len(one.text) <= SHOWN_CHARACTERS


def test_the_corpus_gives_the_same_counts_as_a_pack_that_was_read_as_a_whole(
    tmp_path: Path,
) -> None:
    pack = load_pack(_pack(tmp_path / "p"))
    corpus = make_corpus(pack, tmp_path / "corpus")
    found, wanted = corpus_duplicates(corpus)
    assert (found.exact, found.near, found.documents, found.complete) == (3, 2, 45, True)
    assert (found.exact_fraction, found.near_fraction) == (3 / 45, 2 / 42)
    assert [pair.near for pair in found.pairs if pair.near] == [1, 1]
    assert wanted_ids(wanted) >= {"web:w1", "web:w-near", "books:b5", "books:b-near"}
    texts = {"web:w1": LONG[1], "web:w-near": _near(LONG[1])}
    clusters = [each for each in fetched_clusters(wanted, texts) if each.kind == "near"]
    assert [[text.id for text in each.texts] for each in clusters] == [["web:w1", "web:w-near"]]


def test_exact_clusters_of_a_corpus_follow_the_document_that_each_repeats(tmp_path: Path) -> None:
    corpus = make_corpus(load_pack(_pack(tmp_path / "p")), tmp_path / "corpus")
    found, wanted = corpus_duplicates(corpus)
    assert sorted(found.pairs, key=lambda pair: (pair.source, pair.of)) == PAIRS
    exact = [ids for kind, ids in wanted if kind == "exact"]
    assert [(ids[0], len(ids)) for ids in exact] == [("web:w0", 3), ("web:w2", 2)]
    (cluster,) = fetched_clusters([("exact", exact[0])], {"web:w0": LONG[0]})
    assert (cluster.documents, cluster.texts[0].text) == (3, LONG[0])
