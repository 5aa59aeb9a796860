"""Which files of a dataset hold a split: by the card's configs, else by names.

The rules for names follow the `datasets` library: `NAME-00000-of-00003` in a folder is the split
NAME, and words such as `train` or `dev` in the name of a folder or file are a split. They differ
where that library would put two splits into one: `train_sft` and `train_gen` are splits of their
own names, and so is a file whose name holds the words of two splits. Opens no file.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple, NoReturn

from picochat.core.errors import BadInput, HubProblem, did_you_mean
from picochat.data.folders import matches_any
from picochat.data.formats.file_rows import ENDINGS, FORMATS, format_of
from picochat.data.importing.dataset_card import Card, stated
from picochat.data.left_out import by_ending, counted, pattern_of_text, unread

NOT_DATA = frozenset(
    [
        "README",
        "LICENSE",
        "LICENCE",
        "NOTICE",
        "CITATION",
        "DATASET_DICT",
        "DATASET_INFO",
        "DATASET_INFOS",
        "STATE",
        "CONFIG",
    ]
)
"""Names, without ending, of files that describe a dataset."""

SPLIT_WORDS = {
    # in a name     split
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
    # Of speech corpora, beside train.
    "validated": "validated",
    "invalidated": "invalidated",
}
UNNAMED = "unnamed"
"""The split of files whose names say none, where others are named `train`."""
SHARDED = re.compile(r"(\w+(?:[.-]\w+)*?)-\d{5}-of-\d{5}.*")
# What numbers the files of one split: train-part-3, train_v1.1, train_data, train-<a hash>.
NUMBERING = re.compile(
    r"(?:[-_. ]+(?:part|shard|chunk|batch|file|data|dataset|set|split|of)(?![a-z])"
    r"|[-_. ]*v?\d+|[-_. ]+[0-9a-f]{16})+$",
    re.IGNORECASE,
)
PARTIAL = "partial-"
"""Opens the folder of a split of which the Hub's parquet copy holds only the first part."""
Refusal = Callable[..., HubProblem | BadInput]


class SplitFiles(NamedTuple):
    """The data files of a split, sorted. notes: what is left out beside them, and why."""

    names: list[str]
    notes: list[str]


def split_files(
    paths: Sequence[str],
    card: Card,
    config: str | None,
    split: str,
    where: str,
    refuse: Refusal,
    *,
    converted: bool = False,
) -> SplitFiles:
    """The data files of the split.

    refuse: the class of the error that is raised for a config or split that does not exist.
    converted: the paths are those of the Hub's parquet copy, CONFIG/SPLIT/NUMBER.parquet.
    """
    data = sorted(path for path in paths if format_of(path) is not None and not describes(path))
    by_config = (
        _configs_of_copy(data) if converted else _configs_of_card(data, card)
    ) or _configs_of_names(data)
    if not by_config:
        has = unread(path for path in paths if not describes(path))
        pattern = pattern_of_text(has)
        raise refuse(
            f"{where} holds no file that picochat reads{f': it has {counted(has)}' if has else ''}",
            fix=(
                f"of a local copy, picochat data init-pack --input COPY --include '{pattern}'"
                " --out-dir PACK makes a pack"
                if pattern
                else f"name one with files of these endings: {ENDINGS}"
            ),
        )
    chosen = _choose_config(by_config, card, config, where, refuse)
    splits = by_config[chosen]
    if not splits.get(split):
        known = [name for name, files in splits.items() if files]
        inside = f"config {chosen!r} of {where}" if chosen else where
        _refuse_name(refuse, f"{inside} has no split {split!r}", split, known, "--split")
    # A repository may hold the same rows in two formats; reading both would double them.
    files = splits[split]
    names = [path for path in files if format_of(path) == "parquet"] or files
    return SplitFiles(names, _notes(names, set(files) - set(names), splits, split))


def describes(path: str) -> bool:
    """Whether the file describes the dataset and holds no rows of it."""
    return PurePosixPath(path).stem.upper() in NOT_DATA


def _notes(
    names: list[str], others: Iterable[str], splits: dict[str, list[str]], split: str
) -> list[str]:
    notes: list[str] = []
    if any(part.startswith(PARTIAL) for path in names for part in path.split("/")[:-1]):
        notes.append(
            f"the Hub's parquet copy holds only the first part of split {split} ({names[0]})"
        )
    if doubled := counted(by_ending(others)):
        notes.append(f"{doubled} left out: parquet files hold the split as well")
    if split != UNNAMED and (unnamed := splits.get(UNNAMED)):
        notes.append(
            f"{counted(by_ending(unnamed))} left out: the names say no split, others are named"
            f" train (the first: {unnamed[0]}); --split {UNNAMED} takes those"
        )
    alike = [name for name in splits if name != split and split in _splits_in(name)]
    if alike:
        notes.append(
            f"{counted(by_ending(path for name in alike for path in splits[name]))} left out, as"
            f" splits of their own names: {_some(alike)}; --split takes one of them"
        )
    return notes


# ---- configs -------------------------------------------------------------------------------------


def _configs_of_card(data: list[str], card: Card) -> dict[str, dict[str, list[str]]]:
    """config -> split -> files, as the card states; empty where it has no configs."""
    found: dict[str, dict[str, list[str]]] = {}
    for item in card.configs:
        folder = _relative(stated(item.get("data_dir")) or "")
        inside = [path for path in data if not folder or path.startswith(f"{folder}/")]
        if stated(item.get("data_files")) is None:
            found[str(item["config_name"])] = _by_split(inside, folder)
        else:
            patterns = _split_patterns(item["data_files"], folder)
            found[str(item["config_name"])] = {
                split: [path for path in data if matches_any(path, globs)]
                for split, globs in patterns.items()
            }
    return found


def _split_patterns(data_files: Any, folder: str) -> dict[str, list[str]]:
    """split -> patterns, relative to the dataset.

    In a card, `data_files` is a pattern, a list of patterns, a list of {split, path}, or one
    mapping of split to patterns.
    """
    if isinstance(data_files, dict) and "path" not in data_files:
        data_files = [{"split": split, "path": path} for split, path in data_files.items()]
    patterns: dict[str, list[str]] = {}
    for entry in data_files if isinstance(data_files, list) else [data_files]:
        split, paths = "train", entry
        if isinstance(entry, dict):
            split, paths = str(entry.get("split", "train")), entry.get("path", [])
        for path in paths if isinstance(paths, list) else [paths]:
            patterns.setdefault(split, []).append(_relative(f"{folder}/{path}"))
    return patterns


def _relative(path: object) -> str:
    """A path of a card as the listing writes it: without `./`, `/` at its ends, and `..`."""
    return posixpath.normpath(f"/{str(path).strip()}").lstrip("/")


def _configs_of_copy(data: list[str]) -> dict[str, dict[str, list[str]]]:
    """config -> split -> files of the Hub's parquet copy."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in data:
        parts = path.split("/")
        if len(parts) == 3:
            split = parts[1].removeprefix(PARTIAL)
            found.setdefault(parts[0], {}).setdefault(split, []).append(path)
    return found


def _configs_of_names(data: list[str]) -> dict[str, dict[str, list[str]]]:
    """config -> split -> files, where the top folder of a path is its config.

    The root, `data/` and folders named like a split belong to the unnamed config "".
    """
    configs: dict[str, list[str]] = {}
    for path in data:
        top, _, rest = path.partition("/")
        unnamed = not rest or top == "data" or _split_of_name(top) is not None
        configs.setdefault("" if unnamed else top, []).append(path)
    return {name: _by_split(files, name) for name, files in configs.items()}


def _choose_config(
    by_config: dict[str, Any], card: Card, config: str | None, where: str, refuse: Refusal
) -> str:
    if config is not None:
        if config in by_config:
            return config
        known = [name for name in by_config if name]
        _refuse_name(refuse, f"{where} has no config {config!r}", config, known, "--config")
    default = [
        str(item["config_name"])
        for item in card.configs
        if str(item.get("default")).lower() == "true"
    ]
    for name in (*default, "", "default"):
        if name in by_config:
            return name
    if len(by_config) == 1:
        return next(iter(by_config))
    raise refuse(
        f"{where} has {len(by_config)} configs", fix=f"--config one of: {_some(by_config)}"
    )


# ---- splits --------------------------------------------------------------------------------------


def _by_split(files: Iterable[str], folder: str) -> dict[str, list[str]]:
    """split -> files, by the names of files and of the folders below `folder`.

    Files whose names say no split are `train`, or UNNAMED where others are named for training.
    """
    splits: dict[str, list[str]] = {}
    unnamed: dict[str, list[str]] = {}  # the name before its shard number, or "" -> files
    for path in files:
        below = path.removeprefix(f"{folder}/") if folder else path
        split = _split_of(below)
        if split is not None:
            splits.setdefault(split, []).append(path)
        else:
            unnamed.setdefault(_sharded_name(path), []).append(path)
    # Names before shard numbers that are no words of a split are splits too, unless all files have
    # the same one: then it is the name of the dataset.
    sharded = [name for name in unnamed if name]
    if splits or len(sharded) > 1:
        for name in sharded:
            splits.setdefault(name, []).extend(unnamed.pop(name))
    rest = sorted(path for paths in unnamed.values() for path in paths)
    if rest:
        named = any("train" in _splits_in(name) for name in splits)
        splits.setdefault(UNNAMED if named else "train", []).extend(rest)
    return dict(sorted(splits.items()))


def _split_of(path: str) -> str | None:
    """The split that the names of a path say: a word that stands for one before others."""
    *folders, file = path.split("/")
    stem = _stem(file)
    sharded = SHARDED.fullmatch(stem)
    found = [
        *(_split_of_name(folder) for folder in folders),
        _split_of_name(sharded[1], numbered=False) if sharded else _split_of_name(stem),
    ]
    named = [split for split in found if split is not None]
    plain = (split for split in named if split in SPLIT_WORDS.values())
    return next(plain, named[0] if named else None)


def _sharded_name(path: str) -> str:
    """NAME of FOLDER/NAME-00000-of-00003.parquet; "" for another name."""
    sharded = SHARDED.fullmatch(_stem(path.rpartition("/")[2])) if "/" in path else None
    return sharded[1] if sharded else ""


def _split_of_name(name: str, *, numbered: bool = True) -> str | None:
    """The split of one folder or file: that of its word, or its own name beside other words.

    A word in front says whose split it is (`wiki-train`), words after it which one (`train_sft`).
    numbered: numbers at the end of the name count the files of the split.
    """
    base = NUMBERING.sub("", name) if numbered else name
    splits = _splits_in(base)
    if not splits:
        return None
    last = re.search("[a-z]*$", base.lower())
    return splits.pop() if len(splits) == 1 and last and last[0] in SPLIT_WORDS else base


def _splits_in(name: str) -> set[str]:
    """The splits for which a word of the name stands."""
    return {SPLIT_WORDS[word] for word in re.findall("[a-z]+", name.lower()) if word in SPLIT_WORDS}


def _stem(file: str) -> str:
    ending = next((ending for ending, _ in FORMATS if file.lower().endswith(ending)), "")
    return file[: len(file) - len(ending)]


# ---- refusals ------------------------------------------------------------------------------------


def _refuse_name(refuse: Refusal, what: str, word: str, known: list[str], flag: str) -> NoReturn:
    fix = f"{flag} one of: {_some(known)}" if known else f"leave {flag} out"
    raise refuse(f"{what}{did_you_mean(word, known)}", fix=fix)


def _some(names: Iterable[str]) -> str:
    listed = [name or "(none)" for name in names]
    more = f" and {len(listed) - 20} more" if len(listed) > 20 else ""
    return ", ".join(listed[:20]) + more
