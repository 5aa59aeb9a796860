import json
from pathlib import Path

import pytest

from picochat.config import DataConfig
from picochat.core.errors import BadInput
from picochat.data.pack import LoadedPack, load_pack
from picochat.preview.text_sample import SAMPLE_FILES, SourceSample, read_sample, share_budget
from tests.data.builders import make_pack, parquet_bytes, prose, write

LIMIT = 60_000


def _raw_pack(folder: Path, files: dict[str, bytes]) -> LoadedPack:
    (folder / "raw").mkdir(parents=True)
    for name, data in files.items():
        (folder / "raw" / name).write_bytes(data)
    return load_pack(write(folder / "dataset_pack.json", {"corpus": "raw"}))


def _sample(pack: LoadedPack, sample_bytes: int = LIMIT) -> SourceSample:
    return read_sample(pack.sources, DataConfig(), sample_bytes, whole_bytes=0)[0]


def _jsonl(first: int, rows: int, words: int = 30) -> bytes:
    return "".join(
        json.dumps({"text": prose(first + row, words)}) + "\n" for row in range(rows)
    ).encode()


def test_a_small_pack_is_read_as_a_whole_and_nothing_is_missing(tmp_path: Path) -> None:
    documents = [(f"d{number}", prose(number)) for number in range(120)]
    (sample,) = read_sample(
        load_pack(make_pack(tmp_path, {"web": documents})).sources, DataConfig()
    )
    assert sample.complete
    assert list(zip(sample.ids, sample.texts, strict=True)) == documents
    assert sample.text_bytes == [len(text) for _, text in documents]


def test_a_sample_stays_near_its_bound_and_is_spread_over_files(tmp_path: Path) -> None:
    pack = _raw_pack(
        tmp_path, {f"{n:03d}.jsonl": _jsonl(1_000 * n, 60) for n in range(3 * SAMPLE_FILES)}
    )
    sample = _sample(pack)
    assert not sample.complete
    assert LIMIT <= sum(sample.text_bytes) < 1.2 * LIMIT
    assert len({id.split("#")[0] for id in sample.ids}) == SAMPLE_FILES
    assert sample.ids[0].startswith("000.jsonl")
    assert sample.ids[-1].startswith("069.jsonl")


def test_a_parquet_file_is_read_at_several_places(tmp_path: Path) -> None:
    pack = _raw_pack(
        tmp_path, {"one.parquet": parquet_bytes([prose(n) for n in range(4_000)], group_rows=100)}
    )
    sample = _sample(pack)
    rows = [int(id.split("#")[1]) for id in sample.ids]
    assert min(rows) == 0
    assert max(rows) > 3_000
    assert all(sample.texts[place] == prose(row) for place, row in enumerate(rows))
    assert sample.file_bytes / pack.sources[0].files[0].bytes == pytest.approx(len(rows) / 4_000)


def test_files_of_long_and_of_short_documents_are_sampled_alike(tmp_path: Path) -> None:
    files = {"long.jsonl": _jsonl(0, 100, words=600), "short.jsonl": _jsonl(5_000, 2_000, words=20)}
    sample = _sample(_raw_pack(tmp_path, files), 200_000)
    true_mean = (100 * len(prose(0, 600)) + 2_000 * len(prose(5_000, 20))) / 2_100
    assert sum(map(len, sample.texts)) / len(sample.texts) == pytest.approx(true_mean, rel=0.15)


def test_what_a_small_source_leaves_over_goes_to_the_others() -> None:
    assert share_budget([10, 1_000, 1_000], 310) == [10, 150, 150]
    assert share_budget([1_000, 1_000], 300) == [150, 150]
    assert share_budget([5, 6], 300) == [5, 6]


def test_rows_without_usable_text_are_counted_by_reason(tmp_path: Path) -> None:
    rows = [{"text": "long enough"}, {"text": " "}, {"body": "x"}, {"text": "short"}]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    pack = _raw_pack(tmp_path, {"a.jsonl": data})
    (sample,) = read_sample(pack.sources, DataConfig(min_chars=8))
    assert sample.texts == ["long enough"]
    assert sample.unusable == {"empty_text": 1, "missing_text_column": 1, "below_min_chars": 1}


def test_documents_to_show_follow_the_seed(tmp_path: Path) -> None:
    sample = _sample(_raw_pack(tmp_path, {"a.jsonl": _jsonl(0, 400)}))
    assert sample.chosen(4, 42) == sample.chosen(4, 42) != sample.chosen(4, 43)
    assert sample.spread(4)[0] == 0
    assert len(set(sample.spread(4))) == 4


def test_a_file_that_vanishes_meanwhile_is_named(tmp_path: Path) -> None:
    pack = _raw_pack(tmp_path, {"a.jsonl": _jsonl(0, 4)})
    (tmp_path / "raw" / "a.jsonl").unlink()
    with pytest.raises(BadInput, match=r"a\.jsonl cannot be read"):
        _sample(pack)
