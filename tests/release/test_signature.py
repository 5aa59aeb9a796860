"""One signature of the evidence fits every form of a run, and nothing else; the library's own
command agrees.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from picochat.cli.main import run_command
from picochat.core.errors import BadInput, HubProblem, WrongUsage
from picochat.release.bundle import make_bundle
from picochat.release.hf import ExportRequest, export_hf
from picochat.release.push import require_publishable
from picochat.release.signature import (
    KEY_FIX,
    GivenSignature,
    require_library,
    sign_evidence,
    stated_signature,
    with_signature,
)
from picochat.release.verify import inspect_bundle
from picochat.run.folder import RunDir
from tests.export_builders import TOKEN
from tests.forger import change_config, make_real_run

for name in ("transformers", "model_signing", "OpenSSL"):
    pytest.importorskip(name, reason=f"{name} is not installed: pip install 'picochat[hf,sign]'")
LIBRARY = [sys.executable, "-m", "model_signing"]


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """(private, public), made by the commands of the remedy."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    for command in re.findall(r"openssl [^;]*", KEY_FIX):
        words = shlex.split(command.replace("KEY", name))
        subprocess.run(words, cwd=folder, check=True, capture_output=True, timeout=60)
    return folder / f"{name}.pem", folder / f"{name}.pub"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the keys of two publishers, mine and other."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        key_pair(folder, name)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return make_real_run(tmp_path_factory.mktemp("run"), more={"model.head_width": 32})


@pytest.fixture(scope="module")
def bundle(run: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(run, tmp_path_factory.mktemp("b") / "b.tgz", None, strict=False).path


@pytest.fixture(scope="module")
def signature(bundle: Path, keys: Path) -> Path:
    assert run_command(["run", "sign", str(bundle), "--key", str(keys / "mine.pem")]) == 0
    return Path(f"{bundle}.sig")


@pytest.fixture(scope="module")
def exported(run: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_hf(
        ExportRequest(
            checkpoint=run.place("sft"),
            tokenizer=run.place("tokenizer") / "tokenizer.json",
            out_dir=tmp_path_factory.mktemp("export") / "model",
            model_name="pico-test",
        )
    ).place


def checked(path: Path, signature: Path, key: Path) -> list[str]:
    report = with_signature(inspect_bundle(path), GivenSignature(signature, key))
    assert report.checks[-1].name == "signature"
    return [problem.what for problem in report.problems]


def test_one_signature_fits_bundles_with_and_without_weights_run_folder_and_exported_model(
    run: RunDir,
    bundle: Path,
    signature: Path,
    exported: Path,
    keys: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bare = make_bundle(run, tmp_path / "bare.tgz", None, strict=False, include_weights=False).path
    assert bare.read_bytes() != bundle.read_bytes()
    stated = ["--signature", str(signature), "--public-key", str(keys / "mine.pub")]
    for command, path in (("run", bundle), ("run", bare), ("run", run.root), ("export", exported)):
        assert run_command([command, "verify", str(path), *stated]) == 0
        shown = capsys.readouterr().out
        assert "signature: 1 compared: the evidence digest is signed by the holder of" in shown


def test_a_signature_of_another_key_or_of_another_run_is_a_difference(
    run: RunDir,
    bundle: Path,
    signature: Path,
    keys: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert checked(bundle, signature, keys / "mine.pub") == []
    told = checked(bundle, signature, keys / "other.pub")
    assert len(told) == 1 and "is no signature of evidence digest" in told[0]
    forged = RunDir(Path(shutil.copytree(run.root, tmp_path / "forged")))
    change_config(forged, lambda config: config["base"].update(weight_decay=0.5))
    told = checked(forged.root, signature, keys / "mine.pub")
    assert f"{signature}: is no signature of evidence digest" in told[-1]
    words = ["--signature", str(signature), "--public-key", str(keys / "other.pub")]
    assert run_command(["run", "verify", str(bundle), *words]) == 3
    assert "is no signature of evidence digest" in capsys.readouterr().err
    assert run_command(["run", "verify", str(bundle), *words, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["checks"][-1]["name"] == "signature"


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[" * 100_000, '{"verificationMaterial": {}}', "-----BEGIN CERTIFICATE-----\n"],
)
def test_a_file_that_is_no_signature_is_a_difference_and_no_traceback(
    bundle: Path, keys: Path, tmp_path: Path, text: str
) -> None:
    broken = tmp_path / "broken.sig"
    broken.write_text(text)
    assert len(checked(bundle, broken, keys / "mine.pub")) == 1


def test_a_signature_without_the_name_of_its_key_leaves_stdout_to_json(
    bundle: Path, signature: Path, keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The library prints a warning about such a signature."""
    value = json.loads(signature.read_text())
    value["verificationMaterial"]["publicKey"] = {}
    old = tmp_path / "old.sig"
    old.write_text(json.dumps(value))
    words = ["--signature", str(old), "--public-key", str(keys / "mine.pub"), "--json"]
    assert run_command(["run", "verify", str(bundle), *words]) == 0
    assert json.loads(capsys.readouterr().out)["holds"] is True


def test_the_command_of_the_library_checks_the_signature_too(
    bundle: Path, signature: Path, keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last line of `run verify`, as a file, is what was signed."""
    assert run_command(["run", "verify", str(bundle)]) == 0
    text = tmp_path / "evidence.txt"
    text.write_text(capsys.readouterr().out.splitlines()[-1] + "\n")
    command = [*LIBRARY, "verify", "key", str(text), "--signature", str(signature)]
    command += ["--public_key", str(keys / "mine.pub")]
    assert subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 0
    text.write_text("evidence digest " + "0" * 64 + "\n")
    assert subprocess.run(command, check=False, capture_output=True, timeout=60).returncode != 0


def test_a_folder_that_the_library_signed_is_still_the_export_and_may_be_pushed(
    exported: Path, keys: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "model"))
    common = [str(folder), "--signature", str(folder / "model.sig")]
    sign = [*LIBRARY, "sign", "key", *common, "--private_key", str(keys / "mine.pem")]
    verify = [*LIBRARY, "verify", "key", *common, "--public_key", str(keys / "mine.pub")]
    for command in (sign, verify):
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    assert run_command(["export", "verify", str(folder)]) == 0
    require_publishable(folder, TOKEN)
    (folder / "README.md").write_text("# The best model\n")
    assert subprocess.run(verify, check=False, capture_output=True, timeout=60).returncode != 0


def test_an_unsigned_bundle_verifies_as_before_and_says_nothing_of_signatures(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["run", "verify", str(bundle)]) == 0
    assert "signature" not in capsys.readouterr().out


def test_what_does_not_hold_is_not_signed(
    run: RunDir, keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = RunDir(Path(shutil.copytree(run.root, tmp_path / "broken")))
    (broken.place("scores") / "report.md").write_text("# all passed")
    words = ["run", "sign", str(broken.root), "--key", str(keys / "mine.pem")]
    assert run_command(words) == 3
    assert "does not hold what it claims" in capsys.readouterr().err
    assert not Path(f"{broken.root}.sig").exists()


def test_a_signature_overwrites_nothing(bundle: Path, keys: Path, tmp_path: Path) -> None:
    key, before = keys / "mine.pem", bundle.read_bytes()
    for taken in (bundle, key, tmp_path):
        with pytest.raises(WrongUsage, match="exists, and nothing is overwritten"):
            sign_evidence(bundle, key, taken)
    assert bundle.read_bytes() == before
    sign_evidence(bundle, key, tmp_path / "another.sig")


def test_a_key_that_cannot_sign_is_one_message(bundle: Path, keys: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.pem"
    words = ["openssl", "ec", "-in", str(keys / "mine.pem"), "-aes128", "-passout", "pass:x"]
    subprocess.run([*words, "-out", str(secret)], check=True, capture_output=True, timeout=60)
    rsa = tmp_path / "rsa.pem"
    words = ["openssl", "genpkey", "-algorithm", "RSA", "-out", str(rsa)]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    for key in (tmp_path / "nothing.pem", bundle, secret, rsa, keys / "mine.pub"):
        with pytest.raises(BadInput, match="is no key for signatures"):
            sign_evidence(bundle, key, tmp_path / "x.sig")
    for key in (tmp_path / "nothing.pub", bundle, keys / "mine.pem"):
        with pytest.raises(BadInput, match="is no key for signatures"):
            checked(bundle, bundle, key)
    assert not (tmp_path / "x.sig").exists()
    key, public = key_pair(tmp_path, "new")
    sign_evidence(bundle, key, tmp_path / "x.sig")
    assert checked(bundle, tmp_path / "x.sig", public) == []


def test_flags_that_do_not_say_whose_signature_it_is_are_wrong_usage(
    bundle: Path, signature: Path, keys: Path, tmp_path: Path
) -> None:
    key = keys / "mine.pub"
    assert stated_signature(None, None, None, None) is None
    for flags in (
        (signature, None, None, None),
        (None, key, None, None),
        (signature, None, "me", None),
        (signature, key, "me", "https://accounts.example"),
        (None, None, "me", "https://accounts.example"),
    ):
        with pytest.raises(WrongUsage, match="one key or one identity"):
            stated_signature(*flags)
    with pytest.raises(BadInput, match="there is no signature"):
        stated_signature(keys / "nothing.sig", key, None, None)
    assert stated_signature(signature, key, None, None) == GivenSignature(signature, key)
    identity = ("me", "https://accounts.example")
    assert stated_signature(signature, None, *identity) == GivenSignature(signature, identity)
    sign, mine = ["run", "sign", str(bundle), "--out", str(tmp_path / "x.sig")], keys / "mine.pem"
    assert run_command(sign) == run_command([*sign, "--keyless", "--key", str(mine)]) == 2
    assert run_command([*sign, "--key", str(mine)]) == 0


def test_sigstore_that_cannot_be_reached_is_one_message(
    bundle: Path, signature: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sockets of the tests reach this machine alone."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(HubProblem, match="sigstore, which signs without a key, did not answer"):
        sign_evidence(bundle, None, tmp_path / "x.sig")
    assert not (tmp_path / "x.sig").exists()
    with pytest.raises(HubProblem, match="did not answer"):
        identity = ("me@example.org", "https://accounts.example")
        with_signature(inspect_bundle(bundle), GivenSignature(signature, identity))
    sign_evidence(bundle, keys / "mine.pem", tmp_path / "x.sig")
    assert checked(bundle, tmp_path / "x.sig", keys / "mine.pub") == []


def test_the_missing_library_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WrongUsage, match="model-signing, which is not installed"):
        require_library()
