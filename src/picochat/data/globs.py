"""Path patterns as recipes and dataset cards write them: `*` within one folder, `**` over folders,
`?`, `[abc]`.

Case matters, a leading `./` does not. Brace sets ({a,b}) are not known: cards and recipes list
patterns instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache


def matches_any(path: str, patterns: Iterable[str]) -> bool:
    """Whether a relative path with forward slashes fits one of the patterns as a whole."""
    return any(_compile(pattern).fullmatch(path) for pattern in patterns)


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
