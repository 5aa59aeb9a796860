"""The tokenizer: byte-level BPE in a standard `tokenizer.json`.

Ids: the special tokens from 0, then the 256 bytes, then one id for each merge, in merge order.
Encoding loses nothing, and no text encodes to a special token, even if it spells one. There is no
normalizer and no id for "unknown".

`tokenizers` trains and writes the file. `tiktoken`, built from the same file, gives the same ids
about nine times as fast (docs/decisions/0005). Every load compares both on difficult texts. Where
they differ, `tokenizers` encodes and `encoder_note` says why. `chat_format` and `shards` place the
special tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import tiktoken
import tokenizers
import xxhash

from picochat.config import RunConfig, TokenizerConfig
from picochat.core.errors import BadInput, Problem
from picochat.core.progress import Progress
from picochat.core.publish import Artifact, StagingFolder
from picochat.core.records import digest_bytes, read_json, to_jsonable
from picochat.facts import CorpusFacts, TokenizerFacts, facts_of
from picochat.tokens.bpe_trainer import SPECIALS, SPLIT_PATTERN, untrained
from picochat.tokens.train_process import train_in_a_process

BYTES = 256
ROUND_VOCAB_TO = 64  # for sizes that a message proposes: such matrix widths are fast everywhere
# Stands for bos inside tiktoken, so that one call encodes many documents: a call for each document
# costs about a fifth of the speed (docs/decisions/0005). A text that contains the mark is encoded
# by itself, so no text can produce a bos.
DOCUMENT_MARK = "\x00<|document|>\x00"
# At about a million blanks in a row, tiktoken's regular expression overflows its stack and panics.
LONG_BLANK = re.compile(r"\s{100000}")
LONG_BLANK_CHARS = 100_000
LONGEST_TRAINED_WORD = 1_000
"""Characters of a word, as SPLIT_PATTERN gives them, that the trainer sees in one piece."""
# Letters, signs or blanks: no word of the pattern mixes more than one character of another kind in.
# U+001C to U+001F are blanks to Python and signs to the trainer, so they count as both.
LONG_WORD = re.compile(r"[^\W\d_]{1000}|(?:[^\w\s]|[_\x1c-\x1f]){1000}|\s{1000}")

TokenIds = npt.NDArray[np.uint16]

TRAPS: tuple[str, ...] = (
    "",
    " ",
    "Hello, world! It's 2024; we'll pay $1,234.56 (or 78%).",
    "  leading and trailing blanks  ",
    "tabs\t\tand\n\n\nnewlines \n  \r\nand carriage\rreturns",
    "I'M SHE'LL they'd o'clock rock'n'roll 's 'T",
    "snake_case camelCase kebab-case a.b.c(d)[e]{f}\n    indented:\n\treturn x**2 != y  # comment",
    "naïve café Ångström e\u0301 \u00a0no-break\u2009thin \u3000wide",
    "中文没有空格，日本語もそうです。한국어는 있습니다",
    "Привет мир. Γειά σου. مرحبا بالعالم. שלום עולם. नमस्ते दुनिया",
    "½ ² Ⅷ ٣٤ १२ 12345678901234567890",
    "👩‍👩‍👧‍👦 🇩🇪 👍🏽 \u200b\ufeff\u202e",
    "<|bos|><|user|>typed<|end|> <|assistant|>",
    "control \x00\x01\x1b[0m \x7f \x85 \x1c\x1d",
    "".join(chr(code) for code in range(0x20, 0x250)),
    "unassigned \U000e0fff private \ue000 \uffff end",
)


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Text to ids and back. Made by `load`; safe to share between threads.

    digest: sha256 of the tokenizer.json. encoder_note: why `tokenizers` encodes, where it does.
    """

    vocab_size: int
    digest: str
    encoder_note: str | None
    _pieces: tuple[bytes, ...]
    _fast: tiktoken.Encoding | None
    _reference: tokenizers.Tokenizer

    bos: ClassVar[int] = SPECIALS.index("<|bos|>")
    system: ClassVar[int] = SPECIALS.index("<|system|>")
    user: ClassVar[int] = SPECIALS.index("<|user|>")
    assistant: ClassVar[int] = SPECIALS.index("<|assistant|>")
    end: ClassVar[int] = SPECIALS.index("<|end|>")
    pad: ClassVar[int] = SPECIALS.index("<|pad|>")

    @staticmethod
    def load(path: Path, not_tiktoken: str | None = None) -> Tokenizer:
        """The tokenizer of a tokenizer.json that picochat made.

        not_tiktoken: a reason to encode with `tokenizers`. Raises BadInput that lists every
        difference from a file that picochat writes.
        """
        layout = read_layout(path)
        reference = tokenizers.Tokenizer.from_str(json.dumps(layout.tree))
        reference.encode_special_tokens = True  # text that spells a special token stays text
        fast = build_fast_encoder(layout.pieces)
        note = not_tiktoken or first_disagreement(fast, reference, TRAPS)
        return Tokenizer(
            vocab_size=len(layout.pieces),
            digest=layout.digest,
            encoder_note=note,
            _pieces=layout.pieces,
            _fast=None if note else fast,
            _reference=reference,
        )

    @property
    def encoder(self) -> Literal["tiktoken", "tokenizers"]:
        return "tokenizers" if self._fast is None else "tiktoken"

    @cached_property
    def token_bytes(self) -> npt.NDArray[np.int32]:
        """(V,) number of bytes of text that each id stands for; 0 for special tokens."""
        counts = np.array([len(piece) for piece in self._pieces], dtype=np.int32)
        counts[: len(SPECIALS)] = 0
        return counts

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without special tokens. Lone surrogates become U+FFFD."""
        text = without_surrogates(text)
        if self._fast is None or needs_reference(text):
            return self.encode_by_reference(text)
        return self._fast.encode_ordinary(text)

    def encode_many(self, texts: Iterable[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def encode_by_reference(self, text: str) -> list[int]:
        """The ids that `tokenizers` gives: the reference for tiktoken."""
        return self._reference.encode(without_surrogates(text), add_special_tokens=False).ids

    def encode_documents(self, texts: Sequence[str]) -> TokenIds:
        """One stream: bos, ids, bos, ids, ... bos stands before each document and nowhere else."""
        clean = [without_surrogates(text) for text in texts]
        if self._fast is None:
            encodings = self._reference.encode_batch_fast(clean, add_special_tokens=False)
            return self._join([encoding.ids for encoding in encodings])
        if any(DOCUMENT_MARK in text or needs_reference(text) for text in clean):
            return self._join([self.encode(text) for text in clean])
        # The call holds no interpreter lock, so other threads can run meanwhile.
        marked = "".join(DOCUMENT_MARK + text for text in clean)
        ids = self._fast.encode_to_numpy(
            marked, allowed_special={DOCUMENT_MARK}, disallowed_special=()
        )
        return ids.astype(np.uint16)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the ids; special tokens have none."""
        return b"".join(self._pieces[token] for token in ids if token >= len(SPECIALS))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids, without special tokens. Invalid UTF-8 becomes U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def _join(self, documents: Sequence[Sequence[int]]) -> TokenIds:
        parts = [np.array([self.bos, *ids], dtype=np.uint16) for ids in documents]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint16)


def needs_reference(text: str) -> bool:
    """Whether the text has so many blanks in a row that tiktoken might overflow (LONG_BLANK)."""
    return len(text) >= LONG_BLANK_CHARS and LONG_BLANK.search(text) is not None


def without_surrogates(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates, invalid in UTF-8, as U+FFFD."""
    try:
        text.encode("utf-8")  # the fast path: almost no text has a surrogate
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def build_fast_encoder(pieces: Sequence[bytes]) -> tiktoken.Encoding:
    """A tiktoken encoder that gives the same ids."""
    # tiktoken merges the pair of the lowest rank first, `tokenizers` the pair that was merged first
    # in training. Ids are in merge order, so an id is its own rank.
    ranks = {piece: token for token, piece in enumerate(pieces) if token >= len(SPECIALS)}
    return tiktoken.Encoding(
        "picochat",
        pat_str=SPLIT_PATTERN,
        mergeable_ranks=ranks,
        special_tokens={DOCUMENT_MARK: Tokenizer.bos},
    )


def first_disagreement(
    fast: tiktoken.Encoding, reference: tokenizers.Tokenizer, texts: Iterable[str]
) -> str | None:
    """A message about the first text on which the two encoders differ; None if they agree."""
    for text in texts:
        ours = fast.encode_ordinary(text)
        theirs = reference.encode(text, add_special_tokens=False).ids
        if ours != theirs:
            return (
                f"tiktoken gives {len(ours)} ids, tokenizers {len(theirs)} other ids, for"
                f" {text[:40]!r}"
            )
    return None


# ---- reading the file ----------------------------------------------------------------------------


class Layout(NamedTuple):
    """A checked tokenizer.json. pieces[id]: its bytes; for a special token its spelling."""

    tree: dict[str, Any]
    pieces: tuple[bytes, ...]
    digest: str


def read_layout(path: Path) -> Layout:
    """Read and check the file. Raises BadInput with every difference from what `train` writes."""
    tree = read_json(path, "tokenizer")
    problems = [Problem("the file is not a JSON object")]
    if isinstance(tree, dict):
        problems = list(_layout_problems(tree))
    if problems:
        raise BadInput(
            f"tokenizer {path} is not one that picochat made",
            problems=problems,
            fix="name the tokenizer.json of a picochat run",
        )
    letters = byte_letters()
    vocab: dict[str, int] = tree["model"]["vocab"]
    pieces = [b""] * len(vocab)
    for spelling, token in vocab.items():
        is_special = token < len(SPECIALS)
        pieces[token] = spelling.encode() if is_special else bytes(letters[c] for c in spelling)
    return Layout(tree, tuple(pieces), digest_bytes(path.read_bytes()))


def _layout_problems(tree: dict[str, Any]) -> Iterator[Problem]:
    ours = json.loads(untrained().to_str())
    keys = ("normalizer", "pre_tokenizer", "decoder", "post_processor", "truncation", "padding")
    for key in keys:
        if tree.get(key) != ours[key]:
            yield Problem(
                f"{key}: found {json.dumps(tree.get(key))[:80]}, picochat writes"
                f" {json.dumps(ours[key])[:80]}"
            )
    added = tree.get("added_tokens")
    named = {}
    if isinstance(added, list):
        named = {item.get("content"): item.get("id") for item in added if isinstance(item, dict)}
    if named != {spelling: token for token, spelling in enumerate(SPECIALS)}:
        yield Problem(
            f"added_tokens: found {sorted(map(str, named))[:12]}, needed {list(SPECIALS)} with ids"
            " from 0"
        )
    model = tree.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE":
        yield Problem("model: a BPE model is needed")
        return
    off = ("dropout", "unk_token", "byte_fallback", "ignore_merges", "continuing_subword_prefix")
    if any(model.get(key) for key in off):
        yield Problem(
            "model: dropout, unk_token, byte_fallback, ignore_merges and prefixes must be off"
        )
    yield from _vocabulary_problems(model.get("vocab"), model.get("merges"))


def _vocabulary_problems(vocab: Any, merges: Any) -> Iterator[Problem]:
    if (
        not isinstance(vocab, dict)
        or not isinstance(merges, list)
        or not all(type(token) is int for token in vocab.values())
    ):
        yield Problem("model: vocab (spelling -> id) or merges are missing")
        return
    first_merge = len(SPECIALS) + BYTES
    spelled = sorted(vocab, key=lambda spelling: vocab[spelling])
    if [vocab[spelling] for spelling in spelled] != list(range(len(vocab))) or len(vocab) > 1 << 16:
        yield Problem(
            f"model.vocab: {len(vocab)} entries whose ids are not 0 to {len(vocab) - 1}, at most"
            " 65535"
        )
    if tuple(spelled[: len(SPECIALS)]) != SPECIALS:
        yield Problem("model.vocab: the special tokens do not have the first ids")
    if set(spelled[len(SPECIALS) : first_merge]) != set(byte_letters()):
        yield Problem("model.vocab: the 256 bytes do not follow the special tokens")
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in merges):
        yield Problem("model.merges: pairs are needed")
    elif ["".join(pair) for pair in merges] != spelled[first_merge:]:
        # tiktoken ranks by id, so the two encoders would merge in different orders.
        yield Problem("model.merges: not in the order of their ids")


def byte_letters() -> dict[str, int]:
    """Letter -> byte, for the letters that spell bytes in a byte-level vocabulary.

    As in GPT-2: printable Latin-1 stands for itself, the other bytes take code points from 256 up.
    """
    itself = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(BYTES) if byte not in itself]
    letters = {chr(byte): byte for byte in itself}
    letters.update({chr(BYTES + number): byte for number, byte in enumerate(others)})
    return letters


# ---- training ------------------------------------------------------------------------------------


def train(texts: Iterable[str], vocab_size: int) -> bytes:
    """The tokenizer.json of the texts. Equal texts give equal bytes, on any number of threads.

    Raises BadInput where the texts have too few merges for `vocab_size`, and proposes a size.
    """
    tokenizer = trained_reference(texts, vocab_size)
    found = tokenizer.get_vocab_size()
    if found < vocab_size:
        without_merges = len(SPECIALS) + BYTES
        proposed = found // ROUND_VOCAB_TO * ROUND_VOCAB_TO
        raise BadInput(
            f"the text has {found - without_merges} merges, a vocabulary of {vocab_size} needs"
            f" {vocab_size - without_merges}",
            fix=f"--set tokenizer.vocab_size={proposed}; or add text"
            if proposed > without_merges
            else "add text",
        )
    return (tokenizer.to_str(pretty=False) + "\n").encode()


def trained_reference(texts: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    """A tokenizer with up to `vocab_size` ids: fewer where the texts have fewer merges."""
    parts = (part for text in texts for part in without_long_words(without_surrogates(text)))
    return tokenizers.Tokenizer.from_str(train_in_a_process(parts, vocab_size))


def without_long_words(text: str) -> Iterator[str]:
    """The text in parts, cut wherever a word gets LONGEST_TRAINED_WORD characters long.

    For training alone: the time of the trainer grows with the square of a word's length, so one
    unbroken megabyte of DNA took a quarter of an hour. Text without such a word is one part.
    """
    start = 0
    if len(text) >= LONGEST_TRAINED_WORD:
        for long in LONG_WORD.finditer(text):
            yield text[start : long.end()]
            start = long.end()
    if start < len(text) or not text:
        yield text[start:]


def in_sample(document_id: str, fraction: float, seed: int, purpose: str) -> bool:
    """Whether a document belongs to the seeded sample of about this fraction of all documents.

    Depends on its own id, not on other documents. The samples of two purposes are independent.
    """
    return xxhash.xxh64_intdigest(f"{purpose}:{seed}:{document_id}".encode()) < fraction * 2.0**64


def _counted(texts: Iterable[str], progress: Progress) -> Iterator[str]:
    for text in texts:
        yield text
        progress.advance(len(text.encode("utf-8", "replace")))


def chat_template() -> str:
    """The Jinja template of the chat format; `{% generation %}` encloses what is trained on."""
    return Path(__file__).with_name("chat_template.jinja").read_text(encoding="utf-8")


# ---- the stage -----------------------------------------------------------------------------------


def train_tokenizer(
    corpus: Artifact, tokenizer: TokenizerConfig, seed: int, staging: StagingFolder
) -> None:
    """Write tokenizer.json and chat_template.jinja, trained on a sample of the training documents.

    The seeded sample has about `train_bytes` bytes of text.
    """
    # Imported here, because encoding needs no reader of data files.
    from picochat.data.corpus.reader import sample_train

    text_bytes = facts_of(corpus, CorpusFacts).train_text_bytes
    fraction = min(1.0, tokenizer.train_bytes / max(1, text_bytes))
    with Progress("tokenizer", fraction * text_bytes, "bytes") as progress:
        texts = (document.text for document in sample_train(corpus, fraction, seed))
        data = train(_counted(texts, progress), tokenizer.vocab_size)
    staging.path("tokenizer.json").write_bytes(data)
    staging.path("chat_template.jinja").write_text(chat_template(), encoding="utf-8")
    staging.facts = to_jsonable(facts_from(staging.folder, {"corpus": corpus}))


def facts_from(
    files: Path, inputs: Mapping[str, Artifact], config: RunConfig | None = None
) -> TokenizerFacts:
    """Sizes from tokenizer.json. inputs and config are not used."""
    size = Tokenizer.load(files / "tokenizer.json").vocab_size
    return TokenizerFacts(vocab_size=size, merges=size - len(SPECIALS) - BYTES)
