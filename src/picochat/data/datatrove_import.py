"""`picochat data hf-import` on more than one machine, as pipelines of datatrove: its local, Slurm and Ray executors run them.

    from picochat.data.datatrove_import import import_pipeline, run_locally
    from picochat.data.hf_import import ImportRequest

    request = ImportRequest(dataset=..., config=..., out=..., documents_dir=..., max_rows=...)
    run_locally(import_pipeline(request, tasks=16), logging_dir="logs/import", workers=4)

The documents, the report and the head are those of `import_dataset`, byte for byte; what each rank does is
`datatrove_ranks`. Needs the extra `datatrove`. Holds no engine: ranks are started, queued and repeated by datatrove.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from picochat.core.errors import BadInput
from picochat.data import datatrove_ranks as ranks
from picochat.data.hf_import import ImportRequest

try:
    from datatrove.pipeline.base import PipelineStep  # pyright: ignore[reportMissingImports]
except ModuleNotFoundError:
    raise BadInput("an import by several ranks needs datatrove", fix="pip install 'picochat[datatrove]'") from None


class ImportStage(NamedTuple):
    """One pipeline: its steps, and over how many tasks it runs. Each stage needs all tasks of the stage before it."""

    name: str
    pipeline: list[Any]
    tasks: int


class ImportStep(PipelineStep):
    """What one rank does in one stage. Counts rows or documents for datatrove's statistics."""

    type = "IMPORT"

    def __init__(self, name: str, counted: str, work: Callable[[ImportRequest, int, int], int], request: ImportRequest) -> None:
        super().__init__()
        self.name, self.counted, self.work, self.request = name, counted, work, request

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        with self.track_time(unit="task"):
            self.stat_update(self.counted, value=self.work(self.request, rank, world_size), unit="task")


def import_pipeline(request: ImportRequest, tasks: int) -> list[ImportStage]:
    """The stages of the import, to be run one after the other. `tasks`: ranks that read and that write.

    Every place in the request must be one path on a disk that all machines see, and so must a local dataset.
    """
    return [
        ImportStage("pin", [ImportStep("pin", "visits", _pin, request)], 1),
        ImportStage("read", [ImportStep("read", "rows", ranks.read, request)], tasks),
        ImportStage("decide", [ImportStep("decide", "documents", _decide, request)], 1),
        ImportStage("write", [ImportStep("write", "documents", ranks.write, request)], tasks),
        ImportStage("publish", [ImportStep("publish", "documents", _publish, request)], 1),
    ]


def run_locally(stages: Iterable[ImportStage], logging_dir: str | Path, workers: int) -> None:
    """All stages on this machine, `workers` ranks at a time. Repeat it after a failure: what stands is not made again.

    datatrove's own marks of finished ranks are not trusted: they do not say for which request they were set.
    """
    from datatrove.executor.local import LocalPipelineExecutor  # pyright: ignore[reportMissingImports]

    for stage in stages:
        LocalPipelineExecutor(
            stage.pipeline,
            tasks=stage.tasks,
            workers=min(workers, stage.tasks),
            logging_dir=str(Path(logging_dir) / stage.name),
            skip_completed=False,
            start_method="spawn",
        ).run()


def _pin(request: ImportRequest, rank: int, world_size: int) -> int:
    return ranks.pin(request)


def _decide(request: ImportRequest, rank: int, world_size: int) -> int:
    return ranks.decide(request)


def _publish(request: ImportRequest, rank: int, world_size: int) -> int:
    return ranks.publish(request)
