import itertools
import random

from picochat.data.importing.work import add_range


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
