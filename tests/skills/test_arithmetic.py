from __future__ import annotations

import re
from collections import Counter
from math import prod

import pytest

from picochat.skills import arithmetic
from picochat.skills.skill import Split

SPLITS: tuple[Split, ...] = ("sft", "eval")
CARRIED = re.compile(r"\d[+-]\d[+-]1=")
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
    held_out = {question.item for question in arithmetic.make(190, "eval", 1, "scratchpad")}
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
        operation = question.item.split(":")[1]
        assert (question.level == "multiply") == (operation == "multiply")
        if question.level == "carry":
            assert min(a, b) > 9
            carries = a % 10 + b % 10 >= 10 if operation == "add" else a % 10 < b % 10
            assert carries and CARRIED.search(question.reply)
        if question.level == "plain" and min(a, b) > 9:
            assert not CARRIED.search(question.reply)
        if question.category == "bench_math_removal":
            assert question.prompt.endswith("?") and question.level == "plain"


def test_each_level_has_rows_enough_to_be_judged() -> None:
    questions = arithmetic.make(121, "eval", 9, "direct")
    levels = Counter(question.level for question in questions)
    assert set(levels) == {"plain", "carry", "multiply"} and min(levels.values()) >= 40
    kinds = Counter(question.item.split(":")[1] for question in questions)
    assert min(kinds.values()) > 30


def test_no_number_answers_many_sums() -> None:
    answers = Counter(q.final_answer for q in arithmetic.make(121, "eval", 9, "direct"))
    assert max(answers.values()) < 0.05 * 121


def test_kinds_share_no_sum() -> None:
    pools = {
        kind: {entry.item for split in SPLITS for entry in arithmetic.sums_of(split, kind)}
        for kind in arithmetic.KINDS
    }
    assert sum(map(len, pools.values())) == len(set().union(*pools.values()))
    assert min(map(len, pools.values())) > 100


def test_the_two_sides_of_a_kind_make_the_whole_and_about_a_third_is_held_out() -> None:
    for kind in arithmetic.KINDS:
        trained, held_out = (set(arithmetic.sums_of(split, kind)) for split in SPLITS)
        assert trained.isdisjoint(held_out)
        fraction = len(held_out) / len(trained | held_out)
        assert 0.1 < fraction < 0.4, kind


def test_digit_tables_are_never_asked_in_eval() -> None:
    for kind in arithmetic.KINDS:
        for entry in arithmetic.sums_of("eval", kind):
            assert entry.a > 9, entry
            if entry.operation == "subtract":
                assert entry.a > 18 or entry.b > 9


def test_every_working_is_true_for_every_sum_there_is() -> None:
    """Not only for those that a seed draws, and with the numbers either way round."""
    entries = [e for s in SPLITS for kind in arithmetic.KINDS for e in arithmetic.sums_of(s, kind)]
    assert len(entries) > 5_000
    for entry in entries:
        pairs = [(entry.a, entry.b)]
        pairs += [] if entry.operation == "subtract" else [(entry.b, entry.a)]
        for a, b in pairs:
            statements = EQUATION.findall(arithmetic.working(entry.operation, a, b))
            results = [int(right) for _, right in statements]
            assert all(value_of(left) == int(right) for left, right in statements)
            written = results[0] if len(results) == 1 else 10 * results[1] + results[0] % 10
            assert written == entry.answer < 200


def test_every_wording_is_asked() -> None:
    prompts = [q.prompt for q in arithmetic.make(2400, "sft", 1, "direct")]
    prompts += [q.prompt for q in arithmetic.make(190, "eval", 1, "direct")]
    found = arithmetic.data()
    sums = (found.wordings.add, found.wordings.subtract, found.wordings.multiply)
    for wordings in (*sums, found.stories):
        for text in (*wordings.sft, *wordings.eval):
            pattern = re.compile(re.sub(r"\\{\w+\\}", r"\\w+", re.escape(text)))
            assert any(pattern.fullmatch(prompt) for prompt in prompts), text


def test_a_story_speaks_of_people_and_things_of_its_own_side() -> None:
    found = arithmetic.data()
    for split in SPLITS:
        for question in arithmetic.make(200, split, 2, "direct"):
            if question.category == "bench_math_removal":
                words = set(re.findall(r"\w+", question.prompt))
                assert len(words & set(found.names[split])) == 1, question.prompt
                assert len(words & set(found.things[split])) == 1, question.prompt
