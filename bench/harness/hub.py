"""A Hub on loopback that serves a folder from disk, for a benchmark.

    python bench/harness/hub.py FOLDER    # prints the endpoint, serves until its stdin is closed

The tests' fake Hub with two of its routes replaced: files are sent from disk as they lie there, and
digests are taken once. So neither its memory nor its time grows with the data.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.fake_hub import ID, ROUTES, FakeHub, FakeRepo  # noqa: E402

DATASET = "bench/text"
COMMIT = hashlib.sha1(b"bench").hexdigest()


def serve(folder: Path) -> None:
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}

    def tree(handler: Any, kind: str, id: str, revision: str) -> None:
        if handler.repo_at(f"{kind}/{id}", revision):
            handler.answer_json([entry(name) for name in files])

    def entry(name: str) -> dict[str, object]:
        size = files[name].stat().st_size
        return {
            "type": "file",
            "path": name,
            "size": size,
            "oid": digests[name][:40],
            "lfs": {"oid": digests[name], "size": size, "pointerSize": 134},
        }

    def resolve(handler: Any, id: str, revision: str, file: str, kind: str = "datasets") -> None:
        if not handler.repo_at(f"{kind}/{id}", revision):
            return
        if file not in files:
            return handler.refuse(404, "EntryNotFound", f"{file} is not in the repository")
        size = files[file].stat().st_size
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
        start, stop = (
            (int(span[1]), min(size, int(span[2]) + 1 if span[2] else size)) if span else (0, size)
        )
        handler.send_response(206 if span else 200)
        sent = {
            "Content-Length": str(stop - start),
            "ETag": f'"{digests[file]}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
        }
        if span:
            sent["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        for name, value in sent.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "HEAD":
            return
        handler.wfile.flush()
        with files[file].open("rb") as stream:
            while start < stop:
                start += os.sendfile(
                    handler.connection.fileno(), stream.fileno(), start, stop - start
                )

    ROUTES[:0] = [
        (
            "GET",
            rf"/api/(?P<kind>datasets|models)/{ID}/tree/(?P<revision>refs/[^/]+/[^/]+|[^/]+)",
            tree,
        ),
        (
            "GET",
            rf"/(?P<kind>datasets)/{ID}/resolve/(?P<revision>refs/[^/]+/[^/]+|[^/]+)/(?P<file>.+)",
            resolve,
        ),
    ]
    with FakeHub() as hub:
        hub.repos[f"datasets/{DATASET}"] = FakeRepo(
            "datasets", {COMMIT: dict.fromkeys(files, b"")}, {"main": COMMIT}
        )
        print(hub.endpoint, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
