"""A Hub on loopback that accepts pushes: repositories, pre-uploads, large files, commits; and reads
of what was pushed.

Real HTTP, spoken to by the real client. It checks what the real one checks and a test relies on:
the token, the parent of a commit, that a large file was uploaded before it is committed. Clients
need HF_ENDPOINT, and HF_HUB_DISABLE_XET=1, since only the plain protocol for large files is spoken.
Does not do datasets, branches, pull requests or ranges.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors",)
FIRST_COMMIT = "0" * 40


@dataclass
class Repo:
    """`commits`: the files as of each commit, in order; the last is the head. `dates`: of commits
    that a test dates; the others are of now.
    """

    private: bool
    made: str = field(default_factory=lambda: now())
    dates: dict[str, str] = field(default_factory=dict[str, str])
    commits: dict[str, dict[str, bytes]] = field(
        default_factory=lambda: {FIRST_COMMIT: {".gitattributes": b"* text\n"}}
    )

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.head if revision == "main" else revision]


@dataclass
class FakeHub:
    """State of the Hub, and what was asked of it.

    `refuse`: path fragment -> status to answer with.
    """

    token: str
    repos: dict[str, Repo] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    refuse: dict[str, int] = field(default_factory=dict)
    drop_on_commit: set[str] = field(default_factory=set)
    endpoint: str = ""

    def count(self, fragment: str) -> int:
        return sum(fragment in line for line in self.requests)


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")


@contextmanager
def fake_hub(token: str) -> Iterator[FakeHub]:
    hub = FakeHub(token)
    handler = type("Handler", (HubHandler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class HubHandler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: tests read `hub.requests`."""

    def do_GET(self) -> None:
        path = self._begin()
        parts = path.strip("/").split("/")
        if path.startswith("/api/models/") and len(parts) >= 4:
            return self._model(f"{parts[2]}/{parts[3]}", parts[4:])
        if "resolve" in parts[2:3]:
            return self._resolve(f"{parts[0]}/{parts[1]}", parts[3], "/".join(parts[4:]))
        return self._json({"error": "not here"}, 404, "EntryNotFound")

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        path = self._begin()
        self.hub.uploads[path.rsplit("/", 1)[1]] = self._body()
        self._json({})

    def do_POST(self) -> None:
        path = self._begin()
        body = self._body()
        for fragment, status in self.hub.refuse.items():
            if fragment in path:
                return self._json({"error": "refused"}, status)
        if (
            not path.startswith("/lfs-verify")
            and self.headers.get("Authorization") != f"Bearer {self.hub.token}"
        ):
            return self._json({"error": "invalid token"}, 401)
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path.endswith("/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        if path.startswith("/lfs-verify"):
            return self._json({})
        parts = path.strip("/").split("/")
        repo = self.hub.repos[f"{parts[2]}/{parts[3]}"]
        if parts[4] == "preupload":
            return self._preupload(repo, json.loads(body))
        return self._commit(repo, f"{parts[2]}/{parts[3]}", body)

    def _create(self, wish: dict[str, str]) -> None:
        name = f"{wish['organization']}/{wish['name']}"
        if name in self.hub.repos:
            return self._json({"error": "exists", "url": f"{self.hub.endpoint}/{name}"}, 409)
        self.hub.repos[name] = Repo(
            private=wish.get("visibility") == "private" or bool(wish.get("private"))
        )
        return self._json({"url": f"{self.hub.endpoint}/{name}", "name": name})

    def _preupload(self, repo: Repo, wish: dict[str, list[dict[str, str]]]) -> None:
        def answer(path: str) -> dict[str, object]:
            held = repo.files().get(path)
            large = path.endswith(LARGE)
            oid = (
                None
                if held is None
                else (hashlib.sha256(held).hexdigest() if large else git_digest(held))
            )
            return {
                "path": path,
                "uploadMode": "lfs" if large else "regular",
                "shouldIgnore": False,
                "oid": oid,
            }

        self._json({"files": [answer(file["path"]) for file in wish["files"]]})

    def _batch(self, wish: dict[str, list[dict[str, object]]]) -> None:
        def answer(item: dict[str, object]) -> dict[str, object]:
            upload = {"href": f"{self.hub.endpoint}/lfs/{item['oid']}"}
            verify = {"href": f"{self.hub.endpoint}/lfs-verify"}
            return {
                "oid": item["oid"],
                "size": item["size"],
                "actions": {"upload": upload, "verify": verify},
            }

        self._json(
            {"transfer": "basic", "objects": [answer(item) for item in wish["objects"]]},
            kind="application/vnd.git-lfs+json",
        )

    def _commit(self, repo: Repo, name: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        if lines[0]["value"].get("parentCommit", repo.head) != repo.head:
            return self._json({"error": "the branch has moved"}, 412)
        files = dict(repo.files())
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        for path in self.hub.drop_on_commit:
            files.pop(path, None)
        commit = hashlib.sha1(body).hexdigest()
        repo.commits[commit] = files
        repo.dates[commit] = now()
        return self._json(
            {"commitOid": commit, "commitUrl": f"{self.hub.endpoint}/{name}/commit/{commit}"}
        )

    def _model(self, name: str, rest: list[str]) -> None:
        for fragment, status in self.hub.refuse.items():
            if fragment in self.path:
                return self._json({"error": "refused"}, status)
        repo = self.hub.repos.get(name)
        if repo is None:
            return self._json({"error": "no such repository"}, 404, "RepoNotFound")
        if rest[:1] == ["commits"]:
            return self._json(
                [
                    {"id": id, "title": "", "message": "", "authors": [], "date": date}
                    for id in reversed(repo.commits)
                    for date in [repo.dates.get(id, repo.made)]
                ]
            )
        revision = rest[1] if len(rest) > 1 else "main"
        files = repo.files(revision)
        if rest[:1] == ["tree"]:
            folder = "/".join(rest[2:])
            inside = {
                path: data
                for path, data in files.items()
                if path.startswith(f"{folder}/" if folder else "")
            }
            if folder and not inside:
                return self._json({"error": "no such folder"}, 404, "EntryNotFound")
            return self._json([entry(path, data) for path, data in sorted(inside.items())])
        sha = repo.head if revision == "main" else revision
        siblings = [{"rfilename": path} for path in sorted(files)]
        return self._json(
            {
                "id": name,
                "modelId": name,
                "sha": sha,
                "private": repo.private,
                "siblings": siblings,
                "tags": [],
                "createdAt": repo.made,
            }
        )

    def _resolve(self, name: str, revision: str, file: str) -> None:
        repo = self.hub.repos.get(name)
        if repo is None:
            return self._json({"error": "no such repository"}, 404, "RepoNotFound")
        data = repo.files(revision).get(file)
        if data is None:
            return self._json({"error": "no such file"}, 404, "EntryNotFound")
        commit = repo.head if revision == "main" else revision
        return self._send(
            200,
            data,
            {"ETag": f'"{git_digest(data)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"},
        )

    def _begin(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        return path

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts: list[bytes] = []
            while size := int(self.rfile.readline().strip(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _json(
        self,
        value: object,
        status: int = 200,
        code: str | None = None,
        kind: str = "application/json",
    ) -> None:
        headers = {"Content-Type": kind, **({"X-Error-Code": code} if code else {})}
        self._send(status, json.dumps(value).encode(), headers)

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def entry(path: str, data: bytes) -> dict[str, object]:
    """A file as the tree lists it: large ones with the sha256 of their content."""
    found: dict[str, object] = {
        "type": "file",
        "path": path,
        "size": len(data),
        "oid": git_digest(data),
    }
    if path.endswith(LARGE):
        found["lfs"] = {
            "oid": hashlib.sha256(data).hexdigest(),
            "size": len(data),
            "pointerSize": 130,
        }
    return found


def git_digest(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
