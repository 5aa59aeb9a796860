import json
from collections.abc import Sequence

import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from picochat.data.document_shards import document_line
from picochat.data.formats.row_batch import RowBatch, text_problem
from picochat.data.importing.slices import LARGEST_SLICE_ROWS, Slice, SlicePlan, filter_rows, shown

GROUPS = st.lists(st.lists(st.integers(1, 400), min_size=0, max_size=6), min_size=1, max_size=7)


def _plan(groups: Sequence[Sequence[int]], max_rows: int, sample: str, seed: int) -> list[Slice]:
    names = tuple(f"file-{number}" for number in range(len(groups)))
    plan = SlicePlan(names, max_rows, "head" if sample == "head" else "spread", seed)
    return list(plan.slices(lambda file: tuple(groups[file])))


@settings(max_examples=100, deadline=None)
@given(
    groups=GROUPS,
    max_rows=st.integers(1, 3000),
    sample=st.sampled_from(["spread", "head"]),
    seed=st.integers(0, 9),
)
def test_slices_cover_every_row_once_in_ascending_keys(
    groups: list[list[int]], max_rows: int, sample: str, seed: int
) -> None:
    slices = _plan(groups, max_rows, sample, seed)
    rows = [
        (slice.file, slice.group, row)
        for slice in slices
        for row in range(slice.start, slice.start + slice.rows)
    ]
    expected = {
        (f, g, row)
        for f, file in enumerate(groups)
        for g, count in enumerate(file)
        for row in range(count)
    }
    assert len(rows) == len(expected)
    assert set(rows) == expected
    assert [slice.key for slice in slices] == sorted({slice.key for slice in slices})
    assert all(slice.rows <= LARGEST_SLICE_ROWS for slice in slices)


@settings(max_examples=50, deadline=None)
@given(files=st.integers(1, 30), max_rows=st.integers(3000, 20_000), seed=st.integers(0, 9))
def test_spread_takes_from_every_file_before_it_takes_twice(
    files: int, max_rows: int, seed: int
) -> None:
    slices = _plan([[100] * 50] * files, max_rows, "spread", seed)
    assert {slice.file for slice in slices[:files]} == set(range(files))


def test_larger_import_of_small_row_groups_begins_with_the_smaller_one() -> None:
    groups = [[100] * 20] * 5
    assert _plan(groups, 5000, "spread", 3)[:10] == _plan(groups, 1000, "spread", 3)[:10]


def test_head_takes_files_and_groups_as_they_stand() -> None:
    slices = _plan([[10, 20], [5]], 100, "head", 1)
    assert [(slice.file, slice.group, slice.rows) for slice in slices] == [
        (0, 0, 10),
        (0, 1, 20),
        (1, 0, 5),
    ]


def test_file_that_ended_is_not_read_again() -> None:
    plan = SlicePlan(("a", "b"), 1000, "spread", 1)
    slices = plan.slices(lambda file: None)
    first, second = next(slices), next(slices)
    assert {first.file, second.file} == {0, 1}
    plan.exhausted.add(first.file)
    assert next(slices).file == second.file
    plan.exhausted.add(second.file)
    assert list(slices) == []


# Escapes, separators and every plane; surrogates and NUL are problems of their own.
TEXTS = st.text(st.characters(), max_size=40) | st.text(
    st.sampled_from('\\"\n\r\t\b\f\x01\x1f\x7f\0\ud800é😀 ab'), max_size=30
)


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(TEXTS | st.none() | st.integers(), max_size=12),
    first=st.integers(0, 10**9),
    least=st.integers(0, 20),
)
def test_many_rows_at_once_are_filtered_and_written_as_one_by_one(
    texts: list[object], first: int, least: int
) -> None:
    filtered = filter_rows(RowBatch(first, texts, None), 3, 'fo"lder/x.parquet', least)
    assert len(filtered) == len(texts)
    for position, text in enumerate(texts):
        problem = text_problem(text)
        if problem is not None:
            assert (filtered.problems[position], filtered.lines[position]) == (problem, b"")
            continue
        assert isinstance(text, str)
        id = f'fo"lder/x.parquet#{first + position}'
        assert filtered.lines[position] == document_line(id, text)
        assert json.loads(filtered.lines[position]) == {"id": id, "text": text}
        assert filtered.problems[position] == ("below_min_chars" if len(text) < least else None)
        assert filtered.characters[position] == len(text)
        assert filtered.text_bytes[position] == len(text.encode())
        assert filtered.digests[position] == xxhash.xxh3_128_digest(text.encode())


def test_head_of_filtered_rows_is_their_beginning() -> None:
    filtered = filter_rows(RowBatch(5, ["one", None, "three"], None), 0, "x", 1)
    assert filtered.head(5) is filtered
    assert (filtered.head(2).problems, len(filtered.head(2).lines)) == (
        [None, "text_not_string"],
        2,
    )


def test_shown_text_is_one_printable_line() -> None:
    assert shown("a\n\tb \ud800" + "x" * 500)[:7] == "a b ?xx"
    assert len(shown("x" * 500)) == 160
