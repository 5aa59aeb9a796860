"""model.json: which model was asked, with which settings, which rows."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from picochat.core.progress import track
from picochat.core.records import Record, digest_file


class AskSettings(Record):
    """What decides about replies, apart from model and rows."""

    max_new_tokens: int
    batch_rows: int
    device: Literal["cpu", "cuda"]
    precision: Literal["float32", "bf16"]
    max_rows: int | None


class ModelRecord(Record):
    """The model folder, and how it was asked.

    files: name -> sha256 of every file of the folder itself. ends: the tokens that end a reply.
    rows_digest: sha256 of the eval rows that were asked, as canonical JSON.
    """

    name: str
    files: dict[str, str]
    model_class: str
    parameters: int
    context: int
    ends: list[int]
    settings: AskSettings
    pack: str
    eval_rows: int
    rows_digest: str
    versions: dict[str, str]


def folder_digests(folder: Path) -> dict[str, str]:
    """Name -> sha256 of the files that lie in the folder itself, hidden ones left out."""
    files = sorted(
        path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")
    )
    total = sum(path.stat().st_size for path in files)
    tracked = track(files, "digests of the model", total, "bytes", lambda path: path.stat().st_size)
    return {path.name: digest_file(path) for path in tracked}
