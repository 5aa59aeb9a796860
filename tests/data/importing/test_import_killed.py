import random
from pathlib import Path

from tests.data.builders import folder_bytes, serving
from tests.data.importing.killing import calm_import_s, import_with_kills, slow_hub

KILLS = 5


def test_import_killed_at_random_moments_ends_in_the_bytes_of_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    """More kills, and a count of them: bench/kill_import.py."""
    choose, kills, number = random.Random(20), 0, 0
    with serving(slow_hub()):
        longest_s = calm_import_s(tmp_path / "calm")
        expected = folder_bytes(tmp_path / "calm")
        while kills < KILLS:
            number += 1
            kills += import_with_kills(tmp_path / str(number), KILLS - kills, longest_s, choose)
            assert folder_bytes(tmp_path / str(number)) == expected
