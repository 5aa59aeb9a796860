from pathlib import Path

import pytest

from picochat.cli.pages import PAGES, artifacts_page, config_page, main, stale_pages, write_pages
from picochat.config import RunConfig, flatten
from picochat.run.graph import ARTIFACTS
from picochat.scales import SCALES
from tests.builders import make_config

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_committed_pages_agree_with_the_code() -> None:
    assert stale_pages(DOCS) == []


def test_every_setting_stands_on_the_page_once() -> None:
    page = config_page()
    for key in flatten(make_config()):
        if "." in key:
            assert page.count(f"| `{key}` |") == 1, key


def test_every_scale_is_listed_with_what_it_changes() -> None:
    page = config_page()
    for scale in SCALES:
        assert f"### {scale.name}\n" in page
    assert "`base.steps=33000`" in page
    assert set(RunConfig.model_fields) > {"base", "sft"}


def test_every_artifact_stands_on_the_page_with_its_facts() -> None:
    page = artifacts_page()
    for spec in ARTIFACTS:
        assert f"| {spec.kind} | `{spec.folder}/` |" in page
        for name in spec.facts.model_fields if spec.facts else ():
            assert f"| `{name}` |" in page


@pytest.mark.parametrize("name", [name for name, _ in PAGES])
def test_a_changed_or_missing_page_is_named_with_the_remedy(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pages(tmp_path)
    assert main(["--check", str(tmp_path)]) == 0
    (tmp_path / name).write_text((tmp_path / name).read_text() + "x")
    assert main(["--check", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert name in said
    assert f"--write {tmp_path}" in said
    (tmp_path / name).unlink()
    assert stale_pages(tmp_path) == [name]


def test_wrong_arguments_give_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
