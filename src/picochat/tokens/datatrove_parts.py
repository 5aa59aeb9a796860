"""Token shards on more than one machine: the parts of a corpus, encoded by ranks.

    run_locally(encode_pipeline(corpus, practice, tokenizer, seed=42, folder=..., tasks=16),
    "logs/encode", workers=4)

`folder` is the workspace of the shards artifact that is to be: `write_shards` then finds the parts
there, encodes those that are missing itself, and joins them as ever, so the shards are the same,
whoever encoded. Joining is one machine's work.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from picochat.core.progress import say, track
from picochat.core.publish import open_artifact
from picochat.data.datatrove_pipelines import RankStage, stage
from picochat.tokens.encode import EncodeJob, EncodersDisagree, open_encoder, training_job
from picochat.tokens.tokenizer import Tokenizer


def encode_pipeline(
    corpus: Path, practice: Path, tokenizer: Path, seed: int, folder: Path, tasks: int
) -> list[RankStage]:
    """One stage that encodes every part of corpus and practice into `folder`.

    The paths: their artifacts; seed: the run's.
    """
    return [
        stage(
            "encode",
            "bytes",
            partial(encode_corpus_share, corpus, practice, tokenizer, seed, folder),
            tasks,
        )
    ]


def encode_corpus_share(
    corpus: Path, practice: Path, tokenizer: Path, seed: int, folder: Path, rank: int, ranks: int
) -> int:
    """`encode_share` over published artifacts. Raises BadInput where one of them is missing."""
    load = partial(Tokenizer.load, open_artifact(tokenizer, "tokenizer").path("tokenizer.json"))
    job, _ = training_job(
        open_artifact(corpus, "corpus"), open_artifact(practice, "practice"), load, seed
    )
    return encode_share(job, folder, rank, ranks)


def encode_share(job: EncodeJob, folder: Path, rank: int, ranks: int) -> int:
    """Encodes every `ranks`-th part from `rank` on, where it does not stand yet; returns the bytes
    of text in this rank's parts.

    A part on which the two encoders disagree is left out: `write_shards` meets it again, and
    answers for all parts at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    encode = open_encoder(job, folder, None)
    mine = range(rank, job.source.parts, ranks)
    text_bytes = 0
    for part in track(mine, f"encode, rank {rank}", len(mine), "parts"):
        try:
            text_bytes += encode(part)
        except EncodersDisagree as error:
            say(f"part {part} is left to the shards: {error}")
    return text_bytes
