from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from picochat.config import ExercisesConfig, HostConfig
from picochat.core.publish import Artifact, publish
from picochat.data.documents import read_documents
from picochat.facts import CorpusFacts, ExercisesFacts, facts_of
from picochat.honesty.normalize import words_of
from picochat.skills import arithmetic, choice, exercises, identity, refusal, spelling
from picochat.skills.skill import seeded, side_of
from picochat.skills.skill_table import SKILLS
from tests.builders import make_config
from tests.data.builders import make_corpus, make_pack
from tests.skills.test_arithmetic import value_of
from tests.tokens.builders import make_exercises, make_tokenizer, manual_texts

SIGNS = {"+": "add", "-": "subtract", "x": "multiply"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("corpus")
    return make_corpus(
        make_pack(folder, {"web": [(str(n), text) for n, text in enumerate(manual_texts())]}),
        folder / "made",
    )


@pytest.fixture(scope="module")
def documents() -> list[str]:
    """About 2.5 MB of exercises, over words of real text and all words of the spelling skill."""
    words = exercises.words_of_texts(
        [*manual_texts(), " ".join((*spelling.data().words, *spelling.made_up_words())) + "."]
    )
    rng, material = (
        seeded("practice", 7, 0),
        exercises.Material(words, exercises.whole_questions(7)),
    )
    return [exercises.write_document(rng, material) for _ in range(2_000)]


def test_no_held_out_number_pair_is_practised(documents: list[str]) -> None:
    held_out = {
        entry.item for kind in arithmetic.KINDS for entry in arithmetic.sums_of("eval", kind)
    }
    stated: set[str] = set()
    for a, sign, b in re.findall(r"(?<![\d+x-])(\d+) ?([+x-]) ?(\d+)", "\n".join(documents)):
        larger, smaller = (a, b) if sign == "-" else sorted((a, b), key=int, reverse=True)
        stated.add(f"math:{SIGNS[sign]}:{larger}:{smaller}")
    stories = re.findall(
        r"(?:has|had|are|owns|up) (\d+) \w+[^\n]*?(?:away|out|lost|drops|\.) (\d+)",
        "\n".join(documents),
    )
    stated |= {f"math:subtract:{a}:{b}" for a, b in stories}
    assert len(held_out) > 1_500
    assert len(stated) > 3_000
    assert len(stories) > 300
    assert stated.isdisjoint(held_out)


def test_no_held_out_word_is_spelled(documents: list[str]) -> None:
    held_out = {
        word
        for word in (*spelling.data().words, *spelling.made_up_words())
        if not spelling.is_practised(word)
    }
    spelled = {
        re.sub(r"[\d ]", "", letters)
        for letters in re.findall(r" is ((?:[a-z]\d* )+[a-z]\d*)[,.]", "\n".join(documents))
    }
    assert len(held_out) > 300
    assert len(spelled) > 2_000
    assert spelled.isdisjoint(held_out)


def test_no_held_out_fact_topic_or_phrasing_is_practised(documents: list[str]) -> None:
    practised = " ".join(" ".join(words_of(text)) for text in documents)
    asked = [way.text for way in identity.ways_to_ask("eval")]
    facts = [
        fact
        for fact in choice.all_facts()
        if side_of(fact.item, choice.HELD_OUT_FRACTION) == "eval"
    ]
    questions = [
        wording.format(x=fact.subject) for fact in facts for wording in fact.relation.wordings.sft
    ]
    topics = [topic for kind in refusal.KINDS for topic in refusal.topics_of_side(kind, "eval")]
    for phrases, fewest in ((questions, 150), (topics, 80)):
        held_out = [" ".join(words_of(phrase)) for phrase in phrases]
        assert len(held_out) > fewest
        assert [
            phrase for phrase in held_out if len(phrase.split()) > 3 and f" {phrase} " in practised
        ] == []
    # One phrasing may stand inside another ("How big are you?" in "Compared to others, how big are
    # you?"), so whole lines.
    lines = {line for text in documents for line in text.splitlines()}
    assert len(asked) > 150
    assert lines.isdisjoint(
        f"{opener} {phrasing}".strip() for phrasing in asked for opener in identity.openers("sft")
    )


def test_no_eval_wording_is_used(documents: list[str]) -> None:
    prompts = {
        question.prompt for skill in SKILLS for question in skill.make(60, "eval", 3, "direct")
    }
    lines = {line for text in documents for line in text.splitlines()}
    assert prompts.isdisjoint(lines)
    asked = "\n".join(sorted(lines))
    sums = arithmetic.data().wordings
    wordings = [*arithmetic.data().stories.eval]
    for found in (
        sums.add,
        sums.subtract,
        sums.multiply,
        *map(spelling.wordings_of, spelling.KINDS),
    ):
        wordings += found.eval
    for wording in wordings:
        pattern = "^" + re.sub(r"\\{\w+\\}", r"\\w+", re.escape(wording)) + "$"
        assert not re.search(pattern, asked, re.MULTILINE), wording


def test_every_kind_of_document_is_there_in_its_fraction(documents: list[str]) -> None:
    assert sum(kind.weight for kind in exercises.KINDS) == pytest.approx(1)
    spelled = sum(bool(re.match(r"\w+ is \w ", text)) for text in documents) / len(documents)
    lines = sum(bool(re.match(r"\d+ [+x-] \d+: ", text)) for text in documents) / len(documents)
    fractions = {kind.name: kind.weight for kind in exercises.KINDS}
    assert lines == pytest.approx(fractions["sum_lines"], abs=0.03)
    assert spelled == pytest.approx(
        (1 - exercises.NUMBERED_FRACTION) * fractions["spelled_words"], abs=0.03
    )


def test_a_file_follows_from_seed_and_number_whoever_writes_it_and_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = exercises.words_of_texts(manual_texts()[:20])
    monkeypatch.setattr(exercises, "FILE_BYTES", 20_000)
    made = exercises.write_documents(tmp_path / "made", 50_000, words, 42, workers=1)
    other = exercises.write_documents(tmp_path / "other", 50_000, words, 43, workers=1)
    write = exercises.open_writer(tmp_path / "late", words, 42)
    assert [write((number, size)) for number, size in ((2, 10_000), (0, 20_000))] == [
        made[2],
        made[0],
    ]
    assert len({shard.sha256 for shard in (*made, *other)}) == 6


def test_the_stage_writes_what_its_facts_state(tmp_path: Path, corpus: Artifact) -> None:
    made = make_exercises(corpus, tmp_path / "exercises", fraction=0.1)
    facts = facts_of(made, ExercisesFacts)
    documents = list(read_documents(made.place, "exercises"))
    assert len(documents) == facts.documents == len({document.id for document in documents})
    assert sum(len(document.text.encode()) for document in documents) == facts.text_bytes
    wanted = exercises.exercise_bytes(facts_of(corpus, CorpusFacts).train_text_bytes, 0.1)
    assert wanted <= facts.text_bytes < wanted + 2 * exercises.DOCUMENT_CHARS
    assert len(made.path("words.txt").read_text().splitlines()) == facts.words
    assert "== sum_lines" in made.path("sample.txt").read_text()


def test_without_a_share_there_is_no_exercises(tmp_path: Path, corpus: Artifact) -> None:
    made = make_exercises(corpus, tmp_path / "exercises")
    assert facts_of(made, ExercisesFacts) == ExercisesFacts(
        fraction_asked=0.0, documents=0, text_bytes=0, words=0
    )
    assert list(read_documents(made.place, "exercises")) == []
    assert json.loads(made.path("documents.json").read_text())["shards"] == []
    with publish(tmp_path / "again", "exercises", "key", {}) as staging:
        tokenizer = make_tokenizer(tmp_path / "tokenizer")
        config = ExercisesConfig()
        exercises.write_exercises(corpus, tokenizer, config, HostConfig(workers=2), 7, staging)
    assert staging.artifact
    assert staging.artifact.digest == made.digest, "no seed changes nothing"


def test_words_come_by_how_often_they_stand_and_none_is_held_out() -> None:
    words = exercises.words_of_texts(["apples apples oranges Oranges x ab apples! oranges pears"])
    real = [word for word in ("apples", "oranges", "pears") if spelling.is_practised(word)]
    assert list(words[: len(real)]) == real
    assert len(words) == len(real) + exercises.MADE_UP_WORDS == len(set(words))
    assert all(spelling.is_practised(word) for word in words)


def test_every_token_that_begins_a_word_is_spelled_unless_the_word_is_held_out(
    tmp_path: Path, corpus: Artifact
) -> None:
    """Without them, a word whose tokens no common word has is asked and never taught."""
    made = make_exercises(corpus, tmp_path / "exercises", fraction=0.1)
    words = made.path("words.txt").read_text().splitlines()
    tokens = exercises.word_tokens(tmp_path / "exercises tokenizer" / "tokenizer.json")
    assert len(tokens) > 50 and {"of", "th"} <= set(tokens)
    spelled = [token for token in tokens if spelling.is_practised(token)]
    assert set(spelled) <= set(words)
    assert len(words) == len(set(words))
    held_out = next(word for word in spelling.data().words if not spelling.is_practised(word))
    assert exercises.words_of_texts([], [held_out, "gard"])[0] == "gard"
    assert held_out not in exercises.words_of_texts([], [held_out, "gard"])


def test_every_line_of_the_tables_and_of_drills_is_true(documents: list[str]) -> None:
    equations = re.findall(r"(?<![\d+x-])(\d+(?:[+x-]\d+)+)=(\d+)", "\n".join(documents))
    assert len(equations) > 20_000
    for left, right in equations:
        assert value_of(left) == int(right), left
    drills = re.findall(r"^(\d+) ([+x-]) (\d+): .*\. (\d+)$", "\n".join(documents), re.MULTILINE)
    assert len(drills) > 3_000
    for a, sign, b, answer in drills:
        assert value_of(f"{a}{sign}{b}") == int(answer)


def test_every_spelled_word_is_spelled_right(documents: list[str]) -> None:
    spelled = re.findall(r"(?<!\w)([a-z]+) is ((?:[a-z]\d* )+[a-z]\d*)[,.]", "\n".join(documents))
    assert len(spelled) > 10_000
    for word, letters in spelled:
        numbered = "".join(f"{letter}{n}" for n, letter in enumerate(word, start=1))
        assert letters.replace(" ", "") in (word, numbered)


def test_several_processes_write_the_bytes_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = exercises.words_of_texts(manual_texts()[:20])
    monkeypatch.setattr(exercises, "FILE_BYTES", 20_000)
    alone = exercises.write_documents(tmp_path / "one", 90_000, words, 42, workers=2)
    monkeypatch.setattr(exercises, "PARALLEL_BYTES", 1)
    together = exercises.write_documents(tmp_path / "two", 90_000, words, 42, workers=2)
    assert alone == together
    assert [shard.text_bytes >= 20_000 for shard in alone] == [True] * 4 + [False]


def test_the_fraction_of_the_tokens_is_what_is_asked_for_by_usual_bytes_per_token() -> None:
    prose, fraction = 35_000_000, 0.2
    tokens = exercises.exercise_bytes(prose, fraction) / exercises.EXERCISE_BYTES_PER_TOKEN
    assert tokens / (tokens + prose / exercises.PROSE_BYTES_PER_TOKEN) == pytest.approx(fraction)
    assert exercises.exercise_bytes(prose, 0.0) == 0


def test_whole_questions_are_of_the_skills_that_state_them() -> None:
    texts = exercises.whole_questions(7)
    assert len(texts) == sum(skill.exercise_questions for skill in SKILLS)
    prompts = {
        f"{question.prompt}\n{question.reply}\n\n": skill.name
        for skill in SKILLS
        for question in skill.make(skill.exercise_questions, "sft", 7, "direct")
    }
    assert {prompts[text] for text in texts} == {
        skill.name for skill in SKILLS if skill.exercise_questions
    }


def test_facts_are_computed_again_from_files_that_every_bundle_has(
    tmp_path: Path, corpus: Artifact
) -> None:
    made = make_exercises(corpus, tmp_path / "exercises", fraction=0.1)
    for shard in made.place.glob("*.zst"):
        shard.unlink()
    config = make_config(exercises={"fraction": 0.1})
    facts = facts_of(made, ExercisesFacts)
    assert exercises.facts_from(made.place, {"corpus": corpus}, config) == facts
    words = made.path("words.txt")
    words.write_text(words.read_text() + "another\n")
    assert exercises.facts_from(made.place, {}, config).words == facts.words + 1
    assert exercises.facts_from(made.place, {}, make_config()) != facts
