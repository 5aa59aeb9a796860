from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip(
    "datatrove", reason="datatrove is not installed: pip install 'picochat[datatrove]'"
)

from picochat.config import HostConfig, ShardsConfig
from picochat.core.publish import publish
from picochat.data.corpus.reader import Split
from picochat.data.datatrove_pipelines import run_locally
from picochat.data.documents import Document
from picochat.tokens.datatrove_parts import encode_parts, encode_pipeline
from picochat.tokens.shards import write_shards
from picochat.tokens.tokenizer import Tokenizer, build_fast_encoder, read_layout
from tests.data.builders import make_corpus, make_pack
from tests.tokens.builders import (
    Listed,
    make_exercises,
    make_job,
    manual_texts,
    publish_shards,
    published,
    short_documents,
    write_tokenizer_file,
)

DOCUMENTS = short_documents(600)
TRAIN, HELD_OUT = DOCUMENTS[:550], DOCUMENTS[550:]


class Unreadable(Listed):
    """A corpus that must not be read again, because every part exists."""

    def read(self, part: int) -> Iterator[tuple[Split, Document]]:
        raise AssertionError(f"part {part} was encoded again")


def _workspace(place: Path) -> Path:
    """The folder where the shards at `place` look for parts. Uses the key of `publish_shards`."""
    workspace = place.with_name(f"{place.name}.work")
    workspace.mkdir(parents=True)
    (workspace / "key").write_text("key")
    return workspace


def test_shards_of_parts_by_three_ranks_are_those_of_one_process_and_encode_nothing_again(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    alone = publish_shards(tmp_path / "alone", make_job(tokenizer_file, TRAIN, HELD_OUT))
    job = make_job(tokenizer_file, TRAIN, HELD_OUT)
    workspace = _workspace(tmp_path / "ranks")
    text_bytes = sum(encode_parts(job.encode, workspace, rank, 3) for rank in (1, 2, 0))
    assert text_bytes == job.counts.text_bytes
    done = make_job(tokenizer_file, TRAIN, HELD_OUT, source=Unreadable(TRAIN, HELD_OUT))
    assert publish_shards(tmp_path / "ranks", done).digest == alone.digest


def test_parts_that_no_rank_encoded_are_encoded_by_the_shards_themselves(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    job = make_job(tokenizer_file, TRAIN, HELD_OUT)
    alone = publish_shards(tmp_path / "alone", job)
    encode_parts(job.encode, _workspace(tmp_path / "ranks"), 1, 3)
    assert publish_shards(tmp_path / "ranks", job).digest == alone.digest


def test_a_part_on_which_the_encoders_disagree_is_left_to_the_shards(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    other = write_tokenizer_file(
        tmp_path, texts=[" ".join(text.split()[::-1]) for text in manual_texts()[:9]]
    )
    # Stands for a tiktoken that differs where no text of TRAPS shows it: it has other merges.
    pieces = read_layout(other).pieces

    def load(reason: str | None) -> Tokenizer:
        tokenizer = Tokenizer.load(tokenizer_file, reason)
        return (
            tokenizer
            if reason
            else dataclasses.replace(tokenizer, _fast=build_fast_encoder(pieces), _pieces=pieces)
        )

    job = make_job(tokenizer_file, TRAIN, HELD_OUT, load=load)
    workspace = _workspace(tmp_path / "ranks")
    assert (
        sum(encode_parts(job.encode, workspace, rank, 2) for rank in range(2))
        < job.counts.text_bytes
    )
    honest = publish_shards(tmp_path / "honest", make_job(tokenizer_file, TRAIN, HELD_OUT))
    assert publish_shards(tmp_path / "ranks", job).digest == honest.digest


def test_the_local_executor_encodes_a_published_corpus(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    pack = make_pack(tmp_path, {"web": [(document.id, document.text) for document in TRAIN]})
    corpus = make_corpus(pack, tmp_path / "corpus")
    with publish(tmp_path / "tokenizer", "tokenizer", "key", {}) as staging:
        staging.path("tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    tokenizer = published(staging)
    exercises = make_exercises(corpus, tmp_path / "exercises", fraction=0.2)
    workspace = _workspace(tmp_path / "ranks")
    pipeline = encode_pipeline(
        corpus.place, exercises.place, tokenizer.place, 42, workspace, tasks=2
    )
    run_locally(pipeline, tmp_path / "logs", workers=2)
    assert sorted(path.name for path in workspace.glob("part-*")) == [
        "part-000000.npz",
        "part-000001.npz",
    ]
    made = []
    for place in (tmp_path / "ranks", tmp_path / "alone"):
        with publish(place, "shards", "key", {}) as staging:
            write_shards(
                corpus, exercises, tokenizer, ShardsConfig(), HostConfig(workers=1), 42, staging
            )
        made.append(published(staging).digest)
    assert made[0] == made[1]
