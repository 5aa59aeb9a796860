"""List the files of a data folder, and match names against patterns.

No file is opened. The patterns are those of recipes and dataset cards, without brace sets ({a,b}).
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath
from shlex import quote

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
                fix="remove them, or move them out of the folder",
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
    raise BadInput(
        f"folder {error.filename} cannot be read: {error.strerror}",
        fix=f"chmod u+rx {quote(str(error.filename))}, or move it away",
    )


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
    return any(_fits(path, _parts(pattern)) for pattern in patterns)


FOLDERS, ANYTHING, NAME, PLAIN, ONE = "**/", "**", "*", "plain text", "one character"


# fnmatch lets `*` cross folders, and PurePath.full_match needs Python 3.13. One regular expression
# for the whole pattern would take a time that grows by a power with each `*`, and the patterns of a
# dataset's card are a stranger's.
def _fits(path: str, parts: Sequence[tuple[str, str]]) -> bool:
    """Whether the parts match the path. Time: at most parts times characters."""
    ends = {0}  # where in the path the parts so far can end
    for kind, text in parts:
        if not ends:
            return False
        if kind == PLAIN:
            ends = {end + len(text) for end in ends if path.startswith(text, end)}
        elif kind == ONE:
            one = _character(text)
            ends = {end + 1 for end in ends if one.match(path[end : end + 1])}
        elif kind == ANYTHING:
            ends = set(range(min(ends), len(path) + 1))
        elif kind == FOLDERS:
            ends |= {end + 1 for end in range(min(ends), len(path)) if path[end] == "/"}
        else:
            ends = _within_folder(path, ends)
    return len(path) in ends


def _within_folder(path: str, starts: set[int]) -> set[int]:
    ends: set[int] = set()
    for start in sorted(starts):
        if start not in ends:  # else an earlier start has reached the same folder's end
            slash = path.find("/", start)
            ends.update(range(start, (len(path) if slash < 0 else slash) + 1))
    return ends


@lru_cache(maxsize=1024)
def _character(one: str) -> re.Pattern[str]:
    """The regular expression of `?` or of a set; a set may be negated by `!` or `^`."""
    if one == "?":
        return re.compile("[^/]")
    return re.compile(fnmatch.translate(f"[!{one[2:]}" if one[1] == "^" else one))


PART = re.compile(r"(\*\*/)|(\*\*)|(\*)|(\?|\[[!^]?\]?[^\]]*\])|([^*?\[]+|\[)", re.DOTALL)
KINDS_OF_PART = (FOLDERS, ANYTHING, NAME, ONE, PLAIN)


@lru_cache(maxsize=1024)
def _parts(pattern: str) -> tuple[tuple[str, str], ...]:
    """(kind, text) of each part of a pattern."""
    found = PART.finditer(pattern.removeprefix("./"))
    return tuple((KINDS_OF_PART[(part.lastindex or 1) - 1], part.group()) for part in found)
