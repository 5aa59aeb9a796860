from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from picochat.data.importing.visits import LARGEST_SLICE_ROWS, Plan, Visit

GROUPS = st.lists(st.lists(st.integers(1, 400), min_size=0, max_size=6), min_size=1, max_size=7)


def _plan(groups: Sequence[Sequence[int]], max_rows: int, sample: str, seed: int) -> list[Visit]:
    names = tuple(f"file-{number}" for number in range(len(groups)))
    plan = Plan(names, max_rows, "head" if sample == "head" else "spread", seed)
    return list(plan.visits(lambda file: tuple(groups[file])))


@settings(max_examples=100, deadline=None)
@given(
    groups=GROUPS,
    max_rows=st.integers(1, 3000),
    sample=st.sampled_from(["spread", "head"]),
    seed=st.integers(0, 9),
)
def test_visits_cover_every_row_once_in_ascending_keys(
    groups: list[list[int]], max_rows: int, sample: str, seed: int
) -> None:
    visits = _plan(groups, max_rows, sample, seed)
    rows = [
        (visit.file, visit.group, row)
        for visit in visits
        for row in range(visit.start, visit.start + visit.rows)
    ]
    expected = {
        (f, g, row)
        for f, file in enumerate(groups)
        for g, count in enumerate(file)
        for row in range(count)
    }
    assert len(rows) == len(expected)
    assert set(rows) == expected
    assert [visit.key for visit in visits] == sorted({visit.key for visit in visits})
    assert all(visit.rows <= LARGEST_SLICE_ROWS for visit in visits)


@settings(max_examples=50, deadline=None)
@given(files=st.integers(1, 30), max_rows=st.integers(3000, 20_000), seed=st.integers(0, 9))
def test_spread_takes_from_every_file_before_it_takes_twice(
    files: int, max_rows: int, seed: int
) -> None:
    visits = _plan([[100] * 50] * files, max_rows, "spread", seed)
    assert {visit.file for visit in visits[:files]} == set(range(files))


def test_larger_import_of_small_row_groups_begins_with_the_smaller_one() -> None:
    groups = [[100] * 20] * 5
    assert _plan(groups, 5000, "spread", 3)[:10] == _plan(groups, 1000, "spread", 3)[:10]


def test_head_takes_files_and_groups_as_they_stand() -> None:
    visits = _plan([[10, 20], [5]], 100, "head", 1)
    assert [(visit.file, visit.group, visit.rows) for visit in visits] == [
        (0, 0, 10),
        (0, 1, 20),
        (1, 0, 5),
    ]


def test_file_that_ended_is_not_visited_again() -> None:
    plan = Plan(("a", "b"), 1000, "spread", 1)
    visits = plan.visits(lambda file: None)
    first, second = next(visits), next(visits)
    assert {first.file, second.file} == {0, 1}
    plan.exhausted.add(first.file)
    assert next(visits).file == second.file
    plan.exhausted.add(second.file)
    assert list(visits) == []
