"""List the files of a data folder, and match names against patterns.

No file is opened. The patterns are those of recipes and dataset cards, without brace sets ({a,b}).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath

from picochat.core.errors import BadInput, Problem
from picochat.core.publish import JUNK_FOLDERS, is_junk
from picochat.data.formats.file_rows import format_of


@dataclass(frozen=True)
class FolderListing:
    """The visible files below a folder, as sorted relative names with forward slashes.

    unusable: name of a file that has a data ending and cannot be read -> the reason.
    """

    files: list[str]
    unusable: dict[str, str]
    linked_folders: list[str]

    def require_usable(self, where: Path, names: list[str] | None = None) -> None:
        """Raise BadInput that lists the unusable files (of `names`, if given), if there are any."""
        found = [name for name in self.unusable if names is None or name in names]
        if found:
            raise BadInput(
                f"{where} holds files that cannot be read",
                problems=[Problem(f"{ascii(name)[1:-1]}: {self.unusable[name]}") for name in found],
                fix="repair, rename or remove them",
            )


def list_folder(folder: Path) -> FolderListing:
    """List every visible file below the folder but those that a desktop left there.

    Raises BadInput if a folder cannot be read.
    """
    files: list[str] = []
    unusable: dict[str, str] = {}
    linked: list[str] = []
    # os.walk does not follow links to folders, so links cannot form a loop. Links to files are
    # followed, because the download caches of the Hub's tools consist of them.
    for place, folders, names in os.walk(folder, onerror=_refuse_folder):
        below = Path(place).relative_to(folder)
        folders[:] = [
            name for name in folders if not name.startswith(".") and name not in JUNK_FOLDERS
        ]
        links = (name for name in folders if os.path.islink(os.path.join(place, name)))
        linked += [(below / name).as_posix() for name in links]
        for name in names:
            if name.startswith(".") or is_junk(PurePath(name)):
                continue
            relative = (below / name).as_posix()
            problem = _problem(os.path.join(place, name))
            if problem is None:
                files.append(relative)
            elif format_of(name) is not None:
                unusable[relative] = problem
    return FolderListing(sorted(files), dict(sorted(unusable.items())), sorted(linked))


def _refuse_folder(error: OSError) -> None:
    raise BadInput(f"folder {error.filename} cannot be read: {error.strerror}")


KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def _problem(path: str) -> str | None:
    """Why the path is not a regular file with a UTF-8 name; None if it is one."""
    try:
        path.encode()
        mode = os.stat(path).st_mode
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    except FileNotFoundError:
        return "a link to nothing"
    except OSError as error:
        return f"it cannot be reached ({error.strerror})"
    if stat.S_ISREG(mode):
        return None
    # Opening a pipe would block for ever, so such files are found before anything is opened.
    kind = next((name for test, name in KINDS if test(mode)), "something special")
    return f"{kind}, not a file"


# ---- patterns ------------------------------------------------------------------------------------


def matches_any(path: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns matches the whole relative path, which has forward slashes.

    `*` matches within one folder, `**` across folders, `?` one character, `[abc]` a set. Case
    matters, a leading `./` does not.
    """
    return any(_compile(pattern).fullmatch(path) for pattern in patterns)


# `*` of fnmatch crosses folders, and PurePath.full_match needs Python 3.13.
@lru_cache(maxsize=1024)
def _compile(pattern: str) -> re.Pattern[str]:
    pattern = pattern.removeprefix("./")
    out, at = "", 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            out, at = out + "(?:.*/)?", at + 3
        elif pattern.startswith("**", at):
            out, at = out + ".*", at + 2
        else:
            piece, at = _piece(pattern, at)
            out += piece
    return re.compile(out, re.DOTALL)


def _piece(pattern: str, at: int) -> tuple[str, int]:
    """(regular expression, next position) of one character or one [set]."""
    character = pattern[at]
    if character == "*":
        return "[^/]*", at + 1
    if character == "?":
        return "[^/]", at + 1
    end = pattern.find("]", at + 2)
    if character == "[" and end > 0:
        inside = pattern[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
        inside = "^" + inside[1:] if inside[0] in "!^" else inside
        return f"[{inside}]", end + 1
    return re.escape(character), at + 1
