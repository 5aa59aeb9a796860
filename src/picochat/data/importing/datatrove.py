"""`picochat data hf-import` on more than one machine.

    from picochat.data.importing.datatrove import import_pipeline
    from picochat.data.datatrove_stages import run_locally
    from picochat.data.importing.request import ImportRequest

    request = ImportRequest(dataset=..., config=..., out=..., documents_dir=..., max_rows=...)
    run_locally(import_pipeline(request, tasks=16), logging_dir="logs/import", workers=4)

The documents, the report and the head are those of `import_dataset`, byte for byte. What each rank
does is `ranks`; how Slurm runs them is docs/several-machines.md.
"""

from __future__ import annotations

from functools import partial

from picochat.data.datatrove_stages import RankStage, stage
from picochat.data.importing import ranks
from picochat.data.importing.request import ImportRequest


def import_pipeline(request: ImportRequest, tasks: int) -> list[RankStage]:
    """The stages of the import, to be run one after the other. `tasks`: ranks that read, and ranks
    that write.

    Every place in the request must be one path on a disk that all machines see, and so must a local
    dataset.
    """
    return [
        stage("pin", "visits", partial(ranks.pin, request), 1),
        stage("read", "rows", partial(ranks.read, request), tasks),
        stage("decide", "documents", partial(ranks.decide, request), 1),
        stage("write", "documents", partial(ranks.write, request), tasks),
        stage("publish", "documents", partial(ranks.publish, request), 1),
    ]
