from pathlib import Path

import numpy as np

from picochat.data.corpus.corpus_scan import (
    CHUNK_TEXT_BYTES,
    PARALLEL_BYTES,
    Chunk,
    ScanTask,
    chunks_of,
    scan_groups,
)
from picochat.data.document_shards import write_documents
from picochat.data.documents import list_source_files
from tests.data.builders import prose


def _tasks(source: Path, file_bytes: int = 0) -> list[ScanTask]:
    names = [file.name for file in list_source_files(source)]
    return [
        ScanTask(number, "web", source, (name,), file_bytes, "text", 1, 1.0, frozenset())
        for number, name in enumerate(names)
    ]


def _scanned(tasks: list[ScanTask], folder: Path, workers: int) -> list[Chunk]:
    listings = scan_groups(tasks, folder, workers)
    return [
        chunk
        for task, listing in zip(tasks, listings, strict=True)
        for chunk in chunks_of(task, listing, folder)
    ]


def _ids(chunk: Chunk) -> list[str]:
    ends = chunk.column("id_ends").tolist()
    return [
        chunk.column("ids")[start:end].tobytes().decode()
        for start, end in zip([0, *ends], ends, strict=False)
    ]


def test_several_processes_give_what_one_gives_in_the_same_order(tmp_path: Path) -> None:
    source = tmp_path / "documents"
    write_documents(
        source, ((str(number), prose(number)) for number in range(70)), shard_documents=10
    )
    one = _scanned(_tasks(source, PARALLEL_BYTES), tmp_path / "one", 1)
    several = _scanned(_tasks(source, PARALLEL_BYTES), tmp_path / "several", 2)
    assert [_ids(chunk) for chunk in one] == [
        [f"web:{10 * n + i}" for i in range(10)] for n in range(7)
    ]
    for alone, together in zip(one, several, strict=True):
        for suffix in (".npz", ".signatures"):
            assert (
                alone.path.with_suffix(suffix).read_bytes()
                == together.path.with_suffix(suffix).read_bytes()
            )


def test_one_large_file_becomes_several_chunks_in_its_order(tmp_path: Path) -> None:
    source = tmp_path / "documents"
    texts = [prose(number) + " filler" * (CHUNK_TEXT_BYTES // 28) for number in range(9)]
    write_documents(source, ((str(number), text) for number, text in enumerate(texts)))
    chunks = _scanned(_tasks(source), tmp_path / "scan", 1)
    assert [chunk.rows for chunk in chunks] == [4, 4, 1]
    assert [size for chunk in chunks for size in chunk.column("text_bytes")] == [
        len(text) for text in texts
    ]
    rows = np.concatenate([chunk.signatures() for chunk in chunks])
    assert len({row.tobytes() for row in rows}) == 9
    assert (chunks[1].signatures(np.array([1, 3])) == chunks[1].signatures()[[1, 3]]).all()
