"""Text to ids: our encoder with threads against `tokenizers`' batch encoders on the same cores.

    python bench/encode.py --source FOLDER --megabytes 100
        [--cores 2] [--tokenizer tokenizer.json] [--quick]

The peer, tokenizers, is a dependency of picochat: nothing to install. The ids must be equal.

The tokenizer is trained on the first 20 MB of the text, or given. Ours:
`Tokenizer.encode_documents` (tiktoken, built from the same file) on batches of 500,000 characters,
one thread a core (`tokens/encode.py` calls it in processes, which also read). Peers:
`encode_batch_fast` and `encode_batch` with as many threads of their own, on batches ten times as
large, so that their threads seldom wait; `.ids` is within their time, making arrays of it is not.
Each runs over all documents `--rounds` times, and its best time counts. Every document's ids are
compared with both peers'; one that differs ends the benchmark.

Figures, in MB (10^6 bytes of UTF-8) a second of wall time on all cores: `encode_mb_per_second`
against `encode_batch_fast`, the faster peer, and `encode_mb_per_second_against_encode_batch`.
Reading and writing are left out.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from harness.figures import figure, say, table
from harness.text import find_documents, take_bytes

BATCH_CHARS = 500_000
PEER_BATCH_CHARS = 5_000_000
TRAIN_BYTES = 20_000_000
QUICK_MEGABYTES = 8.0
Ids = npt.NDArray[np.uint16]
T = TypeVar("T")


@dataclass(frozen=True)
class Timed:
    name: str
    wall_s: float
    cpu_s: float
    peak_rss_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path)
    parser.add_argument("--column", default="text")
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--quick", action="store_true", help=f"--megabytes {QUICK_MEGABYTES:g} --rounds 2"
    )
    flags = parser.parse_args()
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: flags.cores]))
    os.environ |= {
        "RAYON_NUM_THREADS": str(flags.cores),
        "TOKENIZERS_PARALLELISM": "true",
    }  # before the library starts its threads
    source, documents = find_documents(flags.source, flags.column)
    wanted = round((QUICK_MEGABYTES if flags.quick else flags.megabytes) * 1e6)
    copies, texts = zip(*take_bytes(documents, wanted), strict=True)
    text_mb = sum(len(text.encode()) for text in texts) / 1e6
    repeats = max(copies) + 1
    say(
        f"{text_mb:.1f} MB of {source}, {len(texts):,} documents, begun {repeats} times,"
        f" {flags.cores} cores"
    )
    compare(
        texts,
        text_mb,
        flags.tokenizer,
        flags.vocab_size,
        2 if flags.quick else flags.rounds,
        flags.cores,
        {"source": source, "repeats": repeats},
    )


def compare(
    texts: Sequence[str],
    text_mb: float,
    given: Path | None,
    vocab_size: int,
    rounds: int,
    cores: int,
    about: dict[str, object],
) -> None:
    from picochat.tokens.tokenizer import Tokenizer, needs_reference

    with tempfile.TemporaryDirectory() as folder:
        path = given or trained(texts, vocab_size, Path(folder))
        tokenizer = Tokenizer.load(path)
        import tokenizers

        peer = tokenizers.Tokenizer.from_file(str(path))
    peer.encode_special_tokens = True  # a special that is typed stays text, as in ours
    if tokenizer.encoder != "tiktoken":
        sys.exit(f"tiktoken does not encode here: {tokenizer.encoder_note}")
    groups = batches(texts, BATCH_CHARS)
    say(
        f"{sum(map(needs_reference, texts))} documents go to the slower encoder, for their long"
        " runs of blanks"
    )
    with ThreadPoolExecutor(cores) as pool:
        ours, tokens = timed(
            "picochat",
            lambda watch: watch.run(lambda: list(pool.map(tokenizer.encode_documents, groups))),
            rounds,
        )
    ids = np.concatenate(tokens)
    peer_groups = batches(texts, PEER_BATCH_CHARS)
    fast, fast_ids = timed(
        "encode_batch_fast",
        lambda watch: stream_of(peer.encode_batch_fast, peer_groups, tokenizer.bos, watch),
        rounds,
    )
    require_equal(ids, fast_ids)
    slow, slow_ids = timed(
        "encode_batch",
        lambda watch: stream_of(peer.encode_batch, peer_groups, tokenizer.bos, watch),
        rounds,
    )
    require_equal(ids, slow_ids)
    rows = [
        (
            each.name,
            each.wall_s,
            each.cpu_s,
            text_mb / each.wall_s,
            text_mb / each.cpu_s,
            each.peak_rss_mb,
        )
        for each in (ours, fast, slow)
    ]
    table(
        f"{text_mb:.1f} MB, ids equal in all {len(texts):,} documents",
        ("encoder", "wall s", "CPU s", "MB/s", "MB/CPU s", "RSS MB so far"),
        rows,
    )
    about |= {
        "text_mb": round(text_mb, 1),
        "documents": len(texts),
        "tokens": len(ids),
        "cores": cores,
        "vocab_size": tokenizer.vocab_size,
    }
    rate = text_mb / ours.wall_s
    figure(
        "encode_mb_per_second_against_encode_batch",
        rate,
        text_mb / slow.wall_s,
        "MB/s",
        ours.peak_rss_mb,
        **about,
    )
    figure("encode_mb_per_second", rate, text_mb / fast.wall_s, "MB/s", ours.peak_rss_mb, **about)


def trained(texts: Sequence[str], vocab_size: int, folder: Path) -> Path:
    from picochat.tokens.tokenizer import train

    sample: list[str] = []
    size = 0
    for text in texts:
        sample.append(text)
        size += len(text.encode())
        if size >= TRAIN_BYTES:
            break
    (folder / "tokenizer.json").write_bytes(train(sample, vocab_size))
    return folder / "tokenizer.json"


def batches(texts: Sequence[str], batch_chars: int) -> list[list[str]]:
    """The texts in groups of at most `batch_chars` characters; a longer one is its own group."""
    groups: list[list[str]] = [[]]
    chars = 0
    for text in texts:
        if groups[-1] and chars + len(text) > batch_chars:
            groups.append([])
            chars = 0
        groups[-1].append(text)
        chars += len(text)
    return groups


@dataclass
class Watch:
    """Wall and processor seconds of what is run under it."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    def run(self, work: Callable[[], T]) -> T:
        cpu, wall = time.process_time(), time.monotonic()
        found = work()
        self.wall_s += time.monotonic() - wall
        self.cpu_s += time.process_time() - cpu
        return found


def stream_of(
    encode: Callable[..., list[Any]], groups: list[list[str]], bos: int, watch: Watch
) -> Ids:
    """All ids of a peer in one stream, bos before each document, as ours has them."""
    parts: list[Ids] = []
    for group in groups:
        found = watch.run(
            lambda group=group: [each.ids for each in encode(group, add_special_tokens=False)]
        )
        parts += [np.array([bos, *ids], dtype=np.uint16) for ids in found]
    return np.concatenate(parts)


def timed(name: str, work: Callable[[Watch], T], rounds: int) -> tuple[Timed, T]:
    """The best of `rounds` runs by wall time, and what the last one gave."""
    watches = [Watch() for _ in range(rounds)]
    found = [work(watch) for watch in watches][-1]
    best = min(watches, key=lambda watch: watch.wall_s)
    return (
        Timed(
            name,
            best.wall_s,
            best.cpu_s,
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        ),
        found,
    )


def require_equal(ours: Ids, theirs: Ids) -> None:
    """Ends the benchmark where any id differs: a faster encoder of other ids is worth nothing."""
    if not np.array_equal(ours, theirs):
        sys.exit("the ids differ, so the times say nothing")


if __name__ == "__main__":
    main()
