"""Requests to a Hub that end: each is bounded in silence and in slowness, and tried again while the
fault may pass.

Tried again: 408, 425, 429, 5xx, broken, silent or dripping connections, bodies that are cut or of
another range than asked. A read goes on at the byte where it stopped, and attempts count from the
last progress on. `Retry-After`, in seconds or as a date, holds all threads back. A token of the
environment is sent and is never part of a message, nor is a signed address.
"""

from __future__ import annotations

import email.utils
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from picochat.core.errors import HubProblem, PicochatError
from picochat.core.progress import say

T = TypeVar("T")
PUBLIC_ENDPOINT = "https://huggingface.co"
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
PROGRESS_BYTES = 256 << 10  # that much of a body makes earlier failures of the same read forgotten
MOST_ERROR_BYTES = 64 << 10


@dataclass(frozen=True)
class Patience:
    """How long a fault is borne.

    `timeout_s`: without a byte, and also the window in which a body must keep its pace.
    """

    timeout_s: float = 30.0
    slowest_bytes_per_s: int = 1000
    attempts: int = 8
    first_attempts: int = (
        4  # for the very first question: a Hub that cannot be reached at all is said within seconds
    )
    first_pause_s: float = 0.5
    longest_pause_s: float = 60.0


class UnknownRevision(HubProblem):
    """The dataset exists, the revision does not."""


@dataclass
class Traffic:
    """What was fetched, for the observation that an import leaves."""

    bytes: int = 0
    requests: int = 0
    retries: int = 0


@dataclass(frozen=True)
class Wanted:
    """What a request asks for, as its messages name it."""

    dataset: str
    revision: str
    file: str | None = None


class HubRequests:
    """The client of one endpoint. Threads may share it."""

    def __init__(self, patience: Patience) -> None:
        try:
            import huggingface_hub
            from huggingface_hub import errors, utils
        except ModuleNotFoundError:
            raise HubProblem(
                "reading from the Hub needs huggingface_hub", fix="pip install 'picochat[hf]'"
            ) from None
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}:
            raise HubProblem(
                "HF_HUB_OFFLINE is set",
                fix="unset HF_HUB_OFFLINE, or give --dataset a local folder or file",
            )
        self.endpoint = os.environ.get("HF_ENDPOINT", PUBLIC_ENDPOINT).rstrip("/")
        self.patience, self.traffic = patience, Traffic()
        self._library, self._errors, self._utils = huggingface_hub, errors, utils
        self._session: Any = utils.get_session()
        # Version 1 of the library speaks through httpx, version 2 through httpx2: take the error
        # class of the one in use.
        self._client: Any = sys.modules[type(self._session).__module__.partition(".")[0]]
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._not_before = 0.0

    def stop(self) -> None:
        """Let the threads that wait for another attempt give up: the import is ending."""
        self._stopped.set()

    def require_name(self, id: str) -> None:
        """Raises HubProblem where `id` cannot be the name of a dataset."""
        try:
            self._utils.validate_repo_id(id)
        except self._errors.HFValidationError as error:
            raise self._problem(error, Wanted(id, "")) from None

    def file_url(self, dataset: str, revision: str, name: str) -> str:
        return self._library.hf_hub_url(
            dataset, name, repo_type="dataset", revision=revision, endpoint=self.endpoint
        )

    def json(self, path: str, wanted: Wanted, *, first: bool = False) -> tuple[Any, dict[str, str]]:
        """The JSON value at a path of the endpoint, and its links by relation (`next`)."""
        data = bytearray()

        def ask() -> Any:
            data.clear()
            return self._get(f"{self.endpoint}{path}", {}, data, None)

        attempts = self.patience.first_attempts if first else self.patience.attempts
        response = self._again(ask, wanted, attempts, lambda: 0)
        try:
            value = json.loads(data)
        except ValueError:
            raise HubProblem(
                f"{self.endpoint} answers something that is no JSON", fix="see HF_ENDPOINT"
            ) from None
        return value, {name: str(link.get("url", "")) for name, link in response.links.items()}

    def range(self, url: str, start: int, stop: int, size: int, wanted: Wanted) -> bytes:
        """Bytes start to stop of a file of `size` bytes."""
        data = bytearray()

        def ask() -> None:
            first = start + len(data)
            if first < stop:
                self._get(url, {"Range": f"bytes={first}-{stop - 1}"}, data, (first, stop, size))
            if len(data) != stop - start:
                raise self._client.ReadError(f"{len(data)} of {stop - start} bytes came")

        self._again(ask, wanted, self.patience.attempts, lambda: len(data))
        return bytes(data)

    def _get(
        self, url: str, headers: dict[str, str], data: bytearray, span: tuple[int, int, int] | None
    ) -> Any:
        """The response, its body appended to `data`, which keeps what came where the connection
        broke.
        """
        headers = {**self._utils.build_hf_headers(), **headers, "Accept-Encoding": "identity"}
        self._count(requests=1)
        timeout_s = self.patience.timeout_s
        with self._session.stream(
            "GET", url, headers=headers, timeout=timeout_s, follow_redirects=True
        ) as response:
            if response.status_code >= 400:
                self._raise_status(response)
            if span is not None:
                self._require_range(response, span)
            room = None if span is None else span[1] - span[0]
            for block in self._paced(response):
                data += block if room is None else block[:room]
                self._count(bytes=len(block))
                if room is not None and len(block) > room:
                    raise self._client.RemoteProtocolError("more bytes came than were asked for")
                room = None if room is None else room - len(block)
            return response

    def _paced(self, response: Any) -> Any:
        """The blocks of a body.

        Raises the client's ReadTimeout where too few bytes come in a window of timeout_s.
        """
        since, received = time.monotonic(), 0
        for block in response.iter_bytes():
            yield block
            received += len(block)
            elapsed_s = time.monotonic() - since
            if elapsed_s < self.patience.timeout_s:
                continue
            if received < self.patience.slowest_bytes_per_s * elapsed_s:
                raise self._client.ReadTimeout(f"only {received} bytes in {elapsed_s:.0f}s")
            since, received = time.monotonic(), 0

    def _raise_status(self, response: Any) -> None:
        """The library's error for a status.

        Its body is read at the same pace, and no more of it than says anything.
        """
        body = bytearray()
        for block in self._paced(response):
            body += block
            if len(body) > MOST_ERROR_BYTES:
                break
        headers = {
            name: value
            for name, value in response.headers.items()
            if name.lower() != "content-length"
        }
        said = self._client.Response(
            response.status_code, headers=headers, content=bytes(body), request=response.request
        )
        self._utils.hf_raise_for_status(said)

    def _require_range(self, response: Any, span: tuple[int, int, int]) -> None:
        """Raises HubProblem where the server serves no ranges, the client's error where it served
        another one this time.
        """
        first, stop, size = span
        if response.status_code == 200:
            if first == 0 and response.headers.get("Content-Length") == str(stop) and stop == size:
                return
            raise HubProblem(
                f"{self.endpoint} does not serve ranges of bytes (status 200)",
                fix="see HF_ENDPOINT",
            )
        given = response.headers.get("Content-Range", "")
        if given not in (f"bytes {first}-{stop - 1}/{size}", f"bytes {first}-{stop - 1}/*"):
            raise self._client.RemoteProtocolError(
                f"asked for bytes {first}-{stop - 1}/{size}, got {given or 'others'}"
            )

    def _again(
        self, request: Callable[[], T], wanted: Wanted, attempts: int, received: Callable[[], int]
    ) -> T:
        """What `request` gives, tried again while the fault may pass, with HubProblem for every
        fault that stays.
        """
        attempt, known = 0, 0
        while True:
            self._wait(self._not_before - time.monotonic())
            try:
                return request()
            except PicochatError:
                raise
            except (self._errors.HfHubHTTPError, self._client.TransportError) as error:
                if received() - known >= PROGRESS_BYTES:
                    attempt, known = 0, received()
                attempt += 1
                pause_s = self._pause_s(error, attempt)
                if pause_s is None or attempt >= attempts:
                    raise self._problem(error, wanted) from None
                self._count(retries=1)
                say(
                    f"the Hub: {_short(error)}; trying again in {pause_s:.1f}s ({attempt} of"
                    f" {attempts - 1})"
                )
                self._wait(pause_s)
            except Exception as error:
                if isinstance(
                    error, (self._errors.OfflineModeIsEnabled, OSError, self._client.HTTPError)
                ):
                    raise self._problem(error, wanted) from None
                raise

    def _wait(self, pause_s: float) -> None:
        if self._stopped.is_set() or (pause_s > 0 and self._stopped.wait(pause_s)):
            raise HubProblem("the import was stopped")

    def _pause_s(self, error: Exception, attempt: int) -> float | None:
        """Seconds to wait before the next attempt; None where another attempt cannot help."""
        response = getattr(error, "response", None)
        longest_s = self.patience.longest_pause_s
        pause_s = min(longest_s, self.patience.first_pause_s * 2 ** (attempt - 1))
        if response is None:
            return pause_s
        if response.status_code not in AGAIN:
            return None
        asked_s = retry_after_s(response.headers.get("Retry-After", ""))
        if asked_s is None:
            return pause_s
        pause_s = min(longest_s, max(pause_s, asked_s))
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + pause_s)
        return pause_s

    def _problem(self, error: Exception, wanted: Wanted) -> HubProblem:
        errors, what = self._errors, f"dataset {wanted.dataset}"
        if isinstance(error, errors.GatedRepoError):
            return HubProblem(
                f"{what} is gated: the Hub lets in only accounts that accepted its terms",
                fix=(
                    f"accept them at {self.endpoint}/datasets/{wanted.dataset}, then set HF_TOKEN"
                    " to a token of that account"
                ),
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return UnknownRevision(
                f"{what} has no revision {wanted.revision!r}",
                fix="--revision a branch, a tag or a commit of it",
            )
        if isinstance(error, (errors.RepositoryNotFoundError, errors.HFValidationError)):
            return HubProblem(
                f"{what} does not exist on {self.endpoint}, or is private",
                fix=(
                    "check the spelling (owner/name), or set HF_TOKEN for a private one; a local"
                    " folder must exist"
                ),
            )
        if isinstance(error, errors.EntryNotFoundError):
            return HubProblem(f"{what} has no file {wanted.file} at {wanted.revision}")
        where = f"{what}, {wanted.file}" if wanted.file else what
        return HubProblem(
            f"the Hub could not be read ({where}): {_short(error)}",
            fix="check the network, then run the same command again: it goes on where it stopped",
        )

    def _count(self, *, bytes: int = 0, requests: int = 0, retries: int = 0) -> None:
        with self._lock:
            self.traffic.bytes += bytes
            self.traffic.requests += requests
            self.traffic.retries += retries


def retry_after_s(value: str) -> float | None:
    """The seconds that a Retry-After header asks for, written as a number or as a date; None where
    it says neither.
    """
    if value.strip().isdigit():
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, date.timestamp() - time.time())


def _short(error: Exception) -> str:
    """One line without addresses: a signed address is a secret too."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"status {response.status_code}"
    first_line = (str(error).splitlines() or [""])[0]
    return (
        f"{type(error).__name__} {first_line}".strip()[:160]
        if "://" not in first_line
        else type(error).__name__
    )
