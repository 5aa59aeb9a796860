"""Options that commands of several groups share, each declared once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from picochat.core.errors import WrongUsage

SignatureOption = Annotated[
    Path | None, typer.Option(help="a signature of the evidence, made by `run sign`, to check")
]
PublicKeyOption = Annotated[
    Path | None, typer.Option(help="with --signature: the publisher's public key, a .pem")
]
IdentityOption = Annotated[
    str | None, typer.Option(help="with --signature, of one without a key: who signed it")
]
ProviderOption = Annotated[
    str | None, typer.Option(help="with --identity: address of the service that confirmed it")
]
PushOption = Annotated[
    bool, typer.Option("--push-to-hub", help="publish what is written, as one commit")
]
RepositoryOption = Annotated[
    str | None, typer.Option(help="OWNER/NAME of the model on the Hub, made if it is not there")
]
PrivateOption = Annotated[bool, typer.Option("--private", help="make the repository private")]
TokenOption = Annotated[str, typer.Option(help="environment variable that holds the Hub's token")]
MessageOption = Annotated[str | None, typer.Option(help="of the one commit")]


def questions_to_ask(ask: str) -> int | None:
    """The number that --ask gives; None for all."""
    if ask != "all" and not re.fullmatch("[1-9][0-9]{0,8}", ask):
        raise WrongUsage(f"--ask {ask!r} is no number of questions", fix="--ask 50, or --ask all")
    return None if ask == "all" else int(ask)
