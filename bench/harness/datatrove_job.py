"""The peer's side of bench/data.py: datatrove from parquet files to merged token files.

    python bench/harness/datatrove_job.py PARQUET_FOLDER TOKENIZER_JSON WORK_FOLDER MIN_CHARS
    split|spacy

By its own local executor, with its recipe for deduplication as its examples write it: exact
duplicates in three steps, MinHash in four, each a pipeline of its own over the same reader. Words
for MinHash are cut by `str.split`, or by spaCy, its default. All cores work; nothing is written
between the steps but what they need from each other.
"""

import os
import sys
from pathlib import Path

from datatrove.data import Document
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.exact_dedup import (
    ExactDedupConfig,
    ExactDedupFilter,
    ExactDedupSignature,
    ExactFindDedups,
)
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.filters.lambda_filter import LambdaFilter
from datatrove.pipeline.readers.parquet import ParquetReader
from datatrove.pipeline.tokens import DocumentTokenizer, DocumentTokenizerMerger
from datatrove.utils.text import TextNormConfig
from datatrove.utils.word_tokenizers import WordTokenizer

BANDS, BAND_HASHES = 21, 6  # what brings 99% of the pairs at similarity 0.8 together, as ours does


# datatrove reads the annotation to decide how the content is hashed: it must be an object, so this
# file does not import annotations from __future__.
def content_of(document: Document) -> str:
    return document.text


class SplitWords(WordTokenizer):
    """Words between blanks: faster than spaCy, and enough after punctuation was removed."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


def main(parquet: str, tokenizer: str, work: Path, min_chars: int, words: str) -> None:
    cores = len(os.sched_getaffinity(0))
    exact = ExactDedupConfig(content_getter=content_of)
    norm = TextNormConfig(norm_unicode_diacritics=False, norm_numbers=False)
    minhash = MinhashConfig(
        n_grams=5, num_buckets=BANDS, hashes_per_bucket=BAND_HASHES, norm_config=norm
    )

    def place(name: str) -> str:
        return str(work / name)

    def read() -> list[PipelineStep]:
        return [
            ParquetReader(parquet, read_metadata=False),
            LambdaFilter(lambda document: len(document.text) >= min_chars),
        ]

    def read_once() -> list[PipelineStep]:
        return [*read(), ExactDedupFilter(place("exact-found"), exact)]

    def run(name: str, tasks: int, *steps: PipelineStep) -> None:
        LocalPipelineExecutor(
            list(steps), tasks=tasks, workers=min(tasks, cores), logging_dir=place(f"logs/{name}")
        ).run()

    run("exact-1", cores, *read(), ExactDedupSignature(place("exact"), exact, finder_workers=cores))
    run("exact-2", cores, ExactFindDedups(place("exact"), place("exact-found"), exact))
    language = {"split": SplitWords(), "spacy": "eng"}[words]
    run(
        "minhash-1",
        cores,
        *read_once(),
        MinhashDedupSignature(place("signatures"), minhash, language=language),
    )
    run(
        "minhash-2", BANDS, MinhashDedupBuckets(place("signatures"), place("pairs"), config=minhash)
    )
    run("minhash-3", 1, MinhashDedupCluster(place("pairs"), place("remove"), config=minhash))
    encode = DocumentTokenizer(
        place("tokens"), tokenizer, eos_token="<|bos|>", shuffle_documents=False
    )
    run("tokens-1", cores, *read_once(), MinhashDedupFilter(place("remove")), encode)
    merge = DocumentTokenizerMerger(
        place("tokens"),
        place("merged"),
        "bench",
        max_tokens_per_file=100_000_000,
        shuffle=False,
        progress=False,
    )
    run("tokens-2", 1, merge)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
