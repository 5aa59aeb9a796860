from __future__ import annotations

import json
import os
import pydoc_data.topics
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from picochat.config import TokenizerConfig
from picochat.core.errors import BadInput, HostProblem
from picochat.core.publish import publish
from picochat.facts import CorpusFacts, TokenizerFacts, facts_of
from picochat.tokens import tokenizer as tokenizer_module
from picochat.tokens.bpe_trainer import SPECIALS, trained_here
from picochat.tokens.tokenizer import (
    DOCUMENT_MARK,
    LONGEST_TRAINED_WORD,
    TRAPS,
    Tokenizer,
    build_fast_encoder,
    facts_from,
    first_disagreement,
    in_sample,
    read_layout,
    train,
    train_tokenizer,
    trained_reference,
    without_long_words,
)
from picochat.tokens.train_process import train_in_a_process
from tests.data.builders import make_corpus, make_pack
from tests.tokens.builders import VOCAB_SIZE, manual_texts, published, write_tokenizer_file

MARKS = [*SPECIALS, DOCUMENT_MARK, "".join(SPECIALS), f"a{DOCUMENT_MARK}b"]


@pytest.fixture(scope="module")
def slow(tokenizer_file: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_file, "for the test")


def test_load_encodes_by_tiktoken(tokenizer: Tokenizer) -> None:
    assert (tokenizer.encoder, tokenizer.encoder_note) == ("tiktoken", None)


def test_a_known_reason_makes_tokenizers_encode_the_same_ids(
    tokenizer: Tokenizer, slow: Tokenizer
) -> None:
    assert (slow.encoder, slow.encoder_note) == ("tokenizers", "for the test")
    assert [slow.encode(text) for text in TRAPS] == [tokenizer.encode(text) for text in TRAPS]


def test_equal_texts_give_equal_bytes_whatever_the_threads(tmp_path: Path) -> None:
    script = (
        "import sys; from picochat.tokens.tokenizer import train; from pydoc_data.topics import"
        " topics;sys.stdout.buffer.write(train([text for _, text in sorted(topics.items())], 320))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "RAYON_NUM_THREADS": threads},
            capture_output=True,
            check=True,
        ).stdout
        for threads in ("1", "3")
    ]
    assert outputs[0] == outputs[1] == train(manual_texts(), 320)


def test_ids_are_specials_then_bytes_then_merges(
    tokenizer_file: Path, tokenizer: Tokenizer
) -> None:
    pieces = read_layout(tokenizer_file).pieces
    assert pieces[: len(SPECIALS)] == tuple(spelling.encode() for spelling in SPECIALS)
    assert sorted(pieces[len(SPECIALS) : len(SPECIALS) + 256]) == [
        bytes([byte]) for byte in range(256)
    ]
    assert all(len(piece) > 1 for piece in pieces[len(SPECIALS) + 256 :])
    assert (tokenizer.bos, tokenizer.pad, tokenizer.vocab_size) == (0, 5, VOCAB_SIZE)


def test_the_file_is_one_that_tokenizers_reads_to_the_same_ids(
    tokenizer_file: Path, tokenizer: Tokenizer
) -> None:
    stock = tokenizers.Tokenizer.from_file(str(tokenizer_file))
    for text in manual_texts()[:20]:
        assert stock.encode(text).ids == tokenizer.encode(text)
        assert stock.decode(tokenizer.encode(text)) == text


def test_too_little_text_is_refused_with_the_size_it_could_fill() -> None:
    with pytest.raises(
        BadInput, match=r"has \d+ merges, a vocabulary of 60000 needs 59736"
    ) as refused:
        train(manual_texts(), 60_000)
    assert refused.value.fix is not None
    offered = int(refused.value.fix.split("=")[1].split(";")[0])
    assert len(json.loads(train(manual_texts(), offered))["model"]["vocab"]) == offered
    assert TokenizerConfig(vocab_size=offered)


def test_a_few_words_are_refused_with_no_size_at_all() -> None:
    with pytest.raises(BadInput, match="has 2 merges") as refused:
        train(["aaa aaa"], 512)
    assert refused.value.fix == "add text"
    assert train(["aaa aaa", *manual_texts()], 512)


@given(st.text())
def test_every_text_decodes_to_itself(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text())
def test_both_encoders_give_the_same_ids(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.encode(text) == tokenizer.encode_by_reference(text)


def test_both_encoders_agree_on_real_text(tokenizer: Tokenizer, slow: Tokenizer) -> None:
    assert tokenizer.encode_many(manual_texts()) == slow.encode_many(manual_texts())


@pytest.mark.parametrize("mark", MARKS)
def test_text_never_yields_a_special(tokenizer: Tokenizer, slow: Tokenizer, mark: str) -> None:
    for each in (tokenizer, slow):
        assert min(each.encode(mark)) >= len(SPECIALS)
        assert each.decode(each.encode(mark)) == mark
        assert (
            np.flatnonzero(each.encode_documents([mark, "between", mark]) < len(SPECIALS)).size == 3
        )


def test_digits_stand_one_by_one(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("2024")) == 4
    assert tokenizer.token_bytes[tokenizer.encode("9" * 50)].tolist() == [1] * 50


@given(st.text())
def test_token_bytes_add_up_to_the_text(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.token_bytes[tokenizer.encode(text)].sum() == len(text.encode())


def test_specials_have_no_bytes_and_no_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.token_bytes[: len(SPECIALS)].tolist() == [0] * len(SPECIALS)
    assert tokenizer.decode([tokenizer.bos, *tokenizer.encode("x"), tokenizer.end]) == "x"


def test_half_a_character_decodes_to_its_bytes(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("é")[:1]
    assert tokenizer.decode_bytes(ids) == "é".encode()[:1]
    assert tokenizer.decode(ids) == "\ufffd"


@given(st.lists(st.text() | st.sampled_from(MARKS)))
def test_documents_are_their_ids_after_bos(
    tokenizer: Tokenizer, slow: Tokenizer, texts: list[str]
) -> None:
    expected = [token for text in texts for token in [tokenizer.bos, *tokenizer.encode(text)]]
    for each in (tokenizer, slow):
        assert each.encode_documents(texts).dtype == np.uint16
        assert each.encode_documents(texts).tolist() == expected


def test_a_million_blanks_are_encoded(tokenizer: Tokenizer) -> None:
    text = "a" + " " * 1_200_000 + "b"
    assert tokenizer.decode(tokenizer.encode_documents([text]).tolist()) == text


def test_lone_surrogates_become_replacement_characters(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"
    assert tokenizer.decode(tokenizer.encode("\ud83d\ude00")) == "😀"


def test_encoders_that_differ_are_found_out(tokenizer_file: Path, tmp_path: Path) -> None:
    other = write_tokenizer_file(
        tmp_path, VOCAB_SIZE, texts=[" ".join(text.split()[::-1]) for text in manual_texts()[:9]]
    )
    reference = tokenizers.Tokenizer.from_file(str(tokenizer_file))
    reference.encode_special_tokens = True
    note = first_disagreement(build_fast_encoder(read_layout(other).pieces), reference, TRAPS)
    assert note is not None
    assert "tiktoken gives" in note
    assert (
        first_disagreement(build_fast_encoder(read_layout(tokenizer_file).pieces), reference, TRAPS)
        is None
    )


def _swap_merges(tree: Any) -> None:
    merges = tree["model"]["merges"]
    merges[0], merges[1] = merges[1], merges[0]


FOREIGN: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("normalizer", lambda tree: tree.update(normalizer={"type": "NFC"})),
    ("pre_tokenizer", lambda tree: tree.update(pre_tokenizer={"type": "Whitespace"})),
    ("decoder", lambda tree: tree.update(decoder=None)),
    ("added_tokens", lambda tree: tree["added_tokens"].pop()),
    ("unk_token", lambda tree: tree["model"].update(unk_token="<unk>")),
    ("merges: not in the order", _swap_merges),
    ("256 bytes", lambda tree: tree["model"]["vocab"].update({"!!": 8, "!": 511})),
    ("a BPE model", lambda tree: tree.update(model={"type": "WordPiece"})),
    ("ids are not", lambda tree: tree["model"]["vocab"].update({"zz": 700})),
)


@pytest.mark.parametrize(("told", "change"), FOREIGN, ids=[told for told, _ in FOREIGN])
def test_load_refuses_what_picochat_did_not_make(
    tokenizer_file: Path, tmp_path: Path, told: str, change: Callable[[Any], Any]
) -> None:
    tree = json.loads(tokenizer_file.read_bytes())
    change(tree)
    foreign = tmp_path / "tokenizer.json"
    foreign.write_text(json.dumps(tree))
    with pytest.raises(BadInput, match="not one that picochat made") as refused:
        Tokenizer.load(foreign)
    assert told in " ".join(problem.what for problem in refused.value.problems)


def test_load_tells_all_problems_at_once(tmp_path: Path) -> None:
    foreign = tmp_path / "tokenizer.json"
    foreign.write_text("{}")
    with pytest.raises(BadInput) as refused:
        Tokenizer.load(foreign)
    assert len(refused.value.problems) >= 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "not json",
        '{"model": {"type": "BPE", "vocab": 3}}',
        '{"model": {"type": "BPE", "vocab": {"a": "b", "c": 1}, "merges": []}}',
    ],
)
def test_load_refuses_any_other_file_without_a_traceback(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(BadInput):
        Tokenizer.load(path)


def test_the_sample_is_judged_by_the_id_alone() -> None:
    chosen = {number for number in range(10_000) if in_sample(str(number), 0.3, 7, "test")}
    assert 2_700 < len(chosen) < 3_300
    assert chosen != {number for number in range(10_000) if in_sample(str(number), 0.3, 8, "test")}
    assert {n for n in range(10_000) if in_sample(str(n), 0.1, 7, "test")} < chosen
    assert all(in_sample(str(number), 1.0, 7, "test") for number in range(1_000))


def test_the_stage_trains_on_about_the_bytes_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [part for text in manual_texts() for part in text.split("\n\n") if part]
    pack = make_pack(
        tmp_path,
        {"manual": [(str(number), text) for number, text in enumerate(dict.fromkeys(parts))]},
    )
    corpus = make_corpus(pack, tmp_path / "corpus")
    whole = facts_of(corpus, CorpusFacts).train_text_bytes
    trained: list[int] = []

    def counted(texts: Iterable[str], vocab_size: int) -> bytes:
        texts = list(texts)
        trained.append(sum(len(text.encode()) for text in texts))
        return train(texts, vocab_size)

    monkeypatch.setattr(tokenizer_module, "train", counted)
    for number, fraction in enumerate((0.5, 2.0)):
        config = TokenizerConfig(vocab_size=320, train_bytes=round(fraction * whole))
        with publish(tmp_path / str(number), "tokenizer", "key", {}) as staging:
            train_tokenizer(corpus, config, 42, staging)
        artifact = published(staging)
        assert facts_of(artifact, TokenizerFacts) == TokenizerFacts(vocab_size=320, merges=56)
        assert facts_from(artifact.place, {}) == facts_of(artifact, TokenizerFacts)
        assert Tokenizer.load(artifact.path("tokenizer.json")).vocab_size == 320
        assert "generation" in artifact.path("chat_template.jinja").read_text()
    assert 0.4 * whole < trained[0] < 0.6 * whole
    assert trained[1] == whole


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Plain text, with a word_of_parts and 1234567890 digits.",
        "a" * 999 + " " + "b" * 999,
        pydoc_data.topics.topics["typesseq"],
    ],
)
def test_text_without_a_long_word_reaches_the_trainer_as_it_is(text: str) -> None:
    assert list(without_long_words(text)) == [text]


@pytest.mark.parametrize("sign", ["a", "=", "中", "\U0001f600", " ", "\n", "_", "\x1c="])
def test_a_long_word_is_cut_into_parts_that_the_trainer_can_take(sign: str) -> None:
    text = f"before {sign * 5_500} after"
    parts = list(without_long_words(text))
    assert "".join(parts) == text
    assert max(map(len, parts)) <= LONGEST_TRAINED_WORD + len("before ")


def test_a_megabyte_without_a_space_is_trained_on_in_seconds() -> None:
    # It took a quarter of an hour. The bound is not one of speed: the work must not be quadratic.
    letters = random.Random(0).choices("ACGT", k=1_000_000)
    started = time.monotonic()
    trained_reference(["".join(letters)], 400)
    assert time.monotonic() - started < 60


def test_training_in_a_process_gives_the_same_bytes() -> None:
    texts = list(pydoc_data.topics.topics.values())
    here = trained_here(texts, 1024).to_str(pretty=False)
    assert train_in_a_process(texts, 1024) == here
    assert tokenizers.Tokenizer.from_str(here).to_str(pretty=False) == here


@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("os.kill(os.getpid(), 9)", "was killed, most often because memory ran out"),
        ("os.abort()", "ended by SIGABRT: memory allocation failed"),
        ("raise MemoryError('no more')", "failed (1): MemoryError: no more"),
        ("sys.exit(3)", "failed (3): memory allocation failed"),
    ],
)
def test_how_the_training_process_ended_is_said(
    does: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for `tokenizers`, which the process imports first."""
    (tmp_path / "tokenizers.py").write_text(
        f"import os, sys\nprint('memory allocation failed', file=sys.stderr, flush=True)\n{does}\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    with pytest.raises(HostProblem) as caught:
        train_in_a_process(["a text"], 1024)
    assert says in caught.value.what
    assert "tokenizer.train_bytes" in str(caught.value.fix)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_training_of_a_tokenizer_at_once(number: signal.Signals) -> None:
    code = (
        "import os, random, signal, threading\n"
        "from picochat.tokens.tokenizer import trained_reference\n"
        "def words(n): return ''.join(random.Random(n).choices('abcdefghij', k=900))\n"
        "text = ' '.join(words(n) for n in range(3000))\n"
        "print('ready', flush=True)\n"
        "trained_reference([text], 60000)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    time.sleep(3)
    assert process.poll() is None, "it would train for a minute"
    process.send_signal(number)
    assert process.wait(timeout=10) != 0
    process.stdout.close()
