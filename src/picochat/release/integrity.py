"""Checks the files of a run against its manifests, and the chain between its artifacts.

It works on digests, so that it serves a run folder and a bundle alike, and large files need not be
on disk. Says nothing about whether the claims follow from the files: that is verify.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from picochat.config import ResolvedConfig
from picochat.core.errors import BadInput, PicochatError, Problem
from picochat.core.publish import MANIFEST, Artifact, FileDigest, file_names, is_junk
from picochat.core.records import digest_file, digest_json, read_record
from picochat.present.values import short_digest
from picochat.run.folder import RunDir
from picochat.run.graph import ARTIFACTS, FRONT_PAGES, ArtifactSpec, spec_of

Found = Mapping[str, FileDigest]
RUN_FILES = ("run.json", "machine.json", "timings.jsonl")
ALTERED = "its bytes differ from the manifest"


def digest_folder(root: Path) -> dict[str, FileDigest]:
    """Digest of every file below `root`, by its path from there, as of an unpacked bundle.

    Raises BadInput for a link: no bundle holds one, and it could name any file of this machine.
    """
    names = sorted(path for path in root.rglob("*") if not is_junk(path.relative_to(root)))
    if links := [path for path in names if path.is_symlink()]:
        raise BadInput(
            f"{links[0]} is a link, and a bundle holds none",
            fix="unpack the bundle again, or verify the .tgz",
        )
    return {path.relative_to(root).as_posix(): digest_of(path) for path in names if path.is_file()}


def digest_tree(root: Path) -> dict[str, FileDigest]:
    """Digest of every file of the run that counts as evidence, by its path from `root`.

    Those are the artifacts, the front pages, and the records of run, machine and timings.
    """
    names = [
        name
        for name in (*RUN_FILES, *(page.name for page in FRONT_PAGES))
        if (root / name).is_file()
    ]
    for spec in ARTIFACTS:
        folder = root / spec.folder
        if (folder / MANIFEST).is_file():
            names += [f"{spec.folder}/{name}" for name in file_names(folder)]
    return {name: digest_of(root / name) for name in sorted(set(names))}


def digest_of(path: Path) -> FileDigest:
    return FileDigest(sha256=digest_file(path), bytes=path.stat().st_size)


def artifacts_of(run: RunDir) -> tuple[dict[str, Artifact], list[Problem]]:
    """The artifacts that are there, by kind, and problems of manifests that cannot be read."""
    found: dict[str, Artifact] = {}
    problems: list[Problem] = []
    for spec in ARTIFACTS:
        if run.has(spec.kind):
            try:
                found[spec.kind] = run.artifact(spec.kind)
            except PicochatError as error:
                problems.append(Problem(error.without_fix()))
    return found, problems


def manifest_problems(
    spec: ArtifactSpec, artifact: Artifact, found: Found, left_out: Mapping[str, object]
) -> list[Problem]:
    """Files of one artifact that changed, are missing, or were added.

    `left_out`: paths whose absence is declared.
    """
    prefix = f"{spec.folder}/"
    # base/checkpoint and base/token_shards are siblings, but no artifact may lie inside another
    present = {
        name.removeprefix(prefix): digest
        for name, digest in found.items()
        if name.startswith(prefix)
    }
    listed = {**artifact.manifest.files, **artifact.manifest.volatile_files}
    problems = [
        Problem(f"{prefix}{name}: {spec.kind} has no such file")
        for name in sorted(set(present) - {*listed, MANIFEST})
    ]
    for name, digest in sorted(listed.items()):
        if name not in present:
            if f"{prefix}{name}" not in left_out:
                problems.append(Problem(f"{prefix}{name}: is missing"))
        elif present[name].sha256 != digest.sha256 or present[name].bytes != digest.bytes:
            problems.append(Problem(f"{prefix}{name}: {ALTERED}"))
    return problems


def stray_problems(
    artifacts: Mapping[str, Artifact], found: Found, besides: tuple[str, ...]
) -> list[Problem]:
    """Files of a bundle that no manifest lists and that are not part of every bundle.

    Nothing states what such a file should hold.

    besides: names, and folders with a slash at their end, that a bundle has of its own.
    """
    known = {*RUN_FILES, *(page.name for page in FRONT_PAGES), *besides}
    folders = tuple(f"{spec.folder}/" for spec in ARTIFACTS if spec.kind in artifacts) + tuple(
        name for name in besides if name.endswith("/")
    )
    strays = [name for name in found if name not in known and not name.startswith(folders)]
    return [
        Problem(f"{name}: belongs to no artifact, so nothing vouches for it") for name in strays
    ]


def chain_problems(artifacts: Mapping[str, Artifact]) -> list[Problem]:
    """Artifacts whose stated inputs are not the artifacts at hand.

    An artifact that lacks an input which is a stage of the run is a problem too.
    """
    problems: list[Problem] = []
    for kind, artifact in artifacts.items():
        lacking = [
            name
            for name in spec_of(kind).inputs
            if name in artifacts and name not in artifact.manifest.inputs
        ]
        problems += [
            Problem(f"{kind}: does not state which {name} it was made from") for name in lacking
        ]
        for name, digest in sorted(artifact.manifest.inputs.items()):
            if name in artifacts and artifacts[name].digest != digest:
                problems.append(
                    Problem(
                        f"{kind}: was made from another {name} ({short_digest(digest)}, not"
                        f" {short_digest(artifacts[name].digest)})"
                    )
                )
    scores, sft = artifacts.get("scores"), artifacts.get("sft")
    if scores and sft and scores.facts.get("scored_checkpoint") != sft.digest:
        problems.append(Problem("scores: are of another checkpoint than the one that ships"))
    return problems


def front_page_problems(found: Found) -> list[Problem]:
    """Front pages that are missing or differ from the published file that they copy."""
    problems: list[Problem] = []
    for page in FRONT_PAGES:
        name, path = page.name, f"{spec_of(page.kind).folder}/{page.file}"
        original = found.get(path)
        if original and name not in found:
            problems.append(Problem(f"{name}: the copy of {path} is missing"))
        elif original and found[name].sha256 != original.sha256:
            problems.append(Problem(f"{name}: differs from {path}"))
        elif name in found and not original:
            problems.append(Problem(f"{name}: there is no {path} that it could be a copy of"))
    return problems


def evidence_digest(run: RunDir, artifacts: Mapping[str, Artifact]) -> str:
    """One digest of the configuration's values and of every artifact.

    It is equal for equal work on the same machine.

    The section `host` is left out: how many processes, how often to save and where figures also go
    change no result. So is where benchmarks were asked for, which may be a path: the digest of
    their artifact is in.
    """
    config = read_record(ResolvedConfig, run.config, "configuration").config
    return digest_json(
        {
            "config": config.model_dump(
                mode="json", exclude={"host": True, "external": {"benchmarks"}}
            ),
            "artifacts": {kind: found.digest for kind, found in artifacts.items()},
        }
    )
