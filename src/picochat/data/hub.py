"""The Hub as a place to read from: one dataset at one pinned commit, its card, its files, and ranges of their bytes.

Every request is bounded in time and tried again on 429, 5xx and broken connections; a read that was cut continues at the
byte where it stopped. `HF_TOKEN` and `HF_ENDPOINT` are honoured; a token is never part of a message. Writes nothing.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from picochat.core.errors import HubProblem, PicochatError
from picochat.core.progress import say
from picochat.data.layout import NO_CARD, Card, read_card

T = TypeVar("T")
PUBLIC_ENDPOINT = "https://huggingface.co"
CONVERTED_REVISION = "refs/convert/parquet"
ATTEMPTS = 8
FIRST_ATTEMPTS = 4  # for the very first question: a Hub that cannot be reached at all is said within seconds
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0
TIMEOUT_S = 30.0  # without a byte; a healthy read of any size goes on
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class UnknownRevision(HubProblem):
    """The dataset exists, the revision does not."""


@dataclass(frozen=True)
class HubFile:
    """One file of a repository. `digest` is the sha256 of large files, the git object id of small ones; it names its kind."""

    name: str
    bytes: int
    digest: str


@dataclass(frozen=True)
class HubDataset:
    """A dataset at a commit. `asked` is the revision that was asked for, `revision` the commit it stood for."""

    id: str
    asked: str
    revision: str
    card: Card
    files: tuple[HubFile, ...]


@dataclass
class Traffic:
    """What was fetched, for the observation that an import leaves."""

    bytes: int = 0
    requests: int = 0
    retries: int = 0


class Hub:
    """One endpoint of the Hub and the client that speaks to it. Threads may share it."""

    def __init__(self) -> None:
        try:
            import huggingface_hub
            from huggingface_hub import errors, utils
        except ModuleNotFoundError:
            raise HubProblem("reading from the Hub needs huggingface_hub", fix="pip install 'picochat[hf]'") from None
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}:
            raise HubProblem("HF_HUB_OFFLINE is set", fix="unset HF_HUB_OFFLINE, or give --dataset a local folder or file")
        self.endpoint = os.environ.get("HF_ENDPOINT", PUBLIC_ENDPOINT).rstrip("/")
        self.traffic = Traffic()
        self._library, self._errors, self._utils = huggingface_hub, errors, utils
        self._api = huggingface_hub.HfApi(endpoint=self.endpoint)
        self._session: Any = utils.get_session()
        # Version 1 of the library speaks through httpx, version 2 through httpx2: take the error class of the one in use.
        self._client_errors: Any = sys.modules[type(self._session).__module__.partition(".")[0]]
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let the threads that wait for another attempt give up: the import is ending."""
        self._stopped.set()

    def dataset(self, id: str, revision: str | None) -> HubDataset:
        """The dataset at `revision` (None: main), resolved to its commit once. Raises HubProblem."""
        asked = revision or "main"
        commit = self._call(
            lambda: self._api.dataset_info(id, revision=asked, timeout=TIMEOUT_S), id, asked, attempts=FIRST_ATTEMPTS
        ).sha
        if not commit:
            raise HubProblem(f"the Hub states no commit for dataset {id} at {asked}")
        entries = self._call(
            lambda: list(self._api.list_repo_tree(id, recursive=True, revision=commit, repo_type="dataset")), id, commit
        )
        files = tuple(_hub_file(entry) for entry in entries if hasattr(entry, "size"))
        return HubDataset(id, asked, commit, self._card(id, commit, files), files)

    def open(self, dataset: HubDataset, file: HubFile) -> io.RawIOBase:
        """The file as a seekable stream that fetches the ranges that are read."""
        return _RangedFile(self, dataset, file)

    def read_range(self, dataset: HubDataset, file: HubFile, start: int, stop: int) -> bytes:
        """Bytes start to stop of the file. Continues after what a broken connection delivered. Raises HubProblem."""
        data = bytearray()
        url = self._library.hf_hub_url(
            dataset.id, file.name, repo_type="dataset", revision=dataset.revision, endpoint=self.endpoint
        )
        self._call(lambda: self._fetch(url, start, stop, data), dataset.id, dataset.revision, file.name)
        return bytes(data)

    def _fetch(self, url: str, start: int, stop: int, data: bytearray) -> None:
        """Append the rest of the range to `data`, which an earlier attempt may have begun."""
        if start + len(data) >= stop:
            return
        first = start + len(data)
        headers = {**self._utils.build_hf_headers(), "Range": f"bytes={first}-{stop - 1}", "Accept-Encoding": "identity"}
        self._count(requests=1)
        with self._session.stream("GET", url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True) as response:
            if response.status_code >= 400:
                response.read()
                self._utils.hf_raise_for_status(response)
            self._check_range(response, first, stop, url)
            for block in response.iter_bytes():
                data += block
                self._count(bytes=len(block))
        if len(data) != stop - start:
            raise self._client_errors.ReadError(f"{len(data)} of {stop - start} bytes came")

    def _check_range(self, response: Any, first: int, stop: int, url: str) -> None:
        whole = response.status_code == 200 and first == 0 and response.headers.get("Content-Length") == str(stop)
        given = response.headers.get("Content-Range", "")
        if not whole and not given.startswith(f"bytes {first}-{stop - 1}/"):
            found = f"status {response.status_code}, Content-Range {given!r}"
            raise HubProblem(f"{url.partition('?')[0]}: the server does not serve ranges of bytes ({found})")

    def _card(self, id: str, commit: str, files: tuple[HubFile, ...]) -> Card:
        readme = next((file for file in files if file.name == "README.md"), None)
        if readme is None or readme.bytes == 0:
            return NO_CARD
        data = self.read_range(HubDataset(id, commit, commit, NO_CARD, files), readme, 0, readme.bytes)
        return read_card(data.decode("utf-8", errors="replace"))

    def _call(
        self, request: Callable[[], T], id: str, revision: str, file: str | None = None, *, attempts: int = ATTEMPTS
    ) -> T:
        """What `request` gives, tried again while the fault may pass, with HubProblem for every fault that stays."""
        for attempt in range(1, attempts + 1):
            try:
                return request()
            except PicochatError:
                raise
            except (self._errors.HfHubHTTPError, self._client_errors.TransportError) as error:
                pause = self._pause_s(error, attempt)
                if pause is None or attempt == attempts:
                    raise self._problem(error, id, revision, file) from None
                self._count(retries=1)
                say(f"the Hub: {_short(error)}; trying again in {pause:.1f}s ({attempt} of {attempts - 1})")
                if self._stopped.wait(pause):
                    raise HubProblem("the import was stopped") from None
            except Exception as error:
                if isinstance(error, (self._errors.OfflineModeIsEnabled, self._errors.HFValidationError, OSError)):
                    raise self._problem(error, id, revision, file) from None
                raise
        raise AssertionError("the loop above returns or raises")

    def _pause_s(self, error: Exception, attempt: int) -> float | None:
        """Seconds to wait before the next attempt; None where another attempt cannot help."""
        response = getattr(error, "response", None)
        if response is not None and response.status_code not in AGAIN:
            return None
        backoff = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (attempt - 1))
        asked = response.headers.get("Retry-After", "") if response is not None else ""
        return min(LONGEST_PAUSE_S, max(backoff, float(asked))) if asked.isdigit() else backoff

    def _problem(self, error: Exception, id: str, revision: str, file: str | None) -> HubProblem:
        errors, what = self._errors, f"dataset {id}"
        if isinstance(error, errors.GatedRepoError):
            return HubProblem(
                f"{what} is gated: the Hub lets in only accounts that accepted its terms",
                fix=f"accept them at {self.endpoint}/datasets/{id}, then set HF_TOKEN to a token of that account",
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return UnknownRevision(f"{what} has no revision {revision!r}", fix="--revision a branch, a tag or a commit of it")
        if isinstance(error, (errors.RepositoryNotFoundError, errors.HFValidationError)):
            return HubProblem(
                f"{what} does not exist on {self.endpoint}, or is private",
                fix="check the spelling (owner/name), or set HF_TOKEN for a private one; a local folder must exist",
            )
        if isinstance(error, errors.EntryNotFoundError):
            return HubProblem(f"{what} has no file {file} at {revision}")
        where = f"{what}, {file}" if file else what
        return HubProblem(
            f"the Hub could not be read ({where}): {_short(error)}",
            fix="check the network, then run the same command again: it goes on where it stopped",
        )

    def _count(self, *, bytes: int = 0, requests: int = 0, retries: int = 0) -> None:
        with self._lock:
            self.traffic.bytes += bytes
            self.traffic.requests += requests
            self.traffic.retries += retries


class _RangedFile(io.RawIOBase):
    """A file of the Hub as a stream: each read fetches just its range."""

    def __init__(self, hub: Hub, dataset: HubDataset, file: HubFile) -> None:
        self._hub, self._dataset, self._file = hub, dataset, file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        stop = self._file.bytes if size is None or size < 0 else min(self._file.bytes, self._at + size)
        if stop <= self._at:
            return b""
        data = self._hub.read_range(self._dataset, self._file, self._at, stop)
        self._at = stop
        return data

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _hub_file(entry: Any) -> HubFile:
    digest = f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git:{entry.blob_id}"
    return HubFile(entry.path, entry.size, digest)


def _short(error: Exception) -> str:
    """One line without addresses: a signed address is a secret too."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"status {response.status_code}"
    first_line = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__} {first_line}".strip()[:160] if "://" not in first_line else type(error).__name__
