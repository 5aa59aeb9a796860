import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picochat.config import DataConfig, HostConfig
from picochat.core.errors import BadInput
from picochat.core.publish import Artifact, changed_files, publish
from picochat.core.records import read_jsonl
from picochat.data.corpus import corpus_scan
from picochat.data.corpus.build import build_corpus, facts_from
from picochat.data.corpus.corpus_scan import id_fraction, scan_group, scan_tasks, weight_copies
from picochat.data.corpus.reader import DROPPED, HELD_OUT, Split, read_split
from picochat.data.importing.hf_import import import_dataset
from picochat.data.pack import load_pack
from picochat.data.pack_documents import read_pack
from picochat.facts import CorpusFacts, facts_of
from tests.data.builders import (
    make_corpus,
    make_pack,
    parquet_bytes,
    parquet_files,
    prose,
    request,
    serving,
    write,
)
from tests.fake_hub import FakeHub

Pairs = list[tuple[str, str]]


def _documents(first: int = 0, count: int = 300) -> Pairs:
    return [(str(number), prose(number)) for number in range(first, first + count)]


def _ids(corpus: Artifact, split: str) -> list[str]:
    return [
        document.id for document in read_split(corpus, "train" if split == "train" else "held_out")
    ]


def _dropped(corpus: Artifact) -> dict[str, str]:
    return {row["id"]: row["reason"] for _, row in read_jsonl(corpus.path("dropped.jsonl"))}


def test_splits_are_disjoint_and_together_hold_every_document(tmp_path: Path) -> None:
    corpus = make_corpus(
        make_pack(tmp_path, {"web": _documents()}),
        tmp_path / "corpus",
        DataConfig(held_out_fraction=0.1),
    )
    train, held_out = _ids(corpus, "train"), _ids(corpus, "held_out")
    assert len(train) + len(held_out) == len(set(train) | set(held_out)) == 300
    assert 10 < len(held_out) < 60
    facts = facts_of(corpus, CorpusFacts)
    assert (facts.train_documents, facts.held_out_documents) == (len(train), len(held_out))
    splits: tuple[Split, ...] = ("train", "held_out")
    texts = {split: [d.text for d in read_split(corpus, split)] for split in splits}
    assert facts.train_text_bytes == sum(len(text.encode()) for text in texts["train"])
    assert facts.held_out_text_bytes == sum(len(text.encode()) for text in texts["held_out"])


def test_held_out_documents_stay_held_out_when_the_corpus_grows(tmp_path: Path) -> None:
    data = DataConfig(held_out_fraction=0.05)
    small = make_corpus(
        make_pack(tmp_path / "small", {"web": _documents(count=300)}), tmp_path / "a", data
    )
    large = make_corpus(
        make_pack(tmp_path / "large", {"web": _documents(count=600)}), tmp_path / "b", data
    )
    assert set(_ids(small, "held_out")) < set(_ids(large, "held_out"))


def test_large_corpus_holds_out_no_more_than_enough(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, {"web": _documents()})
    corpus = make_corpus(
        pack, tmp_path / "corpus", DataConfig(held_out_fraction=0.2, held_out_bytes=3_000)
    )
    facts = facts_of(corpus, CorpusFacts)
    assert facts.held_out_fraction == pytest.approx(3_000 / (facts.text_bytes), rel=1e-9)


def test_tiny_corpus_still_holds_out_a_document(tmp_path: Path) -> None:
    corpus = make_corpus(
        make_pack(tmp_path, {"web": _documents(count=5)}),
        tmp_path / "corpus",
        DataConfig(held_out_fraction=0.001),
    )
    assert len(_ids(corpus, "held_out")) == 1
    assert len(_ids(corpus, "train")) == 4


def test_first_of_equal_texts_stays_whatever_source_the_others_are_in(tmp_path: Path) -> None:
    web, books = _documents(0, 40), [*_documents(30, 30), ("again", prose(59))]
    corpus = make_corpus(make_pack(tmp_path, {"web": web, "books": books}), tmp_path / "corpus")
    facts = facts_of(corpus, CorpusFacts)
    assert facts.exact_duplicates == 11
    assert _dropped(corpus) == {
        **{f"books:{n}": "duplicate_text" for n in range(30, 40)},
        "books:again": "duplicate_text",
    }
    assert (facts.documents_read, facts.documents) == (71, 60)
    assert [(source.label, source.documents) for source in facts.sources] == [
        ("web", 40),
        ("books", 20),
    ]


def _near(number: int) -> str:
    return prose(number, words=80).replace("stone", "stones", 1)


def test_near_duplicates_share_a_split_and_are_dropped_only_on_request(tmp_path: Path) -> None:
    originals = [(str(number), prose(number, words=80)) for number in range(60)]
    copies = [
        (f"copy-{number}", _near(number))
        for number in range(60)
        if "stone" in prose(number, words=80)
    ]
    pack = make_pack(tmp_path, {"web": originals + copies})
    kept = make_corpus(pack, tmp_path / "kept", DataConfig(held_out_fraction=0.2))
    near = facts_of(kept, CorpusFacts).near_duplicates
    assert near >= 0.9 * len(copies)
    held_out = set(_ids(kept, "held_out"))
    held_out_bytes = sum(len(document.text.encode()) for document in read_split(kept, "held_out"))
    assert facts_of(kept, CorpusFacts).held_out_text_bytes == held_out_bytes
    clusters = [row["documents"] for _, row in read_jsonl(kept.path("near_duplicates.jsonl"))]
    assert all(len(held_out & set(cluster)) in (0, len(cluster)) for cluster in clusters)
    assert any(held_out & set(cluster) for cluster in clusters)
    dropping = make_corpus(
        pack, tmp_path / "dropping", DataConfig(held_out_fraction=0.2, drop_near_duplicates=True)
    )
    assert facts_of(dropping, CorpusFacts).dropped == {"near_duplicate": near}
    assert len(_ids(dropping, "train")) + len(_ids(dropping, "held_out")) == 60 + len(copies) - near


def test_weight_repeats_and_thins_by_document_and_never_repeats_held_out_text(
    tmp_path: Path,
) -> None:
    sources = {"twice": _documents(0, 200), "half": _documents(1000, 200)}
    pack = make_pack(tmp_path, sources, twice={"weight": 2.5}, half={"weight": 0.5})
    corpus = make_corpus(pack, tmp_path / "corpus", DataConfig(held_out_fraction=0.1))
    train, held_out = _ids(corpus, "train"), _ids(corpus, "held_out")
    facts = facts_of(corpus, CorpusFacts)
    assert (facts.train_documents, facts.held_out_documents) == (len(train), len(held_out))
    assert facts.documents_read == facts.documents + sum(facts.dropped.values())
    twice = [id for id in train if id.startswith("twice:")]
    assert 2.2 < len(twice) / len({id.partition("~")[0] for id in twice}) < 2.8
    assert 60 < facts.dropped["weight"] < 140
    assert not any("~" in id for id in held_out)
    assert len(set(train)) == len(train)


@settings(max_examples=50, deadline=None)
@given(id=st.text("ab:#~é", max_size=20), weight=st.floats(0.01, 20))
def test_weight_copies_are_the_whole_part_or_one_more(id: str, weight: float) -> None:
    assert weight_copies(id, weight) in (int(weight), int(weight) + 1)
    assert 0 <= id_fraction(id) < 1


def test_duplicates_are_told_by_which_source_repeats_which(tmp_path: Path) -> None:
    web, books = _documents(0, 40), [*_documents(30, 20), ("again", prose(49)), ("near", _near(7))]
    pack = make_pack(tmp_path, {"web": [*web, ("long", prose(7, words=80))], "books": books})
    corpus = make_corpus(pack, tmp_path / "corpus")
    facts = facts_of(corpus, CorpusFacts)
    found = {(pair.source, pair.of): (pair.exact, pair.near) for pair in facts.duplicates}
    assert found == {("books", "web"): (10, 1), ("books", "books"): (1, 0)}
    of = {row["id"]: row["of"] for _, row in read_jsonl(corpus.path("dropped.jsonl"))}
    assert of["books:again"] == "books:49"
    assert of["books:30"] == "web:30"


def test_each_row_has_one_decision_and_the_decisions_give_the_counts(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, {"web": [*_documents(), ("same", prose(3))]}, web={"weight": 1.5})
    corpus = make_corpus(pack, tmp_path / "corpus", DataConfig(held_out_fraction=0.1))
    decisions = np.fromfile(corpus.path("row_decisions.u8"), dtype=np.uint8)
    facts = facts_of(corpus, CorpusFacts)
    assert len(decisions) == 301
    assert set(decisions.tolist()) == {DROPPED, 1, 2, HELD_OUT}
    assert (decisions == HELD_OUT).sum() == facts.held_out_documents
    assert decisions[decisions != HELD_OUT].sum() == facts.train_documents
    assert decisions[300] == DROPPED


def test_facts_follow_from_the_files_that_a_bundle_holds(tmp_path: Path) -> None:
    sources = {"web": [*_documents(), ("same", prose(3))], "books": _documents(290, 40)}
    pack = make_pack(tmp_path, sources, web={"weight": 1.5}, books={"weight": 0.5})
    corpus = make_corpus(pack, tmp_path / "corpus", DataConfig(held_out_fraction=0.1))
    corpus.path("location.json").unlink()
    assert facts_from(corpus.place) == facts_of(corpus, CorpusFacts)


def test_files_that_contradict_each_other_have_no_facts(tmp_path: Path) -> None:
    corpus = make_corpus(make_pack(tmp_path, {"web": _documents()}), tmp_path / "corpus")
    dropped = corpus.path("dropped.jsonl")
    dropped.write_text('{"id":"web:1","reason":"too_long"}\n')
    with pytest.raises(BadInput, match=r"dropped.jsonl: lists 1 rows more"):
        facts_from(corpus.place)
    dropped.write_text("")
    corpus.path("row_decisions.u8").write_bytes(bytes(299))
    with pytest.raises(BadInput, match=r"row_decisions.u8: holds 299 rows, sources.json lists 300"):
        facts_from(corpus.place)


def test_scan_that_was_killed_goes_on_with_the_groups_that_stand(tmp_path: Path) -> None:
    sources = {name: _documents(first, 30) for name, first in (("a", 0), ("b", 100), ("c", 200))}
    pack = load_pack(make_pack(tmp_path, sources))
    expected = make_corpus(pack, tmp_path / "undisturbed").digest
    tasks = scan_tasks(pack, 1)
    workspace = tmp_path / "corpus.work" / "scan"
    workspace.mkdir(parents=True)
    (tmp_path / "corpus.work" / "key").write_text("key")
    scan_group(workspace, tasks[1])  # as another process, or machine, left it
    stood = (workspace / "group-000001.json").stat().st_mtime_ns
    (workspace / "group-000000-00000.npz").write_bytes(b"cut off by the kill")
    seen: list[int] = []
    with publish(tmp_path / "corpus", "corpus", "key", {}) as staging:
        build_corpus(pack, DataConfig(), HostConfig(workers=1), staging)
        seen.append((staging.workspace / "scan" / "group-000001.json").stat().st_mtime_ns)
    assert staging.artifact is not None
    assert staging.artifact.digest == expected
    assert seen == [stood]


def test_text_column_of_a_source_is_the_recipes_to_say(tmp_path: Path) -> None:
    folder = tmp_path / "stories"
    folder.mkdir()
    (folder / "rows.jsonl").write_text(
        "".join(json.dumps({"story": prose(number)}) + "\n" for number in range(20))
    )
    pack = write(tmp_path / "dataset_pack.json", {"corpus": {"recipe": "r.json"}})
    write(tmp_path / "r.json", {"sources": [{"path": "stories", "text_column": "story"}]})
    corpus = make_corpus(pack, tmp_path / "corpus")
    assert {d.text for split in ("train", "held_out") for d in read_split(corpus, split)} == {
        prose(n) for n in range(20)
    }


def test_every_dropped_row_is_listed_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    rows = [
        {"text": prose(1)},
        {"text": "tiny"},
        {"text": None},
        {"body": "x"},
        {"text": prose(1)},
        {"text": prose(2)},
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "skipped.pdf").write_bytes(b"%PDF")
    pack = write(tmp_path / "dataset_pack.json", {"corpus": {"recipe": "r.json"}})
    write(tmp_path / "r.json", {"sources": [{"path": "text", "min_chars": 10}]})
    corpus = make_corpus(pack, tmp_path / "corpus")
    assert _dropped(corpus) == {
        "text:rows.jsonl#1": "below_min_chars",
        "text:rows.jsonl#2": "text_not_string",
        "text:rows.jsonl#3": "missing_text_column",
        "text:rows.jsonl#4": "duplicate_text",
    }
    source = json.loads(corpus.path("sources.json").read_text())["sources"][0]
    assert source["ignored"] == {".pdf": 1}


def test_same_pack_gives_the_same_digest_wherever_it_lies(tmp_path: Path) -> None:
    digests: set[str] = set()
    for name in ("one", "two"):
        pack = make_pack(tmp_path / name, {"web": _documents(), "books": _documents(1000, 60)})
        digests.add(make_corpus(pack, tmp_path / name / "corpus").digest)
    assert len(digests) == 1


def test_absolute_places_are_an_observation_only(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, {"web": _documents(count=20)})
    recipe = {
        "sources": [{"path": str(tmp_path / "sources" / "web" / "documents"), "label": "web"}]
    }
    write(pack.parent / "corpus_recipe.json", recipe)
    corpus = make_corpus(pack, tmp_path / "corpus")
    assert set(corpus.manifest.volatile_files) == {"location.json"}
    for name in (*corpus.manifest.files, "manifest.json"):
        assert str(tmp_path).encode() not in corpus.path(name).read_bytes(), name


def test_source_that_changed_or_went_away_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:02d}.txt").write_text(prose(number))
    pack = write(tmp_path / "dataset_pack.json", {"corpus": "text"})
    corpus = make_corpus(pack, tmp_path / "corpus")
    assert len(_ids(corpus, "train")) == 19
    name = _ids(corpus, "train")[7].removeprefix("text:")
    (folder / name).write_text((folder / name).read_text().upper())
    with pytest.raises(BadInput, match="has changed since the corpus was built"):
        _ids(corpus, "train")
    os.unlink(folder / name)
    with pytest.raises(BadInput, match="is gone"):
        _ids(corpus, "train")


def test_documents_that_differ_from_their_manifest_are_refused(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, {"web": _documents(count=20)})
    shard = tmp_path / "sources" / "web" / "documents" / "shard-000000.jsonl.zst"
    damaged = bytearray(shard.read_bytes())
    damaged[5] ^= 1
    shard.write_bytes(bytes(damaged))
    with pytest.raises(BadInput):
        make_corpus(pack, tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def _pack_of_rows(folder: Path, files: dict[str, list[dict[str, object]]], **keys: object) -> Path:
    for name, rows in files.items():
        path = folder / "web" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write(folder / "recipe.json", {"sources": [{"path": "web", **keys}]})
    return write(folder / "dataset_pack.json", {"corpus": {"recipe": "recipe.json"}})


def test_rows_that_repeat_an_id_are_named_by_file_and_row_and_counted(tmp_path: Path) -> None:
    rows = [{"id": f"page-{number // 2}", "text": prose(number)} for number in range(40)]
    files = {"a.jsonl": rows[:20], "b.jsonl": [rows[0], *rows[20:]]}
    files["b.jsonl"][0] = {"id": "page-0", "text": prose(99)}
    corpus = make_corpus(_pack_of_rows(tmp_path, files, weight=1.5), tmp_path / "corpus")
    found = {
        document.id: document.text
        for split in ("train", "held_out")
        for document in read_split(corpus, split)
        if "~" not in document.id
    }
    expected = {f"web:page-{number}": prose(2 * number) for number in range(20)}
    expected |= {f"web:a.jsonl#{number}": prose(number) for number in range(1, 20, 2)}
    expected |= {f"web:b.jsonl#{number - 19}": prose(number) for number in range(21, 40, 2)}
    expected["web:b.jsonl#0"] = prose(99)
    assert found == expected
    assert facts_of(corpus, CorpusFacts).repeated_ids == 21


def test_split_and_weight_of_a_renamed_row_follow_from_its_new_id(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"id": 7, "text": prose(number)} for number in range(300)]
    pack = _pack_of_rows(tmp_path, {"a.jsonl": rows}, weight=1.5)
    data = DataConfig(held_out_fraction=0.2, held_out_bytes=1_000_000_000)
    corpus = make_corpus(pack, tmp_path / "corpus", data)
    names = ["web:7", *(f"web:a.jsonl#{number}" for number in range(1, 300))]
    held_out = {name for name in names if id_fraction(name) < 0.2}
    assert 30 < len(held_out) < 90
    assert set(_ids(corpus, "held_out")) == held_out
    twice = {name for name in names if weight_copies(name, 1.5) == 2} - held_out
    assert {id for id in _ids(corpus, "train") if "~2" in id} == {f"{id}~2" for id in twice}


def test_renamed_rows_are_listed_and_left_out_by_their_new_id(tmp_path: Path) -> None:
    texts = [prose(1), prose(2), prose(2), prose(3)]
    rows: list[dict[str, object]] = [{"id": "x", "text": text} for text in texts]
    pack = _pack_of_rows(tmp_path, {"a.jsonl": rows})
    corpus = make_corpus(pack, tmp_path / "corpus")
    (dropped,) = [row for _, row in read_jsonl(corpus.path("dropped.jsonl"))]
    assert dropped == {"id": "web:a.jsonl#2", "reason": "duplicate_text", "of": "web:a.jsonl#1"}
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    write(tmp_path / "recipe.json", {**recipe, "exclude_documents": ["web:a.jsonl#3"]})
    without = make_corpus(pack, tmp_path / "without")
    left = {*_ids(without, "train"), *_ids(without, "held_out")}
    assert left == {"web:x", "web:a.jsonl#1"}


def test_who_gets_a_repeated_id_does_not_depend_on_how_the_rows_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: dict[str, list[dict[str, object]]] = {
        f"{name}.jsonl": [
            {"id": number % 7, "text": prose(100 * at + number)} for number in range(9)
        ]
        for at, name in enumerate("abcd")
    }
    pack = load_pack(_pack_of_rows(tmp_path, files))
    alone = make_corpus(pack, tmp_path / "alone")
    monkeypatch.setattr(corpus_scan, "GROUP_BYTES", 1)  # each file is a group of its own
    monkeypatch.setattr(corpus_scan, "PARALLEL_BYTES", 1)
    workspace = tmp_path / "shared.work" / "scan"
    workspace.mkdir(parents=True)
    (tmp_path / "shared.work" / "key").write_text("key")
    scan_group(workspace, scan_tasks(pack, 1)[2])  # as a process left it that was killed
    with publish(tmp_path / "shared", "corpus", "key", {}) as staging:
        build_corpus(pack, DataConfig(), HostConfig(workers=2), staging)
    assert staging.artifact is not None
    assert staging.artifact.digest == alone.digest
    assert facts_of(alone, CorpusFacts).repeated_ids == 36 - 7
    ids = {id for split in ("train", "held_out") for id in _ids(alone, split)}
    assert {document.id for document in read_pack(pack)} == ids
    assert {f"web:{number}" for number in range(7)} < ids


def test_renamed_rows_that_are_no_rows_of_the_corpus_have_no_facts(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, {"web": _documents(count=20)})
    corpus = make_corpus(pack, tmp_path / "corpus")
    for rows in ([20], [-1, 3], [3, 3]):
        np.array(rows, dtype="<i8").tofile(corpus.path("renamed_rows.i8"))
        with pytest.raises(BadInput, match=r"renamed_rows.i8: is not an ascending list"):
            facts_from(corpus.place)


def test_an_id_that_is_the_place_of_a_renamed_row_is_refused_with_a_remedy(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"id": "x", "text": prose(1)},
        {"id": "x", "text": prose(2)},
        {"id": "a.jsonl#1", "text": prose(3)},
    ]
    pack = _pack_of_rows(tmp_path, {"a.jsonl": rows})
    with pytest.raises(BadInput, match=r"the first: web:a\.jsonl#1") as caught:
        make_corpus(pack, tmp_path / "corpus")
    assert caught.value.fix is not None and "rename the file" in caught.value.fix
    (tmp_path / "web/a.jsonl").rename(tmp_path / "web/b.jsonl")
    renamed = make_corpus(pack, tmp_path / "again")
    assert facts_of(renamed, CorpusFacts).documents == 3


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([-800_000, 0, 1], pa.int32()).cast(pa.date32()),
        pa.array([0, 1, 2], pa.timestamp("s", tz="Nowhere/Land")),
        pa.array([-(10**12), 0, 1], pa.timestamp("s")),
        pa.array([b"\xff", b"a", b"b"]),
        pa.array([float("nan"), 1.0, 2.0]),
        pa.array([[1], [2], [3]]),
        pa.array([{"a": 1}, {"a": 2}, {"a": 3}]),
        pa.array([None, None, None], pa.string()),
        pa.array([True, False, True]),
        pa.array([b"\xff", b"\xfe", b"\xfd"]).view(pa.binary()).cast(pa.string(), safe=False),
    ],
    ids=str,
)
def test_an_id_that_cannot_be_used_gives_way_to_file_and_row(ids: pa.Array, tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    table = pa.table({"text": [prose(number) for number in range(3)], "id": ids})
    pq.write_table(table, tmp_path / "web/rows.parquet")
    pack = write(tmp_path / "dataset_pack.json", {"corpus": "web"})
    corpus = make_corpus(pack, tmp_path / "corpus")
    found = {*_ids(corpus, "train"), *_ids(corpus, "held_out")}
    assert found == {f"web:rows.parquet#{number}" for number in range(3)}


@pytest.mark.parametrize("id", ["NaN", "1.5", "true", "null", '""', "[1]", '"\\ud800"'])
def test_an_id_of_json_that_cannot_be_used_gives_way_to_file_and_row(
    id: str, tmp_path: Path
) -> None:
    rows = "".join(f'{{"id": {id}, "text": "{prose(number)}"}}\n' for number in range(3))
    (tmp_path / "rows.jsonl").write_text(rows)
    pack = write(tmp_path / "dataset_pack.json", {"corpus": "rows.jsonl"})
    corpus = make_corpus(pack, tmp_path / "corpus")
    found = {*_ids(corpus, "train"), *_ids(corpus, "held_out")}
    assert found == {f"rows.jsonl:rows.jsonl#{number}" for number in range(3)}


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.string(), pa.large_string()])
@pytest.mark.parametrize("coded", [False, True])
def test_integers_and_texts_are_ids(kind: pa.DataType, coded: bool, tmp_path: Path) -> None:
    ids = pa.array([3, 1, 2]).cast(kind)
    (tmp_path / "web").mkdir()
    columns = {
        "text": [prose(number) for number in range(3)],
        "id": ids.dictionary_encode() if coded else ids,
    }
    pq.write_table(pa.table(columns), tmp_path / "web/rows.parquet")
    pack = write(tmp_path / "dataset_pack.json", {"corpus": "web"})
    corpus = make_corpus(pack, tmp_path / "corpus")
    assert {*_ids(corpus, "train"), *_ids(corpus, "held_out")} == {"web:3", "web:1", "web:2"}


def test_pack_without_a_usable_document_is_refused_with_the_reasons(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, {"web": _documents(count=5)})
    with pytest.raises(BadInput) as caught:
        make_corpus(pack, tmp_path / "corpus", DataConfig(min_chars=100_000))
    assert "5 documents: below_min_chars" in "\n".join(caught.value.lines())


@pytest.mark.parametrize(
    ("rows", "keys", "says", "fix"),
    [
        ([], {}, "its files hold no rows", "add text to it"),
        ([{"body": "x"}], {}, "1 documents: missing_text_column", '"text_column" of the source'),
        ([{"text": 5}], {}, "1 documents: text_not_string", "a column of text"),
        ([{"text": "x"}], {"min_chars": 5}, "1 documents: below_min_chars", "lower min_chars"),
        ([{"text": "x"}], {"weight": 1e-9}, "1 documents: weight", "raise the weights"),
    ],
)
def test_an_empty_corpus_is_refused_with_the_remedy_of_its_reason(
    rows: list[dict[str, object]], keys: dict[str, object], says: str, fix: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput) as caught:
        make_corpus(_pack_of_rows(tmp_path, {"a.jsonl": rows}, **keys), tmp_path / "corpus")
    assert says in "\n".join(caught.value.lines())
    assert caught.value.fix is not None and fix in caught.value.fix


@pytest.mark.parametrize("parts", [["one"], ["one", "one "]])
def test_a_text_that_cannot_be_divided_is_refused_and_a_separator_helps(
    parts: list[str], tmp_path: Path
) -> None:
    text = " ".join(prose(number) for number in range(40))
    source = tmp_path / "a.txt"
    source.write_text("<|endoftext|>".join(text + part for part in parts))
    pack = write(tmp_path / "dataset_pack.json", {"corpus": "a.txt"})
    with pytest.raises(BadInput, match="nothing can be held out") as caught:
        make_corpus(pack, tmp_path / "corpus")
    assert caught.value.fix is not None and "<|endoftext|>" in caught.value.fix
    source.write_text(f"{text}<|endoftext|>{prose(99)}")
    found = facts_of(make_corpus(pack, tmp_path / "again"), CorpusFacts)
    assert (found.train_documents, found.held_out_documents) == (1, 1)


def test_corpus_of_an_import_carries_its_report_and_licence(tmp_path: Path) -> None:
    with serving(FakeHub()) as hub:
        commit = hub.add_dataset("owner/name", parquet_files())
        import_dataset(request(tmp_path / "web"))
    pack = write(tmp_path / "dataset_pack.json", {"corpus": "web/documents"})
    corpus = make_corpus(pack, tmp_path / "corpus")
    (source,) = facts_of(corpus, CorpusFacts).sources
    assert (source.label, source.kind, source.licence, source.import_report) == (
        "web",
        "hub",
        "odc-by",
        True,
    )
    expected = {
        "pack.json",
        "recipe.json",
        "sources.json",
        "row_decisions.u8",
        "renamed_rows.i8",
        "dropped.jsonl",
        "near_duplicates.jsonl",
        "measured.json",
        "import_reports/web.json",
    }
    assert set(corpus.manifest.files) == expected
    assert changed_files(corpus.place, corpus.manifest) == []
    assert (
        json.loads(corpus.path("sources.json").read_text())["sources"][0]["provenance"]["revision"]
        == commit
    )


def test_parquet_and_text_sources_mix(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a.parquet").write_bytes(
        parquet_bytes([prose(number) for number in range(30)], group_rows=7)
    )
    (folder / "b.md").write_text(prose(99))
    pack = write(tmp_path / "dataset_pack.json", {"corpus": "mixed"})
    corpus = make_corpus(load_pack(pack), tmp_path / "corpus")
    ids = _ids(corpus, "train") + _ids(corpus, "held_out")
    assert set(ids) == {f"mixed:a.parquet#{row}" for row in range(30)} | {"mixed:b.md"}


def _excluding(pack: Path, ids: list[str]) -> Path:
    recipe = pack.parent / "corpus_recipe.json"
    recipe.write_text(json.dumps({**json.loads(recipe.read_text()), "exclude_documents": ids}))
    return pack


def test_a_document_that_the_recipe_leaves_out_is_in_no_split_and_said_to_be_left_out(
    tmp_path: Path,
) -> None:
    corpus = make_corpus(
        _excluding(make_pack(tmp_path, {"web": _documents(count=40)}), ["web:7", "web:31"]),
        tmp_path / "corpus",
    )
    assert set(_ids(corpus, "train") + _ids(corpus, "held_out")) == {
        f"web:{n}" for n in range(40)
    } - {"web:7", "web:31"}
    assert _dropped(corpus) == {"web:7": "excluded", "web:31": "excluded"}
    assert facts_of(corpus, CorpusFacts).dropped == {"excluded": 2}


def test_a_document_to_leave_out_that_is_in_no_source_is_refused(tmp_path: Path) -> None:
    pack = _excluding(make_pack(tmp_path, {"web": _documents(count=5)}), ["web:3", "7", "book:1"])
    with pytest.raises(BadInput, match=r"2 of exclude_documents are in no source, the first: 7"):
        make_corpus(pack, tmp_path / "corpus")
