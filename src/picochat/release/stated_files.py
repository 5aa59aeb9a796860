"""Finds the large files of a run and checks every byte against the run's manifests.

A bundle may leave out what is large. A command that trains or asks again names a folder that has
it, and that folder is not trusted. Does not check the small files: release/verify.py has done so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from picochat.core.errors import Problem
from picochat.core.progress import Progress
from picochat.core.publish import Artifact
from picochat.core.records import digest_file
from picochat.release.archive import read_archive
from picochat.run.folder import RunDir

ANOTHER_FIX = (
    "--run-dir must name the run that the bundle is of, or one whose artifacts have the same"
    " digests"
)


@contextmanager
def opened_run(path: Path, *, skip: tuple[str, ...] = ()) -> Generator[RunDir, None, None]:
    """The run at `path`, which may be a folder or a bundle.

    A bundle is unpacked into a temporary folder. skip: suffixes of files that will not be read.
    """
    if path.is_dir():
        yield RunDir(path)
        return
    with tempfile.TemporaryDirectory(prefix="picochat-again-") as folder:
        yield RunDir(read_archive(path, Path(folder), skip=skip).root)


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
