import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from picochat.preview.text_counts import LineCounter

NAMES = [f"a line that is long enough, number {number:03d}" for number in range(60)]


def _document(*lines: str) -> str:
    return "\n".join(lines)


def test_a_line_counts_once_for_each_document() -> None:
    counter = LineCounter()
    for number in range(4):
        counter.add(
            _document(
                NAMES[0], NAMES[0], f"  {NAMES[0]}  ", f"something of its own, number {number}"
            )
        )
    (found,) = counter.most_repeated(5)
    assert (found.line, found.documents, found.documents_at_most, found.fraction) == (
        NAMES[0],
        4,
        4,
        1.0,
    )


def test_short_and_very_long_lines_and_rare_ones_take_no_part() -> None:
    counter = LineCounter()
    for _ in range(5):
        counter.add(_document("short", "x" * 500))
    counter.add(NAMES[1])
    counter.add(NAMES[1])
    assert counter.most_repeated(5) == []


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 59), max_size=8), min_size=1, max_size=120), st.integers(2, 20)
)
def test_bounded_counts_stay_within_their_stated_error(
    documents: list[list[int]], capacity: int
) -> None:
    counter, truth = LineCounter(capacity), Counter[str]()
    for lines in documents:
        counter.add(_document(*(NAMES[line] for line in lines)))
        truth.update({NAMES[line] for line in lines})
    found = {each.line: each for each in counter.most_repeated(100)}
    for line, each in found.items():
        assert each.documents <= truth[line] <= each.documents_at_most
    for line, count in truth.items():
        assert line in found or count < 3 or count < 3 * counter.error + 3


def test_memory_is_bounded_and_boilerplate_is_still_found() -> None:
    counter = LineCounter(capacity=500)
    generator = random.Random(1)
    for number in range(3_000):
        own = [f"line of document {number}: {generator.random()}" for _ in range(5)]
        counter.add(
            _document("Subscribe to our newsletter today", *own)
            if number % 3 == 0
            else _document(*own)
        )
        assert len(counter._counts) <= 2 * 500 + 6
    found = counter.most_repeated(3)
    assert found[0].line == "Subscribe to our newsletter today"
    assert found[0].documents <= 1_000 <= found[0].documents_at_most
