"""Makes text of other people safe to show: on a terminal, in one line, in Markdown.

HTML templates escape text themselves (templates.py), but escaping leaves control characters in
place, so text for HTML passes through this module too.
"""

from __future__ import annotations

import re

# Characters that change the reading order or are invisible. They are shown as their code points:
# otherwise a text could make the page around it read differently from what it says.
HIDDEN = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
BREAKS = re.compile("[\t\n\u2028\u2029]")
MARKDOWN_SPECIALS = ("\\", "|", "[", "`", "*")
EXCERPT_CHARACTERS = 400
EXCERPT_LINES = 12


def printable(text: str) -> str:
    """The text with control, invisible and reordering characters as `<U+NNNN>`.

    Line ends and tabs stay. The result is safe for a terminal; a page must also escape it.
    """
    return HIDDEN.sub(_by_number, CONTROL.sub(_by_number, text.replace("\r\n", "\n")))


def printable_line(text: str) -> str:
    """As `printable`, and line ends and tabs as `<U+NNNN>` too: the result is always one line."""
    return BREAKS.sub(_by_number, printable(text))


def cell(value: object) -> str:
    """Text for one cell of a Markdown table. It makes no link, image or tag."""
    text = printable(str(value))
    for special in MARKDOWN_SPECIALS:
        text = text.replace(special, f"\\{special}")
    return " ".join(text.replace("<", "&lt;").split())


def excerpt(value: object) -> str:
    """The beginning of a text, printable, and its length if it is cut. None is an empty text."""
    whole = "" if value is None else str(value)
    cut = "\n".join(whole[:EXCERPT_CHARACTERS].split("\n")[:EXCERPT_LINES])
    if cut == whole:
        return printable(whole)
    return f"{printable(cut)}... ({len(whole)} characters)"


def one_line(text: str, characters: int) -> str:
    """One printable line of at most `characters`: the lines of the text, joined by ` / `."""
    lines = (" ".join(line.split()) for line in text[: 3 * characters].splitlines())
    line = printable(" / ".join(filter(None, lines)))
    return line if len(line) <= characters else line[: characters - 3] + "..."


def _by_number(match: re.Match[str]) -> str:
    return f"<U+{ord(match.group()):04X}>"
