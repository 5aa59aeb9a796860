"""Publishes artifacts: folders that are either absent or complete, each with a manifest.

`publish` yields a hidden staging folder on the same disk. On a clean exit its files are synced and
hashed, `manifest.json` is written last, and one rename makes the artifact appear. On an error or a
kill nothing appears. A folder that is already there is renamed, never overwritten.

The manifest states the digests of the artifact's inputs, so digests chain back to the first input.
It lists two classes of files. `files` follow from the inputs alone and enter the artifact's digest.
`volatile_files` (timings, live metrics, host measurements) are hashed too, so that a change is
noticed, but stay out of the digest: the same work gives the same digest (docs/decisions/0002).

This does not protect against a person who rewrites both manifest and files. For that, publish the
digest, or sign the bundle.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from shlex import quote
from typing import Any

from picochat.core.errors import BadInput, WrongUsage
from picochat.core.progress import say
from picochat.core.records import (
    Record,
    digest_file,
    digest_json,
    naming_disk,
    pretty_json,
    read_record,
    write_atomic,
)

JUNK_NAMES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
JUNK_FOLDERS = frozenset({"__MACOSX"})
JUNK_PREFIXES = ("._", ".nfs", ".fuse_hidden")
MANIFEST = "manifest.json"
SCHEMA_VERSION = 1


class FileDigest(Record):
    sha256: str
    bytes: int


class Manifest(Record):
    """What an artifact is, what it was made from, and what is in it.

    checksum: sha256 of the other fields, so that a field that was edited by hand is noticed.
    """

    schema_version: int
    kind: str
    key: str
    inputs: dict[str, str]
    files: dict[str, FileDigest]
    volatile_files: dict[str, FileDigest]
    facts: dict[str, Any]
    checksum: str = ""

    def sealed(self) -> Manifest:
        """The manifest with its checksum."""
        return self.model_copy(update={"checksum": self._sum()})

    def is_sealed(self) -> bool:
        """Whether the manifest has the checksum of its fields."""
        return self.checksum == self._sum()

    def _sum(self) -> str:
        return digest_json(self.model_dump(mode="json", exclude={"checksum"}))

    def listed(self) -> dict[str, FileDigest]:
        """All files of the artifact but the manifest."""
        return {**self.files, **self.volatile_files}

    def digest(self) -> str:
        """sha256 of kind, digests of the inputs, files and facts; equal for equal work."""
        return digest_json(
            self.model_dump(mode="json", include={"kind", "inputs", "files", "facts"})
        )


@dataclass(frozen=True)
class Artifact:
    """A published folder. It is always complete."""

    place: Path
    manifest: Manifest
    digest: str

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def facts(self) -> dict[str, Any]:
        return self.manifest.facts

    def path(self, name: str) -> Path:
        return self.place / name


@dataclass
class StagingFolder:
    """The hidden folder that becomes the artifact.

    `workspace` is another folder, for resumable work. It survives an error and a kill.
    """

    folder: Path
    workspace: Path
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    volatile_names: set[str] = field(default_factory=set[str])
    artifact: Artifact | None = None

    def path(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def volatile(self, name: str) -> Path:
        """A path for a volatile file: it depends on clock or host and stays out of the digest."""
        self.volatile_names.add(name)
        return self.path(name)


def artifact_key(config: object, inputs: Mapping[str, str], version: int) -> str:
    """Digest of all that decides whether a published artifact may be reused.

    config: the settings that the stage reads. inputs: the digest of each. version: of the stage.
    """
    return digest_json({"config": config, "inputs": dict(inputs), "version": version})


@contextmanager
def publish(
    place: Path, kind: str, key: str, inputs: Mapping[str, str]
) -> Generator[StagingFolder, None, None]:
    """Make the artifact `place` from the files that the caller writes into the staging folder."""
    workspace = open_workspace(place, key)
    # The staging folder lies beside `place`, because a rename is atomic only within one disk.
    folder = place.with_name(f".{place.name}.draft")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    staging = StagingFolder(folder, workspace)
    try:
        with naming_disk(place.parent):
            yield staging
            staging.artifact = _finish(staging, place, kind, key, inputs)
    # BaseException, so that Ctrl-C removes the staging folder as well. The workspace stays: the
    # next command resumes from it.
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(staging.workspace, ignore_errors=True)


def open_workspace(place: Path, key: str) -> Path:
    """The folder for resumable work towards the artifact with this key at `place`.

    Work towards another key is set aside. Earlier work towards this key is taken up again.
    """
    workspace = place.with_name(f"{place.name}.work")
    if workspace.exists() and any(workspace.iterdir()) and not _is_towards(workspace, key):
        say(
            f"{workspace} holds unfinished work for other settings or inputs, which is kept:"
            f" {set_aside(workspace).name}"
        )
    former = next((folder for folder in superseded(workspace) if _is_towards(folder, key)), None)
    if former is not None and not workspace.exists():
        os.rename(former, workspace)
        say(f"taking up the unfinished work of {former.name} again")
    workspace.mkdir(parents=True, exist_ok=True)
    # Not written again, and atomically: a marker that is cut off on a full disk would make the next
    # command set the work aside.
    if not _is_towards(workspace, key):
        write_atomic(_marker(workspace), key.encode())
    return workspace


def _marker(workspace: Path) -> Path:
    return workspace / "key"


def _is_towards(workspace: Path, key: str) -> bool:
    marker = _marker(workspace)
    return marker.exists() and marker.read_text() == key


def _finish(
    staging: StagingFolder, place: Path, kind: str, key: str, inputs: Mapping[str, str]
) -> Artifact:
    # Files are synced before the rename. Otherwise a power cut could leave the final name over
    # files whose bytes never reached the disk.
    files = {
        name: _sync_and_digest(staging.path(name)) for name in sorted(file_names(staging.folder))
    }
    volatile = {name: files.pop(name) for name in staging.volatile_names & set(files)}
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        kind=kind,
        key=key,
        inputs=dict(inputs),
        files=files,
        volatile_files=volatile,
        facts=staging.facts,
    ).sealed()
    (staging.folder / MANIFEST).write_bytes(pretty_json(manifest))
    _sync_and_digest(staging.folder / MANIFEST)
    return _move_to(place, staging.folder, kind)


def _move_to(place: Path, folder: Path, kind: str) -> Artifact:
    """Rename a complete folder to `place`. What was there is set aside."""
    if place.exists():
        set_aside(place)
    # A kill before this line leaves nothing at `place`. The older artifact is then still whole
    # under its new name.
    os.rename(folder, place)
    sync(place.parent)
    return open_artifact(place, kind)


def file_names(folder: Path) -> set[str]:
    """Names of all files, relative to the folder, but those that a desktop left there."""
    names: set[str] = set()
    for place, _, files in os.walk(folder):
        below = os.path.relpath(place, folder)
        names.update(os.path.normpath(os.path.join(below, name)) for name in files)
    return {name for name in names if not is_junk(PurePath(name))}


def is_junk(path: PurePath) -> bool:
    """Whether a desktop or a file system left the file in a folder; it is part of no artifact."""
    return (
        path.name in JUNK_NAMES
        or path.name.startswith(JUNK_PREFIXES)
        or not JUNK_FOLDERS.isdisjoint(path.parts[:-1])
    )


def _sync_and_digest(path: Path) -> FileDigest:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    return FileDigest(sha256=digest_file(path), bytes=path.stat().st_size)


def sync(path: Path) -> None:
    """Write a file, or the names in a folder, to disk, so that a rename survives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def hidden_folder(place: Path) -> Generator[Path, None, None]:
    """A hidden folder on the same disk as `place`, for a folder without a manifest.

    Whatever is not renamed away is gone afterwards.
    """
    folder = place.with_name(f".{place.name}.draft")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish_folder(folder: Path, place: Path) -> Path | None:
    """Make `folder` appear as `place` by one rename. Returns where an earlier one went."""
    for path in folder.rglob("*"):
        sync(path)
    older = None
    if place.exists():
        if any(place.iterdir()):
            older = set_aside(place)
        else:
            place.rmdir()
    os.rename(folder, place)
    sync(place.parent)
    return older


def set_aside(place: Path) -> Path:
    """Rename `place` to `<name>.superseded-N` with the first free N. Returns the new path."""
    number = 1
    while (target := place.with_name(f"{place.name}.superseded-{number}")).exists():
        number += 1
    os.rename(place, target)
    return target


def superseded(place: Path) -> list[Path]:
    """The folders or files that were set aside from `place`, newest first."""
    found = place.parent.glob(f"{glob.escape(place.name)}.superseded-*")
    numbered = {path: path.name.rpartition("-")[2] for path in found}
    return sorted(
        (path for path, number in numbered.items() if number.isdecimal()),
        key=lambda path: -int(numbered[path]),
    )


def take_back(place: Path, kind: str, key: str) -> Artifact | None:
    """Rename an artifact that was set aside back to `place`; None if none has this key.

    Only an undamaged artifact is taken back, and what is at `place` is set aside. So a person who
    tries another setting and goes back does not wait for a second computation.
    """
    for former in superseded(place):
        try:
            artifact = find_artifact(former, kind, key)
        except BadInput:
            continue
        # Every byte is hashed: people may have edited or cleaned up folders that were set aside.
        if artifact is not None and not changed_files(former, artifact.manifest):
            return _move_to(place, former, kind)
    return None


def open_artifact(place: Path, kind: str, *, made_by: str | None = None) -> Artifact:
    """The published artifact at `place`; only its manifest is read.

    Raises BadInput if it is absent or of another kind. made_by: the remedy in that error.
    """
    if not (place / MANIFEST).exists():
        raise BadInput(f"{kind} {place} is missing or incomplete", fix=made_by)
    manifest = read_record(Manifest, place / MANIFEST, "manifest", fix=remake(place))
    if manifest.kind != kind:
        raise BadInput(f"{place} holds a {manifest.kind}, a {kind} is needed", fix=made_by)
    return Artifact(place, manifest, manifest.digest())


def remake(place: Path) -> str:
    """The remedy for an artifact whose files were damaged after it was published."""
    return f"{move_away(place)}; the command that made it makes it again"


def move_away(place: Path) -> str:
    """The command that moves a file or folder out of the way, to paste into a shell."""
    return f"mv {quote(str(place))} {quote(f'{place}.moved')}"


def find_artifact(place: Path, kind: str, key: str) -> Artifact | None:
    """The artifact at `place` if there is one with this key, else None. No file is hashed."""
    if not (place / MANIFEST).exists():
        return None
    artifact = open_artifact(place, kind)
    return artifact if artifact.manifest.key == key else None


def touched_files(artifact: Artifact) -> list[str]:
    """Names of files that were changed since the artifact was published, found cheaply.

    A file that the manifest does not list, or that has another size, is changed. One that was
    written after the manifest, which is written last, is hashed. An edit that keeps size and time
    is not found here but by `changed_files`.
    """
    place, manifest = artifact.place, artifact.manifest
    published_ns = (place / MANIFEST).stat().st_mtime_ns
    found = file_names(place)
    touched = _unlisted(found, manifest)
    for name, digest in manifest.listed().items():
        stat = (place / name).stat() if name in found else None
        if (
            stat is None
            or stat.st_size != digest.bytes
            or (stat.st_mtime_ns > published_ns and digest_file(place / name) != digest.sha256)
        ):
            touched.append(name)
    return touched


def _unlisted(found: set[str], manifest: Manifest) -> list[str]:
    """The files that the manifest does not list, and the manifest where it was edited itself."""
    extra = sorted(found - {*manifest.listed(), MANIFEST})
    return extra if manifest.is_sealed() else [*extra, MANIFEST]


def find_whole_artifact(place: Path, kind: str, key: str) -> Artifact | None:
    """As `find_artifact`, but every file is hashed. A damaged artifact is set aside."""
    try:
        artifact = find_artifact(place, kind, key)
        changed = changed_files(place, artifact.manifest) if artifact else []
    except BadInput:
        artifact, changed = None, [MANIFEST]
    if not changed:
        return artifact
    say(f"{kind} {place} is damaged ({', '.join(changed[:3])}); it is now {set_aside(place).name}")
    return None


def changed_files(place: Path, manifest: Manifest) -> list[str]:
    """Names of files that differ from the manifest, are absent, or are not listed in it."""
    found = file_names(place)
    changed = _unlisted(found, manifest)
    for name, digest in manifest.listed().items():
        if name not in found or digest_file(place / name) != digest.sha256:
            changed.append(name)
    return changed


def adopt(artifact: Artifact, place: Path) -> Artifact:
    """The same artifact at another place, by hard links if the disk allows it, else by copy."""
    existing = find_artifact(place, artifact.kind, artifact.manifest.key)
    if existing is not None and existing.digest == artifact.digest:
        return existing
    folder = place.with_name(f".{place.name}.draft")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(artifact.place, folder, copy_function=link_or_copy)
    return _move_to(place, folder, artifact.kind)


def link_or_copy(source: str | Path, target: str | Path) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return str(target)


def is_held(place: Path) -> bool:
    """Whether another process holds `place` now (see `exclusive`). Writes nothing."""
    try:
        with place.open("rb") as stream:
            # The lock is shared, so two commands that ask at the same time do not see each other.
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # no lock file, or a disk without locks
    return False


@contextmanager
def exclusive(place: Path, holder: str, *, wait: bool = False) -> Generator[None, None, None]:
    """Hold the lock file `place` for this process alone.

    If another process holds it: with `wait` this waits, otherwise it raises WrongUsage. The kernel
    drops the lock with the process, so a kill leaves nothing to clean up. `holder` names what is
    in use, for the message.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    # "a+" does not truncate: a process that finds the lock held reads the pid of the holder.
    with place.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            busy = f"{holder} is in use by another process ({stream.read().strip() or 'unknown'})"
            if not wait:
                raise WrongUsage(busy, fix="wait for it to end, or choose another folder") from None
            say(f"{busy}; waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        stream.truncate(0)
        stream.write(f"pid {os.getpid()}")
        stream.flush()
        with naming_disk(place.parent):
            yield
