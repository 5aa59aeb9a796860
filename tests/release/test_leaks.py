"""What is published holds no token, key or password, in whatever form people leave one behind."""

from pathlib import Path

import pytest

from picochat.release.leaks import FORMS, is_packed, leaks_in_file

HEX = "0123456789abcdef"
LETTERS = "Ab3" * 40
SECRETS = {
    "hf_" + LETTERS[:34]: "a Hub token",
    "api_org_" + LETTERS[:34]: "a Hub token",
    "ghp_" + LETTERS[:36]: "a GitHub token",
    "github_pat_" + LETTERS[:22] + "_" + LETTERS[:59]: "a GitHub token",
    "glpat-" + LETTERS[:20]: "a GitLab token",
    "AKIA" + "ABCD2345" * 2: "an AWS key",
    "AIza" + LETTERS[:35]: "a Google key",
    "ya29." + LETTERS[:60]: "a Google token",
    "AccountKey=" + LETTERS[:86] + "==": "an Azure key",
    "https://s3.example/x?X-Amz-Signature=" + HEX * 4: "a signed address",
    "https://b.example/x?sv=1&sig=" + LETTERS[:43] + "%3D": "a signed address",
    "sk-proj-" + LETTERS[:48]: "an API key",
    "gsk_" + LETTERS[:52]: "an API key",
    "r8_" + LETTERS[:37]: "a Replicate key",
    "rpa_" + "AB3" * 15: "a RunPod key",
    "dop_v1_" + HEX * 4: "a DigitalOcean token",
    "dapi" + HEX * 2: "a Databricks token",
    '"wandb_api_key": "' + (HEX * 3)[:40] + '"': "a Weights & Biases key",
    "machine api.wandb.ai\n  login user\n  password " + (HEX * 3)[:40]: "a Weights & Biases key",
    "xoxb-123456789012-" + LETTERS[:24]: "a Slack token",
    "https://hooks.slack.com/services/T12/B34/" + LETTERS[:24]: "a Slack address",
    "https://discord.com/api/webhooks/123456789012345678/" + LETTERS[:68]: "a Discord address",
    "123456789:AA" + LETTERS[:33]: "a Telegram token",
    "npm_" + LETTERS[:36]: "an npm token",
    "pypi-AgEIcHlwaS5vcmc" + LETTERS[:100]: "a PyPI token",
    "eyJ" + LETTERS[:20] + ".eyJ" + LETTERS[:40] + "." + LETTERS[:43]: "a signed web token",
    "-----BEGIN OPENSSH PRIVATE KEY-----": "a private key",
    "http://user:s3cret-word@proxy.example:3128": "a password in an address",
}
INNOCENT = """
hf_hub_download, hf_transfer; sha256
0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
wandb: run of commit 0123456789abcdef0123456789abcdef01234567
HF_TOKEN=$HF_TOKEN WANDB_API_KEY=*** http://user:***@proxy.example http://127.0.0.1:6006/@x
https://huggingface.co/datasets/a/b/resolve/main/x.parquet?download=true
task-specific-tokens-of-a-longer-run-of-this-model
{"eos_token": "<|end|>", "train_tokens": 1234567890123, "password": "I cannot help with that."}
-----BEGIN PUBLIC KEY-----
"""


def found(path: Path, data: bytes, *, is_log: bool = False, name: str = "a.json") -> list[str]:
    path.write_bytes(data)
    return leaks_in_file(path, name, is_log=is_log)


def test_every_form_has_its_example() -> None:
    assert {what for what, _, _ in FORMS} == set(SECRETS.values())


@pytest.mark.parametrize(("secret", "what"), SECRETS.items())
def test_secrets_of_every_form_are_found(tmp_path: Path, secret: str, what: str) -> None:
    for text in (f"{{'key': '{secret}'}}\n", secret, "x" * ((1 << 20) - 60) + f" {secret} "):
        assert found(tmp_path / "a.json", text.encode()) == [what]
    for encoding in ("utf-16-le", "utf-16-be", "utf-16"):
        assert found(tmp_path / "a.json", f"key: {secret}\n".encode(encoding)) == [what]
    assert found(tmp_path / "a.json", b"", name=f"logs/{secret}.log") == [what]


def test_what_only_looks_like_a_secret_is_not_found(tmp_path: Path) -> None:
    assert found(tmp_path / "a.log", INNOCENT.encode(), is_log=True) == []


def test_what_an_export_shows_is_found_in_a_log_alone(tmp_path: Path) -> None:
    shown = b"declare -x MY_HUB_PASSWORD=correct-horse\n"
    assert found(tmp_path / "a", shown, is_log=True) == ["a secret that is set"]
    assert found(tmp_path / "a", shown) == []


def test_weights_are_searched_for_values_and_not_for_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "model.safetensors"
    assert found(weights, b"hf_" + b"Ab3" * 12) == []
    monkeypatch.setenv("HF_TOKEN", "hf_" + "Ab3" * 12)
    assert found(weights, b"hf_" + b"Ab3" * 12) == ["the value of HF_TOKEN"]


def test_compressed_files_are_told_by_their_first_bytes(tmp_path: Path) -> None:
    import bz2
    import gzip
    import lzma
    import zipfile

    import zstandard

    zipped = tmp_path / "a.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a", "x")
    assert is_packed(zipped)
    for pack in (gzip.compress, bz2.compress, lzma.compress, zstandard.compress):
        (tmp_path / "a.log").write_bytes(pack(b"step 1\n"))
        assert is_packed(tmp_path / "a.log")
    (tmp_path / "a.log").write_text("step 1\n")
    assert not is_packed(tmp_path / "a.log")
