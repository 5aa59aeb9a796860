"""Finds the data files of one split of a dataset, on the Hub at a pinned commit or in a local path.

dataset_splits.py decides which files these are, dataset_card.py reads what the card says of them.
Reads no rows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

from picochat.core.errors import BadInput, HubProblem
from picochat.core.records import digest_file, digest_json
from picochat.data.folders import list_folder
from picochat.data.formats.file_rows import ENDINGS, format_of
from picochat.data.importing.dataset_card import NO_CARD, Card, read_card
from picochat.data.importing.dataset_splits import describes, split_files
from picochat.data.importing.hub import (
    MOST_CARD_BYTES,
    DataFile,
    Hub,
    HubDataset,
    RetryPolicy,
    TransferStats,
    UnknownRevision,
)
from picochat.data.left_out import counted, pattern_of_text, unread

CONVERTED_REVISION = "refs/convert/parquet"  # the Hub's own parquet copy of a dataset
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class DatasetSource:
    """The files of one split.

    revision, card_revision: commits of the Hub, None for local files. They differ where the rows
    come from the Hub's parquet copy, which has no card. pin: what a resumed import must find
    unchanged. open_file: opens a file, given by its index, as a seekable stream. digest_of: the
    digest of a file that was read. stop: ends waiting requests. notes: what is left out, and what
    else a person should know before the import.
    """

    kind: Literal["hub", "files"]
    dataset: str
    revision: str | None
    card_revision: str | None
    licence: str | None
    files: tuple[DataFile, ...]
    pin: str
    open_file: Callable[[int], BinaryIO]
    digest_of: Callable[[int], str]
    transfer: TransferStats
    stop: Callable[[], None]
    notes: tuple[str, ...]


def open_source(
    dataset: str,
    config: str | None,
    split: str,
    revision: str | None,
    *,
    pinned: tuple[str, str] | None = None,
    retry: RetryPolicy | None = None,
) -> DatasetSource:
    """The files of the split: locally where `dataset` is a path, else on the Hub at `revision`.

    pinned: (revision, card_revision) that an interrupted import had resolved. Raises BadInput for
    local files and HubProblem for the Hub.
    """
    if not is_local(dataset):
        hub = Hub(retry or RetryPolicy())
        return open_hub_source(hub, dataset, config, split, revision, pinned)
    if revision is not None:
        raise BadInput(
            f"--revision {revision} was given, but {dataset} is a local path",
            fix="leave --revision out",
        )
    return _open_local_source(dataset, config, split)


def is_local(dataset: str) -> bool:
    """Whether `--dataset` is a path: it exists, or is written as one (`./x`, `~/x`, `x.jsonl`)."""
    return (
        dataset.startswith((".", "/", "~"))
        or format_of(dataset) is not None
        or os.path.exists(dataset)
    )


def open_hub_source(
    hub: Hub,
    id: str,
    config: str | None,
    split: str,
    revision: str | None,
    pinned: tuple[str, str] | None = None,
) -> DatasetSource:
    """As `open_source`, but always from the Hub, even where a local path has the same name."""
    described = hub.dataset(id, pinned[1] if pinned else revision)
    dataset = _dataset_with_rows(hub, described, revision, pinned)
    card = read_card(described.readme)
    # The card's configs name files of its own revision, not those of the parquet copy.
    configs = card if dataset is described else NO_CARD
    by_name = {file.name: file for file in dataset.files}
    found = split_files(
        list(by_name),
        configs,
        config,
        split,
        f"dataset {id} at {dataset.revision[:12]}",
        HubProblem,
        converted=revision == CONVERTED_REVISION or dataset is not described,
    )
    chosen = tuple(by_name[name] for name in found.names)
    return DatasetSource(
        kind="hub",
        dataset=id,
        revision=dataset.revision,
        card_revision=described.revision,
        licence=card.licence,
        files=chosen,
        pin=dataset.revision,
        open_file=lambda file: cast(BinaryIO, hub.open(dataset, chosen[file])),
        digest_of=lambda file: chosen[file].digest or "",
        transfer=hub.transfer,
        stop=hub.stop,
        notes=(*found.notes, *_unread_note(list(by_name), "a local copy of it")),
    )


def _dataset_with_rows(
    hub: Hub, described: HubDataset, revision: str | None, pinned: tuple[str, str] | None
) -> HubDataset:
    """The dataset, or the Hub's parquet copy where the dataset has no parquet or JSON lines."""
    if pinned is not None:
        if pinned[0] == described.revision:
            return described
        return hub.dataset(described.id, pinned[0])
    formats = {format_of(file.name) for file in described.files}
    if revision is not None or formats & {"parquet", "jsonl"}:
        return described
    try:
        return hub.dataset(described.id, CONVERTED_REVISION)
    except UnknownRevision:
        return described  # a refusal then lists what the dataset itself holds


# ---- local files ---------------------------------------------------------------------------------


def _open_local_source(dataset: str, config: str | None, split: str) -> DatasetSource:
    path = Path(dataset).expanduser()
    if not os.path.lexists(path):
        raise BadInput(
            f"--dataset {path} does not exist", fix="check the path, or give OWNER/NAME of the Hub"
        )
    folder, names, card, notes = _local_listing(path, config, split)
    if path.is_dir() and HUB_NAME.fullmatch(dataset):
        notes.insert(
            0,
            f"{dataset} is read from the local path {path.resolve()}, not from the Hub; run in"
            f" another folder to import the Hub's, or write ./{dataset} to mean the path",
        )
    marks = [_mark(folder / name) for name in names]
    return DatasetSource(
        kind="files",
        dataset=path.resolve().name,
        revision=None,
        card_revision=None,
        licence=card.licence,
        files=tuple(DataFile(name, mark[0], None) for name, mark in zip(names, marks, strict=True)),
        pin=digest_json([[name, *mark] for name, mark in zip(names, marks, strict=True)]),
        open_file=lambda file: (folder / names[file]).open("rb"),
        digest_of=lambda file: _digest_of_unchanged(folder / names[file], marks[file]),
        transfer=TransferStats(),
        stop=lambda: None,
        notes=tuple(notes),
    )


def _mark(path: Path) -> tuple[int, int]:
    """(size in bytes, modification time in ns), to detect a change during the import."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _digest_of_unchanged(path: Path, mark: tuple[int, int]) -> str:
    digest = digest_file(path)
    if _mark(path) != mark:
        raise BadInput(f"{path} changed while it was imported", fix="--force begins again")
    return f"sha256:{digest}"


def _local_listing(
    path: Path, config: str | None, split: str
) -> tuple[Path, list[str], Card, list[str]]:
    """(folder, names of the split's files in it, card, notes)."""
    if path.is_file():
        if format_of(path.name) is None:
            raise BadInput(
                f"--dataset {path}: its ending says nothing that picochat reads",
                fix=f"known endings: {ENDINGS}",
            )
        return path.parent, [path.name], NO_CARD, []
    if not path.is_dir():
        raise BadInput(
            f"--dataset {path} is neither a file nor a folder",
            fix="give a file, a folder, or OWNER/NAME of the Hub",
        )
    listing = list_folder(path)
    listing.require_usable(path)
    card = NO_CARD
    if "README.md" in listing.files:
        with (path / "README.md").open("rb") as stream:
            card = read_card(stream.read(MOST_CARD_BYTES).decode("utf-8", errors="replace"))
    found = split_files(listing.files, card, config, split, f"folder {path}", BadInput)
    notes = [*found.notes, *_unread_note(listing.files, str(path))]
    if listing.linked_folders:
        notes.append(f"links to folders are not followed: {', '.join(listing.linked_folders[:5])}")
    return path, found.names, card, notes


def _unread_note(names: list[str], folder: str) -> list[str]:
    """One line on the files whose endings are not read, and how to take those that are text."""
    shown = (name for name in names if not name.startswith(".") and not describes(name))
    endings = unread(shown)
    if not endings:
        return []
    pattern = pattern_of_text(endings)
    command = f"picochat data init-pack --input {folder} --include '{pattern}' --out-dir PACK"
    how = f"; {command} takes those" if pattern else ""
    return [f"{counted(endings)} left out: files of other endings hold no rows{how}"]
