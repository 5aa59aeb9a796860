"""Real files for the data tests: parquet, packs over folders of documents, import requests."""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from picochat.config import DataConfig, HostConfig
from picochat.core.publish import Artifact, publish
from picochat.data.corpus.build import build_corpus
from picochat.data.document_shards import write_documents
from picochat.data.importing.import_report import ImportRequest
from picochat.data.pack import LoadedPack, load_pack
from tests.fake_hub import FakeHub

WORDS = (
    "river",
    "stone",
    "lamp",
    "quiet",
    "window",
    "seven",
    "garden",
    "letter",
    "engine",
    "copper",
    "winter",
    "field",
)


def prose(number: int, words: int = 30) -> str:
    """A text that no other number gives."""
    chosen = random.Random(number).choices(WORDS, k=words)
    return f"Text {number}: " + " ".join(chosen) + "."


def parquet_bytes(
    texts: Sequence[object],
    *,
    group_rows: int = 50,
    column: str = "text",
    **columns: Sequence[object],
) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({column: list(texts), **columns}), buffer, row_group_size=group_rows)
    return buffer.getvalue()


def parquet_files(
    files: int = 4, rows: int = 200, *, config: str = "cfg", group_rows: int = 50
) -> dict[str, bytes]:
    """A Hub dataset of one config and split, with a card. Every text differs."""
    names = [f"{config}/train-{number:05d}-of-{files:05d}.parquet" for number in range(files)]
    data = {
        name: parquet_bytes(
            [prose(number * 1_000_000 + row) for row in range(rows)], group_rows=group_rows
        )
        for number, name in enumerate(names)
    }
    return {**data, "README.md": b"---\nlicense: odc-by\n---\n# Data\n"}


def request(folder: Path, dataset: str = "owner/name", **changes: object) -> ImportRequest:
    values: dict[str, object] = {
        "dataset": dataset,
        "config": "cfg",
        "out": str(folder / "corpus.txt"),
        "max_rows": 400,
    }
    return ImportRequest.model_validate({**values, "document_shard_rows": 60, **changes})


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the observations, which may differ."""
    files = (
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".observed." not in path.name
    )
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """The fake Hub as the Hub of this process."""
    before = os.environ.get("HF_ENDPOINT")
    with hub:
        os.environ["HF_ENDPOINT"] = hub.endpoint
        try:
            yield hub
        finally:
            if before is None:
                del os.environ["HF_ENDPOINT"]
            else:
                os.environ["HF_ENDPOINT"] = before


def make_pack(
    folder: Path, sources: dict[str, Iterable[tuple[str, str]]], **options: dict[str, object]
) -> Path:
    """A pack over folders of documents, one for each label.

    options: label -> further keys of that source.
    """
    pack = folder / "pack"
    pack.mkdir(parents=True)
    listed: list[dict[str, object]] = []
    for label, documents in sources.items():
        write_documents(
            folder / "sources" / label / "documents", iter(documents), shard_documents=50
        )
        listed.append(
            {"path": f"../sources/{label}/documents", "label": label, **options.get(label, {})}
        )
    write(
        pack / "dataset_pack.json",
        {"name": "test", "corpus": {"recipe": "corpus_recipe.json"}, "chat": "chat.jsonl"},
    )
    write(pack / "corpus_recipe.json", {"name": "test", "sources": listed})
    (pack / "chat.jsonl").touch()
    return pack / "dataset_pack.json"


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def make_corpus(pack: LoadedPack | Path, place: Path, data: DataConfig | None = None) -> Artifact:
    loaded = pack if isinstance(pack, LoadedPack) else load_pack(pack)
    with publish(place, "corpus", "key", {}) as staging:
        build_corpus(loaded, data or DataConfig(), HostConfig(workers=1), staging)
    assert staging.artifact is not None
    return staging.artifact
