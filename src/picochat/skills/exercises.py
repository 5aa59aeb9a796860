"""The stage `exercises`: skill exercises as plain text, for the base stage to train on.

Everything comes from the SFT side: exercises contain no held-out number pair, word, fact, topic or
phrasing, and no eval wording. They spell every token that begins a word, held-out words apart. The
tokens of a held-out word may occur in other words ("gardens"), which is why spelling generalizes. A
held-out word that is a token of its own and begins no other word is spelled nowhere. The same
corpus, tokenizer, fraction and seed give the same bytes with any number of processes.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

from picochat.config import ExercisesConfig, HostConfig, RunConfig
from picochat.core.machine import usable_cores
from picochat.core.progress import Progress
from picochat.core.publish import Artifact, StagingFolder
from picochat.core.records import read_json, read_record, write_atomic, write_json
from picochat.core.workers import in_order
from picochat.data.corpus.reader import sample_train
from picochat.data.document_shards import (
    MANIFEST_NAME,
    DocumentShard,
    DocumentsManifest,
    ShardWriter,
    documents_manifest,
)
from picochat.facts import CorpusFacts, ExercisesFacts, facts_of
from picochat.skills import arithmetic, spelling
from picochat.skills.skill import seeded
from picochat.skills.skill_table import SKILLS

# Why exercises exist: a few hundred SFT rows do not teach a small model to copy digits and to split
# words into letters. Exercises among the text do, and SFT then teaches only how to answer
# (docs/decisions/0026).
PROSE_BYTES_PER_TOKEN = 3.5
EXERCISE_BYTES_PER_TOKEN = 1.6  # digits and spelled letters are tokens of their own
DOCUMENT_CHARS = 1_200
FILE_BYTES = 8_000_000
PARALLEL_BYTES = 2_000_000  # for less, starting processes takes longer than it saves
WORD_SAMPLE_BYTES = 20_000_000
WORD = re.compile(r"(?<![A-Za-z])[a-z]{3,10}(?![A-Za-z])")
# A token of the byte-level vocabulary that begins a word: a blank, written as this letter, and then
# letters. Tokens within words are learned from words.
WORD_TOKEN = re.compile("\u0120([a-z]{2,10})")
MOST_WORDS = 12_000
MADE_UP_WORDS = 2_000
NUMBERED_FRACTION = 0.2  # of the words in lines of spelled words


@dataclass(frozen=True)
class Material:
    """What exercises are made of: words of the SFT side, and questions with their replies."""

    words: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """One kind of document.

    weight: its fraction of the documents. write: returns one exercise with its line ends.
    """

    name: str
    weight: float
    write: Callable[[random.Random, Material], str]


def _sum(rng: random.Random, material: Material) -> str:
    prompt, reply = arithmetic.practise(rng)
    return f"{prompt}\n{reply}\n\n"


def _sum_line(rng: random.Random, material: Material) -> str:
    return arithmetic.drill(rng) + "\n"


def _table_line(rng: random.Random, material: Material) -> str:
    return ", ".join(arithmetic.table_fact(rng) for _ in range(8)) + ".\n"


def _spelling(rng: random.Random, material: Material) -> str:
    prompt, reply = spelling.practise(rng, rng.choice(material.words))
    return f"{prompt}\n{reply}\n\n"


def _spelling_line(rng: random.Random, material: Material) -> str:
    words = [rng.choice(material.words) for _ in range(8)]
    return (
        ", ".join(spelling.drill(word, rng.random() < NUMBERED_FRACTION) for word in words) + ".\n"
    )


def _question(rng: random.Random, material: Material) -> str:
    return rng.choice(material.questions)


KINDS: tuple[Kind, ...] = (
    # (name, weight, function). Lines of sums and words have no wording around them: they take few
    # tokens, and the effect depends on the number of exercises.
    Kind("sums", 0.12, _sum),
    Kind("sum_lines", 0.12, _sum_line),
    Kind("tables", 0.06, _table_line),
    Kind("spelling", 0.22, _spelling),
    Kind("spelled_words", 0.38, _spelling_line),
    Kind("told", 0.10, _question),
)


# ---- the stage -----------------------------------------------------------------------------------


def write_exercises(
    corpus: Artifact,
    tokenizer: Artifact,
    exercises: ExercisesConfig,
    host: HostConfig,
    seed: int,
    staging: StagingFolder,
) -> None:
    """Write document shards of exercises, documents.json, words.txt and sample.txt.

    Where the fraction is 0 there are no shards, and the text files are empty.
    """
    counts = facts_of(corpus, CorpusFacts)
    wanted = exercise_bytes(counts.train_text_bytes, exercises.fraction)
    words = practised_words(corpus, tokenizer, seed) if wanted else ()
    shards = write_documents(staging.folder, wanted, words, seed, host.workers or usable_cores())
    write_json(staging.path(MANIFEST_NAME), documents_manifest(shards, None))
    write_atomic(staging.path("words.txt"), "".join(f"{word}\n" for word in words).encode())
    write_atomic(staging.path("sample.txt"), sample_page(words, seed).encode() if wanted else b"")
    staging.facts = _facts(staging.folder, exercises).model_dump(mode="json")


def facts_from(files: Path, inputs: Mapping[str, Artifact], config: RunConfig) -> ExercisesFacts:
    """The facts of an `exercises` artifact from documents.json, words.txt and the settings."""
    return _facts(files, config.exercises)


def _facts(files: Path, exercises: ExercisesConfig) -> ExercisesFacts:
    # From documents.json and not from the shards, which most bundles do not contain.
    listed = read_record(DocumentsManifest, files / MANIFEST_NAME, "exercises")
    return ExercisesFacts(
        fraction_asked=exercises.fraction,
        documents=listed.documents,
        text_bytes=listed.text_bytes,
        words=len((files / "words.txt").read_text("utf-8").split()),
    )


def exercise_bytes(train_text_bytes: int, fraction: float) -> int:
    """Bytes of exercises that make about `fraction` of the training tokens.

    An estimate from typical bytes per token of prose and of exercises.
    """
    prose_tokens = train_text_bytes / PROSE_BYTES_PER_TOKEN
    return round(prose_tokens * fraction / (1 - fraction) * EXERCISE_BYTES_PER_TOKEN)


def practised_words(corpus: Artifact, tokenizer: Artifact, seed: int) -> tuple[str, ...]:
    """Common words of the training documents, tokens, and made-up words. None is held out."""
    text_bytes = facts_of(corpus, CorpusFacts).train_text_bytes
    fraction = min(1.0, WORD_SAMPLE_BYTES / max(1, text_bytes))
    texts = (document.text for document in sample_train(corpus, fraction, seed))
    return words_of_texts(texts, word_tokens(tokenizer.path("tokenizer.json")))


def word_tokens(path: Path) -> list[str]:
    """The tokens of a vocabulary that begin words, in the order in which they were learned."""
    vocabulary: dict[str, int] = read_json(path, "tokenizer")["model"]["vocab"]
    matches = map(WORD_TOKEN.fullmatch, sorted(vocabulary, key=vocabulary.__getitem__))
    return [match[1] for match in matches if match]


def words_of_texts(texts: Iterable[str], tokens: Iterable[str] = ()) -> tuple[str, ...]:
    """Words of 3 to 10 letters, the most frequent first, then tokens and made-up words.

    None is held out and none stands twice.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(WORD.findall(text))
    ranked = (
        word
        for word in sorted(counts, key=lambda word: (-counts[word], word))
        if spelling.is_practised(word)
    )
    real = dict.fromkeys(islice(ranked, MOST_WORDS))
    real.update(dict.fromkeys(token for token in tokens if spelling.is_practised(token)))
    return (*real, *islice(_made_up(set(counts) | set(real)), MADE_UP_WORDS))


def _made_up(known: set[str]) -> Iterator[str]:
    rng = seeded("practised made-up words")
    while True:
        word = spelling.made_up_word(rng)
        if word not in known and spelling.is_practised(word):
            known.add(word)
            yield word


# ---- documents -----------------------------------------------------------------------------------


def write_documents(
    folder: Path, wanted_bytes: int, words: tuple[str, ...], seed: int, workers: int
) -> list[DocumentShard]:
    """Write shards of FILE_BYTES each, for large amounts by several processes.

    The contents of a file depend on its number, not on the process that writes it.
    """
    sizes = [FILE_BYTES] * (wanted_bytes // FILE_BYTES)
    sizes += [rest] if (rest := wanted_bytes % FILE_BYTES) else []
    processes = workers if wanted_bytes >= PARALLEL_BYTES else 1
    shards: list[DocumentShard] = []
    with Progress("exercises", wanted_bytes, "bytes") as progress:
        written = in_order(
            partial(open_writer, folder, words, seed), list(enumerate(sizes)), processes
        )
        for size, shard in zip(sizes, written, strict=True):
            shards.append(shard)
            progress.advance(size)  # not the bytes written: the last document exceeds the size
    return shards


def open_writer(
    folder: Path, words: tuple[str, ...], seed: int
) -> Callable[[tuple[int, int]], DocumentShard]:
    """The function of one process. It writes the file of a task (number, bytes)."""
    return partial(_write_file, folder, Material(words, whole_questions(seed)), seed)


def _write_file(
    folder: Path, material: Material, seed: int, task: tuple[int, int]
) -> DocumentShard:
    number, size = task
    rng = seeded("practice", seed, number)
    # A shard of `size` documents never fills: a document has more than one byte.
    with ShardWriter(folder, size, first_shard=number) as writer:
        written = count = 0
        while written < size:
            text = write_document(rng, material)
            writer.add(f"exercises-{number:06d}-{count:06d}", text)
            written, count = written + len(text.encode()), count + 1
        shard = writer.complete()
        assert shard is not None, "at least one document was written"
        return shard.result()


def write_document(rng: random.Random, material: Material) -> str:
    """One document: exercises of one random kind, DOCUMENT_CHARS characters or a little more."""
    return _document(rng.choices(KINDS, [kind.weight for kind in KINDS])[0], rng, material)


def _document(kind: Kind, rng: random.Random, material: Material) -> str:
    exercises: list[str] = []
    length = 0
    while length < DOCUMENT_CHARS:
        exercises.append(kind.write(rng, material))
        length += len(exercises[-1])
    return "".join(exercises).rstrip()


@lru_cache
def whole_questions(seed: int) -> tuple[str, ...]:
    """Questions with replies, as in SFT, of the skills that state `exercise_questions`."""
    # The style changes nothing: skills whose replies have a working write exercises of their own.
    questions = [
        question
        for skill in SKILLS
        if skill.exercise_questions
        for question in skill.make(skill.exercise_questions, "sft", seed, "direct")
    ]
    return tuple(f"{question.prompt}\n{question.reply}\n\n" for question in questions)


def sample_page(words: tuple[str, ...], seed: int) -> str:
    """One document of each kind, for people to read."""
    material = Material(words, whole_questions(seed))
    return "\n".join(
        f"== {kind.name}\n\n{_document(kind, seeded('sample', seed), material)}\n" for kind in KINDS
    )
