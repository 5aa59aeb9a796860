"""Finds the large files of a run and checks every byte against the run's manifests.

A bundle may leave out what is large. A command that trains or asks again names a folder that has
it, and that folder is not trusted. Does not check the small files: release/verify.py has done so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from picochat.core.errors import BadInput, Problem
from picochat.core.progress import Progress
from picochat.core.publish import JUNK_FOLDERS, Artifact
from picochat.core.records import digest_file
from picochat.release.archive import STORED_SUFFIXES, Opened, read_archive
from picochat.release.bundle import CONTENTS
from picochat.release.integrity import digest_folder
from picochat.run.folder import RunDir

ANOTHER_FIX = (
    "--run-dir must name the run that the bundle is of, or one whose artifacts have the same"
    " digests"
)


@contextmanager
def opened_bundle(
    path: Path, *, skip: tuple[str, ...] = STORED_SUFFIXES
) -> Generator[Opened | None, None, None]:
    """The files of a bundle, packed or unpacked by hand; None where `path` is another folder.

    An archive is unpacked into a temporary folder, without files that have a `skip` suffix. Raises
    BadInput for what is no bundle.
    """
    if path.is_dir():
        root = unpacked_bundle(path)
        yield None if root is None else Opened(root, digest_folder(root))
        return
    if not path.exists():
        raise BadInput(
            f"bundle {path} does not exist",
            fix="make one: picochat run bundle --run-dir RUN --out RUN.tgz",
        )
    with tempfile.TemporaryDirectory(prefix="picochat-bundle-") as folder:
        yield read_archive(path, Path(folder), skip=skip)


@contextmanager
def opened_run(path: Path, *, skip: tuple[str, ...] = ()) -> Generator[RunDir, None, None]:
    """The run at `path`: a run folder, or a bundle as in `opened_bundle`."""
    if path.is_dir():
        yield run_in(path)
        return
    with opened_bundle(path, skip=skip) as bundle:
        assert bundle is not None, "only a folder may be something else"
        yield RunDir(bundle.root)


def run_in(folder: Path) -> RunDir:
    """The run in a folder: a run folder, or a bundle that was unpacked there."""
    return RunDir(unpacked_bundle(folder) or folder)


def unpacked_bundle(path: Path) -> Path | None:
    """The folder that somebody unpacked a bundle into, or the one inside it; None if none is."""
    if not path.is_dir():
        return None
    inner = [each for each in path.iterdir() if each.is_dir() and each.name not in JUNK_FOLDERS]
    places = [path, *(inner if len(inner) == 1 else [])]
    return next((place for place in places if (place / CONTENTS).is_file()), None)


def place_with(
    artifact: Artifact,
    names: Sequence[str],
    roots: Sequence[RunDir],
    problems: list[Problem],
    missing_fix: str,
) -> Path | None:
    """The first folder that holds all these files of the artifact as it states them.

    None where no folder does; the reason is added to `problems`.
    """
    unstated = [name for name in names if name not in artifact.manifest.files]
    if unstated:
        problems.append(Problem(f"{artifact.kind}: the manifest states no {', '.join(unstated)}"))
        return None
    found = 0
    for root in roots:
        place = root.place(artifact.kind)
        if any(not (place / name).is_file() for name in names):
            continue
        found += 1
        changed = _changed(place, names, artifact)
        if changed is None:
            return place
        problems.append(
            Problem(f"{place / changed} is not the file that the manifest states", fix=ANOTHER_FIX)
        )
    if not found:
        problems.append(
            Problem(
                f"{artifact.kind}: {names[0]} and what belongs to it are not here", fix=missing_fix
            )
        )
    return None


def _changed(place: Path, names: Sequence[str], artifact: Artifact) -> str | None:
    """The first of the files whose bytes differ from the manifest."""
    with Progress(
        f"checking {artifact.kind}", sum(artifact.manifest.files[name].bytes for name in names), "B"
    ) as progress:
        for name in names:
            if digest_file(place / name) != artifact.manifest.files[name].sha256:
                return name
            progress.advance(artifact.manifest.files[name].bytes)
    return None
