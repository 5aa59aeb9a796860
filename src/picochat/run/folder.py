"""The paths of a run folder, joined from the rows of `graph.py`.

It makes no artifacts: see `runner.py`.
"""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Literal

from picochat.core.errors import BadInput, WrongUsage
from picochat.core.machine import MachineRecord
from picochat.core.publish import MANIFEST, Artifact, open_artifact
from picochat.core.records import read_json, read_record, write_atomic
from picochat.run.graph import ARTIFACTS, FRONT_PAGES, spec_of

SEEDS = "seeds.json"  # marks a folder that holds a run for each of several seeds


class RunDir:
    """The paths of one run folder, which need not exist yet."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "run.json"
        self.machine = root / "machine.json"
        self.timings = root / "timings.jsonl"
        self.lock = root / ".lock"
        self.track = root / "track"

    def place(self, kind: str) -> Path:
        return self.root / spec_of(kind).folder

    def has(self, kind: str) -> bool:
        return (self.place(kind) / MANIFEST).exists()

    def artifact(self, kind: str) -> Artifact:
        """The published artifact. Raises BadInput that names the command that makes it."""
        return open_artifact(self.place(kind), kind, made_by=self.again)

    def machine_record(self) -> MachineRecord | None:
        """The record of the machine; None where there is none. Raises BadInput for what is none."""
        if not self.machine.exists():
            return None
        return read_record(MachineRecord, self.machine, "machine record")

    @property
    def again(self) -> str:
        """The remedy for an artifact that is missing."""
        return f"repeat the command of the run, which makes what is missing: {self.command}"

    @property
    def command(self) -> str:
        """The command of the run, without what only its user knows."""
        parent = self.root.parent
        if holds_seeds(parent):
            return f"picochat run tiny --seeds N --out-dir {quote(str(parent))} ..."
        return f"picochat run tiny --out-dir {quote(str(self.root))} ..."

    def artifacts(self) -> dict[str, Artifact]:
        """All published artifacts by kind. Raises BadInput if a manifest cannot be read."""
        return {spec.kind: self.artifact(spec.kind) for spec in ARTIFACTS if self.has(spec.kind)}

    def metrics(self, stage: Literal["base", "sft"]) -> Path:
        """The journal of a stage: the live one while it trains, then the published copy."""
        live = self.place(stage).with_name("checkpoint.work") / "metrics.jsonl"
        return live if live.exists() else self.place(stage) / "metrics.jsonl"

    def require_own(self) -> None:
        """Raise WrongUsage if a run would replace files that no run has written."""
        if self.config.exists():
            return
        if holds_seeds(self.root):
            raise WrongUsage(
                f"{self.root} holds the runs of several seeds",
                fix="choose another --out-dir; or go on with these runs: --seeds N",
            )
        folders = (spec.folder.split("/")[0] for spec in ARTIFACTS)
        ours = dict.fromkeys(
            (*folders, *(page.name for page in FRONT_PAGES), self.machine.name, self.timings.name)
        )
        taken = [name for name in ours if (self.root / name).exists()]
        if taken:
            raise WrongUsage(
                f"{self.root} is no run folder (it has no run.json) and holds what a run would"
                f" replace: {', '.join(taken)}",
                fix="choose another --out-dir, or move these away",
            )

    def place_around(self, path: Path) -> Path | None:
        """The artifact's folder that holds `path`, or None.

        Callers refuse to write there: a file that is not in the manifest counts as damage.
        """
        places = (self.root / spec.folder for spec in ARTIFACTS)
        return next(
            (place for place in places if path.resolve().is_relative_to(place.resolve())), None
        )

    def write_front_pages(self) -> None:
        """Copy the pages that people look for to the top of the run folder."""
        for page in FRONT_PAGES:
            if self.has(page.kind):
                write_atomic(
                    self.root / page.name, (self.place(page.kind) / page.file).read_bytes()
                )


def run_of(checkpoint: Path) -> RunDir | None:
    """The run folder of a checkpoint such as RUN/sft/checkpoint, or None."""
    root = checkpoint.resolve().parent.parent
    return RunDir(root) if (root / "run.json").exists() else None


def require_run(root: Path) -> RunDir:
    """The run at `root`. Raises BadInput if no run was started there."""
    fix = "name the --out-dir of a `picochat run tiny`"
    if root.is_file():
        raise BadInput(f"{root} is a file, not a run folder", fix=fix)
    if not root.is_dir():
        raise BadInput(f"run folder {root} does not exist", fix=fix)
    if holds_seeds(root):
        first = quote(str(seed_runs(root)[0].root))
        raise BadInput(f"{root} holds the runs of several seeds", fix=f"name one: {first}")
    if not (root / "run.json").exists():
        raise BadInput(f"{root} is not a run folder: it has no run.json", fix=fix)
    return RunDir(root)


def holds_seeds(root: Path) -> bool:
    return (root / SEEDS).is_file()


def seed_runs(root: Path) -> list[RunDir]:
    """The runs of a folder of several seeds. Raises BadInput if its seeds.json names none."""
    found = read_json(root / SEEDS, "list of runs")
    names = found.get("runs") if isinstance(found, dict) else None
    if not isinstance(names, list) or not names or not all(map(_is_name, names)):
        raise BadInput(
            f"{root / SEEDS} names no runs",
            fix="repeat the command with --seeds, which writes it again",
        )
    return [RunDir(root / name) for name in names]


def _is_name(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name
