"""Signs the evidence digest of a run, and checks such a signature, with the library model-signing.

What is signed is one line of text, the last one that `run verify` prints. So one signature fits
every bundle of the run, with weights or without, and the exported model. It says nothing about what
the digest leaves out: times, logs and the record of the machine. Makes no keys, and does not know
whose key it is: who checks a signature must have the public key from the publisher.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from picochat.core.errors import BadInput, HubProblem, Problem, WrongUsage
from picochat.core.network import short_error
from picochat.core.records import require_writable, write_atomic
from picochat.release.verify import (
    VerifyCheck,
    VerifyReport,
    evidence_line,
    holding,
    inspect_bundle,
)

KEY_FIX = (
    "name a key without a password, as this makes one: openssl ecparam -name prime256v1 -genkey"
    " -noout -out KEY.pem; its public half: openssl ec -in KEY.pem -pubout -out KEY.pub"
)


@dataclass(frozen=True)
class GivenSignature:
    """A signature, and who is said to have made it.

    by: the file of a public key, or an identity (such as an e-mail address) and the address of the
    service that confirmed it.
    """

    signature: Path
    by: Path | tuple[str, str]


def stated_signature(
    signature: Path | None, public_key: Path | None, identity: str | None, provider: str | None
) -> GivenSignature | None:
    """The signature that the flags name, or None where no flag is given.

    Raises WrongUsage where they do not say what to check and who should have signed it, or where
    the library is not installed, and BadInput where there is no such file.
    """
    if signature is None and public_key is None and identity is None and provider is None:
        return None
    by = (identity, provider) if identity and provider else None
    half = (identity is None) != (provider is None)
    if signature is None or half or (by is None) == (public_key is None):
        raise WrongUsage(
            "a signature is checked against one key or one identity",
            fix=(
                "--signature SIG --public-key KEY.pub, or --signature SIG --identity NAME"
                " --identity-provider URL"
            ),
        )
    require_library()
    if not signature.is_file():
        raise BadInput(
            f"there is no signature {signature}", fix="name the file that `run sign` made"
        )
    found = by or public_key
    assert found is not None
    return GivenSignature(signature, found)


def require_library() -> None:
    """Raises WrongUsage if model-signing, or what it needs, is not installed."""
    # It imports OpenSSL, and release 1.1 does not say so to pip.
    if any(importlib.util.find_spec(name) is None for name in ("model_signing", "OpenSSL")):
        raise WrongUsage(
            "a signature needs the library model-signing, which is not installed",
            fix="pip install 'picochat[sign]'",
        )


def sign_evidence(path: Path, key: Path | None, out: Path) -> str:
    """Write a signature of the evidence of a bundle or run folder to `out`, by the key or without.

    Returns the line that was signed. Without a key, sigstore confirms who signs, in a browser or by
    the identity of a CI job; that needs a network. Raises CheckFailed where something differs, as
    nobody should sign what does not hold. WrongUsage where `out` exists, BadInput for what is no
    bundle, or a key that cannot sign, HubProblem where sigstore gave no signature.
    """
    require_library()
    from model_signing import signing

    if out.exists():
        raise WrongUsage(f"{out} exists, and nothing is overwritten", fix="--out ANOTHER.sig")
    require_writable(out)
    config = signing.Config()
    if key is not None:
        with key_errors(key):
            config.use_elliptic_key_signer(private_key=key)
    report = holding(inspect_bundle(path))
    with signed_text(report.evidence_digest) as text:
        made = text.with_name("signature")
        if key is None:
            with sigstore_errors(), contextlib.redirect_stdout(sys.stderr):
                config.use_sigstore_signer(use_ambient_credentials=True).sign(text, made)
        else:
            config.sign(text, made)
        write_atomic(out, made.read_bytes())
    return evidence_line(report.evidence_digest)


def with_signature(report: VerifyReport, stated: GivenSignature | None) -> VerifyReport:
    """The report with one more check: the signature is of its evidence digest, by that key or
    identity. Without a signature to check, the report as it is.

    Raises BadInput for a key that cannot be read, HubProblem where sigstore cannot be reached.
    """
    if stated is None:
        return report
    from model_signing import verifying

    config = verifying.Config()
    if isinstance(stated.by, Path):
        by = f"the holder of {stated.by}"
        with key_errors(stated.by):
            config.use_elliptic_key_verifier(public_key=stated.by)
    else:
        identity, provider = stated.by
        by = f"{identity}, as {provider} says"
        with sigstore_errors():
            config.use_sigstore_verifier(identity=identity, oidc_issuer=provider)
    problems = _differences(config, stated.signature, report.evidence_digest, by)
    note = None if problems else f"the evidence digest is signed by {by}"
    return replace(
        report, checks=(*report.checks, VerifyCheck("signature", 1, tuple(problems), note))
    )


def _differences(config: Any, signature: Path, digest: str | None, by: str) -> list[Problem]:
    try:
        # The library prints a warning about old signatures, and stdout may be for --json.
        with signed_text(digest) as text, contextlib.redirect_stdout(sys.stderr):
            config.verify(text, signature)
    # The file comes from a stranger: whatever the library cannot read in it is no signature.
    except Exception as error:
        return [
            Problem(
                f"{signature}: is no signature of evidence digest {digest} by {by}"
                f" ({type(error).__name__})"
            )
        ]
    return []


@contextmanager
def signed_text(digest: str | None) -> Iterator[Path]:
    """A file with the line that is signed, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="picochat-signature-") as folder:
        text = Path(folder) / "evidence.txt"
        text.write_text(f"{evidence_line(digest)}\n", encoding="utf-8")
        yield text


@contextmanager
def key_errors(key: Path) -> Iterator[None]:
    """What the library raises for a file that is no usable key, as BadInput."""
    try:
        yield
    # A password that lacks is a TypeError, RSA an AttributeError, an unknown curve a ValueError.
    except Exception as error:
        raise BadInput(
            f"{key} is no key for signatures ({short_error(error)})", fix=KEY_FIX
        ) from None


@contextmanager
def sigstore_errors() -> Iterator[None]:
    """What sigstore raises, on a machine without a network and otherwise, as HubProblem."""
    try:
        yield
    except Exception as error:
        raise HubProblem(
            f"sigstore, which signs without a key, did not answer as needed ({short_error(error)})",
            fix="repeat it where sigstore can be reached; a signature by a key needs no network",
        ) from None
