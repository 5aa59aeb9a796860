from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from picochat.config import HostConfig, PracticeConfig
from picochat.core.publish import Artifact, publish
from picochat.data.documents import read_documents
from picochat.facts import CorpusFacts, PracticeFacts, facts_of
from picochat.honesty.normalize import words_of
from picochat.skills import arithmetic, choice, identity, practice, refusal, spelling
from picochat.skills.mixture import SKILLS
from picochat.skills.question import side_of
from picochat.skills.topics import BENIGN_QUESTIONS, BENIGN_WISHES, PRIVATE, UNKNOWABLE, UNSAFE
from tests.data.builders import make_corpus, make_pack
from tests.tokens.builders import make_practice, manual_texts

SIGNS = {"+": "add", "-": "subtract", "x": "multiply"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("corpus")
    return make_corpus(
        make_pack(folder, {"web": [(str(n), text) for n, text in enumerate(manual_texts())]}),
        folder / "made",
    )


@pytest.fixture(scope="module")
def sheets() -> list[str]:
    """About 2.5 MB of practice over the words of real text and all words of the list: more than
    most runs have.
    """
    words = practice.words_of_texts(
        [*manual_texts(), " ".join((*spelling.WORDS, *spelling.pseudo_words())) + "."]
    )
    rng, material = practice.seeded("practice", 7, 0), practice.Material(words, practice.told(7))
    return [practice.write_sheet(rng, material) for _ in range(2_000)]


def test_no_held_out_number_pair_is_practised(sheets: list[str]) -> None:
    held_out = {
        entry.item for stage in arithmetic.STAGES for entry in arithmetic.sums_of("eval", stage)
    }
    stated: set[str] = set()
    for a, sign, b in re.findall(r"(?<![\d+x-])(\d+) ?([+x-]) ?(\d+)", "\n".join(sheets)):
        larger, smaller = (a, b) if sign == "-" else sorted((a, b), key=int, reverse=True)
        stated.add(f"math:{SIGNS[sign]}:{larger}:{smaller}")
    stories = re.findall(
        r"(?:has|had|are|owns|up) (\d+) \w+[^\n]*?(?:away|out|lost|drops|\.) (\d+)",
        "\n".join(sheets),
    )
    stated |= {f"math:subtract:{a}:{b}" for a, b in stories}
    assert len(held_out) > 1_500
    assert len(stated) > 3_000
    assert len(stories) > 300
    assert stated.isdisjoint(held_out)


def test_no_held_out_word_is_spelled(sheets: list[str]) -> None:
    held_out = {
        word
        for word in (*spelling.WORDS, *spelling.pseudo_words())
        if not spelling.is_practised(word)
    }
    spelled = {
        re.sub(r"[\d ]", "", letters)
        for letters in re.findall(r" is ((?:[a-z]\d* )+[a-z]\d*)[,.]", "\n".join(sheets))
    }
    assert len(held_out) > 300
    assert len(spelled) > 2_000
    assert spelled.isdisjoint(held_out)


def test_no_held_out_fact_topic_or_phrasing_is_practised(sheets: list[str]) -> None:
    text = " ".join(" ".join(words_of(sheet)) for sheet in sheets)
    asked = [
        entry.text
        for entry in identity.all_asked()
        if side_of(entry.item, identity.HELD_OUT_SHARE) == "eval"
    ]
    facts = [
        fact for fact in choice.all_facts() if side_of(fact.item, choice.HELD_OUT_SHARE) == "eval"
    ]
    questions = [
        wording.format(x=fact.subject) for fact in facts for wording in fact.relation.sft_wordings
    ]
    stages = {"unsafe": UNSAFE, "private": PRIVATE, "unknowable": UNKNOWABLE}
    stages |= {
        "benign_wish": [topic for topic, _ in BENIGN_WISHES],
        "benign_question": [topic for topic, _ in BENIGN_QUESTIONS],
    }
    topics = [
        topic
        for stage, found in stages.items()
        for topic in found
        if side_of(f"refusal:{stage}:{topic}", refusal.HELD_OUT_SHARE) == "eval"
    ]
    for phrases, fewest in ((questions, 150), (topics, 80)):
        held_out = [" ".join(words_of(phrase)) for phrase in phrases]
        assert len(held_out) > fewest
        assert [
            phrase for phrase in held_out if len(phrase.split()) > 3 and f" {phrase} " in text
        ] == []
    # One phrasing may stand inside another ("How big are you?" in "Compared to others, how big are
    # you?"), so whole lines.
    lines = {line for sheet in sheets for line in sheet.splitlines()}
    assert len(asked) > 150
    assert lines.isdisjoint(
        opener + phrasing for phrasing in asked for opener in identity.OPENERS["sft"]
    )


def test_no_eval_wording_is_used(sheets: list[str]) -> None:
    prompts = {
        question.prompt for skill in SKILLS for question in skill.make(60, "eval", 3, "direct")
    }
    lines = {line for sheet in sheets for line in sheet.splitlines()}
    assert prompts.isdisjoint(lines)
    asked = "\n".join(sorted(lines))
    wordings = [*arithmetic.STORIES["eval"]]
    for table in (arithmetic.WORDINGS["eval"], spelling.WORDINGS["eval"]):
        wordings += [wording for found in table.values() for wording in found]
    for wording in wordings:
        pattern = "^" + re.sub(r"\\{\w+\\}", r"\\w+", re.escape(wording)) + "$"
        assert not re.search(pattern, asked, re.MULTILINE), wording


def test_every_kind_of_sheet_is_there_in_its_share(sheets: list[str]) -> None:
    assert sum(kind.weight for kind in practice.KINDS) == pytest.approx(1)
    spelled = sum(bool(re.match(r"\w+ is \w ", sheet)) for sheet in sheets) / len(sheets)
    lines = sum(bool(re.match(r"\d+ [+x-] \d+: ", sheet)) for sheet in sheets) / len(sheets)
    shares = {kind.name: kind.weight for kind in practice.KINDS}
    assert lines == pytest.approx(shares["sum_lines"], abs=0.03)
    assert spelled == pytest.approx(
        (1 - practice.NUMBERED_SHARE) * shares["spelled_words"], abs=0.03
    )


def test_a_file_follows_from_seed_and_number_whoever_writes_it_and_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = practice.words_of_texts(manual_texts()[:20])
    monkeypatch.setattr(practice, "FILE_BYTES", 20_000)
    made = practice.write_sheets(tmp_path / "made", 50_000, words, 42, workers=1)
    other = practice.write_sheets(tmp_path / "other", 50_000, words, 43, workers=1)
    write = practice.open_writer(tmp_path / "late", words, 42)
    assert [write((number, size)) for number, size in ((2, 10_000), (0, 20_000))] == [
        made[2],
        made[0],
    ]
    assert len({shard.sha256 for shard in (*made, *other)}) == 6


def test_the_stage_writes_what_its_facts_state(tmp_path: Path, corpus: Artifact) -> None:
    made = make_practice(corpus, tmp_path / "practice", share=0.1)
    facts = facts_of(made, PracticeFacts)
    documents = list(read_documents(made.place, "practice"))
    assert len(documents) == facts.documents == len({document.id for document in documents})
    assert sum(len(document.text.encode()) for document in documents) == facts.text_bytes
    wanted = practice.practice_bytes(facts_of(corpus, CorpusFacts).train_text_bytes, 0.1)
    assert wanted <= facts.text_bytes < wanted + 2 * practice.SHEET_CHARS
    assert len(made.path("words.txt").read_text().splitlines()) == facts.words
    assert "== sum_lines" in made.path("sample.txt").read_text()


def test_without_a_share_there_is_no_practice(tmp_path: Path, corpus: Artifact) -> None:
    made = make_practice(corpus, tmp_path / "practice")
    assert facts_of(made, PracticeFacts) == PracticeFacts(
        share_asked=0.0, documents=0, text_bytes=0, words=0
    )
    assert list(read_documents(made.place, "practice")) == []
    assert json.loads(made.path("documents.json").read_text())["shards"] == []
    with publish(tmp_path / "again", "practice", "key", {}) as draft:
        practice.write_practice(corpus, PracticeConfig(), HostConfig(workers=2), 7, draft)
    assert draft.artifact
    assert draft.artifact.digest == made.digest, "no seed changes nothing"


def test_words_come_by_how_often_they_stand_and_none_is_held_out() -> None:
    words = practice.words_of_texts(["apples apples oranges Oranges x ab apples! oranges pears"])
    real = [word for word in ("apples", "oranges", "pears") if spelling.is_practised(word)]
    assert list(words[: len(real)]) == real
    assert len(words) == len(real) + practice.MADE_UP_WORDS == len(set(words))
    assert all(spelling.is_practised(word) for word in words)
