import itertools
import random
from pathlib import Path

import pytest

from picochat.data.importing import import_state
from picochat.data.importing.import_state import SeenTexts, add_range


@pytest.mark.parametrize("unsorted", [1, 7, 1 << 16])
def test_it_answers_as_a_set_does(
    unsorted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_state, "UNSORTED_DIGESTS", unsorted)
    monkeypatch.setattr(
        import_state, "FILTER_WORDS", 64
    )  # so full that it tells nothing: the table decides
    choose = random.Random(3)
    seen, oracle = SeenTexts(tmp_path), set[bytes]()
    for _ in range(200):
        batch = [choose.randrange(900).to_bytes(16, "little") for _ in range(choose.randrange(12))]
        expected = []
        for digest in batch:
            expected.append(digest not in oracle)
            oracle.add(digest)
        assert seen.add(batch) == expected
    seen.close()
    assert list(tmp_path.iterdir()) == []


def test_file_of_an_earlier_process_is_forgotten(tmp_path: Path) -> None:
    first = SeenTexts(tmp_path)
    first.add([bytes(16)])
    assert SeenTexts(tmp_path).add([bytes(16)]) == [True]


def test_ranges_stay_sorted_and_joined_in_whatever_order_they_come() -> None:
    choose = random.Random(1)
    for _ in range(200):
        cuts = sorted(choose.sample(range(100), 12))
        pieces = [
            (start, stop) for start, stop in itertools.pairwise(cuts) if choose.random() < 0.7
        ]
        rows = {row for start, stop in pieces for row in range(start, stop)}
        choose.shuffle(pieces)
        ranges: list[tuple[int, int]] = []
        for start, stop in pieces:
            add_range(ranges, start, stop)
        assert {row for start, stop in ranges for row in range(start, stop)} == rows
        assert all(before[1] < after[0] for before, after in itertools.pairwise(ranges))
