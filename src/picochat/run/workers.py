"""What the processes of a run do that are not the first one.

torchrun starts several processes, and the first one runs everything. It calls the others for the
stages that all compute together (`by_all` in the graph). They take part until the stage ends,
publish nothing and print nothing but their errors.
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
    """A stage that the first process tells the others to take part in.

    It has the kind of the stage, the arguments of its function, and its workspace.
    """

    kind: str
    arguments: dict[str, Any]
    workspace: Path


def call_all(kind: str, arguments: dict[str, Any], staging: StagingFolder) -> None:
    """Let the other processes begin this stage as well.

    Raises BadInput that names what one of them does not see.
    """
    from picochat.train.distributed import current_group

    group = current_group()
    seen = {
        name: replace(value, place=value.place.resolve()) if isinstance(value, Artifact) else value
        for name, value in arguments.items()
    }
    with group.watched():
        # Each process first says whether it sees the same artifacts. One that could not take part
        # would leave the others waiting in their first exchange.
        group.call_workers(Call(kind, seen, staging.workspace.resolve()))
        problems = [problem for problem in group.all_gather(None) if problem is not None]
    if problems:
        raise BadInput(
            f"not every process sees what the stage {kind} needs",
            problems=problems,
            fix="put --out-dir on a disk that all machines see under the same path",
        )


def run_worker(group: ProcessGroup) -> int:
    """Take part in each stage that this process is called to, and return its exit code.

    This is all that a process does that is not the first.
    """
    from picochat.train.distributed import LostProcess
    from picochat.train.signals import signals_ignored

    try:
        # A signal reaches every process. This one ignores it and ends with the first process, after
        # that has saved.
        with signals_ignored(), group.watched():
            while (call := group.next_call()) is not None:
                assert isinstance(call, Call)
                _take_part(call, group)
    except LostProcess:
        return 1  # the first process, or torchrun in its place, says which one
    return 0


def _take_part(call: Call, group: ProcessGroup) -> None:
    from picochat.train.distributed import LostProcess

    problem = unseen(call, group)
    if any(found is not None for found in group.all_gather(problem)):
        return
    # Only the first process publishes. What this one writes outside the shared workspace is thrown
    # away.
    with tempfile.TemporaryDirectory() as own:
        try:
            spec_of(call.kind).make(
                **call.arguments, staging=StagingFolder(Path(own), call.workspace)
            )
        except (Interrupted, CheckFailed):
            pass  # all processes stop for it at the same step, and the first one says so
        except PicochatError as error:
            if not isinstance(error, LostProcess):
                say(f"process {group.rank} on {platform.node()}:")
            raise


def unseen(call: Call, group: ProcessGroup) -> Problem | None:
    """Why this process cannot take part; None where it can.

    The reason is an artifact or a workspace that is missing here or differs.
    """
    artifacts = [value for value in call.arguments.values() if isinstance(value, Artifact)]
    try:
        for artifact in artifacts:
            if open_artifact(artifact.place, artifact.kind).digest != artifact.digest:
                return Problem(
                    f"process {group.rank} on {platform.node()}: {artifact.place} is another"
                    f" {artifact.kind}"
                )
    except PicochatError as error:
        return Problem(f"process {group.rank} on {platform.node()}: {error.what}")
    if not (call.workspace / "key").exists():
        return Problem(f"process {group.rank} on {platform.node()}: {call.workspace} is missing")
    return None
