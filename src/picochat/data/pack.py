"""Packs and recipes: which sources make a corpus, and which rows go with it.

`dataset_pack.json` names a corpus (a path, or a recipe of sources) and the SFT and eval rows. Paths
in it are relative to its folder. Loading reports all problems of pack, recipe and sources at once.
It reads no document.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, Literal, cast

from pydantic import AliasChoices, Field, field_validator, model_validator

from picochat.core.errors import BadInput, Problem, did_you_mean
from picochat.core.records import (
    Record,
    digest_file,
    digest_json,
    read_json,
    read_record,
    to_jsonable,
    write_json,
)
from picochat.data.document_shards import DocumentsManifest, read_manifest
from picochat.data.documents import SourceFile, file_path, list_source_files
from picochat.data.left_out import counted, ignored_files, pattern_of_text
from picochat.facts import RowSource

ALIASES = ("chat_input", "eval_input")
ROW_KEYS = ("chat", "eval")
TASK_PACK = "picochat data task-pack --dataset-pack {pack}"


class PackCorpus(Record):
    """Where the corpus is: one file or folder (`input`), or a recipe of several."""

    input: str | None = Field(
        default=None, description="one file or folder of documents, relative to the pack's folder"
    )
    recipe: str | None = Field(
        default=None, description="a corpus_recipe.json, relative to the pack's folder"
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> PackCorpus:
        if (self.input is None) == (self.recipe is None):
            raise ValueError('give exactly one of "input" and "recipe"')
        return self


class DatasetPack(Record):
    """`dataset_pack.json`. `chat` and `eval` may be absent or empty until a run needs them."""

    name: str | None = Field(
        default=None, description="name of the pack; default: the file's name without its ending"
    )
    description: str = Field(default="", description="what the pack is for, in a sentence")
    corpus: PackCorpus = Field(
        description="the text to train on: a path, or an object with one of `input` and `recipe`"
    )
    chat: str | None = Field(
        default=None,
        validation_alias=AliasChoices("chat", "chat_input"),
        description=(
            "SFT rows (JSON lines), relative to the pack's folder; `picochat data task-pack` makes"
            " them"
        ),
    )
    eval: str | None = Field(
        default=None,
        validation_alias=AliasChoices("eval", "eval_input"),
        description=(
            "eval rows (JSON lines), relative to the pack's folder; `picochat data task-pack` makes"
            " them"
        ),
    )

    rows_from: Literal["task-pack"] | None = Field(
        default=None,
        description=(
            "`task-pack` if `picochat data task-pack` made the rows; only then are skill exercises"
            " trained on unasked"
        ),
    )

    own_chat: str | None = Field(
        default=None, description="own rows that `picochat data task-pack --add` put into `chat`"
    )
    own_eval: str | None = Field(
        default=None, description="own rows that `picochat data task-pack --add` put into `eval`"
    )

    row_sources: list[RowSource] = Field(
        default_factory=list,
        description=(
            "where SFT rows that picochat did not make come from, with their licences;"
            " `picochat data task-pack --source hf` writes its public sets here"
        ),
    )

    @field_validator("row_sources")
    @classmethod
    def _labels_differ(cls, sources: list[RowSource]) -> list[RowSource]:
        if len({source.label for source in sources}) < len(sources):
            raise ValueError("two of them have one label")
        return sources

    @field_validator("corpus", mode="before")
    @classmethod
    def _path_is_input(cls, value: object) -> object:
        return {"input": value} if isinstance(value, str) else value


class RecipeSource(Record):
    """One source of a recipe."""

    path: str = Field(
        description=(
            "a file, or a folder that is read in sorted order; relative to the recipe's folder"
        )
    )
    label: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$",
        description=(
            "the source's name in reports and document ids, unique in the recipe; default: the name"
            " of its file or folder"
        ),
    )
    include: list[str] | None = Field(
        default=None,
        description=(
            "globs of the files to read, relative to `path`; default: all files of known kinds"
        ),
    )
    exclude: list[str] = Field(
        default_factory=list, description="globs of files to leave out, also of those in `include`"
    )
    reason: str | None = Field(
        default=None, description="why the source is in the recipe, for readers"
    )
    licence: str | None = Field(
        default=None,
        description=(
            "licence of the text, such as CC-BY-4.0, for report and model card; an import from the"
            " Hub has its own"
        ),
    )
    weight: float = Field(
        default=1.0,
        gt=0,
        le=100,
        description=(
            "how often a document is trained on in one pass: with 2.5 two or three times, with 0.25"
            " only a quarter of the documents; a hash of the id decides which"
        ),
    )
    min_chars: int | None = Field(
        default=None,
        ge=1,
        description=(
            "documents of this source with fewer characters are dropped and counted; data.min_chars"
            " applies if it is larger"
        ),
    )
    text_column: str = Field(
        default="text",
        description="the column or key that holds the text, in parquet and JSON lines",
    )


class CorpusRecipe(Record):
    """`corpus_recipe.json`."""

    name: str | None = Field(default=None, description="name of the recipe")
    description: str = Field(default="", description="what the corpus is, in a sentence")
    sources: list[RecipeSource] = Field(
        min_length=1, description="where the documents come from, read in this order"
    )
    exclude: list[str] = Field(
        default_factory=list, description="globs of files to leave out of every source"
    )
    exclude_documents: list[str] = Field(
        default_factory=list,
        description="ids of documents to leave out, as reports name them: LABEL:ID",
    )


PACK_KEYS = (
    f"keys of a pack: {', '.join(DatasetPack.model_fields)}; of its corpus:"
    f" {', '.join(PackCorpus.model_fields)}"
)
RECIPE_KEYS = (
    f"keys of a recipe: {', '.join(CorpusRecipe.model_fields)}; of a source:"
    f" {', '.join(RecipeSource.model_fields)}"
)


@dataclass(frozen=True)
class LoadedSource:
    """A source whose files exist. `manifest`: of a folder of imported documents, else None."""

    label: str
    path: Path
    files: tuple[SourceFile, ...]
    manifest: DocumentsManifest | None
    weight: float
    min_chars: int | None
    text_column: str
    own_licence: str | None

    @property
    def licence(self) -> str | None:
        """The licence that the import recorded, else the one that the recipe states."""
        provenance = self.manifest.provenance if self.manifest else None
        return (provenance.licence if provenance else None) or self.own_licence

    def least_chars(self, least_chars: int) -> int:
        """The length below which documents are dropped. `least_chars`: the run's setting."""
        return max(least_chars, self.min_chars or 1)

    def report_path(self) -> Path | None:
        """The import report that the documents name, if it still exists."""
        provenance = self.manifest.provenance if self.manifest else None
        path = self.path / provenance.report if provenance and provenance.report else None
        return path if path is not None and path.is_file() else None


@dataclass(frozen=True)
class LoadedPack:
    """A pack whose files all exist, paths resolved."""

    path: Path
    name: str
    pack: DatasetPack
    recipe: CorpusRecipe
    sources: tuple[LoadedSource, ...]
    chat_path: Path | None
    eval_path: Path | None

    def settings(self) -> dict[str, object]:
        """Settings that follow from the pack: no skill exercises beside rows of the user's own."""
        return {} if self.pack.rows_from else {"exercises.fraction": 0.0}

    def content_digest(self) -> str:
        """Equal for equal text that is treated alike, wherever pack and sources are.

        SFT and eval rows do not enter. Files without a stated digest are read (about 1 s per GB).
        """
        sources = [
            {
                "label": source.label,
                "weight": source.weight,
                "min_chars": source.min_chars,
                "text_column": source.text_column,
                "files": _source_digests(source),
            }
            for source in self.sources
        ]
        return digest_json(
            {"pack": self.portable_pack(), "recipe": self.portable_recipe(), "sources": sources}
        )

    @property
    def row_sources(self) -> list[RowSource]:
        return self.pack.row_sources

    def rows_digest(self) -> str:
        """Equal for equal SFT and eval rows of equal sources; an absent file counts as None."""
        digests: dict[str, object] = {
            key: digest_file(path) if path and path.is_file() else None
            for key, path in (("chat", self.chat_path), ("eval", self.eval_path))
        }
        return digest_json({**digests, "sources": to_jsonable(self.row_sources)})

    def portable_pack(self) -> dict[str, object]:
        """The pack without rows, and without the folders of absolute paths."""
        corpus = {
            kind: _portable(path) for kind, path in self.pack.corpus.model_dump(mode="json").items()
        }
        return {"name": self.name, "description": self.pack.description, "corpus": corpus}

    def portable_recipe(self) -> dict[str, object]:
        """The recipe with the label of every source, and without the folders of absolute paths."""
        recipe = self.recipe.model_dump(mode="json")
        for item, source in zip(recipe["sources"], self.sources, strict=True):
            item |= {"label": source.label, "path": _portable(item["path"])}
        return recipe


def load_pack(path: Path) -> LoadedPack:
    """The pack at `path`, a file or its folder. Raises BadInput that lists every problem."""
    path, pack = _read_pack(path)
    problems: list[Problem] = []
    recipe, folder = _load_recipe(path, pack)
    sources = _load_sources(recipe, folder, problems)
    chat_path = _rows_path(path, "chat", pack.chat, problems)
    eval_path = _rows_path(path, "eval", pack.eval, problems)
    if problems:
        raise BadInput(f"pack {path} is not usable", problems=problems)
    return LoadedPack(
        path, pack.name or path.stem, pack, recipe, tuple(sources), chat_path, eval_path
    )


@dataclass(frozen=True)
class PackRows:
    """A pack without its documents. The paths are None where it names no such rows."""

    path: Path
    chat_path: Path | None
    eval_path: Path | None


def load_pack_rows(path: Path) -> PackRows:
    """The files of rows that a pack names; its documents need not be on this machine.

    Raises BadInput as `load_pack` does.
    """
    path, pack = _read_pack(path)
    problems: list[Problem] = []
    found = PackRows(
        path,
        _rows_path(path, "chat", pack.chat, problems),
        _rows_path(path, "eval", pack.eval, problems),
    )
    if problems:
        raise BadInput(f"pack {path} is not usable", problems=problems)
    return found


def _read_pack(path: Path) -> tuple[Path, DatasetPack]:
    path = pack_file(path)
    if not path.is_file():
        state = "is a folder without a dataset_pack.json" if path.is_dir() else "does not exist"
        raise BadInput(
            f"pack {path} {state}",
            fix="name the dataset_pack.json with --dataset-pack; docs/examples shows some",
        )
    return path, read_record(DatasetPack, path, "pack", fix=PACK_KEYS)


def pack_file(path: Path) -> Path:
    """The pack's file; `path` is that file or its folder."""
    return path / "dataset_pack.json" if (path / "dataset_pack.json").is_file() else path


def own_rows_of_pack(pack_path: Path) -> dict[str, Path]:
    """The files of rows, by `chat` and `eval`, that `picochat data task-pack` did not make."""
    pack = read_record(DatasetPack, pack_path, "pack")
    own = (pack.own_chat, pack.own_eval) if pack.rows_from else (pack.chat, pack.eval)
    named = zip(ROW_KEYS, own, strict=True)
    return {key: pack_path.parent / Path(name).expanduser() for key, name in named if name}


def promote(
    pack_path: Path,
    chat: Path,
    eval: Path,
    own: Mapping[str, Path],
    public: Sequence[RowSource] = (),
) -> None:
    """Name these SFT and eval rows in the pack file, and the pack's own that are among them.

    own: by `chat` and `eval`; the sources of the pack's rows stay beside them. public: sources of
    the new SFT rows. The other keys of the pack do not change.
    """
    # The record only checks the file. Writing it would add the defaults of keys that are absent.
    before = read_record(DatasetPack, pack_path, "pack")
    value = cast("dict[str, Any]", read_json(pack_path, "pack"))
    replaced = (*ALIASES, *(f"own_{key}" for key in ROW_KEYS), "row_sources")
    promoted = {key: item for key, item in value.items() if key not in replaced}
    named = {"chat": chat, "eval": eval, **{f"own_{key}": path for key, path in own.items()}}
    for key, rows in named.items():
        promoted[key] = Path(os.path.relpath(rows, pack_path.parent)).as_posix()
    promoted["rows_from"] = "task-pack"
    new = {source.label for source in public}
    old = [s for s in before.row_sources if s.label not in new] if "chat" in own else []
    if old or public:
        promoted["row_sources"] = to_jsonable([*old, *public])
    write_json(pack_path, promoted)


def _source_digests(source: LoadedSource) -> dict[str, str]:
    """File name -> sha256, from the documents' manifest if it has it, else of the file."""
    return {
        file.name: file.sha256 or digest_file(file_path(source.path, file.name))
        for file in source.files
    }


def _portable(path: str | None) -> str | None:
    return Path(path).name if path is not None and Path(path).expanduser().is_absolute() else path


def _load_recipe(path: Path, pack: DatasetPack) -> tuple[CorpusRecipe, Path]:
    """The recipe and the folder of its paths; an `input` becomes a recipe of one source."""
    if pack.corpus.recipe is not None:
        recipe_path = path.parent / pack.corpus.recipe
        recipe = read_record(CorpusRecipe, recipe_path, f"recipe of pack {path},", fix=RECIPE_KEYS)
        return recipe, recipe_path.parent
    assert pack.corpus.input is not None
    return CorpusRecipe(sources=[RecipeSource(path=pack.corpus.input)]), path.parent


def _load_sources(
    recipe: CorpusRecipe, folder: Path, problems: list[Problem]
) -> list[LoadedSource]:
    sources: list[LoadedSource] = []
    labels: set[str] = set()
    for number, item in enumerate(recipe.sources):
        where = f"sources.{number} ({item.label or item.path})"
        source = _load_source(item, recipe.exclude, folder, where, problems)
        if source is None:
            continue
        if source.label in labels:
            what = f"{where}: another source has the label {source.label!r}"
            problems.append(Problem(what, "give each source its own label"))
        labels.add(source.label)
        sources.append(source)
    return sources


def _load_source(
    item: RecipeSource, exclude: list[str], folder: Path, where: str, problems: list[Problem]
) -> LoadedSource | None:
    path = Path(os.path.normpath(folder / Path(item.path).expanduser()))
    try:
        files = list_source_files(path, include=item.include, exclude=[*exclude, *item.exclude])
        manifest = read_manifest(path) if path.is_dir() else None
    except BadInput as error:
        fix = error.fix or (None if path.exists() else _remedy_for_absent(path))
        problems.append(Problem(f"{where}: {error.what}", fix))
        problems.extend(error.problems)
        return None
    if not files:
        left = ignored_files(path, [])
        pattern = pattern_of_text(left)
        what = (
            f"{where}: {path} holds no document file{f': it has {counted(left)}' if left else ''}"
        )
        fix = (
            f'"include": ["{pattern}"] of the source in a recipe reads those as text'
            if pattern and not item.include
            else "add files to it, or change include and exclude in the recipe"
        )
        problems.append(Problem(what, fix))
        return None
    label = item.label or label_of(path)
    return LoadedSource(
        label,
        path,
        tuple(files),
        manifest,
        item.weight,
        item.min_chars,
        item.text_column,
        item.licence,
    )


def _remedy_for_absent(path: Path) -> str:
    if path.with_name(f"{path.name}.work").exists():
        return (
            "its import was interrupted: repeat the command that has --documents-dir"
            f" {quote(str(path))}, which goes on"
        )
    siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, siblings)
    if hint:
        return f"correct the path{hint}"
    return (
        "name a file or a folder of text, or import it: picochat data hf-import --dataset"
        f" OWNER/NAME --out {quote(f'{path}.txt')} --documents-dir {quote(str(path))}"
    )


def label_of(path: Path) -> str:
    """The default label of a source: the name of its file or folder."""
    # Every import writes a folder `documents`, so there the folder above has the telling name.
    name = path.parent.name if path.name == "documents" else path.name
    return re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip("._-")[:80] or "source"


def _rows_path(path: Path, key: str, name: str | None, problems: list[Problem]) -> Path | None:
    if name is None:
        return None
    rows = Path(os.path.normpath(path.parent / Path(name).expanduser()))
    if not rows.is_file():
        what = f"{key}: {rows} {'is a folder' if rows.is_dir() else 'does not exist'}"
        fix = f'leave "{key}" out of the pack, or make rows of the skills: ' + TASK_PACK.format(
            pack=quote(str(path))
        )
        problems.append(Problem(what, fix))
        return None
    return rows
