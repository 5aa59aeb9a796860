"""Work on several machines as pipelines of datatrove: the import, and the scan of a corpus.

    from picochat.data.datatrove_pipelines import import_pipeline, run_locally
    from picochat.data.importing.import_report import ImportRequest

    request = ImportRequest(dataset=..., config=..., out=..., documents_dir=..., max_rows=...)
    run_locally(import_pipeline(request, tasks=16), logging_dir="logs/import", workers=4)

datatrove's local, Slurm and Ray executors start, queue and repeat the ranks. The work itself does
not depend on datatrove. It may be repeated, because finished parts are skipped. Needs the extra
`datatrove`. docs/several-machines.md shows a run with Slurm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from picochat.core.errors import BadInput
from picochat.core.progress import track
from picochat.data.corpus.corpus_scan import scan_group, scan_tasks
from picochat.data.importing import distributed_import
from picochat.data.importing.import_report import ImportRequest
from picochat.data.pack import load_pack

try:
    from datatrove.pipeline.base import PipelineStep  # pyright: ignore[reportMissingImports]
except ModuleNotFoundError:
    raise BadInput(
        "work on several machines needs datatrove", fix="pip install 'picochat[datatrove]'"
    ) from None

Work = Callable[[int, int], int]


class RankStage(NamedTuple):
    """A pipeline and its number of tasks. It may begin when the stage before it has ended."""

    name: str
    pipeline: list[Any]
    tasks: int


class RankStep(PipelineStep):
    """The work of one rank in one stage.

    work(rank, ranks) returns how many of `counted` it did, for datatrove's statistics.
    """

    type = "PICOCHAT"

    def __init__(self, name: str, counted: str, work: Work) -> None:
        self.name, self.counted, self.work = name, counted, work
        super().__init__()  # reads self.name

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        with self.track_time(unit="task"):
            self.stat_update(self.counted, value=self.work(rank, world_size), unit="task")


def stage(name: str, counted: str, work: Work, tasks: int) -> RankStage:
    return RankStage(name, [RankStep(name, counted, work)], tasks)


def import_pipeline(request: ImportRequest, tasks: int, *, force: bool = False) -> list[RankStage]:
    """The stages of an import. `tasks`: number of ranks that read, and of ranks that write.

    force: as --force of `picochat data hf-import`.

    Documents, report and head equal those of `import_dataset` byte for byte. All paths in the
    request, and a local dataset, must lie on a disk that all machines share.
    """
    steps = distributed_import
    return [
        stage("pin", "slices", partial(steps.pin, request, force=force), 1),
        stage("read", "rows", partial(steps.read, request), tasks),
        stage("decide", "documents", partial(steps.decide, request), 1),
        stage("write", "documents", partial(steps.write, request), tasks),
        stage("publish", "documents", partial(steps.publish, request), 1),
    ]


def scan_pipeline(
    dataset_pack: Path, least_chars: int, folder: Path, tasks: int
) -> list[RankStage]:
    """The one stage that scans every group of files of a pack into `folder`.

    folder: `scan` in the workspace of the future corpus artifact. `build_corpus` finds the groups
    there, scans missing ones, and makes the same corpus as without this stage. It decides on one
    machine, because a decision about a document depends on all others. least_chars:
    `data.min_chars` of the future run.
    """
    work = partial(scan_groups_of_rank, dataset_pack, least_chars, folder)
    return [stage("scan", "rows", work, tasks)]


def scan_groups_of_rank(
    dataset_pack: Path, least_chars: int, folder: Path, rank: int, ranks: int
) -> int:
    """Scan every `ranks`-th group from `rank` on; returns how many rows these groups have."""
    folder.mkdir(parents=True, exist_ok=True)
    mine = scan_tasks(load_pack(dataset_pack), least_chars)[rank::ranks]
    listings = [
        scan_group(folder, task) for task in track(mine, f"scan, rank {rank}", len(mine), "groups")
    ]
    return sum(file.rows for listing in listings for file in listing.files)


def run_locally(stages: Iterable[RankStage], logging_dir: str | Path, workers: int) -> None:
    """Run all stages on this machine, `workers` ranks at a time. After a failure, call it again."""
    from datatrove.executor import local  # pyright: ignore[reportMissingImports]

    for each in stages:
        local.LocalPipelineExecutor(
            each.pipeline,
            tasks=each.tasks,
            workers=min(workers, each.tasks),
            logging_dir=str(Path(logging_dir) / each.name),
            # datatrove's completion marks do not say for which request they were set.
            skip_completed=False,
            start_method="spawn",
        ).run()
