"""Token shards: both splits of the corpus as little-endian uint16 on disk, each document with bos before it.

A shard holds whole documents: it is closed by the first document that reaches `shard_tokens`. Beside NAME.bin stand
NAME.starts (int64, little-endian: where each document's bos lies in the shard) and NAME.json (counts, sha256, tokenizer).
Shards are written one by one, so a kill costs at most one, and memory does not grow with the corpus. Every document is
encoded once and its byte count checked; a seeded sample is decoded and compared in full, and encoded again by `tokenizers`.

Threads, not processes: one call encodes a whole batch outside the interpreter lock, so nothing is copied between processes
and nothing is left behind by an interrupt (docs/decisions/0006). Does not shuffle: order is `batches`' work.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from picochat.config import HostConfig, ShardsConfig
from picochat.core.errors import BadInput
from picochat.core.machine import usable_cores
from picochat.core.progress import Progress, say
from picochat.core.publish import Artifact, Draft, link_or_copy, remake
from picochat.core.records import Record, read_record, write_atomic, write_json
from picochat.rundir import CorpusFacts, ShardsFacts, facts_of
from picochat.tokens.tokenizer import Tokenizer, in_sample, without_surrogates

if TYPE_CHECKING:
    from picochat.data.documents import Document

Split = Literal["train", "held_out"]
SPLITS: tuple[Split, ...] = ("train", "held_out")
TOKEN_BYTES = 2
BATCH_CHARS = 500_000  # one encoder call: about 50 ms of a core
BATCHES_AHEAD = 2  # for each worker: enough to keep it busy, little enough to hold in memory
DIFFERS = "tiktoken-differs.txt"
SAMPLED_DOCUMENTS = 400  # expected; at least 200 of any corpus that has them


class ShardSidecar(Record):
    """What one shard holds. text_bytes: UTF-8 bytes of its documents; bos counts as a token and has no bytes."""

    tokens: int
    documents: int
    text_bytes: int
    sha256: str
    tokenizer: str
    roundtrip_documents: int
    roundtrip_failures: int


class EncodersDisagree(Exception):
    """A sampled document gave other ids in tiktoken than in tokenizers. Handled here, by encoding with the latter."""


# ---- encoding --------------------------------------------------------------------------------------------------------


class EncodedBatch(NamedTuple):
    """Whole documents in a row. The arrays after `tokens` have one entry for each document; the last two hold 0 or 1."""

    tokens: npt.NDArray[np.uint16]
    ends: npt.NDArray[np.int64]
    text_bytes: npt.NDArray[np.int64]
    sampled: npt.NDArray[np.int64]
    failed: npt.NDArray[np.int64]

    def starts(self) -> npt.NDArray[np.int64]:
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64)

    def split(self, documents: int) -> tuple[EncodedBatch, EncodedBatch]:
        """The first `documents` of them, and the rest."""
        cut = int(self.ends[documents - 1])
        counts = (self.text_bytes, self.sampled, self.failed)
        head = EncodedBatch(self.tokens[:cut], self.ends[:documents], *(array[:documents] for array in counts))
        rest = EncodedBatch(self.tokens[cut:], self.ends[documents:] - cut, *(array[documents:] for array in counts))
        return head, rest


def encode_batch(tokenizer: Tokenizer, documents: Sequence[Document], sampled: Callable[[str], bool]) -> EncodedBatch:
    """The documents' ids in a row, with the sampled ones decoded and compared.

    Raises EncodersDisagree where a sampled document has other ids by `tokenizers`.
    """
    texts = [without_surrogates(document.text) for document in documents]
    tokens = tokenizer.encode_documents(texts)
    starts = np.flatnonzero(tokens == tokenizer.bos)
    ends = np.append(starts[1:], len(tokens))
    text_bytes = np.array([len(text.encode()) for text in texts], dtype=np.int64)
    assert len(starts) == len(texts), "bos stands before each document and nowhere else"
    assert (np.add.reduceat(tokenizer.token_bytes[tokens], starts) == text_bytes).all(), "the encoder lost bytes"
    chosen = np.array([sampled(document.id) for document in documents], dtype=np.int64)
    failed = np.zeros(len(texts), dtype=np.int64)
    for index in np.flatnonzero(chosen).tolist():
        ids = tokens[starts[index] + 1 : ends[index]].tolist()
        if tokenizer.encoder == "tiktoken" and ids != tokenizer.encode_by_reference(texts[index]):
            raise EncodersDisagree(f"document {documents[index].id}: tiktoken and tokenizers give different ids")
        failed[index] = tokenizer.decode(ids) != documents[index].text
    return EncodedBatch(tokens, ends.astype(np.int64), text_bytes, chosen, failed)


def batches_of(documents: Iterable[Document], batch_chars: int) -> Iterator[list[Document]]:
    """The documents in groups of at most `batch_chars` characters; a longer one is a group of its own."""
    group: list[Document] = []
    chars = 0
    for document in documents:
        if group and chars + len(document.text) > batch_chars:
            yield group
            group, chars = [], 0
        group.append(document)
        chars += len(document.text)
    if group:
        yield group


def encoded_batches(
    groups: Iterable[list[Document]], encode: Callable[[list[Document]], EncodedBatch], workers: int
) -> Generator[EncodedBatch, None, None]:
    """The groups in their order, encoded by `workers` threads, with few of them in memory."""
    waiting: deque[Future[EncodedBatch]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="encode") as pool:
        try:
            for group in groups:
                waiting.append(pool.submit(encode, group))
                if len(waiting) > BATCHES_AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


# ---- writing ---------------------------------------------------------------------------------------------------------


class ShardWriter:
    """One shard in the making. `close` writes the sidecar last: a shard without one is not finished."""

    def __init__(self, folder: Path, name: str, tokenizer: Tokenizer) -> None:
        self.tokens = self.documents = self.text_bytes = self.sampled = self.failed = 0
        self._sidecar = folder / f"{name}.json"
        self._tokenizer = tokenizer.digest
        self._sha256 = hashlib.sha256()
        self._bin = (folder / f"{name}.bin").open("wb")
        self._starts = (folder / f"{name}.starts").open("wb")

    def add(self, batch: EncodedBatch) -> None:
        data = batch.tokens.astype("<u2").tobytes()
        self._sha256.update(data)
        self._bin.write(data)
        self._starts.write((batch.starts() + self.tokens).astype("<i8").tobytes())
        self.tokens += len(batch.tokens)
        self.documents += len(batch.ends)
        self.text_bytes += int(batch.text_bytes.sum())
        self.sampled += int(batch.sampled.sum())
        self.failed += int(batch.failed.sum())

    def close(self) -> ShardSidecar:
        self.stop()
        sidecar = ShardSidecar(
            tokens=self.tokens,
            documents=self.documents,
            text_bytes=self.text_bytes,
            sha256=self._sha256.hexdigest(),
            tokenizer=self._tokenizer,
            roundtrip_documents=self.sampled,
            roundtrip_failures=self.failed,
        )
        write_json(self._sidecar, sidecar)
        return sidecar

    def stop(self) -> None:
        """Close the files without finishing the shard."""
        self._bin.close()
        self._starts.close()


def write_split(
    folder: Path, split: Split, batches: Iterable[EncodedBatch], tokenizer: Tokenizer, shard_tokens: int, first: int
) -> list[ShardSidecar]:
    """The shards of one split from number `first` on, into `folder`."""
    written: list[ShardSidecar] = []
    writer: ShardWriter | None = None
    try:
        for batch in batches:
            rest = batch
            while len(rest.ends):
                writer = writer or ShardWriter(folder, shard_name(split, first + len(written)), tokenizer)
                closing_document = int(np.searchsorted(rest.ends, shard_tokens - writer.tokens))
                part, rest = rest.split(min(closing_document + 1, len(rest.ends)))
                writer.add(part)
                if writer.tokens >= shard_tokens:
                    written.append(writer.close())
                    writer = None
        if writer is not None:
            written.append(writer.close())
    finally:
        if writer is not None:
            writer.stop()
    return written


def shard_name(split: Split, number: int) -> str:
    return f"{split}-{number:05d}"


def finished_shards(folder: Path, split: Split) -> list[ShardSidecar]:
    """The shards that an earlier process finished, up to the first gap."""
    found: list[ShardSidecar] = []
    while (sidecar := folder / f"{shard_name(split, len(found))}.json").exists():
        found.append(read_record(ShardSidecar, sidecar, "shard"))
    return found


@dataclass(frozen=True)
class ShardsJob:
    """What both splits have in common.

    documents(split): a fresh stream of its documents, always in the same order.
    load(reason): the tokenizer; a reason makes it encode without tiktoken.
    """

    documents: Callable[[Split], Iterable[Document]]
    counts: CorpusFacts
    load: Callable[[str | None], Tokenizer]
    shard_tokens: int
    workers: int
    seed: int
    batch_chars: int = BATCH_CHARS

    def sampled(self, document_id: str) -> bool:
        return in_sample(document_id, SAMPLED_DOCUMENTS / max(1, self.counts.documents), self.seed, "round trip")


def encode_split(job: ShardsJob, split: Split, tokenizer: Tokenizer, folder: Path) -> list[ShardSidecar]:
    """All shards of a split, those that stand in `folder` from before included."""
    done = finished_shards(folder, split)
    text_bytes = job.counts.train_text_bytes if split == "train" else job.counts.held_out_text_bytes
    rest = islice(job.documents(split), sum(shard.documents for shard in done), None)

    def encode(documents: list[Document]) -> EncodedBatch:
        return encode_batch(tokenizer, documents, job.sampled)

    with Progress(f"token shards, {split}", text_bytes, "bytes") as progress:
        progress.start_at(sum(shard.text_bytes for shard in done))

        def shown(batches: Iterable[EncodedBatch]) -> Iterator[EncodedBatch]:
            for batch in batches:
                yield batch
                progress.advance(int(batch.text_bytes.sum()))

        with closing(encoded_batches(batches_of(rest, job.batch_chars), encode, job.workers)) as batches:
            return done + write_split(folder, split, shown(batches), tokenizer, job.shard_tokens, len(done))


def encode_all(job: ShardsJob, folder: Path) -> tuple[list[ShardSidecar], list[ShardSidecar], Tokenizer]:
    """The shards of both splits; made once more with `tokenizers` where tiktoken turns out to differ on this corpus."""
    differs = folder / DIFFERS  # outlives a kill, so that a resumed job does not mix encoders
    tokenizer = job.load(differs.read_text() if differs.exists() else None)
    try:
        train, held_out = (encode_split(job, split, tokenizer, folder) for split in SPLITS)
    except EncodersDisagree as error:
        say(f"token shards: {error}; encoding again with tokenizers")
        for sidecar in folder.glob("*.json"):
            sidecar.unlink()
        write_atomic(differs, str(error).encode())
        return encode_all(job, folder)
    return train, held_out, tokenizer


def shards_facts(train: Sequence[ShardSidecar], held_out: Sequence[ShardSidecar]) -> ShardsFacts:
    return ShardsFacts(
        train_tokens=sum(shard.tokens for shard in train),
        held_out_tokens=sum(shard.tokens for shard in held_out),
        train_documents=sum(shard.documents for shard in train),
        held_out_documents=sum(shard.documents for shard in held_out),
        train_text_bytes=sum(shard.text_bytes for shard in train),
        held_out_text_bytes=sum(shard.text_bytes for shard in held_out),
        roundtrip_documents=sum(shard.roundtrip_documents for shard in (*train, *held_out)),
        roundtrip_failures=sum(shard.roundtrip_failures for shard in (*train, *held_out)),
    )


def require_whole(facts: ShardsFacts, counts: CorpusFacts) -> None:
    """Raises BadInput where the corpus did not give the documents and bytes that its manifest states."""
    names = ("train_documents", "held_out_documents", "train_text_bytes", "held_out_text_bytes")
    wrong = [name for name in names if getattr(facts, name) != getattr(counts, name)]
    if wrong:
        found = ", ".join(f"{name} {getattr(facts, name)} of {getattr(counts, name)}" for name in wrong)
        raise BadInput(f"the corpus did not give what its manifest states: {found}", fix="build the corpus again")


def write_all(job: ShardsJob, draft: Draft) -> None:
    """`write_shards` for a job. Shards are made in the workspace, which outlives a kill, and linked into the draft."""
    started = time.monotonic()
    train, held_out, tokenizer = encode_all(job, draft.workspace)
    facts = shards_facts(train, held_out)
    require_whole(facts, job.counts)
    for path in sorted(draft.workspace.iterdir()):
        if path.suffix in (".bin", ".starts", ".json"):
            link_or_copy(path, draft.path(path.name))
    seen = {"encoder": tokenizer.encoder, "encoder_note": tokenizer.encoder_note, "workers": job.workers}
    write_json(draft.observation("encoding.json"), {**seen, "wall_s": round(time.monotonic() - started, 3)})
    draft.facts = facts.model_dump(mode="json")


def write_shards(
    corpus: Artifact, tokenizer: Artifact, shards: ShardsConfig, host: HostConfig, seed: int, draft: Draft
) -> None:
    """Both splits of the corpus as token shards; see the head of this file. The observation encoding.json has the pace."""
    from picochat.data.corpus_reader import read_split  # here: who only encodes does not load the readers of data files

    job = ShardsJob(
        documents=lambda split: read_split(corpus, split),
        counts=facts_of(corpus, CorpusFacts),
        load=lambda reason: Tokenizer.load(tokenizer.path("tokenizer.json"), reason),
        shard_tokens=shards.shard_tokens,
        workers=host.workers or usable_cores(),
        seed=seed,
    )
    write_all(job, draft)


# ---- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TokenStream:
    """All shards of a split as one stream, read from disk as needed. bounds[i]: where shard i begins; the last, the end."""

    parts: tuple[npt.NDArray[np.uint16], ...]
    bounds: tuple[int, ...]
    text_bytes: int
    starts_files: tuple[Path, ...]

    def __len__(self) -> int:
        return self.bounds[-1]

    def slice(self, start: int, stop: int) -> npt.NDArray[np.uint16]:
        """Tokens [start, stop), which may lie in several shards. Raises IndexError outside the stream."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"tokens {start} to {stop} of a stream of {len(self)}")
        pieces: list[npt.NDArray[np.uint16]] = []
        for part, begin, end in zip(self.parts, self.bounds, self.bounds[1:], strict=False):
            if begin < stop and start < end:
                pieces.append(part[max(start, begin) - begin : min(stop, end) - begin])
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.uint16)

    def row_count(self, context: int) -> int:
        """Whole rows of context + 1 tokens; each row's last token is the next row's first. The tail has < context targets."""
        return max(0, len(self) - 1) // context

    def rows(self, indices: npt.ArrayLike, context: int) -> npt.NDArray[np.int64]:
        """(n, context + 1): row i is tokens[i * context : i * context + context + 1]."""
        starts = np.asarray(indices, dtype=np.int64) * context
        owners = np.searchsorted(self.bounds, starts, side="right") - 1
        rows = np.empty((len(starts), context + 1), dtype=np.int64)
        for number, (start, owner) in enumerate(zip(starts.tolist(), owners.tolist(), strict=True)):
            inside = self.parts[owner][start - self.bounds[owner] : start - self.bounds[owner] + context + 1]
            rows[number] = inside if len(inside) == context + 1 else self.slice(start, start + context + 1)
        return rows

    def document_starts(self) -> npt.NDArray[np.int64]:
        """Where each document's bos stands in the stream; 8 bytes of memory a document."""
        starts = [np.fromfile(path, dtype="<i8") + begin for path, begin in zip(self.starts_files, self.bounds, strict=False)]
        return np.concatenate(starts).astype(np.int64) if starts else np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class TokenShards:
    train: TokenStream
    held_out: TokenStream


def open_shards(shards: Artifact) -> TokenShards:
    """Both splits as streams; reads the sidecars, and tokens only when asked. Raises BadInput where a shard is not whole."""
    return TokenShards(train=_open_split(shards, "train"), held_out=_open_split(shards, "held_out"))


def _open_split(shards: Artifact, split: Split) -> TokenStream:
    names = sorted(name[: -len(".bin")] for name in shards.manifest.files if name.startswith(split) and name.endswith(".bin"))
    parts: list[npt.NDArray[np.uint16]] = []
    sidecars: list[ShardSidecar] = []
    for name in names:
        path = shards.path(f"{name}.bin")
        sidecar = read_record(ShardSidecar, shards.path(f"{name}.json"), "shard")
        if not path.exists() or path.stat().st_size != TOKEN_BYTES * sidecar.tokens:
            raise BadInput(
                f"shard {path} does not hold the {sidecar.tokens} tokens that {name}.json states", fix=remake(shards.place)
            )
        # a plain array over the map: slicing np.memmap itself costs ten times as much
        parts.append(np.memmap(path, dtype="<u2", mode="r").view(np.ndarray))
        sidecars.append(sidecar)
    return TokenStream(
        parts=tuple(parts),
        bounds=(0, *accumulate(sidecar.tokens for sidecar in sidecars)),
        text_bytes=sum(sidecar.text_bytes for sidecar in sidecars),
        starts_files=tuple(shards.path(f"{name}.starts") for name in names),
    )
