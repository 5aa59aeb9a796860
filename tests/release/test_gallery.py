"""A gallery shows the claims of what verifies and of nothing else, whatever else it is given, and
replaces only galleries.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from picochat.cli.main import run_command
from picochat.core.records import digest_file
from picochat.release.bundle import make_bundle
from picochat.release.verify import verify_bundle
from picochat.run.folder import RunDir
from tests.forger import change_json, make_real_run, settle
from tests.test_proof import BUNDLE as EARLIER

GOOD, DIFFERS, BAD_INPUT, WRONG_USAGE = 0, 3, 4, 2
SCRIPT = "<script>document.title='taken over'</script>"
HOSTILE_NAME = "<img src=x onerror=alert(1)>\x1b[31m\u202e'\"&{{7*7}}" + 60 * "n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A real run with a verdict. No test changes it."""
    return make_real_run(tmp_path_factory.mktemp("gallery"))


@pytest.fixture(scope="module")
def bundle(run: RunDir) -> Path:
    out = run.root.parent / "mine.tgz"
    return make_bundle(run, out, None, strict=False, include_weights=False).path


@pytest.fixture(autouse=True)
def one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")


def gallery(*bundles: Path, out: Path, more: tuple[str, ...] = ()) -> int:
    return run_command(["gallery", *map(str, bundles), "--out", str(out), *more])


def rows_of(site: Path) -> list[dict[str, Any]]:
    return json.loads((site / "gallery.json").read_text())["rows"]


def files_of(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def forged(bundle: Path, target: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    """The bundle with one file changed and all else left as it is."""
    with tarfile.open(bundle) as kept, tarfile.open(target, "w:gz") as tar:
        for member in kept:
            stream = kept.extractfile(member)
            assert stream is not None
            data = stream.read()
            if member.name.partition("/")[2] == name:
                data = change(data)
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return target


def test_a_bundle_that_verifies_has_its_scores_its_report_and_what_was_verified(
    run: RunDir, bundle: Path, tmp_path: Path
) -> None:
    assert gallery(bundle, out=tmp_path / "site") == GOOD
    (row,) = rows_of(tmp_path / "site")
    scores, report = run.artifact("scores").facts, verify_bundle(bundle)
    assert row["evidence_digest"] == report.evidence_digest
    assert row["sha256"] == digest_file(bundle)
    assert [(c["name"], c["compared"]) for c in row["checks"]] == [
        (check.name, check.compared) for check in report.checks
    ]
    model = row["model"]
    for skill, found in model["rates"].items():
        assert found == scores["skills"][skill]["clean"]
    assert model["all_rows"]["count"] == sum(r["count"] for r in model["rates"].values()) > 0
    assert model["of_ngram"] == scores["base_bits_per_byte"] / scores["ngram_bits_per_byte"]
    assert model["parameters"] == run.artifact("base").facts["parameters"]
    assert model["verdict"] == run.artifact("gate").facts["status"]
    assert model["eval_rows"] == digest_file(run.place("rows") / "eval.jsonl")
    shown = tmp_path / "site" / row["report"]
    assert shown.read_bytes() == (run.root / "report.html").read_bytes()
    assert f'href="{row["report"]}"' in (tmp_path / "site" / "index.html").read_text()


def test_what_does_not_verify_stands_there_with_what_differs_and_without_its_claims(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = forged(bundle, tmp_path / "page.tgz", "report.html", lambda data: data + SCRIPT.encode())
    score = forged(
        bundle, tmp_path / "score.tgz", "eval/replies.jsonl", lambda data: data.split(b"\n", 1)[1]
    )
    assert gallery(page, bundle, score, out=tmp_path / "site") == DIFFERS
    good, *bad = rows_of(tmp_path / "site")
    assert [good["name"], *(row["name"] for row in bad)] == ["mine", "page", "score"]
    assert all(row["model"] is row["report"] is row["evidence_digest"] is None for row in bad)
    assert all(row["differences"] > 1 for row in bad)
    assert any("report.html: its bytes differ" in what for what in bad[0]["first_differences"])
    assert sum(name.endswith("report.html") for name in files_of(tmp_path / "site")) == 1
    assert not any(b"<script" in data for data in files_of(tmp_path / "site").values())
    assert f"picochat run verify {page}" in capsys.readouterr().out


def test_what_cannot_be_read_is_a_row_and_does_not_stop_the_others(
    bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "cut.tgz").write_bytes(bundle.read_bytes()[:3000])
    (tmp_path / "text.tgz").write_text("hello")
    given = [tmp_path / "cut.tgz", bundle, tmp_path / "text.tgz", tmp_path / "absent.tgz"]
    assert gallery(*given, out=tmp_path / "site") == DIFFERS
    rows = {row["name"]: row for row in rows_of(tmp_path / "site")}
    assert rows["mine"]["model"]
    assert "not a whole .tgz" in rows["cut"]["error"]
    assert "does not exist" in rows["absent"]["error"]


def test_where_no_bundle_can_be_read_the_earlier_gallery_stays(
    run: RunDir, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "site"
    assert gallery(bundle, out=site) == GOOD
    before = files_of(site)
    capsys.readouterr()
    assert gallery(tmp_path / "absent.tgz", tmp_path, out=site) == BAD_INPUT
    said = capsys.readouterr().err
    assert "absent.tgz" in said and files_of(site) == before
    command = said.split("or make one: picochat ")[1].split()
    made = tmp_path / "made.tgz"
    named = {"RUN": str(run.root), "RUN.tgz": str(made)}
    assert run_command([named.get(word, word) for word in command]) == GOOD
    assert gallery(made, out=site) == GOOD


def test_a_value_of_a_wrong_kind_that_a_page_can_show_is_a_row_and_no_fault(
    run: RunDir, bundle: Path, tmp_path: Path
) -> None:
    odd = RunDir(Path(shutil.copytree(run.root, tmp_path / "odd")))
    observed = odd.place("summary") / "observed.json"
    change_json(observed, lambda seen: seen["machine"].update(cpu=["a", "b"], gpus=[1]))
    settle(odd)
    assert gallery(odd.root, bundle, out=tmp_path / "site") == DIFFERS
    good, bad = rows_of(tmp_path / "site")
    assert good["model"] and bad["model"] is None
    assert "the machine in observed.json is not usable" in bad["error"]


def test_a_name_cannot_write_to_page_or_terminal(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(bundle, tmp_path / f"{HOSTILE_NAME}.tgz")
    forged(bundle, tmp_path / f"<b>{HOSTILE_NAME}.tgz", "gate.md", lambda data: b"approved")
    given = sorted(tmp_path.glob("*.tgz"))
    assert gallery(*given, out=tmp_path / "site", more=("--title", SCRIPT)) == DIFFERS
    page = (tmp_path / "site" / "index.html").read_text()
    assert not re.search(r"<(?:script|img|b>)|\x1b|\u202e", page)
    said = capsys.readouterr()
    assert not re.search(r"[^\x0a\x20-\x7e]", said.out) and "<U+001B>" in said.out
    assert "&lt;img src=x onerror=alert(1)&gt;&lt;U+001B&gt;" in page and "{{7*7}}" in page
    assert not re.search(r"[^\x0a\x20-\x7e]", (tmp_path / "site" / "gallery.json").read_text())


def test_no_folder_of_this_machine_is_on_the_page(
    run: RunDir, bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(run.root, tmp_path / "changed")
    (tmp_path / "changed" / "eval" / "manifest.json").write_text("{")
    broken = forged(bundle, tmp_path / "broken.tgz", "corpus/manifest.json", lambda data: b"{}")
    (tmp_path / "text.tgz").write_text("hello")
    given = (tmp_path / "changed", broken, tmp_path / "text.tgz", run.root)
    assert gallery(*given, out=tmp_path / "site") == DIFFERS
    for data in files_of(tmp_path / "site").values():
        assert str(tmp_path).encode() not in data
        assert str(run.root).encode() not in data
        assert b"picochat-bundle-" not in data


def test_the_same_bundles_give_the_same_files_and_replace_the_earlier_gallery(
    bundle: Path, tmp_path: Path
) -> None:
    place = tmp_path / "x" / "site"
    assert gallery(bundle, EARLIER, out=place, more=("--with-bundles",)) == DIFFERS
    first = files_of(place)
    assert gallery(EARLIER, bundle, out=place, more=("--with-bundles",)) == DIFFERS
    assert files_of(place) == first
    assert gallery(bundle, out=place) == GOOD
    assert len(files_of(place)) < len(first)
    assert {path.name for path in place.parent.iterdir()} == {"site", ".site.lock"}


def a_file(site: Path, _: Path) -> None:
    site.write_text("mine")


def another_folder(site: Path, _: Path) -> None:
    site.mkdir()
    (site / "index.html").write_text("mine")


def a_gallery_with_more(site: Path, bundle: Path) -> None:
    assert gallery(bundle, out=site) == GOOD
    (site / "CNAME").write_text("mine")


@pytest.mark.parametrize("there", [a_file, another_folder, a_gallery_with_more])
def test_what_no_gallery_wrote_is_never_replaced(
    there: Callable[[Path, Path], None],
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    site = tmp_path / "site"
    there(site, bundle)
    before = site.read_bytes() if site.is_file() else files_of(site)
    assert gallery(bundle, out=site) == WRONG_USAGE
    assert "fix: choose another --out, or move it away" in capsys.readouterr().err
    assert (site.read_bytes() if site.is_file() else files_of(site)) == before
    site.rename(tmp_path / "away")
    assert gallery(bundle, out=site) == GOOD


def test_a_bundle_for_download_is_the_one_that_was_verified(bundle: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    assert gallery(bundle, EARLIER, out=site, more=("--with-bundles",)) == DIFFERS
    good, earlier = rows_of(site)
    assert digest_file(site / good["bundle"]) == good["sha256"] == digest_file(bundle)
    assert earlier["bundle"] is None
    assert f'href="{good["bundle"]}"' in (site / "index.html").read_text()
    (tmp_path / "link.tgz").symlink_to(bundle)
    assert gallery(tmp_path / "link.tgz", out=site, more=("--with-bundles",)) == GOOD
    assert not any(path.is_symlink() for path in site.rglob("*"))


def test_a_bundle_of_an_earlier_version_is_told_from_a_forged_one_and_does_not_verify(
    bundle: Path, tmp_path: Path
) -> None:
    forgery = forged(bundle, tmp_path / "forged.tgz", "gate.md", lambda data: b"approved")
    assert gallery(EARLIER, forgery, bundle, out=tmp_path / "site") == DIFFERS
    good, *bad = rows_of(tmp_path / "site")
    assert good["other_version"] is None
    earlier = next(row for row in bad if row["name"] == "small-wiki-v3")
    assert earlier["model"] is None and earlier["differences"] > 1
    assert "cf3bc9773bc5265ea32d2125b839b3711967ddb3 made it" in earlier["other_version"]
    assert earlier["other_version"] in (tmp_path / "site" / "index.html").read_text().replace(
        "&#39;", "'"
    )


def test_weights_are_asked_again_and_a_bundle_without_them_says_that_they_were_not(
    run: RunDir, bundle: Path, tmp_path: Path
) -> None:
    assert gallery(run.root, bundle, out=tmp_path / "site", more=("--ask", "3")) == GOOD
    rows = {row["name"]: row for row in rows_of(tmp_path / "site")}
    asked = rows["run"]["checks"][-1]
    assert (asked["name"], asked["compared"]) == ("asked again", 3)
    assert rows["run"]["asked"] is None and "3 of 3 equal" in asked["note"]
    assert rows["mine"]["asked"].startswith("could not be asked again: ")
    assert gallery(bundle, out=tmp_path / "site") == GOOD
    assert rows_of(tmp_path / "site")[0]["asked"] == "not asked again"


def test_a_run_that_has_no_verdict_yet_has_a_row_without_scores(
    run: RunDir, tmp_path: Path
) -> None:
    shutil.copytree(run.root, tmp_path / "begun")
    for kind in ("scores", "parity", "gate", "summary"):
        shutil.rmtree(RunDir(tmp_path / "begun").place(kind))
    for page in ("report.html", "summary.md", "summary.json", "gate.md", "gate.json"):
        (tmp_path / "begun" / page).unlink()
    assert gallery(tmp_path / "begun", out=tmp_path / "site") == GOOD
    (row,) = rows_of(tmp_path / "site")
    assert row["model"]["verdict"] == "unfinished" and row["report"] is None
    assert row["model"]["rates"] == {} and row["model"]["eval_rows"] is None
    assert "Asked no eval rows" in (tmp_path / "site" / "index.html").read_text()


def test_a_gallery_needs_no_torch(bundle: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from picochat.cli.main import run_command
assert run_command(["gallery", {str(bundle)!r}, "--out", {str(tmp_path / "site")!r}]) == 0
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
