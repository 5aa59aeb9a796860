from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from picochat.config import DataConfig, ExternalConfig, HonestyConfig, HostConfig
from picochat.core.publish import Artifact, publish
from picochat.core.records import read_jsonl
from picochat.data.benchmarks.resolve import resolve_benchmarks
from picochat.data.benchmarks.stage import publish_benchmarks
from picochat.data.corpus.build import build_corpus
from picochat.data.pack import load_pack
from picochat.facts import CorpusFacts, ExercisesFacts, HonestyFacts, facts_of
from picochat.honesty.contamination_page import contamination_page
from picochat.honesty.contamination_scan import ScanFound, facts_from, scan_rows, scan_run
from picochat.honesty.items import item_of_row, scan_item
from picochat.skills.prepare import prepare_rows
from tests.tokens.builders import make_exercises

CONFIG = HonestyConfig()
LONG = (
    "Only one option is right. Which of these rivers is by far the longest in the world?\nA."
    " Rhine\nB. Nile\nC. Thames\nD. Po"
)
SHORT = "Please tell me how many letters garden has."
EVALS: list[dict[str, Any]] = [
    {"id": "long", "user": LONG, "skill": "choice", "correct_choice": "B"},
    {"id": "short", "user": SHORT, "skill": "spelling", "normalized_answers": ["6"]},
    {
        "id": "who",
        "user": "Who are you?",
        "skill": "identity",
        "reference_answer": "I am Picochat.",
    },
]


def filler(count: int, seed: int = 0) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    words = [
        "river",
        "the",
        "of",
        "garden",
        "tell",
        "long",
        "world",
        "letters",
        "option",
        "has",
        "how",
        "many",
        "Rhine",
        "me",
    ]
    return [(f"doc-{n}", " ".join(rng.choices(words, k=80))) for n in range(count)]


def scan(
    documents: list[tuple[str, str]], sft: list[dict[str, Any]] | None = None, workers: int = 1
) -> ScanFound:
    total = sum(len(text.encode()) for _, text in documents)
    return scan_rows(EVALS, sft or [], documents, CONFIG, workers=workers, corpus_bytes=total)


PLANTED: tuple[tuple[str, str, str], ...] = (
    ("exact", "long", LONG),
    ("case", "long", LONG.upper()),
    ("punctuation", "long", LONG.replace(" ", " -- ").replace(".", " ;")),
    ("line breaks", "long", LONG.replace(" ", "\n\n")),
    ("partial, 13 words", "long", "which of these rivers is by far the longest in the world a"),
    ("exact, short", "short", SHORT),
    ("case, short", "short", SHORT.title()),
    ("punctuation, short", "short", SHORT.replace(" ", "... ")),
    ("line breaks, short", "short", SHORT.replace(" ", "\r\n")),
    ("generic prompt with its answer", "who", "Who are you?\n- I am Picochat, said the machine."),
)  # fmt: skip


@pytest.mark.parametrize(("how", "row", "text"), PLANTED)
def test_planted_contamination_is_found_with_its_coordinates(how: str, row: str, text: str) -> None:
    before = "Some words in front – a few. "
    documents = [*filler(20), ("planted", before + text + "\nAnd some after."), *filler(20, seed=1)]
    found = scan(documents)
    assert found.facts.contaminated_eval_rows == [row], how
    hit = found.hits[0]
    assert (hit.document, hit.row, hit.where) == ("planted", row, "corpus")
    planted = dict(documents)["planted"]
    assert planted[hit.offset :].lower().startswith(hit.words.split()[0])
    assert found.facts.corpus_contaminated_by_skill == {
        skill: int(skill == next(entry["skill"] for entry in EVALS if entry["id"] == row))
        for skill in ("choice", "identity", "spelling")
    }


def test_clean_text_and_plain_english_are_not_contamination() -> None:
    found = scan(
        [
            *filler(50),
            (
                "story",
                (
                    "Who are you? she asked. Twelve of these rivers is by far the longest in the"
                    " world."
                ),
            ),
        ]
    )
    assert found.facts.contaminated_eval_rows == []
    assert found.hits == []
    assert found.facts.scanned_text_bytes == found.facts.corpus_text_bytes
    assert found.facts.scanned_documents == 51


def test_coverage_without_one_long_run_contaminates_a_row() -> None:
    words = item_of_row(EVALS[0]).prompt
    text = (
        " ".join(words[:12])
        + " x "
        + " ".join(words[5:17])
        + " y "
        + " ".join(words[10:22])
        + " z "
        + " ".join(words[14:])
    )
    found = scan([("patchwork", text)])
    assert found.facts.contaminated_eval_rows == ["long"]
    assert {hit.rule for hit in found.hits} == {"coverage of 8 words"}


def test_sft_rows_are_scanned_for_whole_prompts_and_for_coverage() -> None:
    sft = [
        {"id": "s1", "user": "PLEASE tell me: how many letters garden has", "assistant": "6"},
        {
            "id": "s2",
            "user": "Twice: which of these rivers is by far the longest in the world",
            "assistant": "?",
        },
    ]
    found = scan(filler(3), sft)
    assert found.facts.sft_exact_prompts == 1
    assert 0.1 < found.facts.sft_largest_coverage <= 1.0
    assert found.facts.contaminated_eval_rows == ["short"]
    assert {hit.where for hit in found.hits} == {"sft"}
    assert found.facts.corpus_contaminated_by_skill == {"choice": 0, "identity": 0, "spelling": 0}


def test_a_generic_prompt_counts_as_exact_in_the_sft_rows_all_the_same() -> None:
    found = scan([], [{"id": "s1", "user": "who are you", "assistant": "Me."}])
    assert found.facts.sft_exact_prompts == 1
    assert found.facts.contaminated_eval_rows == ["who"]


def test_benchmark_rows_are_looked_for_in_the_corpus_and_in_the_sft_rows() -> None:
    arc = [
        scan_item("short", "arc", "Which planet of ours is the closest to the sun?"),
        scan_item("a2", "arc", LONG),
    ]
    piqa = [
        scan_item("p1", "piqa", "How do you keep bread fresh for a week?"),
        scan_item("p2", "piqa", "So?"),
    ]
    found = scan_rows(
        EVALS,
        [{"id": "s1", "user": "how do you keep bread fresh for a week", "assistant": "?"}],
        [("d1", "Well, which PLANET of ours is the closest to the sun?"), ("d2", LONG)],
        CONFIG,
        workers=1,
        corpus_bytes=100,
        benchmarks={"arc": arc, "piqa": piqa},
    )
    facts = found.facts
    assert facts.external_rows == {"arc": 2, "piqa": 2}
    assert facts.external_contaminated == {"arc": 2, "piqa": 0}
    assert facts.contaminated_external_rows == {"arc": ["a2", "short"], "piqa": ["p1"]}
    assert facts.contaminated_eval_rows == ["long"], (
        "an eval row and a benchmark row may have one id"
    )
    assert (facts.eval_rows, facts.sft_exact_prompts, facts.sft_largest_coverage) == (3, 0, 0.0)
    assert facts.eval_by_skill == {"choice": 1, "identity": 1, "spelling": 1}
    assert {(hit.benchmark, hit.row, hit.where) for hit in found.hits} >= {
        ("arc", "short", "corpus"),
        ("piqa", "p1", "sft"),
    }
    assert found.report["benchmarks"]["piqa"]["rows_not_looked_for"] == 1
    page = contamination_page(facts, found.report)
    assert "| arc | 2 | 2 | 2 |" in page
    assert "| piqa | 2 | 0 | 1 |" in page


def test_options_that_the_prompt_does_not_show_are_looked_for_as_well() -> None:
    row = {
        "id": "x",
        "user": "Which is it?",
        "choice_options": ["red wine", "blue sky"],
        "skill": "choice",
    }
    assert item_of_row(row).prompt == ("which", "is", "it", "red", "wine", "blue", "sky")


def test_a_question_with_a_subject_is_looked_for_without_options_that_it_does_not_show() -> None:
    row = {
        "id": "x",
        "user": "What is the capital of France?",
        "choice_options": ["Rome", "Paris"],
        "subject": "France",
        "reference_answer": "Paris",
    }
    item = item_of_row(row)
    assert item.prompt == ("what", "is", "the", "capital", "of", "france")
    assert item.answers == (("paris",),)


def test_the_page_says_what_was_found_and_what_cannot_be_seen() -> None:
    found = scan([("planted", SHORT), *filler(5)])
    page = contamination_page(found.facts, found.report)
    assert "| short | 1 | 0 |" in page
    assert "Scanned 6 documents" in page
    assert "(100.0%)" in page
    for word in ("paraphrase", "translation", "synonyms"):
        assert word in page


QUESTION = (
    "Which tool would a careful baker of the northern village reach for when the dough has risen"
    " twice overnight?"
)


def published(folder: Path) -> tuple[Artifact, Artifact, Artifact]:
    """A corpus of 300 documents, the rows above and two benchmark items, published; one document
    holds an item of each.
    """
    documents = [{"id": name, "text": text} for name, text in filler(299, seed=3)]
    documents.append({"id": "leak", "text": "Some words. " + SHORT + " And then: " + QUESTION})
    folder.mkdir()
    for name, rows in (
        ("documents", documents),
        ("chat", [{"user": "Hi", "assistant": "Hello"}]),
        ("eval", [{**row, "category": row["skill"]} for row in EVALS if row["id"] != "long"]),
    ):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "dataset_pack.json").write_text(
        json.dumps(
            {
                "name": "p",
                "corpus": {"input": "documents.jsonl"},
                "chat": "chat.jsonl",
                "eval": "eval.jsonl",
            }
        )
    )
    pack = load_pack(folder / "dataset_pack.json")
    with publish(folder / "corpus", "corpus", "key", {}) as corpus:
        build_corpus(pack, DataConfig(held_out_fraction=0.2), HostConfig(workers=1), corpus)
    with publish(folder / "rows", "rows", "key", {}) as rows:
        prepare_rows(pack, 42, rows)
    (folder / "quiz.jsonl").write_text(
        "".join(
            json.dumps(
                {
                    "question": text,
                    "choices": {"text": ["a spoon", "a pale stone"], "label": ["A", "B"]},
                    "answerKey": "A",
                }
            )
            + "\n"
            for text in (
                QUESTION,
                (
                    "Of what material does the fictional harbour master of Oltany build all of his"
                    " long quays?"
                ),
            )
        )
    )
    external = ExternalConfig(benchmarks=(f"quiz={folder / 'quiz.jsonl'}",))
    with publish(folder / "benchmarks", "benchmarks", "key", {}) as benchmarks:
        publish_benchmarks(external, resolve_benchmarks(external), benchmarks)
    assert corpus.artifact
    assert rows.artifact
    assert benchmarks.artifact
    return corpus.artifact, rows.artifact, benchmarks.artifact


def test_the_stage_scans_the_whole_corpus_held_out_documents_too(tmp_path: Path) -> None:
    corpus, rows, benchmarks = published(tmp_path / "pack")
    exercises = make_exercises(corpus, tmp_path / "exercises", fraction=0.1)
    practised = facts_of(exercises, ExercisesFacts)
    digests: list[str] = []
    for name in ("first", "second"):
        with publish(tmp_path / name, "honesty", "key", {}) as staging:
            scan_run(corpus, exercises, rows, benchmarks, CONFIG, HostConfig(workers=1), staging)
        assert staging.artifact
        digests.append(staging.artifact.digest)
    assert digests[0] == digests[1]
    assert staging.artifact
    facts = facts_of(staging.artifact, HonestyFacts)
    inputs = {"corpus": corpus, "exercises": exercises, "rows": rows, "benchmarks": benchmarks}
    assert facts_from(staging.artifact.place, inputs) == facts
    corpus_facts = facts_of(corpus, CorpusFacts)
    assert corpus_facts.held_out_documents > 0
    assert corpus_facts.documents == 300
    assert practised.documents > 0
    assert facts.scanned_documents == 300 + practised.documents
    assert (
        facts.scanned_text_bytes
        == facts.corpus_text_bytes
        == corpus_facts.text_bytes + practised.text_bytes
    )
    assert facts.contaminated_eval_rows == ["short"]
    hits = [row for _, row in read_jsonl(staging.artifact.path("hits.jsonl"))]
    assert {(hit["row"], hit["document"]) for hit in hits} == {
        ("short", "documents.jsonl:leak"),
        ("quiz-00000", "documents.jsonl:leak"),
    }
    assert hits[0]["offset"] == 12
    assert (facts.external_rows, facts.external_contaminated) == ({"quiz": 2}, {"quiz": 1})
    assert facts.contaminated_external_rows == {"quiz": ["quiz-00000"]}
