"""The worker processes of a run under torchrun: every process but the first.

The first process runs the graph. It calls the workers for the stages that all processes compute
together (`by_all` in the graph). Workers publish nothing and print only their errors.
"""

from __future__ import annotations

import platform
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from picochat.core.errors import BadInput, CheckFailed, Interrupted, PicochatError, Problem
from picochat.core.progress import say
from picochat.core.publish import Artifact, StagingFolder, open_artifact
from picochat.run.graph import spec_of

if TYPE_CHECKING:
    from picochat.train.distributed import ProcessGroup


@dataclass(frozen=True)
class Call:
    """The message that calls the workers to a stage: its arguments and its workspace."""

    kind: str
    arguments: dict[str, Any]
    workspace: Path


def call_all(kind: str, arguments: dict[str, Any], staging: StagingFolder) -> None:
    """Call the workers to a stage. Raises BadInput if a worker cannot read its inputs."""
    from picochat.train.distributed import current_group

    group = current_group()
    seen = {
        name: replace(value, place=value.place.resolve()) if isinstance(value, Artifact) else value
        for name, value in arguments.items()
    }
    with group.watched():
        # Each process first reports whether it sees the same artifacts. Otherwise a process that
        # cannot take part would leave the others waiting in their first collective operation.
        group.call_workers(Call(kind, seen, staging.workspace.resolve()))
        problems = [problem for problem in group.all_gather(None) if problem is not None]
    if problems:
        raise BadInput(
            f"not every process sees what the stage {kind} needs",
            problems=problems,
            fix="put --out-dir on a disk that all machines see under the same path",
        )


def run_worker(group: ProcessGroup) -> int:
    """Take part in stages until the first process ends; returns the exit code of this process."""
    from picochat.train.distributed import LostProcess
    from picochat.train.signals import signals_ignored

    try:
        # A signal reaches every process. A worker ignores it and ends after the first process has
        # saved.
        with signals_ignored(), group.watched():
            while (call := group.next_call()) is not None:
                assert isinstance(call, Call)
                _take_part(call, group)
    except LostProcess:
        return 1  # the first process, or torchrun, reports which process was lost
    return 0


def _take_part(call: Call, group: ProcessGroup) -> None:
    from picochat.train.distributed import LostProcess

    problem = unseen(call, group)
    if any(found is not None for found in group.all_gather(problem)):
        return
    # Only the first process publishes. Files that a worker writes outside the shared workspace are
    # deleted.
    with tempfile.TemporaryDirectory() as own:
        try:
            spec_of(call.kind).make(
                **call.arguments, staging=StagingFolder(Path(own), call.workspace)
            )
        except (Interrupted, CheckFailed):
            pass  # all processes stop at the same step, and the first one reports it
        except PicochatError as error:
            if not isinstance(error, LostProcess):
                say(f"process {group.rank} on {platform.node()}:")
            raise


def unseen(call: Call, group: ProcessGroup) -> Problem | None:
    """The artifact or workspace that is missing or differs on this machine; None if none is."""
    here = f"process {group.rank} on {platform.node()}"
    artifacts = [value for value in call.arguments.values() if isinstance(value, Artifact)]
    try:
        for artifact in artifacts:
            if open_artifact(artifact.place, artifact.kind).digest != artifact.digest:
                return Problem(f"{here}: {artifact.place} is another {artifact.kind}")
    except PicochatError as error:
        return Problem(f"{here}: {error.what}")
    if not (call.workspace / "key").exists():
        return Problem(f"{here}: {call.workspace} is missing")
    return None
