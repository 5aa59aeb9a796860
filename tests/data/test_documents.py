import gzip
import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from picochat.core.errors import BadInput
from picochat.core.records import digest_file
from picochat.data.document_shards import ShardWriter, read_manifest, write_documents
from picochat.data.documents import Document, list_source_files, read_documents, read_source_file
from picochat.data.formats.file_rows import FORMATS, format_of
from tests.data.builders import folder_bytes, parquet_bytes, prose


def _problems(folder: Path, name: str) -> list[str | None]:
    return [row.problem for row in read_source_file(folder, name)]


def test_written_documents_are_read_back_one_by_one_whatever_the_shards_hold(
    tmp_path: Path,
) -> None:
    pairs = [(f"id-{number}", prose(number)) for number in range(25)]
    manifest = write_documents(tmp_path / "documents", iter(pairs), shard_documents=10)
    assert [shard.documents for shard in manifest.shards] == [10, 10, 5]
    assert list(read_documents(tmp_path / "documents", "web")) == [
        Document(id, text, "web") for id, text in pairs
    ]
    assert manifest.text_bytes == sum(len(text.encode()) for _, text in pairs)


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
        max_size=12,
    )
)
def test_any_text_survives_a_shard(
    texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shards") / "documents"
    write_documents(
        folder, ((str(number), text) for number, text in enumerate(texts)), shard_documents=5
    )
    kept = [(str(number), text) for number, text in enumerate(texts) if text.strip()]
    assert [(document.id, document.text) for document in read_documents(folder, "x")] == kept


def test_same_documents_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_documents(
            tmp_path / name,
            ((str(number), prose(number)) for number in range(30)),
            shard_documents=7,
        )
    assert folder_bytes(tmp_path / "one") == folder_bytes(tmp_path / "two")


def test_manifest_states_the_digest_of_every_shard(tmp_path: Path) -> None:
    write_documents(
        tmp_path / "d", ((str(number), prose(number)) for number in range(5)), shard_documents=2
    )
    manifest = read_manifest(tmp_path / "d")
    assert manifest is not None
    assert [shard.sha256 for shard in manifest.shards] == [
        digest_file(tmp_path / "d" / shard.name) for shard in manifest.shards
    ]


def test_shard_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, 3) as writer:
        assert [writer.add(name, "text") for name in "ab"] == [None, None]
        assert not list(tmp_path.glob("*.zst"))
        coming = writer.add("c", "text")
        assert coming is not None
        assert coming.result().documents == 3
        assert [path.name for path in tmp_path.glob("*.zst")] == ["shard-000000.jsonl.zst"]
        writer.add("d", "text")
    assert len(list(tmp_path.iterdir())) == 1


def test_every_known_format_gives_the_same_texts(tmp_path: Path) -> None:
    texts = [prose(number) for number in range(4)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    frames = zstandard.ZstdCompressor()
    files = {
        ".parquet": parquet_bytes(texts, group_rows=2),
        ".jsonl": lines,
        ".json": json.dumps([{"text": text} for text in texts]).encode(),
        ".jsonl.gz": gzip.compress(lines),
        ".jsonl.zst": frames.compress(lines[:100]) + frames.compress(lines[100:]),
    }
    for ending, kind in FORMATS:
        (tmp_path / f"a{ending}").write_bytes(
            texts[0].encode() if kind == "text" else files[ending]
        )
        expected = texts[:1] if kind == "text" else texts
        assert [row.text for row in read_source_file(tmp_path, f"a{ending}")] == expected, ending


def test_ids_come_from_the_record_else_from_file_and_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "one", "id": "mine"}\n\n{"text": "two", "id": 7}\n{"text": "three"}\n'
    )
    (tmp_path / "b.parquet").write_bytes(parquet_bytes(["x", "y"], id=["p", "q"]))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "note.md").write_text("a note")
    ids = [document.id for document in read_documents(tmp_path, "s")]
    assert ids == ["mine", "7", "a.jsonl#2", "p", "q", "sub/note.md"]


def test_folders_are_walked_in_sorted_order_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", ".hidden.txt", "x/c.txt", ".git/d.txt", "x/image.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    assert [file.name for file in list_source_files(tmp_path)] == ["a.txt", "b.txt", "x/c.txt"]
    chosen = list_source_files(tmp_path, include=["**/*.txt"], exclude=["x/**"])
    assert [file.name for file in chosen] == ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"text": "fine"}', None),
        ('{"other": 1}', "missing_text_column"),
        ('{"text": null}', "text_not_string"),
        ('{"text": 5}', "text_not_string"),
        ('{"text": "  \\n"}', "empty_text"),
        ('{"text": "a\\u0000b"}', "nul_character"),
        ('{"text": "a\\ud800b"}', "lone_surrogate"),
    ],
)
def test_each_unusable_row_has_its_own_reason(
    line: str, problem: str | None, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n")
    assert _problems(tmp_path, "a.jsonl") == [problem]


# name, bytes, what is said of it
BROKEN: tuple[tuple[str, bytes, str], ...] = (
    ("a.jsonl", b'{"text": "ok"}\n{"text": \n', "line 2: not valid JSON"),
    ("a.jsonl", b'{"text": "ok"}\n["x"]\n', "line 2: a JSON object is needed, found list"),
    ("a.jsonl", b'{"text": "\xff"}\n', "line 1: not UTF-8"),
    ("a.parquet", b"PAR1 not really", "not a readable parquet file"),
    ("a.parquet", parquet_bytes(["x"], column="body"), "has no column 'text'"),
    ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 50, mtime=0)[:-9], "damaged or cut off"),
    (
        "a.jsonl.zst",
        zstandard.ZstdCompressor().compress(b'{"text": "x"}\n' * 50)[:-3],
        "damaged or cut off",
    ),
    ("a.jsonl.zst", b"not zstd at all", "damaged or cut off"),
    ("a.json", b"[1,", "line 1: not valid JSON"),
)


@pytest.mark.parametrize(("name", "data", "says"), BROKEN)
def test_broken_file_is_named_with_the_place_of_the_fault(
    name: str, data: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput) as caught:
        list(read_source_file(tmp_path, name))
    assert says in caught.value.what
    assert name in caught.value.what


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.txt", b"caf\xe9", "is not UTF-8 text"),
        ("a.txt", b"PK\0\0", "is not UTF-8 text"),
        ("a.py", b"\xff", "is not UTF-8 text"),
        ("a.csv", b"text\nx\n", "its ending says nothing"),
        ("a.PDF", b"%PDF", "its ending says nothing"),
    ],
)
def test_a_file_that_is_named_by_itself_and_is_no_text_is_refused(
    name: str, data: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput) as caught:
        list(read_documents(tmp_path / name, "a"))
    assert says in caught.value.what and name in caught.value.what
    assert caught.value.fix


def test_each_format_has_a_broken_file() -> None:
    # A text file cannot be broken: one that is no text is a row without text.
    assert {kind for _, kind in FORMATS} - {"text"} <= {format_of(name) for name, _, _ in BROKEN}


def test_shard_that_is_missing_or_cut_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    write_documents(
        tmp_path / "d", ((str(number), prose(number)) for number in range(4)), shard_documents=2
    )
    shard = tmp_path / "d" / "shard-000001.jsonl.zst"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(BadInput, match=r"documents\.json says"):
        list_source_files(tmp_path / "d")
    shard.unlink()
    with pytest.raises(BadInput, match="is missing"):
        list_source_files(tmp_path / "d")


def test_documents_are_readable_without_picochat(tmp_path: Path) -> None:
    """What docs/runbook.md says to somebody who has pandas and not picochat."""
    import pandas

    texts = [prose(number) for number in range(5)] + ['naïve \u2028 line\nbreaks\r\n and "quotes"']
    write_documents(
        tmp_path / "documents", ((str(n), text) for n, text in enumerate(texts)), shard_documents=4
    )
    shards = sorted((tmp_path / "documents").glob("*.zst"))
    table = pandas.concat(
        pandas.read_json(shard, lines=True, dtype={"id": str}) for shard in shards
    )
    assert table["text"].tolist() == texts
    assert table["id"].tolist() == [str(n) for n in range(6)]
