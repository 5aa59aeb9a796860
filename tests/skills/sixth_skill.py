"""A sixth skill, "weekdays", as the recipe in CONTRIBUTING.md says: one record and one data file.

No list of skills in the source knows it; `test_skill_table.py` adds it to SKILLS and runs it.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from picochat.core.records import Record
from picochat.skills.skill import (
    AnswerStyle,
    Claim,
    Question,
    ScoredRow,
    Skill,
    Split,
    divide_rows,
    draw,
    side_of,
    with_final_answer,
)
from picochat.skills.skill_data import ApartSides, Texts, read_skill_data, with_slots

LEVELS = {"later": 0.5, "earlier": 0.5}
Wordings = Annotated[ApartSides, AfterValidator(with_slots("n", "day"))]


class WeekdaysData(Record):
    days: Texts
    later: Wordings
    earlier: Wordings


@lru_cache
def data() -> WeekdaysData:
    return read_skill_data("weekdays.toml", WeekdaysData, Path(__file__).parent / "data")


def make(count: int, split: Split, seed: int, answer_style: AnswerStyle) -> list[Question]:
    questions: list[Question] = []
    for level, rows in divide_rows(count, LEVELS).items():
        pairs = [(day, n) for day in data().days for n in range(2, 60)]
        items = [pair for pair in pairs if side_of(item_of(level, *pair), 0.4) == split]
        wordings = (data().later if level == "later" else data().earlier)[split]
        questions += draw(
            rows,
            level,
            split,
            items,
            len(wordings),
            seed,
            lambda pair, w, level=level, wordings=wordings: ask(
                level, *pair, wordings[w], answer_style
            ),
        )
    return questions


def item_of(level: str, day: str, n: int) -> str:
    return f"weekdays:{level}:{day}:{n}"


def ask(level: str, day: str, n: int, wording: str, style: AnswerStyle) -> Question:
    days = data().days
    answer = days[(days.index(day) + (n if level == "later" else -n)) % 7]
    return Question(
        item_of(level, day, n),
        f"bench_weekdays_{level}",
        level,
        wording.format(n=n, day=day),
        with_final_answer(f"{n % 7} of seven.", answer, style),
        final_answer=answer,
    )


def names_two_days(row: ScoredRow, reply: str) -> bool:
    return sum(day in reply for day in data().days) > 1


SKILL = Skill(
    name="weekdays",
    make=make,
    chance=1 / 7,
    levels=tuple(LEVELS),
    category_prefixes=("bench_weekdays", "weekdays"),
    weights={"full": 0.1},
    rules=(("two_days", names_two_days),),
    exercise_questions=20,
    claim=Claim(
        order=99, pass_rate=0.7, level_pass_rate=0.25, above_chance=0.2, first_release=False
    ),
)
