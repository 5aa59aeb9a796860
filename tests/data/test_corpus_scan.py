from pathlib import Path

import numpy as np

from picochat.data.corpus_scan import PARALLEL_BYTES, ScanTask, scan_files
from picochat.data.documents import list_source_files, write_documents
from tests.data.builders import prose


def test_several_processes_give_what_one_gives_in_the_same_order(tmp_path: Path) -> None:
    source = tmp_path / "documents"
    write_documents(source, ((str(number), prose(number)) for number in range(70)), shard_documents=10)
    tasks: list[ScanTask] = [("web", source, file.name, 1) for file in list_source_files(source)]
    one = list(scan_files(tasks, 1, PARALLEL_BYTES))
    several = list(scan_files(tasks, 2, PARALLEL_BYTES))
    assert (
        [scan.ids for scan in one]
        == [scan.ids for scan in several]
        == [[f"web:{10 * n + i}" for i in range(10)] for n in range(7)]
    )
    assert [scan.digests for scan in one] == [scan.digests for scan in several]
    for alone, together in zip(one, several, strict=True):
        assert np.array_equal(alone.signatures, together.signatures)


def test_one_file_is_scanned_in_batches_without_losing_their_order(tmp_path: Path) -> None:
    source = tmp_path / "documents"
    texts = [prose(number) + " filler" * 200_000 for number in range(9)]
    write_documents(source, ((str(number), text) for number, text in enumerate(texts)))
    (scan,) = scan_files([("web", source, "shard-000000.jsonl.zst", 1)], 1, 0)
    assert scan.text_bytes == [len(text.encode()) for text in texts]
    assert len(scan.signatures) == 9
    assert len({row.tobytes() for row in scan.signatures}) == 9
