"""Makes a dataset pack of files and folders that somebody names, and says what it took.

The pack is two files, `dataset_pack.json` and `corpus_recipe.json`, that a person can edit. Equal
inputs give equal files, so that a repeated command finds its pack. Text is neither copied nor read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from picochat.core.errors import BadInput, WrongUsage
from picochat.core.progress import say
from picochat.core.publish import move_away, set_aside
from picochat.core.records import pretty_json, write_atomic
from picochat.data.documents import SourceFile, list_source_files
from picochat.data.formats.file_rows import ENDINGS
from picochat.data.left_out import by_ending, counted, ignored_files, pattern_of_text
from picochat.data.pack import label_of
from picochat.present.values import byte_quantity

PACK, RECIPE = "dataset_pack.json", "corpus_recipe.json"


@dataclass(frozen=True)
class PackInputs:
    """What a pack is made of.

    text: files and folders of documents. chat, eval: files of rows. include: globs, relative to
    each folder, of the files to read; without them every file of a known kind. licence: of the
    text, for report and model card.
    """

    text: Sequence[Path]
    chat: Path | None = None
    eval: Path | None = None
    include: Sequence[str] = ()
    licence: str | None = None


def pack_inputs(
    text: Sequence[Path] | None,
    chat: Path | None,
    eval: Path | None,
    include: Sequence[str] | None,
    licence: str | None,
) -> PackInputs | None:
    """The inputs of the command line; None without any.

    Raises WrongUsage for the others without text.
    """
    if text:
        return PackInputs(text, chat, eval, include or (), licence)
    if chat or eval or include or licence:
        raise WrongUsage(
            "--chat, --eval, --include and --license go with --input",
            fix=(
                "add --input FOLDER, or make a pack that names them: picochat data init-pack"
                " --input FOLDER --chat FILE --eval FILE --out-dir PACK"
            ),
        )
    return None


@dataclass(frozen=True)
class InitialPack:
    """path: the dataset_pack.json. lines: what was taken and what was left out."""

    path: Path
    lines: list[str]


def init_pack(
    inputs: PackInputs, folder: Path, *, force: bool = False, of_run: Path | None = None
) -> InitialPack:
    """Write the pack into `folder`.

    force: set aside another pack that is there. of_run: the run folder that the pack is for, whose
    own files must not become its corpus. Raises BadInput for an input that does not exist or holds
    no document, and WrongUsage if another pack is there.
    """
    sources: list[dict[str, object]] = []
    lines: list[str] = []
    taken: set[str] = set()
    for path in inputs.text:
        place = path.expanduser().resolve()
        if of_run is not None and _holds(place, of_run.resolve()):
            raise WrongUsage(
                f"the run folder {of_run} lies in the input {path}: its own files would be read",
                fix="name a run folder outside of it with --out-dir",
            )
        files = _files(path, place, inputs.include)
        label = _free_label(label_of(place), taken)
        taken.add(label)
        source: dict[str, object] = {"path": str(place), "label": label}
        if inputs.include and place.is_dir():
            source["include"] = list(inputs.include)
        if inputs.licence:
            source["licence"] = inputs.licence
        sources.append(source)
        lines += _taken(path, place, files)
    pack: dict[str, object] = {"corpus": {"recipe": RECIPE}}
    for key, rows in (("chat", inputs.chat), ("eval", inputs.eval)):
        if rows is not None:
            if not rows.is_file():
                state = "is a folder" if rows.is_dir() else "does not exist"
                raise BadInput(
                    f"--{key} {rows} {state}", fix="name a file of rows, .jsonl or .json"
                )
            pack[key] = str(rows.expanduser().resolve())
    files_of_pack = {PACK: pretty_json(pack), RECIPE: pretty_json({"sources": sources})}
    others = [
        folder / name
        for name, data in files_of_pack.items()
        if (folder / name).is_file() and (folder / name).read_bytes() != data
    ]
    if others and not force:
        raise _other_pack(others[0], of_run is not None)
    for path in others:
        say(f"{path} is another pack: it is now {set_aside(path).name}")
    for name, data in files_of_pack.items():
        write_atomic(folder / name, data)
    return InitialPack(folder / PACK, lines)


def _files(path: Path, place: Path, include: Sequence[str]) -> list[SourceFile]:
    if not place.exists():
        raise BadInput(f"--input {path} does not exist", fix="name a file or a folder of text")
    files = list_source_files(place, include=list(include) or None)
    if not files:
        left = ignored_files(place, [])
        has = f": it has {counted(left)}" if left else ""
        pattern = pattern_of_text(left)
        raise BadInput(
            f"--input {path} holds no file that is read{has}",
            fix=(
                f"--include '{pattern}' reads those as text"
                if pattern
                else f"name a folder with files of these endings: {ENDINGS}"
            ),
        )
    return files


def _holds(folder: Path, inner: Path) -> bool:
    return folder.is_dir() and (inner == folder or folder in inner.parents)


def _free_label(wanted: str, taken: set[str]) -> str:
    names = [wanted, *(f"{wanted[:76]}-{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in names if name not in taken)


def _taken(path: Path, place: Path, files: Sequence[SourceFile]) -> list[str]:
    """One line on the files that are read, and one on those that are not."""
    size = byte_quantity(sum(file.bytes for file in files))
    names = [file.name for file in files]
    lines = [f"{path}: {counted(by_ending(names))} taken, {size}"]
    left = ignored_files(place, names)
    if left:
        pattern = pattern_of_text(left)
        how = f"; --include '{pattern}' takes those alone" if pattern else ""
        lines.append(f"{path}: {counted(left)} left out{how}")
    return lines


def _other_pack(path: Path, of_run: bool) -> WrongUsage:
    """The refusal to replace a pack that was made of other inputs, or that a person edited."""
    pack = path.parent / PACK
    return WrongUsage(
        f"{path} is another pack, or was edited",
        fix=(
            f"--dataset-pack {quote(str(pack))} in place of --input and what goes with it takes"
            f" that pack; {move_away(path.parent)} lets this command make its own"
            if of_run
            else "--force sets it aside, or name another folder with --out-dir"
        ),
    )
