"""Finds access tokens, keys and passwords in what is about to be published.

Three ways: values of this environment whose names say that they are secret, the published forms of
the tokens of hubs, clouds, trackers and forges, and in logs what an `export NAME=value` shows.
Text in UTF-16 is searched too. A compressed file hides all of this and is refused (`is_packed`).

Does not find a secret without a form of its own, such as a password in a sentence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from picochat.core.records import READ_BLOCK_BYTES

OVERLAP_BYTES = 4096  # longer than any token, so that none hides between two blocks
SHORTEST_VALUE = 12
NUMERIC_SUFFIXES = (".safetensors", ".bin", ".npz")
"""Files of numbers, in which a form would be chance. Values of the environment are searched."""

SECRET_NAME = re.compile(r"(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY)$")
FORMS: tuple[tuple[str, bytes, bytes], ...] = (
    # (what it is, text that each of its kind holds, its form as its maker publishes it)
    ("a Hub token", b"hf_", rb"hf_[A-Za-z0-9]{30,}"),
    ("a Hub token", b"api_org_", rb"api_org_[A-Za-z0-9]{30,}"),
    ("a GitHub token", b"gh", rb"gh[pousr]_[A-Za-z0-9]{36,}"),
    ("a GitHub token", b"github_pat_", rb"github_pat_[A-Za-z0-9_]{60,}"),
    ("a GitLab token", b"gl", rb"gl(?:pat|ptt|dt|rt)-[A-Za-z0-9_-]{20,}"),
    ("an AWS key", b"IA", rb"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    ("a Google key", b"AIza", rb"\bAIza[A-Za-z0-9_-]{35}"),
    ("a Google token", b"ya29.", rb"\bya29\.[A-Za-z0-9_-]{30,}"),
    ("an Azure key", b"AccountKey=", rb"AccountKey=[A-Za-z0-9+/]{60,}"),
    ("a signed address", b"ignature=", rb"[?&-]Signature=[A-Za-z0-9%~_-]{40,}"),
    ("a signed address", b"sig=", rb"[?&]sig=[A-Za-z0-9%_-]{40,}"),
    ("an API key", b"sk-", rb"\bsk-[A-Za-z0-9_-]{32,}"),
    ("an API key", b"gsk_", rb"gsk_[A-Za-z0-9]{40,}"),
    ("a Replicate key", b"r8_", rb"\br8_[A-Za-z0-9]{37}\b"),
    ("a RunPod key", b"rpa_", rb"\brpa_[A-Z0-9]{40,}"),
    ("a DigitalOcean token", b"_v1_", rb"\bdo[opr]_v1_[0-9a-f]{60,}"),
    ("a Databricks token", b"dapi", rb"\bdapi[0-9a-f]{32}\b"),
    ("a Weights & Biases key", b"", rb"(?i)wandb_?api_?key\W{1,5}[0-9a-f]{40}\b"),
    ("a Weights & Biases key", b"wandb.ai", rb"wandb\.ai[\s\S]{0,60}password\s+[0-9a-f]{40}\b"),
    ("a Slack token", b"xox", rb"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    ("a Slack address", b"hooks.slack.com", rb"hooks\.slack\.com/services/T\w+/B\w+/\w{16,}"),
    ("a Discord address", b"/webhooks/", rb"/api/webhooks/[0-9]{15,}/[A-Za-z0-9_-]{40,}"),
    ("a Telegram token", b":AA", rb"\b[0-9]{8,10}:AA[A-Za-z0-9_-]{33}\b"),
    ("an npm token", b"npm_", rb"\bnpm_[A-Za-z0-9]{36}\b"),
    ("a PyPI token", b"pypi-", rb"\bpypi-[A-Za-z0-9_-]{60,}"),
    ("a signed web token", b"eyJ", rb"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),
    ("a private key", b"PRIVATE KEY", rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    (
        "a password in an address",
        b"://",
        rb"://[^\s:/@\"'<>]{0,60}:(?!\*+@)[^\s/@\"'<>]{3,80}@[A-Za-z0-9]",
    ),
)
ASSIGNED = (
    "a secret that is set",
    b"=",
    rb"\b[A-Z][A-Z0-9_]*(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY)"
    rb"=[\"']?(?![*$])[^\s\"'$]{8,}",
)
PACKED = (b"\x1f\x8b", b"PK\x03\x04", b"\xfd7zXZ", b"BZh", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf")
"""The first bytes of gzip, zip, xz, bzip2, zstd and 7z."""


def values_of(environment: Mapping[str, str]) -> dict[str, bytes]:
    """Name -> value of the environment's secrets that are long enough to be searched for."""
    return {
        name: value.strip().encode("utf-8", "surrogateescape")
        for name, value in environment.items()
        if SECRET_NAME.search(name.upper()) and len(value.strip()) >= SHORTEST_VALUE
    }


def leaks_in_file(
    path: Path, name: str, *, is_log: bool, known: Mapping[str, str] | None = None
) -> list[str]:
    """What the file or its published name holds, such as "a Hub token"; empty if nothing.

    known: secrets beside those of the environment, by a name for them.
    """
    values = values_of(os.environ)
    values |= {label: secret.encode() for label, secret in (known or {}).items()}
    by_form = path.suffix not in NUMERIC_SUFFIXES
    found = _found_in([name.encode("utf-8", "surrogateescape")], values, by_form=True, is_log=True)
    return found or _found_in(_windows(path), values, by_form=by_form, is_log=is_log)


def is_packed(path: Path) -> bool:
    """Whether the file is compressed, so that nothing in it can be searched."""
    with path.open("rb") as stream:
        return stream.read(8).startswith(PACKED)


def _windows(path: Path) -> Iterable[bytes]:
    """The file in blocks that overlap."""
    tail = b""
    with path.open("rb") as stream:
        while block := stream.read(READ_BLOCK_BYTES):
            window = tail + block
            yield window
            tail = window[-OVERLAP_BYTES:]


def _found_in(
    windows: Iterable[bytes], values: Mapping[str, bytes], *, by_form: bool, is_log: bool
) -> list[str]:
    forms = [] if not by_form else [*FORMS, ASSIGNED] if is_log else FORMS
    for window in windows:
        # Letters of UTF-16 are letters of ASCII with a zero byte before or behind each.
        for text in (window, window.replace(b"\0", b"")) if b"\0" in window else (window,):
            found = [f"the value of {name}" for name, value in values.items() if value in text]
            found += [what for what, part, form in forms if part in text and re.search(form, text)]
            if found:
                return found
    return []
