"""Where an import reads from, behind one face: a dataset of the Hub, or a local file or folder laid
out like one.

An origin is a pinned list of files of one split, each of which opens as a seekable stream. Reads no
rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from picochat.core.errors import BadInput, HubProblem
from picochat.core.progress import say
from picochat.core.records import digest_file, digest_json
from picochat.data.folders import list_folder
from picochat.data.formats.rows import ENDINGS, format_of
from picochat.data.importing.hub import (
    CONVERTED_REVISION,
    MOST_CARD_BYTES,
    Hub,
    HubDataset,
    HubFile,
)
from picochat.data.importing.hub_requests import Patience, Traffic, UnknownRevision
from picochat.data.importing.layout import NO_CARD, Card, read_card, split_files


@dataclass(frozen=True)
class OriginFile:
    """One data file.

    `digest` is what the Hub states; None for a local file, whose digest is taken when it was read.
    """

    name: str
    bytes: int
    digest: str | None


@dataclass(frozen=True)
class Origin:
    """The files of one split. `pin` is what a resumed import must find again; the revisions are
    None for local files.

    `card_revision` differs from `revision` where the rows come from the Hub's own parquet copy,
    which has no card.
    """

    kind: Literal["hub", "files"]
    dataset: str
    revision: str | None
    card_revision: str | None
    licence: str | None
    files: tuple[OriginFile, ...]
    pin: str
    open_file: Callable[[int], BinaryIO]
    digest_of: Callable[[int], str]
    traffic: Traffic
    stop: Callable[[], None]


def open_origin(
    dataset: str,
    config: str | None,
    split: str,
    revision: str | None,
    *,
    pinned: tuple[str, str] | None = None,
    patience: Patience | None = None,
) -> Origin:
    """The split's files, at `revision` for the Hub. A path that exists, or is written as one, is
    read locally.

    pinned: (revision, card_revision) that an earlier, interrupted import had resolved. patience:
    with the Hub. Raises BadInput for local trouble, HubProblem for the Hub's; both list the configs
    and splits that exist.
    """
    if not is_local(dataset):
        return open_hub(Hub(patience or Patience()), dataset, config, split, revision, pinned)
    if revision is not None:
        raise BadInput(
            f"--revision {revision} was given, but {dataset} is a local path",
            fix="leave --revision out",
        )
    return _open_local(Path(dataset).expanduser(), config, split)


def is_local(dataset: str) -> bool:
    """Whether `--dataset` names a path: it exists, or it is written as one (`./x`, `/x`, `~/x`,
    `x.jsonl`).
    """
    return (
        dataset.startswith((".", "/", "~"))
        or format_of(dataset) is not None
        or os.path.exists(dataset)
    )


def open_hub(
    hub: Hub,
    id: str,
    config: str | None,
    split: str,
    revision: str | None,
    pinned: tuple[str, str] | None = None,
) -> Origin:
    """As `open_origin`, of the Hub alone, whatever stands in the current folder."""
    described = hub.dataset(id, pinned[1] if pinned else revision)
    dataset = _dataset_with_rows(hub, described, revision, pinned)
    where = f"dataset {id} at {dataset.revision[:12]}"
    card = (
        described.card if dataset is described else Card(licence=described.card.licence, configs=())
    )
    names = split_files(
        [file.name for file in dataset.files], card, config, split, where, HubProblem
    )
    by_name = {file.name: file for file in dataset.files}
    chosen = [by_name[name] for name in names]
    return Origin(
        kind="hub",
        dataset=id,
        revision=dataset.revision,
        card_revision=described.revision,
        licence=card.licence,
        files=tuple(OriginFile(file.name, file.bytes, file.digest) for file in chosen),
        pin=dataset.revision,
        open_file=_hub_opener(hub, dataset, chosen),
        digest_of=lambda index: chosen[index].digest,
        traffic=hub.traffic,
        stop=hub.stop,
    )


def _dataset_with_rows(
    hub: Hub, described: HubDataset, revision: str | None, pinned: tuple[str, str] | None
) -> HubDataset:
    """The dataset itself, or the Hub's parquet copy of it where it holds only formats that picochat
    does not read.
    """
    if pinned is not None:
        return (
            described if pinned[0] == described.revision else hub.dataset(described.id, pinned[0])
        )
    if revision is not None or any(
        format_of(file.name) not in (None, "text") for file in described.files
    ):
        return described
    try:
        return hub.dataset(described.id, CONVERTED_REVISION)
    except UnknownRevision:
        return described  # no copy either: what is said about the files that exist helps more


def _hub_opener(hub: Hub, dataset: HubDataset, files: list[HubFile]) -> Callable[[int], Any]:
    return lambda index: hub.open(dataset, files[index])


def _open_local(path: Path, config: str | None, split: str) -> Origin:
    if not os.path.lexists(path):
        raise BadInput(
            f"--dataset {path} does not exist", fix="check the path, or give OWNER/NAME of the Hub"
        )
    folder, names, card = _local_listing(path, config, split)
    marks = [_mark(folder / name) for name in names]
    return Origin(
        kind="files",
        dataset=path.resolve().name,
        revision=None,
        card_revision=None,
        licence=card.licence,
        files=tuple(
            OriginFile(name, size, None) for name, (size, _) in zip(names, marks, strict=True)
        ),
        pin=digest_json([[name, *mark] for name, mark in zip(names, marks, strict=True)]),
        open_file=lambda index: (folder / names[index]).open("rb"),
        digest_of=lambda index: _digest_of_unchanged(folder / names[index], marks[index]),
        traffic=Traffic(),
        stop=lambda: None,
    )


def _mark(path: Path) -> tuple[int, int]:
    """Size and time of change, by which a file that was changed in the meantime is told."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _digest_of_unchanged(path: Path, mark: tuple[int, int]) -> str:
    digest = digest_file(path)
    if _mark(path) != mark:
        raise BadInput(f"{path} changed while it was imported", fix="--force begins again")
    return f"sha256:{digest}"


def _local_listing(path: Path, config: str | None, split: str) -> tuple[Path, list[str], Card]:
    if path.is_file():
        if format_of(path.name) is None:
            raise BadInput(
                f"--dataset {path}: its ending says nothing that picochat reads",
                fix=f"known endings: {ENDINGS}",
            )
        return path.parent, [path.name], NO_CARD
    if not path.is_dir():
        raise BadInput(
            f"--dataset {path} is neither a file nor a folder",
            fix="give a file, a folder, or OWNER/NAME of the Hub",
        )
    listing = list_folder(path)
    listing.require_usable(path)
    if listing.linked_folders:
        say(f"not followed, being links to folders: {', '.join(listing.linked_folders[:5])}")
    readme = path / "README.md"
    card = NO_CARD
    if "README.md" in listing.files:
        with readme.open("rb") as stream:
            card = read_card(stream.read(MOST_CARD_BYTES).decode("utf-8", errors="replace"))
    return path, split_files(listing.files, card, config, split, f"folder {path}", BadInput), card
