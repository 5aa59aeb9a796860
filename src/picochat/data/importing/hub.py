"""The Hub as a place to read from: one dataset at one pinned commit, its card, its files, and
ranges of their bytes.

The commit is asked for once; every later request names it, whatever a branch points to by then.
`HF_TOKEN` and `HF_ENDPOINT` are honoured. Reads ranges, so it cannot compare a file with its digest
as a whole. Writes nothing.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from picochat.core.errors import HubProblem
from picochat.data.importing.hub_requests import HubRequests, Patience, Traffic, Wanted
from picochat.data.importing.layout import NO_CARD, Card, read_card

CONVERTED_REVISION = "refs/convert/parquet"
MOST_CARD_BYTES = 4 << 20


@dataclass(frozen=True)
class HubFile:
    """One file of a repository.

    `digest` is the sha256 of large files, the git object id of small ones; it names its kind.
    """

    name: str
    bytes: int
    digest: str


@dataclass(frozen=True)
class HubDataset:
    """A dataset at a commit.

    `asked` is the revision that was asked for, `revision` the commit it stood for.
    """

    id: str
    asked: str
    revision: str
    card: Card
    files: tuple[HubFile, ...]


class Hub:
    """One endpoint of the Hub. Threads may share it."""

    def __init__(self, patience: Patience) -> None:
        self._requests = HubRequests(patience)

    @property
    def traffic(self) -> Traffic:
        return self._requests.traffic

    def stop(self) -> None:
        """Let the threads that wait for another attempt give up: the import is ending."""
        self._requests.stop()

    def dataset(self, id: str, revision: str | None) -> HubDataset:
        """The dataset at `revision` (None: main), resolved to its commit once.

        Raises HubProblem.
        """
        self._requests.require_name(id)
        asked = revision or "main"
        info, _ = self._requests.json(
            f"/api/datasets/{id}/revision/{quote(asked, safe='')}", Wanted(id, asked), first=True
        )
        commit = info.get("sha") if isinstance(info, dict) else None
        if not isinstance(commit, str) or not commit:
            raise HubProblem(f"the Hub states no commit for dataset {id} at {asked}")
        files = self._files(id, commit)
        return HubDataset(id, asked, commit, self._card(id, commit, files), files)

    def open(self, dataset: HubDataset, file: HubFile) -> io.RawIOBase:
        """The file as a seekable stream that fetches the ranges that are read."""
        return _RangedFile(self, dataset, file)

    def read_range(self, dataset: HubDataset, file: HubFile, start: int, stop: int) -> bytes:
        """Bytes start to stop of the file. Raises HubProblem."""
        url = self._requests.file_url(dataset.id, dataset.revision, file.name)
        return self._requests.range(
            url, start, stop, file.bytes, Wanted(dataset.id, dataset.revision, file.name)
        )

    def _files(self, id: str, commit: str) -> tuple[HubFile, ...]:
        """All files at the commit; the Hub lists them in pages."""
        files: list[HubFile] = []
        path = f"/api/datasets/{id}/tree/{commit}?recursive=true&expand=false"
        while path:
            entries, links = self._requests.json(path, Wanted(id, commit))
            files += [_hub_file(entry) for entry in entries if entry.get("type") == "file"]
            # Only the address below the endpoint: a mirror's links may lead past the mirror, and
            # the token with them.
            link = urlsplit(links.get("next", ""))
            path = f"{link.path}?{link.query}" if link.path else ""
        return tuple(files)

    def _card(self, id: str, commit: str, files: tuple[HubFile, ...]) -> Card:
        readme = next((file for file in files if file.name == "README.md"), None)
        if readme is None or readme.bytes == 0:
            return NO_CARD
        dataset = HubDataset(id, commit, commit, NO_CARD, files)
        data = self.read_range(dataset, readme, 0, min(readme.bytes, MOST_CARD_BYTES))
        return read_card(data.decode("utf-8", errors="replace"))


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
        stop = (
            self._file.bytes if size is None or size < 0 else min(self._file.bytes, self._at + size)
        )
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


def _hub_file(entry: dict[str, Any]) -> HubFile:
    digest = f"sha256:{entry['lfs']['oid']}" if entry.get("lfs") else f"git:{entry['oid']}"
    return HubFile(str(entry["path"]), int(entry["size"]), digest)
