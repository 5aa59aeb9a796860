"""A variable with which no request can succeed is named with its remedy, in every command that
reaches the network, with exit code 5; no message holds a token or a password.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from picochat.cli.main import run_command
from picochat.config import ExternalConfig
from picochat.core.errors import HubProblem
from picochat.core.network import advice, open_client, short_error, without_secrets
from picochat.data.benchmarks.resolve import resolve_benchmarks
from picochat.release.push import PushTarget, require_target
from tests.fake_hub import FakeHub

COMMAND = "from picochat.cli.main import main; main()"
SECRETS = ("sEcret", "hf_abc", "hf_t")
STEER = ("HF_", "SSL", "REQUESTS", "HUGGING", "TRANSFORMERS_OFFLINE")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    for name in list(os.environ):
        if name.startswith(STEER) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with FakeHub() as running:
        lines = "".join(
            f'{{"text": "a text of some length in row {number}"}}\n' for number in range(50)
        )
        running.add_dataset("owner/name", {"train.jsonl": lines.encode()})
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


def import_command(folder: Path) -> list[str]:
    out = str(folder / "out.txt")
    return ["data", "hf-import", "--dataset", "owner/name", "--out", out, "--max-rows", "20"]


REFUSED = {
    "ALL_PROXY": ["socks4://u:sEcret@127.0.0.1:9", "http://u:sEc#sEcret@127.0.0.1:9"],
    "https_proxy": ["nonsense://sEcret@x", "http://127.0.0.1:port"],
    "HTTP_PROXY": ["http://", "http://127.0.0.1:9\n", "http://[::1:9", "http://u:sEcret @x:9"],
    "HF_TOKEN": ["hf_tök€n", "hf_abc\u200b", "hf_abc\ndef", "Bearer hf_abc", "'hf_abc'"],
    "HUGGING_FACE_HUB_TOKEN": ["hf_tök€n"],
    "SSL_CERT_FILE": ["/no/such.pem", "/dev/null", "/tmp"],
    "SSL_CERT_DIR": ["/no/such", "/no/such:/nor/this"],
    "SSLKEYLOGFILE": ["/no/such/log"],
    "HF_ENDPOINT": ["huggingface.co", "127.0.0.1:80", "ftp://x", "https://u:sEcret@x", "http://"],
    "HF_HUB_OFFLINE": ["1", "true"],
    "TRANSFORMERS_OFFLINE": ["YES"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values]
)
def test_a_variable_in_the_way_is_named_before_the_first_request(
    name: str,
    value: str,
    hub: FakeHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, value)
    assert run_command(import_command(tmp_path)) == 5
    said = capsys.readouterr().err
    assert f"{name} " in said and "fix: " in said
    assert not any(secret in said for secret in SECRETS)
    assert not hub.requests


def test_every_variable_in_the_way_is_named_at_once(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_tök€n")
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such.pem")
    with pytest.raises(HubProblem) as caught:
        open_client()
    assert [problem.what.split()[0] for problem in caught.value.problems] == [
        "HF_TOKEN",
        "SSL_CERT_FILE",
    ]
    assert all(problem.fix for problem in caught.value.problems)


def test_a_socks_proxy_without_its_package_names_the_package(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("ALL_PROXY", "socks5://u:sEcret@127.0.0.1:9")
    with pytest.raises(HubProblem, match="ALL_PROXY is a SOCKS proxy") as caught:
        open_client()
    assert "pip install socksio" in str(caught.value.fix)
    monkeypatch.setenv("NO_PROXY", "example.org, *")  # then no proxy is used at all
    open_client()
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("ALL_PROXY", "http://u:sEcret@127.0.0.1:9")
    open_client()


def in_process(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *import_command(folder)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_TOKEN", "hf_abcdef\n"),  # a very common paste
        ("HF_ENDPOINT", "{hub}/\n"),
        ("NO_PROXY", "[[::, http://[, exa mple"),
        ("HF_HOME", "/proc/nothing"),  # reading needs no folder of its own
        ("REQUESTS_CA_BUNDLE", "/no/such.pem"),  # the client does not read it
    ],
)
def test_a_variable_that_harms_nothing_is_no_error(
    name: str, value: str, hub: FakeHub, tmp_path: Path
) -> None:
    done = in_process(tmp_path, {name: value.format(hub=hub.endpoint)})
    assert done.returncode == 0, done.stderr
    assert not any(secret in done.stderr for secret in SECRETS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_HUB_DOWNLOAD_TIMEOUT", "abc"),  # the library fails while it is imported
        ("HF_TOKEN_PATH", "/tmp"),  # when the token is read
        ("HF_HUB_USER_AGENT_ORIGIN", "é"),  # when a request is made
    ],
)
def test_what_was_not_foreseen_names_the_variables_that_are_set(
    name: str, value: str, hub: FakeHub, tmp_path: Path
) -> None:
    done = in_process(tmp_path, {name: value})
    assert done.returncode == 5 and "Traceback" not in done.stderr
    assert name in done.stderr.splitlines()[-1]
    assert in_process(tmp_path, {}).returncode == 0


def test_a_saved_token_that_is_none_gives_way_to_one_of_the_environment(
    hub: FakeHub, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("hf_tök€n")
    saved = {"HF_TOKEN_PATH": str(tmp_path / "token")}
    done = in_process(tmp_path, saved)
    assert done.returncode == 5
    assert "export HF_TOKEN=hf_..." in done.stderr
    assert in_process(tmp_path, {**saved, "HF_TOKEN": "hf_abc"}).returncode == 0


def test_a_proxy_that_does_not_answer_is_named_without_its_password(
    hub: FakeHub, tmp_path: Path
) -> None:
    with FakeHub() as gone:
        proxy = gone.endpoint.replace("http://", "http://u:sEcret@")
    done = in_process(tmp_path, {"HTTP_PROXY": proxy})
    assert done.returncode == 5
    assert "HTTP_PROXY" in done.stderr.splitlines()[-1]
    assert "sEcret" not in done.stderr


def task_pack(folder: Path) -> None:
    pack = folder / "pack.json"
    pack.write_text("{}")
    flags = ["--dataset-pack", str(pack), "--source", "hf", "--no-promote", "--sft-rows", "200"]
    assert run_command(["data", "task-pack", *flags, "--eval-rows", "100"]) == 5


def push(folder: Path) -> None:
    with pytest.raises(HubProblem) as caught:
        require_target(PushTarget("me/model", token_variable="OTHER"))
    print("\n".join(caught.value.lines()), file=sys.stderr)


def external_eval(folder: Path) -> None:
    # A run goes on without a benchmark; the preflight judges that.
    found = resolve_benchmarks(ExternalConfig(benchmarks=("piqa",)))
    assert "SSL_CERT_FILE names /no/such.pem" in found.missing["piqa"]


@pytest.mark.parametrize("command", [task_pack, push, external_eval])
def test_every_command_that_reaches_the_network_looks_at_the_environment(
    command: Callable[[Path], None],
    hub: FakeHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such.pem")
    monkeypatch.setenv("OTHER", "hf_abcdef")
    command(tmp_path)
    assert "SSL_CERT_FILE names /no/such.pem" in capsys.readouterr().err
    assert not hub.requests


def test_the_token_of_a_push_is_the_only_one_that_is_looked_at(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_tök€n")
    monkeypatch.setenv("OTHER", "hf_abc\n")
    assert require_target(PushTarget("me/model", token_variable="OTHER")) == "hf_abc"
    monkeypatch.setenv("OTHER", "hf_abc\u200b")
    with pytest.raises(HubProblem, match="OTHER has a character"):
        require_target(PushTarget("me/model", token_variable="OTHER"))


def test_secrets_of_the_environment_are_taken_out_of_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef\n")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:p%40ss#sEcret@proxy:1")
    assert without_secrets("a hf_abcdef p@ss#sEcret p%40ss#sEcret") == "a *** *** ***"
    assert "hf_" not in short_error(ValueError("Illegal header value hf_abcdef"))
    assert short_error(UnicodeEncodeError("ascii", "hf_tök", 0, 1, "no")) == "UnicodeEncodeError"


def test_a_certificate_that_is_not_known_gets_the_variable_that_helps() -> None:
    error = OSError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    assert advice(error).startswith("export SSL_CERT_FILE=")
