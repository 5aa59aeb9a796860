"""The kept run of docs/proof/cpu: its bundle verifies, and its page states what the bundle states.

Pages and rules change, and a bundle is compared with what the verifier's own version writes. So the
bundle is verified by the code of the commit that made it, which the page names.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROOF = ROOT / "docs" / "proof" / "cpu"
BUNDLE = PROOF / "small-wiki-v3.tgz"
VERIFIED, FAILED = 0, 3


def page() -> str:
    return (PROOF / "README.md").read_text()


def commit() -> str:
    named = re.search(r"git worktree add \S+ ([0-9a-f]{40})", page())
    assert named, "the page names the commit to verify with"
    return named[1]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """src/ as it was at the commit that made the bundle."""
    archive = subprocess.run(
        ["git", "archive", commit(), "src"], cwd=ROOT, capture_output=True, check=False
    )
    if archive.returncode:
        pytest.skip("this checkout has no history: git cannot give the commit of the proof")
    folder = tmp_path_factory.mktemp("proof")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder / "src"


def verify(bundle: Path, source: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "picochat.cli.main", "run", "verify", str(bundle)],
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )


def bytes_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    assert stream is not None
    return stream.read()


def test_the_bundle_verifies_and_has_the_digest_that_the_page_states(source: Path) -> None:
    found = verify(BUNDLE, source)
    assert found.returncode == VERIFIED, found.stdout + found.stderr
    digest = re.search(r"evidence digest ([0-9a-f]{64})", found.stdout)
    assert digest and digest[1][:16] in page()


def test_a_changed_reply_is_found(source: Path, tmp_path: Path) -> None:
    """The first reply is made the expected one, and all else is left as it is."""
    forged = tmp_path / "forged.tgz"
    with tarfile.open(BUNDLE) as kept, tarfile.open(forged, "w:gz") as tar:
        for member in kept:
            data = bytes_of(kept, member)
            if member.name.endswith("eval/replies.jsonl"):
                first, rest = data.split(b"\n", 1)
                row = json.loads(first)
                assert row["reply"] != row["expected"]
                data = json.dumps({**row, "reply": row["expected"]}).encode() + b"\n" + rest
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    found = verify(forged, source)
    assert found.returncode == FAILED
    assert "eval/replies.jsonl" in found.stdout + found.stderr


def test_verified_with_another_version_it_names_the_command_that_verifies_it(
    source: Path, tmp_path: Path
) -> None:
    """The command is run as it is printed, in a clone, by the shell."""
    found = verify(BUNDLE, ROOT / "src")
    assert found.returncode == FAILED
    assert f"picochat 0.1.0 at {commit()} made it" in found.stderr
    fix = re.search(r"fix: verify it with that version, in a clone of picochat: (.*)", found.stderr)
    assert fix
    clone = tmp_path / "clone"
    subprocess.run(
        ["git", "clone", "--quiet", "--shared", "--no-checkout", ROOT, clone], check=True
    )
    (tmp_path / "picochat").write_text(f'exec {sys.executable} -m picochat.cli.main "$@"\n')
    (tmp_path / "picochat").chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", fix[1]],
        cwd=clone,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == VERIFIED, done.stdout + done.stderr


def test_the_page_states_the_figures_of_the_bundle() -> None:
    with tarfile.open(BUNDLE) as kept:
        named = next(one for one in kept if one.name.endswith("/summary/summary.json"))
        summary = json.loads(bytes_of(kept, named))
    scores = summary["scores"]
    for skill, score in scores["skills"].items():
        clean = score["clean"]
        assert f"| {skill} | {clean['passed']} of {clean['count']} |" in page()
    for name in ("base_bits_per_byte", "sft_bits_per_byte", "ngram_bits_per_byte"):
        assert f"{scores[name]:.3f}" in page()
    assert f"**{summary['verdict']['status']}**" in page()
