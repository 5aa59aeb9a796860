"""Finds the data files of one split of a dataset, on the Hub at a pinned commit or in a local path.

The card's `configs:` say which files hold a split; without them, the names of folders and files do.
A config or split that does not exist is refused with a list of those that do. Reads no rows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, NoReturn, cast

from picochat.core.errors import BadInput, HubProblem, did_you_mean
from picochat.core.progress import say
from picochat.core.records import digest_file, digest_json
from picochat.data.folders import list_folder, matches_any
from picochat.data.formats.file_rows import ENDINGS, format_of
from picochat.data.importing.hub import (
    MOST_CARD_BYTES,
    DataFile,
    Hub,
    HubDataset,
    RetryPolicy,
    TransferStats,
    UnknownRevision,
)

CONVERTED_REVISION = "refs/convert/parquet"  # the Hub's own parquet copy of a dataset
NOT_DATA = frozenset(
    [
        "README",
        "LICENSE",
        "LICENCE",
        "NOTICE",
        "CITATION",
        "DATASET_INFO",
        "DATASET_INFOS",
        "STATE",
        "CONFIG",
    ]
)
"""Names, without ending, of files that describe a dataset."""

SPLIT_WORDS: tuple[tuple[str, str], ...] = (
    # in a file or folder name   split
    ("train", "train"),
    ("training", "train"),
    ("validation", "validation"),
    ("valid", "validation"),
    ("val", "validation"),
    ("dev", "validation"),
    ("test", "test"),
    ("testing", "test"),
    ("eval", "test"),
)
Refusal = Callable[..., HubProblem | BadInput]


@dataclass(frozen=True)
class DatasetSource:
    """The files of one split.

    revision, card_revision: commits of the Hub, None for local files. They differ where the rows
    come from the Hub's parquet copy, which has no card. pin: what a resumed import must find
    unchanged. open_file: opens a file, given by its index, as a seekable stream. digest_of: the
    digest of a file that was read. stop: ends waiting requests.
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
    return _open_local_source(Path(dataset).expanduser(), config, split)


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
    where = f"dataset {id} at {dataset.revision[:12]}"
    by_name = {file.name: file for file in dataset.files}
    names = split_files(list(by_name), configs, config, split, where, HubProblem)
    chosen = tuple(by_name[name] for name in names)
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


def _open_local_source(path: Path, config: str | None, split: str) -> DatasetSource:
    if not os.path.lexists(path):
        raise BadInput(
            f"--dataset {path} does not exist", fix="check the path, or give OWNER/NAME of the Hub"
        )
    folder, names, card = _local_listing(path, config, split)
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


def _local_listing(path: Path, config: str | None, split: str) -> tuple[Path, list[str], Card]:
    """(folder, names of the split's files in it, card)."""
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
        say(f"links to folders are not followed: {', '.join(listing.linked_folders[:5])}")
    card = NO_CARD
    if "README.md" in listing.files:
        with (path / "README.md").open("rb") as stream:
            card = read_card(stream.read(MOST_CARD_BYTES).decode("utf-8", errors="replace"))
    return path, split_files(listing.files, card, config, split, f"folder {path}", BadInput), card


# ---- the card ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Card:
    """What the front matter of a dataset's README.md states."""

    licence: str | None
    configs: tuple[dict[str, Any], ...]


NO_CARD = Card(licence=None, configs=())


def read_card(readme: str) -> Card:
    """The licence and configs of a README's YAML front matter.

    Raises BadInput where the YAML is broken or PyYAML is absent.
    """
    found = re.match(r"\A---\r?\n(.*?)\r?\n---", readme, re.DOTALL)
    if not found:
        return NO_CARD
    try:
        import yaml
    except ModuleNotFoundError:
        raise BadInput(
            "the dataset card cannot be read: PyYAML is not installed",
            fix="pip install 'picochat[hf]'",
        ) from None
    try:
        front = yaml.safe_load(found.group(1))
    # PyYAML also raises ValueError for an impossible date, and RecursionError for deep nesting.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInput(
            "the dataset card's front matter is not valid YAML"
            f" ({(str(error).splitlines() or ['?'])[0]})",
            fix=(
                "repair README.md; if the dataset is not yours, import a local copy without"
                " README.md"
            ),
        ) from None
    if not isinstance(front, dict):
        return NO_CARD
    licence = front.get("license")
    if isinstance(licence, list):
        licence = " and ".join(str(item) for item in licence)
    if licence == "other" and front.get("license_name"):
        licence = front["license_name"]
    configs = front.get("configs") or []
    return Card(
        str(licence) if licence else None,
        tuple(item for item in configs if isinstance(item, dict) and "config_name" in item),
    )


# ---- configs and splits --------------------------------------------------------------------------


def split_files(
    paths: Sequence[str], card: Card, config: str | None, split: str, where: str, refuse: Refusal
) -> list[str]:
    """The data files of the split, sorted.

    refuse: the class of the error that is raised for a config or split that does not exist.
    """
    data = sorted(
        path
        for path in paths
        if format_of(path) is not None and PurePosixPath(path).stem.upper() not in NOT_DATA
    )
    by_config = _configs_of_card(data, card) or _configs_of_names(data)
    chosen = _choose_config(by_config, card, config, where, refuse)
    splits = by_config[chosen]
    if not splits.get(split):
        known = [name for name, files in splits.items() if files]
        inside = f"config {chosen!r} of {where}" if chosen else where
        _refuse_name(refuse, f"{inside} has no split {split!r}", split, known, "--split")
    # A repository may hold the same rows in two formats; reading both would double them.
    parquet = [path for path in splits[split] if format_of(path) == "parquet"]
    return parquet or splits[split]


def _configs_of_card(data: list[str], card: Card) -> dict[str, dict[str, list[str]]]:
    """config -> split -> files, as the card states; empty where it has no configs."""
    found: dict[str, dict[str, list[str]]] = {}
    for item in card.configs:
        folder = str(item.get("data_dir") or "").strip("/")
        inside = [path for path in data if not folder or path.startswith(f"{folder}/")]
        if item.get("data_files") is None:
            found[str(item["config_name"])] = _by_split(inside, folder)
        else:
            patterns = _split_patterns(item["data_files"], folder)
            found[str(item["config_name"])] = {
                split: [path for path in data if matches_any(path, globs)]
                for split, globs in patterns.items()
            }
    return found


def _split_patterns(data_files: Any, folder: str) -> dict[str, list[str]]:
    """split -> patterns.

    In a card, `data_files` is a pattern, a list of patterns, or a list of {split, path}.
    """
    patterns: dict[str, list[str]] = {}
    for entry in data_files if isinstance(data_files, list) else [data_files]:
        split, paths = "train", entry
        if isinstance(entry, dict):
            split, paths = str(entry.get("split", "train")), entry.get("path", [])
        for path in paths if isinstance(paths, list) else [paths]:
            patterns.setdefault(split, []).append(f"{folder}/{path}" if folder else str(path))
    return patterns


def _configs_of_names(data: list[str]) -> dict[str, dict[str, list[str]]]:
    """config -> split -> files, where the top folder of a path is its config.

    The root, `data/` and folders named like a split belong to the unnamed config "".
    """
    configs: dict[str, list[str]] = {}
    for path in data:
        top, _, rest = path.partition("/")
        unnamed = not rest or top == "data" or _split_word(top) is not None
        configs.setdefault("" if unnamed else top, []).append(path)
    return {name: _by_split(files, name) for name, files in configs.items()}


def _by_split(files: Iterable[str], folder: str) -> dict[str, list[str]]:
    """split -> files, by the SPLIT_WORDS in their paths below `folder`.

    Files without such a word are `train`, or left out where other files are named `train`.
    """
    splits: dict[str, list[str]] = {}
    for path in files:
        below = path.removeprefix(f"{folder}/") if folder else path
        splits.setdefault(_split_word(below) or "", []).append(path)
    unnamed = splits.pop("", [])
    if unnamed:
        splits.setdefault("train", unnamed)
    return splits


def _split_word(path: str) -> str | None:
    words = re.split(r"[^a-z]+", path.lower())
    return next((split for word, split in SPLIT_WORDS if word in words), None)


def _choose_config(
    by_config: dict[str, Any], card: Card, config: str | None, where: str, refuse: Refusal
) -> str:
    if not by_config:
        raise refuse(
            f"{where} holds no file that picochat reads",
            fix="it needs parquet, jsonl, txt or md files",
        )
    if config is not None:
        if config in by_config:
            return config
        known = [name for name in by_config if name]
        _refuse_name(refuse, f"{where} has no config {config!r}", config, known, "--config")
    default = [str(item["config_name"]) for item in card.configs if item.get("default") is True]
    for name in (*default, "", "default"):
        if name in by_config:
            return name
    if len(by_config) == 1:
        return next(iter(by_config))
    raise refuse(
        f"{where} has {len(by_config)} configs", fix=f"--config one of: {_some(by_config)}"
    )


def _refuse_name(refuse: Refusal, what: str, word: str, known: list[str], flag: str) -> NoReturn:
    fix = f"{flag} one of: {_some(known)}" if known else f"leave {flag} out"
    raise refuse(f"{what}{did_you_mean(word, known)}", fix=fix)


def _some(names: Iterable[str]) -> str:
    listed = [name or "(none)" for name in names]
    more = f" and {len(listed) - 20} more" if len(listed) > 20 else ""
    return ", ".join(listed[:20]) + more
