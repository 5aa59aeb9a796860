"""Says which files of a folder or dataset are not read because of their endings.

Reading stops nowhere because of such files, so a person learns of them only from what is said here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

from picochat.data.document_shards import MANIFEST_NAME
from picochat.data.folders import list_folder
from picochat.data.formats.file_rows import NOT_TEXT, format_of
from picochat.present.printable import printable_line
from picochat.present.values import count

SHOWN_ENDINGS = 6
NO_ENDING = "(none)"
LINKED_FOLDER = "(linked folder)"


def by_ending(names: Iterable[str]) -> dict[str, int]:
    """Ending in lower case -> number of files, the most frequent first."""
    endings = (PurePosixPath(name).suffix.lower() or NO_ENDING for name in names)
    return dict(sorted(Counter(endings).items(), key=lambda item: (-item[1], item[0])))


def unread(names: Iterable[str]) -> dict[str, int]:
    """`by_ending` of those files whose endings stand for no format."""
    return by_ending(name for name in names if format_of(name) is None)


def ignored_files(path: Path, read: Collection[str]) -> dict[str, int]:
    """Ending -> number of files of a source folder that are not read because of their ending.

    read: names of the files that are read. Files that a recipe leaves out by name do not count.
    """
    if not path.is_dir() or (path / MANIFEST_NAME).exists():
        return {}
    listing = list_folder(path)
    found = unread(set(listing.files) - set(read))
    if listing.linked_folders:
        found[LINKED_FOLDER] = len(listing.linked_folders)
    return found


def counted(endings: Mapping[str, int]) -> str:
    """`1,204 .html, 3 .csv`: the files by ending; "" for none."""
    shown = [f"{count(number)} {printable_line(ending)}" for ending, number in endings.items()]
    rest = sum(list(endings.values())[SHOWN_ENDINGS:])
    return ", ".join([*shown[:SHOWN_ENDINGS], *([f"{count(rest)} others"] if rest else [])])


def pattern_of_text(endings: Mapping[str, int]) -> str | None:
    """The pattern of the most frequent ending that may be text, such as `**/*.html`."""
    texts = [name for name in endings if name.startswith(".") and name not in NOT_TEXT]
    return f"**/*{texts[0]}" if texts else None
