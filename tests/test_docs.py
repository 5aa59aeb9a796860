"""The documents agree with the tree: the map, the generated pages, the files that pages name."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "picochat"
HIDDEN = ("__init__.py", "__pycache__")


def test_readme_map_matches_the_tree() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme.split("## The map")[1].split("```")[1]
    named = {match.rstrip("/") for match in re.findall(r"^  ([\w./]+)", block, flags=re.MULTILINE)}
    present = {
        path.name
        for path in PACKAGE.iterdir()
        if path.name not in HIDDEN and path.suffix in ("", ".py")
    }
    assert named == present
    top = {match.rstrip("/") for match in re.findall(r"^([\w]+)/", block, flags=re.MULTILINE)}
    assert top == {"demo", "deploy", "bench", "docs", "src", "tests"}


def test_every_file_that_the_documents_name_exists() -> None:
    """Paths of code in backticks: from the root or the package; a name alone is that of a file
    somewhere in it.
    """
    missing: list[str] = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for name in re.findall(
            r"`((?:[\w-]+/)*[\w.-]+\.(?:py|sh)|docs/[\w./-]+\.md)`",
            page.read_text(encoding="utf-8"),
        ):
            if not any((folder / name).exists() for folder in (ROOT, PACKAGE)) and (
                "/" in name or not [*PACKAGE.rglob(name)]
            ):
                missing.append(f"{page.name}: {name}")
    assert missing == []


def test_links_between_documents_hold() -> None:
    broken: list[str] = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_decisions_are_numbered_once() -> None:
    numbers = [path.name[:4] for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == [f"{n:04d}" for n in range(1, len(numbers) + 1)]


def test_every_layer_is_in_the_import_contract() -> None:
    contract = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for path in PACKAGE.iterdir():
        if path.name not in HIDDEN and path.suffix in ("", ".py"):
            assert f'"picochat.{path.stem}"' in contract, path.name


def test_readme_shows_the_scales_as_they_are() -> None:
    from picochat.scales import scales_lines

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for line in scales_lines()[:7]:
        assert line.rstrip() in readme, line
