"""What people expect of a repository agrees with the tree: CI, make help, versions, templates."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def version() -> str:
    found = re.search(r'^version = "(.+)"$', read("pyproject.toml"), re.MULTILINE)
    assert found is not None
    return found[1]


def workflow() -> Any:
    return read_yaml(GITHUB / "workflows" / "ci.yml")["jobs"]["test"]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))


def test_the_workflow_calls_exactly_what_ci_run_calls() -> None:
    commands = re.findall(r"^make .+$", read(".ci/run"), re.MULTILINE)
    assert commands == ["make check", "make test"]
    assert [step["run"] for step in workflow()["steps"] if "run" in step] == commands


def test_the_workflow_tries_the_oldest_python_that_is_allowed() -> None:
    oldest = re.search(r'^requires-python = ">=(.+)"$', read("pyproject.toml"), re.MULTILINE)
    assert oldest is not None
    assert oldest[1] in workflow()["strategy"]["matrix"]["python"]


def test_actions_are_pinned_by_major_version() -> None:
    used = [step["uses"] for step in workflow()["steps"] if "uses" in step]
    assert used and all(re.fullmatch(r"actions/[\w-]+@v\d+", name) for name in used)


def test_every_make_target_stands_in_help() -> None:
    listed = set(re.findall(r'@echo "make (\w+)  ', read("Makefile")))
    assert listed == targets() - {"help"}
    phony = re.search(r"^\.PHONY: (.+)$", read("Makefile"), re.MULTILINE)
    assert phony is not None and set(phony[1].split()) == targets()


def test_every_make_target_that_a_page_names_exists() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *GITHUB.rglob("*.md")]
    named = {
        (page.name, target)
        for page in pages
        for target in re.findall(r"`make (\w+)", page.read_text(encoding="utf-8"))
    }
    assert named and {(page, target) for page, target in named if target not in targets()} == set()


def test_citation_changelog_and_pyproject_state_one_version() -> None:
    citation = read_yaml(ROOT / "CITATION.cff")
    assert citation["version"] == version()
    released = re.findall(r"^## (\d+\.\d+\.\d+) - \d{4}-\d{2}-\d{2}$", read("CHANGELOG.md"), re.M)
    assert released[0] == version()


def test_the_citation_has_what_its_format_requires() -> None:
    """The required keys of schema 1.2.0, and the repository that the runbook clones."""
    citation = read_yaml(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert all(isinstance(citation[key], str) and citation[key] for key in ("message", "title"))
    assert [set(author) for author in citation["authors"]] == [{"name"}], "one entity, no person"
    assert f"git clone {citation['repository-code']}.git" in read("docs/runbook.md")
    assert f'license = "{citation["license"]}"' in read("pyproject.toml")


def test_the_changelog_keeps_to_its_form() -> None:
    text = read("CHANGELOG.md")
    versions = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert versions[0] == "Unreleased"
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= kinds


@pytest.mark.parametrize("name", ["bug_report.yml", "feature_request.yml"])
def test_issue_forms_are_whole(name: str) -> None:
    form = read_yaml(GITHUB / "ISSUE_TEMPLATE" / name)
    assert set(form) == {"name", "description", "labels", "body"}
    identifiers = [field["id"] for field in form["body"]]
    assert len(set(identifiers)) == len(identifiers) > 0
    for field in form["body"]:
        assert field["type"] == "textarea" and field["attributes"]["label"]
    assert any(field.get("validations", {}).get("required") for field in form["body"])
