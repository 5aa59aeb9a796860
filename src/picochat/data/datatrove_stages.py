"""Work that is shared out over ranks, as pipelines of datatrove: its local, Slurm and Ray executors
run them.

Needs the extra `datatrove`. Holds no engine: ranks are started, queued and repeated by datatrove.
The work itself knows nothing of it, and may be repeated: what stands is not made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from picochat.core.errors import BadInput

try:
    from datatrove.pipeline.base import PipelineStep  # pyright: ignore[reportMissingImports]
except ModuleNotFoundError:
    raise BadInput(
        "work on several machines needs datatrove", fix="pip install 'picochat[datatrove]'"
    ) from None

Work = Callable[[int, int], int]


class RankStage(NamedTuple):
    """One pipeline: its steps, and over how many tasks it runs.

    Every stage needs all tasks of the stage before it.
    """

    name: str
    pipeline: list[Any]
    tasks: int


class RankStep(PipelineStep):
    """What one rank does in one stage.

    `work(rank, ranks)` returns how many of `counted` it did, for datatrove's statistics.
    """

    type = "PICOCHAT"

    def __init__(self, name: str, counted: str, work: Work) -> None:
        self.name, self.counted, self.work = name, counted, work
        super().__init__()  # reads the name

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        with self.track_time(unit="task"):
            self.stat_update(self.counted, value=self.work(rank, world_size), unit="task")


def stage(name: str, counted: str, work: Work, tasks: int) -> RankStage:
    """A stage of one step."""
    return RankStage(name, [RankStep(name, counted, work)], tasks)


def run_locally(stages: Iterable[RankStage], logging_dir: str | Path, workers: int) -> None:
    """All stages on this machine, `workers` ranks at a time. Repeat it after a failure.

    datatrove's own marks of finished ranks are not trusted: they do not say for which request they
    were set.
    """
    from datatrove.executor.local import LocalPipelineExecutor  # pyright: ignore[reportMissingImports]

    for each in stages:
        LocalPipelineExecutor(
            each.pipeline,
            tasks=each.tasks,
            workers=min(workers, each.tasks),
            logging_dir=str(Path(logging_dir) / each.name),
            skip_completed=False,
            start_method="spawn",
        ).run()
