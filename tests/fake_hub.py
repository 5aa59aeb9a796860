"""A Hub on loopback, good enough for the library that speaks to the real one: the read protocol,
with faults on request.

    with FakeHub() as hub:
        hub.add_dataset("owner/name", {"train.parquet": data, "README.md": b"..."})
        ... HF_ENDPOINT=hub.endpoint ...

ROUTES is a table of (method, path pattern, handler): a write protocol is more rows. It serves what
was added, states it as the real Hub does (commit, ETag, ranges, X-Error-Code), and records every
request. It checks no token beyond its presence.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TREE_PAGE_ENTRIES = 50
LARGE_BYTES = (
    1000  # files above it are stated with their sha256, as the real Hub does for large ones
)


@dataclass
class FakeRepo:
    """One repository: commits by name, the files of each."""

    kind: str
    files: dict[str, dict[str, bytes]]
    branches: dict[str, str]
    private: bool = False
    gated: bool = False

    def commit(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.files else None)


@dataclass
class Fault:
    """What happens to a request instead of, or during, its answer: to `times` requests, after the
    first `after` that fit.

    every: of those that fit only each n-th. drop: the connection closes without an answer. headers
    replace those of the answer. drip_s: the body comes a byte at a time, that far apart. hold:
    nothing comes until it is set. act: runs first.
    """

    method: str = "GET"
    path: str = ""
    after: int = 0
    times: int = 1
    every: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after_bytes: int | None = None
    drop: bool = False
    drip_s: float | None = None
    hold: threading.Event | None = None
    act: Callable[[], object] | None = None
    fitted: int = 0


@dataclass
class Seen:
    method: str
    path: str
    range: str | None
    authorized: bool


class FakeHub:
    """The server and what it holds.

    `requests` grows; `fail` schedules faults, each for the next requests that fit.
    """

    def __init__(self) -> None:
        self.repos: dict[str, FakeRepo] = {}
        self.requests: list[Seen] = []
        self.faults: list[Fault] = []
        self.held = threading.Semaphore(0)
        self.serves_ranges = True
        self.lock = threading.Lock()
        hub = self

        class Handler(_Handler):
            fake = hub

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add_dataset(
        self,
        id: str,
        files: dict[str, bytes],
        *,
        branch: str = "main",
        private: bool = False,
        gated: bool = False,
    ) -> str:
        """A commit with these files on a branch of the dataset. Returns the commit."""
        repo = self.repos.setdefault(f"datasets/{id}", FakeRepo("datasets", {}, {}, private, gated))
        digest = hashlib.sha1(
            json.dumps([branch, {name: _sha256(data) for name, data in files.items()}]).encode()
        )
        repo.files[digest.hexdigest()] = files
        repo.branches[branch] = digest.hexdigest()
        return digest.hexdigest()

    def fail(self, **fault: Any) -> Fault:
        self.faults.append(Fault(**fault))
        return self.faults[-1]

    def ranges(self, path: str) -> list[Seen]:
        """The requests for bytes of files whose path contains `path`."""
        return [seen for seen in self.requests if seen.range and path in seen.path]

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times <= 0 or fault.method != method or not re.search(fault.path, path):
                    continue
                fault.fitted += 1
                if fault.fitted <= fault.after or (fault.fitted - fault.after) % fault.every:
                    continue
                fault.times -= 1
                return fault
        return None


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed or lost its patience is no error of the server."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    fake: FakeHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = (
        True  # head and body are two writes: the second would wait 40 ms for the first's receipt
    )

    def do_GET(self) -> None:
        self._serve("GET")

    def do_HEAD(self) -> None:
        self._serve("HEAD")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def log_message(self, format: str, *args: object) -> None:
        """Silence: tests read `requests`."""

    def _serve(self, method: str) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.fake.requests.append(
            Seen(method, path, self.headers.get("Range"), "Authorization" in self.headers)
        )
        self.fault = self.fake.take_fault(method, path)
        if self.fault and self.fault.act is not None:
            self.fault.act()
        if self.fault and self.fault.hold is not None:
            self.fake.held.release()
            self.fault.hold.wait(60)
        if self.fault and self.fault.drop:
            self.close_connection = True
            return None
        if self.fault and self.fault.status is not None:
            return self.answer(self.fault.status, b"{}", self.fault.headers)
        for row_method, pattern, handler in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and row_method in (method, "GET" if method == "HEAD" else method):
                return handler(self, **match.groupdict())
        self.refuse(404, "EntryNotFound", f"no route for {method} {path}")

    def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        changed = self.fault.headers if self.fault else {}
        for name, value in {"Content-Length": str(len(data)), **(headers or {}), **changed}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault and self.fault.drip_s is not None:
            self.drip(data, self.fault.drip_s)
            return
        cut = self.fault.cut_after_bytes if self.fault else None
        self.wfile.write(data if cut is None else data[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True

    def drip(self, data: bytes, pause_s: float) -> None:
        """A byte at a time, until the client has enough of it."""
        self.close_connection = True
        for at in range(len(data)):
            try:
                self.wfile.write(data[at : at + 1])
                self.wfile.flush()
            except OSError:
                return
            time.sleep(pause_s)

    def answer_json(self, value: object, headers: dict[str, str] | None = None) -> None:
        self.answer(
            200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})}
        )

    def refuse(self, status: int, code: str, message: str) -> None:
        self.answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": message})

    def repo_at(self, key: str, revision: str) -> tuple[FakeRepo, str] | None:
        """The repository and commit that may be read, or None after the refusal that the real Hub
        would send.
        """
        repo = self.fake.repos.get(key)
        authorized = "Authorization" in self.headers
        if repo is None or (repo.private and not authorized):
            self.refuse(404 if authorized else 401, "RepoNotFound", "Repository not found")
            return None
        if repo.gated and not authorized:
            self.refuse(401, "GatedRepo", "Access to this dataset is restricted")
            return None
        commit = repo.commit(revision)
        if commit is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repo, commit


def _info(handler: _Handler, kind: str, id: str, revision: str = "main") -> None:
    found = handler.repo_at(f"{kind}/{id}", revision)
    if found:
        repo, commit = found
        siblings = [{"rfilename": name} for name in sorted(repo.files[commit])]
        handler.answer_json(
            {
                "id": id,
                "sha": commit,
                "siblings": siblings,
                "private": repo.private,
                "gated": repo.gated,
            }
        )


def _tree(handler: _Handler, kind: str, id: str, revision: str) -> None:
    found = handler.repo_at(f"{kind}/{id}", revision)
    if found:
        repo, commit = found
        entries = [_tree_entry(name, data) for name, data in sorted(repo.files[commit].items())]
        first = int(parse_qs(urlsplit(handler.path).query).get("cursor", ["0"])[0])
        after = first + TREE_PAGE_ENTRIES
        url = f"https://elsewhere.invalid/api/{kind}/{id}/tree/{revision}?recursive=true&cursor={after}"
        handler.answer_json(
            entries[first:after], {"Link": f'<{url}>; rel="next"'} if after < len(entries) else {}
        )


def _tree_entry(name: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": "file",
        "path": name,
        "size": len(data),
        "oid": _git_digest(data),
    }
    if len(data) > LARGE_BYTES:
        entry["lfs"] = {"oid": _sha256(data), "size": len(data), "pointerSize": 134}
    return entry


def _resolve(handler: _Handler, id: str, revision: str, file: str, kind: str = "models") -> None:
    found = handler.repo_at(f"{kind}/{id}", revision)
    if not found:
        return
    repo, commit = found
    data = repo.files[commit].get(file)
    if data is None:
        return handler.refuse(404, "EntryNotFound", f"{file} is not in the repository")
    headers = {"ETag": f'"{_sha256(data)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
    span = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
    if span is None or not handler.fake.serves_ranges:
        return handler.answer(200, data, headers)
    start, stop = int(span[1]), min(len(data), int(span[2]) + 1 if span[2] else len(data))
    handler.answer(
        206, data[start:stop], {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _git_digest(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


ID = r"(?P<id>[^/]+/[^/]+)"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    # method, path, handler; HEAD is served as GET without its body
    ("GET", rf"/api/(?P<kind>datasets|models)/{ID}", _info),
    ("GET", rf"/api/(?P<kind>datasets|models)/{ID}/revision/(?P<revision>.+)", _info),
    (
        "GET",
        rf"/api/(?P<kind>datasets|models)/{ID}/tree/(?P<revision>refs/[^/]+/[^/]+|[^/]+)",
        _tree,
    ),
    (
        "GET",
        rf"/(?P<kind>datasets)/{ID}/resolve/(?P<revision>refs/[^/]+/[^/]+|[^/]+)/(?P<file>.+)",
        _resolve,
    ),
    ("GET", rf"/{ID}/resolve/(?P<revision>refs/[^/]+/[^/]+|[^/]+)/(?P<file>.+)", _resolve),
]
