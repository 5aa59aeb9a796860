"""Which files of a dataset hold a split: from the card's `configs:`, else from the names of folders
and files.

A dataset is a list of paths and its card, whether on the Hub or in a local folder. Reads no file
contents and no network. What neither card nor names tell is refused with the list of what exists.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NoReturn

from picochat.core.errors import BadInput, HubProblem, did_you_mean
from picochat.data.formats.rows import format_of
from picochat.data.globs import matches_any

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
class Card:
    """What README.md states in its front matter."""

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
    except (
        yaml.YAMLError,
        ValueError,
        RecursionError,
    ) as error:  # also a date that is none, or endless nesting
        raise BadInput(
            "the dataset card's front matter is not valid YAML"
            f" ({(str(error).splitlines() or ['?'])[0]})",
            fix=(
                "mend README.md; of a dataset that is not yours, import a local copy without its"
                " README.md"
            ),
        ) from None
    if not isinstance(front, dict):
        return NO_CARD
    configs = front.get("configs") or []
    return Card(
        _licence(front),
        tuple(item for item in configs if isinstance(item, dict) and "config_name" in item),
    )


def split_files(
    paths: Sequence[str], card: Card, config: str | None, split: str, where: str, refuse: Refusal
) -> list[str]:
    """The data files of the split, sorted. `refuse(what, fix=...)` makes the error, so that a Hub's
    is a Hub's.

    Raises it for a config or a split that does not exist, and names those that do.
    """
    data = sorted(path for path in paths if format_of(path) is not None and not _is_prose(path))
    by_config = _carded(data, card) or _named(data)
    chosen = _choose_config(by_config, card, config, where, refuse)
    splits = by_config[chosen]
    if not splits.get(split):
        known = [name for name, files in splits.items() if files]
        inside = f"config {chosen!r} of {where}" if chosen else where
        _refuse_name(refuse, f"{inside} has no split {split!r}", split, known, "--split")
    return _one_format(splits[split])


def _licence(front: dict[str, Any]) -> str | None:
    value = front.get("license")
    if isinstance(value, list):
        value = " and ".join(str(item) for item in value)
    if value == "other" and front.get("license_name"):
        value = front["license_name"]
    return str(value) if value else None


def _is_prose(path: str) -> bool:
    """README.md and licence texts lie beside data but are none."""
    return PurePosixPath(path).stem.upper() in {
        "README",
        "LICENSE",
        "LICENCE",
        "NOTICE",
        "CITATION",
    }


def _carded(data: list[str], card: Card) -> dict[str, dict[str, list[str]]]:
    """config -> split -> files as the card says; empty where it has no configs."""
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
    """split -> patterns, of the three ways in which a card may write `data_files`."""
    entries = data_files if isinstance(data_files, list) else [data_files]
    patterns: dict[str, list[str]] = {}
    for entry in entries:
        split, paths = (
            (str(entry.get("split", "train")), entry.get("path", []))
            if isinstance(entry, dict)
            else ("train", entry)
        )
        for path in paths if isinstance(paths, list) else [paths]:
            patterns.setdefault(split, []).append(f"{folder}/{path}" if folder else str(path))
    return patterns


def _named(data: list[str]) -> dict[str, dict[str, list[str]]]:
    """config -> split -> files by convention: `<config>/...`; the root and `data/` are the unnamed
    config "".
    """
    configs: dict[str, list[str]] = {}
    for path in data:
        top, _, rest = path.partition("/")
        unnamed = not rest or top == "data" or _split_word(top) is not None
        configs.setdefault("" if unnamed else top, []).append(path)
    return {name: _by_split(files, name) for name, files in configs.items()}


def _by_split(files: Iterable[str], folder: str) -> dict[str, list[str]]:
    """Files by the split word in their names below `folder`; those without one are train, unless
    others are named so.
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
        _refuse_name(
            refuse,
            f"{where} has no config {config!r}",
            config,
            [name for name in by_config if name],
            "--config",
        )
    default = [str(item["config_name"]) for item in card.configs if item.get("default") is True]
    for name in (*default, "", "default"):
        if name in by_config:
            return name
    if len(by_config) == 1:
        return next(iter(by_config))
    raise refuse(
        f"{where} has {len(by_config)} configs", fix=f"--config one of: {_some(by_config)}"
    )


def _one_format(files: list[str]) -> list[str]:
    """Parquet where there is any: a repository may hold the same rows in two formats."""
    parquet = [path for path in files if format_of(path) == "parquet"]
    return parquet or files


def _refuse_name(refuse: Refusal, what: str, word: str, known: list[str], flag: str) -> NoReturn:
    fix = f"{flag} one of: {_some(known)}" if known else f"leave {flag} out"
    raise refuse(f"{what}{did_you_mean(word, known)}", fix=fix)


def _some(names: Iterable[str]) -> str:
    listed = [name or "(none)" for name in names]
    more = f" and {len(listed) - 20} more" if len(listed) > 20 else ""
    return ", ".join(listed[:20]) + more
