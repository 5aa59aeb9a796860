"""What lies in a folder of data: its files, and what looks like data and cannot be read.

Links to files are followed, wherever they lead (download caches are made of them); links to folders
are not, so no loop is walked twice. Hidden files and folders never count. Opens nothing.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from picochat.core.errors import BadInput, Problem
from picochat.data.formats.rows import format_of


@dataclass(frozen=True)
class FolderListing:
    """Names relative to the folder, with forward slashes, sorted.

    `unusable`: name of a would-be data file -> why it is none.
    """

    files: list[str]
    unusable: dict[str, str]
    linked_folders: list[str]

    def require_usable(self, where: Path, names: list[str] | None = None) -> None:
        """Raises BadInput that lists the unusable ones, of `names` where given."""
        found = [name for name in self.unusable if names is None or name in names]
        if found:
            raise BadInput(
                f"{where} holds files that cannot be read",
                problems=[Problem(f"{ascii(name)[1:-1]}: {self.unusable[name]}") for name in found],
                fix="mend, rename or remove them",
            )


def list_folder(folder: Path) -> FolderListing:
    """Every visible file below the folder. Raises BadInput where a folder may not be read."""
    files: list[str] = []
    unusable: dict[str, str] = {}
    linked: list[str] = []
    for place, folders, names in os.walk(folder, onerror=_refuse_folder):
        below = Path(place).relative_to(folder)
        folders[:] = [name for name in folders if not name.startswith(".")]
        linked += [
            (below / name).as_posix()
            for name in folders
            if os.path.islink(os.path.join(place, name))
        ]
        for name in names:
            if name.startswith("."):
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


def _problem(path: str) -> str | None:
    """Why the path is no regular file with a name that text can hold."""
    try:
        path.encode()
        mode = os.stat(path).st_mode
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    except FileNotFoundError:
        return "a link to nothing"
    except OSError as error:
        return f"it cannot be reached ({error.strerror})"
    return None if stat.S_ISREG(mode) else f"{_kind(mode)}, not a file"


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for test, name in kinds if test(mode)), "something special")
