"""A client of the Hub: lists a dataset's files at a pinned commit and reads ranges of their bytes.

No request waits for ever: a server that is silent or too slow counts as a fault. A request is
repeated after status 408, 425, 429 or 5xx, a broken or slow connection, and a body that is cut off
or of another range. `HF_TOKEN` and `HF_ENDPOINT` are honoured; no message contains a token. A file
is not compared with its digest, because only ranges of it are read.
"""

from __future__ import annotations

import email.utils
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

from picochat.core.errors import HubProblem, PicochatError
from picochat.core.network import advice, hub_endpoint, open_client, short_error, unforeseen
from picochat.core.progress import say

T = TypeVar("T")
REPEATED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
PROGRESS_BYTES = 256 << 10  # after so many, a read's attempts are counted from zero again
MOST_ERROR_BYTES = 64 << 10
MOST_CARD_BYTES = 4 << 20


@dataclass(frozen=True)
class RetryPolicy:
    """How long a fault is tolerated.

    timeout_s: longest time without a byte, and the window in which a body must average
    `slowest_bytes_per_s`. first_attempts: attempts of the first request; few, so that an
    unreachable Hub is reported within seconds.
    """

    timeout_s: float = 30.0
    slowest_bytes_per_s: int = 1000
    attempts: int = 8
    first_attempts: int = 4
    first_pause_s: float = 0.5
    longest_pause_s: float = 60.0


@dataclass
class TransferStats:
    """Counts of what was fetched from the Hub."""

    bytes: int = 0
    requests: int = 0
    retries: int = 0


class UnknownRevision(HubProblem):
    """The dataset exists, but not the revision."""


@dataclass(frozen=True)
class DataFile:
    """One file of a dataset.

    digest: `sha256:` of a large file of the Hub, `git:` object id of a small one. None for a local
    file, which is hashed after it was read.
    """

    name: str
    bytes: int
    digest: str | None


@dataclass(frozen=True)
class HubDataset:
    """A dataset at a commit. readme: the first MOST_CARD_BYTES of README.md, or ""."""

    id: str
    revision: str
    readme: str
    files: tuple[DataFile, ...]


class Target(NamedTuple):
    """What a request asks for, for error messages."""

    dataset: str
    revision: str
    file: str | None = None


class Hub:
    """The client of one endpoint. Threads may share it."""

    def __init__(self, retry: RetryPolicy) -> None:
        client = open_client()
        self.endpoint = hub_endpoint()
        self.retry, self.transfer = retry, TransferStats()
        self._library, self._errors, self._utils = client.library, client.errors, client.utils
        self._client, self._faults = client.http, unforeseen(client)
        self._session: Any = client.utils.get_session()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._not_before = 0.0

    def stop(self) -> None:
        """Make requests that wait for another attempt, and all later ones, raise HubProblem."""
        self._stopped.set()

    def dataset(self, id: str, revision: str | None) -> HubDataset:
        """The dataset at `revision` (None: main), resolved to its commit. Raises HubProblem."""
        try:
            self._utils.validate_repo_id(id)
        except self._errors.HFValidationError as error:
            raise self._problem(error, Target(id, "")) from None
        asked = revision or "main"
        path = f"/api/datasets/{id}/revision/{quote(asked, safe='')}"
        info, _ = self._json(path, Target(id, asked), self.retry.first_attempts)
        commit = info.get("sha") if isinstance(info, dict) else None
        if not isinstance(commit, str) or not commit:
            raise HubProblem(
                f"the Hub states no commit for dataset {id} at {asked}",
                fix="--revision a branch, a tag or a commit of it; see HF_ENDPOINT",
            )
        # Every later request names the commit, because a branch may move during the import.
        dataset = HubDataset(id, commit, "", self._list_files(id, commit))
        readme = next((file for file in dataset.files if file.name == "README.md"), None)
        if readme is None or readme.bytes == 0:
            return dataset
        data = self.read_range(dataset, readme, 0, min(readme.bytes, MOST_CARD_BYTES))
        return HubDataset(id, commit, data.decode("utf-8", errors="replace"), dataset.files)

    def open(self, dataset: HubDataset, file: DataFile) -> io.RawIOBase:
        """The file as a seekable stream; each read fetches only its range."""
        return _RangedFile(self, dataset, file)

    def read_range(self, dataset: HubDataset, file: DataFile, start: int, stop: int) -> bytes:
        """Bytes start to stop of the file. Raises HubProblem."""
        url = self._library.hf_hub_url(
            dataset.id,
            file.name,
            repo_type="dataset",
            revision=dataset.revision,
            endpoint=self.endpoint,
        )
        data = bytearray()

        def ask() -> None:
            # After a fault the read goes on at the byte where it stopped.
            first = start + len(data)
            if first < stop:
                span = (first, stop, file.bytes)
                self._get(url, {"Range": f"bytes={first}-{stop - 1}"}, data, span)
            if len(data) != stop - start:
                raise self._client.ReadError(f"{len(data)} of {stop - start} bytes came")

        target = Target(dataset.id, dataset.revision, file.name)
        self._repeat(ask, target, self.retry.attempts, lambda: len(data))
        return bytes(data)

    def _list_files(self, id: str, commit: str) -> tuple[DataFile, ...]:
        files: list[DataFile] = []
        path = f"/api/datasets/{id}/tree/{commit}?recursive=true&expand=false"
        while path:
            entries, links = self._json(path, Target(id, commit), self.retry.attempts)
            files += [_data_file(entry) for entry in entries if entry.get("type") == "file"]
            # The host of the link is dropped: a mirror may link to another host, which would get
            # the token.
            link = urlsplit(links.get("next", ""))
            path = f"{link.path}?{link.query}" if link.path else ""
        return tuple(files)

    # ---- one request -----------------------------------------------------------------------------

    def _json(self, path: str, target: Target, attempts: int) -> tuple[Any, dict[str, str]]:
        """The JSON value at a path of the endpoint, and the URLs of its Link header by relation."""
        data = bytearray()

        def ask() -> Any:
            data.clear()
            return self._get(f"{self.endpoint}{path}", {}, data, None)

        response = self._repeat(ask, target, attempts, lambda: 0)
        try:
            value = json.loads(data)
        except ValueError:
            raise HubProblem(
                f"{self.endpoint} answered with something that is not JSON", fix="see HF_ENDPOINT"
            ) from None
        return value, {name: str(link.get("url", "")) for name, link in response.links.items()}

    def _get(
        self, url: str, headers: dict[str, str], data: bytearray, span: tuple[int, int, int] | None
    ) -> Any:
        """Append the body to `data`, also what came before a fault; returns the response.

        span: (first byte, stop, size of the file) where a range is asked for.
        """
        # Without compression: a range counts the bytes of the body as it is sent.
        headers = {**self._utils.build_hf_headers(), **headers, "Accept-Encoding": "identity"}
        self._count(requests=1)
        timeout_s = self.retry.timeout_s
        with self._session.stream(
            "GET", url, headers=headers, timeout=timeout_s, follow_redirects=True
        ) as response:
            if response.status_code >= 400:
                self._raise_status(response)
            if span is not None:
                self._require_range(response, span)
            most_bytes = None if span is None else len(data) + span[1] - span[0]
            for block in self._blocks_at_pace(response):
                data += block
                self._count(bytes=len(block))
                if most_bytes is not None and len(data) > most_bytes:
                    del data[most_bytes:]
                    raise self._client.RemoteProtocolError("more bytes came than were asked for")
            return response

    def _blocks_at_pace(self, response: Any) -> Iterator[bytes]:
        """The blocks of a body. Raises ReadTimeout where too few bytes come in timeout_s."""
        # The client's own timeout limits only the time between two bytes. A server that sends one
        # byte now and then would block an import for ever.
        since, received = time.monotonic(), 0
        for block in response.iter_bytes():
            yield block
            received += len(block)
            elapsed_s = time.monotonic() - since
            if elapsed_s < self.retry.timeout_s:
                continue
            if received < self.retry.slowest_bytes_per_s * elapsed_s:
                raise self._client.ReadTimeout(f"only {received} bytes in {elapsed_s:.0f}s")
            since, received = time.monotonic(), 0

    def _raise_status(self, response: Any) -> None:
        """Raise the library's error for a status; reads at most MOST_ERROR_BYTES and one block."""
        body = bytearray()
        for block in self._blocks_at_pace(response):
            body += block
            if len(body) > MOST_ERROR_BYTES:
                break
        headers = {
            name: value
            for name, value in response.headers.items()
            if name.lower() != "content-length"
        }
        read = self._client.Response(
            response.status_code, headers=headers, content=bytes(body), request=response.request
        )
        self._utils.hf_raise_for_status(read)

    def _require_range(self, response: Any, span: tuple[int, int, int]) -> None:
        """Raise where the body is not the range that was asked for.

        A server without support for ranges is a HubProblem; another range is a passing fault.
        """
        first, stop, size = span
        if response.status_code == 200:
            # The whole file is a correct answer where the range is the whole file.
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

    # ---- repeating -------------------------------------------------------------------------------

    def _repeat(
        self, request: Callable[[], T], target: Target, attempts: int, received: Callable[[], int]
    ) -> T:
        """The value of `request`, repeated after faults that may pass. Raises HubProblem.

        received: returns the bytes that this read has so far.
        """
        attempt = received_before = 0
        while True:
            self._wait(self._not_before - time.monotonic())
            try:
                return request()
            except PicochatError:
                raise
            except (self._errors.HfHubHTTPError, self._client.TransportError) as error:
                # Progress resets the count. Otherwise a long read would fail over a connection
                # that breaks every few megabytes, although it would end.
                if received() - received_before >= PROGRESS_BYTES:
                    attempt, received_before = 0, received()
                attempt += 1
                pause_s = self._pause_s(error, attempt)
                if pause_s is None or attempt >= attempts:
                    raise self._problem(error, target) from None
                self._count(retries=1)
                say(
                    f"the Hub: {short_error(error)}; trying again in {pause_s:.1f}s ({attempt} of"
                    f" {attempts - 1})"
                )
                self._wait(pause_s)
            except (self._errors.OfflineModeIsEnabled, *self._faults) as error:
                raise self._problem(error, target) from None

    def _wait(self, pause_s: float) -> None:
        if self._stopped.is_set() or (pause_s > 0 and self._stopped.wait(pause_s)):
            raise HubProblem("the import was stopped")

    def _pause_s(self, error: Exception, attempt: int) -> float | None:
        """Seconds to wait before the next attempt; None where another attempt cannot help."""
        response, longest_s = getattr(error, "response", None), self.retry.longest_pause_s
        pause_s = min(longest_s, self.retry.first_pause_s * 2 ** (attempt - 1))
        if response is None:
            return pause_s
        if response.status_code not in REPEATED_STATUS:
            return None
        asked_s = retry_after_s(response.headers.get("Retry-After", ""))
        if asked_s is None:
            return pause_s
        pause_s = min(longest_s, max(pause_s, asked_s))
        # The server's rate limit holds for all threads, so the others wait too.
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + pause_s)
        return pause_s

    def _count(self, *, bytes: int = 0, requests: int = 0, retries: int = 0) -> None:
        with self._lock:
            self.transfer.bytes += bytes
            self.transfer.requests += requests
            self.transfer.retries += retries

    def _problem(self, error: Exception, target: Target) -> HubProblem:
        errors, what = self._errors, f"dataset {target.dataset}"
        if isinstance(error, errors.GatedRepoError):
            return HubProblem(
                f"{what} is gated: the Hub lets in only accounts that accepted its terms",
                fix=(
                    f"accept them at {self.endpoint}/datasets/{target.dataset}, then set HF_TOKEN"
                    " to a token of that account"
                ),
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return UnknownRevision(
                f"{what} has no revision {target.revision!r}",
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
            return HubProblem(
                f"{what} has no file {target.file} at {target.revision}",
                fix="--force begins again, at the newest revision",
            )
        where = f"{what}, {target.file}" if target.file else what
        return HubProblem(
            f"the Hub could not be read ({where}): {short_error(error)}",
            fix=f"{advice(error)}, then run the same command again: it goes on where it stopped",
        )


class _RangedFile(io.RawIOBase):
    def __init__(self, hub: Hub, dataset: HubDataset, file: DataFile) -> None:
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
        end = self._file.bytes
        stop = end if size is None or size < 0 else min(end, self._at + size)
        if stop <= self._at:
            return b""
        data = self._hub.read_range(self._dataset, self._file, self._at, stop)
        self._at = stop
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _data_file(entry: dict[str, Any]) -> DataFile:
    digest = f"sha256:{entry['lfs']['oid']}" if entry.get("lfs") else f"git:{entry['oid']}"
    return DataFile(str(entry["path"]), int(entry["size"]), digest)


def retry_after_s(value: str) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or date; None where it is neither."""
    if value.strip().isdigit():
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, date.timestamp() - time.time())
