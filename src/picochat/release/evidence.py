"""The copy of a run's evidence that travels inside an export.

`attach_evidence` copies the reports as whole artifact folders, so that each can be checked against
the manifest inside it, and the bare manifests of everything else, so that the chain of digests from
the weights to the source rows is complete. With a few small files of these (SMALL_FILES) both
verdicts can be decided and the card rendered again from the copy. Decides nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from picochat.core.publish import MANIFEST
from picochat.run.folder import RunDir
from picochat.run.graph import ARTIFACTS, ArtifactSpec, spec_of

REPORTS = ("honesty", "preflight", "scores", "parity", "gate", "summary")
"""Artifacts that are copied whole: what a reader of the card will want to open."""
OF_THE_SCORED = ("scores", "parity", "gate", "summary")
"""Artifacts that speak of the scored checkpoint alone: beside other weights they would mislead."""
SMALL_FILES = {
    "corpus": "import_reports/*.json",
    "host": "host.json",
    "base": "model.json",
    "sft": "model.json",
}
FOLDER = "evidence"


def missing_evidence(run: RunDir | None) -> list[str]:
    """Kinds of report that a publication needs and the run does not have.

    Without a run all of them are missing.
    """
    return [kind for kind in REPORTS if run is None or not run.has(kind)]


def attached_places(kinds: Collection[str], scored: bool) -> list[ArtifactSpec]:
    """Those of `kinds` that go with an export, in the order of the stages.

    `scored`: see OF_THE_SCORED.
    """
    return [
        spec
        for spec in ARTIFACTS
        if spec.kind in kinds and (scored or spec.kind not in OF_THE_SCORED)
    ]


def attach_evidence(run: RunDir, folder: Path, scored: bool) -> None:
    """Copy the evidence of the run into `folder`/evidence.

    That is its reports, manifests, resolved configuration and machine record.
    """
    target = folder / FOLDER
    for spec in attached_places([spec.kind for spec in ARTIFACTS if run.has(spec.kind)], scored):
        if spec.kind in REPORTS:
            shutil.copytree(run.place(spec.kind), target / spec.folder)
        else:
            names = [MANIFEST]
            if spec.kind in SMALL_FILES:
                found = run.place(spec.kind).glob(SMALL_FILES[spec.kind])
                names += [path.relative_to(run.place(spec.kind)).as_posix() for path in found]
            for name in names:
                _copy(run.place(spec.kind) / name, target / spec.folder / name)
    for path in (run.config, run.machine):
        if path.exists():
            _copy(path, target / path.name)


def attached(folder: Path, kind: str) -> bool:
    """Whether an exported folder holds that report of its run."""
    return (folder / FOLDER / spec_of(kind).folder / MANIFEST).exists()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
