import pytest

from picochat.data.folders import matches_any


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
