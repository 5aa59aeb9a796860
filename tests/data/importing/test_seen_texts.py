import random
from pathlib import Path

import pytest

from picochat.data.importing import seen_texts
from picochat.data.importing.seen_texts import SeenTexts


@pytest.mark.parametrize("unsorted", [1, 7, 1 << 16])
def test_it_answers_as_a_set_does(
    unsorted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen_texts, "UNSORTED_DIGESTS", unsorted)
    monkeypatch.setattr(
        seen_texts, "FILTER_WORDS", 64
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
