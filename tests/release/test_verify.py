"""What was changed is found: one byte in each kind of file, and claims that were changed together
with their digests.
"""

import hashlib
import json
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from picochat.cli.main import run_command
from picochat.core.errors import BadInput, CheckFailed
from picochat.core.machine import picochat_version
from picochat.core.publish import Manifest
from picochat.core.records import digest_bytes, pretty_json, write_json
from picochat.release.bundle import make_bundle
from picochat.release.stated_files import opened_bundle
from picochat.release.verify import VerifyReport, inspect_bundle, verify_bundle
from picochat.run.folder import RunDir
from picochat.run.graph import ARTIFACTS, spec_of
from tests.builders import make_host_facts, make_rows_facts
from tests.run_builder import make_run

STATED: dict[str, Any] = {"specs": (spec_of("scores"),), "cross_checks": {}}
"""The run of run_builder.py states facts that no file beside them gives, but for its scores.

test_forgery.py checks the other facts, on a real run.
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evidence")
    (root / "logs").mkdir()
    (root / "logs" / "train.log").write_text("step 1\n")
    return make_bundle(
        make_run(root / "run"),
        root / "run.tgz",
        root / "logs",
        strict=True,
        include_token_shards=True,
    ).path


def differences(path: Path) -> list[str]:
    report = inspect_bundle(path, **STATED)
    assert report.exit_code == 3, report.lines()
    return [problem.what for problem in report.problems]


def verified(path: Path) -> VerifyReport:
    report = verify_bundle(path, **STATED)
    assert report.exit_code == 0, report.lines()
    return report


def unpacked(bundle: Path, folder: Path) -> Path:
    with tarfile.open(bundle) as archive:
        archive.extractall(folder, filter="data")
    return folder / "run"


def packed(root: Path) -> Path:
    """A bundle of the unpacked files as they are now."""
    path = root.parent / "again.tgz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                archive.add(file, f"run/{file.relative_to(root)}")
    return path


def rewrite_sums(root: Path) -> None:
    """SHA256SUMS over the files as they are now: what someone who changes a file would do next."""
    names = sorted(
        p.relative_to(root).as_posix()
        for p in root.rglob("*")
        if p.is_file() and p.name != "SHA256SUMS"
    )
    lines = [
        f"{hashlib.sha256((root / name).read_bytes()).hexdigest()}  {name}\n" for name in names
    ]
    (root / "SHA256SUMS").write_text("".join(lines))


def rewrite_manifest(root: Path, kind: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change an artifact's manifest, and set the digests of its files to what they are now."""
    folder = root / spec_of(kind).folder
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    for table in (manifest["files"], manifest["volatile_files"]):
        for name in table:
            if (folder / name).exists():
                data = (folder / name).read_bytes()
                table[name] = {"sha256": digest_bytes(data), "bytes": len(data)}
    (folder / "manifest.json").write_bytes(pretty_json(manifest))


def forge_everything(root: Path) -> None:
    """Make digests, chain, front pages, bundle.json and SHA256SUMS agree with the files as they are
    now.
    """
    digests: dict[str, str] = {}
    for spec in ARTIFACTS:

        def relink(manifest: dict[str, Any]) -> None:
            manifest["inputs"] = {
                name: digests.get(name, digest) for name, digest in manifest["inputs"].items()
            }

        rewrite_manifest(root, spec.kind, relink)
        digests[spec.kind] = Manifest.model_validate_json(
            (root / spec.folder / "manifest.json").read_bytes()
        ).digest()
    RunDir(root).write_front_pages()
    contents = json.loads((root / "bundle.json").read_text())
    for kind, entry in contents["artifacts"].items():
        entry["digest"] = digests[kind]
    from picochat.release.integrity import artifacts_of, evidence_digest

    contents["evidence_digest"] = evidence_digest(RunDir(root), artifacts_of(RunDir(root))[0])
    write_json(root / "bundle.json", contents)
    rewrite_sums(root)


def test_an_untouched_bundle_verifies_and_says_what_was_compared(bundle: Path) -> None:
    report = verified(bundle)
    assert report.verdict == "approved"
    assert {check.name for check in report.checks} >= {
        "checksums",
        "manifests",
        "chain of inputs",
        "summary",
    }
    assert all(check.compared > 0 for check in report.checks)
    assert "nothing differs" in report.lines()[0]


def test_a_run_folder_verifies_as_well(tmp_path: Path) -> None:
    assert verified(make_run(tmp_path / "run").root).verdict == "approved"


def test_repacked_without_changes_it_still_verifies(bundle: Path, tmp_path: Path) -> None:
    assert (
        verified(packed(unpacked(bundle, tmp_path))).evidence_digest
        == verified(bundle).evidence_digest
    )


@pytest.mark.parametrize("level", [".", "run"])
def test_a_bundle_unpacked_by_hand_verifies_where_it_lies_and_one_folder_above(
    level: str, bundle: Path, tmp_path: Path
) -> None:
    root = unpacked(bundle, tmp_path / "x")
    (tmp_path / "x" / "__MACOSX" / "run").mkdir(parents=True)
    for place in ("__MACOSX/run/._run.json", "__MACOSX/odd.txt", "run/.DS_Store", "run/._sft"):
        (tmp_path / "x" / place).write_bytes(b"x")
    report = verified(tmp_path / "x" / level)
    assert report.evidence_digest == verified(bundle).evidence_digest
    assert {check.name for check in report.checks} >= {"checksums", "contents"}
    (root / "eval" / "extra.txt").write_bytes(b"x")
    assert any("eval/extra.txt" in what for what in differences(tmp_path / "x" / level))


@pytest.mark.parametrize("linked", ["eval/report.md", "honesty", "extra"])
def test_a_link_in_an_unpacked_bundle_is_refused_and_not_followed(
    linked: str, bundle: Path, tmp_path: Path
) -> None:
    place = unpacked(bundle, tmp_path) / linked
    if place.exists():
        place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match=f"{linked} is a link") as caught:
        inspect_bundle(tmp_path / "run", **STATED)
    assert caught.value.fix == "unpack the bundle again, or verify the .tgz"
    assert inspect_bundle(bundle, **STATED).exit_code == 0
    (tmp_path / "again").mkdir()
    assert inspect_bundle(unpacked(bundle, tmp_path / "again"), **STATED).exit_code == 0


def test_a_link_to_a_run_folder_verifies(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (tmp_path / "link").symlink_to(run.root)
    assert verified(tmp_path / "link").verdict == "approved"


def flip(path: Path) -> bytes:
    """Change one bit in the middle of a file; returns what it held."""
    whole = path.read_bytes()
    place = len(whole) // 2
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    return whole


def test_one_flipped_byte_in_any_file_is_found_and_the_file_is_named(
    bundle: Path, tmp_path: Path
) -> None:
    root = unpacked(bundle, tmp_path)
    records = ("SHA256SUMS", "bundle.json", "run.json")  # the next test has these
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name not in records)
    wholes = {file: flip(file) for file in files}
    found = differences(packed(root))
    for file in files:
        assert f"{file.relative_to(root).as_posix()}: its bytes differ from SHA256SUMS" in found
    for file, whole in wholes.items():
        file.write_bytes(whole)
    for file in (
        file
        for file in files
        if file.name in ("manifest.json", "replies.jsonl", "machine.json", "train.log")
    ):
        whole = flip(file)
        assert (
            f"{file.relative_to(root).as_posix()}: its bytes differ from SHA256SUMS"
            in differences(packed(root))
        )
        file.write_bytes(whole)
    assert verified(packed(root))


@pytest.mark.parametrize("name", ["SHA256SUMS", "bundle.json", "run.json"])
def test_one_flipped_byte_in_the_bundles_own_records_is_refused(
    bundle: Path, tmp_path: Path, name: str
) -> None:
    root = unpacked(bundle, tmp_path)
    flip(root / name)
    assert exit_code_of(packed(root)) in (3, 4)


def exit_code_of(path: Path) -> int:
    try:
        return inspect_bundle(path, **STATED).exit_code
    except BadInput as refusal:
        return refusal.exit_code


def test_a_difference_is_an_honest_no_that_lists_all_of_them(bundle: Path, tmp_path: Path) -> None:
    root = unpacked(bundle, tmp_path)
    flip(root / "rows" / "eval.jsonl")
    flip(root / "logs" / "train.log")
    with pytest.raises(CheckFailed) as refusal:
        verify_bundle(packed(root), **STATED)
    assert refusal.value.exit_code == 3
    whats = [problem.what for problem in refusal.value.problems]
    assert "logs/train.log: its bytes differ from SHA256SUMS" in whats
    assert "rows/eval.jsonl: its bytes differ from the manifest" in whats


def test_one_flipped_byte_in_any_file_of_a_run_folder_is_found(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    files = [
        file
        for spec in ARTIFACTS
        for file in sorted(run.place(spec.kind).rglob("*"))
        if file.name != "manifest.json"
    ]
    files = [file for file in files if file.is_file()]
    for file in files:
        flip(file)
    found = differences(run.root)
    for file in files:
        assert (
            f"{file.relative_to(run.root).as_posix()}: its bytes differ from the manifest" in found
        )


def test_a_removed_and_an_added_file_are_found(bundle: Path, tmp_path: Path) -> None:
    root = unpacked(bundle, tmp_path)
    (root / "rows" / "eval.jsonl").unlink()
    (root / "honesty" / "extra.txt").write_text("x")
    found = differences(packed(root))
    assert "rows/eval.jsonl: is missing" in found
    assert "honesty/extra.txt: honesty has no such file" in found


def test_a_changed_file_with_changed_checksums_is_found_by_its_manifest(
    bundle: Path, tmp_path: Path
) -> None:
    root = unpacked(bundle, tmp_path)
    with (root / "eval" / "replies.jsonl").open("a") as stream:
        stream.write("{}\n")
    rewrite_sums(root)
    assert any(
        what.startswith("eval/replies.jsonl: its bytes differ from the manifest")
        for what in differences(packed(root))
    )


def test_a_changed_artifact_with_its_manifest_is_found_by_the_chain(
    bundle: Path, tmp_path: Path
) -> None:
    root = unpacked(bundle, tmp_path)
    with (root / "rows" / "eval.jsonl").open("a") as stream:
        stream.write("{}\n")
    rewrite_manifest(root, "rows", lambda manifest: None)
    rewrite_sums(root)
    assert any("was made from another rows" in what for what in differences(packed(root)))


def raise_math(manifest: dict[str, Any]) -> None:
    manifest["facts"]["skills"]["math"]["clean"]["passed"] += 5


def lower_baseline(manifest: dict[str, Any]) -> None:
    finding = next(f for f in manifest["facts"]["findings"] if f["name"] == "sft_fit")
    finding["measured"] = 0.99


def relax_preflight(manifest: dict[str, Any]) -> None:
    finding = next(f for f in manifest["facts"]["findings"] if f["name"] == "documents")
    finding["bound"] = ">= 1"


@pytest.mark.parametrize(
    ("kind", "change", "expected"),
    [
        ("scores", raise_math, "scores.skills.math.clean.passed: states 118, its files give 113"),
        ("gate", lower_baseline, "].measured: states 0.99, the facts give 0.9"),
        ("preflight", relax_preflight, "preflight.findings[0].bound"),
    ],
)
def test_a_claim_that_was_forged_with_every_digest_is_found_by_computing_it_again(
    bundle: Path, tmp_path: Path, kind: str, change: Callable[[dict[str, Any]], None], expected: str
) -> None:
    root = unpacked(bundle, tmp_path)
    rewrite_manifest(root, kind, change)
    forge_everything(root)
    found = differences(packed(root))
    assert any(what.startswith(kind) and expected in what for what in found), found


@pytest.mark.parametrize(
    "name",
    [
        "summary/summary.md",
        "summary/report.html",
        "summary/gate.svg",
        "gate/gate.md",
        "preflight/preflight.json",
    ],
)
def test_a_page_that_was_forged_with_every_digest_is_found_by_rendering_it_again(
    bundle: Path, tmp_path: Path, name: str
) -> None:
    root = unpacked(bundle, tmp_path)
    text = (root / name).read_text()
    forged = text.replace("pass", "Pass", 1)
    assert forged != text
    (root / name).write_text(forged)
    forge_everything(root)
    assert any(
        what.startswith(f"{name}: differs from what the evidence gives")
        or name.split("/")[0] in what
        for what in differences(packed(root))
    )


def test_observations_that_a_page_cannot_be_made_of_are_a_difference(
    bundle: Path, tmp_path: Path
) -> None:
    root = unpacked(bundle, tmp_path)
    place = root / "summary" / "observed.json"
    seen = json.loads(place.read_text())
    place.write_bytes(
        pretty_json({name: value for name, value in seen.items() if name != "hours_of"})
    )
    forge_everything(root)
    assert any(
        what.startswith("summary") and "hours_of" in what for what in differences(packed(root))
    )


def test_forging_every_digest_without_a_change_verifies(bundle: Path, tmp_path: Path) -> None:
    """The forger of these tests is complete: what they find is the claim, not a digest that was
    forgotten.
    """
    root = unpacked(bundle, tmp_path)
    forge_everything(root)
    assert verified(packed(root))


def test_a_raised_verdict_in_bundle_json_is_found(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", facts={"rows": make_rows_facts(shared_items=1)})
    path = make_bundle(run, tmp_path / "b.tgz", None, strict=False).path
    root = unpacked(path, tmp_path / "x")
    contents = json.loads((root / "bundle.json").read_text())
    write_json(root / "bundle.json", {**contents, "verdict": "approved", "missing": []})
    rewrite_sums(root)
    found = differences(packed(root))
    assert any("states the verdict approved, the artifacts say blocked" in what for what in found)
    assert any("logs/: no log was given; bundle.json does not say so" in what for what in found)


def test_evidence_that_may_not_stay_out_is_missed(bundle: Path, tmp_path: Path) -> None:
    root = unpacked(bundle, tmp_path)
    data = (root / "honesty" / "hits.jsonl").read_bytes()
    (root / "honesty" / "hits.jsonl").unlink()
    contents = json.loads((root / "bundle.json").read_text())
    contents["left_out"]["honesty/hits.jsonl"] = {"sha256": digest_bytes(data), "reason": "large"}
    write_json(root / "bundle.json", contents)
    rewrite_sums(root)
    assert any("may not be" in what for what in differences(packed(root)))


def test_a_blocked_and_an_unfinished_run_verify_as_what_they_are(tmp_path: Path) -> None:
    blocked = make_run(tmp_path / "blocked", facts={"rows": make_rows_facts(shared_items=1)})
    assert verified(blocked.root).verdict == "blocked"
    stopped = make_run(
        tmp_path / "stopped",
        until="preflight",
        facts={"host": make_host_facts(tokens_per_second=None)},
    )
    report = verified(make_bundle(stopped, tmp_path / "s.tgz", None, strict=False).path)
    assert report.verdict == "unfinished"
    assert report.missing


def test_bundles_without_weights_verify_and_say_so(tmp_path: Path) -> None:
    path = make_bundle(
        make_run(tmp_path / "run"), tmp_path / "b.tgz", None, strict=False, include_weights=False
    ).path
    assert "sft/checkpoint/model.safetensors" in verified(path).left_out


OTHER = "0.1.0 at 0123456789abcdef0123456789abcdef01234567"


def test_differences_of_another_version_are_called_so_and_stay_differences(
    bundle: Path, tmp_path: Path
) -> None:
    flip(unpacked(bundle, tmp_path) / "eval" / "report.md")
    changed = packed(tmp_path / "run")
    report = inspect_bundle(changed, **STATED)
    with pytest.raises(CheckFailed) as caught:
        verify_bundle(changed, **STATED)
    said = caught.value.lines()
    assert f"picochat {OTHER} made it, and this is {picochat_version()}" in said[1]
    assert f"&& PYTHONPATH=../picochat-0123456789ab/src picochat run verify {changed}" in said[2]
    assert f"{len(report.problems)} differences" in said[0] and report.exit_code == 3
    assert [report.lines()[1].strip(), report.lines()[2].strip()] == [
        each.strip() for each in said[1:3]
    ]
    assert report.to_json()["made_by"] == OTHER
    same = replace(report, made_by=picochat_version())
    assert same.exit_code == 3 and same.other_version() is None
    assert not any("made it" in line for line in same.lines())
    assert verified(bundle).made_by == OTHER and verified(bundle).other_version() is None


@pytest.mark.parametrize("commit", ["$(touch x)", "--force", "0" * 40 + "; touch x", "main", None])
def test_only_a_plain_commit_gets_into_a_command(commit: str | None, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    machine = json.loads(run.machine.read_text())
    write_json(run.machine, {**machine, "commit": commit})
    (run.root / "gate.md").write_text("approved")
    other = inspect_bundle(run.root, **STATED).other_version()
    assert other is not None and other.fix == "verify it with that version of picochat"


def test_scores_that_cannot_be_computed_again_are_a_difference(bundle: Path) -> None:
    def broken(*_: object) -> Any:
        raise KeyError("passed")

    scores = replace(spec_of("scores"), facts_from=broken)
    report = inspect_bundle(bundle, specs=(scores,), cross_checks={})
    assert report.exit_code == 3
    assert "cannot be computed again: KeyError" in report.problems[0].what


def test_a_bundle_that_is_not_there_is_made_by_the_command(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(BadInput) as caught, opened_bundle(tmp_path / "run.tgz"):
        pass
    words = shlex.split(str(caught.value.fix).partition(": picochat ")[2])
    named = {"RUN": str(run.root), "RUN.tgz": str(tmp_path / "run.tgz")}
    assert run_command([named.get(word, word) for word in words]) == 0
    with opened_bundle(tmp_path / "run.tgz") as bundle:
        assert bundle is not None


@pytest.mark.parametrize("wrong", ["missing", "text", "folder", "other archive"])
def test_what_is_no_bundle_is_bad_input(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "x.tgz"
    if wrong == "text":
        path.write_text("hello")
    elif wrong == "folder":
        path.mkdir()
    elif wrong == "other archive":
        (tmp_path / "a").write_text("a")
        with tarfile.open(path, "w:gz") as archive:
            archive.add(tmp_path / "a", "run/a")
    with pytest.raises(BadInput):
        verify_bundle(path)


def test_the_report_is_one_json_object_with_every_difference(bundle: Path, tmp_path: Path) -> None:
    root = unpacked(bundle, tmp_path)
    flip(root / "eval" / "report.md")
    whole, broken = (verified(bundle).to_json(), inspect_bundle(packed(root), **STATED).to_json())
    assert (whole["holds"], broken["holds"]) == (True, False)
    assert json.loads(json.dumps(broken)) == broken
    assert "eval/report.md" in json.dumps(broken)
    assert not any(check["differences"] for check in whole["checks"])  # type: ignore[attr-defined]


def test_verifying_needs_no_torch(bundle: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from picochat.release.verify import verify_bundle
assert verify_bundle(Path({str(bundle)!r}), specs=(), cross_checks={{}}).exit_code == 0
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
