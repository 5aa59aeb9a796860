from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picochat.config import DataConfig, HostConfig, ShardsConfig
from picochat.core.errors import BadInput
from picochat.core.publish import publish
from picochat.data.corpus.reader import Split, read_split
from picochat.data.documents import Document
from picochat.facts import ShardsFacts, facts_of
from picochat.tokens.encode import CorpusParts, EncodersDisagree, batches_of, encode_batch, row_runs
from picochat.tokens.shards import (
    NO_EXERCISES,
    ShardSidecar,
    ShardsJob,
    TokenShards,
    facts_from,
    open_shards,
    write_all,
    write_shards,
)
from picochat.tokens.tokenizer import Tokenizer, build_fast_encoder, read_layout
from tests.data.builders import make_corpus, make_pack
from tests.tokens.builders import (
    VOCAB_SIZE,
    Listed,
    Written,
    make_exercises,
    make_job,
    manual_texts,
    publish_shards,
    published,
    short_documents,
    write_tokenizer_file,
)

DOCUMENTS = short_documents(1_500)
TRAIN, HELD_OUT = DOCUMENTS[:1_400], DOCUMENTS[1_400:]


def stream_of(tokenizer: Tokenizer, documents: Sequence[Written]) -> list[int]:
    """The expected stream of these documents."""
    return [
        token
        for document in documents
        for token in [tokenizer.bos, *tokenizer.encode_by_reference(document.text)]
    ]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> TokenShards:
    return open_shards(
        publish_shards(
            tmp_path_factory.mktemp("run") / "shards", make_job(tokenizer_file, TRAIN, HELD_OUT)
        )
    )


def test_each_split_is_its_documents_in_order_with_bos_before_each(
    shards: TokenShards, tokenizer: Tokenizer
) -> None:
    for stream, documents in ((shards.train, TRAIN), (shards.held_out, HELD_OUT)):
        assert stream.slice(0, len(stream)).tolist() == stream_of(tokenizer, documents)
        assert stream.text_bytes == sum(len(document.text.encode()) for document in documents)


def test_the_bytes_depend_neither_on_the_workers_nor_on_the_parts(
    tmp_path: Path, tokenizer_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("picochat.tokens.shards.PARALLEL_BYTES", 0)
    digests = {
        publish_shards(
            tmp_path / f"{workers}-{size}",
            make_job(
                tokenizer_file,
                TRAIN,
                HELD_OUT,
                source=Listed(TRAIN, HELD_OUT, size),
                workers=workers,
            ),
        ).digest
        for workers, size in ((1, 100), (2, 100), (1, 1), (1, 7_777))
    }
    assert len(digests) == 1


def test_a_shard_holds_whole_documents_and_closes_when_it_is_full(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    artifact = publish_shards(
        tmp_path / "shards", make_job(tokenizer_file, TRAIN, shard_tokens=2_000)
    )
    names = sorted(name for name in artifact.manifest.files if name.endswith(".bin"))
    assert len(names) > 10
    for name in names:
        tokens = np.fromfile(artifact.path(name), dtype="<u2")
        sidecar = ShardSidecar.model_validate_json(
            artifact.path(name.replace(".bin", ".json")).read_bytes()
        )
        assert tokens[0] == Tokenizer.bos
        assert len(tokens) == sidecar.tokens
        assert sidecar.sha256 == artifact.manifest.files[name].sha256
        last_document = len(tokens) - np.flatnonzero(tokens == Tokenizer.bos)[-1]
        assert len(tokens) - last_document < 2_000
        assert len(tokens) >= 2_000 or name == names[-1]


def test_starts_are_where_bos_stands(tmp_path: Path, tokenizer_file: Path) -> None:
    artifact = publish_shards(tmp_path / "shards", make_job(tokenizer_file, TRAIN, HELD_OUT))
    train, files = open_shards(artifact).train, sorted(artifact.place.glob("train-*.starts"))
    assert len(files) == len(train.parts) > 1
    starts = np.concatenate(
        [np.fromfile(path, "<i8") + begin for path, begin in zip(files, train.bounds, strict=False)]
    )
    assert starts.tolist() == np.flatnonzero(train.slice(0, len(train)) == Tokenizer.bos).tolist()
    assert len(starts) == len(TRAIN)


def test_facts_count_what_is_there(
    tmp_path: Path, tokenizer_file: Path, tokenizer: Tokenizer
) -> None:
    artifact = publish_shards(tmp_path / "shards", make_job(tokenizer_file, TRAIN, HELD_OUT))
    facts = facts_of(artifact, ShardsFacts)
    for path in artifact.place.glob("*.bin"):
        path.unlink()  # a bundle may leave them out
    with publish(tmp_path / "exercises", "exercises", "key", {}) as none:
        none.facts = NO_EXERCISES.model_dump(mode="json")
    assert facts_from(artifact.place, {"exercises": published(none)}) == facts
    assert facts.train_tokens == len(stream_of(tokenizer, TRAIN))
    assert facts.held_out_tokens == len(stream_of(tokenizer, HELD_OUT))
    assert (facts.train_documents, facts.held_out_documents) == (1_400, 100)
    assert 200 <= facts.roundtrip_documents < 600
    assert facts.roundtrip_failures == 0


def test_a_small_corpus_is_compared_whole(tmp_path: Path, tokenizer_file: Path) -> None:
    facts = facts_of(
        publish_shards(tmp_path / "shards", make_job(tokenizer_file, TRAIN[:90], HELD_OUT[:9])),
        ShardsFacts,
    )
    assert facts.roundtrip_documents == 99


def test_a_document_that_does_not_come_back_is_counted(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    broken = [*TRAIN[:9], Written("broken", "half a pair: \ud800")]
    job = make_job(tokenizer_file, broken)
    whole = sum(len(document.text.encode()) for document in TRAIN[:9]) + len(
        "half a pair: \ufffd".encode()
    )
    job = dataclasses.replace(job, counts=job.counts.model_copy(update={"train_text_bytes": whole}))
    assert facts_of(publish_shards(tmp_path / "shards", job), ShardsFacts).roundtrip_failures == 1


def test_a_split_may_be_empty(tmp_path: Path, tokenizer_file: Path) -> None:
    opened = open_shards(publish_shards(tmp_path / "shards", make_job(tokenizer_file, TRAIN[:9])))
    assert len(opened.held_out) == 0
    assert opened.held_out.row_count(8) == 0
    assert opened.held_out.slice(0, 0).tolist() == []
    assert opened.held_out.rows([], 8).shape == (0, 9)


# ---- interruptions and differences ---------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Interrupted(Listed):
    """A source that Ctrl-C interrupts at one part."""

    def read(self, part: int) -> Iterator[tuple[Split, Document]]:
        if part == 9:
            raise KeyboardInterrupt
        return super().read(part)


@dataclasses.dataclass(frozen=True)
class PassedOver(Listed):
    """The same source, with other texts in the parts that must not be encoded again."""

    def read(self, part: int) -> Iterator[tuple[Split, Document]]:
        for split, document in super().read(part):
            yield (
                split,
                dataclasses.replace(document, text="encoded again") if part < 9 else document,
            )


def test_a_killed_job_resumes_to_the_same_bytes(tmp_path: Path, tokenizer_file: Path) -> None:
    job = make_job(tokenizer_file, TRAIN, HELD_OUT, shard_tokens=3_000)
    whole = publish_shards(tmp_path / "whole", job)
    place = tmp_path / "resumed"

    def reading(source: Listed) -> ShardsJob:
        return dataclasses.replace(job, encode=dataclasses.replace(job.encode, source=source))

    with pytest.raises(KeyboardInterrupt):
        publish_shards(place, reading(Interrupted(TRAIN, HELD_OUT)))
    assert not place.exists()
    assert publish_shards(place, reading(PassedOver(TRAIN, HELD_OUT))).digest == whole.digest
    assert not place.with_name("resumed.work").exists()


def test_where_encoders_differ_tokenizers_encodes_and_the_reason_is_kept(
    tmp_path: Path, tokenizer_file: Path, tokenizer: Tokenizer
) -> None:
    other = write_tokenizer_file(
        tmp_path, VOCAB_SIZE, texts=[" ".join(text.split()[::-1]) for text in manual_texts()[:9]]
    )
    # Stands for a tiktoken that differs where no text of TRAPS shows it: it has other merges.
    pieces = read_layout(other).pieces
    differing = dataclasses.replace(tokenizer, _fast=build_fast_encoder(pieces), _pieces=pieces)
    with pytest.raises(EncodersDisagree):
        encode_batch(differing, TRAIN[:50], lambda _: True)
    job = make_job(
        tokenizer_file,
        TRAIN,
        HELD_OUT,
        load=lambda reason: Tokenizer.load(tokenizer_file, reason) if reason else differing,
    )
    artifact = publish_shards(tmp_path / "shards", job)
    seen = json.loads(artifact.path("encoding.json").read_text())
    assert seen["encoder"] == "tokenizers"
    assert "different ids" in seen["encoder_note"]
    assert (
        artifact.digest
        == publish_shards(tmp_path / "plain", make_job(tokenizer_file, TRAIN, HELD_OUT)).digest
    )


def test_a_corpus_that_gives_less_than_it_states_is_refused(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    job = make_job(tokenizer_file, TRAIN, HELD_OUT)
    with pytest.raises(BadInput, match="held_out_documents 99 of 100"):
        publish_shards(
            tmp_path / "shards",
            dataclasses.replace(
                job, encode=dataclasses.replace(job.encode, source=Listed(TRAIN, HELD_OUT[1:]))
            ),
        )
    assert not (tmp_path / "shards").exists()


def test_a_cut_shard_is_refused(tmp_path: Path, tokenizer_file: Path) -> None:
    artifact = publish_shards(tmp_path / "shards", make_job(tokenizer_file, TRAIN[:50]))
    path = artifact.path("train-00000.bin")
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-2])
    with pytest.raises(BadInput, match=r"does not hold the \d+ tokens"):
        open_shards(artifact)


def test_a_shard_with_another_digest_is_refused_before_anything_is_built_on_it(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    artifact = publish_shards(tmp_path / "shards", make_job(tokenizer_file, TRAIN[:50]))
    path = artifact.path("train-00000.bin")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.unlink()
    path.write_bytes(bytes(data))
    open_shards(artifact)  # looks at sizes alone
    with pytest.raises(
        BadInput, match=r"train-00000\.bin has changed since it was written"
    ) as caught:
        open_shards(artifact, check_digests=True)
    assert caught.value.fix


def test_the_pace_stays_out_of_the_digest(tmp_path: Path, tokenizer_file: Path) -> None:
    with publish(tmp_path / "shards", "shards", "key", {}) as staging:
        write_all(make_job(tokenizer_file, TRAIN[:50]), staging)
    assert staging.artifact is not None
    assert list(staging.artifact.manifest.volatile_files) == ["encoding.json"]


def test_batches_keep_the_order_and_are_bounded() -> None:
    documents = [
        Written(str(number), "x" * size) for number, size in enumerate([9, 50, 1, 100, 0, 5])
    ]
    groups = list(batches_of(documents, 50))
    assert [document for group in groups for document in group] == documents
    assert all(
        len(group) == 1 or sum(len(document.text) for document in group) <= 50 for group in groups
    )
    assert list(batches_of([], 50)) == []


@given(
    files=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3_000)), max_size=12),
    run_bytes=st.integers(1, 5_000),
)
def test_runs_hold_every_row_once_in_order_and_about_as_much_text(
    files: list[tuple[int, int]], run_bytes: int
) -> None:
    runs = row_runs(files, run_bytes)
    rows = [
        (file, row) for each in runs for file, start, stop in each for row in range(start, stop)
    ]
    assert rows == [(file, row) for file, (count, _) in enumerate(files) for row in range(count)]
    means = [max(1, size // max(1, count)) for count, size in files]
    for each in runs:
        held = sum((stop - start) * means[file] for file, start, stop in each)
        assert held <= max(run_bytes, *means)


def test_parts_of_a_corpus_are_its_two_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("picochat.tokens.encode.PART_TEXT_BYTES", 3_000)
    texts = {
        "web": manual_texts()[:12],
        "books": [document.text for document in short_documents(130)],
    }
    sources = {
        label: [(str(n), text) for n, text in enumerate(found)] for label, found in texts.items()
    }
    pack = make_pack(tmp_path, sources, books={"weight": 1.5})
    corpus = make_corpus(pack, tmp_path / "corpus", DataConfig(held_out_fraction=0.1))
    source = CorpusParts(corpus)
    assert source.parts > 5
    found = [each for part in range(source.parts) for each in source.read(part)]
    for split in ("train", "held_out"):
        assert [document for of, document in found if of == split] == list(
            read_split(corpus, split)
        )


def test_exercises_come_after_the_corpus_and_leave_its_tokens_as_they_were(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    pack = make_pack(tmp_path, {"web": [(document.id, document.text) for document in TRAIN]})
    corpus = make_corpus(pack, tmp_path / "corpus")
    with publish(tmp_path / "tokenizer", "tokenizer", "key", {}) as staging:
        staging.path("tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    opened: list[TokenShards] = []
    facts: list[ShardsFacts] = []
    for fraction in (0.0, 0.2):
        exercises = make_exercises(corpus, tmp_path / f"exercises {fraction}", fraction)
        with publish(tmp_path / f"shards {fraction}", "shards", "key", {}) as made:
            write_shards(
                corpus,
                exercises,
                published(staging),
                ShardsConfig(),
                HostConfig(workers=1),
                42,
                made,
            )
        opened.append(open_shards(published(made)))
        facts.append(facts_of(published(made), ShardsFacts))
    (without, with_exercises), (plain, practised) = opened, facts
    assert (plain.exercise_documents, plain.exercise_tokens) == (0, 0)
    assert practised.exercise_tokens == practised.train_tokens - plain.train_tokens > 0
    assert facts_from(published(made).place, {"exercises": exercises}) == practised
    assert practised.exercise_documents == practised.train_documents - plain.train_documents > 0
    corpus_tokens = without.train.slice(0, len(without.train))
    assert (with_exercises.train.slice(0, len(without.train)) == corpus_tokens).all()
    held_out = without.held_out.slice(0, len(without.held_out))
    assert (with_exercises.held_out.slice(0, len(with_exercises.held_out)) == held_out).all()


# ---- reading -------------------------------------------------------------------------------------


@given(data=st.data())
def test_any_slice_is_that_of_the_joined_shards(
    shards: TokenShards, tokenizer: Tokenizer, data: st.DataObject
) -> None:
    stream = shards.train
    assert len(stream.parts) > 3
    start = data.draw(st.integers(0, len(stream)))
    stop = data.draw(st.integers(start, len(stream)))
    assert np.array_equal(stream.slice(start, stop), np.concatenate(stream.parts)[start:stop])


def test_slices_outside_the_stream_are_refused(shards: TokenShards) -> None:
    for start, stop in ((-1, 3), (5, 4), (0, len(shards.train) + 1)):
        with pytest.raises(IndexError):
            shards.train.slice(start, stop)


def test_a_row_has_its_context_and_the_target_of_its_last_token(shards: TokenShards) -> None:
    rows = shards.train.rows(np.arange(shards.train.row_count(64)), 64)
    tokens = np.concatenate(shards.train.parts)
    assert rows.dtype == np.int64
    assert rows.shape == ((len(tokens) - 1) // 64, 65)
    assert np.array_equal(rows[:, 1:].ravel(), tokens[1 : 1 + rows[:, 1:].size])
    assert np.array_equal(rows[1:, 0], rows[:-1, -1])
    assert len(tokens) - 1 - rows[:, 1:].size < 64
