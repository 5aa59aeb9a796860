from pathlib import Path

import pytest

from picochat.data.folders import list_folder, matches_any
from picochat.data.left_out import ignored_files


@pytest.mark.parametrize(
    ("path", "pattern", "fits"),
    [
        ("a.txt", "*.txt", True),
        ("sub/a.txt", "*.txt", False),
        ("sub/a.txt", "**/*.txt", True),
        ("a.txt", "**/*.txt", True),
        ("x/.git/config", "**/.git/**", True),
        (".git/config", "**/.git/**", True),
        ("x/git/config", "**/.git/**", False),
        ("data/train-00001.parquet", "data/train-*", True),
        ("a1.txt", "a[0-9].txt", True),
        ("ab.txt", "a[!b].txt", False),
        ("a+b.txt", "a+b.txt", True),
        ("a.txt", "./a.txt", True),
        ("a.txt", "?.txt", True),
        ("a/b", "a?b", False),
        ("a]b", "a[]]b", True),
        ("[x", "[x", True),
        ("ac", "a[^b]", True),
        ("ab", "a[z-a]", False),
        ("a.b/c.txt", "**.txt", True),
        ("data/x/train.csv", "data/**train*", True),
        ("a/b/c", "*/*", False),
        ("a" * 255, "*a" * 60 + "b", False),
    ],
)
def test_patterns_fit_as_recipes_and_cards_mean_them(path: str, pattern: str, fits: bool) -> None:
    assert matches_any(path, [pattern]) is fits


def test_what_a_desktop_leaves_in_a_folder_is_neither_read_nor_counted(tmp_path: Path) -> None:
    names = [".DS_Store", "Thumbs.db", "desktop.ini", "._a.txt", "__MACOSX/a.txt", "x/Thumbs.db"]
    for name in (*names, "x/a.txt", "b.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\x00\x01")
    assert list_folder(tmp_path).files == ["b.db", "x/a.txt"]
    assert ignored_files(tmp_path, ["x/a.txt"]) == {".db": 1}
