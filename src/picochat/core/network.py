"""What the environment says about the network, looked at before the first request.

`open_client` is the one way to the Hub's client. It refuses a variable with which no request can
succeed, names it, and says what to do; all such variables at once. What it does not foresee, the
client raises later: `unforeseen` has the classes of those errors, `advice` names the variables that
are set. No message contains a token or a password of a proxy (`without_secrets`).
"""

from __future__ import annotations

import importlib.util
import os
import re
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from picochat.core.errors import HubProblem, Problem

PUBLIC_ENDPOINT = "https://huggingface.co"
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
STEERING = (*PROXIES, "NO_PROXY", "no_proxy")
PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
TOKEN = re.compile(r"[!#-&(-~]+")  # printable ASCII without spaces and quotes
SHORTEST_SECRET = 4


class Client(NamedTuple):
    """The Hub's client. `http`: the HTTP library that its installed version uses."""

    library: Any
    errors: Any
    utils: Any
    http: Any


def open_client(token_variable: str | None = None) -> Client:
    """The Hub's client, once the environment lets it work.

    token_variable: holds the token that the caller passes on itself; None: the client looks for
    one. Raises HubProblem that names every variable in the way, or the package that is missing.
    """
    require_network(TOKENS if token_variable is None else (token_variable,))
    try:
        import huggingface_hub
        from huggingface_hub import errors, utils

        utils.get_session()
        saved = utils.get_token() if token_variable is None else None
    except ModuleNotFoundError:
        raise HubProblem(
            "the Hub's client, huggingface_hub, is not installed", fix="pip install 'picochat[hf]'"
        ) from None
    # The library parses its variables while it is imported.
    except Exception as error:
        raise HubProblem(
            f"the Hub's client does not start: {short_error(error)}",
            fix=f"correct or unset one of: {', '.join(steering_variables()) or 'HF_HOME'}",
        ) from None
    if saved and not TOKEN.fullmatch(saved):
        raise HubProblem(
            "the token that `hf auth login` saved has a character that no token has",
            fix="hf auth login again, or export HF_TOKEN=hf_...",
        )
    # Version 1 of the library uses httpx, version 2 httpx2. The error classes must come from the
    # one in use.
    http = sys.modules[errors.HfHubHTTPError.__bases__[0].__module__.partition(".")[0]]
    return Client(huggingface_hub, errors, utils, http)


def unforeseen(client: Client) -> tuple[type[Exception], ...]:
    """The errors with which the client, and what is below it, answers a variable that is wrong."""
    known = (OSError, ValueError, ImportError, RuntimeError)  # UnicodeError is a ValueError
    return (*known, client.http.HTTPError, client.http.InvalidURL)


def hub_endpoint() -> str:
    """The address of the Hub, without a slash at its end: HF_ENDPOINT, or the public one."""
    return os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or PUBLIC_ENDPOINT


def require_network(token_variables: tuple[str, ...]) -> None:
    """Raise HubProblem that names each variable with which no request can succeed."""
    problems = [
        Problem(f"{name} {found.what}", found.fix or f"unset {name}")
        for names, check in (
            ([name for name in OFFLINE if os.environ.get(name)][:1], _offline),
            (("HF_ENDPOINT",), _endpoint),
            (token_variables, _token),
            (() if _proxies_are_off() else PROXIES, _proxy),
            (("SSL_CERT_FILE",), _certificate_file),
            (("SSL_CERT_DIR",), _certificate_folder),
            (("SSLKEYLOGFILE",), _key_log),
        )
        for name in names
        if (value := os.environ.get(name)) and (found := check(value)) is not None
    ]
    if len(problems) == 1:
        raise HubProblem(problems[0].what, fix=problems[0].fix)
    if problems:
        raise HubProblem("the Hub cannot be reached with these variables", problems=problems)


# ---- one check for each kind of variable: its value -> what is wrong, or None --------------------

Check = Callable[[str], Problem | None]


def _offline(value: str) -> Problem | None:
    on = value.upper() in {"1", "TRUE", "YES", "ON"}
    return Problem("is set") if on else None


def _endpoint(value: str) -> Problem | None:
    example = f"export HF_ENDPOINT={PUBLIC_ENDPOINT}, or unset HF_ENDPOINT"
    address = value.strip()
    fault = _address_fault(address, ("http", "https"))
    if fault is None and "://" not in address:
        fault = "has no http:// or https:// in front"
    if fault is None and urlsplit(address).username is not None:
        return Problem("holds a user name or password", f"{example}; the Hub takes HF_TOKEN")
    return Problem(fault, example) if fault else None


def _token(value: str) -> Problem | None:
    if not value.strip() or TOKEN.fullmatch(value.strip()):
        return None
    return Problem(
        "has a character that no token has (a space, a line end, a quote or one beyond ASCII)",
        "copy the token again; it begins with hf_",
    )


def _proxy(value: str) -> Problem | None:
    fault = _address_fault(value, PROXY_SCHEMES)
    if fault:
        return Problem(
            fault, "give it as http://HOST:PORT, with special characters of a password as %XX"
        )
    if value.startswith("socks") and importlib.util.find_spec("socksio") is None:
        return Problem(
            "is a SOCKS proxy, which needs the package socksio",
            "pip install socksio, or name an http:// proxy",
        )
    return None


def _certificate_file(value: str) -> Problem | None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=value)
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror if not isinstance(error, ssl.SSLError) else "no certificates in it"
        return Problem(f"names {value}, which cannot be used: {reason}")
    return None


def _certificate_folder(value: str) -> Problem | None:
    if any(Path(folder).is_dir() for folder in value.split(os.pathsep)):
        return None
    return Problem(f"names {value}, which is no folder")


def _key_log(value: str) -> Problem | None:
    try:
        with Path(value).open("a"):
            return None
    except OSError as error:
        return Problem(f"names {value}, which cannot be written: {error.strerror}")


def _address_fault(address: str, schemes: tuple[str, ...]) -> str | None:
    """What is wrong with a URL, without a word of it, because it may hold a password."""
    if not address.isprintable() or " " in address:
        return "holds a space or a line end"
    try:
        parts = urlsplit(address if "://" in address else f"{schemes[0]}://{address}")
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "has no usable host and port"
    if parts.scheme not in schemes:
        return f"has another scheme than {', '.join(schemes)}"
    return None if host else "has no host"


def _proxies_are_off() -> bool:
    hosts = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    return "*" in (host.strip() for host in hosts.split(","))


# ---- what is said of errors that were not foreseen -----------------------------------------------


def advice(error: Exception) -> str:
    """The remedy after a request that failed: the network, and the variables that steer it."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "export SSL_CERT_FILE=FILE with the certificates that this network needs"
    return ", ".join(["check the network", *steering_variables()])


def steering_variables() -> list[str]:
    """Names of the variables that are set and that steer requests, without those of tokens."""
    return sorted(
        name
        for name, value in os.environ.items()
        if value and (name in STEERING or name.startswith("HF_")) and name not in TOKENS
    )


def short_error(error: Exception) -> str:
    """The error in one line, without URLs, because a signed URL is a secret."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"status {response.status_code}"
    name, first_line = type(error).__name__, (str(error).splitlines() or [""])[0]
    # The message of a UnicodeError quotes what could not be encoded, which may be a token.
    if "://" in first_line or isinstance(error, UnicodeError):
        return name
    return without_secrets(f"{name} {first_line}".strip())[:160]


def without_secrets(text: str) -> str:
    """The text with `***` for tokens and proxy passwords of this environment."""
    secrets = {os.environ.get(name, "").strip() for name in TOKENS}
    for name in PROXIES:
        # Not by urlsplit: a password may hold what makes the URL malformed.
        user_info = os.environ.get(name, "").partition("://")[2].rpartition("@")[0]
        password = user_info.partition(":")[2]
        secrets |= {password, unquote(password)}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return text
