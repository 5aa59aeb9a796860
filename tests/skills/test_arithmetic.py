from __future__ import annotations

import re
from collections import Counter
from math import prod

import pytest

from picochat.skills import arithmetic

EQUATION = re.compile(r"(\d+(?:[+x-]\d+)+)=(\d+)")


def test_every_final_answer_is_what_the_numbers_of_the_item_give() -> None:
    for question in arithmetic.make(300, "sft", 3, "direct") + arithmetic.make(
        200, "eval", 3, "direct"
    ):
        _, operation, a, b = question.item.split(":")
        expected = {
            "add": int(a) + int(b),
            "subtract": int(a) - int(b),
            "multiply": int(a) * int(b),
        }[operation]
        assert question.final_answer == question.reply == str(expected)
        assert {a, b} <= set(re.findall(r"\d+", question.prompt))


def test_every_statement_of_every_working_is_true() -> None:
    checked = 0
    for question in arithmetic.make(840, "sft", 5, "scratchpad"):
        for left, right in EQUATION.findall(question.reply):
            assert value_of(left) == int(right), question.reply
            checked += 1
    assert checked > 1000


def value_of(expression: str) -> int:
    """Products first, then sums and differences from the left."""
    total, sign = 0, 1
    for part in re.findall(r"[+-]|[\dx]+", expression):
        if part in "+-":
            sign = 1 if part == "+" else -1
        else:
            total += sign * prod(int(number) for number in part.split("x"))
    return total


def test_the_working_ends_in_the_digits_of_the_answer() -> None:
    for question in arithmetic.make(840, "sft", 5, "scratchpad"):
        shown, answer = question.reply.split("\nFinal answer: ")
        results = EQUATION.findall(shown)
        columns = [int(right) for _, right in results]
        written = columns[0] if len(columns) == 1 else 10 * columns[1] + columns[0] % 10
        assert written == int(answer) == int(question.final_answer or "")


@pytest.mark.parametrize(
    ("operation", "a", "b", "shown"),
    [
        ("add", 7, 8, "7+8=15."),
        ("add", 47, 38, "7+8=15, 4+3+1=8."),
        ("add", 13, 4, "3+4=7, 1+0=1."),
        ("add", 4, 13, "4+3=7, 0+1=1."),
        ("subtract", 53, 28, "13-8=5, 5-2-1=2."),
        ("subtract", 58, 23, "8-3=5, 5-2=3."),
        ("subtract", 9, 4, "9-4=5."),
        ("multiply", 3, 17, "7x3=21, 1x3+2=5."),
        ("multiply", 12, 3, "2x3=6, 1x3=3."),
        ("multiply", 7, 8, "7x8=56."),
    ],
)
def test_working_is_column_by_column(operation: str, a: int, b: int, shown: str) -> None:
    assert arithmetic.working(operation, a, b) == shown


def test_no_sft_row_states_a_held_out_sum_even_inside_its_working() -> None:
    held_out = {question.item for question in arithmetic.make(250, "eval", 1, "scratchpad")}
    names = {"+": "add", "-": "subtract", "x": "multiply"}
    stated: Counter[str] = Counter()
    for question in arithmetic.make(3000, "sft", 2, "scratchpad"):
        for a, sign, b in re.findall(
            r"(\d+) ?([+x-]) ?(\d+)", question.prompt + "\n" + question.reply
        ):
            larger, smaller = (a, b) if sign == "-" else sorted((a, b), key=int, reverse=True)
            stated[f"math:{names[sign]}:{larger}:{smaller}"] += 1
    assert stated.keys().isdisjoint(held_out)
    assert len(stated) > 500


def test_every_level_asks_what_its_name_says() -> None:
    for question in arithmetic.make(500, "sft", 9, "scratchpad"):
        a, b = (int(number) for number in question.item.split(":")[2:])
        if question.level == "add_carry":
            assert a % 10 + b % 10 >= 10
        if question.level == "subtract_borrow":
            assert a % 10 < b % 10
            assert "-1=" in question.reply
        if question.level == "removal_story":
            assert question.prompt.endswith("?")
            assert question.category == "bench_math_removal"
