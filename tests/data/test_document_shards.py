import hashlib
import json
import random
import resource
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from picochat.data import document_shards
from picochat.data.document_shards import DocumentShard, ShardWriter, document_line, write_documents
from picochat.data.documents import read_source_file
from tests.data.builders import prose


def _write(folder: Path, documents: int, shard_documents: int) -> list[DocumentShard]:
    with ShardWriter(folder, shard_documents) as writer:
        coming = [writer.add(f"id-{number}", prose(number)) for number in range(documents)]
        coming.append(writer.complete())
        return [shard.result() for shard in coming if shard is not None]


@pytest.mark.parametrize("piece_bytes", [1, 5000, 1 << 20])
def test_shards_hold_all_documents_in_order_and_state_what_they_hold(
    piece_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_shards, "PIECE_BYTES", piece_bytes)
    shards = _write(tmp_path, 250, 60)
    assert [(shard.name, shard.documents) for shard in shards] == [
        (f"shard-{number:06d}.jsonl.zst", min(60, 250 - 60 * number)) for number in range(5)
    ]
    texts = [row.text for shard in shards for row in read_source_file(tmp_path, shard.name)]
    assert texts == [prose(number) for number in range(250)]
    for shard in shards:
        data = (tmp_path / shard.name).read_bytes()
        assert (shard.bytes, shard.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert sum(shard.text_bytes for shard in shards) == sum(len(text.encode()) for text in texts)
    assert sum(shard.characters for shard in shards) == sum(map(len, texts))


def test_number_of_threads_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_shards, "PIECE_BYTES", 3000)
    for threads in (1, 5):
        monkeypatch.setattr(document_shards, "usable_cores", lambda threads=threads: threads)
        _write(tmp_path / str(threads), 200, 70)
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "5").iterdir())
    assert all(
        (tmp_path / "1" / name).read_bytes() == (tmp_path / "5" / name).read_bytes()
        for name in names
    )


def test_shard_is_read_without_picochat(tmp_path: Path) -> None:
    _write(tmp_path, 20, 20)
    with zstandard.open(tmp_path / "shard-000000.jsonl.zst", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert rows == [{"id": f"id-{number}", "text": prose(number)} for number in range(20)]


def test_disk_that_says_no_is_an_error_of_the_shard(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "d", 2) as writer:
        writer.add("a", "text")
        (tmp_path / "d").rename(tmp_path / "e")
        coming = writer.add("b", "text")
        assert coming is not None
        with pytest.raises(OSError, match="No such file"):
            coming.result()


@contextmanager
def no_file_above(size: int) -> Generator[None, None, None]:
    """Writes past so many bytes of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_after_a_write_that_failed_only_whole_shards_are_left(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(50_000).hex()
    with (
        no_file_above(10_000),
        pytest.raises(OSError, match="File too large"),
        ShardWriter(tmp_path, 2) as writer,
    ):
        futures = [writer.add(str(number), "text") for number in range(3)]
        futures += [writer.add(str(number), noise) for number in range(100)]
        for future in filter(None, futures):
            future.result()
    assert [path.name for path in tmp_path.iterdir()] == ["shard-000000.jsonl.zst"]


def test_a_folder_of_documents_that_failed_leaves_nothing_and_is_written_again(
    tmp_path: Path,
) -> None:
    noise = random.Random(1).randbytes(50_000).hex()
    with no_file_above(10_000), pytest.raises(OSError, match="File too large"):
        write_documents(tmp_path / "d", iter([("a", noise), ("b", noise)]), shard_documents=1)
    assert not list(tmp_path.iterdir())
    (tmp_path / ".d.draft").mkdir()  # as a kill leaves it
    (tmp_path / ".d.draft" / "shard-000009.jsonl.zst").write_bytes(b"old")
    write_documents(tmp_path / "d", iter([("a", "text")]), shard_documents=1)
    names = sorted(path.name for path in tmp_path.rglob("*"))
    assert names == ["d", "documents.json", "shard-000000.jsonl.zst"]


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    id=st.text(st.characters(exclude_categories=["Cs"])),
)
def test_line_is_what_the_json_library_writes(text: str, id: str) -> None:
    expected = (
        json.dumps({"id": id, "text": text}, ensure_ascii=False, separators=(",", ":")).encode()
        + b"\n"
    )
    assert document_line(id, text) == expected
