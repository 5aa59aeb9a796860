"""Datasets laid out as well-known public ones, imported end to end by the one command.

No code knows their names.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from picochat.cli.main import run_command
from tests.data.builders import parquet_bytes, prose, serving
from tests.fake_hub import FakeHub

EDU_CARD = """---
license: odc-by
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*/*
  features:
  - name: text
    dtype: string
- config_name: sample-10BT
  data_files:
  - split: train
    path: sample/10BT/*
- config_name: CC-MAIN-2024-10
  data_files:
  - split: train
    path: data/CC-MAIN-2024-10/*
---
# Educational pages
"""


def rows(first: int, **columns: list[object]) -> bytes:
    return parquet_bytes([prose(first + row) for row in range(60)], group_rows=20, **columns)


# Numbered parquet shards at the root, a text column and nothing else; no card that says more than a
# licence.
SHUFFLED_MIRROR = {
    "README.md": b"---\nlicense: cc-by-nc-4.0\n---\n",
    **{f"shard_{number:05d}.parquet": rows(1000 * number) for number in range(5)},
}
# Crawls below data/, samples beside them, many columns; the configs are in the card.
EDU_CRAWLS = {
    "README.md": EDU_CARD.encode(),
    **{
        f"data/{crawl}/train-{number:05d}-of-00002.parquet": rows(
            10_000 * at + 1000 * number,
            id=[f"<urn:{row}>" for row in range(60)],
            url=["http://x"] * 60,
            score=[3.1] * 60,
        )
        for at, crawl in enumerate(("CC-MAIN-2023-50", "CC-MAIN-2024-10"))
        for number in range(2)
    },
    **{
        f"sample/10BT/{number:03d}_00000.parquet": rows(90_000 + 1000 * number)
        for number in range(3)
    },
}
# One folder a config, cut in many files, and no configs in the card.
FOLDER_A_CONFIG = {
    "README.md": b"---\nlicense: odc-by\n---\n",
    **{
        f"web-dedup/train-{number:05d}-of-00004.parquet": rows(1000 * number) for number in range(4)
    },
    **{
        f"textbooks-v2/train-{number:05d}-of-00002.parquet": rows(50_000 + 1000 * number)
        for number in range(2)
    },
    "code/train-00000-of-00001.parquet": parquet_bytes(
        [str(number) for number in range(60)], column="blob_id"
    ),
}

LAYOUTS: list[tuple[dict[str, bytes], list[str], set[str], str]] = [
    # repository      flags                          the files it reads
    # licence
    (
        SHUFFLED_MIRROR,
        [],
        {name for name in SHUFFLED_MIRROR if name.endswith("parquet")},
        "cc-by-nc-4.0",
    ),
    (EDU_CRAWLS, [], {name for name in EDU_CRAWLS if name.startswith("data/")}, "odc-by"),
    (
        EDU_CRAWLS,
        ["--config", "default"],
        {name for name in EDU_CRAWLS if name.startswith("data/")},
        "odc-by",
    ),
    (
        EDU_CRAWLS,
        ["--config", "sample-10BT"],
        {name for name in EDU_CRAWLS if name.startswith("sample/")},
        "odc-by",
    ),
    (
        EDU_CRAWLS,
        ["--config", "CC-MAIN-2024-10"],
        {name for name in EDU_CRAWLS if "2024-10/" in name},
        "odc-by",
    ),
    (
        FOLDER_A_CONFIG,
        ["--config", "web-dedup"],
        {name for name in FOLDER_A_CONFIG if "web" in name},
        "odc-by",
    ),
    (
        FOLDER_A_CONFIG,
        ["--config", "textbooks-v2"],
        {name for name in FOLDER_A_CONFIG if "textbooks" in name},
        "odc-by",
    ),
]


@pytest.mark.parametrize(("files", "flags", "read", "licence"), LAYOUTS)
@pytest.mark.parametrize("kind", ["hub", "folder"])
def test_public_layout_is_imported_by_the_same_command(
    kind: str,
    files: dict[str, bytes],
    flags: list[str],
    read: set[str],
    licence: str,
    tmp_path: Path,
) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", files)
        dataset = "owner/name" if kind == "hub" else str(tmp_path / "copy")
        for name, data in files.items() if kind == "folder" else ():
            (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "copy" / name).write_bytes(data)
        out = ["--dataset", dataset, "--out", str(tmp_path / "corpus.txt"), "--max-rows", "100000"]
        assert run_command(["data", "hf-import", *out, *flags]) == 0
    report = json.loads((tmp_path / "hf_import_report.json").read_text())
    assert {file["name"] for file in report["data_files"]} == read
    assert (report["licence"], report["rows_written"]) == (licence, 60 * len(read))
    assert [file["row_ranges"] for file in report["data_files"]] == [[[0, 60]]] * len(read)


def test_repository_of_several_configs_lists_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(FakeHub()) as hub:
        hub.add_dataset("owner/name", FOLDER_A_CONFIG)
        out = ["--dataset", "owner/name", "--out", str(tmp_path / "corpus.txt")]
        assert run_command(["data", "hf-import", *out]) == 5
        assert run_command(["data", "hf-import", *out, "--config", "code"]) == 4
    said = capsys.readouterr().err
    assert "--config one of: code, textbooks-v2, web-dedup" in said
    assert "in a recipe, one of: blob_id" in said
