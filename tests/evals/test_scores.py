"""Scores follow from replies alone, and say what they count."""

import math
import random
from pathlib import Path

import pytest

from picochat.core.records import parse_record, read_jsonl, write_jsonl
from picochat.evals.eval_records import EvaluatedRow, HeldOutDocument, Memorization, ScoresMeasured
from picochat.evals.scores import judge, scores_of
from picochat.skills.mixture import make_rows
from picochat.skills.task_rows import EvalRow, as_eval_row

SFT, EVALS = make_rows("release_skills", 200, 120, "scratchpad", 1)
ROWS = {row.id: row for row in EVALS}
MEASURED = ScoresMeasured(ngram_bits_per_byte=2.0, ngram_train_tokens=5)


def make_asked(row: EvalRow, reply: str | None = None, **changes: object) -> EvaluatedRow:
    likelihoods = None
    if row.choice_labels:
        likelihoods = [-1.0 if label == row.correct_choice else -2.0 for label in row.choice_labels]
    values = {
        "id": row.id,
        "set": "eval",
        "skill": row.skill,
        "stage": row.curriculum_stage,
        "prompt": row.user,
        "expected": row.reference_answer,
        "reply": row.reference_answer if reply is None else reply,
        "log_likelihoods": likelihoods,
        "base_reply": "",
        "base_log_likelihoods": None if likelihoods is None else [-1.0] * len(likelihoods),
        **changes,
    }
    return EvaluatedRow.model_validate(values)


def scored(asked: list[EvaluatedRow], contaminated: set[str] | None = None):
    return scores_of(ROWS, asked, [], MEASURED, [], contaminated or set(), "digest")


def test_right_replies_score_full_and_empty_ones_nothing() -> None:
    full = scored([make_asked(row) for row in EVALS])
    assert {name: skill.all.fraction for name, skill in full.skills.items()} == dict.fromkeys(
        full.skills, 1.0
    )
    assert all(skill.base.fraction == 0.0 for skill in full.skills.values())
    assert (
        full.refusal.fraction == 1.0
        and full.over_refusal.fraction == 1.0
        and full.unsupported_claims.fraction == 0.0
    )
    none = scored(
        [
            make_asked(row, "", log_likelihoods=[-1.0] * 4 if row.choice_labels else None)
            for row in EVALS
        ]
    )
    assert all(skill.all.passed == 0 for skill in none.skills.values())


def test_counts_add_up_and_contaminated_rows_leave_the_clean_rate() -> None:
    contaminated = {row.id for row in EVALS if row.skill == "math"} - {
        next(row.id for row in EVALS if row.skill == "math")
    }
    facts = scored([make_asked(row) for row in EVALS], contaminated)
    assert sum(skill.all.count for skill in facts.skills.values()) == len(EVALS)
    assert (
        facts.skills["math"].clean.count == 1
        and facts.skills["math"].all.count == len(contaminated) + 1
    )
    assert facts.skills["spelling"].clean == facts.skills["spelling"].all


def test_choice_is_judged_by_likelihood_not_by_text() -> None:
    row = next(row for row in EVALS if row.choice_labels)
    wrong = [-1.0 if label != row.correct_choice else -2.0 for label in row.choice_labels]
    assert judge(row, make_asked(row)).passed
    assert not judge(row, make_asked(row, log_likelihoods=wrong)).passed


def test_nothing_asked_is_unmeasured_not_zero() -> None:
    facts = scored([])
    assert (
        facts.sft_fit.fraction is None
        and facts.skills["math"].all.fraction is None
        and facts.memorized.fraction is None
    )


def test_fit_is_counted_on_the_rows_own_questions() -> None:
    rows = [as_eval_row(row) for row in SFT[:20]]
    ROWS.update({row.id: row for row in rows})
    asked = [make_asked(row, set="sft_train") for row in rows[:15]] + [
        make_asked(row, "no", set="sft_held_out", log_likelihoods=None) for row in rows[15:]
    ]
    facts = scored(asked)
    assert (facts.sft_fit.passed, facts.sft_fit.count, facts.sft_held_out_fit.count) == (15, 15, 5)
    assert facts.sft_held_out_fit.passed == 0


def test_memorization_wants_every_token() -> None:
    recalled = [
        Memorization(position=0, expected=[1, 2, 3], continued=[1, 2, 3]),
        Memorization(position=9, expected=[1, 2, 3], continued=[1, 2]),
    ]
    facts = scores_of(ROWS, [], recalled, MEASURED, [], set(), "d")
    assert facts.memorized.fraction == pytest.approx(0.5)


def test_bits_per_byte_are_of_all_documents_together() -> None:
    documents = [
        HeldOutDocument(sha256="a", text_bytes=10, base_nats=7.0, chat_nats=1.0),
        HeldOutDocument(sha256="b", text_bytes=90, base_nats=63.0, chat_nats=None),
    ]
    facts = scores_of(ROWS, [], [], MEASURED, documents, set(), "d")
    assert facts.base_bits_per_byte == pytest.approx(0.7 / math.log(2))
    assert facts.sft_bits_per_byte is None  # one loss was not finite
    assert scores_of(ROWS, [], [], MEASURED, [], set(), "d").base_bits_per_byte is None


# ---- a pure function -----------------------------------------------------------------------------

HOSTILE = (
    "",
    "\x00\x1b[2J",
    "<|assistant|> 85",
    "\ufffd" * 9,
    "I am Picochat.",
    "\u202eFinal answer: 85",
    "User: hello",
    "x" * 5_000,
)


def hostile_replies() -> list[EvaluatedRow]:
    return [
        make_asked(
            row,
            None if number % 3 else HOSTILE[number % len(HOSTILE)],
            base_reply=HOSTILE[(number + 1) % len(HOSTILE)],
        )
        for number, row in enumerate(EVALS)
    ]


def test_the_order_of_replies_changes_no_score() -> None:
    asked = hostile_replies()
    recalled = [Memorization(position=n, expected=[n, 2], continued=[n, n]) for n in range(5)]
    for seed in range(3):
        shuffled = random.Random(seed).sample(asked, len(asked))
        first = scores_of(ROWS, asked, recalled, MEASURED, [], {EVALS[0].id}, "d")
        assert scores_of(ROWS, shuffled, recalled[::-1], MEASURED, [], {EVALS[0].id}, "d") == first


def test_writing_and_reading_replies_twice_changes_no_score(tmp_path: Path) -> None:
    asked = hostile_replies()
    again = asked
    for turn in range(2):
        write_jsonl(tmp_path / f"{turn}.jsonl", again)
        again = [
            parse_record(EvaluatedRow, value, "replies")
            for _, value in read_jsonl(tmp_path / f"{turn}.jsonl")
        ]
    assert again == asked
    assert (tmp_path / "0.jsonl").read_bytes() == (tmp_path / "1.jsonl").read_bytes()
    assert scored(again) == scored(asked)


def test_bytes_that_are_not_utf_8_score_like_the_text_that_the_tokenizer_makes_of_them() -> None:
    row = next(row for row in EVALS if row.skill == "math")
    text = (b"Final answer: " + bytes([0xFF, 0xC3, 0x28, 0xF0, 0x9F])).decode(
        "utf-8", errors="replace"
    )
    assert judge(row, make_asked(row, text)).reason == "wrong_answer"


@pytest.mark.parametrize(
    "likelihoods", [[], [-1.0], [float("nan")] * 4, [-1.0] * 4, [-1.0, -2.0, -3.0, float("-inf")]]
)
def test_likelihoods_that_single_out_no_option_pass_nothing(likelihoods: list[float]) -> None:
    row = next(
        row
        for row in EVALS
        if row.correct_choice and row.choice_labels.index(row.correct_choice) > 0
    )
    assert not judge(row, make_asked(row, log_likelihoods=likelihoods)).passed
