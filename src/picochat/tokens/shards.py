"""Token shards: both splits of the corpus as little-endian uint16 on disk, exercises last.

bos stands before every document. A shard holds whole documents and ends with the one that reaches
`shard_tokens`. NAME.bin has the tokens, NAME.starts the index of each document's bos in the shard
(int64, little-endian), NAME.json counts, sha256 and tokenizer. Several processes encode parts of
the corpus (`encode`). They are joined here in order, so the bytes do not depend on which process
made a part, and memory does not grow with the corpus. Does not shuffle: `row_order` does.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from picochat.config import HostConfig, RunConfig, ShardsConfig
from picochat.core.errors import BadInput
from picochat.core.machine import usable_cores
from picochat.core.progress import Progress, say
from picochat.core.publish import Artifact, StagingFolder, remake
from picochat.core.records import (
    Record,
    digest_file,
    read_record,
    to_jsonable,
    write_atomic,
    write_json,
)
from picochat.core.workers import in_order
from picochat.data.corpus.reader import Split
from picochat.facts import CorpusFacts, ExercisesFacts, ShardsFacts, facts_of
from picochat.tokens.encode import (
    SPLITS,
    EncodedBatch,
    EncodeJob,
    EncodersDisagree,
    open_encoder,
    read_part,
    training_job,
)
from picochat.tokens.tokenizer import Tokenizer

TOKEN_BYTES = 2
DIFFERS = "tiktoken-differs.txt"
PARALLEL_BYTES = 20_000_000  # of text: below that, starting processes costs more than it saves
NO_EXERCISES = ExercisesFacts(fraction_asked=0.0, documents=0, text_bytes=0, words=0)


class ShardSidecar(Record):
    """NAME.json: describes one shard.

    tokens: bos included. text_bytes: UTF-8 bytes of the documents. tokenizer: digest of the
    tokenizer.json. roundtrip_*: documents that were decoded, and those that gave another text.
    """

    tokens: int
    documents: int
    text_bytes: int
    sha256: str
    tokenizer: str
    roundtrip_documents: int
    roundtrip_failures: int


# ---- writing -------------------------------------------------------------------------------------


class ShardWriter:
    """Writes one shard. `close` writes the sidecar last: a shard without one is not finished."""

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

    def close(self) -> None:
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

    def stop(self) -> None:
        """Close the files without finishing the shard."""
        self._bin.close()
        self._starts.close()


def write_split(
    folder: Path,
    split: Split,
    batches: Iterable[EncodedBatch],
    tokenizer: Tokenizer,
    shard_tokens: int,
) -> None:
    """Write the shards of one split into `folder`."""
    number = 0
    writer: ShardWriter | None = None
    try:
        for rest in batches:
            while len(rest.ends):
                writer = writer or ShardWriter(folder, f"{split}-{number:05d}", tokenizer)
                # The first document that fills the shard; past the end if none of the batch does.
                last = int(np.searchsorted(rest.ends, shard_tokens - writer.tokens))
                head, rest = rest.split(min(last + 1, len(rest.ends)))
                writer.add(head)
                if writer.tokens >= shard_tokens:
                    writer.close()
                    writer, number = None, number + 1
        if writer is not None:
            writer.close()
    finally:
        if writer is not None:
            writer.stop()


@dataclass(frozen=True)
class ShardsJob:
    """What is encoded, and how it becomes shards.

    counts, exercises: the facts of corpus and exercises, with which the shards must agree.
    """

    encode: EncodeJob
    counts: CorpusFacts
    shard_tokens: int
    workers: int
    exercises: ExercisesFacts = NO_EXERCISES


def encode_all(job: ShardsJob, folder: Path) -> str | None:
    """Encode all parts into `folder`; return why tiktoken does not encode, or None.

    Where tiktoken differs from `tokenizers` on a sampled document, `tokenizers` encodes all parts.
    """
    # Kept in a file, so that a resumed job does not mix the parts of two encoders.
    differs = folder / DIFFERS
    reason = differs.read_text() if differs.exists() else None
    parts = range(job.encode.source.parts)
    text_bytes = job.counts.text_bytes + job.exercises.text_bytes
    processes = job.workers if text_bytes >= PARALLEL_BYTES else 1
    try:
        with (
            Progress("encode", text_bytes, "bytes") as progress,
            closing(
                in_order(partial(open_encoder, job.encode, folder, reason), parts, processes)
            ) as encoded,
        ):
            for encoded_bytes in encoded:
                progress.advance(encoded_bytes)
    except EncodersDisagree as error:
        say(f"token shards: {error}; encoding again with tokenizers")
        for path in folder.glob("part-*"):
            path.unlink()
        write_atomic(differs, str(error).encode())
        return encode_all(job, folder)
    return reason


def facts_from(
    files: Path, inputs: Mapping[str, Artifact], config: RunConfig | None = None
) -> ShardsFacts:
    """Sums over the sidecars; the tokens of the exercises, which are the last documents."""
    exercises = facts_of(inputs["exercises"], ExercisesFacts)
    return _counted(files, exercises.documents)


def _counted(files: Path, exercise_documents: int) -> ShardsFacts:
    train, held_out = (
        [read_record(ShardSidecar, path, "shard") for path in sorted(files.glob(f"{split}-*.json"))]
        for split in SPLITS
    )
    return ShardsFacts(
        train_tokens=sum(shard.tokens for shard in train),
        held_out_tokens=sum(shard.tokens for shard in held_out),
        train_documents=sum(shard.documents for shard in train),
        held_out_documents=sum(shard.documents for shard in held_out),
        train_text_bytes=sum(shard.text_bytes for shard in train),
        held_out_text_bytes=sum(shard.text_bytes for shard in held_out),
        roundtrip_documents=sum(shard.roundtrip_documents for shard in (*train, *held_out)),
        roundtrip_failures=sum(shard.roundtrip_failures for shard in (*train, *held_out)),
        exercise_documents=exercise_documents,
        exercise_tokens=_tokens_of_last(files, exercise_documents),
    )


def _tokens_of_last(files: Path, documents: int) -> int:
    """Tokens of the last so many training documents, from the starts of all of them."""
    tokens = 0
    for path in sorted(files.glob("train-*.starts"), reverse=True):
        if not documents:
            break
        starts = np.fromfile(path, dtype="<i8")
        shard = read_record(ShardSidecar, path.with_suffix(".json"), "shard")
        taken = min(documents, len(starts))
        tokens += shard.tokens - int(starts[-taken]) if taken else 0
        documents -= taken
    return tokens


def require_whole(facts: ShardsFacts, counts: CorpusFacts, exercises: ExercisesFacts) -> None:
    """Raises BadInput where the shards have other documents than corpus and exercises state."""
    stated = {
        "train_documents": counts.train_documents + exercises.documents,
        "held_out_documents": counts.held_out_documents,
        "train_text_bytes": counts.train_text_bytes + exercises.text_bytes,
        "held_out_text_bytes": counts.held_out_text_bytes,
    }
    wrong = [
        f"{name} {getattr(facts, name)} of {count}"
        for name, count in stated.items()
        if getattr(facts, name) != count
    ]
    if wrong:
        raise BadInput(
            f"the corpus did not give what its manifest states: {', '.join(wrong)}",
            fix="this is a fault of picochat: report it",
        )


def write_all(job: ShardsJob, staging: StagingFolder) -> None:
    """Encode the parts of a job into the workspace, where a resumed job finds them; join them."""
    started = time.monotonic()
    reason = encode_all(job, staging.workspace)
    tokenizer = job.encode.load(reason)
    parts = range(job.encode.source.parts)
    for split in SPLITS:
        batches = (read_part(staging.workspace, part, split) for part in parts)
        write_split(staging.folder, split, batches, tokenizer, job.shard_tokens)
    facts = _counted(staging.folder, job.exercises.documents)
    require_whole(facts, job.counts, job.exercises)
    encoding = {
        "encoder": tokenizer.encoder,
        "encoder_note": tokenizer.encoder_note,
        "workers": job.workers,
        "wall_s": round(time.monotonic() - started, 3),
    }
    write_json(staging.volatile("encoding.json"), encoding)
    staging.facts = to_jsonable(facts)


def write_shards(
    corpus: Artifact,
    exercises: Artifact,
    tokenizer: Artifact,
    shards: ShardsConfig,
    host: HostConfig,
    seed: int,
    staging: StagingFolder,
) -> None:
    """Write both splits of the corpus, and the exercises, as token shards.

    encoding.json says which encoder was used and how long it took. It is a volatile file.
    """
    load = partial(Tokenizer.load, tokenizer.path("tokenizer.json"))
    job = ShardsJob(
        encode=training_job(corpus, exercises, load, seed),
        counts=facts_of(corpus, CorpusFacts),
        shard_tokens=shards.shard_tokens,
        workers=host.workers or usable_cores(),
        exercises=facts_of(exercises, ExercisesFacts),
    )
    write_all(job, staging)


# ---- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TokenStream:
    """All shards of a split as one stream, read from disk as needed.

    bounds[i]: first token of shard i. The last bound is the length of the stream.
    """

    parts: tuple[npt.NDArray[np.uint16], ...]
    bounds: tuple[int, ...]
    text_bytes: int

    def __len__(self) -> int:
        return self.bounds[-1]

    def slice(self, start: int, stop: int) -> npt.NDArray[np.uint16]:
        """Tokens [start, stop), also across shards. Raises IndexError outside the stream."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"tokens {start} to {stop} of a stream of {len(self)}")
        pieces: list[npt.NDArray[np.uint16]] = []
        for part, begin, end in zip(self.parts, self.bounds, self.bounds[1:], strict=False):
            if begin < stop and start < end:
                pieces.append(part[max(start, begin) - begin : min(stop, end) - begin])
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.uint16)

    def row_count(self, context: int) -> int:
        """Number of whole rows of context + 1 tokens. Neighbouring rows share one token.

        Fewer than `context` targets are left over at the end.
        """
        return max(0, len(self) - 1) // context

    def rows(self, indices: npt.ArrayLike, context: int) -> npt.NDArray[np.int64]:
        """(n, context + 1) tokens: row i is tokens[i * context : (i + 1) * context + 1]."""
        starts = np.asarray(indices, dtype=np.int64) * context
        owners = np.searchsorted(self.bounds, starts, side="right") - 1
        rows = np.empty((len(starts), context + 1), dtype=np.int64)
        for number, (start, owner) in enumerate(zip(starts.tolist(), owners.tolist(), strict=True)):
            first = start - self.bounds[owner]
            row = self.parts[owner][first : first + context + 1]
            # Only a row across shards needs `slice`, which looks at every shard.
            rows[number] = row if len(row) > context else self.slice(start, start + context + 1)
        return rows


@dataclass(frozen=True, eq=False)
class TokenShards:
    train: TokenStream
    held_out: TokenStream


def open_shards(shards: Artifact, *, check_digests: bool = False) -> TokenShards:
    """Both splits as streams. Raises BadInput where a shard has another size than stated.

    check_digests: also read every shard and compare its digest, some seconds for a gigabyte.
    """
    return TokenShards(*(_open_split(shards, split, check_digests) for split in SPLITS))


def _open_split(shards: Artifact, split: Split, check_digests: bool) -> TokenStream:
    names = sorted(
        name[: -len(".bin")]
        for name in shards.manifest.files
        if name.startswith(split) and name.endswith(".bin")
    )
    parts: list[npt.NDArray[np.uint16]] = []
    sidecars: list[ShardSidecar] = []
    for name in names:
        path = shards.path(f"{name}.bin")
        sidecar = read_record(ShardSidecar, shards.path(f"{name}.json"), "shard")
        problem = None
        if not path.exists() or path.stat().st_size != TOKEN_BYTES * sidecar.tokens:
            problem = f"does not hold the {sidecar.tokens} tokens that {name}.json states"
        elif check_digests and digest_file(path) != sidecar.sha256:
            problem = f"has changed since it was written: its digest is not that of {name}.json"
        if problem:
            raise BadInput(f"shard {path} {problem}", fix=remake(shards.place))
        # A plain array over the mapped memory: slicing an np.memmap takes ten times as long.
        parts.append(np.memmap(path, dtype="<u2", mode="r").view(np.ndarray))
        sidecars.append(sidecar)
    return TokenStream(
        parts=tuple(parts),
        bounds=(0, *accumulate(sidecar.tokens for sidecar in sidecars)),
        text_bytes=sum(sidecar.text_bytes for sidecar in sidecars),
    )
