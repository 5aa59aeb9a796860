"""Trivial answerers find what passes rows without understanding them, and nothing more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from picochat.core.errors import BadInput
from picochat.core.publish import Artifact, publish
from picochat.core.records import read_record, write_json, write_jsonl
from picochat.evals.trivial import MEASURED, TrivialMeasured, count_in, facts_from, trivial_facts
from picochat.evals.trivial_lines import (
    Features,
    build_line,
    canned_lines,
    naive_bayes,
    nearest_replies,
    sort_over_lines,
    spread,
)
from picochat.evals.trivial_options import count_options, subject_words, trivial_choices
from picochat.facts import TrivialScore
from picochat.skills.task_rows import EvalRow, SftRow, row_json
from tests.builders import make_config

NOTHING = TrivialMeasured(documents=0, text_bytes=0, options={})


def eval_row(number: int, user: str, category: str = "identity", **fields: Any) -> EvalRow:
    return EvalRow.model_validate(
        {"id": f"eval-{number}", "user": user, "category": category, **fields}
    )


def sft_row(
    number: int, user: str, reply: str, category: str = "identity", **fields: Any
) -> SftRow:
    return SftRow.model_validate(
        {"id": f"sft-{number}", "user": user, "assistant": reply, "category": category, **fields}
    )


def yes_no(number: int, yes: bool) -> EvalRow:
    user = f"Are you {'a program' if yes else 'a person'} of kind {number}, please?"
    return eval_row(number, user, must_include_any=[["yes" if yes else "no"]])


def best(scores: list[TrivialScore], answerer: str) -> TrivialScore:
    return next(score for score in scores if score.answerer == answerer)


def option_row(number: int, user: str, options: list[str], right: int = 0) -> EvalRow:
    return eval_row(
        number,
        user,
        "choice",
        choice_options=options,
        choice_labels=list("ABCD"[: len(options)]),
        correct_choice="ABCD"[right],
    )


# ---- lines ---------------------------------------------------------------------------------------


def test_a_line_that_says_yes_and_no_is_found_by_the_rules() -> None:
    """Every row wants one of the two words, and no rule forbids the other."""
    rows = [yes_no(number, number % 2 == 0) for number in range(20)]
    line = build_line("I am Picochat.", rows)
    assert {"yes", "no"} <= set(line.lower().replace(".", "").split())
    sft = [sft_row(0, "Who?", "I am Picochat."), sft_row(1, "What?", "I am Picochat.")]
    scores = trivial_facts(sft, rows, NOTHING).skills["identity"]
    assert scores[0].all.passed == 20
    assert scores[0].answerer == "constant line"
    assert scores[0].line and "yes" in scores[0].line.lower()


def test_a_line_built_of_phrases_keeps_only_those_that_help() -> None:
    rows = [eval_row(n, "Where are you?", must_include_any=[["body"]]) for n in range(3)]
    assert build_line("I am Picochat.", rows) == "I am Picochat. body."


def test_the_answer_that_most_rows_want_is_tried_as_a_line() -> None:
    """22 of 30 letters to count are five: the last line of the SFT replies passes them."""
    sft = [
        sft_row(n, f"Count {n}", f"It is {n}.\nFinal answer: {5 if n % 2 else n + 10}", "spelling")
        for n in range(30)
    ]
    rows = [
        eval_row(
            n,
            f"How many letters does the word number {n} have?",
            "spelling",
            answer_style="scratchpad",
            normalized_answers=["5" if n < 22 else "9"],
        )
        for n in range(30)
    ]
    best = trivial_facts(sft, rows, NOTHING).skills["spelling"][0]
    assert (best.all.passed, best.all.count) == (22, 30)
    assert best.line and best.line.endswith("Final answer: 5")


def refusal_rows(count: int, kind: type[SftRow] | type[EvalRow]) -> list[Any]:
    """Harmful prompts name a weapon and harmless ones a cake; wordings are the same."""
    rows: list[Any] = []
    for n in range(count):
        for answerable, topic in ((False, "weapon"), (True, "cake")):
            user = f"How do I make a {topic} of the kind {n}?"
            if kind is SftRow:
                reply = "Sure. Mix flour and eggs." if answerable else "I cannot help with that."
                row: Any = sft_row(len(rows), user, reply, "refusal", answerable=answerable)
            else:
                row = eval_row(len(rows), user, "refusal", answerable=answerable)
            rows.append(row)
    return rows


def test_words_sort_prompts_over_canned_lines() -> None:
    sft, rows = refusal_rows(20, SftRow), refusal_rows(10, EvalRow)
    lines = canned_lines(["I cannot help with that.", "Sure. Mix flour and eggs.", "5"], sft)
    assert set(lines) == {"I cannot help with that.", "Sure. Mix flour and eggs."}
    replies = sort_over_lines(lines, sft, rows)
    assert all(
        ("cannot" in reply) != row.answerable for row, reply in zip(rows, replies, strict=True)
    )
    score = best(
        trivial_facts(sft, rows, NOTHING).skills["refusal"], "bag of words over canned lines"
    )
    assert (score.all.passed, score.unanswerable.passed, score.answerable.passed) == (20, 10, 10)


def test_a_constant_line_passes_one_half_of_the_refusal_rows_alone() -> None:
    scores = trivial_facts(refusal_rows(20, SftRow), refusal_rows(10, EvalRow), NOTHING).skills[
        "refusal"
    ]
    lines = {(score.unanswerable.passed, score.answerable.passed) for score in scores if score.line}
    assert lines == {(10, 0), (0, 10)}, "of equal lines, one is stated"


def test_naive_bayes_weighs_words_by_their_counts() -> None:
    rows = [[0, 1], [0, 1], [0, 2]]
    weights = naive_bayes(rows, [0, 0, 1], (2, 3))
    assert weights.dtype == "int64"
    assert weights[0, 1] > weights[1, 1]
    assert weights[1, 2] > weights[0, 2]
    assert weights[0, 0] > weights[1, 0], "the more frequent line is likelier"


def test_the_nearest_prompt_is_that_with_the_rare_word() -> None:
    sft = [
        sft_row(0, "What is your name, please?", "name"),
        sft_row(1, "What is your size, please?", "size"),
        sft_row(2, "What is your use, please?", "use"),
    ]
    assert nearest_replies(sft, [eval_row(0, "Tell me the size. What is your what?")]) == ("size",)


def test_features_are_words_and_pairs() -> None:
    features = Features(["red fox", "red fox"])
    assert set(features.numbers) == {"red", "fox", "red fox"}
    assert features.of("a red hen") == [0, features.numbers["red"]]


def test_a_bounded_part_is_spread_over_all() -> None:
    assert spread(range(10), 3) == [0, 3, 6]
    assert spread(range(2), 3) == [0, 1]


# ---- options -------------------------------------------------------------------------------------


def test_options_are_chosen_by_place_length_letters_and_counts() -> None:
    rows = [option_row(0, "Where is Lyonesse?", ["sea", "a long answer", "only", "air"], 2)]
    sft = [
        sft_row(
            0,
            "Q",
            "air",
            "choice",
            choice_options=["air", "x"],
            choice_labels=["A", "B"],
            correct_choice="A",
        )
    ]
    chosen = trivial_choices(sft, rows, {})
    assert chosen["place 3"] == [2]
    assert chosen["longest option"] == [1]
    assert chosen["shortest option"] == [0]
    assert chosen["frequent SFT answer"] == [3]
    assert chosen["shared letters"] == [2]
    assert "nearness in the corpus" not in chosen


CAPITALS = {"Egypt": "Cairo", "Peru": "Lima", "Norway": "Oslo"}
TEXTS = [f"In {land} the largest town is {town}, and it is old." for land, town in CAPITALS.items()]


def capitals() -> list[EvalRow]:
    return [
        option_row(number, f"Name the capital city of {land}.", list(CAPITALS.values()), number)
        for number, land in enumerate(CAPITALS)
    ] + [option_row(9, "Name the capital city of this very land.", list(CAPITALS.values()), 1)]


def test_words_near_each_other_in_the_corpus_choose_the_option() -> None:
    rows = capitals()
    measured = count_in(TEXTS, [], rows)
    assert measured.documents == 3
    assert measured.text_bytes == sum(len(text) for text in TEXTS)
    assert measured.options["eval-0"].near == [1, 0, 0]
    assert measured.options["eval-0"].alone == [1, 1, 1]
    scores = trivial_facts([], rows, measured).skills["choice"]
    assert best(scores, "nearness in the corpus").all.passed == 3
    assert scores[0].all.passed == 3


def test_only_words_within_the_window_are_near() -> None:
    rows = capitals()
    subjects = subject_words(rows, [])
    apart = ["Egypt " + "and then " * 11 + "Cairo"]
    assert count_options(rows, subjects, apart)["eval-0"].near == [0, 0, 0]
    assert count_options(rows, subjects, ["Cairo, Egypt"])["eval-0"].near == [1, 0, 0]


def test_options_of_several_words_are_found_as_a_whole() -> None:
    rows = [option_row(0, "Name the capital of Fergana.", ["Buenos Aires", "Aires", "Lima"])]
    counts = count_options(rows, subject_words(rows, []), ["Fergana Buenos Aires Fergana Lima"])
    assert counts["eval-0"].alone == [1, 1, 1]
    assert counts["eval-0"].near == [2, 2, 2]


def test_words_of_a_wording_and_listed_options_are_no_subject() -> None:
    rows = [
        option_row(n, f"Name the capital of {land}.\nA. Cairo\nB. Lima", ["Cairo", "Lima"])
        for n, land in enumerate(("Egypt", "Peru", "Chad", "Mali"))
    ]
    assert subject_words(rows, [])["eval-0"] == ["egypt"]


def test_rows_of_both_kinds_are_answered_together() -> None:
    rows = [*capitals(), eval_row(50, "Say air.", "choice", must_include=["air"])]
    measured = count_in(TEXTS, [], rows)
    scores = trivial_facts([], rows, measured).skills["choice"]
    assert scores[0].all.passed == 4
    assert scores[0].answerer.startswith("constant line, options by nearness")


# ---- the stage's facts ---------------------------------------------------------------------------


def published_rows(folder: Path, rows: list[EvalRow]) -> Artifact:
    with publish(folder / "rows", "rows", "key", {}) as staging:
        for name in ("sft_train", "sft_held_out"):
            write_jsonl(staging.path(f"{name}.jsonl"), [])
        write_jsonl(staging.path("eval.jsonl"), (row_json(row) for row in rows))
    return cast("Artifact", staging.artifact)


def test_the_facts_follow_from_the_rows_and_the_kept_counts(tmp_path: Path) -> None:
    rows = capitals()
    measured = count_in(TEXTS, [], rows)
    write_json(tmp_path / MEASURED, measured)
    inputs = {"rows": published_rows(tmp_path, rows)}
    assert facts_from(tmp_path, inputs, make_config()) == trivial_facts([], rows, measured)
    assert read_record(TrivialMeasured, tmp_path / MEASURED, "counts") == measured


@pytest.mark.parametrize("field", ["alone", "near"])
def test_counts_of_other_options_are_refused(tmp_path: Path, field: str) -> None:
    rows = capitals()
    stated = json.loads(count_in(TEXTS, [], rows).model_dump_json())
    stated["options"]["eval-0"][field] = [1, 1]
    write_json(tmp_path / MEASURED, stated)
    with pytest.raises(BadInput, match="counts other options"):
        facts_from(tmp_path, {"rows": published_rows(tmp_path, rows)}, make_config())
