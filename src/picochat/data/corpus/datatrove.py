"""The corpus's pass over all sources on more than one machine: the groups of files of a pack,
shared out over ranks.

    run_locally(scan_pipeline(Path("pack/dataset_pack.json"), least_chars=1, folder=..., tasks=16),
    "logs/scan", workers=4)

`folder` is `scan` in the workspace of the corpus artifact that is to be: `build_corpus` then finds
the groups there, scans those that are missing itself, and decides as ever. So the corpus is the
same, whoever scanned. Reading, hashing and sketching are shared out; deciding is not: it meets
every document, on one machine, from what lies on disk.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from picochat.core.progress import track
from picochat.data.corpus.scan import scan_group, scan_tasks
from picochat.data.datatrove_stages import RankStage, stage
from picochat.data.pack import load_pack


def scan_pipeline(
    dataset_pack: Path, least_chars: int, folder: Path, tasks: int
) -> list[RankStage]:
    """One stage that scans every group of the pack into `folder`. least_chars: `data.min_chars` of
    the run that is to come.
    """
    return [stage("scan", "rows", partial(scan_share, dataset_pack, least_chars, folder), tasks)]


def scan_share(dataset_pack: Path, least_chars: int, folder: Path, rank: int, ranks: int) -> int:
    """Scans every `ranks`-th group from `rank` on, where it does not stand yet; returns the rows of
    this rank's groups.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mine = scan_tasks(load_pack(dataset_pack), least_chars)[rank::ranks]
    listings = [
        scan_group(folder, task) for task in track(mine, f"scan, rank {rank}", len(mine), "groups")
    ]
    return sum(file.rows for listing in listings for file in listing.files)
