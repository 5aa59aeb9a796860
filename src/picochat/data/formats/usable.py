"""What a usable text is: the one judgement that imports, previews and corpora share, a named reason
for every refusal.

Length in words, language or quality do not count here; --min-chars and repeated texts are matters
of who reads.
"""

from __future__ import annotations

from typing import Final

LONGEST_DOCUMENT_CHARACTERS = (
    20_000_000  # some thirty novels; what is longer is a dump, and would be held in memory whole
)
LONGEST_LINE_BYTES = (
    64_000_000  # of a JSON lines or text file; a longer one is passed over without being held
)


class _Unread:
    """A value that a file has and that no text can stand for.

    `problem` is the reason that is counted.
    """

    def __init__(self, problem: str) -> None:
        self.problem = problem

    def __repr__(self) -> str:
        return f"<{self.problem}>"


MISSING: Final = _Unread("missing_text_column")
TOO_LONG: Final = _Unread("too_long")
NOT_UTF8: Final = _Unread("not_utf8")

TEXT_PROBLEMS: tuple[tuple[str, str], ...] = (
    # reason                 the row's text
    ("missing_text_column", "is absent"),
    ("text_not_string", "is null or of another type"),
    ("not_utf8", "is not UTF-8"),
    ("empty_text", "is empty or blank"),
    ("too_long", f"has more than {LONGEST_DOCUMENT_CHARACTERS:,} characters"),
    ("nul_character", "holds a NUL character"),
    ("lone_surrogate", "holds half of a surrogate pair"),
)


def text_problem(text: object) -> str | None:
    """Why a row has no usable text: one reason of TEXT_PROBLEMS, or None.

    The order of the tests is part of the promise.
    """
    return encoded_text(text)[0]


def encoded_text(text: object) -> tuple[str | None, bytes]:
    """(None, the text as UTF-8), or (the reason why there is none, no bytes)."""
    if not isinstance(text, str):
        return _problem_of_another_type(text), b""
    if not text or text.isspace():
        return "empty_text", b""
    if len(text) > LONGEST_DOCUMENT_CHARACTERS:
        return "too_long", b""
    if "\0" in text:
        return "nul_character", b""
    try:
        return None, text.encode()
    except UnicodeEncodeError:
        return "lone_surrogate", b""


def _problem_of_another_type(value: object) -> str:
    return value.problem if isinstance(value, _Unread) else "text_not_string"
