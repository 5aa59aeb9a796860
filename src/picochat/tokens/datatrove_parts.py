"""Encodes the parts of a corpus on several machines, as a datatrove pipeline.

    run_locally(encode_pipeline(corpus, exercises, tokenizer, seed=42, folder=..., tasks=16),
    "logs/encode", workers=4)

`folder` is the workspace of the future shards artifact. `write_shards` then finds the parts there,
encodes missing ones and joins all of them, so the shards are the same as without this module. Does
not join parts: one machine does.
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
    corpus: Path, exercises: Path, tokenizer: Path, seed: int, folder: Path, tasks: int
) -> list[RankStage]:
    """One stage that encodes every part of corpus and exercises into `folder`.

    corpus, exercises, tokenizer: folders of the artifacts. seed: the seed of the run.
    """
    return [
        stage(
            "encode",
            "bytes",
            partial(encode_corpus_parts, corpus, exercises, tokenizer, seed, folder),
            tasks,
        )
    ]


def encode_corpus_parts(
    corpus: Path, exercises: Path, tokenizer: Path, seed: int, folder: Path, rank: int, ranks: int
) -> int:
    """`encode_parts` over published artifacts. Raises BadInput where one of them is missing."""
    load = partial(Tokenizer.load, open_artifact(tokenizer, "tokenizer").path("tokenizer.json"))
    job = training_job(
        open_artifact(corpus, "corpus"), open_artifact(exercises, "exercises"), load, seed
    )
    return encode_parts(job, folder, rank, ranks)


def encode_parts(job: EncodeJob, folder: Path, rank: int, ranks: int) -> int:
    """Encode every `ranks`-th part from `rank` on; return the bytes of text in these parts.

    Does not encode a part again that exists. Leaves out a part on which the two encoders disagree:
    `write_shards` finds the disagreement again and encodes all parts with `tokenizers`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    encode = open_encoder(job, folder, None)
    mine = range(rank, job.source.parts, ranks)
    text_bytes = 0
    for part in track(mine, f"encode, rank {rank}", len(mine), "parts"):
        try:
            text_bytes += encode(part)
        except EncodersDisagree as error:
            say(f"part {part} is left to the shards stage: {error}")
    return text_bytes
